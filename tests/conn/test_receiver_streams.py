"""Receiving one message as a stream."""

from __future__ import annotations

from typing import Any

import pytest

from plumews import ConcurrencyError, ConnectionClosedError, ConnectionClosedOK, Opcode
from support.fakes import collect, fake_conn, feed, linked, started, ticks
from support.raw_client import close, masked, text

MiB = 1024 * 1024


# --- whole messages -------------------------------------------------------------------------------


SIZES = [0, 1, 125, 126, 127, 4096, 65535, 65536, 65537, 200_000, MiB]


# --- streams --------------------------------------------------------------------------------------


async def test_stream_delivers_chunks_inside_a_frame(start: Any) -> None:
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


async def test_stream_begins_with_the_header_of_its_message() -> None:
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


async def test_streams_and_whole_messages_can_alternate(start: Any) -> None:
    async with linked(start) as (conn, wire):
        for index in range(20):
            wire.send(text(f"s{index}"), text(f"m{index}"))
            async with await conn.read_stream() as stream:
                assert await stream.read_all() == f"s{index}".encode()
            assert await conn.recv() == f"m{index}"


@pytest.mark.parametrize("end", ["eof", "reset", "close", "fault"])
async def test_cut_stream_raises_after_the_received_chunks(start: Any, end: str) -> None:
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


async def test_invalid_utf_8_ends_the_stream_at_once(start: Any) -> None:
    async with linked(start) as (conn, wire):
        wire.send(masked(Opcode.TEXT, "grün".encode() + b"\xff", fin=False))
        stream = await conn.read_stream()
        got: list[Any] = []
        with pytest.raises(ConnectionClosedError, match="UTF-8"):
            await collect(stream, got)
        assert "grün".encode().startswith(b"".join(got))
        assert (await wire.closing())[0] == 1007


async def test_stale_stream_affects_no_other_message() -> None:
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


async def test_stream_is_released_after_its_last_chunk() -> None:
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


async def test_open_stream_refuses_the_next_message() -> None:
    conn, _ = fake_conn()
    feed(conn, text("one"), text("two"))
    stream = await conn.read_stream()
    for read in (conn.recv, conn.read_message, conn.read_stream):
        with pytest.raises(ConcurrencyError, match="a stream is open: read it to its end or close it"):
            await read()
    assert await stream.read_all() == b"one"
    assert await conn.recv() == "two"
    conn.abort()


async def test_stream_closed_early_is_discarded(start: Any) -> None:
    async with linked(start, close_timeout=5) as (conn, wire):
        frame = masked(Opcode.BINARY, bytes(300_000))
        wire.send(frame[:1000])
        async with await conn.read_stream() as stream:
            await stream.read()
        deadline = conn._discard_deadline
        assert deadline is not None
        wire.send(frame[1000:], text("behind"))
        assert await conn.recv() == "behind"
        assert deadline.callback is None
        assert conn._discard_deadline is None
        await conn.send("still here")
        assert await wire.message() == "still here"


async def test_stream_behind_a_discarded_one_comes_in_chunks() -> None:
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


async def test_messages_behind_a_discarded_stream_keep_their_order() -> None:
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


async def test_no_stream_begins_while_closing() -> None:
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
