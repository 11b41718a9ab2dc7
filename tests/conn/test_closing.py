"""Closing handshake from our side, aborting, and waiting for the end."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

import plumews
from plumews import ConnectionClosed, ConnectionClosedOK, Opcode, State, limits
from plumews.conn.receiver import deliver_to
from support.fakes import (
    PATIENCE,
    clog,
    collect,
    fake_conn,
    feed,
    linked,
    pass_time,
    started,
    ticks,
    until,
)
from support.raw_client import Wire, close, masked, text

KiB = 1024


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Handle each read in one time slice, even on a busy machine."""
    monkeypatch.setattr(limits, "FAN_OUT_SLICE", 60.0)


# --- we close -------------------------------------------------------------------------------------


async def test_our_close_waits_for_that_of_the_peer(start: Any) -> None:
    async with linked(start) as (conn, wire):
        closing = started(conn.close(4000, "enough"))
        assert await wire.event() == (Opcode.CLOSE, (4000, "enough"))
        assert conn.state is State.CLOSING
        assert not closing.done()
        wire.send(close(4000))
        await closing
        assert conn.state is State.CLOSED
        assert conn.close_code == 4000
        with pytest.raises(EOFError):
            await wire.event()


async def test_queued_messages_arrive_before_the_close_frame(start: Any) -> None:
    async with linked(start, rcvbuf=4096, send_timeout=None) as (conn, wire):
        clog(conn)
        accepted = 0
        while conn.queued_messages < 64 and conn.queued_bytes < 900 * KiB:
            conn.send_nowait(f"{accepted:<10000}")
            accepted += 1
        assert accepted > 10
        closing = started(conn.close())
        await ticks()
        with pytest.raises(ConnectionClosed):
            await conn.send("after the close")
        events = []
        while True:
            kind, payload = await wire.event()
            if kind == Opcode.CLOSE:
                break
            events.append(payload)
        texts = [payload for payload in events if isinstance(payload, str)]
        assert [int(payload) for payload in texts] == list(range(accepted))
        wire.send(close(1000))
        await closing
        with pytest.raises(EOFError):
            await wire.event()


async def test_nothing_leaves_after_the_close_frame() -> None:
    conn, transport = fake_conn(ping_interval=0.001, ping_timeout=10)
    conn.close_nowait()
    feed(conn, masked(Opcode.PING, b"?"), text("?"), masked(Opcode.PING, b"?"))
    await asyncio.sleep(0.01)  # by their clock pings are due, ten times over
    for send in (conn.send_nowait, lambda message: conn._send_ping(b"late")):
        with contextlib.suppress(ConnectionClosed):
            send("late")
    await ticks()
    assert transport.events() == [(Opcode.CLOSE, (1000, ""))]
    feed(conn, close(1000))
    await conn.wait_closed()
    assert transport.events() == [(Opcode.CLOSE, (1000, ""))]


async def test_messages_that_cross_our_close_are_dropped(start: Any) -> None:
    async with linked(start) as (conn, wire):
        closing = started(conn.close())
        assert await wire.closing() == (1000, "")
        wire.send(text("crossed it"), masked(Opcode.BINARY, bytes(100_000)), close(1000))
        await closing
        with pytest.raises(ConnectionClosedOK):
            await conn.recv()


async def test_callback_is_not_called_after_it_has_closed() -> None:
    conn, transport = fake_conn()
    seen: list[Any] = []

    def on_message(conn: plumews.Conn, message: str | bytes) -> None:
        seen.append(message)
        conn.send_nowait("bye")
        conn.close_nowait(4000, "seen enough")

    deliver_to(conn, on_message, lambda conn, exc: None)
    feed(conn, text("one"), text("two"))
    feed(conn, text("three"))
    assert seen == ["one"]
    assert transport.events() == [(Opcode.TEXT, "bye"), (Opcode.CLOSE, (4000, "seen enough"))]
    conn.abort()


