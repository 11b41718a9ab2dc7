"""Gap events that a member gets about lost messages: their places, their numbers, their encoders."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections.abc import Callable
from typing import Any

import pytest

import plumews
from plumews import BroadcastResult, Gap, Hub, HubConfig, SendBehavior, State, limits
from support.fakes import clog, pass_time, ticks
from support.members import adds_up, crowd, drained, joined, messages, send, stalled, texts, told


async def test_gap_of_refused_messages_stands_behind_the_queue():
    hub = Hub(HubConfig(encode_gap=told))
    _, transport = stalled(hub, send_behavior=SendBehavior.DROP)
    assert [result.dropped for result in send(hub, *"abcdefg")] == [0, 0, 0, 1, 1, 1, 1]
    assert await drained(transport) == ["a", "b", "c", "room: 4"]
    send(hub, "h")
    await ticks()
    assert texts(transport.wire) == ["a", "b", "c", "room: 4", "h"]


async def test_gap_of_displaced_messages_stands_before_the_queue():
    hub = Hub(HubConfig(encode_gap=told))
    _, transport = stalled(hub, send_behavior=SendBehavior.DROP_OLDEST)
    send(hub, *"abcdefg")
    assert await drained(transport) == ["room: 4", "e", "f", "g"]


async def test_member_of_several_rooms_gets_a_gap_for_each():
    hub = Hub(HubConfig(encode_gap=told))
    conn, transport = stalled(hub, "a", "b", "c", send_behavior=SendBehavior.DROP, queue_size=1)
    for room in "aabbbc":
        hub.broadcast_room(room, room)
    hub.broadcast_all("all")
    hub.leave("c", conn)
    assert await drained(transport) == ["a", "a: 1", "b: 3", "c: 1", "None: 1"]


async def test_gap_of_a_member_of_two_rooms_names_no_room():
    hub = Hub(HubConfig(encode_gap=told))
    _, transport = stalled(hub, "a", "b", send_behavior=SendBehavior.DROP_OLDEST, queue_size=1)
    hub.broadcast_room("a", "1")
    hub.broadcast_room("b", "2")
    assert await drained(transport) == ["None: 1", "2"]


async def test_gap_of_a_member_of_two_hubs_names_no_room():
    hub, other = Hub(HubConfig(encode_gap=told)), Hub()
    conn, transport = stalled(hub, "a", send_behavior=SendBehavior.DROP_OLDEST, queue_size=1)
    other.join("b", conn)
    other.broadcast_room("b", "1")
    hub.broadcast_room("a", "2")
    assert await drained(transport) == ["None: 1", "2"]


async def test_shorter_message_that_finds_space_stands_behind_the_gap():
    hub = Hub(HubConfig(encode_gap=told))
    _, transport = stalled(hub, send_behavior=SendBehavior.DROP, queue_bytes=100)
    send(hub, "a" * 50, "b" * 90, "c")
    assert await drained(transport) == ["a" * 50, "room: 1", "c"]


async def test_direct_message_that_finds_space_stands_behind_the_gap():
    hub = Hub(HubConfig(encode_gap=told))
    conn, transport = stalled(hub, send_behavior=SendBehavior.DROP, queue_bytes=100)
    send(hub, "a" * 50, "b" * 90)
    conn.send_nowait("direct")
    assert await drained(transport) == ["a" * 50, "room: 1", "direct"]


async def test_direct_message_without_space_leaves_the_gap_for_later():
    hub = Hub(HubConfig(encode_gap=told))
    conn, transport = stalled(hub, send_behavior=SendBehavior.DROP)
    send(hub, *"abcd")
    for _ in range(3):
        with pytest.raises(plumews.SendQueueFull):
            conn.send_nowait("direct")
    assert await drained(transport) == ["a", "b", "c", "room: 1"]
    conn.send_nowait("direct")
    assert await drained(transport) == ["a", "b", "c", "room: 1", "direct"]


async def test_gap_after_a_send_timeout_stands_behind_the_queue():
    hub = Hub(HubConfig(encode_gap=told))
    _, transport = stalled(hub, send_timeout=0.01)
    send(hub, *"abc")
    await asyncio.gather(*(hub.publish("room", line) for line in "defg"))
    assert await drained(transport) == ["a", "b", "c", "room: 4"]


async def test_gap_stands_behind_broadcasts_that_wait_for_space():
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


async def test_shorter_message_does_not_pass_others_at_the_timeout():
    hub = Hub(HubConfig(encode_gap=told))
    _, transport = stalled(hub, send_timeout=0.01, queue_bytes=100)
    send(hub, "a" * 50)
    await asyncio.gather(hub.publish("room", "b" * 90), hub.publish("room", "c"))
    assert await drained(transport) == ["a" * 50, "room: 2"]


async def test_gap_during_a_message_in_pieces_stands_at_its_end(start):
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


async def test_gap_never_stands_inside_a_message_in_pieces(start):
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


async def test_gaps_of_several_rooms_stand_in_the_order_of_the_losses():
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
async def test_encoder_without_a_message_harms_no_member(encode, complaints):
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
async def test_encoder_that_ends_the_member_harms_no_other(end):
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


async def test_long_gap_as_bytes_arrives_whole(start):
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


async def test_member_that_keeps_up_again_is_forgotten():
    hub = Hub(HubConfig(encode_gap=told))
    conn, transport = stalled(hub, send_behavior=SendBehavior.DROP)
    send(hub, *"abcd")
    assert conn in hub._slow.members
    await drained(transport)
    send(hub, "e")
    assert not hub._slow.members


@pytest.mark.parametrize(
    "behavior", [each for each in SendBehavior if each is not SendBehavior.CLOSE], ids=lambda behavior: behavior.name
)
@pytest.mark.parametrize("seed", range(6))
async def test_gaps_stand_exactly_where_messages_are_missing(behavior, seed):
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


# --- encoders with side effects -------------------------------------------------------------------


@pytest.mark.parametrize("place", [70, 71, 80], ids=["reached", "being reached", "still to be reached"])
@pytest.mark.parametrize("end", ["send", "close"])
async def test_direct_send_of_an_encoder_repeats_no_broadcast(monkeypatch, place, end):
    monkeypatch.setattr(limits, "FAN_OUT_SLICE", 0.0)

    def encode(gap: Gap) -> str:
        conns[place].send_nowait("direct") if end == "send" else conns[place].close_nowait()
        return "gap"

    hub = Hub(HubConfig(encode_gap=encode))
    # In the second slice of a broadcast the member at 71 gets its gap, because a shorter message finds space.
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


async def test_broadcast_by_an_encoder_raises_runtime_error():
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
