"""Values that `plumews serve` reads: numbers, rooms, secrets, certificate. Errors repeat no secret."""

from __future__ import annotations

import argparse
import errno
import re
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from plumews.cli import main as main_module
from plumews.cli import serve
from plumews.cli.inputs import (
    Failure,
    _rooms_of_file,
    allowed_host,
    make_auth,
    origin,
    permissions,
    rate,
    reason,
    room,
    room_entry,
    seconds,
    tls_context,
    trusted_proxy,
    unix_path,
    whole,
)
from plumews.cli.main import main
from support.command import SECRET, Serve, certificate, failure, on_one_loop, status, token
from support.raw_client import Wire, text


@pytest.fixture
def refusal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    """Return a `failure` that runs the command in this process, because it ends before it serves."""

    def refuse(*args: str) -> tuple[int, str]:
        code = main(args)
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1
        return code, err.rstrip("\n")

    def run(main: Any, loop: str) -> int:
        main.close()
        raise AssertionError("it serves")

    monkeypatch.setattr(main_module.logging, "basicConfig", lambda **options: None)
    monkeypatch.setattr(serve, "_run", run)
    return refuse


# --- rooms ----------------------------------------------------------------------------------------


@on_one_loop
async def test_protected_rooms_are_announced_without_passwords(serve: Serve) -> None:
    server = serve("--room", "chat=a=b", "--room", "lobby", "--room", "ops=hunter2", "--open-rooms")
    assert server.announced[1] == "rooms with a password: chat, ops; every other room is open"
    assert await status(server, "/ws?room=chat&room_password=a=b") == 101  # only the first = ends the name
    assert await status(server, "/ws?room=chat&room_password=a") == 403
    assert await status(server, "/ws?room=ops") == 403
    assert await status(server, "/ws?room=lobby") == 101
    assert await status(server, "/ws?room=never-heard-of") == 101


@on_one_loop
@pytest.mark.parametrize("more", [[], ["--only-known-rooms"]], ids=["alone", "said"])
async def test_rooms_that_are_not_named_are_closed(serve: Serve, more: list[str]) -> None:
    server = serve("--room", "chat=pw", "--room", "lobby", *more)
    assert server.announced[1] == "rooms with a password: chat; open rooms: lobby; there are no others"
    assert await status(server, "/ws?room=lobby") == 101
    assert await status(server, "/ws?room=chat&room_password=pw") == 101
    assert await status(server, "/ws?room=chat") == 403
    assert await status(server, "/ws?room=other") == 403
    async with await Wire.open(server, "/ws?room=other&auth=message") as wire:
        wire.send(text('{"type": "auth"}'))
        assert await wire.closing() == (4403, "forbidden: unknown room")
    for path in ("/ws", "/members?room=other"):
        assert await status(server, path) == 403


@on_one_loop
async def test_rooms_are_read_from_a_file(serve: Serve, tmp_path: Path) -> None:
    rooms = tmp_path / "rooms"
    rooms.write_bytes("\ufeffchat=pässword \r\n\n#open\nops=x".encode())
    server = serve("--rooms-file", str(rooms))
    assert server.announced[1] == "rooms with a password: chat, ops; open rooms: #open; there are no others"
    assert await status(server, "/ws?room=chat&room_password=p%C3%A4ssword%20") == 101
    assert await status(server, "/ws?room=ops&room_password=x") == 101
    assert await status(server, "/ws?room=%23open") == 101


@pytest.mark.parametrize(
    ("text", "entry"),
    [("chat", ("chat", None)), ("chat=pw", ("chat", "pw")), ("chat==a=b ", ("chat", "=a=b ")), ("é=ü", ("é", "ü"))],
)
def test_first_equals_sign_ends_the_name_of_a_room(text: str, entry: tuple[str, str | None]) -> None:
    assert room_entry(text) == entry


@pytest.mark.parametrize("text", ["=hunter2", "a\n=hunter2", "a=" + "hunter2" * 1000, "a=hunter2\udcff"])
def test_error_of_a_wrong_room_entry_holds_no_password(text: str) -> None:
    with pytest.raises(ValueError, match=r"NAME=PASSWORD or NAME|for an open room give a alone") as caught:
        room_entry(text)
    assert "hunter2" not in str(caught.value)


