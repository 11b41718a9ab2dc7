"""Tests of membership: joins, leaves and their events."""

from __future__ import annotations

import asyncio

import pytest

import plumews
from plumews import (
    BroadcastResult,
    Hub,
    HubConfig,
    RoomFull,
    UserInfo,
)
from support.fakes import failures, fake_conn, ticks
from support.members import PlainMember, adds_up, crowd, joined, plain_members
from support.raw_client import close

# --- rooms ----------------------------------------------------------------------------------------


async def test_rooms_follow_joins_and_leaves():
    hub = Hub(4, 1024)
    ann, bob, cid = plain_members(hub, "chat", 3)
    hub.join("news", ann)
    assert sorted(hub.rooms()) == ["chat", "news"]
    assert hub.members("chat") == [ann, bob, cid]
    assert hub.rooms_of(ann) == ["chat", "news"]
    assert (hub.room_count("chat"), hub.room_count("news"), hub.room_count("nowhere")) == (3, 1, 0)
    assert hub.total_count() == 4
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


async def test_leave_of_non_member_is_harmless():
    hub = Hub()
    (ann,) = plain_members(hub, "chat", 1)
    stranger = PlainMember()
    hub.leave("chat", stranger)
    hub.leave("nowhere", ann)
    hub.remove(stranger)
    hub.leave("chat", ann)
    hub.leave("chat", ann)
    hub.remove(ann)
    assert (hub.total_count(), hub.rooms()) == (0, [])


async def test_members_returns_a_copy():
    hub = Hub()
    plain_members(hub, "chat", 2)
    hub.members("chat").clear()
    hub.rooms().clear()
    assert hub.room_count("chat") == 2


async def test_closed_connection_leaves_all_rooms(start):
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


async def test_thousand_joins_and_leaves_leave_nothing_behind():
    hub = Hub()
    conn, _ = fake_conn()
    callbacks = len(conn._close_callbacks or ())
    for number in range(1000):
        hub.join("chat", conn)
        hub.join(f"room {number}", conn)
        hub.leave("chat", conn)
        hub.remove(conn)
    assert len(conn._close_callbacks or ()) == callbacks
    assert hub.rooms() == []
    assert not hub._rooms._snapshots


async def test_connection_may_be_member_of_two_hubs():
    one, two = Hub(), Hub()
    conn = PlainMember()
    one.join("chat", conn)
    two.join("chat", conn)
    one.broadcast_room("chat", "one")
    two.broadcast_room("chat", "two")
    one.remove(conn)
    assert one.broadcast_room("chat", "gone").matched == 0
    two.broadcast_room("chat", "still")
    await ticks()
    assert conn.messages == ["one", "two", "still"]
    conn.end()
    await ticks()
    assert two.rooms() == []


# --- events ---------------------------------------------------------------------------------------


class Heard:
    """Record of the joins and leaves of a hub, as ``"+chat"`` and ``"-chat"`` for each connection."""

    def __init__(self, hub: Hub) -> None:
        self.calls: list[tuple[str, plumews.Conn]] = []
        self.ends = [
            hub.on_join(lambda room, conn: self.calls.append((f"+{room}", conn))),
            hub.on_leave(lambda room, conn: self.calls.append((f"-{room}", conn))),
        ]

    def names(self) -> list[str]:
        return [name for name, _ in self.calls]


async def test_joins_and_leaves_are_reported_once():
    hub = Hub(HubConfig(max_room_connections=1))
    heard = Heard(hub)
    (ann,) = plain_members(hub, "chat", 1)
    hub.join("chat", ann)
    hub.join("news", ann)
    with pytest.raises(RoomFull):
        hub.join("chat", PlainMember())
    hub.leave("chat", ann)
    hub.leave("chat", ann)
    hub.remove(ann)
    hub.remove(ann)
    assert heard.calls == [("+chat", ann), ("+news", ann), ("-chat", ann), ("-news", ann)]


async def test_lost_connection_is_reported_for_each_room(start):
    hub = Hub()
    heard = Heard(hub)
    async with crowd(start, 2) as (conns, wires):
        for room in ("chat", "news"):
            hub.join(room, conns[0])
        hub.join("chat", conns[1])
        heard.calls.clear()
        wires[0].reset()
        await conns[0].wait_closed()
        assert heard.calls == [("-chat", conns[0]), ("-news", conns[0])]
        await hub.shutdown(0)
        assert heard.calls[2:] == [("-chat", conns[1])]


