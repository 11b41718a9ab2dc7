"""Tests of Hub: messages, callbacks that use the hub, threads and event loops."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable
from typing import Any

import pytest

import plumews
from plumews import (
    BroadcastResult,
    CloseCode,
    ConcurrencyError,
    Hub,
    Opcode,
)
from support.fakes import fake_conn, ticks
from support.members import PlainMember, adds_up, crowd, joined, messages, plain_members
from support.raw_client import close, text

# --- messages -------------------------------------------------------------------------------------


async def test_broadcast_room_reaches_members_of_that_room_only(start):
    hub = Hub()
    async with crowd(start, 3) as (conns, wires):
        hub.join("chat", conns[0])
        hub.join("chat", conns[1])
        hub.join("news", conns[2])
        assert hub.broadcast_room("chat", "hello") == BroadcastResult(matched=2, queued=2)
        hub.broadcast_room("news", "other")
        assert [await wire.message() for wire in wires] == ["hello", "hello", "other"]


async def test_broadcast_all_reaches_each_member_of_any_room_once(start):
    hub = Hub()
    async with crowd(start, 3) as (conns, wires):
        for room in ("a", "b", "c"):
            hub.join(room, conns[0])
        hub.join("b", conns[1])
        assert hub.broadcast_all("System Announcement").matched == 2
        hub.join("a", conns[2])
        hub.broadcast_all("end")
        assert await messages(wires[0], 2) == await messages(wires[1], 2) == ["System Announcement", "end"]
        assert await wires[2].message() == "end"


async def test_broadcast_to_empty_room_is_no_error():
    hub = Hub()
    assert hub.broadcast_room("nowhere", "x") == BroadcastResult()
    assert hub.broadcast_all("x") == BroadcastResult()
    assert await hub.publish("nowhere", "x") == BroadcastResult()
    assert not hub.broadcast_room("nowhere", "x").rejected
    assert hub.metrics().broadcasts_total == 4


@pytest.mark.parametrize(
    ("data", "opcode", "event"),
    [
        ("grüße", None, (Opcode.TEXT, "grüße")),
        (b"\xff\x00", None, (Opcode.BINARY, b"\xff\x00")),
        (bytearray(b"ab"), None, (Opcode.BINARY, b"ab")),
        (memoryview(b"abcd")[::2], None, (Opcode.BINARY, b"ac")),
        ("grüße", Opcode.BINARY, (Opcode.BINARY, "grüße".encode())),
        ("grüße".encode(), Opcode.TEXT, (Opcode.TEXT, "grüße")),
        ("", None, (Opcode.TEXT, "")),
        (bytes(200_000), None, (Opcode.BINARY, bytes(200_000))),
    ],
    ids=["str", "bytes", "bytearray", "strided view", "str as binary", "bytes as text", "empty", "in fragments"],
)
async def test_broadcast_sends_text_and_binary_by_type_or_opcode(start, data, opcode, event):
    hub = Hub()
    async with crowd(start, 1) as (conns, (wire,)):
        hub.join("chat", conns[0])
        hub.broadcast_room("chat", data, opcode)
        assert await wire.event() == event


@pytest.mark.parametrize("opcode", [0, 3, 8, 9, 10, 16, -1], ids=str)
async def test_broadcast_with_invalid_opcode_raises_value_error(opcode):
    hub = Hub()
    plain_members(hub, "chat", 1)
    with pytest.raises(ValueError, match=r"must be TEXT \(1\) or BINARY \(2\), not"):
        hub.broadcast_room("chat", "x", opcode)
    with pytest.raises(ValueError, match="must be TEXT"):
        hub.broadcast_all("x", opcode)
    with pytest.raises(ValueError, match="must be TEXT"):
        await hub.publish("chat", "x", opcode)
    assert hub.metrics().broadcast_matched == 0


@pytest.mark.parametrize("data", [None, 7, {"a": 1}, ["x"]], ids=lambda data: type(data).__name__)
async def test_broadcast_of_other_types_raises_type_error(data):
    hub = Hub()
    plain_members(hub, "chat", 1)
    with pytest.raises(TypeError, match="a message must be str or bytes-like, not"):
        hub.broadcast_room("chat", data)


async def test_broadcast_of_invalid_utf8_as_text_raises_value_error():
    hub = Hub()
    (member,) = plain_members(hub, "chat", 1)
    with pytest.raises(ValueError, match="utf-8"):
        hub.broadcast_room("chat", b"\xff", Opcode.TEXT)
    await ticks()
    assert member.messages == []


async def test_broadcast_copies_mutable_data(start, sliced):
    hub = Hub()
    joined(hub, "chat", 200)
    async with crowd(start, 1) as (conns, (wire,)):
        hub.join("chat", conns[0])
        small, large = bytearray(b"before"), bytearray(b"before" * 10_000)
        assert hub.broadcast_room("chat", small).pending
        hub.broadcast_room("chat", memoryview(large))
        small[:] = b"after!"
        large[:6] = b"after!"
        assert await messages(wire, 2) == [b"before", b"before" * 10_000]


async def test_broadcast_room_with_none_is_invalid():
    hub = Hub()
    (member,) = plain_members(hub, "chat", 1)
    assert hub.broadcast_room(None, "secret").invalid  # type: ignore[arg-type]
    await ticks()
    assert member.messages == []
    assert hub.metrics().broadcasts_rejected == 1


async def test_broadcast_to_invalid_room_name_is_invalid():
    hub = Hub()
    plain_members(hub, "chat", 1)
    for result in (hub.broadcast_room("", "x"), await hub.publish("x" * 129, "x")):
        assert result == BroadcastResult(invalid=True)
        assert result.rejected
    assert hub.metrics().broadcasts_rejected == 2
    assert adds_up(hub.metrics())


async def test_broadcast_reaches_sender_unless_excluded(start):
    hub = Hub()
    echo = True

    def relay(conn: plumews.Conn, message: str | bytes) -> None:
        hub.broadcast_room("chat", message, exclude=None if echo else conn)

    async with crowd(start, 2, on_message=relay) as (conns, (one, two)):
        for conn in conns:
            hub.join("chat", conn)
        one.send(text("to all"))
        assert await one.message() == await two.message() == "to all"
        echo = False
        one.send(text("to others"))
        two.send(text("to others as well"))
        assert await two.message() == "to others"
        assert await one.message() == "to others as well"


async def test_exclude_of_non_member_changes_nothing():
    hub = Hub()
    conns = plain_members(hub, "chat", 2)
    (elsewhere,) = plain_members(hub, "news", 1)
    stranger = PlainMember()
    assert hub.broadcast_room("chat", "x", exclude=elsewhere).matched == 2
    assert hub.broadcast_all("x", exclude=stranger).matched == 3
    assert hub.broadcast_all("x", exclude=conns[0]).matched == 2
    assert hub.broadcast_room("news", "x", exclude=elsewhere) == BroadcastResult()


async def test_exclude_of_other_types_raises_type_error_with_hint():
    hub = Hub()
    (conn,) = plain_members(hub, "chat", 1)
    for wrong in ([conn], "conn", conn.id):
        with pytest.raises(TypeError, match=r"exclude must be a Conn, Member or None, not .*: for several use where"):
            hub.broadcast_room("chat", "x", exclude=wrong)
    await ticks()
    assert conn.messages == []


def test_broadcast_without_event_loop_raises_runtime_error():
    with pytest.raises(RuntimeError, match="no running event loop: a hub is used in coroutines and callbacks"):
        Hub().broadcast_room("chat", "x")


async def test_broadcast_shares_one_frame_among_all_members():
    hub = Hub()
    _, transports = joined(hub, "chat", 20)
    hub.broadcast_room("chat", "x" * 1000)
    await ticks()
    assert len({id(transport.writes[0]) for transport in transports}) == 1


async def test_hub_repr_shows_state_rooms_and_connections():
    hub = Hub()
    plain_members(hub, "chat", 2)
    assert repr(hub) == "<plumews.Hub running rooms=1 connections=2>"
    await hub.shutdown(0)
    assert repr(hub) == "<plumews.Hub stopped rooms=0 connections=0>"


# --- callbacks that use the hub -------------------------------------------------------------------


async def test_broadcast_in_on_message_keeps_order_with_direct_sends(start):
    hub = Hub()

    def answer(conn: plumews.Conn, message: str | bytes) -> None:
        conn.send_nowait(f"you said {message}")
        hub.broadcast_room("chat", f"somebody said {message}")
        conn.send_nowait(f"all heard {message}")

    async with crowd(start, 2, on_message=answer) as (conns, wires):
        for conn in conns:
            hub.join("chat", conn)
        wires[0].send(text("1"), text("2"))
        phrases = ("you said", "somebody said", "all heard")
        assert await messages(wires[0], 6) == [f"{phrase} {number}" for number in (1, 2) for phrase in phrases]
        assert await messages(wires[1], 2) == ["somebody said 1", "somebody said 2"]


async def test_broadcast_in_on_close_reaches_remaining_members(start):
    hub = Hub()
    results: asyncio.Queue[BroadcastResult] = asyncio.Queue()

    def farewell(conn: plumews.Conn) -> None:
        results.put_nowait(hub.broadcast_room("chat", "somebody left"))

    async with crowd(start, 3, on_close=farewell) as (conns, wires):
        for conn in conns:
            hub.join("chat", conn)
        wires[0].reset()
        result = await results.get()
        assert result.queued == 2
        assert adds_up(result)
        assert await wires[1].message() == await wires[2].message() == "somebody left"
        assert hub.members("chat") == conns[1:]


async def test_on_message_may_join_leave_and_close_others(start):
    hub = Hub()

    def obey(conn: plumews.Conn, message: str | bytes) -> None:
        if message == "join":
            hub.join("chat", conn)
        elif message == "leave":
            hub.leave("chat", conn)
        elif message == "kick":
            for other in hub.members("chat"):
                other.close_nowait(CloseCode.POLICY_VIOLATION, "kicked")
        hub.broadcast_room("chat", f"{message}: {hub.room_count('chat')}")

    async with crowd(start, 2, on_message=obey) as (conns, wires):
        wires[0].send(text("join"), text("leave"), text("join"))
        assert await messages(wires[0], 2) == ["join: 1", "join: 1"]
        wires[1].send(text("join"), text("kick"))
        assert await messages(wires[0], 1) == ["join: 2"]
        assert await wires[0].closing() == (CloseCode.POLICY_VIOLATION, "kicked")
        assert await messages(wires[1], 1) == ["join: 2"]
        assert await wires[1].closing() == (CloseCode.POLICY_VIOLATION, "kicked")
        for wire, conn in zip(wires, conns, strict=True):
            wire.send(close(CloseCode.POLICY_VIOLATION))
            await conn.wait_closed()
        assert hub.rooms() == []
        assert adds_up(hub.metrics())


# --- threads and event loops ----------------------------------------------------------------------


def in_a_thread(function: Callable[[], Any]) -> concurrent.futures.Future[Any]:
    """Run ``function`` in a thread of its own."""
    future: concurrent.futures.Future[Any] = concurrent.futures.Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as exc:
            future.set_exception(exc)

    threading.Thread(target=run, daemon=True).start()
    return future


@pytest.mark.parametrize(
    "call",
    [
        lambda hub, conn: hub.join("news", conn),
        lambda hub, conn: hub.leave("chat", conn),
        lambda hub, conn: hub.remove(conn),
        lambda hub, conn: hub.broadcast_room("chat", "x"),
        lambda hub, conn: hub.broadcast_all("x"),
        lambda hub, conn: hub.watch_count("chat", print),
        lambda hub, conn: asyncio.run(hub.publish("chat", "x")),
        lambda hub, conn: asyncio.run(hub.stop()),
    ],
    ids=["join", "leave", "remove", "broadcast_room", "broadcast_all", "watch_count", "publish", "stop"],
)
async def test_hub_on_another_thread_raises_concurrency_error(call):
    hub = Hub()
    (conn,) = plain_members(hub, "chat", 1)
    with pytest.raises(ConcurrencyError, match=r"use hub\.publish_threadsafe .* or make a hub for each loop"):
        await asyncio.wrap_future(in_a_thread(lambda: call(hub, conn)))
    assert hub.members("chat") == [conn]
    assert hub.metrics().broadcasts_total == 0
    assert repr(hub).startswith("<plumews.Hub running")


async def test_publish_threadsafe_keeps_order(start):
    hub = Hub(16, 8)
    async with crowd(start, 2) as (conns, wires):
        for conn in conns:
            hub.join("chat", conn)

        def publish() -> list[BroadcastResult]:
            futures = [hub.publish_threadsafe("chat", str(number)) for number in range(300)]
            futures.append(hub.publish_threadsafe(None, bytearray(b"end"), Opcode.TEXT))
            return [future.result(30) for future in futures]

        results = asyncio.wrap_future(in_a_thread(publish))
        expected = [*(str(number) for number in range(300)), "end"]
        assert await messages(wires[0], 301) == await messages(wires[1], 301) == expected
        assert set(await results) == {BroadcastResult(matched=2, queued=2)}


async def test_publish_threadsafe_raises_for_invalid_message_at_once():
    async with Hub() as hub:
        for arguments, error in (((7,), TypeError), (("x", 9), ValueError)):
            with pytest.raises(error):
                await asyncio.wrap_future(in_a_thread(lambda args=arguments: hub.publish_threadsafe("chat", *args)))


async def test_publish_threadsafe_copies_mutable_data():
    hub = Hub()
    (member,) = plain_members(hub, "chat", 1)
    called = threading.Event()

    def publish() -> None:
        data = bytearray(b"before")
        hub.publish_threadsafe("chat", data, Opcode.TEXT)
        data[:] = b"after!"
        called.set()

    thread = in_a_thread(publish)
    assert called.wait(60)  # the loop stands still until the thread has changed its data
    await asyncio.wrap_future(thread)
    await hub.publish("chat", "end")
    await ticks()
    assert member.messages == ["before", "end"]


def test_publish_threadsafe_without_loop_raises_runtime_error():
    with pytest.raises(RuntimeError, match="the hub is not running on an event loop"):
        Hub().publish_threadsafe("chat", "x")


def test_hub_made_before_the_loop_runs_works():
    hub = Hub(2, 8)

    async def main() -> list[str | bytes]:
        async with hub:
            members = plain_members(hub, "chat", 100)
            await asyncio.gather(*(hub.publish("chat", str(number)) for number in range(20)))
            await ticks()
            return members[-1].messages

    assert asyncio.run(main()) == [str(number) for number in range(20)]


def test_hub_of_closed_loop_raises_concurrency_error():
    hub = Hub()

    async def broadcast() -> BroadcastResult:
        return hub.broadcast_room("chat", "x")

    asyncio.run(broadcast())
    with pytest.raises(ConcurrencyError, match="the event loop of this hub is closed: make a hub for each loop"):
        asyncio.run(broadcast())
    with pytest.raises(RuntimeError, match="the hub is not running on an event loop"):
        hub.publish_threadsafe("chat", "x")


def test_join_of_connection_of_another_loop_is_refused():
    hub = Hub()

    async def make() -> plumews.Conn:
        return fake_conn(ping_interval=None)[0]

    async def join(conn: plumews.Conn) -> None:
        hub.join("chat", conn)

    conn = asyncio.run(make())
    with pytest.raises(ConcurrencyError, match="the connection belongs to another event loop than the hub"):
        asyncio.run(join(conn))
    assert hub.rooms() == []
