"""Tests of membership: joins, leaves, limits, refusals and their events."""

from __future__ import annotations

import asyncio

import pytest

import plumews
from plumews import (
    BroadcastResult,
    ConnectionClosed,
    Hub,
    HubConfig,
    HubFull,
    InvalidRoomName,
    RateLimited,
    RoomFull,
    UserInfo,
    errors,
)
from plumews.hub.membership import REASONS, reason_of
from support.fakes import failures, fake_conn, ticks, until
from support.members import adds_up, crowd, joined, texts


def stranger() -> plumews.Conn:
    return fake_conn(ping_interval=None)[0]


def state(hub: Hub) -> object:
    """Who is in the hub, and as whom."""
    rooms = {room: hub.members(room) for room in hub.rooms()}
    return rooms, hub.connection_count(), hub.total_count(), dict(hub._presence._users)


def tokens(hub: Hub) -> float:
    assert hub._members._bucket is not None
    return hub._members._bucket._tokens


# --- how fast -------------------------------------------------------------------------------------


async def test_more_new_connections_than_the_burst_are_refused_and_told_when_to_come_again():
    hub = Hub(HubConfig(accept_rate=0.1, accept_burst=2))
    joined(hub, "chat", 2)
    with pytest.raises(RateLimited, match=r"websocket join rate exceeded: 0\.1 new connections a second") as refused:
        hub.join("chat", stranger())
    assert 9 < refused.value.retry_after <= 10
    metrics = hub.metrics()
    assert (metrics.accepted_total, metrics.rejected_total, hub.room_count("chat")) == (2, 1, 2)


async def test_who_comes_again_when_it_was_told_to_is_let_in():
    hub = Hub(HubConfig(accept_rate=200, accept_burst=1))
    joined(hub, "chat", 1)
    conn = stranger()
    with pytest.raises(RateLimited) as refused:
        hub.join("chat", conn)
    loop = asyncio.get_running_loop()
    then = loop.time() + refused.value.retry_after
    await until(lambda: loop.time() >= then)
    hub.join("chat", conn)
    assert hub.room_count("chat") == 2


async def test_who_is_in_a_room_is_not_accepted_anew_in_the_next():
    hub = Hub(HubConfig(accept_rate=0.001, accept_burst=1))
    (conn,), _ = joined(hub, "chat", 1)
    for room in ("chat", "news", "sport"):
        hub.join(room, conn)
    hub.leave("chat", conn)
    hub.join("chat", conn)
    assert hub.total_count() == 3
    hub.remove(conn)
    with pytest.raises(RateLimited):
        hub.join("chat", conn)


async def test_a_join_that_is_refused_for_anything_else_takes_no_token():
    hub = Hub(HubConfig(accept_rate=0.001, accept_burst=4, max_connections=2, max_room_connections=1))
    joined(hub, "chat", 1)
    closed = stranger()
    closed.abort()
    for error, room, conn in (
        (RoomFull, "chat", stranger()),
        (InvalidRoomName, "", stranger()),
        (ConnectionClosed, "news", closed),
    ):
        with pytest.raises(error):
            hub.join(room, conn)
    with pytest.raises(RoomFull):
        hub.can_join("chat")
    hub.can_join("news")
    joined(hub, "news", 1)
    with pytest.raises(HubFull):
        hub.join("sport", stranger())
    assert tokens(hub) == pytest.approx(2, abs=0.01)


async def test_every_refused_join_leaves_everything_as_it_was():
    hub = Hub(HubConfig(accept_rate=0.001, accept_burst=1))
    (ann,), _ = joined(hub, "chat", 1)
    conn = stranger()
    conn.user_info = UserInfo("bob")
    callbacks = list(conn._close_callbacks)
    before, left = state(hub), tokens(hub)
    heard: list[object] = []
    hub.on_join(lambda room, conn: heard.append(conn))
    with pytest.raises(RateLimited):
        hub.join("chat", conn)
    ann.user_info = UserInfo("ann")
    with pytest.raises(InvalidRoomName):
        hub.join("", ann)
    assert state(hub) == before
    assert tokens(hub) == pytest.approx(left, abs=0.01)
    assert conn._close_callbacks == callbacks
    assert heard == []


