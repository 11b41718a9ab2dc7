"""Tests of recovery: missed messages arrive once, in order, and missing ones are reported."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

import plumews
from plumews import (
    ConcurrencyError,
    ConnectionClosed,
    HistoryLimits,
    HubFull,
    HubStopped,
    InvalidRoomName,
    Position,
    Recovery,
    RoomFull,
    SendBehavior,
    TooManyRooms,
    limits,
)
from support.fakes import FakeTransport, clog, deadlines, ticks, until
from support.history_setup import START, newcomer, position, remembering
from support.members import PlainMember, adds_up, crowd, messages, texts

# --- returning members ----------------------------------------------------------------------------


async def test_recover_sends_missed_messages_before_later_ones(start):
    hub = remembering()
    async with crowd(start, 3) as (conns, (one, two, three)):
        hub.join("chat", conns[0])
        hub.join("chat", conns[1])
        hub.broadcast_room("chat", "0")
        seen = position(hub)
        assert await one.message() == await two.message() == "0"
        two.reset()
        await conns[1].wait_closed()
        for number in range(1, 4):
            hub.broadcast_room("chat", str(number))
        recovery = hub.recover("chat", conns[2], Position.parse(str(seen)))
        hub.broadcast_room("chat", "4")
        assert recovery == Recovery(complete=True, messages=3, position=Position(seen.epoch, 4))
        assert await messages(three, 4) == await messages(one, 4) == ["1", "2", "3", "4"]


async def test_recover_sends_messages_of_an_empty_room():
    hub = remembering()
    seen = position(hub)
    hub.broadcast_room("chat", "anybody?")
    conn = PlainMember()
    assert hub.recover("chat", conn, seen).complete
    await ticks()
    assert conn.messages == ["anybody?"]


async def test_recover_keeps_text_binary_and_fragments(start):
    hub = remembering()
    said: list[str | bytes] = ["grüße", b"\xff\x00", bytes(200_000), "", "x" * 70_000]
    for data in said:
        hub.broadcast_room("chat", data)
    async with crowd(start, 1) as ((conn,), (wire,)):
        assert hub.recover("chat", conn, START).messages == 5
        assert await messages(wire, 5) == said


async def test_recover_sends_nothing_if_nothing_was_missed():
    hub = remembering()
    hub.broadcast_room("chat", "x")
    conn = PlainMember()
    assert hub.recover("chat", conn, position(hub)) == Recovery(True, 0, position(hub))
    await ticks()
    assert conn.messages == []


async def test_recover_sends_unfinished_broadcast_once(sliced):
    hub = remembering()
    for _ in range(300):
        hub.join("chat", PlainMember())
    seen = position(hub)
    assert [hub.broadcast_room("chat", str(number)).pending > 0 for number in range(3)] == [True] * 3
    conn = PlainMember()
    assert hub.recover("chat", conn, seen).messages == 3
    await hub.publish("chat", "3")
    await ticks()
    assert conn.messages == ["0", "1", "2", "3"]


async def test_recover_after_leave_sends_unfinished_broadcast_once(sliced):
    hub = remembering()
    for _ in range(300):
        hub.join("chat", PlainMember())
    conn = PlainMember()
    hub.join("chat", conn)
    hub.join("news", conn)
    seen = position(hub)
    hub.broadcast_room("chat", "0")
    hub.broadcast_room("news", "news")
    hub.leave("chat", conn)
    hub.broadcast_room("chat", "1")
    assert hub.recover("chat", conn, seen) == Recovery(True, 2, position(hub))
    await hub.publish("chat", "2")
    await ticks()
    assert conn.messages == ["news", "0", "1", "2"]
    assert hub.metrics().broadcast_skipped == 1
    assert adds_up(hub.metrics())


async def test_broadcast_on_join_follows_missed_messages(monkeypatch):
    hub = remembering()
    seen = position(hub)
    hub.broadcast_room("chat", "missed")
    conn = PlainMember()
    monkeypatch.setattr(hub._counts, "changed", lambda room: hub.broadcast_room(room, "welcome"))
    assert hub.recover("chat", conn, seen) == Recovery(True, 1, Position(seen.epoch, 1))
    await ticks()
    assert conn.messages == ["missed", "welcome"]


async def test_recover_sends_messages_with_excluded_sender():
    hub = remembering()
    sender = PlainMember()
    hub.join("chat", sender)
    seen = position(hub)
    hub.broadcast_room("chat", "mine", exclude=sender)
    hub.broadcast_all("to all")
    conn = PlainMember()
    assert hub.recover("chat", conn, seen).complete
    await ticks()
    assert conn.messages == ["mine"]


async def test_history_and_queues_share_one_copy_of_frames():
    hub = remembering()
    for _ in range(5):
        hub.broadcast_room("chat", bytes(100_000))
    stream = hub._history and hub._history._entries["chat"].stream
    assert stream
    kept = [encoded.buffers for _, encoded in stream._kept]
    for _ in range(3):
        conn, transport = newcomer()
        transport.fill()
        assert hub.recover("chat", conn, START).messages == 5
        assert conn.queued_messages == 5
    assert [encoded.buffers for _, encoded in stream._kept] == kept
    assert stream.bytes == sum(sum(map(len, buffers)) + limits.HISTORY_OVERHEAD for buffers in kept)


# --- incomplete recoveries ------------------------------------------------------------------------


async def test_recover_beyond_bounds_is_incomplete():
    hub = remembering(history=HistoryLimits(max_messages=2))
    seen = position(hub)
    for number in range(3):
        hub.broadcast_room("chat", str(number))
    conn = PlainMember()
    assert hub.recover("chat", conn, seen) == Recovery(False, 2, position(hub))
    await ticks()
    assert conn.messages == ["1", "2"]


async def test_recover_of_another_epoch_sends_all_as_incomplete():
    hub = remembering()
    hub.broadcast_room("chat", "x")
    conn = PlainMember()
    assert hub.recover("chat", conn, Position("another", 1)) == Recovery(False, 1, position(hub))
    await ticks()
    assert conn.messages == ["x"]


async def test_recover_of_future_position_sends_nothing():
    hub = remembering()
    hub.broadcast_room("chat", "x")
    conn = PlainMember()
    top = position(hub)
    assert hub.recover("chat", conn, Position(top.epoch, 2)) == Recovery(False, 0, top)
    hub.broadcast_room("chat", "y")
    await ticks()
    assert conn.messages == ["y"]


@pytest.mark.parametrize("behavior", list(SendBehavior), ids=str)
async def test_recover_beyond_full_queue_is_incomplete(behavior):
    hub = remembering()
    seen = position(hub)
    for number in range(5):
        hub.broadcast_room("chat", str(number))
    conn, transport = newcomer(queue_size=3, send_behavior=behavior)
    transport.fill()
    assert hub.recover("chat", conn, seen) == Recovery(False, 3, position(hub))
    assert conn.dropped_messages == 2
    assert not conn.closed
    assert hub.members("chat") == [conn]
    transport.drain()
    assert texts(transport.wire) == ["0", "1", "2"]


async def test_recover_fills_short_queue_while_peer_reads(start):
    hub = remembering()
    for number in range(100):
        hub.broadcast_room("chat", str(number))
    async with crowd(start, 1, queue_size=4) as ((conn,), (wire,)):
        assert hub.recover("chat", conn, START).messages == 100
        assert await messages(wire, 100) == [str(number) for number in range(100)]


async def test_recover_to_peer_that_does_not_read_fills_its_queue(start):
    hub = remembering()
    seen = position(hub)
    for number in range(50):
        hub.broadcast_room("chat", str(number))
    async with crowd(start, 1, rcvbuf=4096, queue_size=10) as ((conn,), (_,)):
        clog(conn)
        free = 10 - conn.queued_messages
        assert hub.recover("chat", conn, seen) == Recovery(False, free, position(hub))
        assert conn.queued_messages == 10


# --- refusals -------------------------------------------------------------------------------------


async def test_recover_is_refused_like_join():
    hub = remembering(max_connections=2, max_room_connections=1, max_rooms_per_connection=2)
    member, other = PlainMember(), PlainMember()
    hub.join("chat", member)
    hub.join("weather", member)
    hub.join("news", other)
    closed, _ = newcomer()
    closed.abort()
    stranger = PlainMember()
    hub.broadcast_room("chat", "x")
    before = hub.metrics()
    refusals: list[tuple[type[Exception], str, Any]] = [
        (RoomFull, "chat", other),
        (HubFull, "sport", stranger),
        (TooManyRooms, "sport", member),
        (InvalidRoomName, "", stranger),
        (ConnectionClosed, "sport", closed),
    ]
    for error, room, conn in refusals:
        with pytest.raises(error):
            hub.recover(room, conn, START)
    metrics = hub.metrics()
    assert metrics.rejected_total == before.rejected_total + len(refusals)
    assert (metrics.accepted_total, metrics.room_registrations) == (3, 3)
    await ticks()
    assert stranger.messages == []


async def test_recover_of_a_member_raises_value_error():
    hub = remembering()
    conn = PlainMember()
    hub.join("chat", conn)
    with pytest.raises(ValueError, match="in this room already: call recover instead of join"):
        hub.recover("chat", conn, START)
    assert hub.recover("news", conn, START).messages == 0
    assert conn.messages == []


@pytest.mark.parametrize("wrong", [None, "x.1", 1, ("x", 1)], ids=repr)
async def test_recover_with_other_position_raises_type_error(wrong):
    hub = remembering()
    conn, _ = newcomer()
    with pytest.raises(TypeError, match=r"position must be a plumews\.Position, not .*: use Position\.parse"):
        hub.recover("chat", conn, wrong)
    assert hub.rooms() == []


async def test_recover_needs_a_connection_of_this_loop():
    hub = remembering()
    with pytest.raises(TypeError, match="a member must be a Conn, not str"):
        hub.recover("chat", "ann", START)  # type: ignore[arg-type]
    hub.position("chat")

    async def elsewhere() -> plumews.Conn:
        return newcomer()[0]

    conn = await asyncio.to_thread(lambda: asyncio.run(elsewhere()))
    with pytest.raises(ConcurrencyError):
        hub.recover("chat", conn, START)


async def test_stopped_hub_forgets_history():
    before = deadlines()
    hub = remembering()
    conn = PlainMember()
    hub.broadcast_room("chat", "x")
    await hub.shutdown(0)
    with pytest.raises(HubStopped):
        hub.recover("chat", conn, START)
    with pytest.raises(HubStopped):
        hub.position("chat")
    assert hub.broadcast_room("chat", "x").position is None
    assert len(hub._history or ()) == 0
    assert deadlines() == before


# --- lifetime -------------------------------------------------------------------------------------


async def test_history_of_empty_room_ends_with_age_of_messages():
    before = deadlines()
    hub = remembering(history=HistoryLimits(max_age=0.05))
    conn = PlainMember()
    hub.join("chat", conn)
    hub.broadcast_room("chat", "x")
    seen = position(hub)
    store = hub._history
    assert store is not None
    await until(lambda: store.bytes == limits.HISTORY_ROOM_OVERHEAD)
    assert position(hub) == seen  # its member has missed nothing
    left = asyncio.get_running_loop().time()
    hub.remove(conn)
    await until(lambda: len(store) == 0)
    assert asyncio.get_running_loop().time() - left > 0.045
    assert deadlines() == before
    assert hub.recover("chat", conn, seen) == Recovery(False, 0, position(hub))


# --- random use -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
async def test_random_recoveries_get_each_message_once_in_order(sliced, seed):
    dice = random.Random(seed)
    hub = remembering(workers=dice.randint(1, 3), history=HistoryLimits(max_messages=dice.choice([5, 1000])))
    for _ in range(130):
        hub.join("chat", newcomer()[0])
    epoch = position(hub).epoch
    number = 0
    alive: list[tuple[plumews.Conn, FakeTransport, int, list[str]]] = []  # with what each must get
    away: list[int] = [0] * 4
    done: list[tuple[FakeTransport, list[str]]] = []

    def publish() -> None:
        nonlocal number
        result = hub.broadcast_room("chat", str(number + 1))
        assert not result.overloaded
        number += 1
        assert result.position == Position(epoch, number)
        for _, _, _, wanted in alive:
            wanted.append(str(number))

    for _ in range(200):
        action = dice.randrange(5)
        if action < 2:
            publish()
        elif action == 2 and away:
            offset = away.pop(dice.randrange(len(away)))
            conn, transport = newcomer(queue_size=10_000)
            recovery = hub.recover("chat", conn, Position(epoch, offset))
            first = number + 1 - recovery.messages
            assert recovery.complete == (first == offset + 1)
            assert recovery.position == Position(epoch, number)
            alive.append((conn, transport, first, [str(offset) for offset in range(first, number + 1)]))
        elif action == 3 and alive:
            conn, transport, first, wanted = alive.pop(dice.randrange(len(alive)))
            conn.close_nowait()  # behind what was broadcast before
            away.append(first + len(wanted) - 1)
            done.append((transport, wanted))
        else:
            await asyncio.sleep(0)
    await hub.publish("news", "the end")
    await hub._broadcaster.scheduler.idle()
    await ticks(5)
    for transport, wanted in [*done, *((transport, wanted) for _, transport, _, wanted in alive)]:
        assert texts(transport.wire) == wanted
    assert adds_up(hub.metrics())
