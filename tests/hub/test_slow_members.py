"""Slow members of a hub: deliveries under each overflow policy, and members that leave meanwhile.

What `test_fanout` tests of BLOCK, DROP and CLOSE is not tested again.
"""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import pytest

import plumews
from plumews import BroadcastResult, Hub, HubConfig, SendBehavior, State
from plumews.transport import waiters
from support.fakes import clog, deadlines, pass_time, ticks, until
from support.members import adds_up, crowd, drained, messages, send, stalled, told

# --- DROP_OLDEST ----------------------------------------------------------------------------------


async def test_drop_oldest_queues_every_broadcast():
    hub = Hub()
    conn, transport = stalled(hub, send_behavior=SendBehavior.DROP_OLDEST)
    assert send(hub, *"abcdefg") == [BroadcastResult(matched=1, queued=1)] * 7
    metrics = hub.metrics()
    assert (metrics.broadcast_queued, metrics.broadcast_dropped, metrics.messages_evicted) == (7, 0, 4)
    assert conn.evicted_messages == conn.dropped_messages == 4
    assert await drained(transport) == ["e", "f", "g"]


async def test_hub_counts_messages_displaced_by_direct_sends():
    hub = Hub()
    conn, transport = stalled(hub, send_behavior=SendBehavior.DROP_OLDEST)
    send(hub, *"abc")
    conn.send_nowait("direct")
    assert hub.metrics().messages_evicted == 1
    hub.remove(conn)
    conn.send_nowait("not a member any more")
    assert hub.metrics().messages_evicted == 1
    assert await drained(transport) == ["c", "direct", "not a member any more"]


# --- CONFLATE -------------------------------------------------------------------------------------


async def test_conflate_keeps_the_newest_value_of_each_key():
    hub = Hub()
    conn, transport = stalled(hub, send_behavior=SendBehavior.CONFLATE)
    for number in range(5):
        send(hub, f"x{number}", key="x")
        send(hub, f"y{number}", key="y")
    metrics = hub.metrics()
    assert (metrics.broadcast_queued, metrics.messages_replaced, metrics.messages_evicted) == (10, 8, 0)
    assert (conn.replaced_messages, conn.dropped_messages) == (8, 0)
    assert await drained(transport) == ["x4", "y4"]


async def test_conflate_without_a_key_drops_the_oldest():
    hub = Hub()
    _, transport = stalled(hub, send_behavior=SendBehavior.CONFLATE)
    send(hub, *"abcde")
    assert await drained(transport) == ["c", "d", "e"]


async def test_key_of_another_room_or_hub_is_a_different_key():
    hub, other = Hub(), Hub()
    conn, transport = stalled(hub, "a", "b", send_behavior=SendBehavior.CONFLATE, queue_size=9)
    other.join("a", conn)
    for round_ in "12":
        hub.broadcast_room("a", "a" + round_, key="key")
        hub.broadcast_room("b", "b" + round_, key="key")
        hub.broadcast_all("all" + round_, key="key")
        other.broadcast_room("a", "other" + round_, key="key")
    assert await drained(transport) == ["a2", "b2", "all2", "other2"]


@pytest.mark.parametrize("behavior", [SendBehavior.BLOCK, SendBehavior.DROP, SendBehavior.DROP_OLDEST])
async def test_key_is_ignored_by_other_policies(behavior):
    hub = Hub()
    _, transport = stalled(hub, send_behavior=behavior)
    send(hub, "1", "2", "3", key="key")
    assert await drained(transport) == ["1", "2", "3"]
    assert hub.metrics().messages_replaced == 0


async def test_broadcasts_take_hashable_keys_only():
    hub = Hub()
    _, transport = stalled(hub, send_behavior=SendBehavior.CONFLATE)
    hub.broadcast_room("room", "1", key=("a", 1))
    await hub.publish("room", "2", key=("a", 1))
    await asyncio.wrap_future(hub.publish_threadsafe("room", "3", key=("a", 1)))
    with pytest.raises(TypeError, match="a key must be hashable, such as a str, not list"):
        hub.broadcast_room("room", "4", key=["a"])
    assert hub.metrics().broadcasts_total == 3
    assert await drained(transport) == ["3"]


async def test_conflate_member_that_keeps_up_gets_every_value(start):
    hub = Hub()
    async with crowd(start, 1, send_behavior=SendBehavior.CONFLATE) as (conns, wires):
        hub.join("room", conns[0])
        for number in range(100):
            hub.broadcast_room("room", str(number), key="key")
            assert await wires[0].message() == str(number)
        assert conns[0].replaced_messages == 0


async def test_peer_that_reads_again_gets_the_newest_values(start):
    hub = Hub()
    async with crowd(start, 2, rcvbuf=4096, send_behavior=SendBehavior.CONFLATE, queue_size=50) as (conns, wires):
        for conn in conns:
            hub.join("room", conn)
        clog(conns[0])
        waiting = conns[0].queued_messages
        for number in range(200):
            hub.broadcast_room("room", f"{number % 10}:{number}", key=number % 10)
            await asyncio.sleep(0)
        assert conns[0].queued_messages == waiting + 10
        while not isinstance(first := await wires[0].message(), str):
            pass
        got = [first, *await messages(wires[0], 9)]
        assert got == [f"{number % 10}:{number}" for number in range(190, 200)]
        assert await messages(wires[1], 200) == [f"{number % 10}:{number}" for number in range(200)]


# --- all behaviors --------------------------------------------------------------------------------


