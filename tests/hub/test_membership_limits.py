"""Tests of refused joins: limits, accept rate, room names, and the reasons by which they are counted."""

from __future__ import annotations

import asyncio

import pytest

from plumews import (
    BroadcastResult,
    ConnectionClosed,
    Hub,
    HubConfig,
    HubFull,
    HubStopped,
    InvalidRoomName,
    RateLimited,
    RoomFull,
    TooManyRooms,
    UserInfo,
    errors,
)
from plumews.hub.membership import REASONS, reason_of
from support.fakes import fake_conn, ticks, until
from support.members import PlainMember, joined, plain_members


def state(hub: Hub) -> object:
    """Return the members of the hub, its counts and its users."""
    rooms = {room: hub.members(room) for room in hub.rooms()}
    return rooms, hub.connection_count(), hub.total_count(), dict(hub._presence._users)


def tokens(hub: Hub) -> float:
    assert hub._members._bucket is not None
    return hub._members._bucket._tokens


# --- limits ---------------------------------------------------------------------------------------


async def test_join_beyond_limits_is_refused():
    hub = Hub(HubConfig(max_connections=3, max_room_connections=2, max_rooms_per_connection=2))
    ann, bob = plain_members(hub, "chat", 2)
    cid, dan = PlainMember(), PlainMember()
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
    hub.join("chat", cid)


async def test_limits_of_0_are_none():
    hub = Hub(HubConfig(max_connections=0, max_room_connections=0, max_rooms_per_connection=0))
    conns = plain_members(hub, "chat", 300)
    for number in range(150):
        hub.join(f"room {number}", conns[0])
    assert (hub.room_count("chat"), hub.total_count()) == (300, 450)


async def test_join_again_at_limits_counts_nothing():
    hub = Hub(HubConfig(max_connections=1, max_room_connections=1, max_rooms_per_connection=1))
    (ann,) = plain_members(hub, "chat", 1)
    before = hub.metrics()
    hub.join("chat", ann)
    assert hub.metrics() == before
    assert before.accepted_total == 1


@pytest.mark.parametrize("ended", ["close_nowait", "abort"])
async def test_join_of_closed_or_closing_connection_is_refused(ended):
    hub = Hub(HubConfig(max_connections=1))
    conn, _ = fake_conn()
    getattr(conn, ended)()
    with pytest.raises(ConnectionClosed):
        hub.join("chat", conn)
    await ticks()
    with pytest.raises(ConnectionClosed):
        hub.join("chat", conn)
    assert hub.metrics().rejected_total == 2
    plain_members(hub, "chat", 1)  # the refused connection took no place


async def test_join_of_other_types_raises_type_error():
    hub = Hub()
    with pytest.raises(TypeError, match="a member must be a Conn, not NoneType"):
        hub.join("chat", None)  # type: ignore[arg-type]
    assert hub.rooms() == []


