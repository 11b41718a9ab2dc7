"""Every snippet of the README and of the pages in docs, run for real.

A snippet is found by the heading above it. One that nothing here runs is an error, so that the README cannot
promise what was never tried.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from websockets.asyncio.client import connect, unix_connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

import plumews
from plumews.auth.password_checker import PasswordChecker
from support import uvicorn_setup
from support.asgi_servers import SERVERS, serving
from support.fakes import echo, until
from support.members import drained, stalled
from support.raw_client import Wire, kept_port, upgrade

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = {path: path.read_text(encoding="utf-8") for path in [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]}
TEXT = "\n".join(PAGES.values())


def snippets(language: str) -> dict[str, list[str]]:
    """The code blocks of ``language`` by the heading above them."""
    found: dict[str, list[str]] = {}
    heading = ""
    for match in re.finditer(
        r"^(#+ (?P<heading>[^\n]+)|```(?P<language>\w+)\n(?P<code>.*?)^```)$", TEXT, re.MULTILINE | re.DOTALL
    ):
        if match["heading"]:
            heading = match["heading"]
        elif match["language"] == language:
            found.setdefault(heading, []).append(match["code"])
    return found


PYTHON = snippets("python")


def run(heading: str, port: int = 0, **names: Any) -> dict[str, Any]:
    """The names that the snippet under ``heading`` defines; its server listens on ``port``."""
    (code,) = PYTHON[heading]
    namespace: dict[str, Any] = {"plumews": plumews, "__name__": "snippet", **names}
    exec(compile(code.replace("8080", str(port)), f"README: {heading}", "exec"), namespace)
    return namespace


async def client(port: int, path: str = "/", **options: Any) -> Any:
    """A connected client of the websockets package; retries while the server is coming up."""
    while True:
        try:
            return await connect(f"ws://127.0.0.1:{port}{path}", **options)
        except ConnectionRefusedError:
            await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def running(main: Any) -> AsyncIterator[None]:
    task = asyncio.ensure_future(main())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture
async def hub() -> AsyncIterator[plumews.Hub]:
    async with plumews.Hub() as hub:
        yield hub


async def test_a_server() -> None:
    with kept_port() as port:
        async with running(run("A server", port)["main"]), await client(port) as ws:
            await ws.send("hello")
            assert await ws.recv() == "hello"


async def test_a_room_server_and_the_address_of_its_client() -> None:
    (one_line, by_message) = snippets("javascript")["A client in the browser"]
    assert "/ws?room=chat&room_password=room-password" in one_line
    assert "/ws?room=chat&auth=message" in by_message
    with kept_port() as port:
        async with running(run("A room server", port)["main"]):
            async with await client(port, "/ws?room=chat&room_password=room-password") as ws:
                await ws.send("Hello, room!")
                assert await ws.recv() == "Hello, room!"
            async with await client(port, "/ws?room=chat&auth=message") as ws:
                await ws.send('{"type": "auth", "password": "room-password"}')
                assert await ws.recv() == '{"type": "joined", "room": "chat"}'


async def test_where_a_client_puts_its_token() -> None:
    secret = b"0123456789abcdef" * 2
    token = jwt.encode({"sub": "1", "name": "Ada"}, secret, algorithm="HS256")
    private = run("Places for a token")["private"]
    async with private(secret) as server:
        async with await client(server.port, additional_headers={"Authorization": f"Bearer {token}"}) as ws:
            await ws.send("hello")
            assert await ws.recv() == "Ada said hello"
        with pytest.raises(InvalidStatus, match="401"):
            await client(server.port)


async def test_a_blocking_connection(start, capsys) -> None:
    greet = run("A blocking connection")["greet"]
    server = await start(plumews.serve(echo, "127.0.0.1", 0))
    assert await asyncio.to_thread(greet, f"ws://127.0.0.1:{server.port}/") == "hello"
    assert capsys.readouterr().out.startswith("latency: 0.")


async def test_moving_a_blocking_client(start) -> None:
    ask = run("Moving a blocking client")["ask"]
    server = await start(plumews.serve(echo, "127.0.0.1", 0))
    assert await asyncio.to_thread(ask, f"ws://127.0.0.1:{server.port}/") == "hello"


async def test_reconnecting_in_a_loop(start) -> None:
    async def handler(conn: plumews.Conn) -> None:
        await conn.send("hello")
        await conn.close(1012)

    messages = run("Reconnecting in a loop")["messages"]
    server = await start(plumews.serve(handler, "127.0.0.1", 0))
    received = await asyncio.to_thread(lambda: [*itertools.islice(messages(f"ws://127.0.0.1:{server.port}/"), 3)])
    assert received == ["hello"] * 3


async def test_javascript_is_javascript() -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    for code in (code for codes in snippets("javascript").values() for code in codes):
        subprocess.run([node, "--check", "-"], input=code.encode(), check=True, capture_output=True)


async def test_callbacks(capsys) -> None:
    async with run("Callbacks")["serving"] as server, await client(server.port) as ws:
        await ws.send("fast")
        assert await ws.recv() == "fast"
    assert capsys.readouterr().out == "1 messages, then 1000\n"


async def test_connection_settings(start, capsys) -> None:
    server = await start(run("Connection settings")["serving"])
    async with await client(server.port, max_size=None) as ws:
        await ws.send("x" * (2 * 1024 * 1024))
        assert len(await ws.recv()) == 2 * 1024 * 1024
    assert "last pong" in capsys.readouterr().out


async def test_around_the_handshake(start) -> None:
    server = await start(run("Around the handshake")["serving"])
    async with await client(server.port, "/here", subprotocols=["chat.v1", "chat.v2"]) as ws:
        assert await ws.recv() == "/here speaks chat.v2"
        assert ws.response.headers["X-Served-By"] == "plumews"
        assert ws.response.headers["X-Served-To"] == "127.0.0.1"
    with pytest.raises(InvalidStatus, match="400"):
        await client(server.port, subprotocols=["chat.v1"])
    for path, answer in (("/healthz", b"OK\n"), ("/", b"Hello over HTTP\n")):
        async with await Wire.connect(server) as wire:
            head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"
            assert await wire.response(head.encode()) == (200, answer)
    with pytest.raises(InvalidStatus, match="403"):
        await client(server.port, additional_headers={"X-Api-Version": "2"})


async def test_behind_a_proxy(start) -> None:
    server = await start(run("Behind a proxy")["serving"])
    said = {"X-Forwarded-For": "203.0.113.9, 198.51.100.1", "X-Forwarded-Proto": "https"}
    async with await client(server.port, additional_headers=said, origin="https://chat.example.com") as ws:
        assert await ws.recv() == "hello, 198.51.100.1"


async def test_sending(start) -> None:
    server = await start(plumews.serve(run("Sending")["handler"], "127.0.0.1", 0))
    async with await client(server.port) as ws:
        received = [message async for message in ws]
    assert received == [
        "Hello, world",
        b"\x01\x02\x03",
        '{"type":"message","content":"Hello"}',
        b"the same with an opcode",
        "str is text",
        b"bytes are binary",
        "several",
        "at once",
        b"leave together",
    ]
    assert (ws.close_code, ws.close_reason) == (1000, "that was all")


async def test_sending_in_pieces(start, capsys) -> None:
    server = await start(plumews.serve(run("Sending in pieces")["handler"], "127.0.0.1", 0))
    async with await client(server.port) as ws:
        assert [message async for message in ws] == ["line 0\nline 1\nline 2\n"]
    assert capsys.readouterr().out == "0 0 0.0\n"


async def test_reading(start, capsys) -> None:
    server = await start(plumews.serve(run("Reading")["handler"], "127.0.0.1", 0))
    async with await client(server.port) as ws:
        for message in ("one", b"two", "three"):
            await ws.send(message)
    await ws.wait_closed()
    assert capsys.readouterr().out == "text: one\nmessage: b'two'\nand another: three\n"


async def test_streaming(start) -> None:
    server = await start(plumews.serve(run("Streaming")["handler"], "127.0.0.1", 0))
    async with await client(server.port) as ws:
        await ws.send([b"x" * 100_000, b"y" * 100_000])
        assert await ws.recv() == "BINARY message of 200000 bytes"


async def test_where_it_listens(start, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    await start(run("Listening")["serving"])
    assert (tmp_path / "ws.sock").stat().st_mode & 0o777 == 0o660
    async with unix_connect("ws.sock", "ws://localhost/") as ws:
        await ws.send("hello")
        assert await ws.recv() == "hello"


async def test_metadata_and_user(start) -> None:
    server = await start(plumews.serve(run("Metadata and user")["handler"], "127.0.0.1", 0))
    async with await client(server.port, "/here?name=Ada") as ws:
        assert await ws.recv() == "Ada from 127.0.0.1 asked for /here as admin"


async def test_joining_and_leaving(start) -> None:
    names = run("Joining and leaving")
    server = await start(plumews.serve(names["handler"], "127.0.0.1", 0))
    async with names["hub"], await client(server.port) as ws:
        assert await ws.recv() == "1 in this room, 1 in all of ['chat']"
        await ws.send("hi")
        assert await ws.recv() == "hi"
        await ws.send("leave")
        await ws.send("nobody hears this")
        await ws.send("leave all")


async def test_broadcasting(hub, start, capsys) -> None:
    async def handler(conn: plumews.Conn) -> None:
        hub.join("chat", conn)
        await run("Broadcasting")["announce"](hub)
        await conn.wait_closed()

    server = await start(plumews.serve(handler, "127.0.0.1", 0))
    async with await client(server.port) as ws:
        received = [await ws.recv() for _ in range(3)]
    assert received == ["Hello, room!", b"\x00\x01", "waits until it is decided for everybody"]
    assert capsys.readouterr().out == "1 members, 1 have it queued, 0 pending\n1 queued, 0 dropped, 0 had left\n"


async def test_coming_back(start) -> None:
    names = run("History")
    async with names["hub"]:
        server = await start(plumews.serve(names["handler"], "127.0.0.1", 0))
        async with await client(server.port) as ada:
            async with await client(server.port) as bob:
                await bob.send("0")
                seen = json.loads(await bob.recv())
                assert json.loads(await ada.recv()) == seen
            for text in ("1", "2"):
                await ada.send(text)
                assert json.loads(await ada.recv())["text"] == text
            async with await client(server.port, f"/?since={seen['at']}") as bob:
                assert json.loads(await bob.recv()) == {"complete": True, "missed": 2}
                await ada.send("3")
                assert [json.loads(await bob.recv())["text"] for _ in range(2)] == ["1", "2"]
                epoch = seen["at"].partition(".")[0]
                assert json.loads(await bob.recv()) == {"at": f"{epoch}.4", "text": "3"}
            async with await client(server.port, "/?since=yesterday") as bob:
                await bob.wait_closed()
            assert (bob.close_code, bob.close_reason[:10]) == (1008, "a position")


async def test_coming_back_through_the_door(start) -> None:
    names = run("History in a room server")
    async with names["hub"]:
        server = await start(names["room_server"](plumews.SimpleRoomAuth()))
        async with await client(server.port, "/ws?room=blue") as ada:
            heard = []
            for text in ("seen", "missed"):
                await ada.send(text)
                heard.append(json.loads(await ada.recv()))
            async with await client(server.port, f"/ws?room=blue&since={heard[0]['at']}") as bob:
                (event,) = snippets("json")["History in a room server"]
                told = json.loads(await bob.recv())
                assert told == {**json.loads(event), "missed": 1, "position": heard[1]["at"]}
                assert json.loads(await bob.recv()) == heard[1]
            async with await client(server.port, "/ws?room=blue&since=start") as eve:
                assert [json.loads(await eve.recv()) for _ in range(3)] == [{**told, "missed": 2}, *heard]


def test_keys_revocation_strength_and_kept_hashes(capsys) -> None:
    assert run("Key rotation")["auth"].tokens.key_ids == ("2026-11",)
    names = run("Revocation")
    assert str(names["auth"].revocations) == "<Revocations: 2>"
    run("Strong passwords")
    assert run("Stored hashes")["again"].has_room_password("chat")
    assert capsys.readouterr().out == (
        "revoked: 42 None\nrevoked: None a-jti\n"
        "room password does not meet strength requirements: it must have 12 to 1024 characters\n"
    )


async def test_authenticators_of_your_own() -> None:
    gate = PasswordChecker(run("Authenticators of your own")["Members"]({"chat": ["pw"]}))
    assert await gate.check("chat", "pw", None)
    assert not await gate.check("chat", "px", None)


async def test_some_of_them(hub, start, capsys) -> None:
    users = iter(["u1", "u2"])

    async def handler(conn: plumews.Conn) -> None:
        conn.metadata["language"] = "en"
        conn.user_info = plumews.UserInfo(next(users))
        hub.join("chat", conn)
        hub.join("news", conn)
        if len(hub.members("chat")) == 2:
            run("Choosing recipients")["tell_some"](hub)
        await conn.wait_closed()

    server = await start(plumews.serve(handler, "127.0.0.1", 0))
    async with await client(server.port) as one, await client(server.port) as two:
        received = [await one.recv() for _ in range(3)]
        assert received == ["who is in both gets it once", "for those who can read it", "on all your devices"]
        assert [await two.recv() for _ in range(2)] == received[:2]
        await two.wait_closed()
    assert (two.close_code, two.close_reason) == (1008, "banned")
    assert capsys.readouterr().out == "1 connections closed\n"


async def test_who_is_there(hub, start, capsys) -> None:
    told = asyncio.Event()

    async def handler(conn: plumews.Conn) -> None:
        conn.user_info = plumews.UserInfo("u1", "Ada")
        hub.join("chat", conn)
        end = run("Presence")["watch"](hub)
        hub.watch_presence("chat", lambda room, joined, left: told.set())
        await told.wait()
        end()
        await conn.wait_closed()

    server = await start(plumews.serve(handler, "127.0.0.1", 0))
    async with await client(server.port) as one:
        await told.wait()
        async with await client(server.port):
            assert await one.recv() == "somebody came"
        assert await one.recv() == "somebody left"
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first.startswith("u1 1 ")
    assert second == "chat + ['Ada'] - []"


async def test_slow_members(capsys) -> None:
    names = run("Slow members")
    conflating, one = stalled(names["hub"], "prices", queue_size=4, send_behavior=plumews.SendBehavior.CONFLATE)
    _, other = stalled(names["hub"], "prices", queue_size=4, send_behavior=plumews.SendBehavior.DROP)

    async def prices() -> AsyncIterator[tuple[str, int]]:
        for number in range(6):
            yield "AB"[number % 2], number

    await names["follow"](prices())
    assert await drained(one) == ["A 4", "B 5"]
    assert await drained(other) == ["A 0", "B 1", "A 2", "B 3", '{"type": "gap", "room": "prices", "dropped": 2}']
    assert capsys.readouterr().out.splitlines() == [
        "half of a queue is full",
        "half of a queue is full",
        "2 messages of prices lost",
    ]
    assert conflating.dropped_messages == 0


async def test_the_age_of_messages(start) -> None:
    conns = []

    async def handler(conn):
        conns.append(conn)
        await conn.wait_closed()

    server = await start(run("The age of messages")["price_server"](handler))
    async with await client(server.port) as ws:
        conns[0].send_nowait("x" * 20_000)
        assert await ws.recv() == "x" * 20_000
        assert conns[0].unanswered_bytes <= 20_004


async def test_your_own_handler_behind_the_door(hub, start) -> None:
    server = await start(run("Your own handler in a room server")["room_server"](hub, plumews.SimpleRoomAuth()))
    async with await client(server.port, "/ws?room=a") as one, await client(server.port, "/ws?room=a") as two:
        await one.send("hello")
        assert await two.recv() == "hello"
        await one.send("/who")
        assert await one.recv() == '{"members":2}'


async def test_what_may_be_said(capsys) -> None:
    names = run("Message and name policies")
    async with names["room_server"](plumews.SimpleRoomAuth()) as server:
        async with await client(server.port, "/ws") as ws:
            await ws.send("two\nlines")
            assert await ws.recv() == "two\nlines"
            await ws.send("\x07")
            with pytest.raises(ConnectionClosed, match="message rejected: message contains control characters"):
                await ws.recv()
        with pytest.raises(InvalidStatus, match="400"):
            await client(server.port, "/ws?room=two%20words")
    assert names["is_a_title"]("A title")
    assert not names["is_a_title"]("")
    assert capsys.readouterr().out == "empty - empty message\n"


async def test_what_a_refused_client_sees() -> None:
    (told,) = map(json.loads, snippets("json")["Rejected clients"])
    serving = plumews.serve_rooms(plumews.Hub(), plumews.SimpleRoomAuth(b"x" * 32), "127.0.0.1", 0, require_token=True)
    async with serving as server:
        with pytest.raises(InvalidStatus) as refused:
            await client(server.port, "/ws")
    said = json.loads(refused.value.response.body)
    assert said["error"] == told["error"]
    assert uuid.UUID(said["request_id"]).version == uuid.UUID(told["request_id"]).version == 4


async def test_members_without_a_connection(hub) -> None:
    recorder = run("Members without a connection")["record"](hub)
    assert recorder.messages == ["hello"]
    assert [user.id for user in hub.presence("chat").users] == ["42"]
    for _ in range(100):
        hub.broadcast_room("chat", "again")
    assert (len(recorder.messages), hub.inspect(recorder).dropped_messages) == (100, 1)
    assert hub.disconnect_user("42") == 1
    assert hub.rooms() == []


async def test_workers() -> None:
    assert run("Workers")["hub"].config.workers == 2


async def test_room_passwords() -> None:
    run("Room passwords")


async def test_tokens(capsys) -> None:
    run("Tokens")
    assert capsys.readouterr().out == "Ada (42): ('admin',)\n"


async def test_errors(start, capsys) -> None:
    careful = run("Errors")["careful"]
    seen = asyncio.Event()

    async def handler(conn: plumews.Conn) -> None:
        await careful(conn, "before")
        await conn.wait_closed()
        await careful(conn, "after")
        seen.set()

    server = await start(plumews.serve(handler, "127.0.0.1", 0))
    async with await client(server.port) as ws:
        assert await ws.recv() == "before"
        await ws.close(1001, "bye")
    await seen.wait()
    assert capsys.readouterr().out == "over: 1001 bye\n"


async def test_monitoring(hub, start, capsys) -> None:
    server = await start(plumews.serve_rooms(hub, plumews.SimpleRoomAuth(), "127.0.0.1", 0))
    async with await client(server.port, "/ws?room=chat") as ws:
        await ws.send("x")
        await ws.recv()
        run("Monitoring")["report"](hub)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["1 connections, 1 rooms", "1 of 1 deliveries queued, 0 dropped"]
    assert lines[2:4] == [
        "0 queued ones gave way, 0 had a newer one of their key",
        "0 members do not keep up, 0 bytes wait for them",
    ]
    room, member = lines[4:]
    assert room == "chat 1 0"
    assert member.startswith("MemberInfo(id=")


async def posted(server: plumews.Server, path: str, body: bytes) -> tuple[int, bytes]:
    async with await Wire.connect(server) as wire:
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        return await wire.response(head.encode() + body)


async def test_messages_from_outside(hub, start) -> None:
    with kept_port() as port:
        shown = run("Broadcasts by HTTP POST", port)
        server = await start(shown["with_admin"](hub, plumews.SimpleRoomAuth()))
    assert (await posted(server, "/internal/say?room=chat", b"x"))[0] == 401
    request = plumews.Request("POST", "/internal/say")
    request.client_address = "192.0.2.7"
    assert shown["may_broadcast"](request)


async def test_routes_of_your_own(start) -> None:
    routes = run("Routes of your own")["routes"]
    server = await start(plumews.serve(on_message=print, host="127.0.0.1", port=0, routes=routes))
    async with await Wire.connect(server) as wire:
        assert await wire.response(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n") == (
            200,
            b"<!doctype html><title>Hello</title>",
        )
        assert ("content-type", "text/html; charset=utf-8") in wire.headers
    assert await posted(server, "/upload", b"x" * 10) == (200, b'{"bytes": 10}\n')
    assert (await posted(server, "/upload", b"x" * (64 * 1024 + 1)))[0] == 413


async def test_prometheus(hub, start) -> None:
    prometheus_client = pytest.importorskip("prometheus_client")
    with kept_port() as port:
        server = await start(run("Prometheus", port)["room_server"](hub, plumews.SimpleRoomAuth()))
    try:
        async with await Wire.connect(server) as wire:
            status, body = await wire.response(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert status == 200
        assert b'plumews_hub_connections{hub="default"} 0.0' in body
    finally:
        for collector in [c for c in prometheus_client.REGISTRY._collector_to_names if "Hub" in type(c).__name__]:
            prometheus_client.REGISTRY.unregister(collector)


async def test_logging(hub, start, capsys) -> None:
    logger = run("Logging")["logging"].getLogger("plumews")
    try:
        server = await start(
            plumews.serve_rooms(hub, plumews.SimpleRoomAuth(b"s3cret" * 8), "127.0.0.1", 0, require_token=True)
        )
        async with await Wire.connect(server) as wire:
            host, port = wire.writer.get_extra_info("sockname")
            assert (await wire.response(upgrade("/ws?room=blue")))[0] == 401
    finally:
        logger.handlers.pop()
        logger.setLevel("NOTSET")
    line = capsys.readouterr().err
    assert f" INFO {host}:{port} blue refused 401 WEBSOCKET_TOKEN_REQUIRED: GET /ws [" in line


async def test_the_context_variables_of_a_server(start: Any) -> None:
    server = await start(run("Context variables")["serving"])
    async with await Wire.open(server) as wire:
        assert await wire.message() == "welcome to red"


@pytest.mark.skipif(sys.platform == "win32", reason="event loops on Windows take no signal handlers")
async def test_stopping(hub, capsys) -> None:
    with kept_port() as port:
        serving = plumews.serve_rooms(hub, plumews.SimpleRoomAuth(), "127.0.0.1", port)
    running = asyncio.ensure_future(run("Stopping")["run"](serving))
    async with await client(port, "/ws") as ws:
        os.kill(os.getpid(), signal.SIGTERM)
        await running
        await ws.wait_closed()
    assert ws.close_code == 1001
    assert re.fullmatch(r"reconnect in \d\.\d s", ws.close_reason)
    assert capsys.readouterr().out == "1 closed, 0 cut, 0 messages lost\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of a fork while there are threads
async def test_child_processes(start) -> None:
    with kept_port() as port:
        child = run("Child processes", port)["start_child"]()
    async with await client(port) as ws:
        await ws.send("hello")
        assert await ws.recv() == "hello"
        child.terminate()
        await ws.wait_closed()
    assert ws.close_code == 1001
    child.join()
    assert child.exitcode == 0


def anchors(page: str) -> set[str]:
    """Return the anchors that a link may name behind the ``#``."""
    prose = re.sub(r"^```.*?^```", "", page, flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}


