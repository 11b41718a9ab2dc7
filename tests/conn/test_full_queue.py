"""Full queue of a connection: waiting, refused and displaced messages."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import plumews
from plumews import (
    ConnectionClosed,
    Opcode,
    SendBehavior,
    SendQueueFull,
    SendTimeout,
    WebSocketException,
)
from plumews.conn.full_queue import add_note, report_later, unwatch_losses, watch_losses
from plumews.transport.send_queue import Note
from support.fakes import (
    PATIENCE,
    deadlines,
    fake_conn,
    filled,
    full,
    linked,
    payloads_of,
    started,
    ticks,
)
from support.members import texts
from support.raw_client import Wire, text

KiB = 1024
BLOCK, DROP, CLOSE = SendBehavior.BLOCK, SendBehavior.DROP, SendBehavior.CLOSE

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
async def test_message_that_has_begun_to_leave_arrives_whole(start, behavior):
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
async def test_sends_between_pieces_are_refused(start, behavior):
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


async def test_loss_watcher_is_called_until_it_is_removed():
    conn, _ = full(queue_size=1, send_behavior=SendBehavior.DROP_OLDEST)
    heard = []
    watcher = lambda lost_by, count, mine: heard.append((lost_by, count, mine))  # noqa: E731
    watch_losses(conn, watcher, True)
    for _ in range(3):
        conn.send_nowait("x")
    unwatch_losses(conn, watcher)
    conn.send_nowait("x")
    assert heard == [(conn, 1, True), (conn, 1, True)]


# --- loss reports ---------------------------------------------------------------------------------


class LossReporter:
    """Hub with a loss report."""

    def __init__(self, report_losses: Callable[[plumews.Conn], object]) -> None:
        self.report_losses = report_losses
        self.settled: list[bool] = []

    def report_last_losses(self, conn: plumews.Conn, *, delivered: bool) -> None:
        self.settled.append(delivered)


async def test_loss_report_leaves_before_other_frames():
    conn, transport = full(queue_size=3)
    conn.send_nowait("waits")
    frame = Note(b"\x81\x04note")
    report_later(conn, LossReporter(lambda conn: add_note(conn, frame, first=True)))
    transport.protocol.resume_writing()
    conn._flush()
    assert transport.events() == []  # not within the transport's call
    await ticks()
    assert transport.events() == [(Opcode.TEXT, "note"), (Opcode.TEXT, "waits")]


async def test_loss_report_may_end_the_connection():
    conn, transport = full()
    asked = []
    report_later(conn, LossReporter(lambda conn: (asked.append(1), conn.abort())))
    transport.protocol.resume_writing()
    await conn.wait_closed()
    assert asked == [1]
    conn, transport = full()
    report_later(conn, LossReporter(lambda conn: asked.append(2)))
    transport.protocol.resume_writing()
    transport.abort()
    conn.connection_lost(None)
    await ticks()
    assert asked == [1]


# --- BLOCK ----------------------------------------------------------------------------------------


async def test_block_raises_send_timeout_after_the_send_timeout() -> None:
    conn, transport = filled(send_timeout=0.03)
    before = deadlines()
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(SendTimeout, match="send timeout") as info:
        await conn.send("too much")
    assert 0.025 < loop.time() - began < PATIENCE
    assert isinstance(info.value, TimeoutError)
    assert isinstance(info.value, WebSocketException)
    assert conn.dropped_messages == 1
    assert not conn.closed
    assert deadlines() == before
    transport.drain()
    await ticks()
    assert payloads_of(transport) == ["0", "1", "2", "3"]
    await conn.send("fits again")
    assert payloads_of(transport)[-1] == "fits again"
    conn.abort()


async def test_block_goes_on_when_space_comes_in_time() -> None:
    conn, transport = filled(send_timeout=30)
    before = deadlines()
    sender = started(conn.send("patient"))
    await ticks()
    assert not sender.done()
    assert deadlines() == before + 1
    transport.drain()
    await sender
    await ticks()
    assert payloads_of(transport) == ["0", "1", "2", "3", "patient"]
    assert conn.dropped_messages == 0
    assert deadlines() == before
    conn.abort()


async def test_block_without_a_timeout_waits_for_ever() -> None:
    conn, transport = filled(send_timeout=None)
    before = deadlines()
    sender = started(conn.send("very patient"))
    await ticks()
    assert deadlines() == before
    transport.drain()
    await sender
    conn.abort()


async def test_send_timeout_of_zero_gives_up_at_once() -> None:
    conn, _ = filled(send_timeout=0)
    with pytest.raises(SendTimeout):
        await conn.send("too much")
    conn.abort()


async def test_cancelled_sender_withdraws_its_message() -> None:
    conn, transport = fake_conn(queue_bytes=1000, send_timeout=None)
    transport.fill()
    await conn.send(bytes(600))
    cancelled = started(conn.send(bytes(900)))
    await ticks()
    behind = started(conn.send(bytes(300)))
    await ticks()
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    await behind
    transport.drain()
    assert payloads_of(transport) == [bytes(600), bytes(300)]
    conn.abort()


async def test_wait_for_gives_up_before_the_send_timeout() -> None:
    conn, transport = filled(send_timeout=None)
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(conn.send("too much"), 0.01)
    transport.drain()
    assert payloads_of(transport) == ["0", "1", "2", "3"]
    conn.abort()


@pytest.mark.parametrize("end", ["close", "abort", "lost"])
async def test_waiting_sender_raises_at_the_end_of_the_connection(end: str) -> None:
    conn, transport = filled(send_timeout=None)
    senders = [started(conn.send("too late")) for _ in range(3)]
    await ticks()
    if end == "close":
        conn.close_nowait(1001)
    elif end == "abort":
        conn.abort()
    else:
        transport.close()
    for sender in senders:
        with pytest.raises(ConnectionClosed, match="connection closed"):
            await sender
    conn.abort()


async def test_send_timeout_at_the_end_of_the_connection_raises() -> None:
    """Timeout and end come in one iteration of the loop; the message is not queued."""
    conn, _ = filled(send_timeout=0.01)
    sender = started(conn.send("neither"))
    await ticks()
    conn._state.timers.after(0.01, conn.abort)  # fires right behind the timeout, before the sender wakes up
    with pytest.raises((SendTimeout, ConnectionClosed)):
        await sender


# --- DROP and CLOSE -------------------------------------------------------------------------------


async def test_drop_refuses_and_counts() -> None:
    conn, transport = filled(send_behavior=DROP)
    for count in range(1, 4):
        with pytest.raises(SendQueueFull, match="send queue full: dropped"):
            await conn.send("too much")
        assert conn.dropped_messages == count
    assert not conn.closed
    transport.drain()
    await conn.send("fits again")
    assert payloads_of(transport) == ["0", "1", "2", "3", "fits again"]
    conn.abort()


async def test_close_closes_with_1013_and_discards_the_queue() -> None:
    conn, transport = filled(send_behavior=CLOSE)
    with pytest.raises(SendQueueFull, match="send queue full: connection closed"):
        await conn.send("too much")
    assert conn.dropped_messages == 1
    assert conn.closed
    assert transport.events() == [(Opcode.CLOSE, (1013, "send queue full"))]
    assert (conn.queued_messages, conn.queued_bytes) == (0, 0)
    with pytest.raises(ConnectionClosed):
        await conn.send("after it")
    transport.drain()
    assert transport.events() == [(Opcode.CLOSE, (1013, "send queue full"))]
    conn.abort()


async def test_send_nowait_never_waits_under_any_behaviour() -> None:
    for behavior in (BLOCK, DROP):
        conn, transport = filled(send_behavior=behavior)
        with pytest.raises(SendQueueFull, match="send queue full: dropped"):
            conn.send_nowait("too much")
        assert conn.dropped_messages == 1
        assert not conn.closed
        transport.drain()
        conn.send_nowait("fits again")
        await ticks()
        assert payloads_of(transport)[-1] == "fits again"
        conn.abort()

    conn, transport = filled(send_behavior=CLOSE)
    with pytest.raises(SendQueueFull, match="connection closed"):
        conn.send_nowait("too much")
    assert transport.events() == [(Opcode.CLOSE, (1013, "send queue full"))]
    conn.abort()


async def test_send_nowait_does_not_overtake_a_sender_that_waits() -> None:
    conn, transport = fake_conn(queue_bytes=1000, send_timeout=None)
    transport.fill()
    await conn.send(bytes(600))
    sender = started(conn.send(bytes(600)))
    await ticks()
    with pytest.raises(SendQueueFull):
        conn.send_nowait("small")
    transport.drain()
    await sender
    conn.abort()


async def test_message_above_the_byte_bound_fits_an_empty_queue() -> None:
    for behavior in (SendBehavior.BLOCK, SendBehavior.DROP, SendBehavior.CLOSE):
        conn, transport = fake_conn(queue_bytes=1000, send_behavior=behavior, send_timeout=0)
        transport.fill()
        await conn.send(bytes(100_000))
        with pytest.raises((SendQueueFull, SendTimeout)):
            await conn.send(b"")
        if behavior is not CLOSE:
            transport.drain()
            assert payloads_of(transport) == [bytes(100_000)]
        conn.abort()


@pytest.mark.parametrize("behavior", list(SendBehavior))
@pytest.mark.parametrize(("count", "size"), [(65, 32), (500, 32), (2000, 32), (100, 1024)])
async def test_burst_of_a_callback_fits_an_idle_socket(
    start: Any, behavior: SendBehavior, count: int, size: int
) -> None:
    def burst(conn: plumews.Conn, message: str | bytes) -> None:
        for index in range(count):
            conn.send_nowait(f"{index:<{size}}")

    # No more than what an idle socket takes at once on any system.
    server = await start(
        plumews.serve(host="127.0.0.1", port=0, on_message=burst, send_behavior=behavior, queue_bytes=16 * KiB)
    )
    async with await Wire.open(server) as wire:
        wire.send(text("go"))
        for index in range(count):
            assert await wire.message() == f"{index:<{size}}"


async def test_burst_of_a_handler_fits_an_idle_socket(start: Any) -> None:
    async with linked(start, send_behavior=DROP) as (conn, wire):
        for index in range(500):
            await conn.send(str(index))
        assert [await wire.message() for _ in range(500)] == [str(index) for index in range(500)]
