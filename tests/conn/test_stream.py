"""Stream of one message that the test feeds: chunks, end, cut, second reader and close."""

from __future__ import annotations

import asyncio
import weakref

import pytest

from plumews import ConcurrencyError, ConnectionClosed, ConnectionClosedError, Opcode
from plumews.conn.stream import Stream


class Calls:
    """Count the calls of a stream to its connection."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


def gone() -> ConnectionClosed:
    return ConnectionClosedError(None, None, "a message was cut")


def stream_of(*chunks: bytes, finished: bool = True) -> Stream:
    stream = Stream(Opcode.BINARY, lambda: None)
    for chunk in chunks:
        stream.feed(chunk)
    if finished:
        stream.finish()
    return stream


async def test_chunks_come_as_they_were_fed_and_then_the_end() -> None:
    stream = stream_of(b"one", b"two")
    assert [chunk async for chunk in stream] == [b"one", b"two"]
    assert await stream.read() == b""
    assert await stream.read() == b""
    assert stream.done


async def test_a_stream_can_be_left_and_entered_again_between_chunks() -> None:
    stream = stream_of(b"one", b"two", b"three")
    async for chunk in stream:
        assert chunk == b"one"
        break
    assert await stream.read() == b"two"
    assert await stream.read_all() == b"three"


async def test_an_empty_message_has_no_chunk() -> None:
    stream = stream_of()
    assert [chunk async for chunk in stream] == []
    assert await stream.read_all() == b""


async def test_a_reader_waits_for_the_next_chunk() -> None:
    stream = stream_of(finished=False)
    reader = asyncio.ensure_future(stream.read())
    await asyncio.sleep(0)
    assert stream.awaited
    stream.feed(b"late")
    assert await reader == b"late"
    assert not stream.awaited
    reader = asyncio.ensure_future(stream.read())
    await asyncio.sleep(0)
    stream.finish()
    assert await reader == b""


async def test_bytes_that_were_not_read_are_counted() -> None:
    stream = stream_of(b"12345", b"678", finished=False)
    assert stream.buffered == 8
    await stream.read()
    assert stream.buffered == 3
    await stream.aclose()
    assert stream.buffered == 0


async def test_stream_reports_chunks_waits_and_close() -> None:
    calls = Calls()
    stream = Stream(Opcode.TEXT, calls)
    stream.feed(b"a")
    await stream.read()
    assert calls.count == 1
    reader = asyncio.ensure_future(stream.read())
    await asyncio.sleep(0)
    assert calls.count == 2
    stream.feed(b"b")
    await reader
    assert calls.count == 3
    await stream.aclose()
    assert calls.count == 4


async def test_cut_message_raises_after_its_last_chunk() -> None:
    stream = stream_of(b"first", finished=False)
    stream.end(gone)
    assert await stream.read() == b"first"
    for _ in range(3):
        with pytest.raises(ConnectionClosedError, match="a message was cut"):
            await stream.read()
    with pytest.raises(ConnectionClosedError):
        await stream.read_all()
    with pytest.raises(ConnectionClosedError):
        [chunk async for chunk in stream]


async def test_waiting_reader_of_a_cut_message_raises() -> None:
    stream = stream_of(finished=False)
    reader = asyncio.ensure_future(stream.read())
    await asyncio.sleep(0)
    stream.end(gone)
    with pytest.raises(ConnectionClosedError, match="a message was cut"):
        await reader


async def test_complete_message_can_be_read_after_the_end() -> None:
    stream = stream_of(b"one", b"two")
    stream.end(gone)
    assert await stream.read_all() == b"onetwo"
    assert await stream.read() == b""


async def test_leaving_the_block_discards_the_rest() -> None:
    async with stream_of(b"one", finished=False) as stream:
        assert not stream.done
    assert stream.done
    assert stream.discarding
    stream.feed(b"more")
    assert stream.buffered == 0
    stream.finish()
    assert not stream.discarding
    with pytest.raises(ConcurrencyError, match="this stream is closed"):
        await stream.read()


async def test_closing_a_stream_again_does_nothing() -> None:
    calls = Calls()
    stream = Stream(Opcode.BINARY, calls)
    stream.finish()
    await stream.aclose()
    told = calls.count
    await stream.aclose()
    await stream.aclose()
    assert calls.count == told


async def test_waiting_reader_of_a_closed_stream_raises() -> None:
    stream = stream_of(finished=False)
    reader = asyncio.ensure_future(stream.read())
    await asyncio.sleep(0)
    await stream.aclose()
    with pytest.raises(ConcurrencyError, match="this stream is closed"):
        await reader


async def test_two_readers_cannot_wait_for_one_chunk() -> None:
    stream = stream_of(finished=False)
    reader = asyncio.ensure_future(stream.read())
    await asyncio.sleep(0)
    with pytest.raises(ConcurrencyError, match="another task is reading this stream"):
        await stream.read()
    stream.feed(b"for the first")
    assert await reader == b"for the first"


async def test_a_cancelled_read_loses_no_chunk() -> None:
    stream = stream_of(finished=False)
    reader = asyncio.ensure_future(stream.read())
    await asyncio.sleep(0)
    stream.feed(b"kept")
    reader.cancel()  # after the chunk, before the reader got it
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert await stream.read() == b"kept"


async def test_a_message_that_is_put_together_is_taken_in_one_piece() -> None:
    stream = stream_of(b"one", finished=False)
    whole = asyncio.ensure_future(stream.complete())
    await asyncio.sleep(0)
    stream.feed(b"two")
    await asyncio.sleep(0)
    assert not whole.done()
    whole.cancel()
    with pytest.raises(asyncio.CancelledError):
        await whole
    stream.finish()
    assert await stream.complete() == b"onetwo"


async def test_cut_message_is_not_put_together() -> None:
    stream = stream_of(b"one", finished=False)
    stream.end(gone)
    for _ in range(2):
        with pytest.raises(ConnectionClosedError):
            await stream.complete()


async def test_kept_stream_does_not_keep_its_connection() -> None:
    calls = Calls()
    lost = weakref.ref(calls)
    stream = Stream(Opcode.BINARY, calls)
    stream.feed(b"x")
    stream.finish()
    del calls
    assert lost() is not None
    stream.end(gone)
    assert lost() is None
    assert await stream.read_all() == b"x"


@pytest.mark.parametrize(
    ("stream", "text"),
    [
        (stream_of(b"abc", finished=False), "<plumews.Stream BINARY arriving buffered=3>"),
        (stream_of(b"abc"), "<plumews.Stream BINARY complete buffered=3>"),
    ],
)
def test_repr_of_a_stream_has_its_state(stream: Stream, text: str) -> None:
    assert repr(stream) == text


async def test_the_repr_of_a_closed_one() -> None:
    stream = stream_of(b"abc")
    await stream.aclose()
    assert repr(stream) == "<plumews.Stream BINARY closed buffered=0>"