async def test_turning_it_on(start) -> None:
    with kept_port() as port:
        server = await start(run("Turning it on", port)["server"]())
        async with await client(port) as ws:  # which offers compression by default
            await ws.send("hello " * 100)
            assert await ws.recv() == "hello " * 100
            (conn,) = server.connections
            assert run("Memory")["savings"](conn) > 400
        plain = await client(port, compression=None)
        await plain.send("hello")
        assert await plain.recv() == "hello"
        (conn,) = server.connections
        assert run("Memory")["savings"](conn) == 0
        await plain.close()


async def test_what_there_is_to_choose() -> None:
    chosen = run("Options")
    assert chosen["small"] == plumews.ConnConfig(compression="deflate").deflate
    assert {name: type(chosen[name]) for name in ("smallest", "fast", "wary")} == {
        "smallest": plumews.Deflate,
        "fast": plumews.Deflate,
        "wary": plumews.Deflate,
    }


async def test_compressed_once(start) -> None:
    told = run("Compressed broadcasts")
    hub, picture = told["hub"], bytes(range(256)) * 4
    opened: asyncio.Queue[plumews.Conn] = asyncio.Queue()
    callbacks = {"on_open": opened.put_nowait, "on_message": lambda conn, message: None}
    server = await start(plumews.serve(host="127.0.0.1", port=0, compression="deflate", **callbacks))
    port = server.sockets[0].getsockname()[1]
    async with await client(port) as one, await client(port) as two, await client(port, compression=None) as plain:
        for _ in range(3):
            hub.join("prices", await opened.get())
        await told["publish"]("hello " * 100, picture)
        for ws in (one, two, plain):
            assert [await ws.recv(), await ws.recv()] == ["hello " * 100, picture]
        assert hub.metrics().broadcasts_compressed == 1
    await hub.stop()


