"""Tests of broadcast order, long fan-outs and the job queue."""

from __future__ import annotations

import asyncio
import tracemalloc

import pytest

import plumews
from plumews import (
    BroadcastResult,
    CloseCode,
    Hub,
    Opcode,
    limits,
)
from plumews.conn.receiver import deliver_to
from support.fakes import feed, ticks
from support.members import adds_up, crowd, joined, messages, plain_members, texts
from support.raw_client import Wire, masked, text

# --- order ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 4, 16])
async def test_room_keeps_order_with_any_number_of_workers(start, workers):
    hub = Hub(workers, 1024)
    rooms = [f"room {number}" for number in range(7)]
    async with crowd(start, 6) as (conns, wires):
        for number, conn in enumerate(conns):
            for room in (rooms[number], rooms[number + 1]):
                hub.join(room, conn)

        async def publish() -> None:
            for number in range(4000):
                room = rooms[number % 7]
                result = await hub.publish(room, f"{room}:{number}")
                assert result.queued == result.matched == hub.room_count(room)

        async def read(wire: Wire, index: int) -> None:
            expected = {
                room: [f"{room}:{number}" for number in range(4000) if rooms[number % 7] == room]
                for room in rooms[index : index + 2]
            }
            received: dict[str, list[str | bytes]] = {room: [] for room in expected}
            for _ in range(sum(map(len, expected.values()))):
                message = await wire.message()
                received[str(message).split(":")[0]].append(message)
            assert received == expected

        await asyncio.gather(publish(), *(read(wire, index) for index, wire in enumerate(wires)))


async def test_room_keeps_order_while_every_fan_out_is_sliced(sliced):
    hub = Hub(16, 4096)
    rooms = [f"room {number}" for number in range(5)]
    members = {room: plain_members(hub, room, 150) for room in rooms}
    numbers: dict[str, list[str]] = {room: [] for room in rooms}
    for number in range(400):
        room = rooms[number * 7 % 5]
        assert not hub.broadcast_room(room, str(number)).overloaded
        numbers[room].append(str(number))
    assert hub.metrics().broadcast_pending > 0
    for room in rooms:
        await hub.publish(room, "end")
    await ticks()
    for room in rooms:
        for member in members[room]:
            assert member.messages == [*numbers[room], "end"]


async def test_broadcast_all_keeps_order_with_room_broadcasts(sliced):
    hub = Hub(4)
    members = plain_members(hub, "room 1", 150)
    members = plain_members(hub, "room 2", 300)
    for number in range(10):
        hub.broadcast_room("room 1", f"{number}: members")
        hub.broadcast_room("room 2", f"{number}: members")
        hub.broadcast_all(f"{number}: all")
    result = await hub.publish(None, "end")
    assert result == BroadcastResult(matched=450, queued=450)
    await ticks()
    for name, transports in (("members", members), ("members", members)):
        expected = [f"{number}: {what}" for number in range(10) for what in (name, "all")]
        assert all(transport.messages == [*expected, "end"] for transport in transports)


async def test_500_clients_get_200_broadcasts_complete_and_in_order(start):
    hub = Hub()
    async with crowd(start, 500, ping_interval=None) as (conns, wires):
        for conn in conns:
            hub.join("chat", conn)

        async def publish() -> None:
            for number in range(200):
                assert await hub.publish("chat", str(number)) == BroadcastResult(matched=500, queued=500)

        expected = [str(number) for number in range(200)]
        received = await asyncio.gather(*(messages(wire, 200) for wire in wires), publish())
        assert all(got == expected for got in received[:-1])
        metrics = hub.metrics()
        assert metrics.broadcast_matched == metrics.broadcast_queued == 100_000


# --- long fan-outs --------------------------------------------------------------------------------


async def test_ping_is_answered_during_long_fan_out(start, sliced):
    hub = Hub()
    async with crowd(start, 1) as (_, (wire,)):
        joined(hub, "chat", 5000)
        result = hub.broadcast_room("chat", "x")
        assert 0 < result.queued < result.matched == 5000
        assert adds_up(result)
        answer = asyncio.ensure_future(wire.event())
        wire.send(masked(Opcode.PING, b"still there?"))
        publishing = []
        while not answer.done():  # the fan-outs last as long as the way of the ping does on this machine
            if hub.metrics().broadcast_pending <= 5000:
                publishing.append(asyncio.ensure_future(hub.publish("chat", "y")))
            await asyncio.sleep(0)
        assert await answer == (Opcode.PONG, b"still there?")
        assert hub.metrics().broadcast_pending > 0
        assert not publishing[-1].done()
        assert set(await asyncio.gather(*publishing)) == {BroadcastResult(matched=5000, queued=5000)}
        assert hub.metrics().broadcast_pending == 0
        assert adds_up(hub.metrics())


