"""Graceful stop of a server: close frames, timeouts, and handlers that ignore them."""

from __future__ import annotations

import asyncio
import contextlib
import re

import pytest

import plumews
from support.fakes import assert_empty, echo, fake_conn, until
from support.handshake_setup import assert_serves
from support.raw_client import Wire, close, kept_port, text


async def test_close_sends_1001_to_all_and_leaves_nothing():
    ended = []

    async def handler(conn):
        await echo(conn)
        ended.append(conn.close_code)

    async with contextlib.AsyncExitStack() as stack:
        server = await plumews.serve(handler, "127.0.0.1", 0)
        wires = [await stack.enter_async_context(await Wire.open(server)) for _ in range(20)]
        assert len(server.connections) == 20
        server.close()
        server.close(4000, "the second one does not count")
        assert not server.is_serving()
        for wire in wires:
            assert await wire.closing() == (1001, "")
            wire.send(close(1001))
        await server.wait_closed()
        await server.wait_closed()
    assert ended == [1001] * 20
    assert server.sockets == ()
    assert server.connections == set()
    with pytest.raises(RuntimeError, match="no port"):
        _ = server.port
    await assert_empty(server)


async def test_close_sends_the_given_code_and_reason():
    server = await plumews.serve(echo, "127.0.0.1", 0)
    async with await Wire.open(server) as wire:
        for code, reason in ((1006, ""), (999, ""), (1000, "x" * 124)):
            with pytest.raises(ValueError, match="close"):
                server.close(code, reason)
        assert server.is_serving()
        server.close(1012, "back in a minute")
        assert await wire.closing() == (1012, "back in a minute")
        wire.send(close())
        await server.wait_closed()


async def test_close_spreads_close_frames_with_reconnect_hints():
    async with plumews.serve(echo, "127.0.0.1", 0) as server:
        wires = [await Wire.open(server) for _ in range(10)]
        server.close(1012, "new version", spread=0.3, reconnect_in=30)
        loop = asyncio.get_running_loop()
        began, times, hints = loop.time(), [], set()

        async def leave(wire: Wire) -> None:
            code, reason = await wire.closing()
            times.append(loop.time() - began)
            hint = re.fullmatch(r"new version; reconnect in (\d+\.\d) s", reason)
            assert hint, reason
            hints.add(float(hint[1]))
            assert code == 1012
            wire.send(close(1012))
            await wire.eof()
            wire.writer.close()

        await asyncio.gather(*map(leave, wires))
        await server.wait_closed()
    assert max(times) - min(times) > 0.1
    assert len(hints) > 1
    assert max(hints) <= 30
    await assert_empty(server)


async def test_connection_is_served_until_its_close_frame(start):
    opened: list[plumews.Conn] = []

    def answer(conn: plumews.Conn, message: str | bytes) -> None:
        conn.send_nowait(message)

    server = await start(plumews.serve(host="127.0.0.1", port=0, on_open=opened.append, on_message=answer))
    async with await Wire.open(server) as one, await Wire.open(server) as two:
        server.close(spread=1)
        await until(lambda: any(conn.closed for conn in opened))
        told, other = (one, two) if opened[0].closed else (two, one)
        other.send(text("still here?"))
        assert await other.message() == "still here?"
        for wire in (told, other):
            assert (await wire.closing())[0] == 1001
            wire.send(close(1001))
        await server.wait_closed()


