"""Peers that do not read: bounded memory, and their end under SendBehavior.CLOSE."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

import plumews
from plumews import (
    CloseCode,
    Opcode,
    SendBehavior,
    SendQueueFull,
    SendTimeout,
    State,
    limits,
)
from support.fakes import (
    PATIENCE,
    clog,
    deadlines,
    full,
    linked,
    pass_time,
    started,
    ticks,
    until,
)
from support.raw_client import SmallReads, close, masked, text

KiB = 1024
MiB = 1024 * KiB
BLOCK, DROP, CLOSE = SendBehavior.BLOCK, SendBehavior.DROP, SendBehavior.CLOSE

# --- CLOSE ----------------------------------------------------------------------------------------


def overflow(conn: plumews.Conn) -> None:
    """Send until the queue is full, and once more."""
    while conn.queued_messages < conn._config.queue_size:
        conn.send_nowait("x")
    with pytest.raises(SendQueueFull):
        conn.send_nowait("x")


async def test_silent_peer_is_cut_two_seconds_after_the_close():
    before = deadlines()
    conn, transport = full(queue_size=1, send_behavior=SendBehavior.CLOSE)
    transport.held = 5000
    overflow(conn)
    assert conn.state is State.CLOSING
    pass_time(limits.EVICT_TIMEOUT - 0.5)
    await ticks()
    assert not transport.aborted
    pass_time(0.5)
    await conn.wait_closed()
    assert transport.aborted
    assert deadlines() == before


async def test_draining_peer_has_the_close_timeout():
    conn, transport = full(queue_size=1, send_behavior=SendBehavior.CLOSE)
    transport.held = 5000
    overflow(conn)
    for held in (4000, 10, 0):
        transport.held = held
        pass_time(limits.EVICT_TIMEOUT)
        await ticks(10)
        assert not transport.aborted
    pass_time(limits.CLOSE_TIMEOUT)
    await conn.wait_closed()
    assert transport.aborted


async def test_answering_peer_leaves_no_deadline_behind():
    before = deadlines()
    conn, transport = full(queue_size=1, send_behavior=SendBehavior.CLOSE)
    transport.held = 5000
    overflow(conn)
    conn._transport.close()
    await conn.wait_closed()
    assert deadlines() == before
    assert not transport.aborted


async def test_a_real_peer_that_never_reads_is_gone_after_the_timeout(start, monkeypatch):
    monkeypatch.setattr(limits, "EVICT_TIMEOUT", 0.05)
    async with linked(start, rcvbuf=4096, send_behavior=SendBehavior.CLOSE, queue_size=2) as (conn, _):
        clog(conn)
        overflow(conn)
        await conn.wait_closed()
        assert conn.close_code == CloseCode.ABNORMAL_CLOSURE


async def test_a_real_peer_that_reads_again_gets_1013(start):
    async with linked(start, rcvbuf=4096, send_behavior=SendBehavior.CLOSE, queue_size=2) as (conn, wire):
        clog(conn)
        overflow(conn)
        assert await wire.closing() == (CloseCode.TRY_AGAIN_LATER, "send queue full")


async def test_a_slow_peer_that_acknowledges_bytes_gets_1013(start, monkeypatch):
    """The kernel's buffer moves while the transport's buffer does not."""
    monkeypatch.setattr(limits, "EVICT_TIMEOUT", 0.1)
    opened = []

    async def handler(conn):
        opened.append(conn)
        await conn.wait_closed()

    server = await start(plumews.serve(handler, "127.0.0.1", 0, send_behavior=SendBehavior.CLOSE, queue_size=2))
    async with await SmallReads.upgraded(server) as wire:
        await until(lambda: opened)
        (conn,) = opened
        conn._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 256 * 1024)
        while not conn._paused:
            conn.send_nowait(bytes(32 * 1024))
        overflow(conn)
        opcode, payload = await wire.event()
        while opcode != Opcode.CLOSE:
            await asyncio.sleep(0.03)  # the pace of a slow reader
            opcode, payload = await wire.event()
        assert payload == (CloseCode.TRY_AGAIN_LATER, "send queue full")


# --- loss reports ---------------------------------------------------------------------------------


# --- a peer that does not read --------------------------------------------------------------------


async def flood(conn: plumews.Conn) -> None:
    """Send more than the queue takes."""
    for _ in range(50):
        await conn.send(bytes(16 * KiB))


@pytest.mark.parametrize("behavior", [BLOCK, DROP])
async def test_row_11_a_peer_that_does_not_read_costs_a_bounded_queue(start: Any, behavior: SendBehavior) -> None:
    async with linked(
        start, rcvbuf=4096, send_behavior=behavior, send_timeout=0.001, queue_bytes=128 * KiB, queue_size=100
    ) as (conn, wire):
        clog(conn)
        refused = 0
        for _ in range(50):
            try:
                await conn.send(bytes(16 * KiB))
            except (SendTimeout, SendQueueFull):
                refused += 1
        assert refused > 30
        assert conn.dropped_messages == refused
        assert conn.queued_bytes <= 128 * KiB
        assert conn._transport is not None
        assert conn._transport.get_write_buffer_size() < 400 * KiB
        assert not conn.closed
        # It was only slow: what was accepted arrives.
        sender = started(conn.close())
        received = 0
        while (await wire.event())[0] == Opcode.BINARY:
            received += 1
        assert received >= 50 - refused
        wire.send(close(1000))
        await sender


async def test_row_11_a_peer_that_does_not_read_is_evicted_by_close(start: Any) -> None:
    async with linked(start, rcvbuf=4096, send_behavior=CLOSE, close_timeout=0.2, queue_bytes=64 * KiB) as (conn, _):
        clog(conn)
        with pytest.raises(SendQueueFull, match="connection closed"):
            await flood(conn)
        assert conn.queued_bytes == 0
        await asyncio.wait_for(conn.wait_closed(), PATIENCE)


async def test_row_11_evicted_peer_that_reads_again_gets_1013(start: Any) -> None:
    async with linked(start, rcvbuf=4096, send_behavior=CLOSE, queue_bytes=64 * KiB) as (conn, wire):
        clog(conn)
        with pytest.raises(SendQueueFull):
            await flood(conn)
        assert await wire.closing() == (1013, "send queue full")
        wire.send(close(1013))
        await conn.wait_closed()


async def test_pong_overtakes_the_queue_of_a_slow_peer(start: Any) -> None:
    """The pong waits for the transport's buffer, which has a few hundred kilobytes at most."""
    async with linked(start, rcvbuf=4096, queue_bytes=32 * MiB) as (conn, wire):
        await conn.send(bytes(8 * MiB))
        await until(lambda: conn._paused)
        wire.send(masked(Opcode.PING, b"?"), text("read to here"))
        assert await conn.recv() == "read to here"
        assert conn._paused  # the ping came while most of the message still waited
        assert await wire.event() == (Opcode.PONG, b"?")
        assert await wire.event() == (Opcode.BINARY, bytes(8 * MiB))