async def test_small_room_does_not_wait_for_fan_out_to_large_room(sliced):
    hub = Hub(4)
    plain_members(hub, "large", 5000)
    large = hub._broadcaster.scheduler._queues_of("large")[0]
    small = next(name for name in map(str, range(100)) if hub._broadcaster.scheduler._queues_of(name)[0] is not large)
    plain_members(hub, small, 1)
    assert hub.broadcast_room("large", "x").pending
    assert hub.broadcast_room(small, "x") == BroadcastResult(matched=1, queued=1)


async def test_member_that_leaves_during_fan_out_is_skipped(sliced):
    hub = Hub()
    conns, transports = joined(hub, "chat", 300)
    result = asyncio.ensure_future(hub.publish("chat", "x"))
    await asyncio.sleep(0)
    hub.leave("chat", conns[-1])
    hub.remove(conns[-2])
    conns[-3].abort()
    conns[-4].close_nowait()
    _, (late,) = joined(hub, "chat", 1)
    # The closing one is brought up first: what was broadcast before it stands before its close frame.
    assert await result == BroadcastResult(matched=300, queued=297, skipped=3)
    await ticks()
    assert [texts(transport.wire) for transport in transports[-4:]] == [["x"], [], [], []]
    assert late.writes == []
    assert adds_up(hub.metrics())


@pytest.mark.parametrize("how", ["send_nowait", "send", "write_json"])
async def test_direct_send_follows_earlier_broadcasts(start, sliced, how):
    hub = Hub()
    joined(hub, "chat", 300)
    async with crowd(start, 1) as (conns, (wire,)):
        hub.join("chat", conns[0])
        hub.join("news", conns[0])
        assert hub.broadcast_room("chat", "first").pending
        assert hub.broadcast_room("chat", "second").pending
        hub.broadcast_all("third")
        answer = getattr(conns[0], how)("direct")
        if answer is not None:
            await answer
        await hub.publish("chat", "last")
        expected = ["first", "second", "third", '"direct"' if how == "write_json" else "direct", "last"]
        assert await messages(wire, 5) == expected
        assert hub.metrics().broadcast_queued == hub.metrics().broadcast_matched == 4 * 301


async def test_close_frame_follows_earlier_broadcast(start, sliced):
    hub = Hub()
    joined(hub, "chat", 300)
    async with crowd(start, 1) as (conns, (wire,)):
        hub.join("chat", conns[0])
        assert hub.broadcast_room("chat", "last words").pending
        conns[0].close_nowait(CloseCode.POLICY_VIOLATION, "enough")
        assert await wire.message() == "last words"
        assert await wire.closing() == (CloseCode.POLICY_VIOLATION, "enough")


async def test_direct_sends_to_all_keep_order_with_waiting_broadcasts(sliced):
    hub = Hub()
    conns, transports = joined(hub, "chat", 200)
    for number in range(5):
        hub.broadcast_room("chat", f"a{number}")
    for conn in conns:
        conn.send_nowait("direct")
    for number in range(5):
        hub.broadcast_room("chat", f"b{number}")
    await hub.publish("chat", "end")
    await ticks()
    expected = [*(f"a{number}" for number in range(5)), "direct", *(f"b{number}" for number in range(5)), "end"]
    assert all(texts(transport.wire) == expected for transport in transports)


async def test_waiting_broadcasts_share_one_list_of_members(sliced):
    hub = Hub(4, 400)
    conns, _ = joined(hub, "chat", 1000)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        while not hub.broadcast_room("chat", "x").overloaded:
            pass
        conns[-1].send_nowait("direct")  # looks for its place in each of them
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(hub._broadcaster.scheduler) == 400
    assert after - before < 2 * 400 * 1000  # bytes for each delivery; a list each would be eight, an index a hundred
    await hub.shutdown(0)


# --- job queue ------------------------------------------------------------------------------------


async def test_full_job_queue_refuses_broadcast_and_counts_it_once(sliced):
    hub = Hub(1, 3)
    members = plain_members(hub, "chat", 200)
    results = [hub.broadcast_room("chat", str(number)) for number in range(4)]
    assert [result.overloaded for result in results] == [False, False, False, True]
    assert results[3] == BroadcastResult(matched=200, dropped=200, overloaded=True)
    assert results[3].rejected
    metrics = hub.metrics()
    assert (metrics.broadcasts_total, metrics.broadcasts_rejected, metrics.broadcast_dropped) == (3, 1, 200)
    assert adds_up(metrics)
    await hub.publish("chat", "end")
    await ticks()
    assert all(member.messages == ["0", "1", "2", "end"] for member in members)
    assert adds_up(hub.metrics())


