"""Tests of encode_recovered: the message that is sent before the missed ones."""

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
    ConnectionClosed,
    HistoryLimits,
    Recovery,
    SendBehavior,
)
from plumews.constants import Opcode
from plumews.protocol.codec import build_frame
from support.fakes import ticks
from support.history_setup import START, newcomer, position, remembering
from support.members import PlainMember, crowd, texts


@contextlib.asynccontextmanager
async def crowd_of(start: Callable[[Any], Any], deflate: plumews.Deflate) -> AsyncIterator[tuple[plumews.Conn, Any]]:
    """Open a compressed connection, and give it with its client."""
    opened: asyncio.Queue[plumews.Conn] = asyncio.Queue()
    serving = plumews.serve(
        host="127.0.0.1", port=0, on_open=opened.put_nowait, on_message=lambda conn, message: None, compression=deflate
    )
    server = await start(serving)
    async with websockets.connect(f"ws://127.0.0.1:{server.port}", proxy=None) as client:
        yield await opened.get(), client


# --- recovery event -------------------------------------------------------------------------------


async def test_recovery_event_comes_before_missed_messages():
    hub = remembering()
    hub.on_join(lambda room, conn: hub.broadcast_room(room, "live"))
    for number in range(2):
        hub.broadcast_room("chat", str(number))
    conn = PlainMember()
    told: list[Recovery] = []

    def encode(recovery: Recovery) -> str:
        told.append(recovery)
        return "event"

    assert hub.recover("chat", conn, START, encode_recovered=encode) == told[0] == Recovery(True, 2, told[0].position)
    await ticks()
    assert conn.messages == ["event", "0", "1", "live"]


@pytest.mark.parametrize("behavior", list(SendBehavior), ids=str)
async def test_recovery_event_tells_the_truth_about_a_full_queue(behavior):
    hub = remembering()
    for number in range(5):
        hub.broadcast_room("chat", str(number))
    conn, transport = newcomer(queue_size=3, send_behavior=behavior)
    transport.fill()
    recovery = hub.recover("chat", conn, START, encode_recovered=lambda recovery: f"{recovery.messages} follow")
    assert (recovery.complete, recovery.messages, conn.dropped_messages) == (False, 3, 2)
    transport.drain()
    assert texts(transport.wire) == ["3 follow", "0", "1", "2"]


@pytest.mark.parametrize("behavior", list(SendBehavior), ids=str)
async def test_recovery_that_began_to_leave_is_not_displaced(behavior):
    """The socket takes the first bytes only. The announced messages follow all the same."""
    hub = remembering()
    for number in range(10):
        hub.broadcast_room("chat", f"{number} {'x' * 100_000}")
    conn, transport = newcomer(queue_size=3, send_behavior=behavior, send_timeout=None)
    transport.full_after = 1
    assert hub.recover("chat", conn, START, encode_recovered=lambda recovery: "event").complete
    assert conn._paused
    for number in range(10, 13):
        hub.broadcast_room("chat", f"{number} live")
    while conn._paused or conn.queued_messages:
        transport.drain()
    got = [text.partition(" ")[0] for text in texts(transport.wire)]
    assert got == ["event", *map(str, range(13))]


@pytest.mark.parametrize("first", ["x", "", 300 * "x"])
async def test_recovery_never_parts_a_header_from_its_payload(first):
    """A write may end anywhere. The next ping comes between two frames."""
    hub = remembering()
    sent = [bytes(20_000) for _ in range(30)]
    for message in sent:
        hub.broadcast_room("chat", message)
    conn, transport = newcomer(queue_size=4)
    transport.full_after = 1
    assert hub.recover("chat", conn, START, encode_recovered=lambda recovery: first).messages == 30
    assert len(transport.wire) < 300_000
    conn._queue_ping(build_frame(Opcode.PING, b""))
    transport.drain()
    got = [payload for kind, payload in transport.events() if kind in (Opcode.TEXT, Opcode.BINARY)]
    assert got == [first, *sent]
    assert (Opcode.PING, b"") in transport.events()


