"""Backpressure on the peer, and random walks of a reader."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

import plumews
from plumews import Opcode, limits
from support.fakes import fake_conn, feed, linked, started, ticks, until
from support.raw_client import masked, text

MiB = 1024 * 1024


KiB = 1024


# --- backpressure ---------------------------------------------------------------------------------


async def test_unread_messages_pause_reading_at_the_bound_of_messages() -> None:
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


async def test_unread_messages_pause_reading_at_the_bound_of_bytes() -> None:
    conn, transport = fake_conn(max_queue_bytes=1000 + 2 * limits.RECEIVED_OVERHEAD)
    feed(conn, masked(Opcode.BINARY, bytes(999)))
    assert transport.reading
    feed(conn, masked(Opcode.BINARY, bytes(1)))
    assert not transport.reading
    await conn.recv()
    assert transport.reading
    conn.abort()


async def test_long_message_pauses_reading_until_a_reader_waits() -> None:
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


async def test_cancelled_reader_pauses_reading_again() -> None:
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


async def test_slowly_read_stream_pauses_reading() -> None:
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


async def test_next_reader_resumes_a_message_of_a_cancelled_stream() -> None:
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


async def test_complete_message_read_as_a_stream_counts_until_read() -> None:
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


async def test_reading_goes_on_while_closing() -> None:
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


async def test_backpressure_loses_nothing_and_bounds_memory(start: Any) -> None:
    """40 MiB arrive for a handler that reads late: the socket fills, and no message is lost."""
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


# --- random walks ---------------------------------------------------------------------------------


class Walk:
    """Reader that changes its way of reading at random, on a wire that is cut anywhere."""

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
        """Cancel the reader before it takes the message that has woken it."""
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
        """Collect the result of the reader."""
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


async def test_random_reads_lose_nothing() -> None:
    for seed in range(400):
        try:
            await asyncio.wait_for(Walk(seed).run(), 60)
        except BaseException:
            print("seed", seed)  # noqa: T201
            raise