async def test_can_join_says_that_nobody_new_is_let_in_now_and_counts_it():
    hub = Hub(HubConfig(accept_rate=0.001, accept_burst=1))
    hub.can_join("chat")
    hub.can_join("chat")
    joined(hub, "chat", 1)
    with pytest.raises(RateLimited):
        hub.can_join("chat")
    assert hub.metrics().rejected_total == 1


async def test_without_a_rate_everybody_is_let_in():
    hub = Hub()
    joined(hub, "chat", 500)
    assert hub.room_count("chat") == 500


# --- callbacks ------------------------------------------------------------------------------------


class Heard:
    """What ``on_join`` and ``on_leave`` tell: ``"+chat"`` and ``"-chat"`` for each connection."""

    def __init__(self, hub: Hub) -> None:
        self.calls: list[tuple[str, plumews.Conn]] = []
        self.ends = [
            hub.on_join(lambda room, conn: self.calls.append((f"+{room}", conn))),
            hub.on_leave(lambda room, conn: self.calls.append((f"-{room}", conn))),
        ]

    def names(self) -> list[str]:
        return [name for name, _ in self.calls]


async def test_joins_and_leaves_are_told_once_each_and_refused_or_repeated_ones_not():
    hub = Hub(HubConfig(max_room_connections=1))
    heard = Heard(hub)
    (ann,), _ = joined(hub, "chat", 1)
    hub.join("chat", ann)
    hub.join("news", ann)
    with pytest.raises(RoomFull):
        hub.join("chat", stranger())
    hub.leave("chat", ann)
    hub.leave("chat", ann)
    hub.remove(ann)
    hub.remove(ann)
    assert heard.calls == [("+chat", ann), ("+news", ann), ("-chat", ann), ("-news", ann)]


async def test_a_connection_that_is_gone_has_left_all_its_rooms(start):
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


async def test_who_has_ended_hears_nothing():
    hub = Hub()
    heard = Heard(hub)
    for end in heard.ends:
        end()
        end()
    joined(hub, "chat", 1)
    assert heard.calls == []
    assert not hub._events.wanted("join")


async def test_a_callback_may_be_given_before_the_loop_is_known():
    hubs = await asyncio.to_thread(Hub)
    heard = Heard(hubs)
    joined(hubs, "chat", 1)
    assert heard.names() == ["+chat"]


async def test_one_that_raises_is_reported_and_neither_the_join_nor_the_others_suffer():
    hub = Hub()

    def fail(room: str, conn: plumews.Conn) -> None:
        raise RuntimeError("not today")

    hub.on_join(fail)
    hub.on_leave(fail)
    heard = Heard(hub)
    with failures() as told:
        (ann,), _ = joined(hub, "chat", 1)
        assert hub.members("chat") == [ann]
        hub.leave("chat", ann)
    assert heard.names() == ["+chat", "-chat"]
    assert [str(failure["exception"]) for failure in told] == ["not today"] * 2


async def test_a_callback_finds_the_change_complete():
    hub = Hub()
    seen: list[object] = []

    def look(room: str, conn: plumews.Conn) -> None:
        users = [user.connections for user in hub.presence(room).users]
        seen.append((hub.room_count(room), hub.rooms_of(conn), users, len(hub.connections_of("ann"))))

    hub.on_join(look)
    hub.on_leave(look)
    conn = stranger()
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


async def test_every_callback_hears_everything_in_the_order_in_which_it_happened():
    hub = Hub()

    def restless(room: str, conn: plumews.Conn) -> None:
        if room == "chat":
            hub.join("lounge", conn)
            hub.leave("chat", conn)

    def back(room: str, conn: plumews.Conn) -> None:
        if room == "chat":
            hub.join("news", conn)

    hub.on_join(restless)
    hub.on_leave(back)
    heard = Heard(hub)
    (conn,), _ = joined(hub, "chat", 1)
    assert heard.names() == ["+chat", "+lounge", "-chat", "+news"]
    assert hub.rooms_of(conn) == ["lounge", "news"]


