"""The command `plumews`: real processes, real sockets, real signals.

Tests of how it begins and ends run on both loops, and the server in its process runs on the same one. What an option
means is no matter of the loop, since it is `serve_rooms` that makes it true, and is tested there on both: those tests
run on one. A process of its own is for what only a process has; what ends the command before it serves is asked of
`main` itself.
"""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import json
import re
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

import plumews
from command import STOP_SIGNALS, Command
from conftest import loops
from plumews import cli, cli_options, cli_serve, limits
from plumews.admission import AdmissionLimits
from plumews.cli import main
from plumews.constants import Opcode
from wire import Wire, close, text, upgrade

Serve = Callable[..., Command]

SECRET = b"0123456789abcdef0123456789abcdef"


#: For tests in which the loop does not matter: that which the command takes by itself.
on_one_loop = pytest.mark.parametrize("anyio_backend", loops()[-1:], indirect=True)


@pytest.fixture
def serve(anyio_backend: tuple[str, dict[str, Any]]) -> Iterator[Serve]:
    """Starts ``plumews serve`` on a free port, on the loop of the test."""
    loop = "uvloop" if anyio_backend[1]["use_uvloop"] else "asyncio"
    with ExitStack() as stack:

        def start(*args: str) -> Command:
            where = () if "--unix" in args else ("--port", "0")
            return stack.enter_context(Command("serve", *where, "--loop", loop, *args)).started()

        yield start


async def status(server: Command, path: str, *lines: str, **options: Any) -> int:
    """The status with which ``path`` is answered to somebody who asks for a WebSocket."""
    async with await Wire.connect(server) as wire:
        wire.writer.write(upgrade(path, *lines, **options))
        await wire.read_head()
        return wire.status


async def get(server: Command, path: str, *lines: str) -> tuple[int, bytes]:
    async with await Wire.connect(server) as wire:
        head = "\r\n".join([f"GET {path} HTTP/1.1", "Host: localhost", *lines])
        return await wire.response(f"{head}\r\n\r\n".encode())


def token(**claims: Any) -> str:
    return jwt.encode({"sub": "ada", **claims}, SECRET, algorithm="HS256")


# --- serving --------------------------------------------------------------------------------------


async def test_it_announces_its_address_and_serves_rooms(serve: Serve) -> None:
    server = serve()
    assert re.fullmatch(r"plumews is serving at http://127\.0\.0\.1:\d+/ \(Ctrl-C stops\)", server.announced[0]), (
        server.announced
    )
    assert server.announced[1] == "rooms with a password: none; every other room is open"
    async with await Wire.open(server, "/ws?room=a") as ada, await Wire.open(server, "/ws?room=a") as bob:
        ada.send(text("hello"))
        assert await ada.message() == "hello"
        assert await bob.message() == "hello"
    code, body = await get(server, "/healthz")
    assert (code, json.loads(body)["status"]) == (200, "ok")
    assert (await get(server, "/"))[0] == 200


@on_one_loop
async def test_protected_rooms_are_named_without_their_passwords(serve: Serve) -> None:
    server = serve("--room", "chat=a=b", "--room", "lobby", "--room", "ops=hunter2")
    assert server.announced[1] == "rooms with a password: chat, ops; every other room is open"
    assert await status(server, "/ws?room=chat&room_password=a=b") == 101  # only the first = ends the name
    assert await status(server, "/ws?room=chat&room_password=a") == 403
    assert await status(server, "/ws?room=ops") == 403
    assert await status(server, "/ws?room=lobby") == 101
    assert await status(server, "/ws?room=never-heard-of") == 101


@on_one_loop
async def test_only_known_rooms_may_be_open_or_have_a_password(serve: Serve) -> None:
    server = serve("--room", "chat=pw", "--room", "lobby", "--only-known-rooms")
    assert server.announced[1] == "rooms with a password: chat; open rooms: lobby; there are no others"
    assert await status(server, "/ws?room=lobby") == 101
    assert await status(server, "/ws?room=chat&room_password=pw") == 101
    assert await status(server, "/ws?room=chat") == 403
    assert await status(server, "/ws?room=other") == 403
    async with await Wire.open(server, "/ws?room=other&auth=message") as wire:
        wire.send(text('{"type": "auth"}'))
        assert await wire.closing() == (4403, "forbidden: unknown room")


