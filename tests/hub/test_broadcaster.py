"""Tests of recipients: a predicate, several rooms, one user, and keys.

`test_hub` has broadcasts to one room and to all, `test_broadcaster_order` their order.
"""

from __future__ import annotations

import asyncio
import contextlib
import tracemalloc
from collections.abc import Callable

import pytest

import plumews
from plumews import BroadcastResult, Hub, HubConfig, InvalidRoomName, SendBehavior, UserInfo
from plumews.hub.broadcaster import USER_CONNECTIONS
from plumews.hub.shutdown import settled
from support.fakes import clog, ticks
from support.members import (
    PlainMember,
    adds_up,
    crowd,
    drained,
    joined,
    messages,
    plain_member,
    plain_members,
    stalled,
    texts,
)

ANN = UserInfo("ann", "Ann")


def of_user(hub: Hub, user: UserInfo, count: int, *rooms: str) -> list[PlainMember]:
    """Return ``count`` members of ``user`` in ``rooms``."""
    return [plain_member(hub, *rooms, user=user.id) for _ in range(count)]


# --- a predicate ----------------------------------------------------------------------------------


async def test_where_sends_to_matching_members_only(start):
    hub = Hub()
    async with crowd(start, 4) as (conns, wires):
        for number, conn in enumerate(conns):
            conn.metadata["number"] = number
            hub.join("chat", conn)

        def odd(conn: plumews.Conn) -> bool:
            return bool(conn.metadata["number"] % 2)

        assert hub.broadcast_room("chat", "odd", where=odd) == BroadcastResult(matched=2, queued=2)
        assert hub.broadcast_all("three", where=odd, exclude=conns[1]) == BroadcastResult(matched=1, queued=1)
        assert (await hub.publish("chat", "again", where=odd)).queued == 2
        hub.broadcast_all("end")
        assert await messages(wires[0], 1) == await messages(wires[2], 1) == ["end"]
        assert await messages(wires[1], 3) == ["odd", "again", "end"]
        assert await messages(wires[3], 4) == ["odd", "three", "again", "end"]


async def test_where_that_raises_sends_nothing():
    hub = Hub()
    conns = plain_members(hub, "chat", 3)

    def where(conn: PlainMember) -> bool:
        if conn is conns[2]:
            raise LookupError("no such thing")
        return True

    before = hub.metrics()
    for send in (hub.broadcast_all, lambda data, **options: hub.broadcast_room("chat", data, **options)):
        with pytest.raises(LookupError, match="no such thing"):
            send("x", where=where)
    with pytest.raises(LookupError, match="no such thing"):
        await hub.publish("chat", "x", where=where)
    await ticks()
    assert hub.metrics() == before
    assert all(member.messages == [] for member in conns)
    assert (await hub.publish("chat", "after")).queued == 3


async def test_publish_calls_where_after_waiting_for_space(sliced):
    hub = Hub(1, 1)
    plain_members(hub, "chat", 200)
    hub.broadcast_room("chat", "long")
    asked: list[PlainMember] = []
    publishing = asyncio.ensure_future(hub.publish("chat", "x", where=lambda conn: not asked.append(conn)))
    await asyncio.sleep(0)
    assert asked == []
    (late,) = plain_members(hub, "chat", 1)
    assert (await publishing).matched == 201
    assert asked[-1] is late
    await ticks()
    assert late.messages == ["x"]


async def test_where_may_join_leave_close_and_broadcast(sliced):
    hub = Hub()
    conns = plain_members(hub, "chat", 150)

    def where(conn: PlainMember) -> bool:
        if conn is conns[0]:
            hub.broadcast_room("chat", "from inside")
        if conn is conns[1]:
            hub.leave("chat", conn)
        if conn is conns[2]:
            conn.end()
        if conn is conns[3]:
            plain_members(hub, "chat", 1)
        return True

    result = hub.broadcast_room("chat", "x", where=where)
    assert (result.matched, result.pending) == (150, 150)
    await hub.publish("chat", "end")
    await ticks()
    assert adds_up(hub.metrics())
    assert hub.metrics().broadcast_pending == 0
    assert conns[-1].messages == ["from inside", "x", "end"]
    assert "x" not in conns[1].messages


# --- several rooms --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [list, tuple, set, frozenset])
async def test_member_of_several_rooms_gets_message_once(start, kind):
    hub = Hub()
    async with crowd(start, 4) as (conns, wires):
        for rooms, conn in zip(("ab", "b", "bc", "d"), conns, strict=True):
            for room in rooms:
                hub.join(room, conn)
        assert hub.broadcast_room(kind("abc"), "x") == BroadcastResult(matched=3, queued=3)
        assert (await hub.publish(kind("ab"), "y", exclude=conns[1])).matched == 2
        assert hub.publish_threadsafe(kind("d"), "z")
        assert await messages(wires[3], 1) == ["z"]
        hub.broadcast_all("end")
        assert [await messages(wire, count) for wire, count in zip(wires[:3], (3, 2, 3), strict=True)] == [
            ["x", "y", "end"],
            ["x", "end"],
            ["x", "y", "end"],
        ]