@pytest.mark.parametrize("size", [10, 20_000, 100_000])
async def test_aborted_recovery_counts_unsent_messages(size):
    hub = remembering(history=HistoryLimits(max_messages=1000, max_bytes=2**24))
    count = 600_000 // size if size > 10 else 1000
    for _ in range(count):
        hub.broadcast_room("chat", bytes(size))
    conn, transport = newcomer(queue_size=4)
    transport.full_after = 1
    assert hub.recover("chat", conn, START, encode_recovered=lambda recovery: "event").messages == count
    whole = len(transport.events()) - 1
    conn.abort()
    assert conn._lost[0] in (count - whole, count - whole - 1), "one may have begun to leave"
    assert conn._lost[0] > 0 or size == 10


async def test_recovery_of_any_sizes_passes_narrow_socket(start):
    hub = remembering(history=HistoryLimits(max_bytes=2**24))
    rng = random.Random(20)
    sent = [bytes(rng.choice((0, 3, 130, 16 * 1024, 16 * 1024 + 1, 70_000, 200_000))) for _ in range(60)]
    for message in sent:
        hub.broadcast_room("chat", message)
    async with crowd(start, 1, rcvbuf=4096, queue_size=4) as ((conn,), (wire,)):
        conn._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        assert hub.recover("chat", conn, START, encode_recovered=lambda recovery: "event").messages == 60
        assert conn._paused
        got: list[Any] = []
        while len(got) < 61:
            conn._queue_ping(build_frame(Opcode.PING, b""))
            opcode, payload = await wire.event()
            if opcode != Opcode.PING:
                got.append(payload)
    assert got == ["event", *sent]


@pytest.mark.parametrize("takeover", [True, False])
async def test_recovery_of_compressed_connection_is_complete(start, takeover):
    hub = remembering()
    lines = [f"{number} {'the same again ' * 40}" for number in range(20)]
    for line in lines:
        hub.broadcast_room("chat", line)
    deflate = plumews.Deflate(server_takeover=takeover)
    async with crowd_of(start, deflate) as (conn, client):
        assert conn.compression is not None
        assert hub.recover("chat", conn, START, encode_recovered=lambda recovery: "event").messages == 20
        hub.broadcast_room("chat", "live")
        assert [await client.recv() for _ in range(22)] == ["event", *lines, "live"]


@pytest.mark.parametrize("said", [1, {"type": "recovered"}, "\ud800"], ids=type)
async def test_recovery_event_of_other_types_leaves_no_member(said):
    hub = remembering()
    hub.broadcast_room("chat", "x")
    conn = PlainMember()
    with pytest.raises((TypeError, ValueError)):
        hub.recover("chat", conn, START, encode_recovered=lambda recovery: said)  # type: ignore[arg-type]
    assert hub.members("chat") == []
    await ticks()
    assert conn.messages == []


async def test_recovery_event_cannot_broadcast_or_close():
    hub = remembering()
    hub.broadcast_room("chat", "x")
    conn, transport = newcomer()

    def broadcasts(recovery: Recovery) -> None:
        hub.broadcast_room("chat", "in between")

    def closes(recovery: Recovery) -> None:
        conn.close_nowait()

    with pytest.raises(RuntimeError, match="what makes the text of a message must not broadcast"):
        hub.recover("chat", conn, START, encode_recovered=broadcasts)
    with pytest.raises(ConnectionClosed):
        hub.recover("chat", conn, START, encode_recovered=closes)
    assert hub.members("chat") == []
    await ticks()
    assert texts(transport.wire) == []
    assert position(hub).offset == 1


async def test_failed_recovery_reports_no_join_and_no_leave() -> None:
    hub = remembering()
    conn = PlainMember()
    heard: list[str] = []
    hub.on_join(lambda room, conn: heard.append(f"+{room}"))
    hub.on_leave(lambda room, conn: heard.append(f"-{room}"))
    hub.watch_count("chat", lambda room, count: heard.append(f"{count}"))
    hub.watch_presence("chat", lambda room, joined, left: heard.append(f"{len(joined)}, {len(left)}"))
    await ticks()
    heard.clear()
    conn.user_info = plumews.UserInfo("1", "Ada")
    with pytest.raises(ZeroDivisionError):
        hub.recover("chat", conn, START, encode_recovered=lambda recovery: str(1 // 0))
    await ticks()
    assert [one for one in heard if one != "0"] == []
    assert hub.presence("chat").users == ()
    hub.recover("chat", conn, START)
    hub.leave("chat", conn)
    await ticks()
    assert [one for one in heard if one[0] in "+-"] == ["+chat", "-chat"]