@on_one_loop
async def test_a_file_of_rooms(serve: Serve, tmp_path: Path) -> None:
    rooms = tmp_path / "rooms"
    rooms.write_bytes("\ufeffchat=pässword \r\n\n#open\nops=x".encode())
    server = serve("--rooms-file", str(rooms), "--only-known-rooms")
    assert server.announced[1] == "rooms with a password: chat, ops; open rooms: #open; there are no others"
    assert await status(server, "/ws?room=chat&room_password=p%C3%A4ssword%20") == 101
    assert await status(server, "/ws?room=ops&room_password=x") == 101
    assert await status(server, "/ws?room=%23open") == 101


@on_one_loop
async def test_secrets_in_the_query_can_be_turned_off(serve: Serve) -> None:
    server = serve("--room", "chat=pw", "--no-query-secrets")
    assert await status(server, "/ws?room=chat&room_password=pw") == 403
    assert await status(server, "/ws?room=chat", "X-WebSocket-Room-Password: pw") == 101


@on_one_loop
@pytest.mark.parametrize("newline", [b"", b"\n", b"\r\n"], ids=["none", "LF", "CRLF"])
async def test_a_token_is_checked_with_the_secret_of_the_file(serve: Serve, tmp_path: Path, newline: bytes) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(SECRET + newline)
    server = serve("--secret-file", str(secret), "--require-token")
    assert await status(server, "/ws") == 401
    assert await status(server, f"/ws?token={token()}") == 101
    assert await status(server, f"/ws?token={token(exp=1)}") == 403
    assert await status(server, "/ws", f"Authorization: Bearer {token()}") == 101