async def test_burst_in_one_read_survives_one_sliced_fan_out(monkeypatch):
    hub = Hub(1, 10)
    conns, transports = joined(hub, "chat", 200)

    def relay(conn: plumews.Conn, message: str | bytes) -> None:
        result = hub.broadcast_room("chat", message)
        assert not result.overloaded
        monkeypatch.setattr(limits, "FAN_OUT_SLICE", 60.0)  # the first was cut short, by a busy machine or whatever

    monkeypatch.setattr(limits, "FAN_OUT_SLICE", 0.0)
    failures: list[Exception] = []
    deliver_to(conns[0], relay, lambda conn, exc: failures.append(exc))
    feed(conns[0], *(text(str(number)) for number in range(100)))
    while conns[0]._backlog or conns[0]._rest:  # what the first, which was slow, has left for the next turn
        await ticks(1)
    await hub.publish("chat", "end")
    await ticks()
    assert failures == []
    expected = [*(str(number) for number in range(100)), "end"]
    assert all(texts(transport.wire) == expected for transport in transports)


async def test_empty_room_needs_no_space_in_job_queue(sliced):
    hub = Hub(1, 2)
    plain_members(hub, "chat", 200)
    (alone,) = plain_members(hub, "alone", 1)
    assert hub.broadcast_room("chat", "x").pending
    assert hub.broadcast_room("nowhere", "x") == BroadcastResult()
    assert len(hub._broadcaster.scheduler) == 1
    assert hub.broadcast_room("chat", "x").pending
    assert hub.broadcast_room("nowhere", "x") == BroadcastResult()
    assert hub.broadcast_room("alone", "x", exclude=alone) == BroadcastResult()
    assert hub.broadcast_room("alone", "x").overloaded


async def test_publish_waits_for_space_in_job_queue(sliced):
    hub = Hub(1, 2)
    members = plain_members(hub, "chat", 200)
    publishing = [asyncio.ensure_future(hub.publish("chat", str(number))) for number in range(20)]
    await asyncio.sleep(0)
    assert len(hub._broadcaster.scheduler) == 2
    assert await asyncio.gather(*publishing) == [BroadcastResult(matched=200, queued=200)] * 20
    metrics = hub.metrics()
    assert (metrics.broadcasts_total, metrics.broadcasts_rejected) == (20, 0)
    assert metrics.broadcast_matched == metrics.broadcast_queued == 4000
    await ticks()
    expected = [str(number) for number in range(20)]  # first come, first served
    assert all(member.messages == expected for member in members)


async def test_late_publish_does_not_overtake_waiting_ones(sliced):
    hub = Hub(1, 1)
    members = plain_members(hub, "chat", 200)
    publishing = [asyncio.ensure_future(hub.publish("chat", str(number))) for number in range(3)]
    await asyncio.sleep(0)
    while len(hub._broadcaster.scheduler):
        await asyncio.sleep(0)
    await hub.publish("chat", "late")
    await asyncio.gather(*publishing)
    await ticks()
    assert all(member.messages == ["0", "1", "2", "late"] for member in members)


async def test_cancelled_publishers_do_not_block_the_others(sliced):
    hub = Hub(1, 1)
    members = plain_members(hub, "chat", 200)
    publishing = [asyncio.ensure_future(hub.publish("chat", str(number))) for number in range(6)]
    await asyncio.sleep(0)
    for number in (1, 2, 4):
        publishing[number].cancel()
    results = await asyncio.gather(*publishing, return_exceptions=True)
    assert [isinstance(result, asyncio.CancelledError) for result in results] == [False, True, True, False, True, False]
    await ticks()
    assert all(member.messages == ["0", "3", "5"] for member in members)


async def test_publish_copies_mutable_data_before_waiting(sliced):
    hub = Hub(1, 1)
    members = plain_members(hub, "chat", 200)
    data = bytearray(b"before")
    hub.broadcast_room("chat", "first")
    publishing = asyncio.ensure_future(hub.publish("chat", data, Opcode.TEXT))
    await asyncio.sleep(0)
    data[:] = b"after!"
    await publishing
    await ticks()
    assert all(member.messages == ["first", "before"] for member in members)


async def test_cancelled_publish_does_not_revoke_its_broadcast(sliced):
    hub = Hub()
    members = plain_members(hub, "chat", 200)
    publishing = asyncio.ensure_future(hub.publish("chat", "x"))
    await asyncio.sleep(0)
    publishing.cancel()
    await hub.publish("chat", "end")
    await ticks()
    assert all(member.messages == ["x", "end"] for member in members)
