"""Gap events at the end of a connection or a hub: before the close frame, or in callbacks only."""

from __future__ import annotations

import asyncio
import random
import socket

import pytest

import plumews
from plumews import Gap, Hub, HubConfig, Opcode, SendBehavior, limits
from plumews.conn.full_queue import evict
from plumews.constants import COMPRESSED
from support.compressed_messages import Squeezing, unsqueezed
from support.fakes import fake_conn, feed, pass_time, ticks, until
from support.members import adds_up, drained, send, stalled, texts, told
from support.raw_client import Wire, close


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
    """Losses that hubs told their callbacks."""

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
    """Return True if ``lines`` are the messages ``sent``, with a number at the place of missing ones."""
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
async def test_gaps_stand_before_the_close_frame(behavior, end):
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
async def test_server_close_sends_each_gap_to_late_readers(start, behavior, compressed):
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


@pytest.mark.parametrize(
    "behavior", [each for each in SendBehavior if each is not SendBehavior.CLOSE], ids=lambda behavior: behavior.name
)
@pytest.mark.parametrize("seed", range(8))
async def test_gaps_add_up_over_rooms_hubs_and_ends(behavior, seed):
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
    assert not any(hub._slow.members for hub in hubs)


@pytest.mark.parametrize("behavior", list(SendBehavior), ids=lambda behavior: behavior.name)
@pytest.mark.parametrize("end", ["abort", "reset", "too slow"])
async def test_end_without_delivery_calls_on_gap_only(behavior, end):
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
        evict(conn)
    transport.drain() if conn._transport is not None else None
    await ticks()
    assert texts(transport.wire) == []
    assert outcome.drops == outcome.gaps == conn.dropped_messages > 0
    conn.abort()
    await ticks()
    assert not hub._slow.members


async def test_shutdown_sends_gaps_of_unreached_broadcasts(sliced):
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


async def test_shutdown_report_does_not_count_gap_events():
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


async def test_gap_stands_before_the_queue_and_a_message_in_pieces():
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


async def test_losses_in_very_many_rooms_are_reported_as_a_sum():
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