@pytest.mark.parametrize("behavior", list(SendBehavior), ids=lambda behavior: behavior.name)
async def test_members_that_never_read_cost_the_others_nothing(start, behavior):
    hub = Hub()
    options: dict[str, Any] = {"send_behavior": behavior, "queue_size": 8, "close_timeout": 0.2}
    async with crowd(start, 4, rcvbuf=4096, **options) as (conns, wires):
        for conn in conns:
            hub.join("room", conn)
        clog(conns[0])
        for number in range(300):
            result = hub.broadcast_room("room", str(number))
            assert result.queued >= 3
            if number % 8 == 7:
                await asyncio.sleep(0)
        for wire in wires[1:]:
            assert await messages(wire, 300) == [str(number) for number in range(300)]
        assert conns[0].queued_messages <= 8
        assert adds_up(hub.metrics())
        assert (conns[0].state is State.OPEN) is (behavior is not SendBehavior.CLOSE)


async def test_member_that_ends_with_unreported_loss_is_forgotten():
    hub = Hub(HubConfig(encode_gap=told, max_queued_bytes=10**9))
    for behavior in SendBehavior:
        for end in (plumews.Conn.abort, plumews.Conn.close_nowait, hub.remove):
            conn, transport = stalled(hub, send_behavior=behavior, send_timeout=0.01, close_timeout=0.01)
            send(hub, *"abcdef")
            end(conn)
            transport.drain()
            await ticks()
            hub.remove(conn)
            assert all(member.left for member in hub._slow.members.values())
            conn.abort()
    await ticks()
    assert not hub._slow.members
    assert adds_up(hub.metrics())


@pytest.mark.parametrize("end", ["space", "time", "connection"])
async def test_member_that_comes_back_keeps_its_bound_of_waiting(end: str):
    hub = Hub()
    conn, transport = stalled(hub, send_behavior=SendBehavior.BLOCK, send_timeout=60)
    for _ in range(5):
        send(hub, *"abcdef")
        hub.leave("room", conn)
        hub.join("room", conn)
    assert (conn.queued_messages, len(hub._slow.waiting())) == (3, 3)
    assert hub.metrics().broadcast_pending == 3
    hub.leave("room", conn)
    if end == "space":
        assert await drained(transport) == [*"abcdef"]
    elif end == "time":
        pass_time(60)
        await until(lambda: not waiters.count(conn))
    else:
        conn.abort()
        await ticks()
    assert (hub.metrics().broadcast_pending, hub._slow.members) == (0, {})
    assert adds_up(hub.metrics())
    conn.abort()


async def test_waiting_broadcasts_are_bounded_by_bytes():
    hub = Hub()
    conn, transport = stalled(hub, queue_size=100, queue_bytes=10_000, send_timeout=60)
    results = send(hub, *["x" * 3000] * 12)
    assert [(each.queued, each.pending, each.dropped) for each in results] == (
        [(1, 0, 0)] * 3 + [(0, 1, 0)] * 3 + [(0, 0, 1)] * 6
    )
    assert await drained(transport) == ["x" * 3000] * 6
    send(hub, "again")
    conn.abort()


# --- members that leave while broadcasts wait for them ---------------------------------------------


@pytest.mark.parametrize("end", ["room", "timeout", "close"])
async def test_waiting_broadcasts_keep_no_other_member_alive(end):
    hub = Hub()
    conn, transport = stalled(hub, queue_size=1, send_timeout=0.01)
    other, _ = stalled(hub)
    gc.collect()
    gc.disable()
    try:
        assert send(hub, *"ab") == [BroadcastResult(matched=2, queued=2), BroadcastResult(2, queued=1, pending=1)]
        if end == "room":
            assert await drained(transport) == ["a", "b"]
        elif end == "timeout":
            pass_time(1)
        else:
            conn.abort()
        await until(lambda: not hub.metrics().broadcast_pending)
        other.abort()
        await ticks()
        gone = weakref.ref(other)
        del other, _
        assert gone() is None
    finally:
        gc.enable()


async def test_member_that_comes_back_gets_no_second_send_timeout():
    hub = Hub()
    conn, transport = stalled(hub, queue_size=2, send_timeout=60)
    for _ in range(5):
        send(hub, *"abcd")
        hub.leave("room", conn)
        hub.join("room", conn)
    metrics = hub.metrics()
    assert (metrics.broadcast_queued, metrics.broadcast_pending, metrics.broadcast_dropped) == (2, 2, 16)
    pass_time(61)
    await until(lambda: hub.metrics().broadcast_dropped == 18)
    assert await drained(transport) == ["a", "b"]
    assert send(hub, "e") == [BroadcastResult(matched=1, queued=1)]
    assert not hub._slow.members


async def test_member_that_left_gets_waiting_broadcasts():
    hub = Hub()
    conn, transport = stalled(hub, queue_size=1, send_timeout=60)
    send(hub, *"ab")
    hub.leave("room", conn)
    assert hub._slow.members[conn].left
    assert await drained(transport) == ["a", "b"]
    assert not hub._slow.members
    assert hub.metrics().broadcast_queued == 2


async def test_stop_drops_waiting_broadcasts_of_a_member_that_left():
    hub = Hub()
    conn, _ = stalled(hub, queue_size=1, send_timeout=60)
    publishing = [asyncio.ensure_future(hub.publish("room", line)) for line in "abc"]
    await ticks()
    hub.leave("room", conn)
    await hub.stop()
    assert [await each for each in publishing] == [
        BroadcastResult(matched=1, queued=1),
        BroadcastResult(matched=1, dropped=1),
        BroadcastResult(matched=1, dropped=1),
    ]
    metrics = hub.metrics()
    assert (metrics.broadcast_pending, metrics.broadcast_dropped_by["stopped"]) == (0, 1)
    assert deadlines() == 0
    assert conn.state is State.OPEN
