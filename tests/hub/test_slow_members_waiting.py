"""Broadcasts that wait for one member: their order, direct messages between them, and their end."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable

import pytest

import plumews
from plumews import Hub, SendBehavior
from plumews.hub.slow_members import PendingDeliveries
from plumews.protocol.message import EncodedMessage, encode
from plumews.transport import displacing, waiters
from support.fakes import fake_conn, pass_time, ticks
from support.members import drained, stalled

BLOCK = {"send_behavior": SendBehavior.BLOCK, "send_timeout": 60, "queue_size": 4}


def filled(hub: Hub) -> tuple[plumews.Conn, object]:
    conn, transport = stalled(hub, **BLOCK)
    for number in range(4):
        hub.broadcast_room("room", f"filler {number}")
    return conn, transport


def lines() -> list[PendingDeliveries]:
    return [each for each in gc.get_objects() if isinstance(each, PendingDeliveries)]


def pending(conn: plumews.Conn, emptied: Callable[[], None]) -> PendingDeliveries:
    """Return an empty list of deliveries that wait for ``conn``, 60 s at most."""
    deadline = conn._state.timers.after(60, lambda: None)
    return PendingDeliveries(conn, deadline, emptied, lambda delivery, conn: delivery._drop("ended"), set())


class Sent:
    """Broadcast that records its decisions."""

    def __init__(self, text: str) -> None:
        self.message: EncodedMessage = encode(1, text.encode())
        self.told: list[str] = []

    def encoding_for(self, conn: plumews.Conn) -> EncodedMessage:
        return self.message

    def _queue(self) -> None:
        self.told.append("queued")

    def _drop(self, cause: str) -> None:
        self.told.append(cause)


async def test_successive_broadcasts_take_one_place_in_the_channel():
    hub = Hub()
    conn, transport = filled(hub)
    for text in "abc":
        hub.broadcast_room("room", text)
    assert (waiters.count(conn), len(hub._slow.waiting())) == (1, 3)
    assert (await drained(transport))[4:] == ["a", "b", "c"]


async def test_direct_message_keeps_its_place_between_broadcasts():
    hub = Hub()
    conn, transport = filled(hub)
    hub.broadcast_room("room", "a")
    hub.broadcast_room("room", "b")
    direct = asyncio.create_task(conn.send("direct"))
    await ticks()
    hub.broadcast_room("room", "c")
    assert (waiters.count(conn), len(hub._slow.waiting())) == (3, 3)
    assert (await drained(transport))[4:] == ["a", "b", "direct", "c"]
    await direct


async def test_direct_message_waits_on_when_broadcasts_time_out():
    hub = Hub()
    conn, transport = stalled(hub, **{**BLOCK, "send_timeout": 5})
    for number in range(4):
        hub.broadcast_room("room", f"filler {number}")
    assert hub.broadcast_room("room", "a").pending == 1
    pass_time(3)
    direct = asyncio.create_task(conn.send("direct"))
    await ticks()
    hub.broadcast_room("room", "b")
    pass_time(3)
    await ticks()
    assert (waiters.count(conn), hub._slow.waiting(), hub.metrics().broadcast_dropped) == (1, [], 2)
    assert (await drained(transport))[4:] == ["direct"]
    await direct


async def test_waiting_deliveries_are_dropped_once_at_the_end():
    conn, transport = fake_conn(queue_size=1)
    transport.fill()
    conn.send_nowait("filler")
    emptied: list[int] = []
    line = pending(conn, lambda: emptied.append(len(line)))
    sent = [Sent(text) for text in "abc"]
    for each in sent:
        line.add(each)
    assert (len(line), list(line)) == (3, sent)
    conn.abort()
    await ticks()
    assert [each.told for each in sent] == [["ended"]] * 3
    assert (len(line), emptied) == (0, [0])


async def test_one_delivery_finds_space_and_the_rest_waits_on():
    conn, transport = fake_conn(queue_size=1)
    transport.fill()
    conn.send_nowait("filler")
    line = pending(conn, lambda: None)
    sent = [Sent(text) for text in "abc"]
    for each in sent:
        line.add(each)
    displacing.drop_queued(conn)
    conn._end_pieces()  # asks who waits
    assert [each.told for each in sent] == [["queued"], [], []]
    assert (len(line), waiters.count(conn)) == (2, 1)
    assert list(line.clear()) == [sent[2], sent[1]]
    assert (len(line), waiters.count(conn)) == (0, 0)


@pytest.mark.parametrize("end", ["space", "time"])
async def test_pending_deliveries_are_freed_when_they_are_empty(end: str):
    hub = Hub()
    conn, transport = filled(hub)
    hub.broadcast_room("room", "a")
    gc.collect()
    assert [hub._slow.members[conn].waiting] == lines()
    gc.disable()
    try:
        if end == "space":
            await drained(transport)
        else:
            pass_time(60)
        await ticks()
        assert lines() == []
    finally:
        gc.enable()
