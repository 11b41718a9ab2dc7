"""Tests of displaced messages of a full queue, entry by entry. `test_channel_model` has random ones."""

from __future__ import annotations

import contextlib
import tracemalloc
from collections.abc import Hashable

import pytest

import plumews
from plumews import limits
from plumews.conn import full_queue
from plumews.constants import Opcode
from plumews.protocol.codec import build_frame
from plumews.protocol.message import EncodedMessage, encode
from plumews.transport import displacing, message_run, waiters
from plumews.transport.send_queue import Note
from support.fakes import FakeTransport, full, ticks
from support.members import texts


def message(text: str) -> EncodedMessage:
    return encode(Opcode.TEXT, text.encode())


def note(text: str) -> Note:
    return Note(build_frame(Opcode.TEXT, text.encode()))


def put(conn: plumews.Conn, *entries: str | tuple[str, Hashable]) -> list[int]:
    """Queue texts, those with a key by their key. Return how many were dropped for each."""
    dropped = []
    for entry in entries:
        if isinstance(entry, str):
            dropped.append(displacing.displace(conn, message(entry)))
        else:
            dropped.append(displacing.conflate(conn, message(entry[0]), entry[1]))
    return dropped


def arrived(transport: FakeTransport) -> list[str]:
    transport.drain()
    return texts(transport.wire)


async def test_displace_drops_one_old_message_for_a_new_one():
    conn, transport = full(queue_size=3)
    assert put(conn, "a", "b", "c", "d", "e") == [0, 0, 0, 1, 1]
    assert (conn.queued_messages, conn.evicted_messages) == (3, 2)
    assert arrived(transport) == ["c", "d", "e"]


async def test_displace_drops_as_many_bytes_as_needed():
    conn, transport = full(queue_bytes=40)
    assert put(conn, "a" * 8, "b" * 8, "c" * 8, "d" * 18) == [0, 0, 0, 1]
    assert conn.queued_bytes == 40
    assert put(conn, "e" * 1000) == [3]  # larger than the bound: alone in the queue
    assert arrived(transport) == ["e" * 1000]


async def test_queue_age_is_that_of_the_oldest_message_left(monkeypatch):
    times = iter([100.0, 101.0, 102.0, 103.0, 110.0])
    if conn_is_compiled():
        pytest.skip("the clock of the compiled queue cannot be moved")
    monkeypatch.setattr("plumews.transport.send_queue.monotonic", lambda: next(times))
    conn, _ = full(queue_size=3)
    put(conn, "a", "b", "c", "d")
    assert conn.queued_age == 110.0 - 101.0


def conn_is_compiled() -> bool:
    return plumews.BODY == "compiled"


async def test_newest_value_of_a_key_takes_the_older_place():
    conn, transport = full()
    assert put(conn, ("x1", "x"), ("y1", "y"), ("x2", "x"), ("x3", "x")) == [0, 0, 0, 0]
    assert (conn.queued_messages, conn.replaced_messages, conn.evicted_messages) == (2, 2, 0)
    assert arrived(transport) == ["x3", "y1"]


async def test_keyed_message_never_passes_one_without_a_key():
    conn, transport = full()
    put(conn, ("x1", "x"), ("y1", "y"), "between", ("x2", "x"), ("y2", "y"), ("x3", "x"))
    assert conn.replaced_messages == 3
    assert arrived(transport) == ["between", "x3", "y2"]


async def test_key_is_forgotten_when_its_message_is_gone():
    conn, transport = full(queue_size=2)
    put(conn, ("x1", "x"), ("y1", "y"), ("z1", "z"))  # x1 is dropped
    put(conn, ("x2", "x"))  # y1, too
    assert conn.replaced_messages == 0
    assert arrived(transport) == ["z1", "x2"]
    transport.fill()
    put(conn, ("x3", "x"))
    assert conn.replaced_messages == 0
    assert arrived(transport)[2:] == ["x3"]


async def test_unused_keys_are_not_kept():
    conn, _ = full(queue_size=4)
    put(conn, *((str(number), number) for number in range(1000)))
    if not conn_is_compiled():
        assert conn._queue is not None
        assert len(conn._queue._keys or ()) <= 2 * 4 + 16 + 1
    assert conn.queued_messages == 4
    assert conn.evicted_messages == 996


async def test_longer_value_goes_to_the_end_and_displaces_others():
    conn, transport = full(queue_bytes=30)
    put(conn, ("x", "x"), ("y" * 10, "y"), ("z" * 10, "z"))
    assert put(conn, ("X" * 12, "x")) == [1]
    assert arrived(transport) == ["z" * 10, "X" * 12]


