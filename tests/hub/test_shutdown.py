"""Tests of shutdown: each owed message counts as delivered or as undelivered."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

import plumews
from plumews import Hub, HubConfig, Opcode, SendBehavior, ShutdownReport, limits
from plumews.hub.shutdown import OwedMessages
from support.fakes import FakeTransport, fake_conn, ticks

FRAME = 2 + len("x")  # of the message "x"


def member(hub: Hub, **config: Any) -> tuple[plumews.Conn, FakeTransport]:
    conn, transport = fake_conn(**{"ping_interval": None, "close_timeout": 1000, **config})
    hub.join("chat", conn)
    return conn, transport


def delivered(count: int) -> dict[str, int]:
    return {"delivered_messages": count, "delivered_bytes": count * FRAME}


def undelivered(count: int) -> dict[str, int]:
    return {"undelivered_messages": count, "undelivered_bytes": count * FRAME}


async def stopping_of(hub: Hub, timeout: float = 60) -> asyncio.Future[ShutdownReport]:
    """Begin a shutdown, and return it before it closes a member."""
    stopping = asyncio.ensure_future(hub.shutdown(timeout))
    await asyncio.sleep(0)
    assert hub._shutdown is not None
    return stopping


def opened(hub: Hub) -> OwedMessages:
    return OwedMessages(hub._rooms.snapshot(None).members, hub._broadcaster, hub._slow)


async def test_shutdown_without_queued_messages_reports_none():
    hub = Hub()
    member(hub)
    hub.broadcast_room("chat", "x")
    await ticks()
    assert await hub.shutdown(0) == ShutdownReport(aborted=1)


async def test_messages_sent_before_close_frame_are_delivered():
    hub = Hub()
    conn, transport = member(hub)
    transport.fill()
    for _ in range(3):
        conn.send_nowait("x")
    stopping = await stopping_of(hub)
    transport.drain()
    transport.abort()
    assert await stopping == ShutdownReport(aborted=1, **delivered(3))


async def test_messages_of_aborted_member_are_undelivered():
    hub = Hub()
    conn, transport = member(hub)
    transport.fill()
    for _ in range(3):
        conn.send_nowait("x")
    assert await hub.shutdown(0) == ShutdownReport(aborted=1, **undelivered(3))


@pytest.mark.parametrize("end", ["peer ends", "reset", "abort", "CLOSE behavior"])
async def test_messages_of_lost_member_are_undelivered(end):
    hub = Hub()
    conn, transport = member(hub, queue_size=3, send_behavior=SendBehavior.CLOSE)
    transport.fill()
    for _ in range(3):
        conn.send_nowait("x")
    stopping = await stopping_of(hub)
    if end == "peer ends":
        conn.eof_received()
        transport.close()
    elif end == "reset":
        transport.close()
    elif end == "abort":
        conn.abort()
    else:
        with pytest.raises(plumews.SendQueueFull):
            conn.send_nowait("one too many")
        transport.close()
    assert await stopping == ShutdownReport(aborted=1, **undelivered(3))


async def test_unfinished_broadcast_is_owed(sliced):
    hub = Hub()
    members = [member(hub) for _ in range(500)]
    assert hub.broadcast_room("chat", "x").pending == 500 - 64
    owed = opened(hub)
    queued = sum(conn.queued_messages for conn, _ in members)
    assert (owed.messages, owed.bytes) == (436 + queued, (436 + queued) * FRAME)
    assert owed.undelivered() == (owed.messages, owed.bytes)
    await hub._broadcaster.scheduler.idle()
    await ticks(30)
    assert owed.undelivered() == (0, 0)


async def test_shutdown_without_time_counts_unreached_members(sliced):
    hub = Hub()
    for _ in range(2000):
        member(hub)
    result = hub.broadcast_room("chat", "x")
    report = await hub.shutdown(0)
    dropped = hub.metrics().broadcast_dropped
    assert dropped > 0
    assert report.undelivered_messages >= dropped
    assert report.delivered_messages + report.undelivered_messages >= result.pending
    assert report.undelivered_bytes == report.undelivered_messages * FRAME


async def test_message_that_found_no_space_is_undelivered():
    hub = Hub()
    _, transport = member(hub, queue_size=1, send_timeout=1000)
    transport.fill()
    hub.broadcast_room("chat", "x")
    assert hub.broadcast_room("chat", "x").pending == 1
    assert await hub.shutdown(0) == ShutdownReport(aborted=1, **undelivered(2))


async def test_message_that_found_space_is_delivered():
    hub = Hub()
    _, transport = member(hub, queue_size=1, send_timeout=1000)
    transport.fill()
    hub.broadcast_room("chat", "x")
    hub.broadcast_room("chat", "x")
    stopping = await stopping_of(hub)
    transport.drain()
    while not transport.writes or transport.events()[-1][0] != 8:
        await asyncio.sleep(0)
    transport.abort()
    assert await stopping == ShutdownReport(aborted=1, **delivered(2))


async def test_messages_of_member_that_left_are_undelivered():
    hub = Hub()
    conn, transport = member(hub)
    transport.fill()
    conn.send_nowait("x")
    stopping = await stopping_of(hub)
    hub.remove(conn)
    assert await stopping == ShutdownReport(**undelivered(1))
    assert not conn.closed


async def test_sends_during_shutdown_do_not_add_to_owed_messages():
    hub = Hub()
    conn, transport = member(hub)
    transport.fill()
    conn.send_nowait("x")
    stopping = await stopping_of(hub, 0.02)
    for _ in range(5):
        conn.send_nowait("later")
    assert await stopping == ShutdownReport(aborted=1, **undelivered(1))


async def test_each_owed_message_is_delivered_or_undelivered(sliced, monkeypatch):
    members: list[tuple[plumews.Conn, FakeTransport]] = []
    begun: list[tuple[OwedMessages, list[int]]] = []

    def spy(*args: Any) -> OwedMessages:
        begun.append((OwedMessages(*args), [len(transport.events()) for _, transport in members]))
        return begun[-1][0]

    monkeypatch.setattr("plumews.hub.shutdown.OwedMessages", spy)
    sums = [0, 0]
    for seed in range(30):
        dice = random.Random(seed)
        hub = Hub()
        members[:] = [member(hub, queue_size=4, send_behavior=dice.choice(list(SendBehavior))) for _ in range(100)]
        full = [transport for _, transport in members if dice.random() < 0.3]
        for transport in full:
            transport.fill()
        for _ in range(dice.randrange(8)):
            hub.broadcast_room("chat", "x")
            if dice.random() < 0.5:
                await asyncio.sleep(0)
        stopping = asyncio.ensure_future(hub.shutdown(0.01))
        await ticks(dice.randrange(1, 5))
        for transport in full:
            if dice.random() < 0.5 and not transport.closing:
                transport.drain()
        report = await stopping
        owed, before = begun.pop()
        assert report.delivered_messages + report.undelivered_messages == owed.messages, seed
        assert report.delivered_bytes + report.undelivered_bytes == owed.bytes == owed.messages * FRAME, seed
        left = 0
        for count, (_, transport) in zip(before, members, strict=True):
            left += sum(kind == Opcode.TEXT for kind, _ in transport.events()[count:])
        assert report.delivered_messages == left, seed
        sums[0] += report.delivered_messages
        sums[1] += report.undelivered_messages
    assert min(sums) > 500  # there was something of both to count


@pytest.mark.parametrize(("behavior", "key"), [(SendBehavior.DROP_OLDEST, None), (SendBehavior.CONFLATE, "key")])
async def test_displaced_messages_are_undelivered(sliced, behavior, key):
    hub = Hub()
    for _ in range(64):
        member(hub)
    _, transport = member(hub, queue_size=1, send_behavior=behavior)
    transport.fill()
    await hub.publish("chat", "x", key=key)
    hub.broadcast_room("chat", "x", key=key)  # reaches the last one when the stop has begun
    owed = opened(hub)
    assert owed.messages >= 2
    await hub._broadcaster.scheduler.idle()
    transport.drain()
    await ticks(30)
    assert owed.undelivered() == (1, FRAME)
    assert owed.undelivered()[0] == hub.metrics().messages_evicted + hub.metrics().messages_replaced


async def test_messages_evicted_by_max_queued_bytes_are_undelivered(sliced):
    hub = Hub(HubConfig(max_queued_bytes=4 * (FRAME + limits.QUEUED_OVERHEAD)))
    for _ in range(64):
        member(hub)
    for _ in range(3):
        _, transport = member(hub, send_behavior=SendBehavior.DROP)
        transport.fill()
    await hub.publish("chat", "x")
    hub.broadcast_room("chat", "x")
    owed = opened(hub)
    await hub._broadcaster.scheduler.idle()
    await ticks(30)
    waiting = hub.metrics().queued_messages
    evicted = hub.metrics().messages_evicted
    assert evicted > 0
    assert owed.undelivered() == (evicted + waiting, (evicted + waiting) * FRAME)
