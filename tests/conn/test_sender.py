"""Messages that are sent in pieces."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import websockets

import plumews
from plumews import (
    ConnectionClosed,
    Opcode,
    SendBehavior,
    SendQueueFull,
    SendTimeout,
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

KiB = 1024


BLOCK, DROP, CLOSE = SendBehavior.BLOCK, SendBehavior.DROP, SendBehavior.CLOSE


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


async def test_message_without_pieces_sends_nothing() -> None:
    conn, transport = fake_conn()
    await conn.send(pieces())
    await conn.send("next")
    assert payloads_of(transport) == ["next"]


async def test_message_in_pieces_holds_one_piece_at_a_time() -> None:
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


async def test_senders_wait_for_a_message_in_pieces_and_pings_do_not() -> None:
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
    """Message in pieces whose last piece comes when the test says so."""

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
async def test_second_message_in_pieces_obeys_the_send_behavior(behavior: SendBehavior) -> None:
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
        while waiters.count(conn) == 4:
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


async def test_failure_before_the_first_piece_disturbs_no_sender() -> None:
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


async def test_message_in_pieces_waits_behind_earlier_senders() -> None:
    conn, transport = filled(send_timeout=None)
    each = [started(conn.send(message)) for message in ("4", pieces("5", "5"), "6")]
    await ticks()
    assert not any(sending.done() for sending in each)
    while conn._paused or not all(sending.done() for sending in each):
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
async def test_failure_between_pieces_closes_with_1011(
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
async def test_failure_before_the_first_piece_changes_nothing(parts: list[Any]) -> None:
    conn, transport = fake_conn()
    with pytest.raises((TypeError, ZeroDivisionError, ValueError)):
        await conn.send(pieces(*parts))
    await conn.send("next")
    assert payloads_of(transport) == ["next"]


async def test_cancelled_message_in_pieces_ends_the_connection() -> None:
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