async def test_an_asgi_application(caplog) -> None:
    async with uvicorn_setup.running(run("An ASGI application")["app"]) as server:
        async with await client(server.port, "/echo") as ws:
            await ws.send("hello")
            assert await ws.recv() == "hello"
        await until(lambda: not server.state.tasks)
    assert uvicorn_setup.errors(caplog) == []


async def test_the_connection_of_an_asgi_application() -> None:
    told = run("The connection of an ASGI application")
    async with uvicorn_setup.running(told["app"]) as server:
        async with await client(server.port, "/rooms/a") as one, await client(server.port, "/rooms/a") as two:
            await until(lambda: told["hub"].room_count("a") == 2)
            await one.send("hello")
            assert [await one.recv(), await two.recv()] == ["hello", "hello"]
        await until(lambda: told["hub"].room_count("a") == 0)
    await told["hub"].stop()


def test_a_chat_with_tokens_and_presence() -> None:
    chat = run("A chat with tokens and presence")
    tests = run("Tests of a chat", SECRET=chat["SECRET"], make_app=chat["make_app"])
    tests["test_a_room_hears_its_members"]()
    tests["test_a_client_without_a_token_is_refused"]()


async def test_the_room_server_in_an_application() -> None:
    told = run("The room server in an application")
    async with uvicorn_setup.running(told["app"]) as server, await client(server.port, "/chat/ws?room=a") as ws:
        await ws.send("hello")
        assert await ws.recv() == "hello"
        assert told["hub"].rooms() == ["a"]


