"""How an application writes: what leaves, in which order, and what a full queue does under each behaviour.

A transport that is full when the test says so makes the policies exact; a real peer that does not read comes last.
"""

from __future__ import annotations

import array
import asyncio
import random
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import websockets

import plumews
from plumews import (
    ConcurrencyError,
    ConnectionClosed,
    ConnectionClosedError,
    Opcode,
    SendBehavior,
    SendQueueFull,
    SendTimeout,
    WebSocketException,
)
from support.fakes import (
    PATIENCE,
    FakeTransport,
    clog,
    deadlines,
    fake_conn,
    linked,
    payloads_of,
    started,
    ticks,
    until,
)
from support.raw_client import Wire, close, masked, text

KiB = 1024
MiB = 1024 * KiB
BLOCK, DROP, CLOSE = SendBehavior.BLOCK, SendBehavior.DROP, SendBehavior.CLOSE


def full(**config: Any) -> tuple[plumews.Conn, FakeTransport]:
    """A connection whose transport is full, and whose queue is filled with "0", "1", ..."""
    conn, transport = fake_conn(**{"queue_size": 4, **config})
    transport.fill()
    for index in range(conn._config.queue_size):
        conn.send_nowait(str(index))
    return conn, transport


# --- what leaves ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 65537, 200_000, MiB, 3 * MiB])
async def test_a_message_of_any_size_arrives_as_it_was_sent(start: Any, size: int) -> None:
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
async def test_what_cannot_be_sent_is_an_error_and_nothing_is_queued(
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


async def test_section_8_point_10_a_buffer_may_change_once_it_was_accepted() -> None:
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
    conn, transport = full(send_timeout=PATIENCE)
    writing = started(conn.write_many(["x", "y"]))
    await ticks()
    assert not writing.done()
    transport.drain()
    await writing
    assert payloads_of(transport) == ["0", "1", "2", "3", "x", "y"]


async def test_of_many_messages_those_before_a_wrong_one_are_sent() -> None:
    conn, transport = fake_conn()
    with pytest.raises(TypeError, match="not int"):
        await conn.write_many(["a", 1, "b"])  # type: ignore[list-item]
    assert payloads_of(transport) == ["a"]


@pytest.mark.parametrize("message", ["abc", b"abc", bytearray(b"abc")])
async def test_one_message_is_not_many(message: Any) -> None:
    conn, transport = fake_conn()
    with pytest.raises(TypeError, match=r"write_many takes several messages, such as a list, not .*: use send"):
        await conn.write_many(message)
    assert payloads_of(transport) == []


async def test_of_many_messages_those_that_fit_are_sent_and_the_next_is_refused() -> None:
    conn, transport = full(send_behavior=DROP, queue_size=2)
    with pytest.raises(SendQueueFull):
        await conn.write_many(["x", "y"])
    transport.drain()
    assert payloads_of(transport) == ["0", "1"]


# --- in pieces ------------------------------------------------------------------------------------


async def pieces(*values: Any) -> AsyncIterator[Any]:
    for value in values:
        if isinstance(value, BaseException):
            raise value
        yield value


@pytest.mark.parametrize(
    ("parts", "options", "whole"),
    [
        (["a", "é", ""], {}, "aé"),
        ([b"a", bytearray(b"b"), memoryview(b"c")], {}, b"abc"),
        ([b"\xc3", b"\xa9"], {"text": True}, "é"),
        (["é"], {"text": False}, "é".encode()),
        ([""], {}, ""),
        ([bytes(200_000)], {}, bytes(200_000)),
    ],
)
async def test_a_message_in_pieces_is_one_message(parts: list[Any], options: dict[str, Any], whole: Any) -> None:
    for source in (pieces(*parts), iter(parts)):
        conn, transport = fake_conn()
        await conn.send(source, **options)
        assert payloads_of(transport) == [whole]


async def test_a_message_of_no_pieces_is_none() -> None:
    conn, transport = fake_conn()
    await conn.send(pieces())
    await conn.send("next")
    assert payloads_of(transport) == ["next"]


async def test_a_message_in_pieces_waits_for_the_peer_and_holds_one_piece() -> None:
    conn, transport = fake_conn()
    taken = []

    async def source() -> AsyncIterator[bytes]:
        for index in range(5):
            taken.append(index)
            yield bytes(1000)

    transport.fill()
    sending = started(conn.send(source()))
    await ticks(10)
    assert taken == [0]
    assert conn.queued_bytes < 1100
    transport.drain()
    await sending
    assert payloads_of(transport) == [bytes(5000)]


async def test_others_wait_until_a_message_in_pieces_is_complete_and_pings_do_not() -> None:
    conn, transport = fake_conn(send_timeout=PATIENCE)
    going_on = asyncio.Event()

    async def source() -> AsyncIterator[str]:
        yield "a"
        await going_on.wait()
        yield "b"

    sending = started(conn.send(source()))
    await ticks()
    other = started(conn.send("other"))
    await ticks()
    await conn.ping(b"p")
    with pytest.raises(SendQueueFull):
        conn.send_nowait("no")
    second = started(conn.send(pieces("c", "d")))
    behind = started(conn.send("behind"))
    await ticks()
    assert not any(waits.done() for waits in (other, second, behind))
    going_on.set()
    await asyncio.gather(sending, other, second, behind)
    assert transport.events() == [
        (Opcode.PING, b"p"),
        *((Opcode.TEXT, text) for text in ("ab", "other", "cd", "behind")),
    ]


# --- several in pieces at once --------------------------------------------------------------------


class Held:
    """A message in pieces of which the last comes when the test says so."""

    def __init__(self, *parts: Any) -> None:
        self.parts = parts
        self.last = asyncio.Event()
        self.taken = 0

    async def __aiter__(self) -> AsyncIterator[Any]:
        for part in self.parts:
            self.taken += 1
            yield part
        await self.last.wait()
        yield self.parts[-1]


@pytest.mark.parametrize("compression", [None, plumews.Deflate(server_takeover=True, min_size=1), "deflate"])
async def test_messages_in_pieces_sent_at_once_arrive_whole(start: Any, compression: Any) -> None:
    whole = [f"{number} " * 300 for number in range(8)]

    async def handler(conn: plumews.Conn) -> None:
        each: list[Any] = []
        for number, line in enumerate(whole):
            parts = [line[at : at + 100] for at in range(0, len(line), 100)]
            each.append(conn.send(pieces(*parts) if number % 2 else iter(parts)))
        each.insert(3, conn.send("plain"))
        each.append(conn.write_json(5))
        await asyncio.gather(*each)

    server = await start(plumews.serve(handler, "127.0.0.1", 0, send_timeout=None, compression=compression))
    async with websockets.connect(f"ws://127.0.0.1:{server.port}", proxy=None) as client:
        assert [message async for message in client] == [*whole[:3], "plain", *whole[3:], "5"]


async def test_message_in_pieces_that_waits_too_long_is_a_send_timeout() -> None:
    conn, transport = fake_conn(send_timeout=0.01)
    held, late = Held("a"), Held("b")
    sending = started(conn.send(held))
    await ticks()
    with pytest.raises(SendTimeout, match="send timeout"):
        await conn.send(late)
    assert (late.taken, conn.dropped_messages) == (1, 1)
    held.last.set()
    await sending
    await conn.send(pieces("c"))
    assert payloads_of(transport) == ["aa", "c"]


@pytest.mark.parametrize("behavior", [b for b in SendBehavior if b is not BLOCK], ids=str)
async def test_message_in_pieces_beside_another_does_what_the_behavior_says(behavior: SendBehavior) -> None:
    conn, transport = fake_conn(send_behavior=behavior)
    held = Held("a")
    sending = started(conn.send(held))
    await ticks()
    with pytest.raises(SendQueueFull, match="connection closed" if behavior is CLOSE else "dropped"):
        await conn.send(pieces("b"))
    assert conn.dropped_messages == 1
    held.last.set()
    if behavior is CLOSE:
        with pytest.raises(ConnectionClosed):
            await sending
        assert transport.events()[-1] == (Opcode.CLOSE, (1013, "send queue full"))
        return
    await sending
    await conn.send(pieces("c"))
    assert payloads_of(transport) == ["aa", "c"]


@pytest.mark.parametrize("when", ["while it waits", "as its turn comes", "when its turn has come"])
async def test_cancelled_message_in_pieces_that_waits_changes_nothing(when: str) -> None:
    conn, transport = fake_conn(send_timeout=None)
    held = Held("a")
    sending, *others = [started(conn.send(each)) for each in (held, pieces("b"), pieces("c"), Held("d"), pieces("e"))]
    await ticks()
    if when != "while it waits":
        held.last.set()
    if when == "when its turn has come":
        while conn._writer.waiting == 4:
            await asyncio.sleep(0)  # the first is done, and the second, whose task has not run, has begun
    others[0].cancel()
    others[2].cancel()
    held.last.set()
    await asyncio.gather(sending, others[1], others[3])
    for cancelled in (others[0], others[2]):
        with pytest.raises(asyncio.CancelledError):
            await cancelled
    await conn.send("behind")
    await conn.drain()
    assert payloads_of(transport) == ["aa", "c", "e", "behind"]
    assert not conn.closed


async def test_message_in_pieces_that_fails_before_its_first_disturbs_no_other() -> None:
    conn, transport = fake_conn()
    held = Held("a")
    sending = started(conn.send(held))
    await ticks()
    for parts, error in (([ZeroDivisionError()], ZeroDivisionError), ([1], TypeError), ([], None)):
        if error is None:
            await conn.send(pieces(*parts))
        else:
            with pytest.raises(error):
                await conn.send(pieces(*parts))
    held.last.set()
    await sending
    assert payloads_of(transport) == ["aa"]


@pytest.mark.parametrize("end", ["close", "abort", "fails"])
async def test_messages_in_pieces_that_wait_end_with_the_connection(end: str) -> None:
    conn, transport = fake_conn(send_timeout=None)
    held = Held("a") if end != "fails" else pieces("a", "a", ZeroDivisionError())
    each = [started(conn.send(source)) for source in (held, pieces("b"), Held("c"))]
    await ticks()
    if end != "fails":
        conn.abort() if end == "abort" else conn.close_nowait()
    for sending in each[end == "fails" :]:
        if isinstance(held, Held):
            held.last.set()
        with pytest.raises(ConnectionClosed):
            await sending
    if end == "fails":
        with pytest.raises(ZeroDivisionError):
            await each[0]
    assert payloads_of(transport) == []
    conn.abort()


async def test_message_in_pieces_waits_behind_those_who_wait_for_space() -> None:
    conn, transport = full(send_timeout=None)
    each = [started(conn.send(message)) for message in ("4", pieces("5", "5"), "6")]
    await ticks()
    assert not any(sending.done() for sending in each)
    while conn._writer.paused or not all(sending.done() for sending in each):
        transport.drain()
        await ticks()
    assert payloads_of(transport) == ["0", "1", "2", "3", "4", "55", "6"]


@pytest.mark.parametrize(
    ("parts", "options", "error"),
    [
        (["a", ZeroDivisionError()], {}, ZeroDivisionError),
        (["a", b"b"], {}, TypeError),
        (["a", 1], {}, TypeError),
        ([b"a", b"\xff"], {"text": True}, ValueError),
        ([b"a", b"\xc3"], {"text": True}, ValueError),
    ],
)
async def test_a_message_that_fails_half_way_ends_the_connection_with_1011(
    parts: list[Any], options: dict[str, Any], error: type[Exception]
) -> None:
    conn, transport = fake_conn()
    with pytest.raises(error):
        await conn.send(pieces(*parts), **options)
    assert payloads_of(transport) == []
    assert transport.events()[-1] == (Opcode.CLOSE, (1011, "a message was not completed"))
    with pytest.raises(ConnectionClosed):
        await conn.send("more")


@pytest.mark.parametrize("parts", [[1], [ZeroDivisionError()], ["\ud800"]])
async def test_a_message_that_fails_before_its_first_piece_changes_nothing(parts: list[Any]) -> None:
    conn, transport = fake_conn()
    with pytest.raises((TypeError, ZeroDivisionError, ValueError)):
        await conn.send(pieces(*parts))
    await conn.send("next")
    assert payloads_of(transport) == ["next"]


async def test_a_cancelled_message_in_pieces_ends_the_connection_too() -> None:
    conn, transport = fake_conn()

    async def source() -> AsyncIterator[str]:
        yield "a"
        await asyncio.Event().wait()

    sending = started(conn.send(source()))
    await ticks()
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert transport.events()[-1][0] == Opcode.CLOSE


@pytest.mark.parametrize("end", ["close", "abort"])
async def test_a_message_in_pieces_ends_with_its_connection(end: str) -> None:
    conn, transport = fake_conn()
    going_on = asyncio.Event()

    async def source() -> AsyncIterator[str]:
        yield "a"
        await going_on.wait()
        yield "b"

    sending = started(conn.send(source()))
    await ticks()
    conn.abort() if end == "abort" else conn.close_nowait(4000)
    await ticks()
    going_on.set()
    with pytest.raises(ConnectionClosed):
        await sending
    assert payloads_of(transport) == []
    conn.abort()


async def test_a_message_in_pieces_of_any_size_costs_one_piece(start: Any) -> None:
    async with linked(start) as (conn, wire):
        sending = started(conn.send(bytes(100 * KiB) for _ in range(100)))
        assert await wire.message() == bytes(100 * 100 * KiB)
        await sending


# --- drain, and how long the queue has waited --------------------------------------------------------


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


async def test_drain_of_a_connection_that_ends_is_told() -> None:
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


async def test_messages_of_one_sender_arrive_in_order_whatever_their_size(start: Any) -> None:
    sizes = [1, 100_000, 0, 70_000, 16, 500_000, 3]
    async with linked(start, send_timeout=None) as (conn, wire):
        sender = started(asyncio.gather(*[conn.send(bytes(size)) for size in sizes * 3]))
        got = [await wire.message() for _ in range(len(sizes) * 3)]
        assert [len(message) for message in got] == sizes * 3
        await sender


async def test_senders_that_wait_are_served_in_the_order_in_which_they_came() -> None:
    conn, transport = full(send_timeout=None)
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


async def test_a_small_message_does_not_overtake_a_large_one_that_waits() -> None:
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


# --- BLOCK ----------------------------------------------------------------------------------------


async def test_block_waits_for_the_send_timeout_and_then_raises_the_phrase_of_the_seed() -> None:
    conn, transport = full(send_timeout=0.03)
    before = deadlines()
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(SendTimeout, match="send timeout") as info:
        await conn.send("too much")
    assert 0.025 < loop.time() - began < PATIENCE
    assert isinstance(info.value, TimeoutError)
    assert isinstance(info.value, WebSocketException)
    assert conn.dropped_messages == 1
    assert not conn.closed
    assert deadlines() == before
    transport.drain()
    await ticks()
    assert payloads_of(transport) == ["0", "1", "2", "3"]
    await conn.send("fits again")
    assert payloads_of(transport)[-1] == "fits again"
    conn.abort()


async def test_block_goes_on_when_space_comes_in_time() -> None:
    conn, transport = full(send_timeout=30)
    before = deadlines()
    sender = started(conn.send("patient"))
    await ticks()
    assert not sender.done()
    assert deadlines() == before + 1
    transport.drain()
    await sender
    await ticks()
    assert payloads_of(transport) == ["0", "1", "2", "3", "patient"]
    assert conn.dropped_messages == 0
    assert deadlines() == before
    conn.abort()


async def test_block_without_a_timeout_waits_for_ever() -> None:
    conn, transport = full(send_timeout=None)
    before = deadlines()
    sender = started(conn.send("very patient"))
    await ticks()
    assert deadlines() == before
    transport.drain()
    await sender
    conn.abort()


async def test_a_timeout_of_nothing_gives_up_at_once() -> None:
    conn, _ = full(send_timeout=0)
    with pytest.raises(SendTimeout):
        await conn.send("too much")
    conn.abort()


async def test_a_cancelled_sender_withdraws_its_message_and_lets_others_pass() -> None:
    conn, transport = fake_conn(queue_bytes=1000, send_timeout=None)
    transport.fill()
    await conn.send(bytes(600))
    cancelled = started(conn.send(bytes(900)))
    await ticks()
    behind = started(conn.send(bytes(300)))
    await ticks()
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    await behind
    transport.drain()
    assert payloads_of(transport) == [bytes(600), bytes(300)]
    conn.abort()


async def test_wait_for_gives_up_before_the_send_timeout() -> None:
    conn, transport = full(send_timeout=None)
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(conn.send("too much"), 0.01)
    transport.drain()
    assert payloads_of(transport) == ["0", "1", "2", "3"]
    conn.abort()


@pytest.mark.parametrize("end", ["close", "abort", "lost"])
async def test_a_sender_that_waits_when_the_connection_ends_is_told(end: str) -> None:
    conn, transport = full(send_timeout=None)
    senders = [started(conn.send("too late")) for _ in range(3)]
    await ticks()
    if end == "close":
        conn.close_nowait(1001)
    elif end == "abort":
        conn.abort()
    else:
        transport.close()
    for sender in senders:
        with pytest.raises(ConnectionClosed, match="connection closed"):
            await sender
    conn.abort()


async def test_a_sender_whose_time_is_over_when_the_connection_ends_is_not_told_that_all_is_well() -> None:
    """The timeout and the end in one tick: whichever counts, the message was not queued."""
    conn, _ = full(send_timeout=0.01)
    sender = started(conn.send("neither"))
    await ticks()
    conn._state.timers.after(0.01, conn.abort)  # fires right behind the timeout, before the sender wakes up
    with pytest.raises((SendTimeout, ConnectionClosed)):
        await sender


# --- DROP and CLOSE -------------------------------------------------------------------------------


async def test_drop_refuses_with_the_phrase_of_the_seed_and_counts() -> None:
    conn, transport = full(send_behavior=DROP)
    for count in range(1, 4):
        with pytest.raises(SendQueueFull, match="send queue full: dropped"):
            await conn.send("too much")
        assert conn.dropped_messages == count
    assert not conn.closed
    transport.drain()
    await conn.send("fits again")
    assert payloads_of(transport) == ["0", "1", "2", "3", "fits again"]
    conn.abort()


async def test_close_closes_with_1013_and_discards_the_queue() -> None:
    conn, transport = full(send_behavior=CLOSE)
    with pytest.raises(SendQueueFull, match="send queue full: connection closed"):
        await conn.send("too much")
    assert conn.dropped_messages == 1
    assert conn.closed
    assert transport.events() == [(Opcode.CLOSE, (1013, "send queue full"))]
    assert (conn.queued_messages, conn.queued_bytes) == (0, 0)
    with pytest.raises(ConnectionClosed):
        await conn.send("after it")
    transport.drain()
    assert transport.events() == [(Opcode.CLOSE, (1013, "send queue full"))]
    conn.abort()


async def test_send_nowait_never_waits_under_any_behaviour() -> None:
    for behavior in (BLOCK, DROP):
        conn, transport = full(send_behavior=behavior)
        with pytest.raises(SendQueueFull, match="send queue full: dropped"):
            conn.send_nowait("too much")
        assert conn.dropped_messages == 1
        assert not conn.closed
        transport.drain()
        conn.send_nowait("fits again")
        await ticks()
        assert payloads_of(transport)[-1] == "fits again"
        conn.abort()

    conn, transport = full(send_behavior=CLOSE)
    with pytest.raises(SendQueueFull, match="connection closed"):
        conn.send_nowait("too much")
    assert transport.events() == [(Opcode.CLOSE, (1013, "send queue full"))]
    conn.abort()


async def test_send_nowait_does_not_overtake_a_sender_that_waits() -> None:
    conn, transport = fake_conn(queue_bytes=1000, send_timeout=None)
    transport.fill()
    await conn.send(bytes(600))
    sender = started(conn.send(bytes(600)))
    await ticks()
    with pytest.raises(SendQueueFull):
        conn.send_nowait("small")
    transport.drain()
    await sender
    conn.abort()


async def test_a_message_larger_than_the_byte_bound_is_accepted_when_nothing_waits() -> None:
    for behavior in (SendBehavior.BLOCK, SendBehavior.DROP, SendBehavior.CLOSE):
        conn, transport = fake_conn(queue_bytes=1000, send_behavior=behavior, send_timeout=0)
        transport.fill()
        await conn.send(bytes(100_000))
        with pytest.raises((SendQueueFull, SendTimeout)):
            await conn.send(b"")
        if behavior is not CLOSE:
            transport.drain()
            assert payloads_of(transport) == [bytes(100_000)]
        conn.abort()


@pytest.mark.parametrize("behavior", list(SendBehavior))
@pytest.mark.parametrize(("count", "size"), [(65, 32), (500, 32), (2000, 32), (100, 1024)])
async def test_a_burst_from_one_callback_on_an_idle_socket_is_not_too_much(
    start: Any, behavior: SendBehavior, count: int, size: int
) -> None:
    def burst(conn: plumews.Conn, message: str | bytes) -> None:
        for index in range(count):
            conn.send_nowait(f"{index:<{size}}")

    # No more than what an idle socket takes at once on any system.
    server = await start(
        plumews.serve(host="127.0.0.1", port=0, on_message=burst, send_behavior=behavior, queue_bytes=16 * KiB)
    )
    async with await Wire.open(server) as wire:
        wire.send(text("go"))
        for index in range(count):
            assert await wire.message() == f"{index:<{size}}"


async def test_a_burst_from_a_handler_on_an_idle_socket_is_not_too_much(start: Any) -> None:
    async with linked(start, send_behavior=DROP) as (conn, wire):
        for index in range(500):
            await conn.send(str(index))
        assert [await wire.message() for _ in range(500)] == [str(index) for index in range(500)]


# --- a connection that is over, a thread that is not its own --------------------------------------


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


# --- a peer that does not read --------------------------------------------------------------------


async def flood(conn: plumews.Conn) -> None:
    """More than any queue here takes."""
    for _ in range(50):
        await conn.send(bytes(16 * KiB))


@pytest.mark.parametrize("behavior", [BLOCK, DROP])
async def test_row_11_a_peer_that_does_not_read_costs_a_bounded_queue(start: Any, behavior: SendBehavior) -> None:
    async with linked(
        start, rcvbuf=4096, send_behavior=behavior, send_timeout=0.001, queue_bytes=128 * KiB, queue_size=100
    ) as (conn, wire):
        clog(conn)
        refused = 0
        for _ in range(50):
            try:
                await conn.send(bytes(16 * KiB))
            except (SendTimeout, SendQueueFull):
                refused += 1
        assert refused > 30
        assert conn.dropped_messages == refused
        assert conn.queued_bytes <= 128 * KiB
        assert conn._transport is not None
        assert conn._transport.get_write_buffer_size() < 400 * KiB
        assert not conn.closed
        # It was only slow: what was accepted arrives.
        sender = started(conn.close())
        received = 0
        while (await wire.event())[0] == Opcode.BINARY:
            received += 1
        assert received >= 50 - refused
        wire.send(close(1000))
        await sender


async def test_row_11_a_peer_that_does_not_read_is_evicted_by_close(start: Any) -> None:
    async with linked(start, rcvbuf=4096, send_behavior=CLOSE, close_timeout=0.2, queue_bytes=64 * KiB) as (conn, _):
        clog(conn)
        with pytest.raises(SendQueueFull, match="connection closed"):
            await flood(conn)
        assert conn.queued_bytes == 0
        await asyncio.wait_for(conn.wait_closed(), PATIENCE)


async def test_row_11_a_peer_that_was_evicted_and_reads_again_learns_why(start: Any) -> None:
    async with linked(start, rcvbuf=4096, send_behavior=CLOSE, queue_bytes=64 * KiB) as (conn, wire):
        clog(conn)
        with pytest.raises(SendQueueFull):
            await flood(conn)
        assert await wire.closing() == (1013, "send queue full")
        wire.send(close(1013))
        await conn.wait_closed()


async def test_a_pong_passes_what_a_slow_peer_has_not_taken(start: Any) -> None:
    """Not what the transport holds already; but that is at most a few hundred kilobytes, whatever is queued."""
    async with linked(start, rcvbuf=4096, queue_bytes=32 * MiB) as (conn, wire):
        await conn.send(bytes(8 * MiB))
        await until(lambda: conn._writer.paused)
        wire.send(masked(Opcode.PING, b"?"), text("read to here"))
        assert await conn.recv() == "read to here"
        assert conn._writer.paused  # the ping came while most of the message still waited
        assert await wire.event() == (Opcode.PONG, b"?")
        assert await wire.event() == (Opcode.BINARY, bytes(8 * MiB))


# --- all of it at random --------------------------------------------------------------------------


async def walk(seed: int) -> None:
    """Senders of every kind on a transport that fills up when it likes: what each was told must be true."""
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
        elif move == 3 and not conn._writer.paused:
            transport.fill()
        elif move == 4 and conn._writer.paused:
            transport.full_after = rnd.choice([None, 1, 2])
            transport.drain()
        elif senders:
            rnd.choice(senders).cancel()
        if rnd.random() < 0.5:
            await ticks(rnd.randrange(3))
    await ticks()
    conn.close_nowait()
    while conn._writer.paused:
        transport.drain()
    await asyncio.gather(*senders, return_exceptions=True)
    events = transport.events()
    assert events.pop() == (Opcode.CLOSE, (1000, ""))
    arrived = [int(payload.split()[0]) for _, payload in events]
    assert arrived == sorted(set(arrived))
    assert {number for number, outcome in told.items() if outcome == "queued"} <= set(arrived)
    assert not {number for number, outcome in told.items() if outcome == "refused"} & set(arrived)
    assert (conn.queued_messages, conn.queued_bytes, conn._writer.waiting) == (0, 0, 0)
    conn.abort()


async def test_what_a_sender_is_told_is_true_whatever_the_transport_does() -> None:
    for seed in range(300):
        try:
            await asyncio.wait_for(walk(seed), 60)
        except BaseException:
            print("seed", seed)  # noqa: T201
            raise
