"""Callbacks about slow members: their time, their arguments, and callbacks that fail or change the hub."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import plumews
from plumews import Gap, Hub, HubConfig, SendBehavior
from support.fakes import FakeTransport, fake_conn, ticks
from support.members import adds_up, plain_member, stalled


def member(hub: Hub, *rooms: str, **config: Any) -> tuple[plumews.Conn, FakeTransport]:
    return stalled(hub, *rooms, **{"queue_size": 4, "send_behavior": SendBehavior.DROP, **config})


def send(hub: Hub, count: int) -> None:
    for _ in range(count):
        hub.broadcast_room("room", "x")


async def test_on_slow_is_called_once_until_the_queue_was_empty():
    hub = Hub()
    slow: list[plumews.Conn] = []
    hub.on_slow(slow.append)
    conn, transport = member(hub)
    send(hub, 1)
    await ticks()
    assert slow == []
    send(hub, 1)
    assert slow == []  # not within the broadcast
    await ticks()
    assert slow == [conn]
    send(hub, 9)
    await ticks()
    assert slow == [conn]
    transport.drain()
    await ticks()
    transport.fill()
    send(hub, 2)
    await ticks()
    assert slow == [conn, conn]


async def test_on_slow_is_called_for_half_of_the_byte_bound():
    hub = Hub()
    slow: list[plumews.Conn] = []
    hub.on_slow(slow.append)
    conn, _ = member(hub, queue_size=100, queue_bytes=1000)
    hub.broadcast_room("room", "x" * 400)
    await ticks()
    assert slow == []
    hub.broadcast_room("room", "x" * 100)
    await ticks()
    assert slow == [conn]


async def test_on_slow_is_called_for_a_queue_of_direct_messages():
    hub = Hub()
    slow: list[plumews.Conn] = []
    hub.on_slow(slow.append)
    conn, _ = member(hub)
    while conn.queued_messages < 4:
        conn.send_nowait("direct")
    send(hub, 1)
    await ticks()
    assert slow == [conn]


async def test_on_slow_is_not_called_for_members_that_keep_up():
    hub = Hub()
    slow: list[plumews.Conn] = []
    hub.on_slow(slow.append)
    hub.join("room", fake_conn(queue_size=4)[0])
    send(hub, 100)
    await ticks()
    assert slow == []


async def test_on_drop_adds_up_one_iteration_by_member_and_room():
    hub = Hub()
    drops: list[Any] = []
    hub.on_drop(lambda *drop: drops.append(drop))
    refusing, _ = member(hub, "room", "other")
    displacing, _ = member(hub, send_behavior=SendBehavior.DROP_OLDEST)
    closing, _ = member(hub, send_behavior=SendBehavior.CLOSE)
    send(hub, 7)
    hub.broadcast_room("other", "x")
    hub.broadcast_all("x")
    assert drops == []
    await ticks()
    assert drops == [
        (refusing, "room", 3),
        (displacing, "room", 4),
        (closing, "room", 1),
        (refusing, "other", 1),
        (refusing, None, 1),
    ]


async def test_on_drop_is_called_after_a_send_timeout():
    hub = Hub()
    drops: list[Any] = []
    hub.on_drop(lambda *drop: drops.append(drop))
    conn, _ = member(hub, send_behavior=SendBehavior.BLOCK, send_timeout=0.01)
    send(hub, 6)
    await hub.publish("room", "x")
    await ticks()
    assert drops == [(conn, "room", 3)]


@pytest.mark.parametrize("encode_gap", [None, lambda gap: "gap"], ids=["no event", "an event"])
async def test_on_gap_is_called_when_the_member_reads_again(encode_gap):
    hub = Hub(HubConfig(encode_gap=encode_gap))
    gaps: list[Any] = []
    hub.on_gap(lambda *gap: gaps.append(gap))
    conn, transport = member(hub)
    send(hub, 7)
    await ticks()
    assert gaps == []
    transport.drain()
    await ticks()
    assert gaps == [(conn, Gap("room", 3))]


async def test_ended_callback_is_not_called_in_the_same_iteration():
    hub = Hub()
    heard: list[str] = []
    ends = []

    def first(*_: object) -> None:
        heard.append("first")
        ends[1]()

    ends = [hub.on_drop(first), hub.on_drop(lambda *_: heard.append("second"))]
    plain_member(hub, space=4)
    send(hub, 5)
    await ticks()
    assert heard == ["first"]
    ends[0]()
    ends[0]()
    send(hub, 5)
    await ticks()
    assert heard == ["first"]


async def test_callback_registered_twice_can_be_ended_once():
    hub = Hub()
    heard: list[Any] = []
    callback = lambda *_: heard.append(1)  # noqa: E731
    end = hub.on_drop(callback)
    hub.on_drop(callback)
    plain_member(hub, space=4)
    send(hub, 5)
    await ticks()
    assert len(heard) == 2
    end()
    send(hub, 1)
    await ticks()
    assert len(heard) == 3


async def test_failing_callback_does_not_affect_the_others():
    failures: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: failures.append(context))
    hub = Hub()
    heard: list[str] = []
    for register in (hub.on_slow, hub.on_drop, hub.on_gap):
        register(lambda *_: 1 / 0)
        register(lambda *_: heard.append("told"))
    _, transport = member(hub)
    send(hub, 5)
    transport.drain()
    await ticks()
    assert heard == ["told"] * 3
    assert [failure["message"] for failure in failures] == [
        f"a callback of the hub ({kind}) failed" for kind in ("slow", "drop", "gap")
    ]


@pytest.mark.parametrize("which", ["on_slow", "on_drop", "on_gap"])
async def test_callback_may_join_leave_close_and_publish(which):
    hub = Hub(HubConfig(encode_gap=lambda gap: "gap"))
    calls: list[plumews.Conn] = []

    def callback(conn: plumews.Conn, *_: object) -> None:
        calls.append(conn)
        if len(calls) > 20:
            return
        hub.broadcast_room("room", "from a callback")
        hub.broadcast_all("to all")
        newcomer, _ = fake_conn(ping_interval=None)
        hub.join("room", newcomer)
        hub.leave("room", conn)
        hub.join("room", conn) if len(calls) % 2 and not conn.closed else conn.abort()

    getattr(hub, which)(callback)
    transports = [member(hub)[1] for _ in range(4)]
    send(hub, 8)
    for transport in transports:
        if not transport.closing:
            transport.drain()
    await ticks(30)
    assert calls
    assert adds_up(hub.metrics())
    assert hub.metrics().broadcast_pending == 0