@pytest.mark.parametrize("kind", SERVERS)
async def test_other_servers(kind: str) -> None:
    ended = asyncio.Event()
    echo = run("Other servers")["app"]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await echo(scope, receive, send)
        ended.set()  # without an exception

    async with serving(kind, app) as port:
        async with await client(port) as ws:
            await ws.send("hello")
            assert await ws.recv() == "hello"
        await asyncio.wait_for(ended.wait(), 10)


@pytest.mark.parametrize("server", ["hypercorn", "granian"])
async def test_rooms_behind_a_proxy_know_its_scheme(server: str) -> None:
    told = run("hypercorn behind a proxy") if server == "hypercorn" else run("granian behind a proxy")
    async with serving("uvicorn", told["app"], proxy_headers=False, interface="asgi3") as port:
        page: Any = f"https://127.0.0.1:{port}"
        forwarded = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.9"}
        async with await client(port, "/ws", origin=page, additional_headers=forwarded) as ws:
            await ws.send("hello")
            assert await ws.recv() == "hello"
        with pytest.raises(InvalidStatus, match="403"):
            await client(port, "/ws", origin=page)


@pytest.mark.skipif(sys.platform == "win32", reason="gunicorn needs a Unix")
def test_the_worker_of_gunicorn_has_our_class() -> None:
    assert run("gunicorn with uvicorn's worker")["Worker"].CONFIG_KWARGS["ws"] == "plumews.asgi:PlumeProtocol"


