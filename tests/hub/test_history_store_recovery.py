"""Coming back to a room: nothing is missed, nothing comes twice, and what is missing is said."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import websockets

import plumews
from plumews import (
    BroadcastResult,
    ConcurrencyError,
    ConnectionClosed,
    HistoryLimits,
    Hub,
    HubConfig,
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
from plumews.constants import Opcode
from plumews.protocol.codec import build_frame
from support.fakes import FakeTransport, clog, deadlines, fake_conn, ticks, until
from support.members import adds_up, crowd, messages, texts

NOBODYS = Position("", 0)


def remembering(**config: Any) -> Hub:
    return Hub(HubConfig(**{"history": HistoryLimits(), **config}))


def position(hub: Hub, room: str = "chat") -> Position:
    found = hub.position(room)
    assert found is not None
    return found


def newcomer(**config: Any) -> tuple[plumews.Conn, FakeTransport]:
    return fake_conn(**{"ping_interval": None, **config})


@contextlib.asynccontextmanager
async def crowd_of(start: Callable[[Any], Any], deflate: plumews.Deflate) -> AsyncIterator[tuple[plumews.Conn, Any]]:
    """A compressed connection, and the client at its other end."""
    opened: asyncio.Queue[plumews.Conn] = asyncio.Queue()
    serving = plumews.serve(
        host="127.0.0.1", port=0, on_open=opened.put_nowait, on_message=lambda conn, message: None, compression=deflate
    )
    server = await start(serving)
    async with websockets.connect(f"ws://127.0.0.1:{server.port}", proxy=None) as client:
        yield await opened.get(), client


# --- positions ------------------------------------------------------------------------------------


async def test_a_broadcast_says_its_position_and_so_does_the_room():
    hub = remembering()
    start = position(hub)
    assert start.offset == 0
    results = [hub.broadcast_room("chat", str(number)) for number in range(3)]
    results.append(await hub.publish("chat", "3"))
    assert [result.position for result in results] == [Position(start.epoch, offset) for offset in (1, 2, 3, 4)]
    assert position(hub) == Position(start.epoch, 4)
    assert position(hub, "news").epoch != start.epoch


async def test_a_hub_without_history_has_no_positions():
    hub = Hub()
    conn, transport = newcomer()
    assert hub.position("chat") is None
    assert hub.broadcast_room("chat", "x").position is None
    assert hub.recover("chat", conn, Position("x", 3)) == Recovery(complete=False, messages=0, position=None)
    assert hub.members("chat") == [conn]
    await ticks()
    assert transport.writes == []


async def test_the_policy_says_which_rooms_have_one():
    hub = remembering(history={"chat": HistoryLimits(max_messages=1)}.get)
    assert hub.position("news") is None
    assert hub.broadcast_room("news", "x").position is None
    for number in range(3):
        hub.broadcast_room("chat", str(number))
    conn, transport = newcomer()
    assert hub.recover("chat", conn, NOBODYS).messages == 1
    await ticks()
    assert texts(transport.wire) == ["2"]


async def test_what_is_sent_to_nobody_or_to_everybody_has_no_position(sliced):
    hub = remembering(workers=1, job_queue_size=1)
    for _ in range(200):
        hub.join("chat", newcomer()[0])
    before = position(hub)
    assert hub.broadcast_all("to all").position is None
    assert hub.broadcast_room("chat", "too much") == BroadcastResult(matched=200, dropped=200, overloaded=True)
    assert hub.broadcast_room("", "no room").position is None
    with pytest.raises(ValueError, match="must be TEXT"):
        hub.broadcast_room("chat", "x", 9)
    assert position(hub) == before


async def test_a_position_is_asked_of_a_room_that_may_be():
    hub = remembering()
    with pytest.raises(InvalidRoomName):
        hub.position("x" * 129)
    assert len(hub._history or ()) == 0


async def test_a_policy_that_fails_is_told_to_who_broadcasts_and_nothing_is_sent():
    def policy(room: str) -> HistoryLimits | None:
        raise LookupError("no such room")

    hub = remembering(history=policy)
    member, transport = newcomer()
    hub.join("chat", member)
    with pytest.raises(LookupError, match="no such room"):
        hub.broadcast_room("chat", "x")
    stranger, _ = newcomer()
    with pytest.raises(LookupError, match="no such room"):
        hub.recover("chat", stranger, NOBODYS)
    await ticks()
    assert transport.writes == []
    assert hub.members("chat") == [member]
    assert hub.metrics().broadcast_matched == 0


async def test_message_is_made_for_the_position_that_it_gets(start):
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


async def test_message_of_no_history_is_made_for_none():
    hub = remembering(history={"chat": HistoryLimits()}.get)
    conn, transport = newcomer()
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
    assert len(texts(transport.wire)) == 5
    assert position(hub).offset == 0


async def test_message_to_several_rooms_is_made_for_the_position_in_each():
    hub = remembering(history=lambda room: None if room == "news" else HistoryLimits())
    hub.broadcast_room("b", "before")
    made: list[Any] = []
    result = hub.broadcast_room(["a", "b", "b", "news"], lambda at: made.append(at) or "x")
    places = {"a": Position(position(hub, "a").epoch, 1), "b": Position(position(hub, "b").epoch, 2)}
    assert made == [places]
    assert (result.position, result.positions) == (None, places)
    assert hub.broadcast_room(["a", "b"], "x", keep=False).positions is None
    assert {room: position(hub, room) for room in "ab"} == places, "a room that is named twice has it once"


async def test_message_to_more_rooms_than_histories_tells_its_result() -> None:
    hub = remembering(max_history_rooms=1)
    made: list[dict[str, Position]] = []

    def make(at: dict[str, Position]) -> str:
        made.append(dict(at))
        at.clear()
        return "x"

    result = hub.broadcast_room(["a", "b"], make)
    assert result.positions == made[0]
    assert made[0].keys() == {"a", "b"}


async def test_message_whose_maker_fails_is_not_sent_and_takes_no_position():
    hub = remembering()
    conn, transport = newcomer()
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
    assert transport.writes == []
    assert hub.broadcast_room("chat", lambda at: f"{at}").position == position(hub)
    assert position(hub).offset == 1


async def test_message_made_while_members_come_reaches_them_once():
    hub = remembering()
    late, transport = newcomer()

    def make(at: Position) -> str:
        hub.recover("chat", late, NOBODYS)
        return "x"

    hub.broadcast_room("chat", make)
    await ticks()
    assert texts(transport.wire) == ["x"]


async def test_message_is_not_made_where_the_job_queue_is_full(sliced):
    hub = remembering(workers=1, job_queue_size=1)
    for _ in range(200):
        hub.join("chat", newcomer()[0])
    hub.broadcast_all("to all")
    assert hub.broadcast_room("chat", lambda at: str(1 // 0)).overloaded
    assert position(hub).offset == 0


async def test_message_that_is_not_kept_is_for_those_who_are_there():
    """Presence lines, such as that a member came, are no history."""
    hub = remembering()
    hub.on_join(lambda room, conn: hub.broadcast_room(room, "somebody came", keep=False))
    hub.on_leave(lambda room, conn: hub.broadcast_room(room, "somebody left", keep=False))
    for number in range(3):
        conn, _ = newcomer()
        hub.recover("chat", conn, NOBODYS)
        hub.broadcast_room("chat", str(number))
        hub.leave("chat", conn)
    conn, transport = newcomer()
    assert hub.recover("chat", conn, NOBODYS).messages == 3
    assert (await hub.publish("chat", "x", keep=False)).position is None
    await ticks()
    assert texts(transport.wire) == ["0", "1", "2", "somebody came", "x"]
    with pytest.raises(TypeError, match="keep must be True or False, not str"):
        hub.broadcast_room("chat", "x", keep="no")  # type: ignore[arg-type]


# --- who comes back -------------------------------------------------------------------------------


async def test_who_comes_back_gets_what_was_missed_and_then_what_comes(start):
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


async def test_what_was_said_to_an_empty_room_is_there_for_who_comes_back():
    hub = remembering()
    seen = position(hub)
    hub.broadcast_room("chat", "anybody?")
    conn, transport = newcomer()
    assert hub.recover("chat", conn, seen).complete
    await ticks()
    assert texts(transport.wire) == ["anybody?"]


async def test_text_binary_and_fragments_come_back_as_what_they_were(start):
    hub = remembering()
    said: list[str | bytes] = ["grüße", b"\xff\x00", bytes(200_000), "", "x" * 70_000]
    for data in said:
        hub.broadcast_room("chat", data)
    async with crowd(start, 1) as ((conn,), (wire,)):
        assert hub.recover("chat", conn, NOBODYS).messages == 5
        assert await messages(wire, 5) == said


async def test_who_missed_nothing_gets_nothing():
    hub = remembering()
    hub.broadcast_room("chat", "x")
    conn, transport = newcomer()
    assert hub.recover("chat", conn, position(hub)) == Recovery(True, 0, position(hub))
    await ticks()
    assert transport.writes == []


async def test_a_broadcast_that_is_under_way_comes_to_who_comes_back_once(sliced):
    hub = remembering()
    for _ in range(300):
        hub.join("chat", newcomer()[0])
    seen = position(hub)
    assert [hub.broadcast_room("chat", str(number)).pending > 0 for number in range(3)] == [True] * 3
    conn, transport = newcomer()
    assert hub.recover("chat", conn, seen).messages == 3
    await hub.publish("chat", "3")
    await ticks()
    assert texts(transport.wire) == ["0", "1", "2", "3"]


async def test_who_leaves_and_comes_back_while_a_broadcast_is_under_way_gets_it_once(sliced):
    hub = remembering()
    for _ in range(300):
        hub.join("chat", newcomer()[0])
    conn, transport = newcomer()
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
    assert texts(transport.wire) == ["news", "0", "1", "2"]
    assert hub.metrics().broadcast_skipped == 1
    assert adds_up(hub.metrics())


async def test_who_is_told_of_the_newcomer_and_broadcasts_at_once_comes_behind_what_was_missed(monkeypatch):
    hub = remembering()
    seen = position(hub)
    hub.broadcast_room("chat", "missed")
    conn, transport = newcomer()
    monkeypatch.setattr(hub._counts, "changed", lambda room: hub.broadcast_room(room, "welcome"))
    assert hub.recover("chat", conn, seen) == Recovery(True, 1, Position(seen.epoch, 1))
    await ticks()
    assert texts(transport.wire) == ["missed", "welcome"]


async def test_what_was_broadcast_without_its_sender_is_there_for_everybody():
    hub = remembering()
    sender, _ = newcomer()
    hub.join("chat", sender)
    seen = position(hub)
    hub.broadcast_room("chat", "mine", exclude=sender)
    hub.broadcast_all("to all")
    conn, transport = newcomer()
    assert hub.recover("chat", conn, seen).complete
    await ticks()
    assert texts(transport.wire) == ["mine"]


async def test_the_members_queues_and_the_history_share_one_copy_of_the_frames():
    hub = remembering()
    for _ in range(5):
        hub.broadcast_room("chat", bytes(100_000))
    stream = hub._history and hub._history._entries["chat"].stream
    assert stream
    kept = [encoded.buffers for _, encoded in stream._kept]
    for _ in range(3):
        conn, transport = newcomer()
        transport.fill()
        assert hub.recover("chat", conn, NOBODYS).messages == 5
        assert conn.queued_messages == 5
    assert [encoded.buffers for _, encoded in stream._kept] == kept
    assert stream.bytes == sum(sum(map(len, buffers)) + limits.HISTORY_OVERHEAD for buffers in kept)


# --- the event before what was missed -------------------------------------------------------------


async def test_recovery_event_comes_first_and_says_what_follows():
    hub = remembering()
    hub.on_join(lambda room, conn: hub.broadcast_room(room, "live"))
    for number in range(2):
        hub.broadcast_room("chat", str(number))
    conn, transport = newcomer()
    told: list[Recovery] = []

    def encode(recovery: Recovery) -> str:
        told.append(recovery)
        return "event"

    assert hub.recover("chat", conn, NOBODYS, encode_recovered=encode) == told[0] == Recovery(True, 2, told[0].position)
    await ticks()
    assert texts(transport.wire) == ["event", "0", "1", "live"]


@pytest.mark.parametrize("behavior", list(SendBehavior), ids=str)
async def test_recovery_event_tells_the_truth_about_a_full_queue(behavior):
    hub = remembering()
    for number in range(5):
        hub.broadcast_room("chat", str(number))
    conn, transport = newcomer(queue_size=3, send_behavior=behavior)
    transport.fill()
    recovery = hub.recover("chat", conn, NOBODYS, encode_recovered=lambda recovery: f"{recovery.messages} follow")
    assert (recovery.complete, recovery.messages, conn.dropped_messages) == (False, 3, 2)
    transport.drain()
    assert texts(transport.wire) == ["3 follow", "0", "1", "2"]


@pytest.mark.parametrize("behavior", list(SendBehavior), ids=str)
async def test_recovery_that_began_to_leave_is_not_displaced(behavior):
    """The socket takes the first bytes and no more: what was said to follow does follow."""
    hub = remembering()
    for number in range(10):
        hub.broadcast_room("chat", f"{number} {'x' * 100_000}")
    conn, transport = newcomer(queue_size=3, send_behavior=behavior, send_timeout=None)
    transport.full_after = 1
    assert hub.recover("chat", conn, NOBODYS, encode_recovered=lambda recovery: "event").complete
    assert conn._writer.paused
    for number in range(10, 13):
        hub.broadcast_room("chat", f"{number} live")
    while conn._writer.paused or conn.queued_messages:
        transport.drain()
    got = [text.partition(" ")[0] for text in texts(transport.wire)]
    assert got == ["event", *map(str, range(13))]


@pytest.mark.parametrize("first", ["x", "", 300 * "x"])
async def test_recovery_never_parts_a_header_from_its_payload(first):
    """Wherever a write ends, the ping of the next one comes between two frames."""
    hub = remembering()
    sent = [bytes(20_000) for _ in range(30)]
    for message in sent:
        hub.broadcast_room("chat", message)
    conn, transport = newcomer(queue_size=4)
    transport.full_after = 1
    assert hub.recover("chat", conn, NOBODYS, encode_recovered=lambda recovery: first).messages == 30
    assert len(transport.wire) < 300_000
    conn._writer.control(build_frame(Opcode.PING, b""))
    transport.drain()
    got = [payload for kind, payload in transport.events() if kind in (Opcode.TEXT, Opcode.BINARY)]
    assert got == [first, *sent]
    assert (Opcode.PING, b"") in transport.events()


@pytest.mark.parametrize("size", [10, 20_000, 100_000])
async def test_recovery_that_is_cut_counts_what_never_left(size):
    hub = remembering(history=HistoryLimits(max_messages=1000, max_bytes=2**24))
    count = 600_000 // size if size > 10 else 1000
    for _ in range(count):
        hub.broadcast_room("chat", bytes(size))
    conn, transport = newcomer(queue_size=4)
    transport.full_after = 1
    assert hub.recover("chat", conn, NOBODYS, encode_recovered=lambda recovery: "event").messages == count
    whole = len(transport.events()) - 1
    conn.abort()
    assert conn._lost[0] in (count - whole, count - whole - 1), "one may have begun to leave"
    assert conn._lost[0] > 0 or size == 10


async def test_recovery_of_any_sizes_comes_through_a_narrow_socket(start):
    hub = remembering(history=HistoryLimits(max_bytes=2**24))
    rng = random.Random(20)
    sent = [bytes(rng.choice((0, 3, 130, 16 * 1024, 16 * 1024 + 1, 70_000, 200_000))) for _ in range(60)]
    for message in sent:
        hub.broadcast_room("chat", message)
    async with crowd(start, 1, rcvbuf=4096, queue_size=4) as ((conn,), (wire,)):
        conn._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        assert hub.recover("chat", conn, NOBODYS, encode_recovered=lambda recovery: "event").messages == 60
        assert conn._writer.paused
        got: list[Any] = []
        while len(got) < 61:
            conn._writer.control(build_frame(Opcode.PING, b""))
            opcode, payload = await wire.event()
            if opcode != Opcode.PING:
                got.append(payload)
    assert got == ["event", *sent]


@pytest.mark.parametrize("takeover", [True, False])
async def test_recovery_of_a_compressed_connection_comes_whole(start, takeover):
    hub = remembering()
    lines = [f"{number} {'the same again ' * 40}" for number in range(20)]
    for line in lines:
        hub.broadcast_room("chat", line)
    deflate = plumews.Deflate(server_takeover=takeover)
    async with crowd_of(start, deflate) as (conn, client):
        assert conn.compression is not None
        assert hub.recover("chat", conn, NOBODYS, encode_recovered=lambda recovery: "event").messages == 20
        hub.broadcast_room("chat", "live")
        assert [await client.recv() for _ in range(22)] == ["event", *lines, "live"]


@pytest.mark.parametrize("said", [1, {"type": "recovered"}, "\ud800"], ids=type)
async def test_recovery_event_that_is_no_message_leaves_no_member(said):
    hub = remembering()
    hub.broadcast_room("chat", "x")
    conn, transport = newcomer()
    with pytest.raises((TypeError, ValueError)):
        hub.recover("chat", conn, NOBODYS, encode_recovered=lambda recovery: said)  # type: ignore[arg-type]
    assert hub.members("chat") == []
    await ticks()
    assert transport.writes == []


async def test_recovery_event_whose_maker_broadcasts_or_closes():
    hub = remembering()
    hub.broadcast_room("chat", "x")
    conn, transport = newcomer()

    def broadcasts(recovery: Recovery) -> None:
        hub.broadcast_room("chat", "in between")

    def closes(recovery: Recovery) -> None:
        conn.close_nowait()

    with pytest.raises(RuntimeError, match="what makes the text of a message must not broadcast"):
        hub.recover("chat", conn, NOBODYS, encode_recovered=broadcasts)
    with pytest.raises(ConnectionClosed):
        hub.recover("chat", conn, NOBODYS, encode_recovered=closes)
    assert hub.members("chat") == []
    await ticks()
    assert texts(transport.wire) == []
    assert position(hub).offset == 1


async def test_failed_recovery_is_no_coming_and_no_leaving() -> None:
    hub = remembering()
    conn, _ = newcomer()
    heard: list[str] = []
    hub.on_join(lambda room, conn: heard.append(f"+{room}"))
    hub.on_leave(lambda room, conn: heard.append(f"-{room}"))
    hub.watch_count("chat", lambda room, count: heard.append(f"{count}"))
    hub.watch_presence("chat", lambda room, joined, left: heard.append(f"{len(joined)}, {len(left)}"))
    await ticks()
    heard.clear()
    conn.user_info = plumews.UserInfo("1", "Ada")
    with pytest.raises(ZeroDivisionError):
        hub.recover("chat", conn, NOBODYS, encode_recovered=lambda recovery: str(1 // 0))
    await ticks()
    assert [one for one in heard if one != "0"] == []
    assert hub.presence("chat").users == ()
    hub.recover("chat", conn, NOBODYS)
    hub.leave("chat", conn)
    await ticks()
    assert [one for one in heard if one[0] in "+-"] == ["+chat", "-chat"]


# --- what is missing is said ----------------------------------------------------------------------


async def test_what_went_beyond_the_bounds_is_missing():
    hub = remembering(history=HistoryLimits(max_messages=2))
    seen = position(hub)
    for number in range(3):
        hub.broadcast_room("chat", str(number))
    conn, transport = newcomer()
    assert hub.recover("chat", conn, seen) == Recovery(False, 2, position(hub))
    await ticks()
    assert texts(transport.wire) == ["1", "2"]


async def test_of_another_life_of_the_history_everything_comes_and_nothing_is_complete():
    hub = remembering()
    hub.broadcast_room("chat", "x")
    conn, transport = newcomer()
    assert hub.recover("chat", conn, Position("another", 1)) == Recovery(False, 1, position(hub))
    await ticks()
    assert texts(transport.wire) == ["x"]


async def test_a_position_in_the_future_gets_nothing_and_is_not_complete():
    hub = remembering()
    hub.broadcast_room("chat", "x")
    conn, transport = newcomer()
    top = position(hub)
    assert hub.recover("chat", conn, Position(top.epoch, 2)) == Recovery(False, 0, top)
    hub.broadcast_room("chat", "y")
    await ticks()
    assert texts(transport.wire) == ["y"]


@pytest.mark.parametrize("behavior", list(SendBehavior), ids=str)
async def test_what_finds_no_space_in_the_queue_is_missing_whatever_the_send_behavior(behavior):
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


async def test_a_queue_that_is_shorter_than_the_history_takes_it_all_while_the_peer_reads(start):
    hub = remembering()
    for number in range(100):
        hub.broadcast_room("chat", str(number))
    async with crowd(start, 1, queue_size=4) as ((conn,), (wire,)):
        assert hub.recover("chat", conn, NOBODYS).messages == 100
        assert await messages(wire, 100) == [str(number) for number in range(100)]


async def test_a_peer_that_does_not_read_gets_what_its_queue_holds_and_no_more(start):
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


async def test_who_comes_back_is_refused_as_anybody_else():
    hub = remembering(max_connections=2, max_room_connections=1, max_rooms_per_connection=2)
    member, other = newcomer()[0], newcomer()[0]
    hub.join("chat", member)
    hub.join("weather", member)
    hub.join("news", other)
    closed, _ = newcomer()
    closed.abort()
    stranger, transport = newcomer()
    hub.broadcast_room("chat", "x")
    before = hub.metrics()
    refusals: list[tuple[type[Exception], str, plumews.Conn]] = [
        (RoomFull, "chat", other),
        (HubFull, "sport", stranger),
        (TooManyRooms, "sport", member),
        (InvalidRoomName, "", stranger),
        (ConnectionClosed, "sport", closed),
    ]
    for error, room, conn in refusals:
        with pytest.raises(error):
            hub.recover(room, conn, NOBODYS)
    metrics = hub.metrics()
    assert metrics.rejected_total == before.rejected_total + len(refusals)
    assert (metrics.accepted_total, metrics.room_registrations) == (3, 3)
    await ticks()
    assert transport.writes == []


async def test_a_member_is_not_brought_back_where_it_is():
    hub = remembering()
    conn, transport = newcomer()
    hub.join("chat", conn)
    with pytest.raises(ValueError, match="in this room already: call recover instead of join"):
        hub.recover("chat", conn, NOBODYS)
    assert hub.recover("news", conn, NOBODYS).messages == 0
    assert transport.writes == []


@pytest.mark.parametrize("wrong", [None, "x.1", 1, ("x", 1)], ids=repr)
async def test_a_position_must_be_one(wrong):
    hub = remembering()
    conn, _ = newcomer()
    with pytest.raises(TypeError, match=r"position must be a plumews\.Position, not .*: use Position\.parse"):
        hub.recover("chat", conn, wrong)
    assert hub.rooms() == []


async def test_only_connections_of_this_loop_come_back():
    hub = remembering()
    with pytest.raises(TypeError, match="a member must be a Conn, not str"):
        hub.recover("chat", "ann", NOBODYS)  # type: ignore[arg-type]
    hub.position("chat")

    async def elsewhere() -> plumews.Conn:
        return newcomer()[0]

    conn = await asyncio.to_thread(lambda: asyncio.run(elsewhere()))
    with pytest.raises(ConcurrencyError):
        hub.recover("chat", conn, NOBODYS)


async def test_a_stopped_hub_remembers_nothing_and_nobody():
    before = deadlines()
    hub = remembering()
    conn, _ = newcomer()
    hub.broadcast_room("chat", "x")
    await hub.shutdown(0)
    with pytest.raises(HubStopped):
        hub.recover("chat", conn, NOBODYS)
    with pytest.raises(HubStopped):
        hub.position("chat")
    assert hub.broadcast_room("chat", "x").position is None
    assert len(hub._history or ()) == 0
    assert deadlines() == before


# --- how long a room is remembered ----------------------------------------------------------------


async def test_the_history_of_an_empty_room_ends_with_the_age_of_its_messages():
    before = deadlines()
    hub = remembering(history=HistoryLimits(max_age=0.05))
    conn, _ = newcomer()
    hub.join("chat", conn)
    hub.broadcast_room("chat", "x")
    seen = position(hub)
    archive = hub._history
    assert archive is not None
    await until(lambda: archive.bytes == limits.HISTORY_ROOM_OVERHEAD)
    assert position(hub) == seen  # there is a member, who is behind nothing
    left = asyncio.get_running_loop().time()
    hub.remove(conn)
    await until(lambda: len(archive) == 0)
    assert asyncio.get_running_loop().time() - left > 0.045
    assert deadlines() == before
    assert hub.recover("chat", conn, seen) == Recovery(False, 0, position(hub))


# --- under random use -----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
async def test_whoever_comes_and_goes_has_every_message_once_and_in_order(sliced, seed):
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
