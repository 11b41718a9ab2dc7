"""Bound for the bytes in the queues of all members of a hub: evictions, and when members are measured."""

from __future__ import annotations

from typing import Any

import plumews
from plumews import CloseCode, Hub, HubConfig, Opcode, SendBehavior, State, limits
from plumews.hub.slow_members import ByteBudget
from support.fakes import FakeTransport, clog, fake_conn, ticks
from support.members import adds_up, crowd, messages, stalled, texts


def member(hub: Hub, *rooms: str, **config: Any) -> tuple[plumews.Conn, FakeTransport]:
    return stalled(hub, *rooms, **{"queue_size": 64, "send_behavior": SendBehavior.DROP, **config})


def waiting(*conns: plumews.Conn) -> list[int]:
    return [conn.queued_messages for conn in conns]


async def test_budget_empties_the_largest_queue_only():
    hub = Hub(HubConfig(max_queued_bytes=10_000, encode_gap=lambda gap: f"lost {gap.dropped} in {gap.room}"))
    (small, _), (large, transport) = member(hub, "a"), member(hub, "b")
    for _ in range(3):
        hub.broadcast_room("a", "x" * 1000)
    for _ in range(7):
        hub.broadcast_room("b", "x" * 1000)
    await ticks()
    assert waiting(small, large) == [3, 0]
    metrics = hub.metrics()
    assert metrics.messages_evicted == large.evicted_messages == large.dropped_messages == 7
    assert metrics.broadcast_queued == 10
    assert adds_up(metrics)
    hub.broadcast_room("b", "again")
    transport.drain()
    await ticks()
    assert texts(transport.wire) == ["lost 7 in b", "again"]


async def test_budget_closes_members_under_block_or_close_with_1013():
    for behavior in (SendBehavior.BLOCK, SendBehavior.CLOSE):
        hub = Hub(HubConfig(max_queued_bytes=2000))
        conn, transport = member(hub, "a", send_behavior=behavior)
        hub.broadcast_room("a", "x" * 1500)
        await ticks()
        assert conn.state is State.OPEN
        hub.broadcast_room("a", "x" * 1500)
        await ticks()
        assert transport.events() == [(Opcode.CLOSE, (CloseCode.TRY_AGAIN_LATER, "send queue full"))]
        assert adds_up(hub.metrics())


async def test_budget_evicts_until_7_of_8_parts_of_the_limit_are_left():
    hub = Hub(HubConfig(max_queued_bytes=10_000 + 16 * limits.QUEUED_OVERHEAD))
    conns = [member(hub, "all", str(number))[0] for number in range(10)]
    for number in range(10):
        hub.broadcast_room(str(number), "x" * 100 * number)  # the last has the most
    await ticks()
    assert waiting(*conns) == [1] * 10
    hub.broadcast_room("all", "x" * 700)
    await ticks()
    assert waiting(*conns) == [2] * 8 + [0] * 2
    assert sum(conn.queued_bytes for conn in conns) <= 10_000 * 7 / 8


async def test_budget_does_not_count_bytes_that_have_left():
    hub = Hub(HubConfig(max_queued_bytes=10_000))
    conn, transport = member(hub, "a")
    for _ in range(50):
        transport.fill()
        hub.broadcast_room("a", "x" * 4000)
        transport.drain()
        await ticks()
    transport.fill()
    hub.broadcast_room("a", "x" * 4000)
    await ticks()
    assert (waiting(conn), conn.evicted_messages) == ([1], 0)


async def test_budget_does_not_measure_members_that_keep_up():
    hub = Hub(HubConfig(max_queued_bytes=1))
    conn, transport = fake_conn()
    hub.join("a", conn)
    for _ in range(100):
        hub.broadcast_room("a", "x" * 1000)
    assert not hub._slow.members
    await ticks()
    assert len(texts(transport.wire)) == 100


async def test_budget_measures_once_an_iteration_above_its_limit():
    looks = []
    budget = ByteBudget(100, lambda: looks.append(1) or [], lambda conn: None)
    budget.add(60)
    await ticks()
    assert looks == []
    for _ in range(10):
        budget.add(60)
    await ticks()
    assert looks == [1]
    budget.add(60)
    await ticks()
    assert looks == [1]


async def test_budget_closes_a_member_in_the_middle_of_a_message():
    hub = Hub(HubConfig(max_queued_bytes=1000))
    conn, _ = member(hub, "a", send_behavior=SendBehavior.DROP_OLDEST)
    hub.broadcast_room("a", "x" * 900)
    conn._in_pieces = True
    conn._enter(b"\x01\x7e\x01\x00" + b"x" * 256, 260)
    hub.broadcast_room("a", "x" * 900)
    hub._slow._budget.add(1000)
    await ticks()
    assert conn.closed


async def test_queues_without_a_budget_have_their_own_bounds_only():
    hub = Hub()
    conn, _ = member(hub, "a")
    for _ in range(10):
        hub.broadcast_room("a", "x" * 100_000)
    await ticks()
    assert waiting(conn) == [10]
    assert not hub._slow.members


async def test_budget_bounds_peers_that_never_read_all_together(start):
    hub = Hub(HubConfig(max_queued_bytes=100_000))
    options: dict[str, Any] = {"send_behavior": SendBehavior.DROP_OLDEST, "queue_bytes": 10**9, "queue_size": 10**6}
    async with crowd(start, 6, rcvbuf=4096, **options) as (conns, wires):
        for conn in conns:
            hub.join("room", conn)
        silent = conns[:5]
        for conn in silent:
            clog(conn)
        for number in range(100):
            await hub.publish("room", f"{number} " + "x" * 2000)
            text = await wires[5].message()
            assert isinstance(text, str)
            assert text.startswith(f"{number} ")
            assert sum(conn.queued_bytes for conn in silent) <= 100_000
        assert hub.metrics().messages_evicted > 100
        assert await messages(wires[5], 0) == []