async def test_several_rooms_without_members_are_no_error():
    hub = Hub()
    plain_members(hub, "chat", 2)
    assert hub.broadcast_room(["chat", "nowhere"], "x").queued == 2
    assert hub.broadcast_room([], "x") == BroadcastResult()
    assert await hub.publish(["nowhere"], "x") == BroadcastResult()


@pytest.mark.parametrize("rooms", [["chat", ""], ["chat", None], [None], ("x" * 129,), [["chat"]], {"chat": 1}, 7])
async def test_several_rooms_with_invalid_name_are_invalid(rooms):
    hub = Hub()
    (member,) = plain_members(hub, "chat", 1)
    assert hub.broadcast_room(rooms, "x") == BroadcastResult(invalid=True)
    assert await hub.publish(rooms, "x") == BroadcastResult(invalid=True)
    await ticks()
    assert member.messages == []


async def test_member_that_leaves_one_of_several_rooms_still_gets_it(sliced):
    hub = Hub()
    conns = plain_members(hub, "chat", 200)
    hub.join("news", conns[-1])
    hub.join("news", conns[-2])
    result = asyncio.ensure_future(hub.publish(["chat", "news"], "x"))
    await asyncio.sleep(0)
    for conn in conns[-3:]:
        hub.leave("chat", conn)
    hub.leave("news", conns[-2])
    assert await result == BroadcastResult(matched=200, queued=198, skipped=2)
    await ticks()
    assert [member.messages for member in conns[-3:]] == [[], [], ["x"]]


@pytest.mark.parametrize("workers", [1, 2, 16])
async def test_each_room_keeps_order_with_broadcasts_to_several(sliced, workers):
    hub = Hub(workers, 4096)
    members = {room: plain_members(hub, room, 150) for room in "abcd"}
    for conn in members["a"][:70]:
        hub.join("b", conn)
    targets = ["a", ["a", "b"], "b", ["c", "a"], "c", ["a", "b", "c"], "d", None, ["d", "b"]]
    sent: list[tuple[set[str], str]] = []
    for number in range(300):
        target = targets[number * 7 % len(targets)]
        if target is None:
            hub.broadcast_all(str(number))
        else:
            hub.broadcast_room(target, str(number))  # type: ignore[arg-type]
        sent.append((set("abcd" if target is None else target), str(number)))
    assert hub.metrics().broadcast_pending > 0
    await hub.publish(None, "end")
    await ticks()
    for everyone in members.values():
        for member in everyone:
            *got, last = member.messages
            assert (last, len(got)) == ("end", len(set(got)))
            assert set(got) == {number for target, number in sent if target & set(hub.rooms_of(member))}
            for room in hub.rooms_of(member):  # between two rooms that no message shares there is no order
                expected = [number for target, number in sent if room in target]
                assert [number for number in got if number in expected] == expected
    assert adds_up(hub.metrics())


async def test_direct_send_follows_earlier_broadcast_to_several_rooms(sliced):
    hub = Hub()
    joined(hub, "chat", 200)
    joined(hub, "news", 200)
    (conn,), (transport,) = joined(hub, "news", 1)
    assert hub.broadcast_room(["chat", "news"], "first").pending
    conn.send_nowait("direct")
    await hub.publish("news", "last")
    await ticks()
    assert texts(transport.wire) == ["first", "direct", "last"]


async def test_waiting_broadcasts_to_same_rooms_share_one_list(sliced):
    hub = Hub(4, 400)
    joined(hub, "chat", 1000)
    joined(hub, "news", 1)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        while not hub.broadcast_room(["chat", "news"], "x").overloaded:
            pass
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 2 * 400 * 1000  # bytes for each delivery; a list each would be eight
    await hub.shutdown(0)


async def test_publish_copies_the_list_of_rooms(sliced):
    hub = Hub(1, 1)
    members = plain_members(hub, "chat", 200)
    plain_members(hub, "news", 1)
    hub.broadcast_room("chat", "long")
    rooms = ["chat"]
    publishing = asyncio.ensure_future(hub.publish(rooms, "x"))
    await asyncio.sleep(0)
    rooms[:] = ["news"]
    assert (await publishing).matched == 200
    await ticks()
    assert members[-1].messages == ["long", "x"]


# --- a user ---------------------------------------------------------------------------------------