async def test_pending_broadcasts_are_sent_before_the_close_frame(monkeypatch):
    monkeypatch.setattr(plumews.limits, "FAN_OUT_SLICE", 0.0)
    hub = plumews.Hub()
    async with plumews.serve(host="127.0.0.1", port=0, on_message=lambda conn, message: None) as server:
        for _ in range(100):
            hub.join("chat", fake_conn(ping_interval=None)[0])
        async with await Wire.open(server) as wire:
            (conn,) = server.connections
            hub.join("chat", conn)
            for number in range(20):
                assert hub.broadcast_room("chat", str(number)).pending
            server.close()
            assert [await wire.message() for _ in range(20)] == [str(number) for number in range(20)]
            assert (await wire.closing())[0] == 1001
    hub.remove(conn)
    await hub.shutdown(0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"spread": -1}, "spread must be at least 0 seconds, not -1"),
        ({"spread": 11}, "spread (11 s) must not be more than the timeout (10 s)"),
        ({"reconnect_in": 3601}, "reconnect_in must be at most 3600 seconds, not 3601"),
        ({"reason": "x" * 123, "reconnect_in": 1}, "a close reason may have 123 bytes of UTF-8, not 146"),
    ],
    ids=["a spread of less than nothing", "a spread of too much", "a hint too late", "a reason too long with its hint"],
)
async def test_close_with_invalid_arguments_raises_and_serves_on(start, options, said):
    server = await start(plumews.serve(echo, "127.0.0.1", 0))
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        server.close(**options)
    await assert_serves(server)


async def test_closed_server_refuses_connections():
    with kept_port() as port:
        server = await plumews.serve(echo, "127.0.0.1", port)
        server.close()
        await server.wait_closed()
        with pytest.raises(OSError, match=r"[Cc]onnect"):
            await asyncio.open_connection("127.0.0.1", port)
        async with plumews.serve(echo, "127.0.0.1", port) as again:
            await assert_serves(again)


async def test_handler_is_cancelled_after_the_close_timeout(caplog):
    cancelled = []

    async def handler(conn):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(conn)
            raise

    server = await plumews.serve(handler, "127.0.0.1", 0, close_timeout=0.1)
    async with await Wire.open(server) as wire:
        server.close()
        assert await wire.closing() == (1001, "")
        wire.send(close())
        await server.wait_closed()
    assert len(cancelled) == 1
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    await assert_empty(server)


async def test_silent_peer_is_cut_after_the_close_timeout():
    server = await plumews.serve(echo, "127.0.0.1", 0, close_timeout=0.1)
    async with await Wire.open(server) as wire:
        server.close()
        await server.wait_closed()
        assert await wire.closing() == (1001, "")
        await wire.eof()
    await assert_empty(server)


async def test_handler_that_ignores_its_cancellation_does_not_block(monkeypatch):
    monkeypatch.setattr(plumews.limits, "END_GRACE", 0.1)
    may_end, ended = asyncio.Event(), asyncio.Event()

    async def handler(conn):
        while not may_end.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await may_end.wait()
        ended.set()

    server = await plumews.serve(handler, "127.0.0.1", 0, close_timeout=0.1)
    async with await Wire.open(server):
        server.close()
        await server.wait_closed()
        assert server._context.connections == set()
        may_end.set()
        await ended.wait()


async def test_handler_may_end_within_the_close_timeout():
    async def handler(conn):
        await conn.wait_closed()
        await asyncio.sleep(0)
        done.append(conn)

    done = []
    server = await plumews.serve(handler, "127.0.0.1", 0)
    async with await Wire.open(server) as wire:
        server.close()
        await wire.closing()
        wire.send(close())
        await server.wait_closed()
    assert len(done) == 1


async def test_leaving_the_block_closes_the_server():
    async with plumews.serve(echo, "127.0.0.1", 0, close_timeout=0.1) as server:
        wire = await Wire.open(server)
    assert not server.is_serving()
    assert await wire.closing() == (1001, "")
    await wire.eof()
    wire.writer.close()


async def test_serve_forever_ends_when_the_server_is_closed():
    server = await plumews.serve(echo, "127.0.0.1", 0)
    forever = asyncio.ensure_future(server.serve_forever())
    await assert_serves(server)
    assert not forever.done()
    server.close()
    await forever


async def test_cancelling_serve_forever_closes_the_server():
    server = await plumews.serve(echo, "127.0.0.1", 0)
    forever = asyncio.ensure_future(server.serve_forever())
    async with await Wire.open(server) as wire:
        forever.cancel()
        assert await wire.closing() == (1001, "")
        wire.send(close())
        with pytest.raises(asyncio.CancelledError):
            await forever
    assert not server.is_serving()
    await assert_empty(server)