async def test_refused_join_is_counted_and_changes_no_room():
    hub = Hub(HubConfig(max_connections=2, max_room_connections=1, max_rooms_per_connection=2))
    (ann,) = plain_members(hub, "chat", 1)
    plain_members(hub, "news", 1)
    stranger = PlainMember()
    refusals: list[tuple[type[Exception], str, PlainMember]] = [
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


async def test_can_join_raises_and_counts_like_join():
    hub = Hub(HubConfig(max_connections=2, max_room_connections=1))
    plain_members(hub, "chat", 1)
    hub.can_join("news")
    assert hub.metrics().rejected_total == 0
    with pytest.raises(RoomFull):
        hub.can_join("chat")
    plain_members(hub, "news", 1)
    with pytest.raises(HubFull):
        hub.can_join("sport")
    with pytest.raises(InvalidRoomName):
        hub.can_join("")
    await hub.shutdown(0)
    with pytest.raises(HubStopped):
        hub.can_join("sport")
    assert hub.metrics().rejected_total == 4
    assert hub.metrics().accepted_total == 2


# --- accept rate ----------------------------------------------------------------------------------


async def test_join_beyond_burst_is_refused_with_retry_after():
    hub = Hub(HubConfig(accept_rate=0.1, accept_burst=2))
    plain_members(hub, "chat", 2)
    with pytest.raises(RateLimited, match=r"websocket join rate exceeded: 0\.1 new connections a second") as refused:
        hub.join("chat", PlainMember())
    assert 9 < refused.value.retry_after <= 10
    metrics = hub.metrics()
    assert (metrics.accepted_total, metrics.rejected_total, hub.room_count("chat")) == (2, 1, 2)


async def test_join_after_retry_after_is_accepted():
    hub = Hub(HubConfig(accept_rate=200, accept_burst=1))
    plain_members(hub, "chat", 1)
    conn = PlainMember()
    with pytest.raises(RateLimited) as refused:
        hub.join("chat", conn)
    loop = asyncio.get_running_loop()
    then = loop.time() + refused.value.retry_after
    await until(lambda: loop.time() >= then)
    hub.join("chat", conn)
    assert hub.room_count("chat") == 2


async def test_join_of_member_takes_no_token():
    hub = Hub(HubConfig(accept_rate=0.001, accept_burst=1))
    (conn,) = plain_members(hub, "chat", 1)
    for room in ("chat", "news", "sport"):
        hub.join(room, conn)
    hub.leave("chat", conn)
    hub.join("chat", conn)
    assert hub.total_count() == 3
    hub.remove(conn)
    with pytest.raises(RateLimited):
        hub.join("chat", conn)


async def test_join_refused_for_other_reasons_takes_no_token():
    hub = Hub(HubConfig(accept_rate=0.001, accept_burst=4, max_connections=2, max_room_connections=1))
    plain_members(hub, "chat", 1)
    closed, _ = fake_conn(ping_interval=None)
    closed.abort()
    for error, room, conn in (
        (RoomFull, "chat", PlainMember()),
        (InvalidRoomName, "", PlainMember()),
        (ConnectionClosed, "news", closed),
    ):
        with pytest.raises(error):
            hub.join(room, conn)
    with pytest.raises(RoomFull):
        hub.can_join("chat")
    hub.can_join("news")
    plain_members(hub, "news", 1)
    with pytest.raises(HubFull):
        hub.join("sport", PlainMember())
    assert tokens(hub) == pytest.approx(2, abs=0.01)


async def test_refused_join_leaves_all_state_unchanged():
    hub = Hub(HubConfig(accept_rate=0.001, accept_burst=1))
    (ann,), _ = joined(hub, "chat", 1)
    conn, _ = fake_conn(ping_interval=None)
    conn.user_info = UserInfo("bob")
    callbacks = list(conn._close_callbacks or ())
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
    assert list(conn._close_callbacks or ()) == callbacks
    assert heard == []


async def test_can_join_without_token_is_refused_and_counted():
    hub = Hub(HubConfig(accept_rate=0.001, accept_burst=1))
    hub.can_join("chat")
    hub.can_join("chat")
    plain_members(hub, "chat", 1)
    with pytest.raises(RateLimited):
        hub.can_join("chat")
    assert hub.metrics().rejected_total == 1


async def test_join_without_accept_rate_is_unlimited():
    hub = Hub()
    plain_members(hub, "chat", 500)
    assert hub.room_count("chat") == 500


# --- room names -----------------------------------------------------------------------------------


@pytest.mark.parametrize("room", [None, 7, b"chat", ["chat"]], ids=repr)
async def test_room_policy_gets_text_only(room):
    def numbers(name: str) -> None:
        if not name.isdigit():
            raise InvalidRoomName("a room is a number here")

    hub = Hub(HubConfig(check_room_name=numbers))
    with pytest.raises(InvalidRoomName, match=f"it must be a str, not {type(room).__name__}"):
        hub.join(room, PlainMember())
    with pytest.raises(InvalidRoomName, match="a room is a number here"):
        hub.join("chat", PlainMember())
    hub.join("7", PlainMember())
    assert hub.broadcast_room(7, "x") == BroadcastResult(invalid=True)  # type: ignore[arg-type]
    assert hub.broadcast_room(["7", "chat"], "x") == BroadcastResult(invalid=True)
    assert hub.broadcast_room([7], "x") == BroadcastResult(invalid=True)  # type: ignore[list-item]


# --- reasons --------------------------------------------------------------------------------------


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
def test_each_refusal_has_a_reason(refusal, word):
    assert reason_of(refusal) == word
    assert word in REASONS


def test_every_hub_error_is_a_reason():
    hub_errors = {
        thing for thing in vars(errors).values() if isinstance(thing, type) and issubclass(thing, errors.HubError)
    }
    words = {reason_of(cls("x")) for cls in hub_errors - {errors.HubError}}
    assert words == set(REASONS) - {"connection_closed"}
    assert len(REASONS) == len(hub_errors)  # less the one that is the root, and one for what is closed


def test_subclass_of_hub_error_makes_no_new_reason():
    class Reserved(errors.InvalidRoomName):
        pass

    class Whim(errors.HubError):
        pass

    assert reason_of(Reserved("x")) == "invalid_room_name"
    assert reason_of(Whim("x")) == "other"
