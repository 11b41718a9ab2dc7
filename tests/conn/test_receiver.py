"""How an application reads: whole messages, streams, backpressure, cancellation, the end.

What depends on the exact order of reads and wake-ups is fed to a connection without a socket; the rest is real.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import plumews
from plumews import ConcurrencyError, ConnectionClosedError, ConnectionClosedOK, Opcode, limits
from support.fakes import collect, deadlines, fake_conn, feed, linked, started, ticks, until
from support.raw_client import Wire, close, masked, text

MiB = 1024 * 1024
KiB = 1024


# --- whole messages -------------------------------------------------------------------------------

SIZES = [0, 1, 125, 126, 127, 4096, 65535, 65536, 65537, 200_000, MiB]


@pytest.mark.parametrize("size", SIZES)
async def test_binary_of_any_size_arrives_as_it_was_sent(start: Any, size: int) -> None:
    payload = bytes(index % 251 for index in range(size % 100_000)) + bytes(size - size % 100_000)
    async with linked(start) as (conn, wire):
        wire.send(masked(Opcode.BINARY, payload), masked(Opcode.BINARY, payload), masked(Opcode.BINARY, payload))
        assert await conn.recv() == payload
        assert await conn.read_message() == (Opcode.BINARY, payload)
        assert await conn.__anext__() == payload


@pytest.mark.parametrize("size", SIZES)
async def test_text_of_any_size_arrives_as_it_was_sent(start: Any, size: int) -> None:
    message = ("grün€😀" * (size // 7 + 1))[:size]
    async with linked(start) as (conn, wire):
        wire.send(text(message), text(message), text(message))
        assert await conn.recv() == message
        assert await conn.read_message() == (Opcode.TEXT, message.encode())
        assert await conn.__anext__() == message


@pytest.mark.parametrize("pieces", [[b"", b"a"], [b"a", b""], [b"", b"", b""], [b"a", b"b", b"c"], [bytes(70_000)] * 3])
async def test_fragments_are_one_message(start: Any, pieces: list[bytes]) -> None:
    frames = [
        masked(Opcode.CONT if index else Opcode.BINARY, piece, fin=index == len(pieces) - 1)
        for index, piece in enumerate(pieces)
    ]
    async with linked(start) as (conn, wire):
        wire.send(*frames)
        assert await conn.read_message() == (Opcode.BINARY, b"".join(pieces))


async def test_a_character_cut_by_fragments_is_whole_again(start: Any) -> None:
    data = "€😀".encode()
    frames = [
        masked(Opcode.CONT if index else Opcode.TEXT, data[index : index + 1], fin=index == len(data) - 1)
        for index in range(len(data))
    ]
    async with linked(start) as (conn, wire):
        wire.send(*frames)
        assert await conn.recv() == "€😀"


async def test_a_message_byte_by_byte(start: Any) -> None:
    async with linked(start) as (conn, wire):
        frame = text("slowly")
        for index in range(len(frame)):
            wire.send(frame[index : index + 1])
            await ticks()
        assert await conn.recv() == "slowly"


async def test_recv_decodes_as_asked() -> None:
    conn, _ = fake_conn()
    for message in (text("grün"), masked(Opcode.BINARY, "grün".encode())):
        feed(conn, message * 3)
        assert await conn.recv(decode=True) == "grün"
        assert await conn.recv(decode=False) == "grün".encode()
        assert type(await conn.recv()) is (str if message is not None and message[0] == 0x81 else bytes)
    feed(conn, masked(Opcode.BINARY, b"\xff"))
    with pytest.raises(UnicodeDecodeError):
        await conn.recv(decode=True)
    conn.abort()


async def test_read_message_gives_the_opcode_by_name() -> None:
    conn, _ = fake_conn()
    feed(conn, text("a"), masked(Opcode.BINARY, b"b"))
    kinds = [(await conn.read_message())[0] for _ in range(2)]
    assert kinds == [Opcode.TEXT, Opcode.BINARY]
    assert all(isinstance(kind, Opcode) for kind in kinds)
    conn.abort()


async def test_iteration_does_not_suspend_while_messages_wait() -> None:
    conn, _ = fake_conn()
    feed(conn, *[text(str(index)) for index in range(100)])
    others = 0

    async def other() -> None:
        nonlocal others
        others += 1

    task = started(other())
    got = []
    async for message in conn:
        got.append(message)
        if len(got) == 100:
            break
    assert got == [str(index) for index in range(100)]
    assert others == 0
    await task
    conn.abort()


# --- the end --------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [1000, 1001, None])
async def test_iteration_ends_when_the_connection_ended_well(start: Any, code: int | None) -> None:
    async with linked(start) as (conn, wire):
        wire.send(text("a"), text("b"), close(code, "" if code is None else "bye"))
        assert [message async for message in conn] == ["a", "b"]
        assert await wire.closing() == (code or 1005, "")
        await conn.wait_closed()
        assert (conn.close_code, conn.close_reason) == (code or 1005, "" if code is None else "bye")
        assert [message async for message in conn] == []
        with pytest.raises(ConnectionClosedOK):
            await conn.recv()


@pytest.mark.parametrize("code", [1002, 1011, 3000, 4999])
async def test_iteration_raises_when_it_ended_otherwise(start: Any, code: int) -> None:
    async with linked(start) as (conn, wire):
        wire.send(text("a"), close(code, "why"))
        got: list[Any] = []
        with pytest.raises(ConnectionClosedError, match="why") as info:
            await collect(conn, got)
        assert got == ["a"]
        assert (info.value.code, info.value.reason) == (code, "why")
        assert "connection closed" in str(info.value)


async def test_messages_are_readable_after_the_close_of_the_peer(start: Any) -> None:
    async with linked(start) as (conn, wire):
        wire.send(text("a"), masked(Opcode.BINARY, b"b"), text("c"), close(1001, "gone"))
        await until(lambda: conn.close_code is not None)
        assert await conn.recv() == "a"
        assert await conn.read_message() == (Opcode.BINARY, b"b")
        async with await conn.read_stream() as stream:
            assert await stream.read_all() == b"c"
        with pytest.raises(ConnectionClosedOK) as info:
            await conn.recv()
        assert (info.value.code, info.value.reason) == (1001, "gone")


@pytest.mark.parametrize("how", ["eof", "reset"])
async def test_messages_are_readable_after_the_connection_was_lost(start: Any, how: str) -> None:
    async with linked(start) as (conn, wire):
        wire.send(text("a"), text("b"))
        await until(lambda: len(conn._inbox) == 2)
        if how == "eof":
            wire.writer.write_eof()
        else:
            wire.reset()
        await conn.wait_closed()
        assert conn.close_code == 1006
        assert [await conn.recv(), await conn.recv()] == ["a", "b"]
        with pytest.raises(ConnectionClosedError) as info:
            await conn.recv()
        assert info.value.code == 1006


@pytest.mark.parametrize("read", ["recv", "read_message", "read_stream"])
@pytest.mark.parametrize("end", ["close", "eof", "reset", "fault", "abort", "our close"])
async def test_a_waiting_reader_is_told_of_every_kind_of_end(start: Any, read: str, end: str) -> None:
    options = {"close_timeout": 0.2} if end == "fault" else {}  # of which this peer hears nothing
    async with linked(start, **options) as (conn, wire):
        reader = started(getattr(conn, read)())
        await ticks()
        if end == "close":
            wire.send(close(1000))
        elif end == "eof":
            wire.writer.write_eof()
        elif end == "reset":
            wire.reset()
        elif end == "fault":
            wire.send(b"\xff\xff")
        elif end == "abort":
            conn.abort()
        else:
            conn.close_nowait()
            assert await wire.closing() == (1000, "")
            wire.send(close(1000))
        with pytest.raises(plumews.ConnectionClosed) as info:
            await reader
        assert isinstance(info.value, ConnectionClosedOK) is (end in ("close", "our close"))
        assert not conn._inbox.awaited
        await conn.wait_closed()


CUTS = {
    "between fragments": [masked(Opcode.BINARY, b"first", fin=False)],
    "inside a frame": [masked(Opcode.BINARY, bytes(100))[:50]],
    "inside a header": [masked(Opcode.BINARY, bytes(1000))[:3]],
}


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
@pytest.mark.parametrize("end", ["eof", "reset", "close"])
@pytest.mark.parametrize("read", ["recv", "read_message", "iteration"])
async def test_section_8_point_1_a_message_that_was_cut_is_an_error_never_short(
    start: Any, cut: list[bytes], end: str, read: str
) -> None:
    if end == "close" and cut is not CUTS["between fragments"]:
        cut = CUTS["between fragments"]  # only there is a close frame one
    async with linked(start) as (conn, wire):
        wire.send(text("whole"), *cut)
        if end == "eof":
            wire.writer.write_eof()
        elif end == "close":
            wire.send(close(1000))
        assert await conn.recv() == "whole"
        await until(lambda: conn._rules.parser.mid_message)
        if end == "reset":
            wire.reset()
        reading = collect(conn, []) if read == "iteration" else getattr(conn, read)()
        with pytest.raises(ConnectionClosedError, match="a message was cut"):
            await reading


async def test_a_message_beyond_the_limit_is_not_seen_and_those_before_it_are(start: Any) -> None:
    async with linked(start, max_size=1000) as (conn, wire):
        wire.send(text("x" * 1000), text("y" * 1001), text("z"))
        got: list[Any] = []
        with pytest.raises(ConnectionClosedError, match="payload too large"):
            await collect(conn, got)
        assert got == ["x" * 1000]
        assert (await wire.closing())[0] == 1009


# --- one reader -----------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["recv", "read_message", "read_stream"])
@pytest.mark.parametrize("second", ["recv", "read_message", "read_stream", "__anext__"])
async def test_two_readers_at_once_are_an_error_for_the_second(first: str, second: str) -> None:
    conn, _ = fake_conn()
    reader = started(getattr(conn, first)())
    await ticks()
    with pytest.raises(ConcurrencyError, match="another task is already receiving"):
        await getattr(conn, second)()
    feed(conn, text("for the first"))
    result = await reader
    assert result in ("for the first", (Opcode.TEXT, b"for the first")) or isinstance(result, plumews.Stream)
    conn.abort()


async def test_a_second_reader_cannot_slip_in_before_the_first_has_woken_up() -> None:
    conn, _ = fake_conn()
    reader = started(conn.recv())
    await ticks()
    feed(conn, text("a"), text("b"))
    with pytest.raises(ConcurrencyError):
        await conn.recv()
    assert await reader == "a"
    assert await conn.recv() == "b"
    conn.abort()


async def test_another_thread_is_a_concurrency_error() -> None:
    conn, _ = fake_conn()
    feed(conn, text("a"))
    errors: list[BaseException] = []

    def elsewhere(call: Callable[[], Any]) -> None:
        try:
            coroutine = call()
            if coroutine is not None:
                coroutine.send(None)
        except BaseException as exc:
            errors.append(exc)

    for name in ("recv", "read_message", "read_stream"):
        thread = threading.Thread(target=elsewhere, args=(getattr(conn, name),))
        thread.start()
        thread.join()
    assert [type(error) for error in errors] == [ConcurrencyError] * 3
    assert "belongs to the thread of its event loop" in str(errors[0])
    assert await conn.recv() == "a"
    conn.abort()


async def test_reading_beside_a_callback_is_an_error(start: Any) -> None:
    opened: asyncio.Future[plumews.Conn] = asyncio.get_running_loop().create_future()
    server = await start(
        plumews.serve(host="127.0.0.1", port=0, on_open=opened.set_result, on_message=lambda conn, message: None)
    )
    async with await Wire.open(server):
        conn = await opened
        for call in (conn.recv, conn.read_message, conn.read_stream):
            with pytest.raises(ConcurrencyError, match="on_message"):
                await call()


# --- cancellation ---------------------------------------------------------------------------------


@pytest.mark.parametrize("read", ["recv", "read_message", "read_stream"])
async def test_a_cancelled_reader_loses_no_message(read: str) -> None:
    conn, _ = fake_conn()
    for arrives_first in (False, True):
        reader = started(getattr(conn, read)())
        await ticks()
        if arrives_first:
            feed(conn, text("kept"))  # it has woken the reader, which is cancelled before it runs
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        if not arrives_first:
            feed(conn, text("kept"))
        assert await conn.recv() == "kept"
    conn.abort()


async def test_a_cancelled_read_stream_leaves_a_message_that_can_be_read_in_any_way() -> None:
    conn, _ = fake_conn()
    frame = masked(Opcode.TEXT, "first and second")
    readers: list[Callable[[], Awaitable[Any]]] = [conn.recv, conn.read_message, conn.read_stream]
    for read in readers:
        reader = started(conn.read_stream())
        await ticks()
        feed(conn, frame[:10])
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        again = started(read())
        await ticks()
        feed(conn, frame[10:])
        result = await again
        if isinstance(result, plumews.Stream):
            result = await result.read_all()
        assert result in ("first and second", b"first and second", (Opcode.TEXT, b"first and second"))
        assert conn._inbox.bytes == len(conn._inbox) == 0
    conn.abort()


async def test_who_puts_a_cancelled_stream_together_is_the_only_reader() -> None:
    conn, _ = fake_conn()
    frame = masked(Opcode.TEXT, "first and second")
    reader = started(conn.read_stream())
    await ticks()
    feed(conn, frame[:10])
    reader.cancel()
    await ticks()
    whole = started(conn.recv())
    await ticks()
    for read in (conn.recv, conn.read_message, conn.read_stream):
        with pytest.raises(ConcurrencyError):
            await read()
    feed(conn, frame[10:], text("next"))
    with pytest.raises(ConcurrencyError):  # it is complete, and belongs to the one who waited
        await conn.read_stream()
    assert await whole == "first and second"
    assert await conn.recv() == "next"
    conn.abort()


async def test_reading_with_a_timeout_loses_nothing(start: Any) -> None:
    messages = [str(index) for index in range(300)]

    async with linked(start) as (conn, wire):

        async def send() -> None:
            for message in messages:
                wire.send(text(message))
                await ticks(2)

        sender = started(send())
        got: list[Any] = []
        timeouts = 0
        while len(got) < len(messages):
            try:
                got.append(await asyncio.wait_for(conn.recv(), 0.0005))
            except asyncio.TimeoutError:
                timeouts += 1
        assert got == messages
        await sender


# --- streams --------------------------------------------------------------------------------------


async def test_section_8_point_12_a_stream_delivers_inside_a_frame(start: Any) -> None:
    frame = masked(Opcode.BINARY, b"a" * 1000 + b"b" * 1000)
    half = len(frame) - 1000
    async with linked(start) as (conn, wire):
        wire.send(frame[:half])
        async with await conn.read_stream() as stream:
            assert stream.opcode is Opcode.BINARY
            got = b""
            while len(got) < 1000:
                got += await stream.read()
            assert got == b"a" * 1000
            wire.send(frame[half:])
            assert await stream.read_all() == b"b" * 1000


async def test_section_8_point_12_a_stream_begins_with_the_header_of_its_message() -> None:
    conn, _ = fake_conn()
    reader = started(conn.read_stream())
    await ticks()
    frame = masked(Opcode.BINARY, bytes(70_000))
    feed(conn, frame[:14])
    stream = await reader
    assert not stream.done
    for start in range(14, len(frame), 1000):
        feed(conn, frame[start : start + 1000])
        assert len(await stream.read()) == len(frame[start : start + 1000])
    assert await stream.read() == b""
    conn.abort()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("fragment", [None, 1000, 65536])
async def test_a_stream_of_any_size_is_the_message(start: Any, size: int, fragment: int | None) -> None:
    payload = bytes(size)
    step = fragment or size or 1
    frames = [
        masked(Opcode.CONT if begin else Opcode.BINARY, payload[begin : begin + step], fin=begin + step >= size)
        for begin in range(0, size or 1, step)
    ]
    async with linked(start) as (conn, wire):
        wire.send(*frames, text("behind"))
        async with await conn.read_stream() as stream:
            chunks = [chunk async for chunk in stream]
        assert b"" not in chunks
        assert b"".join(chunks) == payload
        assert await conn.recv() == "behind"


async def test_control_frames_inside_a_streamed_message_are_answered(start: Any) -> None:
    async with linked(start) as (conn, wire):
        wire.send(masked(Opcode.TEXT, "one ", fin=False), masked(Opcode.PING, b"?"), masked(Opcode.CONT, "two"))
        async with await conn.read_stream() as stream:
            assert await wire.event() == (Opcode.PONG, b"?")
            assert await stream.read_all() == b"one two"


async def test_streams_and_messages_take_turns(start: Any) -> None:
    async with linked(start) as (conn, wire):
        for index in range(20):
            wire.send(text(f"s{index}"), text(f"m{index}"))
            async with await conn.read_stream() as stream:
                assert await stream.read_all() == f"s{index}".encode()
            assert await conn.recv() == f"m{index}"


@pytest.mark.parametrize("end", ["eof", "reset", "close", "fault"])
async def test_section_8_point_1_a_stream_that_is_cut_raises_after_what_has_arrived(start: Any, end: str) -> None:
    async with linked(start) as (conn, wire):
        wire.send(masked(Opcode.BINARY, b"first", fin=False))
        stream = await conn.read_stream()
        assert await stream.read() == b"first"
        if end == "eof":
            wire.writer.write_eof()
        elif end == "reset":
            wire.reset()
        elif end == "close":
            wire.send(close(1000))
        else:
            wire.send(text("a new message inside a message"))
        with pytest.raises(ConnectionClosedError) as info:
            await stream.read()
        assert ("a message was cut" if end != "fault" else "protocol error") in str(info.value)
        with pytest.raises(ConnectionClosedError):
            await conn.recv()


async def test_section_8_point_7_text_that_is_not_utf_8_breaks_the_stream_at_once(start: Any) -> None:
    async with linked(start) as (conn, wire):
        wire.send(masked(Opcode.TEXT, "grün".encode() + b"\xff", fin=False))
        stream = await conn.read_stream()
        got: list[Any] = []
        with pytest.raises(ConnectionClosedError, match="UTF-8"):
            await collect(stream, got)
        assert "grün".encode().startswith(b"".join(got))
        assert (await wire.closing())[0] == 1007


async def test_section_8_point_2_a_stale_stream_touches_nothing_else() -> None:
    conn, transport = fake_conn()
    feed(conn, text("one"))
    stale = await conn.read_stream()
    assert await stale.read_all() == b"one"
    await stale.aclose()

    frame = masked(Opcode.BINARY, b"two and three")
    reader = started(conn.read_stream())
    await ticks()
    feed(conn, frame[:10])
    fresh = await reader
    await stale.aclose()
    with pytest.raises(ConcurrencyError):
        await stale.read()
    assert not fresh.done
    assert conn._stream is fresh
    feed(conn, frame[10:], text("four"))
    assert await fresh.read_all() == b"two and three"
    await fresh.aclose()
    await stale.aclose()
    assert await conn.recv() == "four"
    assert transport.wire == b""
    conn.abort()


async def test_a_stream_that_ends_behind_its_last_chunk_leaves_the_connection() -> None:
    conn, _ = fake_conn()
    reader = started(conn.read_stream())
    await ticks()
    feed(conn, masked(Opcode.BINARY, b"a", fin=False))
    stream = await reader
    assert await stream.read() == b"a"
    feed(conn, masked(Opcode.CONT, b""))
    assert conn._stream is None
    assert await stream.read() == b""
    conn.abort()


async def test_before_a_stream_is_read_to_its_end_there_is_no_next_message() -> None:
    conn, _ = fake_conn()
    feed(conn, text("one"), text("two"))
    stream = await conn.read_stream()
    for read in (conn.recv, conn.read_message, conn.read_stream):
        with pytest.raises(ConcurrencyError, match="a stream is open: read it to its end or close it"):
            await read()
    assert await stream.read_all() == b"one"
    assert await conn.recv() == "two"
    conn.abort()


async def test_a_stream_that_is_closed_early_is_discarded_and_the_connection_goes_on(start: Any) -> None:
    async with linked(start, close_timeout=5) as (conn, wire):
        before = deadlines()
        frame = masked(Opcode.BINARY, bytes(300_000))
        wire.send(frame[:1000])
        async with await conn.read_stream() as stream:
            await stream.read()
        assert deadlines() == before + 1
        wire.send(frame[1000:], text("behind"))
        assert await conn.recv() == "behind"
        assert deadlines() == before
        await conn.send("still here")
        assert await wire.message() == "still here"


async def test_a_stream_behind_a_discarded_one_is_delivered_in_pieces_too() -> None:
    conn, _ = fake_conn()
    first, second = masked(Opcode.BINARY, bytes(1000)), masked(Opcode.BINARY, bytes(2000))
    reader = started(conn.read_stream())
    await ticks()
    feed(conn, first[:100])
    async with await reader:
        pass
    reader = started(conn.read_stream())
    await ticks()
    feed(conn, first[100:], second[:500])
    stream = await reader
    assert len(await stream.read()) == 492
    feed(conn, second[500:])
    assert len(await stream.read_all()) == 1508
    conn.abort()


async def test_whole_messages_behind_a_discarded_stream_keep_their_order_before_a_stream() -> None:
    conn, _ = fake_conn()
    first, last = masked(Opcode.BINARY, bytes(1000)), masked(Opcode.TEXT, "last")
    reader = started(conn.read_stream())
    await ticks()
    feed(conn, first[:100])
    await (await reader).aclose()
    reader = started(conn.read_stream())
    await ticks()
    feed(conn, first[100:], text("a"), text("b"), last[:7])
    got = [await (await reader).read_all()]
    reader = started(conn.read_stream())
    await ticks()
    got.append(await (await reader).read_all())
    stream = await conn.read_stream()
    feed(conn, last[7:])
    got.append(await stream.read_all())
    assert got == [b"a", b"b", b"last"]
    conn.abort()


async def test_the_rest_of_a_discarded_message_must_come_in_time(start: Any) -> None:
    async with linked(start, close_timeout=0.05) as (conn, wire):
        wire.send(masked(Opcode.BINARY, b"never ends", fin=False))
        async with await conn.read_stream():
            pass
        assert await wire.closing() == (1008, "the rest of a discarded message did not come")


async def test_a_stream_that_nobody_takes_any_more_because_we_close_is_not_begun() -> None:
    conn, transport = fake_conn()
    reader = started(conn.read_stream())
    await ticks()
    conn.close_nowait()
    feed(conn, masked(Opcode.BINARY, bytes(1000), fin=False), masked(Opcode.CONT, bytes(1000)), close(1000))
    with pytest.raises(ConnectionClosedOK):
        await reader
    assert len(conn._inbox) == 0
    await ticks()
    assert transport.closing


# --- backpressure ---------------------------------------------------------------------------------


async def test_a_handler_that_does_not_read_stops_the_reading_at_the_bound_of_messages() -> None:
    conn, transport = fake_conn(max_queue=8)
    for index in range(7):
        feed(conn, text(str(index)))
        assert transport.reading
    feed(conn, text("7"))
    assert not transport.reading
    for index in range(3):
        assert await conn.recv() == str(index)
        assert not transport.reading
    assert await conn.recv() == "3"
    assert transport.reading
    assert [await conn.recv() for _ in range(4)] == ["4", "5", "6", "7"]
    conn.abort()


async def test_a_handler_that_does_not_read_stops_the_reading_at_the_bound_of_bytes() -> None:
    conn, transport = fake_conn(max_queue_bytes=1000 + 2 * limits.RECEIVED_OVERHEAD)
    feed(conn, masked(Opcode.BINARY, bytes(999)))
    assert transport.reading
    feed(conn, masked(Opcode.BINARY, bytes(1)))
    assert not transport.reading
    await conn.recv()
    assert transport.reading
    conn.abort()


async def test_a_long_message_that_nobody_waits_for_stops_the_reading_and_waiting_lets_it_in() -> None:
    conn, transport = fake_conn(max_queue_bytes=1000)
    frame = masked(Opcode.BINARY, bytes(5000))
    feed(conn, frame[:900])
    assert transport.reading
    feed(conn, frame[900:1100])
    assert not transport.reading
    reader = started(conn.recv())
    await ticks()
    assert transport.reading
    feed(conn, frame[1100:4000])
    assert transport.reading
    feed(conn, frame[4000:])
    assert await reader == bytes(5000)
    conn.abort()


async def test_a_reader_that_gives_up_stops_the_reading_again() -> None:
    conn, transport = fake_conn(max_queue_bytes=1000)
    frame = masked(Opcode.BINARY, bytes(5000))
    feed(conn, frame[:1100])
    reader = started(conn.recv())
    await ticks()
    reader.cancel()
    await ticks()
    feed(conn, frame[1100:1200])
    assert not transport.reading
    reader = started(conn.recv())
    await ticks()
    feed(conn, frame[1200:])
    assert await reader == bytes(5000)
    conn.abort()


async def test_a_stream_that_is_read_slowly_stops_the_reading() -> None:
    conn, transport = fake_conn(max_queue_bytes=1000)
    frame = masked(Opcode.BINARY, bytes(5000))
    reader = started(conn.read_stream())
    await ticks()
    feed(conn, frame[:500])
    stream = await reader
    feed(conn, frame[500:1100])
    assert not transport.reading
    await stream.read()
    assert not transport.reading  # 600 are left, 500 is low
    await stream.read()
    assert transport.reading
    feed(conn, frame[1100:3000])
    assert not transport.reading
    await stream.aclose()  # what is thrown away stops nothing
    assert transport.reading
    feed(conn, frame[3000:4999])
    assert transport.reading
    conn.abort()


async def test_a_message_left_by_a_cancelled_stream_is_let_in_for_the_next_reader() -> None:
    conn, transport = fake_conn(max_queue_bytes=1000)
    frame = masked(Opcode.BINARY, bytes(5000))
    reader = started(conn.read_stream())
    await ticks()
    feed(conn, frame[:100])
    reader.cancel()
    await ticks()
    feed(conn, frame[100:1200])
    assert not transport.reading
    reader = started(conn.recv())
    await ticks()
    assert transport.reading
    feed(conn, frame[1200:])
    assert await reader == bytes(5000)
    conn.abort()


async def test_a_message_that_was_complete_before_it_was_streamed_counts_while_it_is_unread() -> None:
    conn, transport = fake_conn(max_queue_bytes=1000 + 2 * limits.RECEIVED_OVERHEAD)
    feed(conn, masked(Opcode.BINARY, bytes(700)))
    stream = await conn.read_stream()
    feed(conn, masked(Opcode.BINARY, bytes(200)))
    assert transport.reading
    feed(conn, masked(Opcode.BINARY, bytes(700))[:200])
    assert not transport.reading
    await stream.read_all()
    assert transport.reading
    conn.abort()


async def test_while_we_close_the_reading_goes_on() -> None:
    conn, transport = fake_conn(max_queue=2)
    feed(conn, text("a"), text("b"))
    assert not transport.reading
    conn.close_nowait()
    assert transport.reading
    feed(conn, *[text("unwanted")] * 100)
    assert transport.reading
    assert len(conn._inbox) == 2
    assert [await conn.recv(), await conn.recv()] == ["a", "b"]
    conn.abort()


async def test_nothing_is_lost_by_backpressure_and_memory_stays_bounded(start: Any) -> None:
    """40 MiB for a handler that does not read: the socket fills up, and it is all there when it does."""
    payload = bytes(64 * KiB)
    count = 640
    async with linked(start, max_queue_bytes=256 * KiB) as (conn, wire):

        async def send() -> None:
            for index in range(count):
                wire.send(masked(Opcode.BINARY, index.to_bytes(2, "big") + payload))
                await wire.writer.drain()

        sender = started(send())
        await until(lambda: conn._reading_paused)
        await ticks(50)
        assert not sender.done()
        assert conn._inbox.bytes + conn._rules.parser.buffered < (256 + 256 + 64) * KiB
        for index in range(count):
            message = await conn.recv()
            assert isinstance(message, bytes)
            assert message[:2] == index.to_bytes(2, "big")
            assert conn._inbox.bytes < (256 + 256 + 64) * KiB
        await sender


@pytest.mark.parametrize("read", ["recv", "read_stream"])
async def test_messages_larger_than_the_bound_never_deadlock(start: Any, read: str) -> None:
    payload = bytes(2 * MiB)
    async with linked(start, max_queue=1, max_queue_bytes=1000) as (conn, wire):

        async def send() -> None:
            for _ in range(3):
                wire.send(masked(Opcode.BINARY, payload))
                await wire.writer.drain()

        sender = started(send())
        await until(lambda: conn._reading_paused)
        for _ in range(3):
            if read == "recv":
                assert await conn.recv() == payload
            else:
                async with await conn.read_stream() as stream:
                    assert sum([len(chunk) async for chunk in stream]) == len(payload)
        await sender


async def test_many_small_messages_pass_through_a_small_queue(start: Any) -> None:
    frames = text("x") * 1000
    async with linked(start, max_queue=4) as (conn, wire):

        async def send() -> None:
            for _ in range(20):
                wire.send(frames)
                await wire.writer.drain()

        sender = started(send())
        for _ in range(20_000):
            assert await conn.recv() == "x"
        await sender


# --- limits ---------------------------------------------------------------------------------------


async def test_the_default_limit_is_16_mib_a_message_all_fragments_together(start: Any) -> None:
    half = bytes(8 * MiB)
    async with linked(start) as (conn, wire):
        assert conn.read_limit == 16 * MiB
        reader = started(conn.recv())
        wire.send(masked(Opcode.BINARY, half, fin=False), masked(Opcode.CONT, half))
        assert len(await reader) == 16 * MiB
        reader = started(conn.recv())
        wire.send(masked(Opcode.BINARY, half, fin=False), masked(Opcode.CONT, half + b"x"))
        with pytest.raises(ConnectionClosedError, match="payload too large"):
            await reader
        assert (await wire.closing())[0] == 1009


async def test_a_new_read_limit_is_effective_at_the_next_header(start: Any) -> None:
    async with linked(start, max_size=10) as (conn, wire):
        conn.read_limit = 20
        wire.send(text("x" * 20))
        assert await conn.recv() == "x" * 20
        conn.read_limit = 5
        wire.send(text("x" * 5))
        assert await conn.recv() == "x" * 5
        wire.send(text("x" * 6))
        with pytest.raises(ConnectionClosedError, match="payload too large"):
            await conn.recv()


async def test_a_read_limit_can_be_lifted_for_one_stream(start: Any) -> None:
    async with linked(start, max_size=10) as (conn, wire):
        conn.read_limit = None
        assert conn.read_limit is None
        wire.send(masked(Opcode.BINARY, bytes(MiB)))
        async with await conn.read_stream() as stream:
            assert sum([len(chunk) async for chunk in stream]) == MiB
        conn.read_limit = 10
        wire.send(text("x" * 11))
        with pytest.raises(ConnectionClosedError, match="payload too large"):
            await conn.recv()


@pytest.mark.parametrize(("value", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), ("1", TypeError)])
async def test_a_read_limit_that_cannot_be_is_refused_and_changes_nothing(value: Any, error: type[Exception]) -> None:
    conn, _ = fake_conn(max_size=100)
    with pytest.raises(error, match="the read limit"):
        conn.read_limit = value
    assert conn.read_limit == 100
    conn.abort()


async def test_row_8_a_flood_of_empty_fragments_is_a_policy_violation(start: Any) -> None:
    async with linked(start, max_size=64 * 100) as (conn, wire):
        wire.send(masked(Opcode.BINARY, b"", fin=False), *[masked(Opcode.CONT, b"", fin=False)] * 1200)
        with pytest.raises(ConnectionClosedError, match="too many fragments"):
            await conn.recv()
        assert (await wire.closing())[0] == 1008


# --- all of it at random --------------------------------------------------------------------------


class Walk:
    """A reader that changes its mind, on a wire that is cut anywhere: what it got must be what was sent."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.conn, self.transport = fake_conn(max_queue=3, max_queue_bytes=300, close_timeout=1000)
        self.sent = [self.random.randbytes(self.random.choice([0, 1, 50, 200, 1000])) for _ in range(12)]
        self.got: list[bytes | None] = []  # None: thrown away on purpose
        self.pieces = self.cut(b"".join(map(self.frames, self.sent)))
        self.reader: asyncio.Future[Any] | None = None
        self.stream: plumews.Stream | None = None
        self.part = b""

    def frames(self, payload: bytes) -> bytes:
        step = self.random.choice([len(payload) or 1, 70, 300])
        frames = [
            masked(
                Opcode.CONT if start else Opcode.BINARY, payload[start : start + step], fin=start + step >= len(payload)
            )
            for start in range(0, len(payload) or 1, step)
        ]
        return b"".join(frames)

    def cut(self, wire: bytes) -> list[bytes]:
        points = sorted(self.random.sample(range(1, len(wire)), self.random.choice([0, 5, 30, 100])))
        return [wire[start:stop] for start, stop in zip([0, *points], [*points, len(wire)], strict=True)]

    async def run(self) -> None:
        steps = 0
        moves = [self.arrive, self.read, self.change_mind, self.arrive_too_late, ticks]
        likely = [self.random.randint(1, 8) for _ in moves]
        while len(self.got) < len(self.sent):
            await self.random.choices(moves, likely)[0]()
            steps += 1
            assert steps < 10_000, "stuck"
        assert self.got == [one if one is None else two for one, two in zip(self.got, self.sent, strict=True)]
        assert self.conn._inbox.bytes == len(self.conn._inbox) == 0
        self.conn.abort()

    async def arrive(self) -> None:
        if self.reader is not None:
            await ticks()
            assert self.transport.reading or self.reader is None or self.reader.done(), "waits for what is not let in"
        if self.pieces and self.transport.reading:
            feed(self.conn, self.pieces.pop(0))
            if self.random.random() < 0.5:
                await ticks()
        await self.look()

    async def arrive_too_late(self) -> None:
        """The reader is cancelled before it can take what has woken it."""
        if self.reader is not None and not self.reader.done() and self.pieces and self.transport.reading:
            feed(self.conn, self.pieces.pop(0))
            self.reader.cancel()
            await asyncio.wait([self.reader])
            self.reader = None

    async def read(self) -> None:
        if self.reader is None:
            if self.stream is not None:
                self.reader = started(self.stream.read())
            else:
                self.reader = started(
                    self.random.choice([self.conn.recv, self.conn.read_message, self.conn.read_stream])()
                )
            await ticks(self.random.randrange(3))
        await self.look()

    async def look(self) -> None:
        """Take what the reader has got."""
        if self.reader is None or not self.reader.done():
            return
        result, self.reader = self.reader.result(), None
        if isinstance(result, plumews.Stream):
            self.stream, self.part = result, b""
        elif self.stream is not None:
            self.part += result
            if not result:
                self.got.append(self.part)
                self.stream = None
        else:
            self.got.append(result[1] if isinstance(result, tuple) else result)

    async def change_mind(self) -> None:
        if self.reader is not None and self.random.random() < 0.5:
            self.reader.cancel()
            await asyncio.wait([self.reader])
            if self.reader.cancelled():
                self.reader = None
            else:
                await self.look()
        elif self.reader is None and self.stream is not None and self.random.random() < 0.2:
            await self.stream.aclose()
            self.stream = None
            self.got.append(None)


async def test_a_reader_that_changes_its_mind_loses_nothing_whatever_it_does() -> None:
    for seed in range(400):
        try:
            await asyncio.wait_for(Walk(seed).run(), 60)
        except BaseException:
            print("seed", seed)  # noqa: T201
            raise
