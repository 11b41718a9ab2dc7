"""Opening handshake on live sockets: refusals, timeouts, hooks, and hostile requests."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import weakref

import pytest

import plumews
from plumews import limits
from plumews.conn import closing
from plumews.http11.websocket_key import accept_value
from plumews.server import handshake
from plumews.server.handshake import ServerHandshake
from plumews.transport.loop_context import loop_context
from support.fakes import PATIENCE, assert_empty, echo, entries
from support.handshake_setup import Recorder, answer, context_of, error, serving
from support.raw_client import KEY, Wire, close, instead, text, upgrade


def without(name):
    """Return a valid request without one header."""
    return b"".join(line for line in upgrade().splitlines(True) if not line.startswith(name.encode() + b":"))


# --- refusals -------------------------------------------------------------------------------------

REFUSED = {
    "POST": (instead(b"GET", b"POST"), 405, "METHOD_NOT_ALLOWED", "method not allowed", ("Allow", "GET")),
    "no_upgrade": (
        without("Upgrade"),
        426,
        "WEBSOCKET_BAD_UPGRADE",
        "websocket upgrade required",
        ("Upgrade", "websocket"),
    ),
    "no_version": (
        without("Sec-WebSocket-Version"),
        426,
        "WEBSOCKET_BAD_VERSION",
        "websocket version 13 required",
        ("Sec-WebSocket-Version", "13"),
    ),
    "no_key": (without("Sec-WebSocket-Key"), 400, "WEBSOCKET_KEY_MISSING", "websocket key required", None),
    "short_key": (upgrade(key="c2hvcnQ="), 400, "WEBSOCKET_KEY_INVALID", "invalid websocket key", None),
    "no_host": (without("Host"), 400, "WEBSOCKET_BAD_HEADER", "Host header required", None),
    "malformed_subprotocol": (
        upgrade("/", "Sec-WebSocket-Protocol: a b"),
        400,
        "WEBSOCKET_BAD_HEADER",
        "invalid Sec-WebSocket-Protocol header: expected tokens separated by commas",
        None,
    ),
    "tls_hello": (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        400,
        "WEBSOCKET_BAD_REQUEST",
        "not an HTTP request, but the beginning of TLS: this server has no certificate",
        None,
    ),
}


@pytest.mark.parametrize(("request_", "status", "code", "message", "header"), REFUSED.values(), ids=REFUSED.keys())
async def test_bad_request_gets_one_response_and_the_end(start, request_, status, code, message, header, monkeypatch):
    monkeypatch.setattr(closing, "_FIN_WAIT", PATIENCE)  # or what is left of 10 MB is met by a reset on a busy machine
    opened = []
    server = await start(plumews.serve(opened.append, "127.0.0.1", 0))
    async with await Wire.connect(server) as wire:
        answered, body = await wire.response(request_)
        assert (answered, error(body)) == (status, {"code": code, "message": message, "status": status})
        assert wire.header("connection") == "close"
        if header is not None:
            assert wire.header(header[0]) == header[1]
    assert opened == []
    assert server.is_serving()


async def test_own_page_may_connect_unlisted(start):
    server = await start(plumews.serve(echo, "127.0.0.1", 0))
    host = f"localhost:{server.port}"
    async with await Wire.connect(server) as wire:
        wire.writer.write(upgrade("/", f"Origin: http://{host}", host=host))
        await wire.read_head()
        assert wire.status == 101


@pytest.mark.parametrize("taken", [0, 1, 100])
async def test_answer_that_the_socket_takes_in_part_is_complete(start, monkeypatch, taken):
    offered = []

    def send(fd, buffers):
        offered.extend(buffers)
        part = b"".join(buffers)[:taken]
        return os.write(fd, part) if part else 0

    monkeypatch.setattr(handshake, "send", send)
    server = await start(plumews.serve(echo, "127.0.0.1", 0))
    async with await Wire.connect(server) as wire:
        wire.writer.write(upgrade() + text("a"))
        await wire.read_head()
        assert (wire.status, wire.header("sec-websocket-accept")) == (101, accept_value(KEY).decode())
        assert await wire.message() == "a"
    assert len(offered) == 1


async def test_listed_page_and_program_without_origin_may_connect(start):
    server = await start(plumews.serve(echo, "127.0.0.1", 0, origins=["http://good.com", None]))
    for line in (["Origin: http://good.com"], ["Origin: http://good.com:80"], []):
        async with await Wire.open(server, "/", *line):
            pass


async def test_foreign_host_is_refused_for_plain_requests(start):
    server = await start(
        plumews.serve(echo, "127.0.0.1", 0, routes={"/secret": lambda request: plumews.Response.text(200, "x")})
    )
    status, refused, _ = await answer(server, b"GET /secret HTTP/1.1\r\nHost: evil.com\r\n\r\n")
    assert (status, refused["code"]) == (403, "WEBSOCKET_FORBIDDEN_HOST")


async def test_path_without_endpoint_is_404(start):
    endpoints = {"/ws": Recorder()}
    server = await start(serving(endpoints))
    for request in (upgrade("/other"), b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"):
        status, refused, _ = await answer(server, request)
        assert (status, refused) == (404, {"code": "NOT_FOUND", "message": "not found", "status": 404})


# --- what stands behind the head ------------------------------------------------------------------


INVALID = {
    "reserved_bit": b"\xc1\x80\x00\x00\x00\x00",
    "reserved_opcode": b"\x83\x80\x00\x00\x00\x00",
    "unmasked": b"\x81\x05Hello",
    "orphan_continuation": b"\x80\x80\x00\x00\x00\x00",
    "not_utf_8": b"\x81\x81\x00\x00\x00\x00\xff",
    "long_control": b"\x89\xfe\x00\x7e\x00\x00\x00\x00" + b"x" * 126,
    "fragmented_control": b"\x09\x80\x00\x00\x00\x00",
    "long_length_form": b"\x81\xfe\x00\x05\x00\x00\x00\x00Hello",
    "too_big": b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff",
}


@pytest.mark.parametrize("glued", [True, False], ids=["glued", "later"])
@pytest.mark.parametrize("frame", INVALID.values(), ids=INVALID.keys())
async def test_row_22_invalid_frame_behind_the_head_delivers_nothing(start, frame, glued):
    got = []
    server = await start(plumews.serve(on_message=lambda conn, message: got.append(message), host="127.0.0.1", port=0))
    async with await Wire.connect(server) as wire:
        wire.writer.write(upgrade() + (frame + text("behind") if glued else b""))
        await wire.read_head()
        if not glued:
            wire.send(frame, text("behind"))
        code, _ = await wire.closing()
        assert code in (1002, 1007, 1009)
        await wire.eof()
    assert got == []


# --- the deadline ---------------------------------------------------------------------------------


async def test_silent_client_gets_408_at_the_open_timeout(start):
    server = await start(plumews.serve(echo, "127.0.0.1", 0, open_timeout=0.1))
    status, refused, _ = await answer(server, b"")
    assert (status, refused["code"], refused["message"]) == (
        408,
        "WEBSOCKET_HANDSHAKE_TIMEOUT",
        "the request took too long",
    )


async def test_open_timeout_bounds_a_head_sent_byte_by_byte(start):
    server = await start(plumews.serve(echo, "127.0.0.1", 0, open_timeout=0.2))
    clock = asyncio.get_running_loop().time
    began = clock()
    async with await Wire.connect(server) as wire:
        head = asyncio.ensure_future(wire.read_head())
        wire.writer.write(b"GET / HTTP/1.1\r\nX: ")
        while not head.done():
            wire.writer.write(b"x")
            await asyncio.wait({head}, timeout=0.02)
        assert wire.status == 408
        assert 0.19 <= clock() - began < PATIENCE
        await wire.reader.read()


async def test_open_timeout_counts_from_accept_before_tls():
    loop = asyncio.get_running_loop()
    context, config = context_of({None: Recorder()}, open_timeout=5.0)
    conn = plumews.Conn(config)
    before = loop.time()
    opening = ServerHandshake(context, conn)  # made on accept
    accepted = loop.time()
    while loop.time() < accepted + 0.05:
        await asyncio.sleep(0)  # TLS shakes hands
    opening.connected()
    assert before + 5 <= opening._responder._deadline.when <= accepted + 5
    opening.lost()


async def test_open_connection_has_no_open_timeout_left(start):
    server = await start(plumews.serve(echo, "127.0.0.1", 0, ping_interval=None, ping_timeout=None))
    async with await Wire.open(server) as wire:
        assert len(loop_context(asyncio.get_running_loop()).timers) == 0
        wire.send(text("open"))
        assert await wire.message() == "open"


# --- the largest head -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["serve", "rooms", "unix"])
async def test_max_head_bounds_the_head_of_every_kind_of_server(start, tmp_path, kind):
    size = 40_000
    servers = {
        "serve": lambda: plumews.serve(echo, "127.0.0.1", 0, max_head=size),
        "rooms": lambda: plumews.serve_rooms(
            plumews.Hub(), plumews.SimpleRoomAuth(), "127.0.0.1", 0, path="/", max_head=size
        ),
        "unix": lambda: plumews.unix_serve(echo, str(tmp_path / "s"), max_head=size),
    }
    server = await start(servers[kind]())
    cookie = "x" * (size - len(upgrade("/", "Cookie: ")))
    for more, status in (("", 101), ("x", 431)):
        async with await Wire.connect(server) as wire:
            wire.send(upgrade("/", f"Cookie: {cookie}{more}"))
            await wire.read_head()
            assert wire.status == status
    async with await Wire.connect(server) as wire:
        status, body = await wire.response(upgrade("/", f"Cookie: {cookie}x"))
        assert (error(body)["code"], error(body)["message"]) == (
            "WEBSOCKET_HEAD_TOO_LARGE",
            "request head too large: more than 40000 bytes",
        )


@pytest.mark.parametrize(("size", "lines"), [(1024, 100), (16 * 1024, 100), (64 * 1024, 400)])
async def test_larger_max_head_allows_more_headers(start, size, lines):
    server = await start(plumews.serve(echo, "127.0.0.1", 0, max_head=size))
    for more, status in ((0, 101), (1, 431)):
        async with await Wire.connect(server) as wire:
            wire.send(upgrade("/", *["A: 1"] * (lines - 5 + more)))
            await wire.read_head()
            assert wire.status == status


# --- stopping -------------------------------------------------------------------------------------


async def test_unfinished_handshake_gets_503_when_the_server_stops():
    asked = asyncio.Event()
    cancelled = []

    async def process_request(conn, request):
        asked.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(conn)
            raise

    server = await plumews.serve(echo, "127.0.0.1", 0, process_request=process_request)
    async with contextlib.AsyncExitStack() as stack:
        silent, halfway, asking = [await stack.enter_async_context(await Wire.connect(server)) for _ in range(3)]
        halfway.writer.write(upgrade()[:30])
        asking.writer.write(upgrade())
        await asked.wait()
        while len(server._context.connections) < 3:
            await asyncio.sleep(0)
        server.close()
        for wire in (silent, halfway, asking):
            status, body = await wire.response(b"")
            assert (status, error(body)["code"]) == (503, "WEBSOCKET_STOPPING")
            wire.writer.close()
        await server.wait_closed()
    assert len(cancelled) == 1
    await assert_empty(server)


async def test_connection_accepted_during_the_stop_gets_503():
    context, config = context_of({None: Recorder()})
    context.closing = True
    loop = asyncio.get_running_loop()

    def connection():
        conn = plumews.Conn(config)
        conn._handshake = ServerHandshake(context, conn)
        return conn

    server = await loop.create_server(connection, "127.0.0.1", 0)
    async with await Wire.connect(server) as wire:
        status, body = await wire.response(b"")
        assert (status, error(body)["code"]) == (503, "WEBSOCKET_STOPPING")
    server.close()


# --- logs and leaks -------------------------------------------------------------------------------


async def test_row_20_log_has_no_query_control_byte_or_secret(start, caplog):
    caplog.set_level(logging.DEBUG)

    def process_request(conn, request):
        if request.path.startswith("/raise"):
            raise RuntimeError("broken hook")
        if request.path.startswith("/refuse"):
            raise plumews.Refused("no")

    def on_message(conn, message):
        raise RuntimeError(f"broken callback of {conn!r} with {conn.request!r} and {conn.request.headers!r}")

    server = await start(
        plumews.serve(on_message=on_message, host="127.0.0.1", port=0, process_request=process_request)
    )
    tail = "%1b[2J%0aFAKE%20LINE?token=s3cret&room_password=s3cret"
    header = "Authorization: Bearer s3cret"
    for path in ("/raise", "/refuse", "/open"):
        async with await Wire.connect(server) as wire:
            wire.writer.write(upgrade(path + tail, header, "Cookie: s3cret") + text("s3cret") + close())
            await wire.reader.read()
    assert len(entries(caplog)) >= 3
    for record in caplog.records:
        message = record.getMessage()
        lines = [message, caplog.handler.format(record)]
        assert all("s3cret" not in line for line in lines), lines
        assert message.isprintable(), message
        assert "\x1b" not in lines[1]
        assert "FAKE LINE" not in lines[1]


async def test_row_20_many_bad_clients_log_few_lines(start, caplog):
    caplog.set_level(logging.INFO)
    server = await start(plumews.serve(echo, "127.0.0.1", 0))
    for request in (b"bad\r\n\r\n", upgrade("/", "Origin: http://evil.com"), upgrade("/", "Content-Length: 9")):
        for _ in range(100):
            async with await Wire.connect(server) as wire:
                await wire.response(request)
    times = [record.created for record in entries(caplog)]
    assert times
    assert all(sum(start <= time < start + 1 for time in times) <= limits.LOG_LINES for start in times)


@pytest.mark.parametrize("how", ["bad", "refused", "answered", "later", "timeout", "reset"])
async def test_row_28_unopened_connection_is_freed_without_collector(how):
    made = []

    async def later(conn, request):
        await asyncio.sleep(0)
        raise plumews.Refused("no")

    def process_request(conn, request):
        if request.path == "/answered":
            return plumews.Response.text(200, "x")
        if request.path == "/later":
            return later(conn, request)
        raise plumews.Refused("no")

    options = {"open_timeout": 0.1} if how == "timeout" else {}
    serving = plumews.serve(echo, "127.0.0.1", 0, process_request=process_request, **options)
    server = await serving
    collecting = gc.isenabled()
    gc.disable()
    try:
        async with await Wire.connect(server) as wire:
            while not server._context.connections:
                await asyncio.sleep(0)
            made += map(weakref.ref, server._context.connections)
            if how == "reset":
                wire.reset()
            elif how == "timeout":
                assert (await wire.response(b""))[0] == 408
            elif how == "bad":
                assert (await wire.response(b"bad"))[0] == 400
            else:
                await wire.response(upgrade(f"/{how}"))
        while server._context.connections:
            await asyncio.sleep(0)
        await assert_empty(server)
        del server, serving
        await asyncio.sleep(0)
        assert [ref() for ref in made] == [None]
    finally:
        if collecting:
            gc.enable()
