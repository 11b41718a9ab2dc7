"""Receive queue: its two bounds and its reader."""

from __future__ import annotations

import asyncio
import sys

import pytest

from plumews import ConcurrencyError, Conn, ConnConfig, limits
from plumews.conn.receive_queue import ReceiveQueue
from plumews.conn.stream import Stream
from plumews.constants import Opcode, StreamEvent

#: What a message takes besides its payload.
MORE = limits.RECEIVED_OVERHEAD


def inbox(max_items: int = 4, max_bytes: int = 100 + 4 * MORE) -> ReceiveQueue:
    return ReceiveQueue(max_items=max_items, max_bytes=max_bytes)


def test_messages_come_out_as_they_went_in() -> None:
    box = inbox()
    items = [(Opcode.TEXT, "a"), (Opcode.BINARY, b"b"), (Opcode.TEXT, "")]
    for item in items:
        box.put(item)
    assert len(box) == 3
    assert box.peek() == box.peek() == items[0]
    assert [box.take() for _ in items] == items
    assert len(box) == 0
    assert box.bytes == 0


def test_plain_messages_come_out_as_items() -> None:
    box = inbox()
    for message in ("a", b"b"):
        box.put(message)
        assert box.first() == message
        held = box.bytes
        assert box.peek()[1] == message
        assert (box.take(), box.bytes) == ((Opcode.TEXT if message == "a" else Opcode.BINARY, message), 0)
        box.put((Opcode.TEXT, message))
        assert box.bytes == held
        box.drop()
    assert (len(box), box.bytes) == (0, 0)


def test_queue_is_full_at_max_items_and_low_at_half() -> None:
    box = inbox()
    fullness = []
    for _ in range(5):
        box.put((Opcode.BINARY, b""))
        fullness.append(box.is_full(0))
    assert fullness == [False, False, False, True, True]
    lowness = []
    for _ in range(5):
        box.take()
        lowness.append(box.is_low(0))
    assert lowness == [False, False, True, True, True]


def test_queue_is_full_at_max_bytes_and_low_at_half() -> None:
    box = inbox(max_bytes=100 + 2 * MORE)
    box.put((Opcode.BINARY, bytes(99)))
    assert not box.is_full(0)
    box.put((Opcode.TEXT, "x"))
    assert box.is_full(0)
    box.take()
    assert box.is_low(0)
    assert box.bytes == 1 + MORE


@pytest.mark.parametrize("text", ["a", "é", "€", "\U0001f600"])
@pytest.mark.parametrize("size", [0, 1, 2, 100, 10_000])
def test_text_counts_the_memory_of_its_characters(text: str, size: int) -> None:
    box = inbox()
    message = text * size
    box.put((Opcode.TEXT, message))
    assert sys.getsizeof(message) <= box.bytes <= sys.getsizeof(message) + MORE
    box.take()
    assert box.bytes == 0


@pytest.mark.parametrize(
    "message", [b"", b"xy", "a" * 40, "\U0001f600" * 9, bytes(5000)], ids=["empty", "tiny", "ascii", "wide", "long"]
)
def test_count_is_within_a_factor_of_two_of_the_memory(message: str | bytes) -> None:
    box = inbox()
    item = (1 if isinstance(message, str) else 2, message)
    box.put(item)
    place = 8
    assert box.bytes / 2 <= sys.getsizeof(item) + sys.getsizeof(message) + place <= 2 * box.bytes


def test_bytes_held_elsewhere_count() -> None:
    box = inbox(max_bytes=100 + MORE)
    box.put((Opcode.BINARY, bytes(40)))
    assert box.is_full(60)
    assert not box.is_full(59)
    box = inbox(max_bytes=100 + 2 * MORE)
    box.put((Opcode.BINARY, bytes(40)))
    assert box.is_low(10)
    assert not box.is_low(11)


def test_bound_of_one_message_is_full_or_low() -> None:
    box = inbox(max_items=1)
    assert box.is_low(0)
    box.put((Opcode.BINARY, b""))
    assert box.is_full(0)
    assert not box.is_low(0)
    box.take()
    assert box.is_low(0)


async def test_message_wakes_the_reader() -> None:
    box = inbox()
    waiting = box.start_waiting(asyncio.get_running_loop())
    assert box.awaited
    assert not waiting.done()
    box.put((Opcode.TEXT, "a"))
    box.put((Opcode.TEXT, "b"))
    assert not waiting.done()  # not before all that a read has brought is there
    box.wake()
    await waiting
    box.stop_waiting()
    assert not box.awaited


async def test_wake_now_resumes_the_reader_at_once() -> None:
    box = inbox()
    waiting = box.start_waiting(asyncio.get_running_loop())
    box.wake_now()
    assert not waiting.done()
    box.put((Opcode.TEXT, "a"))
    box.wake_now()
    assert waiting.done()
    box.wake_now()  # once is enough
    await waiting


async def test_two_cannot_wait() -> None:
    box = inbox()
    box.start_waiting(asyncio.get_running_loop())
    with pytest.raises(ConcurrencyError, match="another task is already receiving"):
        box.start_waiting(asyncio.get_running_loop())
    box.stop_waiting()
    box.start_waiting(asyncio.get_running_loop())


async def test_a_waiter_that_was_cancelled_is_not_woken() -> None:
    box = inbox()
    box.start_waiting(asyncio.get_running_loop()).cancel()
    box.put((Opcode.TEXT, "a"))
    box.wake_now()
    box.wake()
    box.stop_waiting()
    assert box.take() == (Opcode.TEXT, "a")


async def test_stream_in_the_queue_has_a_reader_of_its_rest() -> None:
    box = inbox()
    stream = Stream(Opcode.BINARY, lambda: None)
    box.put((StreamEvent.BEGIN, stream))
    assert box.stream is stream
    assert box.bytes == MORE
    assert not box.awaited
    task = asyncio.ensure_future(stream.complete())
    await asyncio.sleep(0)
    assert box.awaited
    stream.finish()
    assert await task == b""
    assert box.take() == (StreamEvent.BEGIN, stream)
    assert box.stream is None


def test_only_the_next_message_can_be_the_stream() -> None:
    box = inbox()
    box.put((Opcode.TEXT, "first"))
    box.put((StreamEvent.BEGIN, Stream(Opcode.BINARY, lambda: None)))
    assert box.stream is None
    box.take()
    assert box.stream is not None


async def test_connections_without_messages_share_one_empty_queue() -> None:
    idle, other = Conn(ConnConfig(max_queue=7)), Conn(ConnConfig(max_queue=7))
    shared = idle._inbox
    assert other._inbox is shared
    other._own_inbox().put((Opcode.TEXT, "a"))
    assert other._own_inbox() is other._inbox is not shared
    assert (len(other._inbox), len(idle._inbox), shared.room()) == (1, 0, 7)