async def test_options_of_the_protocol_class() -> None:
    echo = uvicorn_setup.echo
    async with uvicorn_setup.running(echo, ws=run("Options of the protocol class")["Guarded"]) as server:
        async with await client(server.port, origin="https://example.com") as ws:
            await ws.send("hello")
            assert await ws.recv() == "hello"
        with pytest.raises(InvalidStatus, match="403"):
            await client(server.port, origin="https://elsewhere.example")


async def test_a_program_that_moves_by_its_imports(start: Any, capsys: Any) -> None:
    server = await start(run("Changing the imports")["serving"])
    url = "ws://{}:{}".format(*server.sockets[0].getsockname())
    with pytest.raises(InvalidStatus, match="200"):
        await connect(f"{url}/healthz")
    async with connect(f"{url}/rooms/a") as ada, connect(f"{url}/rooms/a") as bob, connect(f"{url}/rooms/b") as eve:
        for client in (bob, eve, ada):
            await client.send("hello")
            assert await client.recv() == "hello"
        assert await ada.recv() == await bob.recv() == "hello"
        bob.transport.abort()
        while not (printed := capsys.readouterr().out):
            await asyncio.sleep(0)
    assert printed == "left without a close frame: no close frame received or sent\n"
    consumed: list[Any] = []

    async def handle(message: Any) -> None:
        consumed.append(message)
        consumer.cancel()

    consumer = asyncio.create_task(run("Moving a client")["consume"](f"{url}/rooms/c", handle))
    while not any(getattr(each, "room", "") == "c" for each in server.connections):
        await asyncio.sleep(0)
    async with connect(f"{url}/rooms/c") as speaker:
        await speaker.send("news")
        with contextlib.suppress(asyncio.CancelledError):
            await consumer
    assert consumed == ["news"]
    names = run("Two clients in the same module")
    assert {ConnectionClosed, names["ConnectionClosed"]} == set(names["CLOSED"])


