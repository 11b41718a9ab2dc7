"""Whole messages: ways to send, order, draining, and closed connections."""

from __future__ import annotations

import array
import asyncio
import random
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import plumews
from plumews import (
    ConcurrencyError,
    ConnectionClosed,
    ConnectionClosedError,
    Opcode,
    SendBehavior,
    SendQueueFull,
)
from plumews.transport import waiters
from support.fakes import (
    PATIENCE,
    fake_conn,
    filled,
    linked,
    payloads_of,
    started,
    ticks,
)
from support.raw_client import close

KiB = 1024


MiB = 1024 * KiB


BLOCK, DROP, CLOSE = SendBehavior.BLOCK, SendBehavior.DROP, SendBehavior.CLOSE


# --- ways to send ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 65537, 200_000, MiB, 3 * MiB])
async def test_message_of_any_size_arrives_unchanged(start: Any, size: int) -> None:
    payload = bytes(index % 251 for index in range(size % 100_000)) + bytes(size - size % 100_000)
    async with linked(start) as (conn, wire):
        await conn.send(payload)
        assert await wire.message() == payload
        await conn.send("é" * (size // 2))
        assert await wire.message() == "é" * (size // 2)


async def test_every_way_to_send_sends() -> None:
    conn, transport = fake_conn()
    await conn.send("send")
    await conn.send(b"send")
    await conn.send(b"as text", text=True)
    await conn.send("as binary", text=False)
    await conn.write_text("write_text")
    await conn.write_binary(b"write_binary")
    await conn.write_binary(bytearray(b"bytearray"))
    await conn.write_binary(memoryview(b"memoryview"))
    await conn.write_json({"a": [1, None, "ü"]})
    await conn.write_message(Opcode.TEXT, b"write_message")
    await conn.write_message(Opcode.BINARY, "write_message")
    await conn.write_message(1, "1")
    conn.send_nowait("nowait")
    conn.send_nowait(b"nowait")
    await ticks()
    assert transport.events() == [
        (Opcode.TEXT, "send"),
        (Opcode.BINARY, b"send"),
        (Opcode.TEXT, "as text"),
        (Opcode.BINARY, b"as binary"),
        (Opcode.TEXT, "write_text"),
        (Opcode.BINARY, b"write_binary"),
        (Opcode.BINARY, b"bytearray"),
        (Opcode.BINARY, b"memoryview"),
        (Opcode.TEXT, '{"a":[1,null,"ü"]}'),
        (Opcode.TEXT, "write_message"),
        (Opcode.BINARY, b"write_message"),
        (Opcode.TEXT, "1"),
        (Opcode.TEXT, "nowait"),
        (Opcode.BINARY, b"nowait"),
    ]
    conn.abort()


BAD: dict[str, Callable[[plumews.Conn], Awaitable[None]]] = {
    "an int": lambda conn: conn.send(1),  # type: ignore[arg-type]
    "None": lambda conn: conn.send(None),  # type: ignore[arg-type]
    "a list": lambda conn: conn.send([b"a"]),  # type: ignore[arg-type]
    "an array": lambda conn: conn.send(array.array("d", [1.0])),  # type: ignore[arg-type]
    "a lone surrogate": lambda conn: conn.send("\ud800"),
    "bytes as text that are not": lambda conn: conn.send(b"\xff", text=True),
    "text as bytes": lambda conn: conn.write_text(b"a"),  # type: ignore[arg-type]
    "binary as str": lambda conn: conn.write_binary("a"),  # type: ignore[arg-type]
    "a set as JSON": lambda conn: conn.write_json({1}),
    "NaN as JSON": lambda conn: conn.write_json({"a": float("nan")}),
    "infinity as JSON": lambda conn: conn.write_json([float("inf")]),
    "a surrogate as JSON": lambda conn: conn.write_json("\ud800"),
    "a ping's opcode": lambda conn: conn.write_message(Opcode.PING, b"a"),
    "a close's opcode": lambda conn: conn.write_message(Opcode.CLOSE, b"a"),
    "a continuation's opcode": lambda conn: conn.write_message(Opcode.CONT, b"a"),
    "no opcode": lambda conn: conn.write_message("text", b"a"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("call", BAD.values(), ids=BAD)
async def test_wrong_message_raises_and_queues_nothing(
    call: Callable[[plumews.Conn], Awaitable[None]],
) -> None:
    conn, transport = fake_conn()
    with pytest.raises((TypeError, ValueError)):
        await call(conn)
    await ticks()
    assert transport.writes == []
    assert conn.queued_messages == 0
    await conn.send("still fine")
    assert payloads_of(transport) == ["still fine"]
    conn.abort()


async def test_buffer_may_change_after_the_send() -> None:
    conn, transport = fake_conn(queue_size=2)
    transport.fill()
    data = bytearray(b"before")
    await conn.send(data)
    await conn.send(memoryview(data))
    waiting = started(conn.send(data))
    await ticks()
    data[:] = b"after!"
    transport.drain()
    await waiting
    assert payloads_of(transport) == [b"before"] * 3
    conn.abort()


async def test_a_long_message_does_not_keep_the_callers_buffer_locked() -> None:
    conn, transport = fake_conn()
    transport.fill()
    data = bytearray(MiB)
    await conn.send(data)
    data.clear()  # BufferError if somebody held a view
    transport.drain()
    assert payloads_of(transport) == [bytes(MiB)]
    conn.abort()


# --- order ----------------------------------------------------------------------------------------


async def test_many_messages_leave_in_one_write() -> None:
    conn, transport = fake_conn()
    await conn.write_many(["a", b"b", bytearray(b"c"), "d"])
    assert payloads_of(transport) == ["a", b"b", b"c", "d"]
    assert len(transport.writes) == 1


async def test_many_messages_wait_for_space_like_one() -> None:
    conn, transport = filled(send_timeout=PATIENCE)
    writing = started(conn.write_many(["x", "y"]))
    await ticks()
    assert not writing.done()
    transport.drain()
    await writing
    assert payloads_of(transport) == ["0", "1", "2", "3", "x", "y"]


async def test_write_many_sends_the_messages_before_a_wrong_one() -> None:
    conn, transport = fake_conn()
    with pytest.raises(TypeError, match="not int"):
        await conn.write_many(["a", 1, "b"])  # type: ignore[list-item]
    assert payloads_of(transport) == ["a"]


@pytest.mark.parametrize("message", ["abc", b"abc", bytearray(b"abc")])
async def test_write_many_refuses_a_single_message(message: Any) -> None:
    conn, transport = fake_conn()
    with pytest.raises(TypeError, match=r"write_many takes several messages, such as a list, not .*: use send"):
        await conn.write_many(message)
    assert payloads_of(transport) == []


async def test_write_many_sends_the_messages_that_fit() -> None:
    conn, transport = filled(send_behavior=DROP, queue_size=2)
    with pytest.raises(SendQueueFull):
        await conn.write_many(["x", "y"])
    transport.drain()
    assert payloads_of(transport) == ["0", "1"]


# --- drain and age of the queue -------------------------------------------------------------------


async def test_drain_waits_until_everything_has_left() -> None:
    conn, transport = fake_conn()
    await conn.drain()
    transport.fill()
    conn.send_nowait("a")
    draining = started(conn.drain())
    await ticks()
    assert not draining.done()
    transport.drain()
    await draining
    assert payloads_of(transport) == ["a"]


async def test_drain_raises_at_the_end_of_the_connection() -> None:
    conn, transport = fake_conn()
    transport.fill()
    conn.send_nowait("a")
    draining = started(conn.drain())
    await ticks()
    conn.abort()
    with pytest.raises(ConnectionClosed):
        await draining
    with pytest.raises(ConnectionClosed):
        await conn.drain()


async def test_the_age_of_the_queue_is_that_of_its_oldest_message() -> None:
    conn, transport = fake_conn()
    conn.send_nowait("leaves")
    assert conn.queued_age == 0.0
    transport.fill()
    conn.send_nowait("oldest")
    queued = time.monotonic()
    await asyncio.sleep(0.002)  # the message grows old
    before = time.monotonic()
    conn.send_nowait("newest")
    assert conn.queued_age >= before - queued > 0
    transport.full_after = 1
    transport.drain()
    await ticks()
    conn.send_nowait("later")
    assert conn.queued_age < 60
    transport.drain()
    await ticks()
    assert conn.queued_age == 0.0


async def test_messages_of_one_sender_arrive_in_order(start: Any) -> None:
    sizes = [1, 100_000, 0, 70_000, 16, 500_000, 3]
    async with linked(start, send_timeout=None) as (conn, wire):
        sender = started(asyncio.gather(*[conn.send(bytes(size)) for size in sizes * 3]))
        got = [await wire.message() for _ in range(len(sizes) * 3)]
        assert [len(message) for message in got] == sizes * 3
        await sender


async def test_waiting_senders_are_served_in_order() -> None:
    conn, transport = filled(send_timeout=None)
    senders = [started(conn.send(f"waiting {index}")) for index in range(20)]
    await ticks()
    assert conn.queued_messages == 4
    while not senders[-1].done():
        transport.full_after = 1
        transport.drain()
        await ticks()
    transport.drain()
    assert payloads_of(transport) == ["0", "1", "2", "3", *[f"waiting {index}" for index in range(20)]]
    conn.abort()


async def test_small_message_does_not_overtake_a_large_one() -> None:
    conn, transport = fake_conn(queue_bytes=1000, send_timeout=None)
    transport.fill()
    await conn.send(bytes(600))
    large = started(conn.send(bytes(601)))
    await ticks()
    small = started(conn.send("small"))
    await ticks()
    assert not small.done()
    transport.drain()
    await asyncio.gather(large, small)
    await ticks()
    assert payloads_of(transport) == [bytes(600), bytes(601), "small"]
    conn.abort()


async def test_send_works_under_create_task_gather_and_wait_for(start: Any) -> None:
    async with linked(start) as (conn, wire):
        await asyncio.create_task(conn.send("task"))
        await asyncio.gather(conn.send("one"), conn.send("two"))
        await asyncio.wait_for(conn.send("three"), PATIENCE)
        assert [await wire.message() for _ in range(4)] == ["task", "one", "two", "three"]


# --- closed connections and other threads ---------------------------------------------------------


async def test_every_send_on_a_closed_connection_raises(start: Any) -> None:
    async with linked(start) as (conn, wire):
        wire.send(close(4000, "enough"))
        await conn.wait_closed()
        for call in (
            lambda: conn.send("a"),
            lambda: conn.write_text("a"),
            lambda: conn.write_binary(b"a"),
            lambda: conn.write_json(1),
            lambda: conn.write_message(Opcode.TEXT, "a"),
            lambda: conn.ping(),
        ):
            with pytest.raises(ConnectionClosedError, match=r"connection closed: received 4000 .* enough"):
                await call()
        with pytest.raises(ConnectionClosedError, match="connection closed"):
            conn.send_nowait("a")


async def test_a_connection_that_was_aborted_takes_nothing_more(start: Any) -> None:
    async with linked(start) as (conn, _):
        conn.abort()
        assert conn.closed
        with pytest.raises(ConnectionClosed):
            conn.send_nowait("lost without a word")


async def test_a_peer_that_is_gone_takes_nothing_more() -> None:
    conn, transport = fake_conn()
    assert conn.eof_received() is False
    assert conn.closed
    with pytest.raises(ConnectionClosed):
        conn.send_nowait("lost without a word")
    transport.close()
    await conn.wait_closed()


async def test_another_thread_is_a_concurrency_error_and_sends_nothing() -> None:
    conn, transport = fake_conn()
    errors: list[Exception] = []

    def elsewhere() -> None:
        for call in (
            lambda: conn.send_nowait("a"),
            lambda: conn.send("a").send(None),
            lambda: conn.write_json(1).send(None),
            lambda: conn.ping().send(None),
            lambda: conn.close_nowait(),
            lambda: conn.close().send(None),
            lambda: conn.abort(),
        ):
            try:
                call()
            except Exception as exc:
                errors.append(exc)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert [type(error) for error in errors] == [ConcurrencyError] * 7
    assert all("belongs to the thread of its event loop" in str(error) for error in errors)
    await ticks()
    assert transport.writes == []
    assert not conn.closed
    conn.abort()


# --- random walks ---------------------------------------------------------------------------------


async def walk(seed: int) -> None:
    """Run senders of every kind on a transport that fills at random, and check each outcome."""
    rnd = random.Random(seed)
    behavior = rnd.choice([BLOCK, BLOCK, DROP])
    conn, transport = fake_conn(queue_size=4, queue_bytes=2000, send_timeout=None, send_behavior=behavior)
    senders: list[asyncio.Future[Any]] = []
    told: dict[int, str] = {}

    def message(number: int) -> str:
        return f"{number} ".ljust(rnd.choice([1, 100, 1500, 3000, 400_000]), "x")

    async def send(number: int) -> None:
        try:
            await conn.send(message(number))
            told[number] = "queued"
        except asyncio.CancelledError:
            told[number] = "cancelled"
        except (SendQueueFull, ConnectionClosed):
            told[number] = "refused"

    count = 0
    for _ in range(60):
        move = rnd.randrange(6)
        if move <= 1:
            senders.append(started(send(count)))
            count += 1
        elif move == 2:
            await ticks()  # those that were started come first
            try:
                conn.send_nowait(message(count))
                told[count] = "queued"
            except SendQueueFull:
                told[count] = "refused"
            count += 1
        elif move == 3 and not conn._paused:
            transport.fill()
        elif move == 4 and conn._paused:
            transport.full_after = rnd.choice([None, 1, 2])
            transport.drain()
        elif senders:
            rnd.choice(senders).cancel()
        if rnd.random() < 0.5:
            await ticks(rnd.randrange(3))
    await ticks()
    conn.close_nowait()
    while conn._paused:
        transport.drain()
    await asyncio.gather(*senders, return_exceptions=True)
    events = transport.events()
    assert events.pop() == (Opcode.CLOSE, (1000, ""))
    arrived = [int(payload.split()[0]) for _, payload in events]
    assert arrived == sorted(set(arrived))
    assert {number for number, outcome in told.items() if outcome == "queued"} <= set(arrived)
    assert not {number for number, outcome in told.items() if outcome == "refused"} & set(arrived)
    assert (conn.queued_messages, conn.queued_bytes, waiters.count(conn)) == (0, 0, 0)
    conn.abort()


async def test_random_sends_end_as_the_senders_were_told() -> None:
    for seed in range(300):
        try:
            await asyncio.wait_for(walk(seed), 60)
        except BaseException:
            print("seed", seed)  # noqa: T201
            raise
