"""Opening handshake while its decision takes time: hooks, kept bytes, and clients that leave."""

from __future__ import annotations

import asyncio

import pytest

import plumews
from plumews import limits
from plumews.conn import closing
from support.fakes import assert_empty, echo, entries, until
from support.handshake_setup import Recorder, answer, assert_serves, failing, serving
from support.raw_client import Wire, masked, text, upgrade

# --- hooks ----------------------------------------------------------------------------------------


async def test_endpoint_opened_that_raises_is_1011_with_one_log_entry(start, caplog):
    server = await start(serving({None: Recorder(opened=failing)}))
    async with await Wire.open(server) as wire:
        assert await wire.closing() == (1011, "the handler failed")
    assert len(entries(caplog)) == 1
    assert entries(caplog)[0].exc_info is not None


@pytest.mark.parametrize("later", [False, True], ids=["now", "later"])
async def test_process_request_may_answer_refuse_or_go_on(start, later):
    def decide(conn, request):
        assert conn.request is request
        assert conn.remote_address[0] == "127.0.0.1"
        if request.path == "/answer":
            return plumews.Response.text(200, "instead", [("X-Mine", "1")])
        if request.path == "/refuse":
            raise plumews.Refused("not you", status=451, code="MINE", headers=(("X-Why", "law"),))
        return None

    async def decide_later(conn, request):
        await asyncio.sleep(0)
        return decide(conn, request)

    server = await start(plumews.serve(echo, "127.0.0.1", 0, process_request=decide_later if later else decide))
    async with await Wire.connect(server) as wire:
        assert await wire.response(upgrade("/answer")) == (200, b"instead")
        assert (wire.header("x-mine"), wire.header("connection")) == ("1", "close")
    status, refused, wire = await answer(server, upgrade("/refuse"))
    assert (status, refused) == (451, {"code": "MINE", "message": "not you", "status": 451})
    assert wire.header("x-why") == "law"
    await assert_serves(server, "/go-on")


async def test_frames_before_the_decision_are_kept_in_order(start):
    asked, decided = asyncio.Event(), asyncio.Event()

    async def process_request(conn, request):
        asked.set()
        await decided.wait()

    server = await start(plumews.serve(echo, "127.0.0.1", 0, process_request=process_request, queue_bytes=1 << 24))
    async with await Wire.connect(server) as wire:
        wire.writer.write(upgrade() + text("0"))
        await asked.wait()
        wire.send(text("1"), masked(2, b"x" * 300_000), text("2"))
        decided.set()
        await wire.read_head()
        assert wire.status == 101
        assert [await wire.message() for _ in range(4)] == ["0", "1", b"x" * 300_000, "2"]


async def test_bytes_kept_before_the_decision_are_bounded(start):
    asked, decided = asyncio.Event(), asyncio.Event()

    async def process_request(conn, request):
        asked.set()
        await decided.wait()

    server = await start(plumews.serve(echo, "127.0.0.1", 0, process_request=process_request, queue_bytes=1 << 26))
    message = b"x" * 64_000
    async with await Wire.connect(server) as wire:
        wire.writer.write(upgrade())
        await asked.wait()
        (conn,) = server._context.connections
        wire.send(*[masked(2, message)] * 200)
        while conn._transport.is_reading():
            await asyncio.sleep(0)
        assert len(conn._handshake._responder.rest) <= limits.HEAD_SIZE + limits.READ_BUFFER
        assert not wire.writer.is_closing()
        decided.set()
        await wire.read_head()
        for _ in range(200):
            assert await wire.message() == message


async def test_client_that_leaves_before_the_decision_is_noticed(start):
    asked = asyncio.Event()
    ended = asyncio.get_running_loop().create_future()

    async def process_request(conn, request):
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set_result(conn)

    server = await start(plumews.serve(echo, "127.0.0.1", 0, process_request=process_request))
    wire = await Wire.connect(server)
    wire.writer.write(upgrade())
    await asked.wait()
    wire.reset()
    conn = await ended
    await conn.wait_closed()
    assert server._context.connections == set()
    await assert_empty(server)


async def test_reset_behind_the_request_is_no_error(start):
    server = await start(plumews.serve(echo, "127.0.0.1", 0))
    for request in (b"bad\r\n\r\n", upgrade(), upgrade("/", "Origin: http://evil.com"), upgrade()[:50]):
        for _ in range(20):
            wire = await Wire.connect(server)
            wire.writer.write(request)
            await asyncio.sleep(0)
            wire.reset()
    await assert_serves(server)
    await assert_empty(server)


# --- clients that leave ----------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [None, plumews.Response.text(200, "hello")])
async def test_tls_client_that_left_before_the_decision_is_not_opened(start, caplog, answer):
    opened = []

    async def process_request(conn, request):
        # Of TLS the event loop tells the end of the peer first, and closes a moment later: here, at the close timeout.
        assert conn.eof_received() is False
        return answer

    server = await start(
        plumews.serve(
            host="127.0.0.1",
            port=0,
            on_open=opened.append,
            on_message=lambda conn, message: None,
            process_request=process_request,
            close_timeout=0.05,
        )
    )
    async with await Wire.connect(server) as wire:
        wire.send(upgrade())
        await wire.eof()
    await assert_empty(server)
    assert opened == []
    assert entries(caplog) == []
    assert server._context.requests.opened == 0


async def test_long_response_reaches_a_slow_reader_whole(start, monkeypatch):
    monkeypatch.setattr(closing, "_FIN_WAIT", 0.05)
    page = plumews.Response(200, body=bytes(16 * limits.MiB))
    server = await start(plumews.serve(echo, "127.0.0.1", 0, routes={"/": lambda request: page}))
    async with await Wire.connect(server, rcvbuf=4096, limit=4096) as wire:
        wire.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await wire.read_head()
        await asyncio.sleep(0.2)  # longer than a moment
        assert len(await wire.reader.read()) == len(page.body)
    hasty = await start(plumews.serve(echo, "127.0.0.1", 0, routes={"/": lambda request: page}, close_timeout=0.1))
    async with await Wire.connect(hasty, rcvbuf=4096, limit=4096) as wire:
        wire.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await wire.read_head()
        await until(lambda: not hasty._context.connections)