@on_one_loop
async def test_without_require_token_a_token_may_be_absent_but_not_wrong(serve: Serve, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(SECRET)
    server = serve("--secret-file", str(secret))
    assert await status(server, "/ws") == 101
    assert await status(server, "/ws?token=a.b.c") == 403


@on_one_loop
async def test_limits_of_members(serve: Serve) -> None:
    server = serve("--max-connections", "2", "--max-room-connections", "1")
    async with await Wire.open(server, "/ws?room=a"):
        assert await status(server, "/ws?room=a") == 429
        async with await Wire.open(server, "/ws?room=b"):
            assert await status(server, "/ws?room=c") == 503


@on_one_loop
async def test_max_size_bounds_a_message(serve: Serve) -> None:
    server = serve("--max-size", "5")
    async with await Wire.open(server, "/ws") as wire:
        wire.send(text("12345"), text("123456"))
        assert await wire.message() == "12345"
        assert (await wire.closing())[0] == 1009


@on_one_loop
async def test_without_echo_a_member_hears_only_the_others(serve: Serve) -> None:
    server = serve("--no-echo")
    async with await Wire.open(server, "/ws") as ada, await Wire.open(server, "/ws") as bob:
        ada.send(text("from ada"))
        assert await bob.message() == "from ada"
        bob.send(text("from bob"))
        assert await ada.message() == "from bob"


@on_one_loop
async def test_without_the_page_the_address_is_that_of_the_websocket(serve: Serve) -> None:
    server = serve("--no-page")
    assert server.url == f"ws://127.0.0.1:{server.port}/ws?room=NAME"
    assert (await get(server, "/"))[0] == 404


@on_one_loop
async def test_other_origins_and_hosts_are_let_in_where_they_are_named(serve: Serve) -> None:
    foreign = "Origin: https://example.com"
    server = serve()
    assert await status(server, "/ws", foreign) == 403
    assert await status(server, "/ws", host="chat.example.com") == 403
    server = serve("--origin", "https://example.com", "--allowed-host", "*.example.com")
    assert await status(server, "/ws", foreign, host="chat.example.com") == 101
    assert await status(server, "/ws", "Origin: https://example.org", host="chat.example.com") == 403


@on_one_loop
async def test_pings_come_as_often_as_was_said(serve: Serve) -> None:
    server = serve("--ping-interval", "0.05")
    async with await Wire.open(server, "/ws") as wire:
        kind, _ = await wire.event()
        assert kind == Opcode.PING


@on_one_loop
async def test_the_log_goes_to_stderr_and_says_no_more_than_it_should(serve: Serve) -> None:
    for options, lines in ((), 0), (("-v",), 1):
        server = serve("--room", "chat=secret-password", *options)
        assert await status(server, "/ws?room=chat&room_password=wrong-password") == 403
        server.stop()
        code, _, err = server.end()
        refusals = [line for line in err if "refused 403" in line]
        assert (code, len(refusals)) == (0, lines), err
        assert "password=" not in "".join(err)
        assert "-password" not in "".join(err)


@pytest.mark.parametrize(
    ("options", "level"),
    [
        ([], "WARNING"),
        (["-v"], "DEBUG"),
        (["--log-level", "debug"], "DEBUG"),
        (["-v", "--log-level", "error"], "ERROR"),
    ],
)
def test_how_much_is_logged(monkeypatch: pytest.MonkeyPatch, options: list[str], level: str) -> None:
    told: list[str] = []
    monkeypatch.setattr(cli.logging, "basicConfig", lambda **options: told.append(options["level"]))
    monkeypatch.setattr(cli, "run_serve", lambda args: 0)
    assert main(["serve", *options]) == 0
    assert told == [level]


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for localhost that vouches for itself, and its key, as files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    hour = datetime.timedelta(hours=1)
    names: list[x509.GeneralName] = [
        x509.DNSName("localhost"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
    ]
    cert = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now - hour, now + hour)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = folder / "cert.pem", folder / "key.pem"
    files[0].write_bytes(cert.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files


@pytest.mark.parametrize("files", ["two files", "one file"])
async def test_tls(serve: Serve, tmp_path: Path, files: str) -> None:
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


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="this system has no Unix sockets")
async def test_a_unix_socket_is_gone_with_its_server_and_survives_a_dead_one(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "s"
    for _ in range(2):
        server = serve("--unix", str(path))
        assert server.announced[0] == f"plumews is serving at unix:{path} (Ctrl-C stops)"
        async with await Wire.open(server, "/ws") as wire:
            wire.send(text("hello"))
            assert await wire.message() == "hello"
            server.process.kill()
            await wire.eof()
        server.end()
        assert path.is_socket()
    server = serve("--unix", str(path))
    server.stop()
    assert server.end()[0] == 0
    assert not path.exists()


# --- being seen ---------------------------------------------------------------------------------------


@on_one_loop
async def test_metrics_are_told_to_this_machine_and_to_nobody_who_comes_through_a_proxy(serve: Serve) -> None:
    server = serve("--metrics")
    async with await Wire.open(server, "/ws?room=secret-room"):
        code, body = await get(server, "/metrics")
    assert code == 200
    for line in (
        b'plumews_hub_connections{hub="default"} 1.0\n',
        b'plumews_hub_websockets_opened_total{hub="default"} 1.0\n',
        b"process_cpu_seconds_total " if sys.platform == "linux" else b"python_info",
    ):
        assert line in body
    assert b"secret-room" not in body
    assert (await get(server, "/metrics", "X-Forwarded-For: 192.0.2.1"))[0] == 403
    assert (await get(serve(), "/metrics"))[0] == 404


@on_one_loop
async def test_with_a_token_metrics_are_told_to_who_has_it(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("0123456789abcdef\n")
    server = serve("--metrics", "--metrics-token-file", str(path))
    assert (await get(server, "/metrics"))[0] == 401
    through_a_proxy = ("Authorization: Bearer 0123456789abcdef", "X-Forwarded-For: 192.0.2.1")
    assert (await get(server, "/metrics", *through_a_proxy))[0] == 200


@on_one_loop
async def test_the_names_of_rooms_are_told_to_this_machine_unless_something_speaks_against_it(serve: Serve) -> None:
    proxy = "Via: 1.1 proxy"
    server = serve()
    assert (await get(server, "/rooms.json"))[0] == 200
    assert (await get(server, "/rooms.json", proxy))[0] == 204
    assert (await get(serve("--allowed-host", "localhost"), "/rooms.json"))[0] == 204
    assert (await get(serve("--rooms-table", "everybody"), "/rooms.json", proxy))[0] == 200


# --- stopping -------------------------------------------------------------------------------------


def stopped(closed: str, cut: int) -> list[str]:
    """The last words of a server whose members had read everything."""
    return [
        "stopping; a second Ctrl-C ends at once",
        f"closed {closed}, cut {cut}; delivered 0 messages that waited, lost 0",
    ]


async def says_goodbye(wire: Wire, most: float = 5.0) -> None:
    """A close frame with 1001 and a hint, answered, and the end."""
    code, reason = await wire.closing()
    assert code == 1001
    hint = re.fullmatch(r"reconnect in (\d+\.\d) s", reason)
    assert hint, reason
    assert float(hint[1]) <= most
    wire.send(close(1001))
    await wire.eof()
    wire.writer.close()


@pytest.mark.parametrize("name", STOP_SIGNALS)
async def test_a_signal_closes_everybody_with_1001_and_ends_well(serve: Serve, name: str) -> None:
    server = serve()
    members = [await Wire.open(server, "/ws?room=a") for _ in range(3)]
    watcher = await Wire.open(server, "/members?room=a")
    assert json.loads(await watcher.message())["members"] == 3
    server.stop(STOP_SIGNALS[name])
    for wire in (*members, watcher):
        await says_goodbye(wire)
    assert server.end() == (0, stopped("3 connections", 0), [])


async def test_what_was_said_before_the_signal_is_read_before_the_end(serve: Serve) -> None:
    server = serve("--shutdown-timeout", "1000")
    said = [f"{number:06}" + "x" * 30_000 for number in range(60)]
    async with (
        await Wire.open(server, "/ws?room=a") as ada,
        await Wire.open(server, "/ws?room=a", rcvbuf=4096) as slow,
    ):
        for message in said:  # one after the other: ada's own queue never is full
            ada.send(text(message))
            assert await ada.message() == message
        server.stop(STOP_SIGNALS[next(reversed(STOP_SIGNALS))])
        await says_goodbye(ada)
        for message in said[:30]:  # as far as its queue of 1 MiB reaches, whatever the system's holds
            assert await slow.message() == message
        while (event := await slow.event())[0] != Opcode.CLOSE:
            assert event[1] in said
        slow.send(close(1001))
        await slow.eof()
    code, lines, err = server.end()
    assert (code, err) == (0, [])
    assert re.fullmatch(r"closed 2 connections, cut 0; delivered \d+ messages? that waited, lost 0", lines[1])


@on_one_loop
async def test_what_a_member_did_not_read_in_time_is_lost_and_counted(serve: Serve) -> None:
    server = serve("--shutdown-timeout", "1", "--send-behavior", "drop")
    async with (
        await Wire.open(server, "/ws?room=a") as ada,
        await Wire.open(server, "/ws?room=a", rcvbuf=4096),
    ):
        for _ in range(120):  # more than the socket and the queue can hold together
            ada.send(text("x" * 60_000))
            await ada.message()
        server.stop()
        await says_goodbye(ada)
        code, lines, err = server.end()
    assert code == 0
    logged = r".* WARNING plumews\.hub: slow members: \d+ messages dropped, 1 members concerned, 0 of them closed"
    assert err
    assert all(re.fullmatch(logged, line) for line in err)
    counts = re.fullmatch(r"closed 1 connection, cut 1; delivered 0 messages that waited, lost (\d+)", lines[1])
    assert counts, lines
    assert 0 < int(counts[1]) <= 64


@on_one_loop
async def test_members_are_told_to_leave_over_the_time_that_was_given(serve: Serve) -> None:
    server = serve("--shutdown-spread", "0.5", "--reconnect-in", "60")
    members = [await Wire.open(server, "/ws") for _ in range(10)]
    server.stop()
    began = time.monotonic()
    times: list[float] = []

    async def leave(wire: Wire) -> None:
        await says_goodbye(wire, 60)
        times.append(time.monotonic() - began)

    await asyncio.gather(*map(leave, members))
    assert server.end()[:2] == (0, stopped("10 connections", 0))
    assert max(times) - min(times) > 0.2


@on_one_loop
async def test_the_hint_can_be_turned_off(serve: Serve) -> None:
    server = serve("--reconnect-in", "0")
    async with await Wire.open(server, "/ws") as wire:
        server.stop()
        assert await wire.closing() == (1001, "")
        wire.send(close(1001))
        await wire.eof()
    assert server.end()[0] == 0


@pytest.mark.parametrize("name", STOP_SIGNALS)
async def test_a_second_signal_ends_at_once(serve: Serve, name: str) -> None:
    server = serve()
    async with await Wire.open(server, "/ws") as wire:
        server.stop(STOP_SIGNALS[name])
        assert server.line() == "stopping; a second Ctrl-C ends at once"
        assert (await wire.closing())[0] == 1001  # which this client does not answer
        server.stop(STOP_SIGNALS[name])
        number = {"SIGINT": 2, "SIGTERM": 15, "CTRL_BREAK_EVENT": 21}[name]
        assert server.end() == (128 + number, [], [])


async def test_who_does_not_answer_is_cut_when_the_time_is_over(serve: Serve) -> None:
    server = serve("--shutdown-timeout", "1.5")  # in which the polite one has to be heard
    async with await Wire.open(server, "/ws") as silent, await Wire.open(server, "/ws") as polite:
        server.stop()
        await polite.closing()
        polite.send(close(1001))
        assert (await silent.closing())[0] == 1001
        await silent.eof()
    assert server.end()[:2] == (0, stopped("1 connection", 1))


@on_one_loop
async def test_a_connection_without_a_request_does_not_hold_up_the_end(serve: Serve) -> None:
    server = serve("--shutdown-timeout", "1000")
    async with await Wire.connect(server) as wire:
        assert (await get(server, "/healthz"))[0] == 200  # by now the connection before it was accepted
        began = time.monotonic()
        server.stop()
        assert server.end() == (0, stopped("0 connections", 0), [])
        assert time.monotonic() - began < 9  # the 10 s for a close are not waited for
        await wire.read_head()
        assert wire.status == 503  # not 408, which it would be told when its time was over


@on_one_loop
async def test_a_watcher_that_does_not_answer_does_not_hold_up_the_end(serve: Serve) -> None:
    server = serve("--shutdown-timeout", "1000")
    async with await Wire.open(server, "/members") as silent:
        began = time.monotonic()
        server.stop()
        assert (await silent.closing())[0] == 1001
        assert server.end() == (0, stopped("0 connections", 0), [])
        assert time.monotonic() - began < 9  # the 10 s for a close are not waited for


async def test_while_it_stops_nobody_is_let_in(serve: Serve) -> None:
    server = serve()
    async with await Wire.open(server, "/ws") as wire:
        server.stop()
        await wire.closing()
        assert await status(server, "/ws") == 503


# --- what goes wrong ------------------------------------------------------------------------------


def failure(*args: str) -> tuple[int, str]:
    """Exit code and stderr of a command that must fail, saying so in one line."""
    with Command(*args) as command:
        code, out, err = command.end()
    assert out == []
    assert len(err) == 1, err
    return code, err[0]


@pytest.fixture
def refusal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    """As `failure`, of a command that ends before it serves: it needs no process of its own."""

    def refuse(*args: str) -> tuple[int, str]:
        code = main(args)
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1
        return code, err.rstrip("\n")

    def run(main: Any, loop: str) -> int:
        main.close()
        raise AssertionError("it serves")

    monkeypatch.setattr(cli.logging, "basicConfig", lambda **options: None)
    monkeypatch.setattr(cli_serve, "_run", run)
    return refuse


def test_a_port_in_use(tmp_path: Path) -> None:
    for loop in cli_loops():
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            code, line = failure("serve", "--port", str(port), "--loop", loop)
            assert code == 1
            assert line.startswith(f"plumews serve: cannot listen on 127.0.0.1 port {port}: address already in use; ")
            assert line.endswith("--port 0 takes a free one")


def cli_loops() -> list[str]:
    return ["asyncio", "uvloop"] if cli_options.has_uvloop() else ["asyncio"]


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="this system has no Unix sockets")
def test_a_unix_socket_in_use_and_a_file_that_is_none_are_left_alone(tmp_path: Path) -> None:
    path, plain = tmp_path / "s", tmp_path / "plain"
    plain.write_text("precious")
    with socket.socket(socket.AF_UNIX) as taken:
        taken.bind(str(path))
        taken.listen()
        assert failure("serve", "--unix", str(path)) == (
            1,
            f"plumews serve: cannot listen on {path}: address already in use",
        )
        assert path.is_socket()
    assert failure("serve", "--unix", str(plain))[0] == 1
    assert plain.read_text() == "precious"


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
        ("--tls-cert", None, "cannot be read: no such file or directory"),
        ("--tls-cert", b"hunter2", "must hold a PEM certificate chain and its private key"),
    ],
)
def test_a_bad_file_ends_with_1_and_one_line_that_says_what_would_be_right(
    refusal: Callable[..., tuple[int, str]], tmp_path: Path, option: str, content: bytes | None, said: str
) -> None:
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    code, line = refusal("serve", option, str(path), *(["--metrics"] if "metrics" in option else []))
    assert code == 1
    assert said in line
    assert "hunter2" not in line