@pytest.mark.parametrize("peer", ["silent", "chatty", "never reading"])
async def test_row_32_our_close_ends_within_its_timeout(start: Any, peer: str) -> None:
    rcvbuf = 4096 if peer == "never reading" else None
    async with linked(start, rcvbuf=rcvbuf, close_timeout=0.15) as (conn, wire):
        loop = asyncio.get_running_loop()
        if peer == "never reading":
            clog(conn)
        began = loop.time()
        closing = started(conn.close())
        while not closing.done():
            if peer == "chatty":
                with contextlib.suppress(ConnectionError):
                    wire.send(text("and another thing") * 100, masked(Opcode.PING, b"!"))
            await asyncio.sleep(0.005)  # the pace of its chatter
        assert 0.14 < loop.time() - began < PATIENCE
        assert conn.close_code == 1006
        with pytest.raises(ConnectionClosed):
            await collect(conn, [])  # what came before the close is readable


@pytest.mark.parametrize("peer", ["silent", "chatty", "never reading"])
async def test_row_32_a_close_by_the_peer_ends_within_the_timeout(start: Any, peer: str) -> None:
    rcvbuf = 4096 if peer == "never reading" else None
    async with linked(start, rcvbuf=rcvbuf, close_timeout=0.15) as (conn, wire):
        if peer == "never reading":
            clog(conn)
        wire.send(close(1000))
        while conn.state is not State.CLOSED:
            if peer == "chatty":
                with contextlib.suppress(ConnectionError):
                    wire.send(text("and another thing") * 100)
            await asyncio.sleep(0.005)  # the pace of its chatter
        assert conn.close_code == 1000


async def test_row_32_violation_of_an_unread_peer_ends_in_time(start: Any) -> None:
    async with linked(start, rcvbuf=4096, close_timeout=0.15) as (conn, wire):
        clog(conn)
        wire.send(b"\xff\xff")
        await asyncio.wait_for(conn.wait_closed(), PATIENCE)


async def test_a_peer_that_ends_its_half_and_never_reads_is_cut_off(start: Any) -> None:
    """The transport waits until its buffer has left, and there is no keepalive."""
    async with linked(start, rcvbuf=4096, close_timeout=0.1, ping_interval=None) as (conn, wire):
        clog(conn)
        wire.writer.write_eof()
        await asyncio.wait_for(conn.wait_closed(), PATIENCE)
        assert conn.close_code == 1006


async def test_both_close_at_the_same_time(start: Any) -> None:
    async with linked(start) as (conn, wire):
        wire.send(close(4001, "theirs"))
        await conn.close(4000, "ours")
        assert await wire.closing() == (4000, "ours")
        assert conn.close_code == 4001
        error = conn._rules.closed()
        assert error.sent is not None
        assert error.sent.code == 4000


async def test_closing_again_is_harmless_and_the_first_code_counts(start: Any) -> None:
    async with linked(start) as (conn, wire):
        first, second = started(conn.close(4000)), started(conn.close(4001))
        await ticks()
        conn.close_nowait(4002)
        assert await wire.closing() == (4000, "")
        wire.send(close(4000))
        await asyncio.gather(first, second)
        await conn.close(4003)
        conn.abort()
        with pytest.raises(EOFError):
            await wire.event()


async def test_reset_ends_the_closing_handshake(start: Any) -> None:
    async with linked(start) as (conn, wire):
        closing = started(conn.close())
        await wire.closing()
        wire.reset()
        await closing
        assert conn.close_code == 1006


# --- aborting -------------------------------------------------------------------------------------


async def test_abort_sends_no_close_frame(start: Any) -> None:
    async with linked(start) as (conn, wire):
        await conn.send("before")
        conn.abort()
        assert conn.closed
        await conn.wait_closed()
        assert (conn.close_code, conn.close_reason) == (1006, "")
        with contextlib.suppress(ConnectionError, EOFError):
            while True:
                kind, _ = await wire.event()
                assert kind != Opcode.CLOSE


async def test_abort_in_a_callback_ends_its_calls_at_once() -> None:
    conn, _ = fake_conn()
    seen: list[Any] = []

    def on_message(conn: plumews.Conn, message: str | bytes) -> None:
        seen.append(message)
        conn.abort()

    deliver_to(conn, on_message, lambda conn, exc: None)
    feed(conn, text("one"), text("two"))
    await conn.wait_closed()
    assert seen == ["one"]


