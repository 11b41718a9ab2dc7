"""Large messages that are read straight into their own memory."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from typing import Any

import pytest

import plumews
from plumews import Opcode, limits
from plumews.conn.receiver import deliver_to
from plumews.transport.loop_context import loop_context
from support.fakes import fake_conn, linked, started, ticks, tls_contexts, until
from support.raw_client import Wire, masked, text

KiB = 1024


def ignore(conn: plumews.Conn, exc: BaseException) -> None:
    """Ignore a failure."""


# --- reading in place -----------------------------------------------------------------------------


#: Around what a read holds, what is worth its own memory, and what the shared buffer holds.
SIZES = [
    each + by
    for each in (32 * KiB, 64 * KiB, 96 * KiB, 256 * KiB, 320 * KiB, 1024 * KiB)
    for by in (-15, -14, -1, 0, 1, 65_536)
]


def contents(size: int) -> bytes:
    return bytes(range(251)) * (size // 251) + bytes(size % 251)


def words(size: int) -> str:
    """Return text of ``size`` bytes with characters of each length across every border."""
    return ("aé€\U0001f600" * (size // 10 + 1)).encode()[:size].decode(errors="ignore")


@pytest.mark.parametrize("way", ["plain", "tls", "unix"])
async def test_messages_of_any_size_behind_each_other_arrive_whole(start: Any, way: str, tmp_path: Any) -> None:
    async def echo(conn: plumews.Conn) -> None:
        async for message in conn:
            await conn.send(f"{type(message).__name__} {len(message)} {hash(message)}")

    options: dict[str, Any] = {}
    client: dict[str, Any] = {}
    if way == "tls":
        options["ssl"], client["ssl"] = tls_contexts()
        client["server_hostname"] = "localhost"
    if way == "unix":
        server = await start(plumews.unix_serve(echo, str(tmp_path / "s")))
    else:
        server = await start(plumews.serve(echo, "127.0.0.1", 0, **options))
    async with await Wire.open(server, **client) as wire:
        expected: list[Any] = []
        for size in SIZES:
            message, line = contents(size), words(size)
            wire.send(
                masked(Opcode.BINARY, message),
                masked(Opcode.PING, b"between"),
                masked(Opcode.TEXT, line),
                text("short"),
            )
            expected += [f"bytes {len(message)} {hash(message)}", f"str {len(line)} {hash(line)}"]
            expected.append(f"str 5 {hash('short')}")
            await wire.writer.drain()
        answers = []
        pongs = 0
        while len(answers) < len(expected):
            kind, payload = await wire.event()
            if kind == Opcode.PONG:
                pongs += 1
            else:
                answers.append(payload)
        assert answers == expected
        assert pongs == len(SIZES)


@pytest.mark.parametrize("fragment", [20 * KiB, 100 * KiB, 300 * KiB])
async def test_fragments_with_pings_between_them_arrive_whole(start: Any, fragment: int) -> None:
    async with linked(start) as (conn, wire):
        line = words(1024 * KiB)
        data = line.encode()
        pieces = [data[at : at + fragment] for at in range(0, len(data), fragment)]
        for index, piece in enumerate(pieces):
            wire.send(
                masked(Opcode.CONT if index else Opcode.TEXT, piece, fin=index == len(pieces) - 1),
                masked(Opcode.PING, bytes([index])),
            )
        wire.send(masked(Opcode.BINARY, contents(300 * KiB)))
        assert await conn.recv() == line
        assert await conn.recv() == contents(300 * KiB)
        assert [await wire.event() for _ in pieces] == [(Opcode.PONG, bytes([index])) for index in range(len(pieces))]


class Arrival:
    """Bytes that arrive as a transport delivers them: as many as fit, or as few as the test says."""

    def __init__(self, conn: plumews.Conn) -> None:
        self.conn = conn
        self.rooms: list[int] = []

    def bring(self, data: bytes, most: int = 1 << 30) -> None:
        at = 0
        while at < len(data):
            room = self.conn.get_buffer(-1)
            self.rooms.append(len(room))
            take = min(len(room), most, len(data) - at)
            room[:take] = data[at : at + take]
            self.conn.buffer_updated(take)
            at += take


async def test_large_message_is_read_into_its_own_memory() -> None:
    conn, _ = fake_conn()
    arrival = Arrival(conn)
    arrival.bring(masked(Opcode.BINARY, contents(1024 * KiB)) + text("a"), 64 * KiB)
    shared = len(conn._state.view)
    assert arrival.rooms[0] == shared
    assert any(room != shared for room in arrival.rooms)
    assert arrival.rooms[-1] == shared
    assert await conn.recv() == contents(1024 * KiB)
    assert await conn.recv() == "a"
    conn.abort()


async def test_unused_read_buffer_changes_nothing() -> None:
    conn, _ = fake_conn()
    frame = masked(Opcode.BINARY, contents(400 * KiB))
    arrival = Arrival(conn)
    for at in range(0, len(frame), 50 * KiB):
        for _ in range(3):
            conn.get_buffer(-1)
        arrival.bring(frame[at : at + 50 * KiB])
    assert await conn.recv() == contents(400 * KiB)
    conn.abort()


async def test_read_stream_works_while_a_message_is_read_in_place() -> None:
    conn, _ = fake_conn()
    frame = masked(Opcode.BINARY, contents(700 * KiB))
    arrival = Arrival(conn)
    arrival.bring(frame[: 200 * KiB], 40 * KiB)
    conn.get_buffer(-1)
    assert conn._state.view is not conn.get_buffer(-1)  # it is lent
    stream = await conn.read_stream()
    arrival.bring(frame[200 * KiB :], 40 * KiB)
    assert await stream.read_all() == contents(700 * KiB)
    conn.abort()


async def test_lower_read_limit_holds_from_the_next_frame() -> None:
    conn, transport = fake_conn()
    frame = masked(Opcode.BINARY, contents(700 * KiB))
    arrival = Arrival(conn)
    arrival.bring(frame[: 200 * KiB], 40 * KiB)
    conn.get_buffer(-1)
    conn.read_limit = 100
    arrival.bring(frame[200 * KiB :], 40 * KiB)
    assert await conn.recv() == contents(700 * KiB)
    arrival.bring(masked(Opcode.BINARY, bytes(101)))
    with pytest.raises(plumews.ConnectionClosedError):
        await conn.recv()
    assert transport.events()[-1][1][0] == 1009
    conn.abort()


@pytest.mark.parametrize("bad", [200 * KiB, 300 * KiB, 399 * KiB])
async def test_invalid_utf_8_in_a_large_message_is_refused(bad: int) -> None:
    conn, transport = fake_conn()
    data = bytearray(b"x" * 400 * KiB)
    data[bad] = 0xFF
    got: list[Any] = []
    deliver_to(conn, lambda conn, message: got.append(message), ignore)
    Arrival(conn).bring(text("before") + masked(Opcode.TEXT, bytes(data)) + text("behind"), 40 * KiB)
    assert got == ["before"]
    assert [payload[0] for kind, payload in transport.events() if kind == Opcode.CLOSE] == [1007]
    conn.abort()


@pytest.mark.parametrize("how", ["close", "abort", "raise"])
async def test_large_message_behind_a_closing_callback_is_dropped(how: str) -> None:
    conn, transport = fake_conn()
    got: list[Any] = []

    def on_message(conn: plumews.Conn, message: str | bytes) -> None:
        got.append(message)
        if how == "close":
            conn.close_nowait()
        elif how == "abort":
            conn.abort()
        else:
            raise RuntimeError

    deliver_to(conn, on_message, lambda conn, exc: conn.close_nowait(1011))
    Arrival(conn).bring(text("a") + masked(Opcode.BINARY, contents(400 * KiB)) + text("b"), 40 * KiB)
    assert got == ["a"]
    kinds = [kind for kind, _ in transport.events()]
    assert kinds == ([] if how == "abort" else [Opcode.CLOSE])
    conn.abort()


async def test_unread_large_messages_take_bounded_memory(start: Any) -> None:
    size, count = 1024 * KiB, 24
    async with linked(start) as (conn, wire):
        tracemalloc.start()
        frame = masked(Opcode.BINARY, contents(size))

        async def send_all() -> None:
            for _ in range(count):
                wire.send(frame)
                await wire.writer.drain()

        sending = asyncio.ensure_future(send_all())
        await until(lambda: conn._reading_paused)
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        await ticks(100)
        assert conn._reading_paused
        assert conn._inbox.bytes + conn._rules.parser.buffered <= 2 * limits.MAX_QUEUE_BYTES + limits.READ_BUFFER
        for _ in range(count):
            assert await conn.recv() == contents(size)
        await sending
        tracemalloc.stop()
        assert before < 12 * 1024 * KiB
        wire.send(text("last"))
        assert await conn.recv() == "last"


@pytest.mark.parametrize("kept", ["message", "view", "nothing"])
async def test_message_in_memory_of_a_dropped_one_is_new(start: Any, kept: str) -> None:
    size = 1024 * KiB
    async with linked(start) as (conn, wire):
        seen: list[Any] = []
        for number in range(6):
            sent = bytes([number]) * (size - number // 2 % 2)
            wire.send(masked(Opcode.BINARY, sent))
            message = await conn.recv()
            assert (message, hash(message)) == (sent, hash(sent))
            if kept != "nothing":
                seen.append(message if kept == "message" else memoryview(message))
            del message, sent
        for number, piece in enumerate(seen):
            assert piece == bytes([number]) * (size - number // 2 % 2)


async def test_memory_of_a_message_is_used_again_and_dropped(start: Any) -> None:
    size = 1024 * KiB
    async with linked(start) as (conn, wire):
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(3):
            wire.send(masked(Opcode.BINARY, bytes(size)))
            assert len(await conn.recv()) == size
        spare = loop_context(asyncio.get_running_loop()).spare_memory
        if spare is not None:  # else there are no short ways
            assert tracemalloc.get_traced_memory()[0] >= before + size
    await until(lambda: tracemalloc.get_traced_memory()[0] < before + size // 2)
    tracemalloc.stop()


async def test_fragments_use_memory_of_any_size_again(start: Any) -> None:
    async with linked(start) as (conn, wire):
        wire.send(masked(Opcode.BINARY, contents(1024 * KiB)))
        assert await conn.recv() == contents(1024 * KiB)
        for size in (1024, 300, 700, 1024, 1500, 1500, 70):
            sent = contents(size * KiB)
            frames = [masked(Opcode.CONT, sent[at : at + 64 * KiB], fin=False) for at in range(0, len(sent), 64 * KiB)]
            wire.send(masked(Opcode.BINARY, b"", fin=False), *frames, masked(Opcode.CONT, b""))
            message = await conn.recv()
            assert (message, hash(message)) == (sent, hash(sent))
            del message, sent


async def test_wide_texts_of_one_read_take_bounded_memory() -> None:
    conn, _ = fake_conn(max_queue_bytes=256 * KiB)
    line = "\U0001f600" + "a" * 20 * KiB  # four bytes for each character
    frame = masked(Opcode.TEXT, line)
    Arrival(conn).bring(frame * 12)
    assert conn._inbox.bytes < 256 * KiB + limits.READ_BUFFER + limits.READ_SLACK + 3 * 4 * len(line)
    for _ in range(12):
        assert await conn.recv() == line
    conn.abort()


async def test_interrupt_of_a_woken_reader_loses_no_bytes() -> None:
    conn, _ = fake_conn()
    first, frame = contents(100 * KiB), masked(Opcode.BINARY, contents(100 * KiB))

    async def read() -> None:
        assert await conn.recv() == first
        raise KeyboardInterrupt

    def bring() -> None:  # outside of any task, as a loop does
        with pytest.raises(KeyboardInterrupt):
            Arrival(conn).bring(frame + frame[: 50 * KiB])
        told.set()

    told = asyncio.Event()
    reader = started(read())
    await ticks()
    asyncio.get_running_loop().call_soon(bring)
    await told.wait()
    with pytest.raises(KeyboardInterrupt):
        reader.result()
    assert conn._rules.parser.mid_message or conn._rules.parser.buffered
    conn.abort()