async def test_send_to_user_reaches_each_connection_of_user_once(start):
    hub = Hub()
    async with crowd(start, 4) as (conns, wires):
        for conn, user, rooms in zip(conns, (ANN, ANN, UserInfo("bob"), None), ("ab", "c", "a", "a"), strict=True):
            conn.user_info = user
            for room in rooms:
                hub.join(room, conn)
        assert hub.send_to_user("ann", "for Ann") == BroadcastResult(matched=2, queued=2)
        assert hub.send_to_user("ann", b"elsewhere", exclude=conns[0]) == BroadcastResult(matched=1, queued=1)
        assert hub.send_to_user("ann", "x", exclude=conns[2]).matched == 2
        assert hub.send_to_user("nobody", "x") == BroadcastResult()
        hub.broadcast_all("end")
        assert await messages(wires[0], 3) == ["for Ann", "x", "end"]
        assert await messages(wires[1], 4) == ["for Ann", b"elsewhere", "x", "end"]
        assert await messages(wires[2], 1) == await messages(wires[3], 1) == ["end"]
        metrics = hub.metrics()
        assert (metrics.broadcasts_total, metrics.broadcast_queued) == (5, 9)
        assert adds_up(metrics)


async def test_send_to_user_follows_earlier_broadcasts(start, sliced):
    hub = Hub()
    joined(hub, "chat", 300)
    async with crowd(start, 2) as (conns, wires):
        for conn in conns:
            conn.user_info = ANN
            hub.join("chat", conn)
            hub.join("news", conn)
        assert hub.broadcast_room("chat", "first").pending
        assert hub.broadcast_room(["news", "chat"], "second").pending
        hub.broadcast_all("third")
        assert hub.send_to_user("ann", "direct") == BroadcastResult(matched=2, queued=2)
        conns[0].send_nowait("after")
        hub.broadcast_room("chat", "last")
        expected = ["first", "second", "third", "direct", "after", "last"]
        assert await messages(wires[0], 6) == expected
        assert await messages(wires[1], 5) == [message for message in expected if message != "after"]
        assert (await hub.publish(None, "end")).pending == 0
        assert adds_up(hub.metrics())


@pytest.mark.parametrize("count", [USER_CONNECTIONS, USER_CONNECTIONS + 1])
async def test_send_to_user_with_many_connections_uses_workers(sliced, count):
    hub = Hub(4, 3)
    members = of_user(hub, ANN, count, "chat", "news")
    hub.broadcast_room("chat", "first")
    result = hub.send_to_user("ann", "second")
    assert result.matched == count
    assert bool(result.pending) is (count > USER_CONNECTIONS)
    hub.broadcast_room("news", "third")
    await hub.publish(None, "end")
    await ticks()
    assert [member.messages for member in members] == [["first", "second", "third", "end"]] * count
    assert adds_up(hub.metrics())


async def test_send_to_user_is_refused_when_job_queue_is_full(sliced):
    hub = Hub(1, 1)
    of_user(hub, ANN, 200, "chat")
    hub.broadcast_room("chat", "long")
    assert hub.send_to_user("ann", "x") == BroadcastResult(matched=200, dropped=200, overloaded=True)
    assert adds_up(hub.metrics())
    await hub.shutdown(0)


async def test_send_to_user_skips_closing_or_changed_connections(sliced):
    hub = Hub()
    members = of_user(hub, ANN, 199, "chat")
    (closing,), _ = joined(hub, "chat", 1)
    closing.user_info = ANN
    hub.join("chat", closing)
    closing.close_nowait()
    assert hub.send_to_user("ann", "x").pending
    members[-1].user_info = UserInfo("bob")
    hub.join("chat", members[-1])
    await hub.publish("chat", "end")
    await ticks()
    assert members[-1].messages == ["end"]
    assert hub.metrics().broadcast_skipped == 3
    assert adds_up(hub.metrics())


@pytest.mark.parametrize("behavior", SendBehavior)
async def test_send_to_user_follows_send_behavior_of_full_member(start, behavior):
    hub = Hub()
    options = {"queue_size": 2, "send_timeout": 0.01, "send_behavior": behavior}
    async with crowd(start, 1, rcvbuf=4096, **options) as ((conn,), (wire,)):
        conn.user_info = ANN
        hub.join("chat", conn)
        with contextlib.suppress(plumews.SendQueueFull):
            clog(conn)
        results = [hub.send_to_user("ann", bytes(100_000)) for _ in range(4)]
        assert all(map(adds_up, results))
        await settled(hub._slow)
        assert hub.metrics().broadcast_pending == 0
        assert adds_up(hub.metrics())
        assert hub.metrics().broadcast_dropped + hub.metrics().messages_evicted > 0
        wire.reset()