def test_rooms_file_without_rooms_is_refused(tmp_path: Path) -> None:
    rooms = tmp_path / "rooms"
    rooms.write_text("\n")
    with pytest.raises(Failure, match="names no room, so that nobody could enter: --open-rooms opens all others"):
        make_auth([], str(rooms), None, only_known_rooms=True)
    assert make_auth([], str(rooms), None, only_known_rooms=False).describe().endswith("every other room is open")


def test_room_given_on_the_command_line_and_in_the_file_fails(tmp_path: Path) -> None:
    rooms = tmp_path / "rooms"
    rooms.write_text("ops\nchat=hunter2\n")
    with pytest.raises(Failure, match=r"^room chat is given twice: give each room once, with one password$"):
        make_auth([("chat", "pw")], str(rooms), None, only_known_rooms=False)


# --- secrets --------------------------------------------------------------------------------------


@pytest.mark.parametrize("newline", [b"", b"\n", b"\r\n"], ids=["none", "LF", "CRLF"])
async def test_token_is_checked_with_the_secret_of_the_file(serve: Serve, tmp_path: Path, newline: bytes) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(SECRET + newline)
    server = serve("--secret-file", str(secret), "--require-token")
    assert await status(server, "/ws") == 401
    assert await status(server, f"/ws?token={token()}") == 101
    assert await status(server, f"/ws?token={token(exp=1)}") == 403
    assert await status(server, "/ws", f"Authorization: Bearer {token()}") == 101


def test_broadcast_secret_must_differ_from_the_token_secret(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(SECRET)
    code, line = failure("serve", "--secret-file", str(path), "--broadcast-secret-file", str(path))
    assert code == 1
    assert "it must not hold the secret of --secret-file" in line
    assert SECRET.decode() not in line


# --- certificate ----------------------------------------------------------------------------------


@pytest.mark.parametrize("files", ["two files", "one file"])
async def test_certificate_and_key_serve_tls(serve: Serve, tmp_path: Path, files: str) -> None:
    cert, key = certificate(tmp_path)
    if files == "one file":
        cert.write_bytes(cert.read_bytes() + key.read_bytes())
        server = serve("--tls-cert", str(cert))
    else:
        server = serve("--tls-cert", str(cert), "--tls-key", str(key))
    assert server.url == f"https://127.0.0.1:{server.port}/"
    context = ssl.create_default_context(cafile=cert)
    async with await Wire.open(server, "/ws", ssl=context, server_hostname="localhost") as wire:
        wire.send(text("hello"))
        assert await wire.message() == "hello"


def test_key_of_another_certificate_fails(refusal: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    cert, _ = certificate(tmp_path)
    _, key = certificate(tmp_path / "other")
    code, line = refusal("serve", "--tls-cert", str(cert), "--tls-key", str(key))
    assert code == 1
    assert line.endswith("must hold a PEM certificate chain and its private key: key values mismatch")
    code, line = refusal("serve", "--tls-cert", str(cert), "--tls-key", str(tmp_path / "absent"))
    assert line.endswith("absent cannot be read: no such file or directory")


def test_without_a_certificate_there_is_no_tls() -> None:
    assert tls_context(None, None) is None


# --- wrong files ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "content", "said"),
    [
        ("--secret-file", None, "cannot be read: no such file or directory"),
        ("--secret-file", b"short", "jwt secret too weak: minimum 32 bytes required, got 5"),
        ("--secret-file", SECRET[1:] + b"\n", "minimum 32 bytes required, got 31"),
        ("--rooms-file", None, "cannot be read: no such file or directory"),
        ("--rooms-file", b"a=\xff", "must be UTF-8 text, with NAME=PASSWORD on each line"),
        ("--rooms-file", b"good=1\n\n=hunter2", "line 3: invalid room name: it must be 1 to 128 bytes"),
        ("--rooms-file", b"chat=\n", "line 1: the password of room chat must be text of 1 to 4096 bytes"),
        ("--rooms-file", b"a=hunter2\na\n", "room a is given twice"),
        ("--metrics-token-file", None, "cannot be read: no such file or directory"),
        ("--metrics-token-file", b"hunter2", "the token has 7 characters and must have 16 to 8192"),
        ("--metrics-token-file", b"hunter2\nhunter2hunter2", "the token must be visible ASCII, without spaces"),
        ("--broadcast-secret-file", b"hunter2", "must be at least 32 bytes, and has 7"),
        ("--tls-cert", None, "cannot be read: no such file or directory"),
        ("--tls-cert", b"hunter2", "must hold a PEM certificate chain and its private key"),
    ],
)
def test_bad_file_ends_with_1_and_one_line(
    refusal: Callable[..., tuple[int, str]], tmp_path: Path, option: str, content: bytes | None, said: str
) -> None:
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    code, line = refusal("serve", option, str(path), *(["--metrics"] if "metrics" in option else []))
    assert code == 1
    assert said in line
    assert "hunter2" not in line


def test_process_ends_with_1_for_a_bad_file(tmp_path: Path) -> None:
    code, line = failure("serve", "--secret-file", str(tmp_path / "absent"))
    assert code == 1
    assert line.endswith("absent cannot be read: no such file or directory")


def test_failure_of_a_binary_rooms_file_holds_no_password(tmp_path: Path) -> None:
    path = tmp_path / "rooms"
    path.write_bytes(b"lobby=hunter2\xff")
    with pytest.raises(Failure) as caught:
        list(_rooms_of_file(str(path)))
    exc: BaseException | None = caught.value
    while exc is not None:
        assert b"hunter2" not in repr(vars(exc)).encode() + repr(exc).encode()
        assert not isinstance(exc, UnicodeDecodeError)
        exc = exc.__cause__ or exc.__context__


def test_reason_is_the_message_of_the_system_alone() -> None:
    assert reason(OSError(errno.ENOENT, "error while attempting to bind on address")) == "no such file or directory"
    assert reason(socket.gaierror(socket.EAI_NONAME, "Name or service not known")) == "name or service not known"
    assert reason(UnicodeError("label too long")) == "label too long"


# --- readers of option values ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("read", "given", "value"),
    [
        (whole(1), "1", 1),
        (whole(0, 65535), "65535", 65535),
        (seconds, "0", 0.0),
        (seconds, "1e3", 1000.0),
        (rate, "0", 0.0),
        (rate, "0.5", 0.5),
        (room, "lobby", ("lobby", None)),
        (room, "vault=a=b", ("vault", "a=b")),
        (origin, "https://example.com", "https://example.com"),
        (allowed_host, "*.example.com", "*.example.com"),
        (trusted_proxy, "10.0.0.0/8", "10.0.0.0/8"),
        (trusted_proxy, "unix", "unix"),
        (unix_path, "/run/app.sock", "/run/app.sock"),
        (unix_path, "./@file", "./@file"),
        (permissions, "0660", 0o660),
        (permissions, "0o600", 0o600),
    ],
)
def test_reader_returns_the_value_of_a_valid_text(read: Callable[[str], object], given: str, value: object) -> None:
    assert read(given) == value
    assert type(read(given)) is type(value)


