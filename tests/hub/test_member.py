"""Members that are no connection: joins, deliveries, history, closing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from typing import Any

import pytest

import plumews
from plumews import (
    BroadcastResult,
    CloseCode,
    ConnectionClosed,
    HistoryLimits,
    Hub,
    HubConfig,
    Opcode,
    Position,
    SendBehavior,
    State,
    UserInfo,
    limits,
)
from plumews.hub import Member
from support.fakes import failures, fake_conn, pass_time, ticks, until
from support.members import PlainMember, adds_up, joined, plain_member, texts

_: Member = PlainMember()  # for a type checker


def members(hub: Hub, count: int, *rooms: str) -> list[PlainMember]:
    return [plain_member(hub, *rooms) for _ in range(count)]


# --- joining --------------------------------------------------------------------------------------


class Incomplete:
    id = 1

    async def close(self, code: int, reason: str) -> None: ...

    def try_queue(self, message: str | bytes, key: Hashable) -> bool:
        return True


async def test_join_names_what_an_object_lacks():
    hub = Hub()
    with pytest.raises(TypeError) as refused:
        hub.join("room", Incomplete())  # type: ignore[arg-type]
    assert str(refused.value) == (
        "a member must be a Conn, not Incomplete, or keep plumews.hub.Member: it has no user_info, no can_queue(), "
        "a coroutine function as close(), no add_close_callback()"
    )
    assert hub.rooms() == []


@pytest.mark.parametrize(
    ("attribute", "value", "fault"),
    [("user_info", "ann", "a user_info that is no plumews.UserInfo"), ("__hash__", None, "no __hash__")],
)
async def test_join_refuses_a_wrong_attribute(attribute, value, fault):
    hub = Hub()
    member = type("Wrong", (PlainMember,), {})()
    setattr(type(member) if attribute == "__hash__" else member, attribute, value)
    with pytest.raises(TypeError, match=fault):
        hub.join("room", member)
    assert hub.rooms() == []


async def test_join_of_an_ended_member_raises_connection_closed():
    hub = Hub()
    events: list[str] = []
    hub.on_join(lambda room, conn: events.append("join"))
    hub.on_leave(lambda room, conn: events.append("leave"))
    member = PlainMember()
    member.end()
    with pytest.raises(ConnectionClosed):
        hub.join("room", member)
    assert (hub.rooms(), hub.metrics().rejected_by["connection_closed"], events) == ([], 1, [])


async def test_join_that_fails_to_add_a_callback_changes_nothing():
    class Failing(PlainMember):
        def add_close_callback(self, callback: Callable[[Any], object]) -> None:
            raise OSError("no memory")

    hub = Hub()
    with pytest.raises(OSError, match="no memory"):
        hub.join("room", Failing())
    assert (hub.rooms(), hub.connection_count()) == ([], 0)


async def test_member_leaves_when_it_ends():
    hub = Hub()
    left: list[tuple[str, object]] = []
    hub.on_leave(lambda room, conn: left.append((room, conn)))
    member = plain_member(hub, "a", "b")
    assert hub.members("a") == [member]
    assert hub.rooms_of(member) == ["a", "b"]
    member.end()
    assert left == [("a", member), ("b", member)]
    assert (hub.connection_count(), len(hub._slow.others)) == (0, 0)


async def test_member_that_left_is_not_removed_again():
    hub = Hub()
    member = plain_member(hub)
    hub.remove(member)
    hub.join("room", member)
    hub.leave("room", member)
    member.end()
    assert hub.connection_count() == 0


# --- deliveries -----------------------------------------------------------------------------------


async def test_member_gets_messages_as_they_were_given():
    hub = Hub()
    member = plain_member(hub)
    hub.broadcast_room("room", "text \u00e4")
    hub.broadcast_room("room", b"\x00\xff")
    hub.broadcast_all(b"as text", Opcode.TEXT)
    assert hub.broadcast_room("room", "x" * 200_000) == BroadcastResult(matched=1, queued=1)
    assert member.messages == ["text \u00e4", b"\x00\xff", "as text", "x" * 200_000]


async def test_member_gets_the_room_and_key_of_a_broadcast():
    hub = Hub()
    member = plain_member(hub, "a", "b")
    hub.broadcast_room("a", "1", key="price")
    hub.broadcast_room(["a", "b"], "2", key=("price", 1))
    hub.broadcast_all("3", key=7)
    hub.broadcast_room("b", "4")
    assert member.keys == [("a", "price"), (frozenset("ab"), ("price", 1)), (None, 7), None]
    assert type(member.keys[1][1]) is tuple  # type: ignore[index]


async def test_message_is_decoded_once_for_all_members():
    hub = Hub()
    first, second = members(hub, 2)
    hub.broadcast_room("room", "x" * 1000)
    assert first.messages[0] is second.messages[0]


async def test_connections_and_members_share_a_room():
    hub = Hub()
    conns, transports = joined(hub, "room", 3)
    others = members(hub, 3)
    more, more_transports = joined(hub, "room", 3, send_behavior=SendBehavior.CONFLATE)
    for number in range(3):
        assert hub.broadcast_room("room", str(number), key="key") == BroadcastResult(matched=9, queued=9)
    await ticks()
    assert hub.members("room") == [*conns, *others, *more]
    assert [texts(transport.wire) for transport in transports] == [["0", "1", "2"]] * 3
    assert [texts(transport.wire)[-1] for transport in more_transports] == ["2"] * 3
    assert [member.messages for member in others] == [["0", "1", "2"]] * 3


async def test_fan_out_in_slices_reaches_members_and_connections(sliced):
    hub = Hub()
    others, transports = [], []
    for _ in range(100):
        others += members(hub, 2)
        transports += joined(hub, "room", 1)[1]
    assert hub.broadcast_room("room", "hello", exclude=others[1]).pending
    hub.leave("room", others[198])
    late = plain_member(hub)
    await hub._broadcaster.scheduler.idle()
    await ticks()
    missed = [member for member in [*others, late] if member.messages != ["hello"]]
    assert missed == [others[1], others[198], late]
    assert [texts(transport.wire) for transport in transports] == [["hello"]] * 100
    metrics = hub.metrics()
    assert (metrics.broadcast_queued, metrics.broadcast_skipped) == (298, 1)
    assert adds_up(metrics)


async def test_fan_out_reads_the_clock_after_each_member(sliced):
    hub = Hub()
    members(hub, 3)
    assert hub.broadcast_room("room", "x").queued == 1


async def test_where_and_exclude_select_members():
    hub = Hub()
    ann, bob, eve = (plain_member(hub, user=name) for name in ("ann", "bob", "eve"))
    hub.broadcast_room("room", "not for ann", exclude=ann)
    hub.broadcast_room("room", "for bob", where=lambda member: member is bob)
    assert await hub.publish("room", "not for eve", exclude=eve) == BroadcastResult(matched=2, queued=2)
    assert [member.messages for member in (ann, bob, eve)] == [
        ["not for eve"],
        ["not for ann", "for bob", "not for eve"],
        ["not for ann"],
    ]


async def test_send_to_user_reaches_members_and_connections():
    hub = Hub()
    phone, _, other = plain_member(hub, user="ann"), plain_member(hub, user="bob"), plain_member(hub, user="ann")
    conn, transport = fake_conn(ping_interval=None)
    conn.user_info = UserInfo("ann")
    hub.join("room", conn)
    assert hub.connections_of("ann") == [phone, other, conn]
    assert hub.send_to_user("ann", "hello", exclude=other) == BroadcastResult(matched=2, queued=2)
    await ticks()
    assert (phone.messages, other.messages, texts(transport.wire)) == (["hello"], [], ["hello"])


async def test_send_to_user_does_not_overtake_a_broadcast(sliced):
    hub = Hub()
    members(hub, 200)
    member = plain_member(hub, user="ann")
    assert hub.broadcast_room("room", "first").pending
    hub.send_to_user("ann", "second")
    await hub._broadcaster.scheduler.idle()
    assert member.messages == ["first", "second"]
    assert adds_up(hub.metrics())


async def test_disconnect_user_does_not_overtake_a_broadcast(sliced):
    hub = Hub()
    members(hub, 200)
    member = plain_member(hub, user="ann")
    assert hub.broadcast_room("room", "first").pending
    assert hub.disconnect_user("ann") == 1
    assert (member.messages, member.ended) == (["first"], True)
    await hub._broadcaster.scheduler.idle()
    assert adds_up(hub.metrics())


async def test_failing_member_drops_and_harms_no_other():
    class Failing(PlainMember):
        def try_queue(self, message: str | bytes, key: Hashable) -> bool:
            raise OSError("broken")

    hub = Hub()
    failing = Failing()
    hub.join("room", failing)
    member = plain_member(hub)
    with failures() as reported:
        assert hub.broadcast_room("room", "x") == BroadcastResult(matched=2, queued=1, dropped=1)
    assert [each["message"] for each in reported] == ["a member of a hub failed"]
    assert member.messages == ["x"]


async def test_member_that_broadcasts_within_a_broadcast_is_refused():
    class Chatty(PlainMember):
        def try_queue(self, message: str | bytes, key: Hashable) -> bool:
            hub.broadcast_room("room", "again")
            return True

    hub = Hub()
    hub.join("room", Chatty())
    member = plain_member(hub)
    with failures() as reported:
        hub.broadcast_room("room", "x")
    assert "a member must not broadcast" in str(reported[0]["exception"])
    assert member.messages == ["x"]


@pytest.mark.parametrize("change", ["join", "leave", "end"])
async def test_event_of_a_member_that_is_asked_may_publish(change):
    class Changing(PlainMember):
        def try_queue(self, message: str | bytes, key: Hashable) -> bool:
            if message == "x":
                {"join": lambda: hub.join("b", self), "leave": lambda: hub.remove(self), "end": self.end}[change]()
            return super().try_queue(message, key)

    hub = Hub()
    first, changing = plain_member(hub, "a"), Changing()
    hub.join("a", changing)
    last = plain_member(hub, "a")
    for event in hub.on_join, hub.on_leave:
        event(lambda room, member: hub.broadcast_room("a", f"{room} {member is changing}"))
    with failures() as reported:
        hub.broadcast_room("a", "x")
        assert last.messages == ["x"]
        await ticks()
    said = "b True" if change == "join" else "a True"
    assert (first.messages, last.messages, reported) == (["x", said], ["x", said], [])


async def test_direct_sends_of_a_member_repeat_no_broadcast(sliced):
    class Sending(PlainMember):
        def try_queue(self, message: str | bytes, key: Hashable) -> bool:
            for conn in conns[70], conns[120]:
                conn.send_nowait("direct")
            return True

    hub = Hub()
    conns, transports = joined(hub, "room", 100)
    hub.join("room", Sending())
    more, more_transports = joined(hub, "room", 50)
    conns += more
    transports += more_transports
    assert await hub.publish("room", "hello") == BroadcastResult(matched=151, queued=151)
    await ticks()
    received = [texts(transport.wire) for transport in transports]
    assert received == [["hello", "direct"] if index in (70, 120) else ["hello"] for index in range(150)]


async def test_member_may_end_others_within_a_delivery():
    class Ending(PlainMember):
        def try_queue(self, message: str | bytes, key: Hashable) -> bool:
            others[0].end()
            hub.remove(others[1])
            conn.abort()
            return True

    hub = Hub()
    hub.join("room", Ending())
    others = members(hub, 3)
    (conn,), _ = joined(hub, "room", 1)
    assert hub.broadcast_room("room", "x") == BroadcastResult(matched=5, queued=2, skipped=3)
    assert [member.messages for member in others] == [[], [], ["x"]]


# --- history --------------------------------------------------------------------------------------

BEGIN = Position("", 0)


def remembering() -> Hub:
    hub = Hub(HubConfig(history=HistoryLimits()))
    for line in "abc":
        hub.broadcast_room("room", line)
    return hub


async def test_recover_queues_missed_messages():
    hub = remembering()
    member = PlainMember()
    recovery = hub.recover("room", member, BEGIN, encode_recovered=lambda recovery: f"{recovery.messages} missed")
    assert (recovery.complete, recovery.messages) == (True, 3)
    hub.broadcast_room("room", "d")
    assert member.messages == ["3 missed", *"abcd"]
    with pytest.raises(ValueError, match="in this room already"):
        hub.recover("room", member, BEGIN)


async def test_recover_counts_messages_without_space_as_dropped():
    hub = remembering()
    member = PlainMember(space=3)
    recovery = hub.recover("room", member, BEGIN, encode_recovered=lambda recovery: b"%d" % recovery.messages)
    assert (recovery.complete, recovery.messages) == (False, 2)
    assert member.messages == [b"2", "a", "b"]
    assert hub.inspect(member).dropped_messages == 1


async def test_recover_returns_the_messages_that_were_taken():
    class Optimist(PlainMember):
        def can_queue(self, size: int, count: int) -> bool:
            return True

        def try_queue(self, message: str | bytes, key: Hashable) -> bool:
            return len(self.messages) < self.space and not self.messages.append(message)

    hub = remembering()
    member = Optimist(space=1)
    assert hub.recover("room", member, BEGIN).messages == 1
    assert hub.inspect(member).dropped_messages == 2
    late = Optimist(space=0)
    assert hub.recover("room", late, BEGIN, encode_recovered=lambda recovery: "event").messages == 0
    assert hub.inspect(late).dropped_messages == 4


async def test_recover_that_fails_leaves_no_member():
    hub = remembering()
    member = PlainMember()
    with pytest.raises(TypeError, match="a message must be str or bytes-like"):
        hub.recover("room", member, BEGIN, encode_recovered=lambda recovery: 7)  # type: ignore[arg-type, return-value]
    assert (hub.rooms(), member.messages) == ([], [])


async def test_recover_after_a_leave_repeats_no_broadcast(sliced):
    hub = remembering()
    everyone = members(hub, 200)
    before = hub.position("room")
    assert before is not None
    assert hub.broadcast_room("room", "d").pending
    hub.leave("room", everyone[-1])
    hub.recover("room", everyone[-1], before)
    await hub._broadcaster.scheduler.idle()
    assert everyone[-1].messages == ["d"]
    assert adds_up(hub.metrics())


# --- presence, inspection, closing ----------------------------------------------------------------


async def test_presence_counts_members_by_user():
    hub = Hub()
    plain_member(hub, user="ann")
    plain_member(hub, user="ann")
    plain_member(hub)
    presence = hub.presence("room")
    assert [(user.id, user.connections) for user in presence.users] == [("ann", 2)]
    assert presence.anonymous == 1


async def test_inspect_returns_the_known_attributes():
    hub = Hub()
    member = plain_member(hub, "a", "b", user="ann")
    info = hub.inspect(member)
    assert (info.id, info.user_id, info.rooms, info.dropped_messages) == (member.id, "ann", ("a", "b"), 0)
    assert (info.state, info.send_behavior, info.queued_messages) == (State.OPEN, SendBehavior.DROP, 0)
    assert hub.inspect(PlainMember()).since is None
    assert hub.inspect_room("a").members == 1
    assert hub.metrics().active_connections == 1


async def test_disconnect_user_closes_members():
    hub = Hub()
    member = plain_member(hub, user="ann")
    assert hub.disconnect_user("ann", 4000, "go") == 1
    assert member.closed == (4000, "go")
    assert hub.connection_count() == 0


async def test_shutdown_closes_members_and_connections():
    hub = Hub()
    others = members(hub, 3)
    joined(hub, "room", 2, close_timeout=0.01)
    stopping = asyncio.ensure_future(hub.shutdown(1, spread=0, restart=True))
    await until(lambda: all(member.ended for member in others))
    assert all(member.closed is not None and member.closed[0] == CloseCode.SERVICE_RESTART for member in others)
    assert all(member.closed is not None and member.closed[1].startswith("reconnect in") for member in others)
    pass_time(2)
    report = await stopping
    assert (report.closed, report.aborted) == (3, 2)


async def test_shutdown_closes_members_behind_broadcasts(monkeypatch, sliced):
    monkeypatch.setattr(limits, "SETTLE_SHARE", 0.0)  # no time for the broadcasts before the close
    hub = Hub()
    others = members(hub, 1000)
    assert hub.broadcast_room("room", "x").pending
    await hub.shutdown(10, spread=0)
    assert all(member.messages == ["x"] and member.ended for member in others)
    assert adds_up(hub.metrics())


async def test_shutdown_gives_up_members_that_do_not_close():
    hub = Hub()
    left: list[object] = []
    hub.on_leave(lambda room, conn: left.append(conn))
    member = plain_member(hub)
    member.lingers = True
    report = await hub.shutdown(0.01)
    assert (report.closed, report.aborted) == (0, 1)
    assert (left, hub.connection_count()) == ([member], 0)


async def test_delivery_that_fails_closes_the_member(monkeypatch):
    hub = Hub()
    member, other = plain_member(hub), plain_member(hub)
    with failures() as reported:
        hub._slow.others.fail(member, MemoryError())
    assert [each["message"] for each in reported] == ["a delivery failed"]
    assert member.closed == (CloseCode.INTERNAL_ERROR, "")
    assert hub.members("room") == [other]


async def test_event_of_a_failed_delivery_waits_for_the_broadcast():
    class Failing(PlainMember):
        def try_queue(self, message: str | bytes, key: Hashable) -> bool:
            raise SystemExit

    hub = Hub()
    hub.join("room", Failing())
    member = plain_member(hub)
    hub.on_leave(lambda room, conn: hub.broadcast_room("room", "left"))
    with failures() as reported:
        hub.broadcast_room("room", "x")
    await ticks()
    assert [each["message"] for each in reported] == ["a delivery failed"]
    assert member.messages == ["x", "left"]


async def test_hub_without_plain_members_fans_out_to_connections_only():
    hub = Hub()
    member = plain_member(hub)
    joined(hub, "room", 1)
    assert len(hub._slow.others) == 1
    hub.remove(member)
    assert len(hub._slow.others) == 0
    assert isinstance(hub.members("room")[0], plumews.Conn)
    assert hub.broadcast_room("room", "x").queued == 1