async def test_values_of_several_frames_are_replaced():
    conn, transport = full()
    long = encode(Opcode.TEXT, b"long" * 20_000, fragment_size=30_000)
    displacing.conflate(conn, message("short"), "key")
    displacing.conflate(conn, long, "key")
    assert conn.queued_bytes == long.size
    displacing.conflate(conn, message("other"), "another key")
    displacing.conflate(conn, message("short again"), "key")
    assert arrived(transport) == ["short again", "other"]


async def test_loss_report_is_never_displaced():
    conn, transport = full(queue_size=2)
    put(conn, "a", "b")
    full_queue.add_note(conn, note("lost"), first=True)
    assert put(conn, "c", "d") == [2, 1]  # a note takes up space as well
    assert displacing.drop_queued(conn) == 1
    assert arrived(transport) == ["lost"]


async def test_queued_loss_report_can_be_removed():
    conn, transport = full()
    first, last = note("first"), note("last")
    put(conn, "a")
    full_queue.add_note(conn, first, first=True)
    full_queue.add_note(conn, last, first=False)
    put(conn, "b")
    assert not full_queue.take_note(conn, last, last=True)  # it is not the last any more
    assert full_queue.take_note(conn, first, last=False)
    assert not full_queue.take_note(conn, first, last=False)
    assert arrived(transport) == ["a", "last", "b"]
    assert not full_queue.take_note(conn, last, last=False)


async def test_message_in_fragments_is_neither_split_nor_dropped():
    conn, transport = full(queue_size=2)
    put(conn, ("x1", "x"))
    conn._in_pieces = True
    conn._enter(build_frame(Opcode.TEXT, b"piece", fin=False), 7)
    assert put(conn, "a", ("y1", "y"), ("x2", "x")) == [-1, -1, -1]
    assert displacing.drop_queued(conn) == 0
    transport.drain()
    transport.fill()
    conn._enter(build_frame(Opcode.CONT, b"", fin=True), 2)
    conn._end_pieces()
    assert put(conn, "a", "b", "c") == [0, 1, 1]  # its last frame stays, and takes up space
    full_queue.add_note(conn, note("lost"), first=True)
    assert displacing.drop_queued(conn) == 1
    assert arrived(transport) == ["x1", "piece", "lost"]


@pytest.mark.parametrize("kind", ["displace", "conflate"])
async def test_displacing_message_never_passes_a_waiter(kind):
    conn, transport = full(queue_size=1)
    put(conn, "a")
    waiters.add(conn, message("b"), lambda accepted: None)
    if kind == "displace":
        assert displacing.displace(conn, message("c")) == -1
    else:
        assert displacing.conflate(conn, message("c"), "key") == -1
    assert arrived(transport) == ["a", "b"]
    await ticks()


# --- what the bound of bytes counts -----------------------------------------------------------------


@pytest.mark.parametrize("keyed", [False, True], ids=["plain", "with keys"])
@pytest.mark.parametrize("size", [0, 2, 100, 2000])
async def test_bound_of_bytes_counts_the_objects_of_tiny_messages(keyed: bool, size: int):
    conn, _ = full(queue_size=10**6, queue_bytes=500_000)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(20_000):
            message = encode(Opcode.BINARY, bytes(size))
            if keyed:
                displacing.conflate(conn, message, (conn, ("room", str(number))))
            else:
                displacing.displace(conn, message)
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert conn.evicted_messages > 0
    assert 500_000 / 2 <= taken <= 500_000 * 2
    conn.abort()


async def test_bound_of_bytes_counts_the_objects_on_every_way():
    shared = memoryview(build_frame(Opcode.BINARY, b"xy"))
    counts = set()
    for way in ("send", "offer", "run"):
        conn, _ = full(queue_size=10**6, queue_bytes=100_000, send_behavior=plumews.SendBehavior.DROP)
        with contextlib.suppress(plumews.SendQueueFull):
            while True:
                if way == "send":
                    conn.send_nowait(b"xy")
                elif way == "offer" and not conn._try_queue(EncodedMessage([shared], len(shared))):
                    break
                elif way == "run":
                    run = [EncodedMessage([shared], len(shared))] * 5000
                    message_run.accept(conn, run[: message_run.room_for(conn, run)])
                    break
        counts.add(conn.queued_messages)
        conn.abort()
    assert len(counts) == 1
    bound = 100_000 + limits.QUEUED_FREE * limits.QUEUED_OVERHEAD
    assert abs(counts.pop() - bound // (len(shared) + limits.QUEUED_OVERHEAD)) <= 1