async def test_stopped_hub_refuses_broadcasts():
    hub = Hub()
    of_user(hub, ANN, 1, "chat")
    await hub.shutdown(0)
    assert hub.send_to_user("ann", "x") == BroadcastResult(stopped=True)
    assert hub.broadcast_room(["a", "b"], "x", where=bool) == BroadcastResult(stopped=True)


@pytest.mark.parametrize(
    "call",
    [
        lambda hub: hub.send_to_user("ann", "x"),
        lambda hub: hub.disconnect_user("ann"),
        lambda hub: hub.watch_presence("chat", print),
    ],
    ids=["send_to_user", "disconnect_user", "watch_presence"],
)
async def test_user_methods_on_another_thread_raise_concurrency_error(call: Callable[[Hub], object]):
    hub = Hub()
    plain_members(hub, "chat", 1)
    with pytest.raises(plumews.ConcurrencyError, match=r"use hub\.publish_threadsafe"):
        await asyncio.to_thread(call, hub)


async def test_send_to_user_with_invalid_data_raises():
    hub = Hub()
    of_user(hub, ANN, 1, "chat")
    with pytest.raises(TypeError, match="a message must be str or bytes-like"):
        hub.send_to_user("ann", None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must be TEXT"):
        hub.send_to_user("ann", "x", 9)


@pytest.mark.parametrize("stranger", ["ann", 7, ["ann"]])
async def test_exclude_of_wrong_type_sends_nothing(stranger):
    hub = Hub()
    (member,) = of_user(hub, ANN, 1, "chat")
    said = f"exclude must be a Conn, Member or None, not {type(stranger).__name__}: for several use where"
    for send in (hub.broadcast_room, hub.send_to_user):
        with pytest.raises(TypeError, match=said):
            send("ann", "x", exclude=stranger)
    with pytest.raises(TypeError, match=said):
        hub.broadcast_all("x", exclude=stranger)
    with pytest.raises(TypeError, match=said):
        await hub.publish("chat", "x", exclude=stranger)
    await ticks()
    assert member.messages == []
    assert hub.broadcast_all("x", exclude=PlainMember()).queued == 1


@pytest.mark.parametrize("room", [7, b"chat", ["chat", 7], [None]])
async def test_invalid_room_is_told_when_job_queue_is_full(sliced, room):
    hub = Hub(1, 1)
    plain_members(hub, "chat", 200)
    hub.broadcast_room("chat", "long")
    assert (await hub.publish(room, "x")).invalid


async def test_room_policy_applies_to_each_of_several_rooms():
    def short(name: str) -> None:
        if len(name) > 1:
            raise InvalidRoomName("one letter")

    hub = Hub(HubConfig(check_room_name=short))
    plain_members(hub, "a", 1)
    assert hub.broadcast_room(["a", "b"], "x").queued == 1
    assert hub.broadcast_room(["a", "bb"], "x").invalid


# --- keys -----------------------------------------------------------------------------------------


async def test_key_of_several_rooms_differs_from_key_of_one():
    hub = Hub()
    conn, transport = stalled(hub, "a", "b", send_behavior=SendBehavior.CONFLATE, queue_size=9)
    for number in "12":
        hub.broadcast_room(["a", "b"], "both " + number, key="key")
        hub.broadcast_room({"b", "a"}, "again " + number, key="key")
        hub.broadcast_room("a", "a " + number, key="key")
        hub.broadcast_room("a", "some " + number, key="key", where=lambda each: each is conn)
    assert await drained(transport) == ["again 2", "some 2"]
    assert hub.metrics().messages_replaced == 6


async def test_key_that_cannot_be_compared_replaces_nothing():
    class Key:
        def __hash__(self) -> int:
            return 1

        def __eq__(self, other: object) -> bool:
            raise ValueError

    hub = Hub()
    _, slow = stalled(hub, "chat", send_behavior=SendBehavior.CONFLATE)
    _, (transport,) = joined(hub, "chat", 1)
    for message in "ab":
        result = hub.broadcast_room("chat", message, key=Key())
        assert (result.queued, result.pending) == (2, 0)
    await ticks()
    assert texts(transport.wire) == ["a", "b"]
    assert await drained(slow) == ["a", "b"]


async def test_loss_of_messages_to_several_rooms_or_user_has_no_room():
    drops: list[tuple[str | None, int]] = []
    hub = Hub()
    hub.on_drop(lambda conn, room, count: drops.append((room, count)))
    conn, _ = stalled(hub, send_behavior=SendBehavior.DROP, queue_size=1)
    conn.user_info = ANN
    hub.join("a", conn)
    hub.join("b", conn)
    hub.broadcast_room("a", "queued")
    hub.broadcast_room(["a", "b"], "x")
    hub.send_to_user("ann", "x")
    hub.broadcast_room(["a"], "x")
    await ticks()
    assert drops == [(None, 2), ("a", 1)]