async def test_ended_callbacks_get_no_events():
    hub = Hub()
    heard = Heard(hub)
    for end in heard.ends:
        end()
        end()
    plain_members(hub, "chat", 1)
    assert heard.calls == []
    assert not hub._events.wanted("join")


async def test_callback_may_be_registered_before_the_loop_runs():
    hubs = await asyncio.to_thread(Hub)
    heard = Heard(hubs)
    plain_members(hubs, "chat", 1)
    assert heard.names() == ["+chat"]


async def test_failing_callback_does_not_undo_the_join():
    hub = Hub()

    def fail(room: str, conn: PlainMember) -> None:
        raise RuntimeError("not today")

    hub.on_join(fail)
    hub.on_leave(fail)
    heard = Heard(hub)
    with failures() as told:
        (ann,) = plain_members(hub, "chat", 1)
        assert hub.members("chat") == [ann]
        hub.leave("chat", ann)
    assert heard.names() == ["+chat", "-chat"]
    assert [str(failure["exception"]) for failure in told] == ["not today"] * 2


async def test_callback_finds_the_change_complete():
    hub = Hub()
    seen: list[object] = []

    def look(room: str, conn: PlainMember) -> None:
        users = [user.connections for user in hub.presence(room).users]
        seen.append((hub.room_count(room), hub.rooms_of(conn), users, len(hub.connections_of("ann"))))

    hub.on_join(look)
    hub.on_leave(look)
    conn = PlainMember()
    conn.user_info = UserInfo("ann")
    hub.join("chat", conn)
    hub.join("news", conn)
    hub.remove(conn)
    assert seen == [
        (1, ["chat"], [1], 1),
        (1, ["chat", "news"], [1], 1),
        (0, [], [], 0),
        (0, [], [], 0),
    ]


async def test_callbacks_get_nested_events_in_order():
    hub = Hub()

    def restless(room: str, conn: PlainMember) -> None:
        if room == "chat":
            hub.join("lounge", conn)
            hub.leave("chat", conn)

    def back(room: str, conn: PlainMember) -> None:
        if room == "chat":
            hub.join("news", conn)

    hub.on_join(restless)
    hub.on_leave(back)
    heard = Heard(hub)
    (conn,) = plain_members(hub, "chat", 1)
    assert heard.names() == ["+chat", "+lounge", "-chat", "+news"]
    assert hub.rooms_of(conn) == ["lounge", "news"]


async def test_callback_that_removes_each_member_empties_the_hub():
    hub = Hub(HubConfig(max_connections=1))
    hub.on_join(hub.leave)
    heard = Heard(hub)
    for _ in range(3):
        plain_members(hub, "chat", 1)
    assert hub.rooms() == []
    assert heard.names() == ["+chat", "-chat"] * 3


@pytest.mark.parametrize("how", ["close_nowait", "abort"])
async def test_callback_may_close_the_joining_and_other_members(how):
    hub = Hub()
    conns, _ = joined(hub, "chat", 3)
    hub.on_join(lambda room, conn: [getattr(other, how)() for other in hub.members(room)])
    heard = Heard(hub)
    (late,), _ = joined(hub, "chat", 1)
    assert hub.broadcast_room("chat", "x") == BroadcastResult(matched=4, skipped=4)
    for conn in (*conns, late):
        conn.abort()
    await ticks()
    assert hub.rooms() == []
    assert heard.names() == ["+chat", *["-chat"] * 4]


async def test_broadcasts_of_callbacks_reach_the_members():
    hub = Hub()
    conns = plain_members(hub, "chat", 1)
    hub.on_join(lambda room, conn: hub.broadcast_room(room, "somebody came"))
    hub.on_leave(lambda room, conn: hub.broadcast_room(room, "somebody went"))
    (bob,) = plain_members(hub, "chat", 1)
    bob.end()
    await ticks()
    assert conns[0].messages == ["somebody came", "somebody went"]
    assert adds_up(hub.metrics())
    hub.remove(conns[0])
    await ticks()
    assert hub.rooms() == []


async def test_coroutine_function_as_callback_is_refused():
    async def callback(room: str, conn: PlainMember) -> None: ...

    for register in (Hub().on_join, Hub().on_leave):
        with pytest.raises(TypeError, match="the callback must be a plain function"):
            register(callback)