async def test_a_program_that_has_moved_checks_origin_and_host(start: Any) -> None:
    server = await start(run("Servers moved from the websockets package")["serving"])
    host, port = server.sockets[0].getsockname()
    url = f"ws://chat.example.com:{port}"
    async with connect(url, host=host, proxy=None) as client:
        await client.send("hello")
        assert await client.recv() == "hello"
    for uri, origin in ((url, "https://other.example"), (f"ws://{host}:{port}", None)):
        with pytest.raises(InvalidStatus, match="403"):
            await connect(uri, host=host, proxy=None, origin=origin)


async def test_a_hub_for_a_program_that_has_moved(start: Any) -> None:
    names = run("On to the native names")
    server = await start(names["serving"])
    url = "ws://{}:{}".format(*server.sockets[0].getsockname())
    async with names["hub"], connect(url) as ada, connect(url) as bob:
        await until(lambda: names["hub"].room_count("news") == 2)
        await ada.send("news")
        assert [await ada.recv(), await bob.recv()] == ["news", "news"]


def test_every_link_to_a_page_of_ours_leads_somewhere() -> None:
    links = [(page, link) for page, text in PAGES.items() for link in re.findall(r"\]\(([^)\s]+)\)", text)]
    ours = [(page, *link.partition("#")) for page, link in links if "://" not in link]
    assert {page for page, *_ in ours} >= {ROOT / "README.md"}
    for page, path, _, anchor in ours:
        target = page.parent / path if path else page
        assert target.exists(), path
        assert not anchor or anchor in anchors(target.read_text(encoding="utf-8")), anchor


def test_names_in_the_guide_for_plumego_exist() -> None:
    owners = {"hub": plumews.Hub, "conn": plumews.Conn, "auth": plumews.SecureRoomAuth}
    rows = re.findall(r"^\|[^|]+\|([^|]+)\|$", PAGES[DOCS / "migrating" / "from-plumego.md"], re.MULTILINE)
    methods = re.findall(r"\b(hub|conn|auth)\.([a-z]\w+)", "".join(rows))
    functions = re.findall(r"`(?:await )?([A-Za-z]\w+)\(", "".join(rows))
    assert len(methods) > 15
    assert [name for owner, name in methods if not hasattr(owners[owner], name)] == []
    assert [name for name in functions if not hasattr(plumews, name)] == []


def test_every_snippet_is_run() -> None:
    here = Path(__file__)
    source = "".join(path.read_text(encoding="utf-8") for path in (here, here.with_name("test_client_docs.py")))
    assert {heading for heading in PYTHON if f'run("{heading}"' not in source} == set()
    in_browsers = {"A client in the browser", "A page that stays connected"}  # the latter runs in integration/browser
    assert set(snippets("javascript")) == in_browsers
