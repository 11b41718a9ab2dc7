"""Tests of positions: of rooms, of broadcasts, and of messages that are made for them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import plumews
from plumews import (
    BroadcastResult,
    HistoryLimits,
    Hub,
    InvalidRoomName,
    Position,
    Recovery,
)
from support.fakes import ticks
from support.history_setup import START, position, remembering
from support.members import PlainMember, crowd, messages

# --- positions ------------------------------------------------------------------------------------


async def test_broadcast_and_room_have_positions():
    hub = remembering()
    start = position(hub)
    assert start.offset == 0
    results = [hub.broadcast_room("chat", str(number)) for number in range(3)]
    results.append(await hub.publish("chat", "3"))
    assert [result.position for result in results] == [Position(start.epoch, offset) for offset in (1, 2, 3, 4)]
    assert position(hub) == Position(start.epoch, 4)
    assert position(hub, "news").epoch != start.epoch


async def test_hub_without_history_has_no_positions():
    hub = Hub()
    conn = PlainMember()
    assert hub.position("chat") is None
    assert hub.broadcast_room("chat", "x").position is None
    assert hub.recover("chat", conn, Position("x", 3)) == Recovery(complete=False, messages=0, position=None)
    assert hub.members("chat") == [conn]
    await ticks()
    assert conn.messages == []


async def test_history_policy_selects_rooms():
    hub = remembering(history={"chat": HistoryLimits(max_messages=1)}.get)
    assert hub.position("news") is None
    assert hub.broadcast_room("news", "x").position is None
    for number in range(3):
        hub.broadcast_room("chat", str(number))
    conn = PlainMember()
    assert hub.recover("chat", conn, START).messages == 1
    await ticks()
    assert conn.messages == ["2"]


async def test_unsent_broadcast_takes_no_position(sliced):
    hub = remembering(workers=1, job_queue_size=1)
    for _ in range(200):
        hub.join("chat", PlainMember())
    before = position(hub)
    assert hub.broadcast_all("to all").position is None
    assert hub.broadcast_room("chat", "too much") == BroadcastResult(matched=200, dropped=200, overloaded=True)
    assert hub.broadcast_room("", "no room").position is None
    with pytest.raises(ValueError, match="must be TEXT"):
        hub.broadcast_room("chat", "x", 9)
    assert position(hub) == before


async def test_position_of_invalid_room_raises():
    hub = remembering()
    with pytest.raises(InvalidRoomName):
        hub.position("x" * 129)
    assert len(hub._history or ()) == 0


async def test_failing_history_policy_sends_nothing():
    def policy(room: str) -> HistoryLimits | None:
        raise LookupError("no such room")

    hub = remembering(history=policy)
    member = PlainMember()
    hub.join("chat", member)
    with pytest.raises(LookupError, match="no such room"):
        hub.broadcast_room("chat", "x")
    stranger = PlainMember()
    with pytest.raises(LookupError, match="no such room"):
        hub.recover("chat", stranger, START)
    await ticks()
    assert member.messages == []
    assert hub.members("chat") == [member]
    assert hub.metrics().broadcast_matched == 0


async def test_message_is_made_for_its_position(start):
    hub = remembering()
    epoch = position(hub).epoch
    async with crowd(start, 1) as ((conn,), (wire,)):
        hub.join("chat", conn)
        first = hub.broadcast_room("chat", lambda at: f"{at}")
        second = await hub.publish("chat", lambda at: str(at).encode())
        third = await asyncio.wrap_future(
            await asyncio.to_thread(hub.publish_threadsafe, "chat", lambda at: str(at), plumews.Opcode.BINARY)
        )
        assert [result.position for result in (first, second, third)] == [Position(epoch, n) for n in (1, 2, 3)]
        assert await messages(wire, 3) == [f"{epoch}.1", f"{epoch}.2".encode(), f"{epoch}.3".encode()]


async def test_message_without_history_is_made_for_none():
    hub = remembering(history={"chat": HistoryLimits()}.get)
    conn = PlainMember()
    hub.join("chat", conn)
    hub.join("news", conn)
    made: list[Any] = []

    def make(at: Any) -> str:
        made.append(at)
        return "x"

    hub.broadcast_room("news", make)
    hub.broadcast_all(make)
    hub.broadcast_room("chat", make, where=lambda conn: True)
    hub.broadcast_room("chat", make, keep=False)
    await hub.publish(None, make)
    plain = Hub()
    plain.broadcast_room("chat", make)
    assert made == [None] * 6
    await ticks()
    assert len(conn.messages) == 5
    assert position(hub).offset == 0


async def test_message_to_several_rooms_is_made_for_their_positions():
    hub = remembering(history=lambda room: None if room == "news" else HistoryLimits())
    hub.broadcast_room("b", "before")
    made: list[Any] = []
    result = hub.broadcast_room(["a", "b", "b", "news"], lambda at: made.append(at) or "x")
    places = {"a": Position(position(hub, "a").epoch, 1), "b": Position(position(hub, "b").epoch, 2)}
    assert made == [places]
    assert (result.position, result.positions) == (None, places)
    assert hub.broadcast_room(["a", "b"], "x", keep=False).positions is None
    assert {room: position(hub, room) for room in "ab"} == places, "a room that is named twice has it once"


async def test_message_to_more_rooms_than_histories_has_positions() -> None:
    hub = remembering(max_history_rooms=1)
    made: list[dict[str, Position]] = []

    def make(at: dict[str, Position]) -> str:
        made.append(dict(at))
        at.clear()
        return "x"

    result = hub.broadcast_room(["a", "b"], make)
    assert result.positions == made[0]
    assert made[0].keys() == {"a", "b"}


async def test_message_that_cannot_be_made_takes_no_position():
    hub = remembering()
    conn = PlainMember()
    hub.join("chat", conn)

    def broadcasts(at: Position) -> str:
        hub.broadcast_room("chat", "another")
        return "x"

    async def later(at: Position) -> str:
        return "x"

    with pytest.raises(ZeroDivisionError):
        hub.broadcast_room("chat", lambda at: str(1 // 0))
    with pytest.raises(TypeError, match="a message must be str or bytes-like, not dict"):
        hub.broadcast_room("chat", lambda at: {"at": at})  # type: ignore[arg-type, return-value]
    with pytest.raises(RuntimeError, match="must not broadcast"):
        hub.broadcast_room("chat", broadcasts)
    with pytest.raises(TypeError, match="data must be a message, or a plain function that returns one"):
        hub.broadcast_room("chat", later)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must be TEXT"):
        hub.broadcast_room("chat", lambda at: "x", 9)
    with pytest.raises(ZeroDivisionError):
        await hub.publish("chat", lambda at: str(1 // 0))
    assert hub.broadcast_room("", lambda at: str(1 // 0)).invalid, "it is not asked where nothing can be sent"
    await ticks()
    assert conn.messages == []
    assert hub.broadcast_room("chat", lambda at: f"{at}").position == position(hub)
    assert position(hub).offset == 1


async def test_message_made_during_recovery_arrives_once():
    hub = remembering()
    late = PlainMember()

    def make(at: Position) -> str:
        hub.recover("chat", late, START)
        return "x"

    hub.broadcast_room("chat", make)
    await ticks()
    assert late.messages == ["x"]


async def test_message_is_not_made_if_job_queue_is_full(sliced):
    hub = remembering(workers=1, job_queue_size=1)
    for _ in range(200):
        hub.join("chat", PlainMember())
    hub.broadcast_all("to all")
    assert hub.broadcast_room("chat", lambda at: str(1 // 0)).overloaded
    assert position(hub).offset == 0


async def test_message_with_keep_false_is_not_in_the_history():
    """Presence messages, such as "a member came", are not part of the history."""
    hub = remembering()
    hub.on_join(lambda room, conn: hub.broadcast_room(room, "somebody came", keep=False))
    hub.on_leave(lambda room, conn: hub.broadcast_room(room, "somebody left", keep=False))
    for number in range(3):
        conn = PlainMember()
        hub.recover("chat", conn, START)
        hub.broadcast_room("chat", str(number))
        hub.leave("chat", conn)
    conn = PlainMember()
    assert hub.recover("chat", conn, START).messages == 3
    assert (await hub.publish("chat", "x", keep=False)).position is None
    await ticks()
    assert conn.messages == ["0", "1", "2", "somebody came", "x"]
    with pytest.raises(TypeError, match="keep must be True or False, not str"):
        hub.broadcast_room("chat", "x", keep="no")  # type: ignore[arg-type]