def test_the_process_ends_with_1_for_a_bad_file(tmp_path: Path) -> None:
    code, line = failure("serve", "--secret-file", str(tmp_path / "absent"))
    assert code == 1
    assert line.endswith("absent cannot be read: no such file or directory")


def test_the_key_of_another_certificate(refusal: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    cert, _ = certificate(tmp_path)
    _, key = certificate(tmp_path / "other")
    code, line = refusal("serve", "--tls-cert", str(cert), "--tls-key", str(key))
    assert code == 1
    assert line.endswith("must hold a PEM certificate chain and its private key: key values mismatch")
    code, line = refusal("serve", "--tls-cert", str(cert), "--tls-key", str(tmp_path / "absent"))
    assert line.endswith("absent cannot be read: no such file or directory")


@pytest.mark.parametrize("loop", cli_loops())
def test_a_host_that_is_not_here(loop: str) -> None:
    for host in ("192.0.2.1", "a" * 70):
        code, line = failure("serve", "--host", host, "--port", "0", "--loop", loop)
        assert code == 1
        assert line.startswith(f"plumews serve: cannot listen on {host} port 0: ")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "a command is missing: plumews serve"),
        (["sing"], "'sing'"),
        (["serve", "--sing"], "unrecognized arguments: --sing"),
        (["serve", "--verb"], "unrecognized arguments: --verb"),
        (["serve", "--port", "http"], "argument --port: must be a whole number, from 0 to 65535, not 'http'"),
        (["serve", "--port", "65536"], "from 0 to 65535, not '65536'"),
        (["serve", "--port", "80", "--unix", "s"], "--unix takes the place of --host and --port"),
        (["serve", "--unix", "s", "--host", "127.0.0.1"], "--unix takes the place of --host and --port"),
        (["serve", "--room", "=hunter2"], "argument --room: invalid room name: it must be 1 to 128 bytes"),
        (["serve", "--room", "chat="], "for an open room give chat alone"),
        (["serve", "--room", "chat=" + "x" * 4097], "text of 1 to 4096 bytes of UTF-8"),
        (["serve", "--room", "chat=\udcff"], "text of 1 to 4096 bytes of UTF-8"),
        (["serve", "--require-token"], "--require-token needs --secret-file"),
        (["serve", "--only-known-rooms"], "--only-known-rooms needs --room or --rooms-file"),
        (["serve", "--tls-key", "k"], "--tls-key needs --tls-cert"),
        (["serve", "--max-size", "0"], "argument --max-size: must be a whole number, at least 1, not '0'"),
        (["serve", "--max-connections", "-1"], "must be a whole number, at least 0, not '-1'"),
        (["serve", "--sending-threads", "17"], "must be a whole number, from 0 to 16, not '17'"),
        (["serve", "--queue-size", "many"], "argument --queue-size: must be a whole number, at least 1, not 'many'"),
        (["serve", "--send-timeout", "nan"], "argument --send-timeout: must be a number of seconds, 0 or more"),
        (["serve", "--ping-interval", "inf"], "must be a number of seconds, 0 or more, not 'inf'"),
        (["serve", "--shutdown-timeout", "-1"], "must be a number of seconds, 0 or more, not '-1'"),
        (["serve", "--shutdown-spread", "11"], "--shutdown-spread must not be more than --shutdown-timeout"),
        (["serve", "--reconnect-in", "3601"], "--reconnect-in must be at most 3600"),
        (["serve", "--send-behavior", "explode"], "choose from"),
        (["serve", "--trusted-proxy", "proxy.example"], "invalid trusted proxy 'proxy.example': expected an address"),
        (["serve", "--origin", "example.com"], "expected http:// or https://, a host and maybe a port"),
        (["serve", "--allowed-host", "example.com:80"], "expected a name or an address, without a port"),
        (["serve", "--loop", "trio"], "choose from"),
        (["serve", "--rooms-table", "friends"], "choose from"),
        (["serve", "--metrics-token-file", "f"], "--metrics-token-file needs --metrics"),
        (["serve", "--log-level", "loud"], "choose from"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_a_wrong_command_line_ends_with_2_and_one_line(
    args: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "run_serve", lambda args: 0)
    with pytest.raises(SystemExit) as end:
        main(args)
    out, err = capsys.readouterr()
    assert end.value.code == 2
    assert out == ""
    assert err.endswith(" --help tells more)\n")
    assert err.count("\n") == 1
    assert said in err
    assert "hunter2" not in err


def test_the_process_ends_with_2_for_a_wrong_command_line() -> None:
    code, line = failure("serve", "--port", "http")
    assert code == 2
    assert line.startswith("plumews serve: argument --port: must be a whole number, from 0 to 65535, not 'http' (")


def test_uvloop_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    with pytest.raises(SystemExit) as end:
        main(["serve", "--loop", "uvloop"])
    assert end.value.code == 2
    assert "--loop uvloop: it is not installed here; pip install 'plumews[uvloop]'" in capsys.readouterr().err


def test_metrics_where_the_client_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(SystemExit) as end:
        main(["serve", "--metrics"])
    assert end.value.code == 2
    said = "--metrics: prometheus_client is not installed here; pip install 'plumews[prometheus]'"
    assert said in capsys.readouterr().err


# --- what it says about itself --------------------------------------------------------------------

OPTIONS = re.findall(
    r"\S+",
    "--host --port --unix --tls-cert --tls-key --room --rooms-file --only-known-rooms --secret-file --require-token "
    "--no-query-secrets --origin --allowed-host --trusted-proxy --max-connections --max-room-connections "
    "--max-connections-per-address --accept-rate --accept-rate-per-address --max-size --compression --queue-size "
    "--send-behavior --send-timeout --ping-interval --ping-timeout --no-page --rooms-table --metrics "
    "--metrics-token-file --no-echo --loop --sending-threads --shutdown-timeout --shutdown-spread --reconnect-in "
    "--log-level --verbose",
)


def test_the_help_explains_every_option_with_its_default(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as end:
        main(["serve", "--help"])
    out, err = capsys.readouterr()
    assert (end.value.code, err) == (0, "")
    explained = " ".join(out.partition("where it listens:")[2].split())
    for option in OPTIONS:
        assert re.search(rf"{option}\b[^(]*\(default", explained), option
    assert explained.count("(default") == len(OPTIONS)


def test_the_version_says_what_it_runs_on() -> None:
    with Command("--version") as command:
        code, out, err = command.end()
    assert (code, err) == (0, [])
    loop = r"uvloop \d\S+" if cli_options.has_uvloop() else "asyncio, uvloop is not installed"
    version = re.escape(plumews.__version__)
    assert re.fullmatch(rf"plumews {version} \(codec {plumews.BODY}, loop {loop}, \w+ 3\.\S+\)", "\n".join(out)), out


async def test_every_option_reaches_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    class Enough(Exception):
        pass

    seen: dict[str, Any] = {}

    def serve_rooms(hub: plumews.Hub, auth: Any, host: Any, port: Any, **options: Any) -> Any:
        seen.update(options, hub=hub.config, host=host, port=port)
        raise Enough

    def run(main: Any, loop: str) -> int:
        seen["loop"] = loop
        try:
            main.send(None)
        except Enough:
            return 0
        raise AssertionError

    monkeypatch.setattr(cli_serve, "serve_rooms", serve_rooms)
    monkeypatch.setattr(cli_serve, "_run", run)
    monkeypatch.setattr(cli_serve.signal, "signal", lambda number, handler: None)
    line = (
        "serve --host ::1 --port 9 --no-query-secrets --max-connections 3 --max-room-connections 2 --queue-size 5 "
        "--send-timeout 0 --send-behavior drop --max-size 7 --ping-interval 0 --ping-timeout 0.5 --no-page --no-echo "
        "--rooms-table everybody --origin * --origin https://a --allowed-host * --loop asyncio --sending-threads 2 "
        "--trusted-proxy unix --trusted-proxy 10.0.0.0/8 --compression "
        "--max-connections-per-address 0 --accept-rate 50 --accept-rate-per-address 0.5"
    )
    assert main(line.split()) == 0
    assert seen.pop("hub") == plumews.HubConfig(max_connections=3, max_room_connections=2, sending_threads=2)
    assert seen == {
        "host": "::1",
        "port": 9,
        "sock": None,
        "ssl": None,
        "page": False,
        "rooms_table": "everybody",
        "routes": {},
        "echo": False,
        "require_token": False,
        "allow_query_secrets": False,
        "queue_size": 5,
        "send_timeout": 0.0,
        "send_behavior": plumews.SendBehavior.DROP,
        "max_size": 7,
        "compression": "deflate",
        "ping_interval": None,
        "ping_timeout": 0.5,
        "origins": ["*", "https://a"],
        "allowed_hosts": ["*"],
        "trusted_proxies": ["unix", "10.0.0.0/8"],
        "max_connections": limits.MAX_CONNECTIONS,
        "max_connections_per_address": None,
        "accept_rate": 50.0,
        "accept_rate_per_address": 0.5,
        "loop": "asyncio",
    }
    seen.clear()
    assert main(["serve", "--max-connections", "1000000"]) == 0
    assert seen["max_connections"] == 1_100_000
    seen.clear()
    assert main(["serve"]) == 0
    del seen["hub"], seen["loop"]
    bounds = AdmissionLimits()
    for name in ("max_connections", "max_connections_per_address", "accept_rate", "accept_rate_per_address"):
        assert seen[name] == getattr(bounds, name), name
    defaults = plumews.ConnConfig()
    for name in (
        "queue_size",
        "send_timeout",
        "send_behavior",
        "max_size",
        "compression",
        "ping_interval",
        "ping_timeout",
    ):
        assert seen[name] == getattr(defaults, name), name
    assert (seen["host"], seen["port"], seen["page"], seen["echo"]) == ("127.0.0.1", 8080, True, True)
    assert seen["allow_query_secrets"]
    for line, audience in (
        ("serve", "local"),
        ("serve --host ::1", "local"),
        ("serve --host 0.0.0.0", "nobody"),
        ("serve --unix s", "nobody"),
        ("serve --origin https://a", "nobody"),  # signs of a proxy, for which everybody is local
        ("serve --allowed-host a", "nobody"),
        ("serve --trusted-proxy ::1", "nobody"),
        ("serve --host 0.0.0.0 --rooms-table local", "local"),
        ("serve --rooms-table nobody", "nobody"),
    ):
        monkeypatch.setattr(cli_serve, "_unix_socket", lambda path: None)
        assert main(line.split()) == 0
        assert seen["rooms_table"] == audience, line
    assert main(["serve", "--metrics"]) == 0
    assert list(seen["routes"]) == ["/metrics"]
