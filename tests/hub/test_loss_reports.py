"""What a member hears of messages that it lost: in their place, once, and of as many as they were."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections.abc import Callable
from typing import Any

import pytest

import plumews
from plumews import BroadcastResult, Gap, Hub, HubConfig, Opcode, SendBehavior, State, limits
from plumews.constants import COMPRESSED
from support.compressed_messages import Squeezing, unsqueezed
from support.fakes import clog, fake_conn, feed, pass_time, ticks, until
from support.members import adds_up, crowd, drained, joined, messages, send, stalled, texts, told
from support.raw_client import Wire, close


async def test_a_member_is_told_of_refused_messages_behind_those_that_waited():
    hub = Hub(HubConfig(encode_gap=told))
    _, transport = stalled(hub, send_behavior=SendBehavior.DROP)
    assert [result.dropped for result in send(hub, *"abcdefg")] == [0, 0, 0, 1, 1, 1, 1]
    assert await drained(transport) == ["a", "b", "c", "room: 4"]
    send(hub, "h")
    await ticks()
    assert texts(transport.wire) == ["a", "b", "c", "room: 4", "h"]


async def test_a_member_is_told_of_displaced_messages_in_front_of_those_that_are_left():
    hub = Hub(HubConfig(encode_gap=told))
    _, transport = stalled(hub, send_behavior=SendBehavior.DROP_OLDEST)
    send(hub, *"abcdefg")
    assert await drained(transport) == ["room: 4", "e", "f", "g"]


async def test_a_member_of_several_rooms_is_told_of_each():
    hub = Hub(HubConfig(encode_gap=told))
    conn, transport = stalled(hub, "a", "b", "c", send_behavior=SendBehavior.DROP, queue_size=1)
    for room in "aabbbc":
        hub.broadcast_room(room, room)
    hub.broadcast_all("all")
    hub.leave("c", conn)
    assert await drained(transport) == ["a", "a: 1", "b: 3", "c: 1", "None: 1"]


async def test_of_which_room_a_displaced_message_was_is_only_said_where_it_is_known():
    hub = Hub(HubConfig(encode_gap=told))
    _, transport = stalled(hub, "a", "b", send_behavior=SendBehavior.DROP_OLDEST, queue_size=1)
    hub.broadcast_room("a", "1")
    hub.broadcast_room("b", "2")
    assert await drained(transport) == ["None: 1", "2"]


async def test_displaced_message_of_one_of_two_hubs_names_no_room():
    hub, other = Hub(HubConfig(encode_gap=told)), Hub()
    conn, transport = stalled(hub, "a", send_behavior=SendBehavior.DROP_OLDEST, queue_size=1)
    other.join("b", conn)
    other.broadcast_room("b", "1")
    hub.broadcast_room("a", "2")
    assert await drained(transport) == ["None: 1", "2"]


async def test_a_shorter_message_that_finds_space_comes_behind_the_gap():
    hub = Hub(HubConfig(encode_gap=told))
    _, transport = stalled(hub, send_behavior=SendBehavior.DROP, queue_bytes=100)
    send(hub, "a" * 50, "b" * 90, "c")
    assert await drained(transport) == ["a" * 50, "room: 1", "c"]


async def test_a_direct_message_that_finds_space_comes_behind_the_gap():
    hub = Hub(HubConfig(encode_gap=told))
    conn, transport = stalled(hub, send_behavior=SendBehavior.DROP, queue_bytes=100)
    send(hub, "a" * 50, "b" * 90)
    conn.send_nowait("direct")
    assert await drained(transport) == ["a" * 50, "room: 1", "direct"]


async def test_a_direct_message_that_finds_none_leaves_the_gap_for_later():
    hub = Hub(HubConfig(encode_gap=told))
    conn, transport = stalled(hub, send_behavior=SendBehavior.DROP)
    send(hub, *"abcd")
    for _ in range(3):
        with pytest.raises(plumews.SendQueueFull):
            conn.send_nowait("direct")
    assert await drained(transport) == ["a", "b", "c", "room: 1"]
    conn.send_nowait("direct")
    assert await drained(transport) == ["a", "b", "c", "room: 1", "direct"]


async def test_a_member_that_did_not_make_room_in_time_is_told_behind_what_waited():
    hub = Hub(HubConfig(encode_gap=told))
    _, transport = stalled(hub, send_timeout=0.01)
    send(hub, *"abc")
    await asyncio.gather(*(hub.publish("room", line) for line in "defg"))
    assert await drained(transport) == ["a", "b", "c", "room: 4"]


async def test_a_gap_comes_behind_the_broadcasts_that_wait_for_space():
    hub = Hub(HubConfig(encode_gap=told))
    _, transport = stalled(hub, send_timeout=60, queue_size=2)
    send(hub, *"ab")  # queued
    waiting = send(hub, *"cd")  # two may wait
    dropped = send(hub, *"ef")
    assert [result.pending for result in waiting] == [1, 1]
    assert [result.dropped for result in dropped] == [1, 1]
    assert await drained(transport) == ["a", "b", "c", "d"]
    assert await drained(transport) == ["a", "b", "c", "d", "room: 2"]
    send(hub, "g")
    assert await drained(transport) == ["a", "b", "c", "d", "room: 2", "g"]


async def test_a_shorter_message_is_not_let_in_past_others_when_their_time_is_over():
    hub = Hub(HubConfig(encode_gap=told))
    _, transport = stalled(hub, send_timeout=0.01, queue_bytes=100)
    send(hub, "a" * 50)
    await asyncio.gather(hub.publish("room", "b" * 90), hub.publish("room", "c"))
    assert await drained(transport) == ["a" * 50, "room: 2"]


async def test_what_a_message_in_pieces_kept_out_is_told_at_its_end(start):
    hub = Hub(HubConfig(encode_gap=told))
    for behavior in (SendBehavior.DROP, SendBehavior.DROP_OLDEST, SendBehavior.CONFLATE):
        async with crowd(start, 1, send_behavior=behavior) as ((conn,), (wire,)):
            hub.join("room", conn)

            async def pieces() -> Any:
                yield "one "
                send(hub, *"abc")
                yield "message"

            await conn.send(pieces())
            assert await messages(wire, 2) == ["one message", "room: 3"]
            hub.remove(conn)


async def test_nothing_is_told_in_the_middle_of_a_message_in_pieces_whatever_the_transport_says(start):
    hub = Hub(HubConfig(encode_gap=told))
    options: dict[str, Any] = {"send_behavior": SendBehavior.DROP, "fragment_size": 300_000}
    async with crowd(start, 1, rcvbuf=4096, **options) as ((conn,), (wire,)):
        hub.join("room", conn)
        conn._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        lost = 0

        async def pieces() -> Any:
            nonlocal lost
            for _ in range(4):
                yield "x" * 300_000  # more than the socket takes at once
                lost += send(hub, "lost")[0].dropped

        sending = asyncio.ensure_future(conn.send(pieces()))
        assert await wire.message() == "x" * 1_200_000
        await sending
        assert lost == 4
        assert await wire.message() == "room: 4"


async def test_events_of_several_rooms_stand_in_the_order_of_the_losses():
    hub = Hub(HubConfig(encode_gap=told))
    conn, transport = stalled(hub, "a", send_behavior=SendBehavior.DROP_OLDEST, queue_size=1)
    hub.broadcast_room("a", "1")
    hub.broadcast_room("a", "2")
    hub.join("b", conn)
    hub.broadcast_room("b", "3")
    assert await drained(transport) == ["a: 1", "None: 1", "3"]


@pytest.mark.parametrize("behavior", [SendBehavior.DROP, SendBehavior.DROP_OLDEST], ids=lambda each: each.name)
async def test_gaps_that_stand_side_by_side_become_one(behavior):
    hub = Hub(HubConfig(encode_gap=told))
    conn, transport = stalled(hub, send_behavior=behavior)
    send(hub, *"abcd")
    transport.protocol.resume_writing()
    await asyncio.sleep(0)  # the gap is queued; nothing has left
    transport.fill()
    for _ in range(20):
        send(hub, *"ef")
        transport.protocol.resume_writing()
        await asyncio.sleep(0)
        transport.fill()
    assert conn.queued_messages <= 4
    got = await drained(transport)
    gaps = [line for line in got if line.startswith("room")]
    assert gaps == (["room: 41"] if behavior is SendBehavior.DROP else [f"room: {44 - len(got) + 1}"])


@pytest.mark.parametrize(
    ("encode", "complaints"),
    [(lambda gap: 1 / 0, 1), (lambda gap: 17, 1), (lambda gap: None, 0)],
    ids=["raises", "no message", "nothing"],
)
async def test_an_encoder_that_makes_nothing_of_it_harms_nobody(encode, complaints):
    failures: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: failures.append(context))
    hub = Hub(HubConfig(encode_gap=encode))
    _, transport = stalled(hub, send_behavior=SendBehavior.DROP)
    send(hub, *"abcd")
    assert await drained(transport) == ["a", "b", "c"]
    send(hub, "e")
    assert await drained(transport) == ["a", "b", "c", "e"]
    assert [failure["message"] for failure in failures] == ["encode_gap failed"] * complaints


@pytest.mark.parametrize("end", ["close", "abort", "leave"])
async def test_an_encoder_that_ends_the_connection_or_the_membership_harms_nobody(end):
    conns: list[plumews.Conn] = []

    def encode(gap: Gap) -> str:
        ends: dict[str, Callable[[], object]] = {
            "close": conns[0].close_nowait,
            "abort": conns[0].abort,
            "leave": lambda: hub.remove(conns[0]),
        }
        ends[end]()
        return "gap"

    hub = Hub(HubConfig(encode_gap=encode))
    conn, transport = stalled(hub, send_behavior=SendBehavior.DROP)
    conns.append(conn)
    send(hub, *"abcd")
    transport.drain()
    await ticks(5)
    assert not hub.members("room") or end == "close"
    assert not any("gap" in line for line in texts(transport.wire)) or end == "leave"
    assert adds_up(hub.metrics())


async def test_bytes_leave_as_binary_and_a_long_gap_arrives_whole(start):
    hub = Hub(HubConfig(encode_gap=lambda gap: bytes([gap.dropped]) * 100_000))
    options: dict[str, Any] = {"send_behavior": SendBehavior.DROP_OLDEST, "queue_size": 2}
    async with crowd(start, 1, rcvbuf=4096, **options) as ((conn,), (wire,)):
        hub.join("room", conn)
        clog(conn)
        lost = conn.evicted_messages
        send(hub, *"abcdef")
        lost = conn.evicted_messages - lost
        got = []
        while not got or got[-1] != "f":
            got.append(await wire.message())
        assert got[-3:] == [bytes([lost]) * 100_000, "e", "f"]


async def test_nothing_is_remembered_of_a_member_that_keeps_up_again():
    hub = Hub(HubConfig(encode_gap=told))
    conn, transport = stalled(hub, send_behavior=SendBehavior.DROP)
    send(hub, *"abcd")
    assert conn in hub._slow.members
    await drained(transport)
    send(hub, "e")
    assert not hub._slow.members


@pytest.mark.parametrize("behavior", set(SendBehavior) - {SendBehavior.CLOSE}, ids=lambda behavior: behavior.name)
@pytest.mark.parametrize("seed", range(6))
async def test_where_messages_are_missing_stands_how_many_and_nowhere_else(behavior, seed):
    chance = random.Random(f"{behavior}{seed}")
    limit = 0 if behavior is SendBehavior.BLOCK else chance.choice([0, 300])
    hub = Hub(HubConfig(encode_gap=lambda gap: f"gap {gap.dropped}", max_queued_bytes=limit))
    config: dict[str, Any] = {"send_behavior": behavior, "queue_size": chance.choice([1, 2, 7]), "queue_bytes": 400}
    conn, transport = stalled(hub, send_timeout=0.001, **config)
    number = 0
    for _ in range(600):
        match chance.choice(["broadcast"] * 6 + ["direct", "fill", "fill", "drain", "resume", "turn", "pass"]):
            case "broadcast":
                number += 1
                hub.broadcast_room("room", f"{number} " + "x" * chance.choice([0, 0, 90, 200]))
            case "direct" if behavior is SendBehavior.DROP and not limit:  # else it might be among the missing ones
                with contextlib.suppress(plumews.SendQueueFull):
                    conn.send_nowait("direct")
            case "fill":
                transport.fill()
            case "drain":
                transport.full_after = chance.choice([None, 1])
                transport.drain()
            case "resume":
                transport.protocol.resume_writing()
            case "turn":
                await asyncio.sleep(0)
            case "pass":
                pass_time(0.002)  # longer than the send timeout
                await ticks()
    for _ in range(3):
        await drained(transport)
    hub.broadcast_room("room", f"{number + 1}")
    last = told_of = 0
    for line in await drained(transport):
        word, _, rest = line.partition(" ")
        if word == "gap":
            told_of += int(rest)
        elif word != "direct":
            assert int(word) == last + 1 + told_of
            last, told_of = int(word), 0
    assert last == number + 1
    assert hub.metrics().broadcast_queued == number + 1 - hub.metrics().broadcast_dropped


# --- what an encoder does besides -----------------------------------------------------------------


@pytest.mark.parametrize("place", [70, 71, 80], ids=["reached", "being reached", "still to be reached"])
@pytest.mark.parametrize("end", ["send", "close"])
async def test_what_an_encoder_sends_directly_makes_no_broadcast_come_twice(monkeypatch, place, end):
    monkeypatch.setattr(limits, "FAN_OUT_SLICE", 0.0)

    def encode(gap: Gap) -> str:
        conns[place].send_nowait("direct") if end == "send" else conns[place].close_nowait()
        return "gap"

    hub = Hub(HubConfig(encode_gap=encode))
    # In the second slice of a broadcast the one at 71 is told of its gap, because a shorter message finds space.
    conns, transports = joined(hub, "room", 71)
    slow, transport = stalled(hub, send_behavior=SendBehavior.DROP, queue_size=9, queue_bytes=100)
    others, more = joined(hub, "room", 60)
    conns, transports = [*conns, slow, *others], [*transports, transport, *more]
    await hub.publish("room", "a" * 50)
    await hub.publish("room", "b" * 90)
    send(hub, "c")
    await hub._broadcaster.scheduler.idle()
    await ticks()
    transport.drain()
    await ticks()
    metrics = hub.metrics()
    assert adds_up(metrics)
    assert metrics.broadcast_pending == 0
    lines = [texts(each.wire) for each in transports]
    assert sum(line.count("c") for line in lines) == metrics.broadcast_queued - (2 * len(conns) - 1)
    assert all(line.count("c") == 1 for conn, line in zip(conns, lines, strict=True) if conn.state is State.OPEN)
    if end == "send" and place != 71:
        assert lines[place][-2:] == ["c", "direct"]
    if place != 71:
        assert lines[71] == ["a" * 50, "gap", "c"]


async def test_an_encoder_cannot_broadcast_and_is_told_so():
    calls: list[Callable[[], object]] = [
        lambda: hub.broadcast_room("room", "x"),
        lambda: hub.broadcast_all("x"),
        lambda: hub.send_to_user("ann", "x"),
    ]

    def encode(gap: Gap) -> str:
        for call in calls:
            with pytest.raises(RuntimeError, match="encode_gap must not broadcast"):
                call()
        later.append(asyncio.ensure_future(hub.publish("room", "later")))
        return "gap"

    hub = Hub(HubConfig(encode_gap=encode))
    later: list[asyncio.Future[BroadcastResult]] = []
    _, transport = stalled(hub, send_behavior=SendBehavior.DROP)
    send(hub, *"abcd")
    assert await drained(transport) == ["a", "b", "c", "gap", "later"]
    assert await later[0] == BroadcastResult(matched=1, queued=1)
    send(hub, "e")
    await ticks()
    assert texts(transport.wire)[-1] == "e"


# --- the end --------------------------------------------------------------------------------------


async def the_peer_closes(hub: Hub, conn: plumews.Conn) -> None:
    feed(conn, close())


async def the_peer_is_wrong(hub: Hub, conn: plumews.Conn) -> None:
    feed(conn, b"\x83\x80\x00\x00\x00\x00")


async def it_is_closed(hub: Hub, conn: plumews.Conn) -> None:
    conn.close_nowait(4000, "token expired")


async def the_user_is_disconnected(hub: Hub, conn: plumews.Conn) -> None:
    conn.user_info = plumews.UserInfo("ann")
    hub.join("people", conn)
    hub.disconnect_user("ann")


async def the_hub_stops(hub: Hub, conn: plumews.Conn) -> None:
    hub.join("members", conn)
    stopping = asyncio.ensure_future(hub.shutdown(0.1, spread=0))
    conn.add_close_callback(lambda conn: stopping)
    await until(lambda: conn.closed)  # full members may make room for half of the time


ENDS = (the_peer_closes, the_peer_is_wrong, it_is_closed, the_user_is_disconnected, the_hub_stops)
#: Those that deliver what waits.
TELLING = sorted(set(SendBehavior) - {SendBehavior.CLOSE}, key=lambda behavior: behavior.name)


class Outcome:
    """What hubs told their callbacks."""

    def __init__(self, *hubs: Hub) -> None:
        self.drops = self.gaps = 0
        for hub in hubs:
            hub.on_drop(self.dropped)
            hub.on_gap(self.gap)

    def dropped(self, conn: plumews.Conn, room: str | None, count: int) -> None:
        self.drops += count

    def gap(self, conn: plumews.Conn, gap: Gap) -> None:
        self.gaps += gap.dropped


def in_place(lines: list[str], sent: list[str]) -> bool:
    """Whether ``lines`` are what was ``sent``, and a number wherever something is missing."""
    at = 0
    for line in lines:
        word, _, count = line.partition(" ")
        if word == "gap":
            at += int(count)
        elif sent[at] == line:
            at += 1
        else:
            return False
    return at == len(sent)


def counted(gap: Gap) -> str:
    return f"gap {gap.dropped}"


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
@pytest.mark.parametrize("behavior", TELLING, ids=lambda behavior: behavior.name)
async def test_end_tells_each_gap_before_the_close_frame(behavior, end):
    hub = Hub(HubConfig(encode_gap=counted))
    outcome = Outcome(hub)
    conn, transport = stalled(hub, send_behavior=behavior, send_timeout=60)
    sent = [f"message {number}" for number in range(9)]
    send(hub, *sent)
    await end(hub, conn)
    transport.drain()
    await ticks()
    assert in_place(texts(transport.wire), sent)
    assert transport.events()[-1][0] == Opcode.CLOSE
    assert outcome.drops == outcome.gaps == conn.dropped_messages
    assert adds_up(hub.metrics())


@pytest.mark.parametrize("behavior", TELLING, ids=lambda behavior: behavior.name)
@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "compressed"])
async def test_server_close_tells_each_gap_to_clients_that_read_late(start, behavior, compressed):
    hub = Hub(HubConfig(encode_gap=counted))
    opened: asyncio.Queue[plumews.Conn] = asyncio.Queue()
    server = await start(
        plumews.serve(
            host="127.0.0.1",
            port=0,
            on_open=opened.put_nowait,
            on_message=lambda conn, message: None,
            send_behavior=behavior,
            send_timeout=0.001,
            queue_size=4,
            compression="deflate",
        )
    )
    async with await (Squeezing if compressed else Wire).open(server, rcvbuf=4096) as wire:
        conn = await opened.get()
        conn._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        hub.join("room", conn)
        sent: list[str] = []
        while not conn.dropped_messages or len(sent) % 10:
            sent.append(f"message {len(sent)} {random.Random(0).randbytes(2000).hex()}")
            await hub.publish("room", sent[-1])
            await asyncio.sleep(0)
        server.close(spread=0)
        lines = []
        while True:
            kind, data = await wire.event()
            if kind == Opcode.CLOSE:
                break
            lines.append(unsqueezed(data).decode() if kind & COMPRESSED else data)
        text = [line if isinstance(line, str) else line.decode() for line in lines]
        assert in_place(text, sent)


@pytest.mark.parametrize("behavior", set(SendBehavior) - {SendBehavior.CLOSE}, ids=lambda behavior: behavior.name)
@pytest.mark.parametrize("seed", range(8))
async def test_gaps_add_up_whatever_rooms_hubs_and_ends(behavior, seed):
    chance = random.Random(f"{behavior}{seed}")
    hubs = [Hub(HubConfig(encode_gap=counted)) for _ in range(chance.choice([1, 1, 2]))]
    outcome = Outcome(*hubs)
    config = {"send_behavior": behavior, "queue_size": chance.choice([1, 2, 7]), "send_timeout": 0.05}
    conn, transport = fake_conn(ping_interval=None, **config)
    rooms: set[tuple[Hub, str]] = set()
    sent: list[str] = []
    for _ in range(300):
        hub, room = chance.choice(hubs), chance.choice("ab")
        match chance.choice(["broadcast"] * 6 + ["join", "join", "leave", "fill", "fill", "drain", "turn", "pass"]):
            case "broadcast" if (hub, room) in rooms:
                sent.append(f"message {len(sent)}")
                hub.broadcast_room(room, sent[-1])
            case "join":
                hub.join(room, conn)
                rooms.add((hub, room))
            case "leave":
                hub.leave(room, conn)
                rooms.discard((hub, room))
            case "fill":
                transport.fill()
            case "drain":
                transport.drain()
            case "turn":
                await asyncio.sleep(0)
            case "pass":
                pass_time(0.06)
                await ticks()
    await chance.choice(ENDS)(hubs[0], conn)
    transport.drain()
    await ticks()
    lines = texts(transport.wire)
    told = sum(int(line.split()[1]) for line in lines if line.startswith("gap"))
    assert len(lines) - sum(line.startswith("gap") for line in lines) + told == len(sent)
    assert len(hubs) == 2 or in_place(lines, sent)
    assert outcome.drops == outcome.gaps
    conn.abort()
    await ticks()
    assert all(not hub._slow._gone and not hub._slow.members for hub in hubs)


@pytest.mark.parametrize("behavior", list(SendBehavior), ids=lambda behavior: behavior.name)
@pytest.mark.parametrize("end", ["abort", "reset", "too slow"])
async def test_end_without_delivery_tells_the_application_alone(behavior, end):
    hub = Hub(HubConfig(encode_gap=counted))
    outcome = Outcome(hub)
    conn, transport = stalled(hub, send_behavior=behavior, send_timeout=0.01)
    send(hub, *"abcdefg")
    pass_time(1)
    await ticks()
    if end == "abort":
        conn.abort()
    elif end == "reset":
        conn.connection_lost(ConnectionResetError())
    else:
        conn._evict()
    transport.drain() if conn._transport is not None else None
    await ticks()
    assert texts(transport.wire) == []
    assert outcome.drops == outcome.gaps == conn.dropped_messages > 0
    conn.abort()
    await ticks()
    assert not hub._slow.members


async def test_shutdown_tells_what_it_gave_up_before_it_was_reached(sliced):
    hub = Hub(HubConfig(encode_gap=counted))
    pairs = [stalled(hub) for _ in range(200)]
    for _, transport in pairs:
        transport.drain()
    for number in range(3):
        hub.broadcast_room("room", f"message {number}")
    assert hub.metrics().broadcast_pending
    stopping = asyncio.ensure_future(hub.shutdown(0))
    await ticks()
    await stopping
    assert hub.metrics().broadcast_dropped_by["stopped"]
    for _, transport in pairs:
        assert in_place(texts(transport.wire), [f"message {number}" for number in range(3)])


async def test_shutdown_report_counts_no_gap_event_as_a_message():
    hub = Hub(HubConfig(encode_gap=counted))
    (_, stuck), (_, reading) = (stalled(hub, send_behavior=SendBehavior.DROP) for _ in range(2))
    send(hub, *"abcdef")
    stopping = asyncio.ensure_future(hub.shutdown(1, spread=0, reconnect_in=0))
    await ticks()
    reading.drain()
    pass_time(2)
    await ticks()
    assert texts(stuck.wire) == []
    assert texts(reading.wire) == [*"abc", "gap 3"]
    report = await stopping
    assert (report.delivered_messages, report.undelivered_messages) == (3, 3)


async def test_gap_in_front_is_told_though_a_message_in_pieces_follows():
    hub = Hub(HubConfig(encode_gap=counted))
    conn, transport = stalled(hub, send_behavior=SendBehavior.DROP_OLDEST)
    send(hub, *"abcde")
    sending = asyncio.ensure_future(conn.send(iter(["one ", "message"])))
    await ticks()
    send(hub, "f")
    conn.close_nowait()
    transport.drain()
    await ticks()
    assert texts(transport.wire)[:4] == ["gap 2", *"cde"]
    with pytest.raises(plumews.ConnectionClosed):
        await sending


async def test_losses_in_very_many_rooms_are_told_as_a_sum():
    hub = Hub(HubConfig(encode_gap=told))
    conn, transport = stalled(hub, send_behavior=SendBehavior.DROP, queue_size=1)
    send(hub, "a")
    for number in range(2 * limits.ROOMS_PER_CONNECTION):
        hub.join(f"room {number}", conn)
        hub.broadcast_room(f"room {number}", "lost")
        hub.leave(f"room {number}", conn)
    lines = await drained(transport)
    assert len(lines) == limits.ROOMS_PER_CONNECTION + 2
    assert lines[-1] == f"None: {limits.ROOMS_PER_CONNECTION}"
