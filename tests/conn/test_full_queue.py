"""Full queue of a connection: displaced messages, what is queued before the peer reads on, and a silent peer."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import pytest

import plumews
from plumews import CloseCode, Opcode, SendBehavior, SendQueueFull, State, limits
from support.fakes import clog, deadlines, full, linked, pass_time, ticks, until
from support.members import texts
from support.raw_client import SmallReads

DISPLACING = pytest.mark.parametrize("behavior", [SendBehavior.DROP_OLDEST, SendBehavior.CONFLATE])


@DISPLACING
async def test_every_way_to_send_drops_the_oldest_and_never_raises(behavior):
    conn, transport = full(queue_size=3, send_behavior=behavior)
    await conn.send("1")
    conn.send_nowait("2")
    await conn.write_text("3")
    await conn.write_many(["4", "5"])
    await conn.write_json(6)
    conn.send_nowait("7")
    plumews.broadcast([conn], "8")
    assert (conn.queued_messages, conn.dropped_messages, conn.evicted_messages) == (3, 5, 5)
    transport.drain()
    assert texts(transport.wire) == ["6", "7", "8"]


@DISPLACING
async def test_what_has_begun_to_leave_arrives_whole(start, behavior):
    async with linked(start, rcvbuf=4096, send_behavior=behavior, queue_size=4, queue_bytes=10**9) as (conn, wire):
        big = "x" * 3_000_000
        await conn.send(big)  # many frames
        await ticks()
        for number in range(100):
            conn.send_nowait(str(number))
        assert conn.evicted_messages == 96
        assert await wire.message() == big
        assert [await wire.message() for _ in range(4)] == ["96", "97", "98", "99"]
        assert conn.queued_messages == 0


@DISPLACING
async def test_while_a_message_is_sent_in_pieces_others_are_refused_and_it_arrives_whole(start, behavior):
    async with linked(start, send_behavior=behavior) as (conn, wire):

        async def pieces():
            yield "one, "
            with pytest.raises(SendQueueFull):
                conn.send_nowait("between")
            yield "two"

        await conn.send(pieces())
        conn.send_nowait("behind")
        assert await wire.message() == "one, two"
        assert await wire.message() == "behind"
        assert (conn.dropped_messages, conn.evicted_messages) == (1, 0)


async def test_who_watches_the_losses_of_a_connection_hears_of_them_until_it_ends_that():
    conn, _ = full(queue_size=1, send_behavior=SendBehavior.DROP_OLDEST)
    heard = []
    watcher = lambda lost_by, count, mine: heard.append((lost_by, count, mine))  # noqa: E731
    conn._watch_losses(watcher, True)
    for _ in range(3):
        conn.send_nowait("x")
    conn._unwatch_losses(watcher)
    conn.send_nowait("x")
    assert heard == [(conn, 1, True), (conn, 1, True)]


# --- CLOSE ----------------------------------------------------------------------------------------


def overflow(conn: plumews.Conn) -> None:
    """Send until the queue is full, and once more."""
    while conn.queued_messages < conn._config.queue_size:
        conn.send_nowait("x")
    with pytest.raises(SendQueueFull):
        conn.send_nowait("x")


async def test_a_peer_that_takes_nothing_for_two_seconds_after_the_close_is_cut():
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


async def test_a_peer_that_takes_something_has_the_close_timeout():
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


async def test_a_peer_that_answers_is_closed_and_nothing_is_left_of_its_deadline():
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
    """What the kernel holds moves, though what the transport holds does not for a while."""
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
        while not conn._writer.paused:
            conn.send_nowait(bytes(32 * 1024))
        overflow(conn)
        opcode, payload = await wire.event()
        while opcode != Opcode.CLOSE:
            await asyncio.sleep(0.03)
            opcode, payload = await wire.event()
        assert payload == (CloseCode.TRY_AGAIN_LATER, "send queue full")


# --- before anything leaves again -----------------------------------------------------------------


class Payer:
    """A hub that owes something."""

    def __init__(self, pay: Callable[[plumews.Conn], object]) -> None:
        self.pay = pay
        self.settled: list[bool] = []

    def settle(self, conn: plumews.Conn, *, delivered: bool) -> None:
        self.settled.append(delivered)


async def test_what_is_owed_is_paid_before_anything_leaves_again():
    conn, transport = full(queue_size=3)
    conn.send_nowait("waits")
    frame = memoryview(b"\x81\x04note")
    conn._owe(Payer(lambda conn: conn._writer.add_note(frame, first=True)))
    transport.protocol.resume_writing()
    conn._writer.flush()
    assert transport.events() == []  # not within the transport's call
    await ticks()
    assert transport.events() == [(Opcode.TEXT, "note"), (Opcode.TEXT, "waits")]


async def test_who_pays_may_end_the_connection_and_is_not_asked_when_it_is_gone():
    conn, transport = full()
    asked = []
    conn._owe(Payer(lambda conn: (asked.append(1), conn.abort())))
    transport.protocol.resume_writing()
    await conn.wait_closed()
    assert asked == [1]
    conn, transport = full()
    conn._owe(Payer(lambda conn: asked.append(2)))
    transport.protocol.resume_writing()
    transport.abort()
    conn.connection_lost(None)
    await ticks()
    assert asked == [1]