async def test_one_that_turns_everybody_away_leaves_an_empty_hub():
    hub = Hub(HubConfig(max_connections=1))
    hub.on_join(hub.leave)
    heard = Heard(hub)
    for _ in range(3):
        joined(hub, "chat", 1)
    assert hub.rooms() == []
    assert heard.names() == ["+chat", "-chat"] * 3


@pytest.mark.parametrize("how", ["close_nowait", "abort"])
async def test_one_that_closes_who_joins_or_everybody_else_harms_nobody(how):
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


async def test_what_is_published_on_joining_and_leaving_reaches_those_who_are_there():
    hub = Hub()
    conns, transports = joined(hub, "chat", 1)
    hub.on_join(lambda room, conn: hub.broadcast_room(room, "somebody came"))
    hub.on_leave(lambda room, conn: hub.broadcast_room(room, "somebody went"))
    (bob,), _ = joined(hub, "chat", 1)
    bob.abort()
    await ticks()
    assert texts(transports[0].wire) == ["somebody came", "somebody went"]
    assert adds_up(hub.metrics())
    hub.remove(conns[0])
    await ticks()
    assert hub.rooms() == []


async def test_a_coroutine_function_cannot_be_called_back():
    async def callback(room: str, conn: plumews.Conn) -> None: ...

    for register in (Hub().on_join, Hub().on_leave):
        with pytest.raises(TypeError, match="the callback must be a plain function"):
            register(callback)


# --- the policy of names --------------------------------------------------------------------------


@pytest.mark.parametrize("room", [None, 7, b"chat", ["chat"]], ids=repr)
async def test_a_policy_of_ones_own_is_asked_about_text_alone(room):
    def numbers(name: str) -> None:
        if not name.isdigit():
            raise InvalidRoomName("a room is a number here")

    hub = Hub(HubConfig(check_room_name=numbers))
    with pytest.raises(InvalidRoomName, match=f"it must be a str, not {type(room).__name__}"):
        hub.join(room, stranger())
    with pytest.raises(InvalidRoomName, match="a room is a number here"):
        hub.join("chat", stranger())
    hub.join("7", stranger())
    assert hub.broadcast_room(7, "x") == BroadcastResult(invalid=True)  # type: ignore[arg-type]
    assert hub.broadcast_room(["7", "chat"], "x") == BroadcastResult(invalid=True)
    assert hub.broadcast_room([7], "x") == BroadcastResult(invalid=True)  # type: ignore[list-item]


# --- reasons of refusals --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("refusal", "word"),
    [
        (errors.HubFull("x"), "hub_full"),
        (errors.RoomFull("x"), "room_full"),
        (errors.HubStopped("x"), "hub_stopped"),
        (errors.InvalidRoomName("x"), "invalid_room_name"),
        (errors.TooManyRooms("x"), "too_many_rooms"),
        (errors.ConnectionClosed(None, None), "connection_closed"),
        (errors.ConnectionClosedOK(None, None), "connection_closed"),
        (errors.ConnectionClosedError(None, None), "connection_closed"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_refusal_has_a_word(refusal, word):
    assert reason_of(refusal) == word
    assert word in REASONS


def test_every_exception_of_a_hub_is_a_reason():
    hub_errors = {
        thing for thing in vars(errors).values() if isinstance(thing, type) and issubclass(thing, errors.HubError)
    }
    words = {reason_of(cls("x")) for cls in hub_errors - {errors.HubError}}
    assert words == set(REASONS) - {"connection_closed"}
    assert len(REASONS) == len(hub_errors)  # less the one that is the root, and one for what is closed


def test_what_an_application_derives_makes_no_new_word():
    class Reserved(errors.InvalidRoomName):
        pass

    class Whim(errors.HubError):
        pass

    assert reason_of(Reserved("x")) == "invalid_room_name"
    assert reason_of(Whim("x")) == "other"
