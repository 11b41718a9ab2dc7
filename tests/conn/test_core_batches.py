"""Many messages in one read: one write, and pongs."""

from __future__ import annotations

from typing import Any

import pytest

import plumews
from plumews import Opcode, limits
from plumews.conn.receiver import deliver_to
from support.fakes import (
    FakeTransport,
    clog,
    echo_by_callback,
    echo_by_iteration,
    fake_conn,
    feed,
    linked,
    started,
    ticks,
)
from support.raw_client import masked, text


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Handle each read in one time slice, even on a busy machine."""
    monkeypatch.setattr(limits, "FAN_OUT_SLICE", 60.0)


def kinds(transport: FakeTransport) -> list[int]:
    return [kind for kind, _ in transport.events()]


# --- one write a read -----------------------------------------------------------------------------


async def test_64_pipelined_echoes_by_callback_leave_in_one_write() -> None:
    conn, transport = fake_conn()
    echo_by_callback(conn)
    for _ in range(3):
        transport.writes.clear()
        feed(conn, *[text(str(index)) for index in range(64)])
        assert len(transport.writes) == 1
        assert transport.events() == [(Opcode.TEXT, str(index)) for index in range(64)]
    await ticks()
    assert len(transport.writes) == 1
    conn.abort()


async def test_64_pipelined_echoes_by_iteration_leave_in_one_write() -> None:
    conn, transport = fake_conn()
    task = started(echo_by_iteration(conn))
    await ticks()
    for _ in range(3):
        transport.writes.clear()
        feed(conn, *[text(str(index)) for index in range(64)])
        await ticks()
        assert len(transport.writes) == 1
        assert transport.events() == [(Opcode.TEXT, str(index)) for index in range(64)]
    task.cancel()
    conn.abort()


async def test_echo_of_one_message_leaves_in_the_same_iteration() -> None:
    conn, transport = fake_conn()
    task = started(echo_by_iteration(conn))
    await ticks()
    for count in range(1, 4):
        feed(conn, text("one"))
        await ticks(1)
        assert len(transport.writes) == count
    task.cancel()
    conn.abort()


async def test_pongs_and_echoes_of_one_read_leave_together() -> None:
    conn, transport = fake_conn()
    echo_by_callback(conn)
    feed(conn, text("a"), masked(Opcode.PING, b"1"), text("b"), masked(Opcode.PING, b"2"))
    assert len(transport.writes) == 1
    assert transport.events() == [(Opcode.PONG, b"1"), (Opcode.PONG, b"2"), (Opcode.TEXT, "a"), (Opcode.TEXT, "b")]
    conn.abort()


async def test_relayed_messages_leave_in_one_write_each() -> None:
    first, _ = fake_conn()
    others = [fake_conn() for _ in range(3)]

    def relay(conn: plumews.Conn, message: str | bytes) -> None:
        for other, _ in others:
            other.send_nowait(message)

    deliver_to(first, relay, lambda conn, exc: None)
    feed(first, *[text(str(index)) for index in range(10)])
    await ticks()
    for other, transport in others:
        assert len(transport.writes) == 1
        assert [payload for _, payload in transport.events()] == [str(index) for index in range(10)]
        other.abort()
    first.abort()


# --- ping -----------------------------------------------------------------------------------------


async def test_ping_is_answered_while_the_handler_is_busy(start: Any) -> None:
    async with linked(start) as (conn, wire):  # its handler never reads
        wire.send(text("unread"), masked(Opcode.PING, b"1"))
        assert await wire.event() == (Opcode.PONG, b"1")
        wire.send(masked(Opcode.PING, bytes(125)))
        assert await wire.event() == (Opcode.PONG, bytes(125))
        assert await conn.recv() == "unread"


async def test_row_10_reading_peer_gets_every_pong(start: Any) -> None:
    async with linked(start) as (_, wire):
        pings = [index.to_bytes(4, "big") for index in range(5000)]
        wire.send(*[masked(Opcode.PING, payload) for payload in pings])
        assert [await wire.event() for _ in pings] == [(Opcode.PONG, payload) for payload in pings]


async def test_row_10_ping_flood_of_an_unread_peer_takes_no_memory(start: Any) -> None:
    async with linked(start, rcvbuf=4096) as (conn, wire):
        clog(conn)
        assert conn._transport is not None
        held = conn._transport.get_write_buffer_size()
        seen = conn._keepalive.last_received
        for _ in range(20):
            wire.send(masked(Opcode.PING, bytes(125)) * 1000)
            await wire.writer.drain()
        wire.send(masked(Opcode.PING, b"the last"), text("read to here"))
        assert await conn.recv() == "read to here"
        assert conn._keepalive.last_received > seen
        assert conn._transport.get_write_buffer_size() <= held + 1000
        assert conn._queue is None or not conn._queue._control
        assert conn._queue is None or len(conn._queue._pongs or ()) <= 1
        while True:
            kind, payload = await wire.event()
            if kind == Opcode.PONG:
                assert payload == b"the last"
                break


async def test_pings_of_one_read_are_all_answered() -> None:
    conn, transport = fake_conn()
    feed(conn, *[masked(Opcode.PING, b"")] * 30_000)
    assert transport.events() == [(Opcode.PONG, b"")] * 30_000
    assert max(map(len, transport.writes)) <= 2 * limits.READ_SLACK // limits.RECEIVED_OVERHEAD
    conn.abort()
