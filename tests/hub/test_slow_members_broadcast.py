"""Tests of broadcasts to members that do not read, on real connections."""

from __future__ import annotations

import asyncio
from typing import Any

from plumews import (
    BroadcastResult,
    CloseCode,
    Hub,
    SendBehavior,
)
from support.fakes import clog, pass_time, ticks
from support.members import adds_up, crowd, joined, messages
from support.raw_client import close


async def test_block_member_delays_nobody_and_times_out_once(start):
    hub = Hub()
    options: dict[str, Any] = {"queue_size": 4, "send_timeout": 1000, "close_timeout": 0.2, "ping_interval": None}
    async with crowd(start, 3, rcvbuf=4096, **options) as (conns, wires):
        for conn in conns:
            hub.join("chat", conn)
        clog(conns[0])
        for number in range(conns[0]._config.queue_size):
            hub.broadcast_room("chat", f"fills {number}")
        first = asyncio.ensure_future(hub.publish("chat", "first"))
        others = await asyncio.gather(*(messages(wire, 5) for wire in wires[1:]))
        assert others == [[*(f"fills {number}" for number in range(4)), "first"]] * 2
        pass_time(990)
        await ticks(10)
        assert not first.done()
        pass_time(10)
        assert await first == BroadcastResult(matched=3, queued=2, dropped=1)
        for _ in range(20):  # at once, for no time passes any more
            assert await hub.publish("chat", "more") == BroadcastResult(matched=3, queued=2, dropped=1)
        assert conns[0].dropped_messages >= 21
        assert not conns[0].closed
        assert adds_up(hub.metrics())


async def test_block_member_that_reads_again_gets_messages_in_order(start):
    hub = Hub()
    async with crowd(start, 1, rcvbuf=4096, queue_size=4, send_timeout=60) as ((conn,), (wire,)):
        hub.join("chat", conn)
        clog(conn)
        while conn.queued_messages < 4:
            hub.broadcast_room("chat", b"fills")
        publishing = [asyncio.ensure_future(hub.publish("chat", str(number))) for number in range(4)]
        await ticks()
        assert hub.metrics().broadcast_pending == 4
        received: list[str | bytes] = []
        while len(received) < 4:
            message = await wire.message()
            if isinstance(message, str):
                received.append(message)
        assert received == ["0", "1", "2", "3"]
        assert await asyncio.gather(*publishing) == [BroadcastResult(matched=1, queued=1)] * 4


async def test_full_drop_member_loses_messages_and_stays(start):
    hub = Hub()
    options: dict[str, Any] = {"queue_size": 4, "send_behavior": SendBehavior.DROP, "close_timeout": 0.2}
    async with crowd(start, 2, rcvbuf=4096, **options) as (conns, wires):
        for conn in conns:
            hub.join("chat", conn)
        clog(conns[0])
        results = [hub.broadcast_room("chat", str(number)) for number in range(10)]
        dropped = sum(result.dropped for result in results)
        assert dropped >= 6
        assert conns[0].dropped_messages == hub.metrics().broadcast_dropped == dropped
        assert await messages(wires[1], 10) == [str(number) for number in range(10)]
        assert not conns[0].closed
        assert adds_up(hub.metrics())


async def test_full_close_member_is_closed_with_1013(start):
    hub = Hub()
    options: dict[str, Any] = {"queue_size": 4, "send_behavior": SendBehavior.CLOSE, "close_timeout": 5}
    async with crowd(start, 2, rcvbuf=4096, **options) as (conns, wires):
        for conn in conns:
            hub.join("chat", conn)
        clog(conns[0])
        for number in range(10):
            hub.broadcast_room("chat", str(number))
        assert conns[0].closed
        assert await wires[0].closing() == (CloseCode.TRY_AGAIN_LATER, "send queue full")
        assert await messages(wires[1], 10) == [str(number) for number in range(10)]
        metrics = hub.metrics()
        assert metrics.broadcast_dropped == 1
        assert metrics.broadcast_skipped >= 5
        assert adds_up(metrics)
        wires[0].send(close(CloseCode.TRY_AGAIN_LATER))
        await conns[0].wait_closed()
        assert hub.members("chat") == [conns[1]]


async def test_full_member_that_left_is_forgotten_after_its_timeout():
    hub = Hub()
    (conn,), (transport,) = joined(hub, "chat", 1, queue_size=1, send_timeout=0.02)
    transport.fill()
    hub.broadcast_room("chat", "fills")
    waiting = asyncio.ensure_future(hub.publish("chat", "waits"))
    await asyncio.sleep(0)
    hub.leave("chat", conn)
    assert await waiting == BroadcastResult(matched=1, dropped=1)
    assert not hub._slow.members
    hub.join("chat", conn)
    transport.drain()
    assert hub.broadcast_room("chat", "back") == BroadcastResult(matched=1, queued=1)


async def test_member_that_was_given_up_is_forgotten_when_it_leaves():
    hub = Hub()
    (conn,), (transport,) = joined(hub, "chat", 1, queue_size=1, send_timeout=0.02)
    transport.fill()
    hub.broadcast_room("chat", "fills")
    await hub.publish("chat", "given up")
    assert hub._slow.members
    conn.abort()
    await ticks()
    assert not hub._slow.members