async def test_abort_does_not_wait_for_a_peer_that_does_not_read(start: Any) -> None:
    async with linked(start, rcvbuf=4096) as (conn, _):
        clog(conn)
        conn.abort()
        await asyncio.wait_for(conn.wait_closed(), PATIENCE)


async def test_the_transport_has_low_limits_of_its_own() -> None:
    conn, transport = fake_conn()
    assert transport.limits == [64 * KiB]
    conn.abort()


# --- callbacks ------------------------------------------------------------------------------------


async def test_close_callbacks_run_once_when_the_connection_is_gone(start: Any) -> None:
    async with linked(start) as (conn, wire):
        told: list[Any] = []
        conn.add_close_callback(told.append)
        removed: list[Any] = []
        conn.add_close_callback(removed.append)
        conn.remove_close_callback(removed.append)
        conn.remove_close_callback(removed.append)
        wire.send(close(1000))
        await conn.wait_closed()
        assert told == [conn]
        conn.add_close_callback(told.append)
        assert told == [conn, conn]
        assert removed == []


async def test_failing_close_callback_does_not_stop_the_others() -> None:
    failures: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: failures.append(context))
    conn, _ = fake_conn()
    told: list[Any] = []
    conn.add_close_callback(lambda conn: 1 / 0)
    conn.add_close_callback(told.append)
    conn.abort()
    await conn.wait_closed()
    assert told == [conn]
    assert [type(failure["exception"]) for failure in failures] == [ZeroDivisionError]


# --- memory after the end -------------------------------------------------------------------------


@pytest.mark.parametrize("count", [300, 600, 30_000])
@pytest.mark.parametrize("first", [True, False], ids=["waits first", "waits then"])
async def test_close_behind_unread_messages_ends_wait_closed(count: int, first: bool) -> None:
    conn, transport = fake_conn(ping_interval=None)
    waiting = started(conn.wait_closed()) if first else None
    await ticks()
    feed(conn, *[text("x")] * count, close(4000))
    assert len(conn._inbox) == limits.MAX_QUEUE
    waiting = waiting or started(conn.wait_closed())
    await ticks()
    pass_time(limits.END_GRACE + 0.1)
    await ticks()
    assert transport.events() == [(Opcode.CLOSE, (4000, ""))]
    await waiting
    assert [await conn.recv() for _ in range(count)] == ["x"] * count
    with pytest.raises(plumews.ConnectionClosedError):
        await conn.recv()


# --- waiting for the end --------------------------------------------------------------------------


@pytest.mark.parametrize("late", [False, True], ids=["when it comes", "after it has come"])
async def test_wait_closed_answers_a_close_at_once(start: Any, monkeypatch: pytest.MonkeyPatch, late: bool) -> None:
    monkeypatch.setattr(limits, "END_GRACE", 60.0)
    came = asyncio.Event()

    async def handler(conn: plumews.Conn) -> None:
        assert await conn.recv() == "read"
        if late:
            await until(lambda: conn._ended)
        came.set()
        await conn.wait_closed()

    server = await start(plumews.serve(handler, "127.0.0.1", 0))
    async with await Wire.open(server) as wire:
        wire.send(text("read"), text("unread"))
        if not late:
            await came.wait()
            await ticks()
        wire.send(close())
        assert await asyncio.wait_for(wire.closing(), PATIENCE) == (1000, "")


async def test_wait_closed_leaves_a_reading_task_its_time(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "END_GRACE", 60.0)
    go = asyncio.Event()
    conns: list[plumews.Conn] = []

    async def read(conn: plumews.Conn) -> None:
        async for message in conn:
            await go.wait()
            await conn.send(message)

    async def handler(conn: plumews.Conn) -> None:
        conns.append(conn)
        reading = started(read(conn))
        await conn.wait_closed()
        await reading

    server = await start(plumews.serve(handler, "127.0.0.1", 0))
    async with await Wire.open(server) as wire:
        wire.send(text("a"), text("b"), text("c"))
        await until(lambda: conns and len(conns[0]._inbox) == 2)
        wire.send(close())
        await until(lambda: conns[0]._ended)
        go.set()
        assert [await wire.message() for _ in range(3)] == ["a", "b", "c"]
        assert await wire.closing() == (1000, "")
