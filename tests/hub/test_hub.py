"""The hub: rooms, broadcasts and their order, on real connections where the wire matters.

The numbered weaknesses are those of the seed's review (section 8): the order of a room, data and opcodes checked and
copied, a hub that is used while it stops, closed connections in rooms.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

import plumews
from plumews import (
    BroadcastResult,
    CloseCode,
    ConcurrencyError,
    ConnectionClosed,
    Hub,
    HubConfig,
    HubFull,
    HubStopped,
    InvalidRoomName,
    Opcode,
    RoomFull,
    SendBehavior,
    TooManyRooms,
    limits,
)
from support.fakes import clog, fake_conn, feed, pass_time, ticks
from support.members import adds_up, crowd, joined, messages, texts
from support.raw_client import Wire, close, masked, text

# --- rooms ----------------------------------------------------------------------------------------


async def test_rooms_are_what_was_joined_and_not_left():
    hub = Hub(4, 1024)
    (ann, bob, cid), _ = joined(hub, "chat", 3)
    hub.join("news", ann)
    assert sorted(hub.rooms()) == ["chat", "news"]
    assert hub.members("chat") == [ann, bob, cid]
    assert hub.rooms_of(ann) == ["chat", "news"]
    assert (hub.room_count("chat"), hub.room_count("news"), hub.room_count("nowhere")) == (3, 1, 0)
    assert hub.total_count() == 4  # registrations, as in the seed
    assert hub.connection_count() == 3
    hub.leave("chat", bob)
    hub.remove(ann)
    assert hub.rooms() == ["chat"]
    assert hub.members("chat") == [cid]
    assert (hub.total_count(), hub.connection_count()) == (1, 1)
    assert not ann.closed
    assert not bob.closed
    hub.leave("chat", cid)
    assert hub.rooms() == []


async def test_leaving_a_room_one_is_not_in_is_harmless():
    hub = Hub()
    (ann,), _ = joined(hub, "chat", 1)
    stranger, _ = fake_conn()
    hub.leave("chat", stranger)
    hub.leave("nowhere", ann)
    hub.remove(stranger)
    hub.leave("chat", ann)
    hub.leave("chat", ann)
    hub.remove(ann)
    assert (hub.total_count(), hub.rooms()) == (0, [])


async def test_the_list_of_members_is_a_copy():
    hub = Hub()
    joined(hub, "chat", 2)
    hub.members("chat").clear()
    hub.rooms().clear()
    assert hub.room_count("chat") == 2


async def test_a_connection_that_closes_leaves_all_its_rooms_by_itself(start):
    hub = Hub()
    async with crowd(start, 2) as (conns, wires):
        for conn in conns:
            hub.join("chat", conn)
            hub.join("news", conn)
        wires[0].reset()
        await conns[0].wait_closed()
        assert hub.members("chat") == hub.members("news") == [conns[1]]
        wires[1].send(close())
        await conns[1].wait_closed()
        assert hub.rooms() == []
        assert hub.connection_count() == 0


async def test_joining_and_leaving_a_thousand_times_leaves_nothing_behind():
    hub = Hub()
    conn, _ = fake_conn()
    callbacks = len(conn._close_callbacks)
    for number in range(1000):
        hub.join("chat", conn)
        hub.join(f"room {number}", conn)
        hub.leave("chat", conn)
        hub.remove(conn)
    assert len(conn._close_callbacks) == callbacks
    assert hub.rooms() == []
    assert not hub._rooms._snapshots


async def test_a_connection_may_be_in_rooms_of_two_hubs():
    one, two = Hub(), Hub()
    conn, transport = fake_conn()
    one.join("chat", conn)
    two.join("chat", conn)
    one.broadcast_room("chat", "one")
    two.broadcast_room("chat", "two")
    one.remove(conn)
    assert one.broadcast_room("chat", "gone").matched == 0
    two.broadcast_room("chat", "still")
    await ticks()
    assert texts(transport.wire) == ["one", "two", "still"]
    conn.abort()
    await ticks()
    assert two.rooms() == []


# --- refusals and limits --------------------------------------------------------------------------


async def test_limits_hold_at_n_and_refuse_n_plus_1():
    hub = Hub(HubConfig(max_connections=3, max_room_connections=2, max_rooms_per_connection=2))
    (ann, bob), _ = joined(hub, "chat", 2)
    cid, dan = fake_conn()[0], fake_conn()[0]
    with pytest.raises(RoomFull, match="websocket room at capacity: 2 connections"):
        hub.join("chat", cid)
    hub.join("news", cid)
    with pytest.raises(HubFull, match="websocket hub at capacity: 3 connections"):
        hub.join("sport", dan)
    hub.join("news", ann)
    with pytest.raises(TooManyRooms, match="a connection may be in 2 rooms"):
        hub.join("sport", ann)
    assert sorted(hub.rooms()) == ["chat", "news"]
    assert (hub.total_count(), hub.connection_count()) == (4, 3)
    hub.remove(bob)
    hub.join("chat", dan)


async def test_a_limit_of_0_is_none():
    hub = Hub(HubConfig(max_connections=0, max_room_connections=0, max_rooms_per_connection=0))
    conns, _ = joined(hub, "chat", 300)
    for number in range(150):
        hub.join(f"room {number}", conns[0])
    assert (hub.room_count("chat"), hub.total_count()) == (300, 450)


async def test_joining_again_at_every_limit_is_harmless_and_counts_nothing():
    hub = Hub(HubConfig(max_connections=1, max_room_connections=1, max_rooms_per_connection=1))
    (ann,), _ = joined(hub, "chat", 1)
    before = hub.metrics()
    hub.join("chat", ann)
    assert hub.metrics() == before
    assert before.accepted_total == 1


@pytest.mark.parametrize("ended", ["close_nowait", "abort"])
async def test_section_8_point_27_a_connection_that_is_closed_or_closing_cannot_join(ended):
    hub = Hub(HubConfig(max_connections=1))
    conn, _ = fake_conn()
    getattr(conn, ended)()
    with pytest.raises(ConnectionClosed):
        hub.join("chat", conn)
    await ticks()
    with pytest.raises(ConnectionClosed):
        hub.join("chat", conn)
    assert hub.metrics().rejected_total == 2
    joined(hub, "chat", 1)  # it took nobody's place


async def test_only_connections_can_join():
    hub = Hub()
    with pytest.raises(TypeError, match="a member must be a Conn, not NoneType"):
        hub.join("chat", None)  # type: ignore[arg-type]
    assert hub.rooms() == []


async def test_every_refusal_is_counted_and_changes_nothing():
    hub = Hub(HubConfig(max_connections=2, max_room_connections=1, max_rooms_per_connection=2))
    (ann,), _ = joined(hub, "chat", 1)
    joined(hub, "news", 1)
    stranger, _ = fake_conn()
    refusals: list[tuple[type[Exception], str, plumews.Conn]] = [
        (InvalidRoomName, "", ann),
        (InvalidRoomName, "x" * 129, ann),
        (RoomFull, "news", ann),
        (HubFull, "sport", stranger),
    ]
    for number, (error, room, conn) in enumerate(refusals, start=1):
        with pytest.raises(error):
            hub.join(room, conn)
        assert hub.metrics().rejected_total == number
    assert hub.metrics().accepted_total == 2
    assert sorted(hub.rooms()) == ["chat", "news"]


async def test_can_join_says_what_join_would_say_to_somebody_new_and_counts_the_refusal():
    hub = Hub(HubConfig(max_connections=2, max_room_connections=1))
    joined(hub, "chat", 1)
    hub.can_join("news")
    assert hub.metrics().rejected_total == 0
    with pytest.raises(RoomFull):
        hub.can_join("chat")
    joined(hub, "news", 1)
    with pytest.raises(HubFull):
        hub.can_join("sport")
    with pytest.raises(InvalidRoomName):
        hub.can_join("")
    await hub.shutdown(0)
    with pytest.raises(HubStopped):
        hub.can_join("sport")
    assert hub.metrics().rejected_total == 4
    assert hub.metrics().accepted_total == 2


async def test_the_repr_says_what_one_wants_to_know():
    hub = Hub()
    joined(hub, "chat", 2)
    assert repr(hub) == "<plumews.Hub running rooms=1 connections=2>"
    await hub.shutdown(0)
    assert repr(hub) == "<plumews.Hub stopped rooms=0 connections=0>"


# --- what is sent ---------------------------------------------------------------------------------


async def test_a_broadcast_reaches_the_members_of_its_room_and_nobody_else(start):
    hub = Hub()
    async with crowd(start, 3) as (conns, wires):
        hub.join("chat", conns[0])
        hub.join("chat", conns[1])
        hub.join("news", conns[2])
        assert hub.broadcast_room("chat", "hello") == BroadcastResult(matched=2, queued=2)
        hub.broadcast_room("news", "other")
        assert [await wire.message() for wire in wires] == ["hello", "hello", "other"]


async def test_broadcast_all_reaches_every_member_of_any_room_once_each(start):
    hub = Hub()
    async with crowd(start, 3) as (conns, wires):
        for room in ("a", "b", "c"):
            hub.join(room, conns[0])
        hub.join("b", conns[1])
        assert hub.broadcast_all("System Announcement").matched == 2
        hub.join("a", conns[2])
        hub.broadcast_all("end")
        assert await messages(wires[0], 2) == await messages(wires[1], 2) == ["System Announcement", "end"]
        assert await wires[2].message() == "end"


async def test_a_room_without_members_is_no_error():
    hub = Hub()
    assert hub.broadcast_room("nowhere", "x") == BroadcastResult()
    assert hub.broadcast_all("x") == BroadcastResult()
    assert await hub.publish("nowhere", "x") == BroadcastResult()
    assert not hub.broadcast_room("nowhere", "x").rejected
    assert hub.metrics().broadcasts_total == 4


@pytest.mark.parametrize(
    ("data", "opcode", "event"),
    [
        ("grüße", None, (Opcode.TEXT, "grüße")),
        (b"\xff\x00", None, (Opcode.BINARY, b"\xff\x00")),
        (bytearray(b"ab"), None, (Opcode.BINARY, b"ab")),
        (memoryview(b"abcd")[::2], None, (Opcode.BINARY, b"ac")),
        ("grüße", Opcode.BINARY, (Opcode.BINARY, "grüße".encode())),
        ("grüße".encode(), Opcode.TEXT, (Opcode.TEXT, "grüße")),
        ("", None, (Opcode.TEXT, "")),
        (bytes(200_000), None, (Opcode.BINARY, bytes(200_000))),
    ],
    ids=["str", "bytes", "bytearray", "strided view", "str as binary", "bytes as text", "empty", "in fragments"],
)
async def test_text_and_binary_arrive_as_what_they_are(start, data, opcode, event):
    hub = Hub()
    async with crowd(start, 1) as (conns, (wire,)):
        hub.join("chat", conns[0])
        hub.broadcast_room("chat", data, opcode)
        assert await wire.event() == event


@pytest.mark.parametrize("opcode", [0, 3, 8, 9, 10, 16, -1], ids=str)
async def test_section_8_point_10_an_opcode_that_is_no_message_is_refused(opcode):
    hub = Hub()
    joined(hub, "chat", 1)
    with pytest.raises(ValueError, match=r"must be TEXT \(1\) or BINARY \(2\), not"):
        hub.broadcast_room("chat", "x", opcode)
    with pytest.raises(ValueError, match="must be TEXT"):
        hub.broadcast_all("x", opcode)
    with pytest.raises(ValueError, match="must be TEXT"):
        await hub.publish("chat", "x", opcode)
    assert hub.metrics().broadcast_matched == 0


@pytest.mark.parametrize("data", [None, 7, {"a": 1}, ["x"]], ids=lambda data: type(data).__name__)
async def test_data_that_is_no_message_is_a_type_error(data):
    hub = Hub()
    joined(hub, "chat", 1)
    with pytest.raises(TypeError, match="a message must be str or bytes-like, not"):
        hub.broadcast_room("chat", data)


async def test_bytes_that_are_not_utf_8_cannot_be_broadcast_as_text():
    hub = Hub()
    _, (transport,) = joined(hub, "chat", 1)
    with pytest.raises(ValueError, match="utf-8"):
        hub.broadcast_room("chat", b"\xff", Opcode.TEXT)
    await ticks()
    assert transport.writes == []


async def test_section_8_point_10_data_that_the_caller_changes_afterwards_was_copied(start, sliced):
    hub = Hub()
    joined(hub, "chat", 200)
    async with crowd(start, 1) as (conns, (wire,)):
        hub.join("chat", conns[0])
        small, large = bytearray(b"before"), bytearray(b"before" * 10_000)
        assert hub.broadcast_room("chat", small).pending
        hub.broadcast_room("chat", memoryview(large))
        small[:] = b"after!"
        large[:6] = b"after!"
        assert await messages(wire, 2) == [b"before", b"before" * 10_000]


async def test_a_room_that_is_none_is_not_everybody():
    hub = Hub()
    _, (transport,) = joined(hub, "chat", 1)
    assert hub.broadcast_room(None, "secret").invalid  # type: ignore[arg-type]
    await ticks()
    assert transport.writes == []
    assert hub.metrics().broadcasts_rejected == 1


async def test_a_room_name_outside_the_policy_is_invalid():
    hub = Hub()
    joined(hub, "chat", 1)
    for result in (hub.broadcast_room("", "x"), await hub.publish("x" * 129, "x")):
        assert result == BroadcastResult(invalid=True)
        assert result.rejected
    assert hub.metrics().broadcasts_rejected == 2
    assert adds_up(hub.metrics())


async def test_the_sender_gets_its_own_message_unless_it_is_excluded(start):
    hub = Hub()
    echo = True

    def relay(conn: plumews.Conn, message: str | bytes) -> None:
        hub.broadcast_room("chat", message, exclude=None if echo else conn)

    async with crowd(start, 2, on_message=relay) as (conns, (one, two)):
        for conn in conns:
            hub.join("chat", conn)
        one.send(text("to all"))
        assert await one.message() == await two.message() == "to all"
        echo = False
        one.send(text("to others"))
        two.send(text("to others as well"))
        assert await two.message() == "to others"
        assert await one.message() == "to others as well"


async def test_excluding_somebody_who_is_not_there_changes_nothing():
    hub = Hub()
    conns, _ = joined(hub, "chat", 2)
    (elsewhere,), _ = joined(hub, "news", 1)
    stranger, _ = fake_conn()
    assert hub.broadcast_room("chat", "x", exclude=elsewhere).matched == 2
    assert hub.broadcast_all("x", exclude=stranger).matched == 3
    assert hub.broadcast_all("x", exclude=conns[0]).matched == 2
    assert hub.broadcast_room("news", "x", exclude=elsewhere) == BroadcastResult()


async def test_only_a_connection_can_be_excluded_and_who_wants_more_is_told_how():
    hub = Hub()
    (conn,), transports = joined(hub, "chat", 1)
    for wrong in ([conn], "conn", conn.id):
        with pytest.raises(TypeError, match=r"exclude must be a Conn or None, not .*: for several use where"):
            hub.broadcast_room("chat", "x", exclude=wrong)
    await ticks()
    assert transports[0].events() == []


def test_a_hub_without_an_event_loop_says_where_it_is_used():
    with pytest.raises(RuntimeError, match="no running event loop: a hub is used in coroutines and callbacks"):
        Hub().broadcast_room("chat", "x")


async def test_all_members_share_the_bytes_of_one_frame():
    hub = Hub()
    _, transports = joined(hub, "chat", 20)
    hub.broadcast_room("chat", "x" * 1000)
    await ticks()
    assert len({id(transport.writes[0]) for transport in transports}) == 1


# --- order ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 4, 16])
async def test_section_8_point_5_each_room_keeps_the_order_of_the_calls_with_any_number_of_workers(start, workers):
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


async def test_section_8_point_5_an_order_that_holds_while_every_fan_out_is_sliced(sliced):
    hub = Hub(16, 4096)
    rooms = [f"room {number}" for number in range(5)]
    members = {room: joined(hub, room, 150)[1] for room in rooms}
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
        for transport in members[room]:
            assert texts(transport.wire) == [*numbers[room], "end"]


async def test_broadcast_all_stands_between_what_was_called_before_and_after(sliced):
    hub = Hub(4)
    _, one = joined(hub, "room 1", 150)
    _, two = joined(hub, "room 2", 300)
    for number in range(10):
        hub.broadcast_room("room 1", f"{number}: one")
        hub.broadcast_room("room 2", f"{number}: two")
        hub.broadcast_all(f"{number}: all")
    result = await hub.publish(None, "end")
    assert result == BroadcastResult(matched=450, queued=450)
    await ticks()
    for name, transports in (("one", one), ("two", two)):
        expected = [f"{number}: {what}" for number in range(10) for what in (name, "all")]
        assert all(texts(transport.wire) == [*expected, "end"] for transport in transports)


async def test_five_hundred_clients_of_one_room_get_two_hundred_broadcasts_complete_and_in_order(start):
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


# --- a long fan-out -------------------------------------------------------------------------------


async def test_a_ping_is_answered_in_the_middle_of_a_long_fan_out(start, sliced):
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


async def test_a_room_of_two_is_not_held_up_by_a_long_fan_out_to_another_room(sliced):
    hub = Hub(4)
    joined(hub, "large", 5000)
    large = hub._broadcaster.scheduler._queues_of("large")[0]
    small = next(name for name in map(str, range(100)) if hub._broadcaster.scheduler._queues_of(name)[0] is not large)
    joined(hub, small, 2)
    assert hub.broadcast_room("large", "x").pending
    assert hub.broadcast_room(small, "x") == BroadcastResult(matched=2, queued=2)


async def test_a_member_that_leaves_in_the_middle_is_skipped_and_one_that_joins_is_not_matched(sliced):
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
async def test_a_direct_send_does_not_overtake_a_broadcast_that_was_called_before(start, sliced, how):
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


async def test_closing_a_member_in_the_middle_puts_its_close_frame_behind_the_broadcast(start, sliced):
    hub = Hub()
    joined(hub, "chat", 300)
    async with crowd(start, 1) as (conns, (wire,)):
        hub.join("chat", conns[0])
        assert hub.broadcast_room("chat", "last words").pending
        conns[0].close_nowait(CloseCode.POLICY_VIOLATION, "enough")
        assert await wire.message() == "last words"
        assert await wire.closing() == (CloseCode.POLICY_VIOLATION, "enough")


async def test_direct_sends_to_all_members_while_many_broadcasts_wait_keep_every_order(sliced):
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


async def test_hundreds_of_waiting_broadcasts_hold_one_list_of_the_members(sliced):
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


# --- the job queue --------------------------------------------------------------------------------


async def test_a_full_job_queue_refuses_the_broadcast_and_counts_it_once(sliced):
    hub = Hub(1, 3)
    _, transports = joined(hub, "chat", 200)
    results = [hub.broadcast_room("chat", str(number)) for number in range(4)]
    assert [result.overloaded for result in results] == [False, False, False, True]
    assert results[3] == BroadcastResult(matched=200, dropped=200, overloaded=True)
    assert results[3].rejected
    metrics = hub.metrics()
    assert (metrics.broadcasts_total, metrics.broadcasts_rejected, metrics.broadcast_dropped) == (3, 1, 200)
    assert adds_up(metrics)
    await hub.publish("chat", "end")
    await ticks()
    assert all(texts(transport.wire) == ["0", "1", "2", "end"] for transport in transports)
    assert adds_up(hub.metrics())


async def test_a_burst_of_messages_in_one_read_is_not_lost_because_one_fan_out_was_sliced(monkeypatch):
    hub = Hub(1, 10)
    conns, transports = joined(hub, "chat", 200)

    def relay(conn: plumews.Conn, message: str | bytes) -> None:
        result = hub.broadcast_room("chat", message)
        assert not result.overloaded
        monkeypatch.setattr(limits, "FAN_OUT_SLICE", 60.0)  # the first was cut short, by a busy machine or whatever

    monkeypatch.setattr(limits, "FAN_OUT_SLICE", 0.0)
    failures: list[Exception] = []
    conns[0]._deliver_to(relay, lambda conn, exc: failures.append(exc))
    feed(conns[0], *(text(str(number)) for number in range(100)))
    while conns[0]._backlog:  # what the first, which was slow, has left for the next turn
        await ticks(1)
    await hub.publish("chat", "end")
    await ticks()
    assert failures == []
    expected = [*(str(number) for number in range(100)), "end"]
    assert all(texts(transport.wire) == expected for transport in transports)


async def test_a_room_without_members_needs_no_space_in_the_job_queue(sliced):
    hub = Hub(1, 2)
    joined(hub, "chat", 200)
    (alone,), _ = joined(hub, "alone", 1)
    assert hub.broadcast_room("chat", "x").pending
    assert hub.broadcast_room("nowhere", "x") == BroadcastResult()
    assert len(hub._broadcaster.scheduler) == 1
    assert hub.broadcast_room("chat", "x").pending
    assert hub.broadcast_room("nowhere", "x") == BroadcastResult()
    assert hub.broadcast_room("alone", "x", exclude=alone) == BroadcastResult()
    assert hub.broadcast_room("alone", "x").overloaded


async def test_publishing_waits_for_space_in_the_job_queue_and_counts_as_nothing_while_it_does(sliced):
    hub = Hub(1, 2)
    _, transports = joined(hub, "chat", 200)
    publishing = [asyncio.ensure_future(hub.publish("chat", str(number))) for number in range(20)]
    await asyncio.sleep(0)
    assert len(hub._broadcaster.scheduler) == 2
    assert await asyncio.gather(*publishing) == [BroadcastResult(matched=200, queued=200)] * 20
    metrics = hub.metrics()
    assert (metrics.broadcasts_total, metrics.broadcasts_rejected) == (20, 0)
    assert metrics.broadcast_matched == metrics.broadcast_queued == 4000
    await ticks()
    expected = [str(number) for number in range(20)]  # first come, first served
    assert all(texts(transport.wire) == expected for transport in transports)


async def test_who_publishes_when_space_is_free_again_does_not_overtake_those_who_wait_for_it(sliced):
    hub = Hub(1, 1)
    _, transports = joined(hub, "chat", 200)
    publishing = [asyncio.ensure_future(hub.publish("chat", str(number))) for number in range(3)]
    await asyncio.sleep(0)
    while len(hub._broadcaster.scheduler):
        await asyncio.sleep(0)
    await hub.publish("chat", "late")
    await asyncio.gather(*publishing)
    await ticks()
    assert all(texts(transport.wire) == ["0", "1", "2", "late"] for transport in transports)


async def test_publishers_that_give_up_while_they_wait_do_not_keep_the_others_waiting(sliced):
    hub = Hub(1, 1)
    _, transports = joined(hub, "chat", 200)
    publishing = [asyncio.ensure_future(hub.publish("chat", str(number))) for number in range(6)]
    await asyncio.sleep(0)
    for number in (1, 2, 4):
        publishing[number].cancel()
    results = await asyncio.gather(*publishing, return_exceptions=True)
    assert [isinstance(result, asyncio.CancelledError) for result in results] == [False, True, True, False, True, False]
    await ticks()
    assert all(texts(transport.wire) == ["0", "3", "5"] for transport in transports)


async def test_what_is_published_is_copied_before_it_waits(sliced):
    hub = Hub(1, 1)
    _, transports = joined(hub, "chat", 200)
    data = bytearray(b"before")
    hub.broadcast_room("chat", "first")
    publishing = asyncio.ensure_future(hub.publish("chat", data, Opcode.TEXT))
    await asyncio.sleep(0)
    data[:] = b"after!"
    await publishing
    await ticks()
    assert all(texts(transport.wire) == ["first", "before"] for transport in transports)


async def test_cancelling_a_publisher_does_not_take_the_broadcast_back(sliced):
    hub = Hub()
    _, transports = joined(hub, "chat", 200)
    publishing = asyncio.ensure_future(hub.publish("chat", "x"))
    await asyncio.sleep(0)
    publishing.cancel()
    await hub.publish("chat", "end")
    await ticks()
    assert all(texts(transport.wire) == ["x", "end"] for transport in transports)


# --- slow members ---------------------------------------------------------------------------------


async def test_a_block_member_that_never_reads_does_not_hold_up_the_others_and_costs_its_timeout_once(start):
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


async def test_a_block_member_that_reads_again_gets_what_waited_for_it_in_order(start):
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


async def test_a_full_drop_member_is_counted_and_stays(start):
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


async def test_a_full_close_member_is_closed_with_1013_and_leaves(start):
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


async def test_a_full_member_that_leaves_is_forgotten_when_its_timeout_is_over():
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


async def test_a_member_that_was_given_up_is_forgotten_when_it_leaves():
    hub = Hub()
    (conn,), (transport,) = joined(hub, "chat", 1, queue_size=1, send_timeout=0.02)
    transport.fill()
    hub.broadcast_room("chat", "fills")
    await hub.publish("chat", "given up")
    assert hub._slow.members
    conn.abort()
    await ticks()
    assert not hub._slow.members


# --- inside callbacks -----------------------------------------------------------------------------


async def test_a_broadcast_from_on_message_and_a_direct_answer_keep_their_order(start):
    hub = Hub()

    def answer(conn: plumews.Conn, message: str | bytes) -> None:
        conn.send_nowait(f"you said {message}")
        hub.broadcast_room("chat", f"somebody said {message}")
        conn.send_nowait(f"all heard {message}")

    async with crowd(start, 2, on_message=answer) as (conns, wires):
        for conn in conns:
            hub.join("chat", conn)
        wires[0].send(text("1"), text("2"))
        phrases = ("you said", "somebody said", "all heard")
        assert await messages(wires[0], 6) == [f"{phrase} {number}" for number in (1, 2) for phrase in phrases]
        assert await messages(wires[1], 2) == ["somebody said 1", "somebody said 2"]


async def test_a_broadcast_from_on_close_reaches_those_who_stay(start):
    hub = Hub()
    results: asyncio.Queue[BroadcastResult] = asyncio.Queue()

    def farewell(conn: plumews.Conn) -> None:
        results.put_nowait(hub.broadcast_room("chat", "somebody left"))

    async with crowd(start, 3, on_close=farewell) as (conns, wires):
        for conn in conns:
            hub.join("chat", conn)
        wires[0].reset()
        result = await results.get()
        assert result.queued == 2
        assert adds_up(result)
        assert await wires[1].message() == await wires[2].message() == "somebody left"
        assert hub.members("chat") == conns[1:]


async def test_joining_leaving_and_closing_others_from_on_message(start):
    hub = Hub()

    def obey(conn: plumews.Conn, message: str | bytes) -> None:
        if message == "join":
            hub.join("chat", conn)
        elif message == "leave":
            hub.leave("chat", conn)
        elif message == "kick":
            for other in hub.members("chat"):
                other.close_nowait(CloseCode.POLICY_VIOLATION, "kicked")
        hub.broadcast_room("chat", f"{message}: {hub.room_count('chat')}")

    async with crowd(start, 2, on_message=obey) as (conns, wires):
        wires[0].send(text("join"), text("leave"), text("join"))
        assert await messages(wires[0], 2) == ["join: 1", "join: 1"]
        wires[1].send(text("join"), text("kick"))
        assert await messages(wires[0], 1) == ["join: 2"]
        assert await wires[0].closing() == (CloseCode.POLICY_VIOLATION, "kicked")
        assert await messages(wires[1], 1) == ["join: 2"]
        assert await wires[1].closing() == (CloseCode.POLICY_VIOLATION, "kicked")
        for wire, conn in zip(wires, conns, strict=True):
            wire.send(close(CloseCode.POLICY_VIOLATION))
            await conn.wait_closed()
        assert hub.rooms() == []
        assert adds_up(hub.metrics())


# --- threads and loops ----------------------------------------------------------------------------


def in_a_thread(function: Callable[[], Any]) -> concurrent.futures.Future[Any]:
    """Run ``function`` in a thread of its own."""
    future: concurrent.futures.Future[Any] = concurrent.futures.Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as exc:
            future.set_exception(exc)

    threading.Thread(target=run, daemon=True).start()
    return future


@pytest.mark.parametrize(
    "call",
    [
        lambda hub, conn: hub.join("news", conn),
        lambda hub, conn: hub.leave("chat", conn),
        lambda hub, conn: hub.remove(conn),
        lambda hub, conn: hub.broadcast_room("chat", "x"),
        lambda hub, conn: hub.broadcast_all("x"),
        lambda hub, conn: hub.watch_count("chat", print),
        lambda hub, conn: asyncio.run(hub.publish("chat", "x")),
        lambda hub, conn: asyncio.run(hub.stop()),
    ],
    ids=["join", "leave", "remove", "broadcast_room", "broadcast_all", "watch_count", "publish", "stop"],
)
async def test_another_thread_is_told_what_to_use_instead(call):
    hub = Hub()
    (conn,), _ = joined(hub, "chat", 1)
    with pytest.raises(ConcurrencyError, match=r"use hub\.publish_threadsafe"):
        await asyncio.wrap_future(in_a_thread(lambda: call(hub, conn)))
    assert hub.members("chat") == [conn]
    assert hub.metrics().broadcasts_total == 0
    assert repr(hub).startswith("<plumews.Hub running")


async def test_a_thread_publishes_and_its_order_holds(start):
    hub = Hub(16, 8)
    async with crowd(start, 2) as (conns, wires):
        for conn in conns:
            hub.join("chat", conn)

        def publish() -> list[BroadcastResult]:
            futures = [hub.publish_threadsafe("chat", str(number)) for number in range(300)]
            futures.append(hub.publish_threadsafe(None, bytearray(b"end"), Opcode.TEXT))
            return [future.result(30) for future in futures]

        results = asyncio.wrap_future(in_a_thread(publish))
        expected = [*(str(number) for number in range(300)), "end"]
        assert await messages(wires[0], 301) == await messages(wires[1], 301) == expected
        assert set(await results) == {BroadcastResult(matched=2, queued=2)}


async def test_a_thread_is_told_at_once_what_is_wrong_with_its_message():
    async with Hub() as hub:
        for arguments, error in (((7,), TypeError), (("x", 9), ValueError)):
            with pytest.raises(error):
                await asyncio.wrap_future(in_a_thread(lambda args=arguments: hub.publish_threadsafe("chat", *args)))


async def test_what_a_thread_publishes_is_copied_when_it_is_called():
    hub = Hub()
    _, (transport,) = joined(hub, "chat", 1)
    called = threading.Event()

    def publish() -> None:
        data = bytearray(b"before")
        hub.publish_threadsafe("chat", data, Opcode.TEXT)
        data[:] = b"after!"
        called.set()

    thread = in_a_thread(publish)
    assert called.wait(60)  # the loop stands still until the thread has changed its data
    await asyncio.wrap_future(thread)
    await hub.publish("chat", "end")
    await ticks()
    assert texts(transport.wire) == ["before", "end"]


def test_a_hub_without_a_loop_says_so_to_a_thread():
    with pytest.raises(RuntimeError, match="the hub is not running on an event loop"):
        Hub().publish_threadsafe("chat", "x")


def test_a_hub_may_be_made_before_the_loop_runs():
    hub = Hub(2, 8)

    async def main() -> list[str]:
        async with hub:
            _, transports = joined(hub, "chat", 100)
            await asyncio.gather(*(hub.publish("chat", str(number)) for number in range(20)))
            await ticks()
            for transport in transports:
                transport.abort()
            return texts(transports[-1].wire)

    assert asyncio.run(main()) == [str(number) for number in range(20)]


def test_a_hub_whose_loop_is_closed_says_so():
    hub = Hub()

    async def broadcast() -> BroadcastResult:
        return hub.broadcast_room("chat", "x")

    asyncio.run(broadcast())
    with pytest.raises(ConcurrencyError, match="the event loop of this hub is closed: make a hub for each loop"):
        asyncio.run(broadcast())
    with pytest.raises(RuntimeError, match="the hub is not running on an event loop"):
        hub.publish_threadsafe("chat", "x")


def test_a_connection_of_another_loop_cannot_join():
    hub = Hub()

    async def make() -> plumews.Conn:
        return fake_conn(ping_interval=None)[0]

    async def join(conn: plumews.Conn) -> None:
        hub.join("chat", conn)

    conn = asyncio.run(make())
    with pytest.raises(ConcurrencyError, match="the connection belongs to another event loop than the hub"):
        asyncio.run(join(conn))
    assert hub.rooms() == []