@pytest.mark.parametrize(
    ("read", "given", "said"),
    [
        (whole(1), "0", "must be a whole number, at least 1, not '0'"),
        (whole(0, 65535), "65536", "must be a whole number, from 0 to 65535, not '65536'"),
        (whole(0), "1.5", "must be a whole number"),
        (seconds, "-1", "must be a number of seconds, 0 or more, not '-1'"),
        (seconds, "nan", "must be a number of seconds"),
        (seconds, "inf", "must be a number of seconds"),
        (rate, "1e12", "must be 0, or "),
        (rate, "-0.5", "must be 0, or "),
        (origin, "example.com", "expected http:// or https://"),
        (allowed_host, "example.com:80", "without a port"),
        (trusted_proxy, "10.0.0.1/8", "10.0.0.1/8"),
        (unix_path, "", "must not be empty"),
        (permissions, "1777", "must be permissions in octal, such as 660, not '1777'"),
        (permissions, "rw", "must be permissions in octal"),
        (permissions, "-1", "must be permissions in octal"),
    ],
)
def test_reader_refuses_a_wrong_text_and_says_what_is_expected(
    read: Callable[[str], object], given: str, said: str
) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=re.escape(said)):
        read(given)


def test_error_of_a_wrong_room_option_holds_no_password() -> None:
    with pytest.raises(argparse.ArgumentTypeError) as caught:
        room("vault=" + "hunter2" * 1000)
    assert "hunter2" not in str(caught.value)
