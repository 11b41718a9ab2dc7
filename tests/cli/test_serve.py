"""`plumews serve` as a process of its own: what each option does, its output, and errors of listening.

The meaning of an option is tested on one loop only, because `serve_rooms` is tested on both. Tests of sockets and of
signals run on both loops.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import plumews
from plumews import limits
from plumews.cli import serve
from plumews.cli.main import main
from plumews.constants import Opcode
from plumews.server.options import ServerOptions
from support.command import (
    SECRET,
    Command,
    Serve,
    cli_loops,
    failure,
    get,
    on_one_loop,
    says_goodbye,
    status,
)
from support.raw_client import Wire, text, upgrade

# --- serving --------------------------------------------------------------------------------------


async def test_serve_announces_its_address_and_serves_rooms(serve: Serve) -> None:
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
    assert (code, json.loads(body)) == (200, {"status": "ok", "component": "websocket", "broadcast_enabled": False})
    assert (await get(server, "/"))[0] == 200


async def test_broadcast_secret_file_allows_broadcasts_to_a_room(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(SECRET + b"\n")
    server = serve("--broadcast-secret-file", str(path))
    async with await Wire.open(server, "/ws?room=a") as ada, await Wire.connect(server) as wire:
        head = "POST /_admin/broadcast?room=a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"
        bearer = f"Authorization: Bearer {SECRET.decode()}\r\n\r\nhello"
        assert await wire.response((head + bearer).encode()) == (204, b"")
        assert await ada.message() == "hello"


@on_one_loop
async def test_no_query_secrets_refuses_them_in_the_query(serve: Serve) -> None:
    server = serve("--room", "chat=pw", "--no-query-secrets")
    assert await status(server, "/ws?room=chat&room_password=pw") == 403
    assert await status(server, "/ws?room=chat", "X-WebSocket-Room-Password: pw") == 101


@on_one_loop
async def test_without_require_token_a_bad_token_is_refused(serve: Serve, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(SECRET)
    server = serve("--secret-file", str(secret))
    assert await status(server, "/ws") == 101
    assert await status(server, "/ws?token=a.b.c") == 403


@on_one_loop
async def test_max_connections_bounds_members_of_rooms_and_hub(serve: Serve) -> None:
    server = serve("--max-connections", "2", "--max-room-connections", "1")
    async with await Wire.open(server, "/ws?room=a"):
        assert await status(server, "/ws?room=a") == 429
        async with await Wire.open(server, "/ws?room=b"):
            assert await status(server, "/ws?room=c") == 503


@on_one_loop
async def test_history_sends_newcomers_earlier_messages(serve: Serve) -> None:
    server = serve("--history", "2", "--room", "a", "--room", "b=pw")
    async with await Wire.open(server, "/ws?room=a") as ada:
        for said in ("one", "two", "three"):
            ada.send(text(said))
            assert await ada.message() == said
        async with await Wire.open(server, "/ws?room=a&since=start") as bob:
            event = json.loads(await bob.message())
            assert (event["type"], event["complete"], event["missed"]) == ("recovered", False, 2)
            assert [await bob.message(), await bob.message()] == ["two", "three"]
        ada.send(text("four"))
        async with await Wire.open(server, f"/ws?room=a&since={event['position']}") as bob:
            event = json.loads(await bob.message())
            assert (event["complete"], event["missed"]) == (True, 1)
            assert await bob.message() == "four"
        assert await status(server, "/ws?room=a&since=yesterday") == 400
        assert await status(server, "/ws?room=b&since=start") == 403


@on_one_loop
async def test_max_size_bounds_a_message(serve: Serve) -> None:
    server = serve("--max-size", "5")
    async with await Wire.open(server, "/ws") as wire:
        wire.send(text("12345"), text("123456"))
        assert await wire.message() == "12345"
        assert (await wire.closing())[0] == 1009


@on_one_loop
async def test_max_head_bounds_a_request_head(serve: Serve) -> None:
    server = serve("--max-head", "20000")
    assert await status(server, "/ws", f"Cookie: {'x' * 18_000}") == 101
    assert await status(server, "/ws", f"Cookie: {'x' * 20_000}") == 431


@on_one_loop
async def test_no_echo_sends_a_member_only_messages_of_others(serve: Serve) -> None:
    server = serve("--no-echo")
    async with await Wire.open(server, "/ws") as ada, await Wire.open(server, "/ws") as bob:
        ada.send(text("from ada"))
        assert await bob.message() == "from ada"
        bob.send(text("from bob"))
        assert await ada.message() == "from bob"


@on_one_loop
async def test_no_page_announces_the_address_of_the_websocket(serve: Serve) -> None:
    server = serve("--no-page")
    assert server.url == f"ws://127.0.0.1:{server.port}/ws?room=NAME"
    assert (await get(server, "/"))[0] == 404


@on_one_loop
async def test_origin_and_allowed_host_admit_other_sites(serve: Serve) -> None:
    foreign = "Origin: https://example.com"
    server = serve()
    assert await status(server, "/ws", foreign) == 403
    assert await status(server, "/ws", host="chat.example.com") == 403
    server = serve("--origin", "https://example.com", "--allowed-host", "*.example.com")
    assert await status(server, "/ws", foreign, host="chat.example.com") == 101
    assert await status(server, "/ws", "Origin: https://example.org", host="chat.example.com") == 403


async def test_text_and_plain_room_names_restrict_both(serve: Serve) -> None:
    server = serve("--text", "lines", "--plain-room-names")
    async with await Wire.open(server, "/ws") as wire:
        wire.send(text("two\nlines\tand a tab"))
        assert await wire.message() == "two\nlines\tand a tab"
        wire.send(text("a bell: \a"))
        code, reason = await wire.closing()
    assert (code, reason.partition(": ")[2]) == (1008, "message contains control characters: U+0007 at position 8")
    assert await status(server, "/ws?room=two%20words") == 400


def test_room_that_plain_room_names_exclude_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--plain-room-names", "--room", "two words=secret"]) == 1
    said = capsys.readouterr().err
    assert "room two words cannot be entered with --plain-room-names: invalid room name: it must be 1 to 128 of" in said
    assert "secret" not in said


@on_one_loop
async def test_ping_interval_sets_the_time_between_pings(serve: Serve) -> None:
    server = serve("--ping-interval", "0.05")
    async with await Wire.open(server, "/ws") as wire:
        kind, _ = await wire.event()
        assert kind == Opcode.PING


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="this system has no Unix sockets")
async def test_unix_socket_is_removed_at_a_stop_and_replaced_if_dead(serve: Serve, tmp_path: Path) -> None:
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


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="this system has no Unix sockets")
async def test_stop_leaves_the_unix_socket_of_a_successor(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "s"
    server = serve("--unix", str(path))
    async with await Wire.open(server, "/members") as silent:  # it does not answer the goodbye: that takes a second
        server.stop()
        assert (await silent.closing())[0] == 1001
        while path.exists():
            await asyncio.sleep(0.001)  # another process removes it
        async with plumews.unix_serve(lambda conn: conn.send("the successor"), path):
            assert server.process.poll() is None
            assert server.end()[0] == 0
            async with await Wire.open(server) as wire:
                assert await wire.message() == "the successor"


@on_one_loop
@pytest.mark.skipif(sys.platform != "linux", reason="wants permissions and names as Linux has them")
async def test_unix_mode_and_abstract_names_are_applied(serve: Serve, tmp_path: Path) -> None:
    serve("--unix", str(tmp_path / "s"), "--unix-mode", "606")
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o606
    name = f"@plumews-{os.getpid()}"
    assert serve("--unix", name).url == f"unix:{name}"
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(f"\0{name[1:]}")
    assert failure("serve", "--unix", name) == (1, f"plumews serve: cannot listen on {name}: address already in use")


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="this system has no Unix sockets")
@pytest.mark.parametrize("way", ["--fd", "LISTEN_FDS"])
async def test_inherited_sockets_are_served(anyio_backend: Any, tmp_path: Path, way: str) -> None:
    loop = "uvloop" if anyio_backend[1]["use_uvloop"] else "asyncio"
    path = tmp_path / "s"
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(path))
        unix.listen()
        port = tcp.getsockname()[1]
        fds = (tcp.fileno(), unix.fileno())
        args = [f"--fd={fd}" for fd in fds] if way == "--fd" else []
        with Command("serve", "--loop", loop, *args, hand_over=fds, activate=not args) as server:
            server.started()
            said = f"plumews is serving at http://127.0.0.1:{port}/ and unix:{path} (Ctrl-C stops)"
            assert server.announced[0] == said
            async with await Wire.open(server, "/ws?room=a") as ada:
                async with Wire(*await asyncio.open_unix_connection(path)) as bob:
                    bob.writer.write(upgrade("/ws?room=a"))
                    await bob.read_head()
                    ada.send(text("hello"))
                    assert await bob.message() == "hello"
                server.stop()
                await says_goodbye(ada)
            assert server.end()[0] == 0
        assert path.is_socket()
        with socket.create_connection(("127.0.0.1", port)):  # it waits for the next process
            pass


def test_fd_that_is_no_socket_is_named_in_the_error() -> None:
    said = "plumews serve: cannot listen: descriptor 0 is no socket: expected a listening TCP or Unix socket"
    assert failure("serve", "--fd", "0") == (1, said)


# --- metrics and room list ------------------------------------------------------------------------


@on_one_loop
async def test_metrics_are_served_to_this_machine_but_not_by_proxy(serve: Serve) -> None:
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
async def test_metrics_token_file_serves_metrics_to_its_token(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("0123456789abcdef\n")
    server = serve("--metrics", "--metrics-token-file", str(path))
    assert (await get(server, "/metrics"))[0] == 401
    through_a_proxy = ("Authorization: Bearer 0123456789abcdef", "X-Forwarded-For: 192.0.2.1")
    assert (await get(server, "/metrics", *through_a_proxy))[0] == 200


@on_one_loop
async def test_room_names_are_shown_to_this_machine_by_default(serve: Serve) -> None:
    proxy = "Via: 1.1 proxy"
    server = serve()
    assert (await get(server, "/rooms.json"))[0] == 200
    assert (await get(server, "/rooms.json", proxy))[0] == 204
    assert (await get(serve("--allowed-host", "localhost"), "/rooms.json"))[0] == 204
    assert (await get(serve("--rooms-table", "everybody"), "/rooms.json", proxy))[0] == 200


# --- closed output --------------------------------------------------------------------------------


@contextlib.contextmanager
def output_that_has_gone(kind: str) -> Iterator[int | None]:
    """Yield a descriptor whose reader has gone, or None for a closed one."""
    if kind == "closed":
        yield None
        return
    if kind == "full disk":
        fd = os.open("/dev/full", os.O_WRONLY)
    else:
        reader, fd = os.openpty() if kind == "closed terminal" else os.pipe()
        os.close(reader)
    try:
        yield fd
    finally:
        os.close(fd)


@pytest.mark.skipif(sys.platform != "linux", reason="wants outputs as Linux has them")
@pytest.mark.parametrize(
    ("kind", "both"), [("closed pipe", False), ("full disk", True), ("closed terminal", False), ("closed", True)]
)
@on_one_loop
async def test_closed_output_does_not_stop_the_server(
    anyio_backend: Any, tmp_path: Path, kind: str, both: bool
) -> None:
    loop = "uvloop" if anyio_backend[1]["use_uvloop"] else "asyncio"
    path, err = tmp_path / "s", tmp_path / "stderr"
    with output_that_has_gone(kind) as gone, err.open("wb") as kept:
        # A shell, since subprocess has no closed descriptors to give.
        closing = "" if gone is not None else ">&- 2>&-" if both else ">&-"
        serving = f"serve --unix {path} --loop {loop} --log-level debug --room \u017elut\u00fd"
        process = subprocess.Popen(
            [
                "sh",
                "-c",
                f'exec "$@" {closing}',
                "sh",
                sys.executable,
                "-W",
                "error",
                "-m",
                "plumews",
                *serving.split(),
            ],
            stdin=subprocess.DEVNULL,
            stdout=gone,
            stderr=gone if both else kept,
            env={**os.environ, "PYTHONPATH": str(Path(plumews.__file__).parent.parent), "PYTHONIOENCODING": "ascii"},
        )
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            while probe.connect_ex(str(path)):  # nobody says when it listens
                assert process.poll() is None, err.read_text()
                await asyncio.sleep(0.01)  # another process listens, and does not announce it
        async with Wire(*await asyncio.open_unix_connection(path)) as wire:
            wire.writer.write(upgrade("/ws?room=%C5%BElut%C3%BD"))
            await wire.read_head()
            assert wire.status == 101
            wire.send(text("hello"))
            assert await wire.message() == "hello"
            process.terminate()
            await says_goodbye(wire)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
    said = [line for line in err.read_text().splitlines() if " DEBUG " not in line]
    assert said == []


# --- errors of listening --------------------------------------------------------------------------


def test_port_in_use_fails_with_a_hint(tmp_path: Path) -> None:
    for loop in cli_loops():
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            code, line = failure("serve", "--port", str(port), "--loop", loop)
            assert code == 1
            assert line.startswith(f"plumews serve: cannot listen on 127.0.0.1 port {port}: address already in use; ")
            assert line.endswith("--port 0 takes a free one")


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="this system has no Unix sockets")
def test_unix_path_in_use_or_of_a_plain_file_is_left_alone(tmp_path: Path) -> None:
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
    said = f"plumews serve: cannot listen on {plain}: file exists, and is no socket"
    assert failure("serve", "--unix", str(plain)) == (1, said)
    assert plain.read_text() == "precious"


@pytest.mark.parametrize("loop", cli_loops())
def test_host_that_cannot_be_bound_fails(loop: str) -> None:
    for host in ("192.0.2.1", "a" * 70):
        code, line = failure("serve", "--host", host, "--port", "0", "--loop", loop)
        assert code == 1
        assert line.startswith(f"plumews serve: cannot listen on {host} port 0: ")


# --- options --------------------------------------------------------------------------------------


async def test_every_option_reaches_serve_rooms(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
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

    monkeypatch.setattr(serve, "serve_rooms", serve_rooms)
    monkeypatch.setattr(serve, "_run", run)
    line = (
        "serve --host ::1 --port 9 --no-query-secrets --max-connections 3 --max-room-connections 2 --queue-size 5 "
        "--max-head 65536 "
        "--send-timeout 0 --send-behavior drop --max-size 7 --ping-interval 0 --ping-timeout 0.5 --no-page --no-echo "
        "--rooms-table everybody --origin * --origin https://a --allowed-host * --loop asyncio "
        "--trusted-proxy unix --trusted-proxy 10.0.0.0/8 --compression --text line --plain-room-names "
        "--max-connections-per-address 0 --accept-rate 50 --accept-rate-per-address 0.5 --history 7 --unsent-bytes 0 "
        "--broadcast-secret-file"
    )
    secret = tmp_path / "secret"
    secret.write_bytes(SECRET + b"\n")
    assert main([*line.split(), str(secret)]) == 0
    assert seen.pop("hub") == plumews.HubConfig(
        max_connections=3,
        max_room_connections=2,
        check_room_name=plumews.validate_room_name,
        history=plumews.HistoryLimits(max_messages=7),
    )
    assert seen == {
        "host": "::1",
        "port": 9,
        "sock": None,
        "ssl": None,
        "page": False,
        "rooms_table": "everybody",
        "routes": {},
        "echo": False,
        "recovery": True,
        "require_token": False,
        "allow_query_secrets": False,
        "queue_size": 5,
        "send_timeout": 0.0,
        "unsent_bytes": None,
        "unanswered_bytes": "auto",
        "send_behavior": plumews.SendBehavior.DROP,
        "max_size": 7,
        "max_head": 65536,
        "text_policy": plumews.TextPolicy(max_length=7),
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
        "broadcast_secret": SECRET,
        "loop": "asyncio",
    }
    seen.clear()
    assert main(["serve", "--max-connections", "1000000"]) == 0
    assert seen["max_connections"] == 1_100_000
    seen.clear()
    assert main(["serve"]) == 0
    assert seen["hub"] == plumews.HubConfig()
    assert seen["text_policy"] is None
    del seen["hub"], seen["loop"]
    bounds = ServerOptions()
    for name in ("max_connections", "max_connections_per_address", "accept_rate", "accept_rate_per_address"):
        assert seen[name] == getattr(bounds, name), name
    defaults = plumews.ConnConfig()
    for name in (
        "queue_size",
        "send_timeout",
        "unsent_bytes",
        "unanswered_bytes",
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
        monkeypatch.setattr(serve, "unix_socket", lambda path, mode, backlog: None)
        assert main(line.split()) == 0
        assert seen["rooms_table"] == audience, line
    assert main(["serve", "--metrics"]) == 0
    assert list(seen["routes"]) == ["/metrics"]
