"""Compressed messages that arrive over a socket: whole, in fragments, as streams, too large or invalid.

Rows 1, 2, 3 and 7 of what has broken others. A raw client makes the frames with Python's zlib.
"""

from __future__ import annotations

import asyncio
import random
import time
import tracemalloc
import zlib
from typing import Any

import pytest

import plumews
from plumews import ConnectionClosedError, Deflate, Opcode
from plumews.conn.opening import use_deflate
from plumews.conn.receive_backlog import receive
from plumews.deflate.config import Agreement
from plumews.deflate.inbound import ROOM, InflateQueue, inflate_queue
from plumews.protocol.codec import build_frame
from plumews.transport.loop_context import loop_context
from support.compressed_messages import Squeezing, frame, frames, squeezed
from support.fakes import PATIENCE, fake_conn, until
from support.raw_client import close, masked, text

KiB = 1024
MiB = 1024 * KiB
BOMB = squeezed(bytes(16 * MiB))
TEXT, BINARY, CONT = Opcode.TEXT, Opcode.BINARY, Opcode.CONT
ALONE = Agreement(12, 12, False, False, "permessage-deflate")
TAKEOVER = Deflate(server_takeover=True, client_takeover=True)


def queue_here() -> InflateQueue:
    """Return the queue of this loop."""
    return inflate_queue(loop_context(asyncio.get_running_loop()))


class Seen:
    """Records the messages of a server with a handler or callbacks, and the end of the connection."""

    def __init__(self, reader: str) -> None:
        self.messages: list[Any] = []
        self.conns: list[plumews.Conn] = []
        self.ended: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
        self.options: dict[str, Any] = {"handler": self.handler}
        if reader == "callback":
            self.options = {"on_message": self.on_message, "on_open": self.conns.append}

    async def handler(self, conn: plumews.Conn) -> None:
        self.conns.append(conn)
        try:
            async for message in conn:
                self.messages.append(message)
            self.ended.set_result(None)
        except ConnectionClosedError as exc:
            self.ended.set_result(exc)

    def on_message(self, conn: plumews.Conn, message: Any) -> None:
        self.messages.append(message)


READERS = pytest.mark.parametrize("reader", ["handler", "callback"])


async def echo(conn: plumews.Conn) -> None:
    async for message in conn:
        await conn.send(message, compress=False)


# --- valid messages ---------------------------------------------------------------------------------


@READERS
@pytest.mark.parametrize("count", [1, 2, 7])
async def test_messages_arrive_inflated_with_pings_in_between(start: Any, reader: str, count: int) -> None:
    seen = Seen(reader)
    server = await start(plumews.serve(**seen.options, host="127.0.0.1", port=0, compression="deflate"))
    messages = ["", "short", "\u20ac" * 5000, b"", bytes(200_000), random.Random(1).randbytes(70_000)]
    async with await Squeezing.open(server) as wire:
        for message in messages:
            opcode, payload = (TEXT, message.encode()) if isinstance(message, str) else (BINARY, message)
            for each in frames(opcode, squeezed(payload) or b"\x00", count=count):
                wire.send(each, masked(Opcode.PING, b"between"))
            wire.send(masked(opcode, payload))  # and plain
        wire.send(close())
        pings = 0
        while (event := await asyncio.wait_for(wire.event(), PATIENCE))[0] != Opcode.CLOSE:
            assert event == (Opcode.PONG, b"between")
            pings += 1
        assert pings == count * len(messages)
    assert seen.messages == [message for message in messages for _ in range(2)]


async def test_takeover_messages_refer_to_earlier_ones(start: Any) -> None:
    server = await start(plumews.serve(echo, "127.0.0.1", 0, compression=TAKEOVER))
    compressor = zlib.compressobj(6, zlib.DEFLATED, -12)
    async with await Squeezing.open(server) as wire:
        message = random.Random(2).randbytes(500)
        for turn in range(5):
            data = (compressor.compress(message) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
            assert len(data) < 50 or turn == 0
            wire.send(*frames(BINARY, data, count=turn + 1))
            assert await wire.message() == message
        (conn,) = server.connections
        assert conn.compression is not None
        assert conn.compression.context_bytes == (4 + 7) * KiB  # the inflater; nothing was sent compressed
        assert conn.compression.received_messages == 5
        assert conn.compression.received_payload_bytes == 2500


@pytest.mark.parametrize("settings", [Deflate(), TAKEOVER], ids=["alone", "takeover"])
async def test_stream_inflates_in_constant_memory(start: Any, settings: Deflate) -> None:
    sizes: list[int] = []
    held: list[int] = []

    async def handler(conn: plumews.Conn) -> None:
        async with await conn.read_stream() as stream:
            async for chunk in stream:
                sizes.append(len(chunk))
                held.append(stream.buffered)
        await conn.send(await conn.recv(), compress=False)

    server = await start(plumews.serve(handler, "127.0.0.1", 0, compression=settings, max_queue_bytes=256 * KiB))
    compressor = zlib.compressobj(6, zlib.DEFLATED, -12)
    data = (compressor.compress(bytes(12 * MiB)) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
    async with await Squeezing.open(server) as wire:
        wire.send(*frames(BINARY, data, count=3), frame(TEXT, b"behind it"))
        assert await asyncio.wait_for(wire.message(), PATIENCE) == b"behind it"
    assert sum(sizes) == 12 * MiB
    assert max(sizes) <= 64 * KiB
    assert max(held) <= 256 * KiB + 64 * KiB


@pytest.mark.parametrize("settings", [Deflate(), TAKEOVER], ids=["alone", "takeover"])
async def test_message_arrives_behind_a_discarded_stream(start: Any, settings: Deflate) -> None:
    async def handler(conn: plumews.Conn) -> None:
        async with await conn.read_stream() as stream:
            await stream.read()
        await conn.send(await conn.recv(), compress=False)

    server = await start(plumews.serve(handler, "127.0.0.1", 0, compression=settings))
    compressor = zlib.compressobj(6, zlib.DEFLATED, -12)
    noise = random.Random(5).randbytes(1000)

    def made(payload: bytes) -> bytes:
        return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]

    async with await Squeezing.open(server) as wire:
        first = made(bytes(8 * MiB) + noise)
        second = made(noise) if settings is TAKEOVER else squeezed(noise)
        wire.send(*frames(BINARY, first, count=2), *frames(BINARY, second))
        assert await asyncio.wait_for(wire.message(), PATIENCE) == noise


async def test_cut_stream_raises(start: Any) -> None:
    outcome: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def handler(conn: plumews.Conn) -> None:
        try:
            async with await conn.read_stream() as stream:
                outcome.set_result(await stream.read_all())
        except ConnectionClosedError as exc:
            outcome.set_exception(exc)

    server = await start(plumews.serve(handler, "127.0.0.1", 0, compression="deflate"))
    async with await Squeezing.open(server) as wire:
        wire.send(next(frames(BINARY, squeezed(random.Random(6).randbytes(5000)), count=2)))
        wire.writer.close()
        with pytest.raises(ConnectionClosedError, match="a message was cut"):
            await asyncio.wait_for(outcome, PATIENCE)


# --- clients that keep their context ----------------------------------------------------------------

OFFERS = {
    "bare": "permessage-deflate",
    "window": "permessage-deflate; client_max_window_bits",
    "promised": "permessage-deflate; client_no_context_takeover",
}


def keeping(messages: int = 3) -> list[bytes]:
    """Return the payloads of equal messages from a client that keeps its context."""
    compressor = zlib.compressobj(6, zlib.DEFLATED, -12)
    message = random.Random(2).randbytes(200)
    return [(compressor.compress(message) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4] for _ in range(messages)]


@READERS
@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
@pytest.mark.parametrize("behavior", [plumews.SendBehavior.BLOCK, plumews.SendBehavior.CONFLATE])
async def test_client_takeover_reads_a_kept_context(
    start: Any, reader: str, offer: str, behavior: plumews.SendBehavior
) -> None:
    seen = Seen(reader)
    server = await start(
        plumews.serve(
            **seen.options, host="127.0.0.1", port=0, send_behavior=behavior, compression=Deflate(client_takeover=True)
        )
    )
    async with await Squeezing.open(server, "/", f"Sec-WebSocket-Extensions: {offer}") as wire:
        answer = wire.header("Sec-WebSocket-Extensions")
        assert answer is not None
        assert ("client_no_context_takeover" in answer) is (offer == OFFERS["promised"])
        for count, data in enumerate(keeping(), 1):
            wire.send(*frames(BINARY, data, count=count))
        wire.send(frame(TEXT, b"fresh"), close())  # and one that keeps none
        assert await wire.closing() == (1000, "")
    assert seen.messages == [random.Random(2).randbytes(200)] * 3 + ["fresh"]


@READERS
@pytest.mark.parametrize("count", [1, 3])
async def test_kept_context_is_named_in_reason_and_log(
    start: Any, reader: str, count: int, caplog: pytest.LogCaptureFixture
) -> None:
    seen = Seen(reader)
    server = await start(plumews.serve(**seen.options, host="127.0.0.1", port=0, compression="deflate"))
    async with await Squeezing.open(server) as wire:
        first, second, _ = keeping()
        wire.send(*frames(BINARY, first), text("between"), *frames(BINARY, second, count=count))
        code, reason = await asyncio.wait_for(wire.closing(), PATIENCE)
        assert (code, "client_no_context_takeover" in reason, len(reason) <= 123) == (1007, True, True)
        (record,) = caplog.records
        await wire.eof()
    assert (record.levelname, record.name) == ("WARNING", "plumews.server")
    assert "compression=Deflate(client_takeover=True) reads it [connection=" in record.getMessage()
    assert seen.messages == [random.Random(2).randbytes(200), "between"]


async def test_kept_context_is_named_inside_a_stream(start: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def handler(conn: plumews.Conn) -> None:
        for _ in range(2):
            async with await conn.read_stream() as stream:
                await stream.read_all()

    server = await start(plumews.serve(handler, "127.0.0.1", 0, compression="deflate"))
    async with await Squeezing.open(server) as wire:
        for data in keeping(2):
            wire.send(*frames(BINARY, data, count=2))
        assert "client_no_context_takeover" in (await asyncio.wait_for(wire.closing(), PATIENCE))[1]
        assert len(caplog.records) == 1
        await wire.eof()


@pytest.mark.parametrize("settings", [Deflate(), Deflate(client_takeover=True)])
async def test_other_invalid_data_is_no_kept_context(
    start: Any, settings: Deflate, caplog: pytest.LogCaptureFixture
) -> None:
    server = await start(plumews.serve(echo, "127.0.0.1", 0, compression=settings))
    far = keeping(2)[1]  # refers to what was before it, and there was nothing
    for sent in ([far], [keeping(1)[0], b"\xff" * 10]):
        async with await Squeezing.open(server) as wire:
            for data in sent:
                wire.send(*frames(BINARY, data))
            assert "cannot be inflated" in (await asyncio.wait_for(wire.closing(), PATIENCE))[1]
            await wire.eof()
    assert caplog.records == []


# --- invalid messages -------------------------------------------------------------------------------

CLOSED = zlib.compressobj(6, zlib.DEFLATED, -12)
FINAL = CLOSED.compress(b"Hello") + CLOSED.flush()
FAULTS = {
    "no-DEFLATE": (TEXT, b"\xff" * 10, 1007),
    "nothing": (TEXT, b"", 1007),
    "cut-inside-a-block": (BINARY, squeezed(b"Hello, world")[:-3], 1007),
    "row2-trailing-bytes": (BINARY, FINAL + b"\x00\x00", 1007),
    "row2-CVE-2026-128131-members": (BINARY, b"\x03\x00" * 200_000, 1007),
    "text-not-utf8": (TEXT, squeezed(b"Hello \xff"), 1007),
    "text-cut": (TEXT, squeezed("Hello \u20ac".encode()[:-1]), 1007),
}


@READERS
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(("opcode", "data", "code"), FAULTS.values(), ids=FAULTS.keys())
async def test_invalid_message_closes_behind_earlier_messages(
    start: Any, reader: str, count: int, opcode: int, data: bytes, code: int
) -> None:
    seen = Seen(reader)
    server = await start(plumews.serve(**seen.options, host="127.0.0.1", port=0, compression="deflate"))
    async with await Squeezing.open(server) as wire:
        began = time.process_time()
        wire.send(text("before"), *frames(opcode, data, count=count), text("after"), frame(TEXT, b"after"))
        assert (await asyncio.wait_for(wire.closing(), PATIENCE))[0] == code
        assert time.process_time() - began < 0.5
        await wire.eof()
    assert seen.messages == ["before"]


@pytest.mark.parametrize("reading", ["text", "binary"])
async def test_invalid_data_in_a_stream_raises_there(start: Any, reading: str) -> None:
    outcome: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def handler(conn: plumews.Conn) -> None:
        chunks = []
        try:
            async with await conn.read_stream() as stream:
                async for chunk in stream:
                    chunks.append(chunk)
        except ConnectionClosedError as exc:
            outcome.set_result((b"".join(chunks), str(exc)))

    server = await start(plumews.serve(handler, "127.0.0.1", 0, compression="deflate"))
    async with await Squeezing.open(server) as wire:
        compressor = zlib.compressobj(6, zlib.DEFLATED, -12)
        good = compressor.compress(b"good") + compressor.flush(zlib.Z_SYNC_FLUSH)
        bad = compressor.compress(b"\xff") + compressor.flush(zlib.Z_SYNC_FLUSH) if reading == "text" else b"\xff" * 9
        wire.send(build_frame(TEXT if reading == "text" else BINARY, good, fin=False, rsv1=True, mask_key=b"1234"))
        wire.send(masked(CONT, bad))
        assert (await asyncio.wait_for(wire.closing(), PATIENCE))[0] == 1007
        chunks, error = await asyncio.wait_for(outcome, PATIENCE)
    assert chunks == b"good"
    assert ("UTF-8" in error) if reading == "text" else ("invalid compressed data" in error)


ROW_3 = {
    "not-negotiated": (None, frame(TEXT, b"Hello"), 1002),
    "on-a-continuation": ("deflate", masked(TEXT, b"a", fin=False) + next(frames(CONT, b"\x00")), 1002),
    "on-a-ping": ("deflate", build_frame(Opcode.PING, b"", rsv1=True, mask_key=b"1234"), 1002),
    "on-a-close": ("deflate", build_frame(Opcode.CLOSE, b"", rsv1=True, mask_key=b"1234"), 1002),
}


@pytest.mark.parametrize(("compression", "sent", "code"), ROW_3.values(), ids=ROW_3.keys())
async def test_row_3_ghsa_mq44_7p77_q5h7_rsv1_needs_an_agreement(
    start: Any, compression: Any, sent: bytes, code: int
) -> None:
    seen = Seen("callback")
    server = await start(plumews.serve(**seen.options, host="127.0.0.1", port=0, compression=compression))
    async with await Squeezing.open(server) as wire:
        assert (wire.header("Sec-WebSocket-Extensions") is not None) is (compression is not None)
        wire.send(text("before"), sent, text("after"))
        assert (await asyncio.wait_for(wire.closing(), PATIENCE))[0] == code
        await wire.eof()
    assert seen.messages == ["before"]


# --- too large messages -----------------------------------------------------------------------------


@READERS
@pytest.mark.parametrize("count", [1, 100], ids=["whole", "fragmented"])
async def test_row_1_cve_2018_1000518_bomb_is_refused_in_little_memory(start: Any, reader: str, count: int) -> None:
    seen = Seen(reader)
    server = await start(plumews.serve(**seen.options, host="127.0.0.1", port=0, compression="deflate", max_size=MiB))
    assert len(BOMB) < 17 * KiB
    async with await Squeezing.open(server) as wire:
        sent = list(frames(BINARY, BOMB, count=count))
        tracemalloc.start()
        try:
            wire.send(*sent, text("after"))
            assert (await asyncio.wait_for(wire.closing(), PATIENCE))[0] == 1009
            assert tracemalloc.get_traced_memory()[1] < MiB + MiB
        finally:
            tracemalloc.stop()
    assert seen.messages == []


@READERS
@pytest.mark.parametrize("count", [1, 2, 1000])
@pytest.mark.parametrize("size", [-1, 0, 1], ids=["limit-1", "limit", "limit+1"])
@pytest.mark.parametrize("what", ["zeros", "noise"])
async def test_row_7_cve_2026_9675_max_size_limits_inflated_bytes(
    start: Any, reader: str, count: int, size: int, what: str
) -> None:
    seen = Seen(reader)
    limit = 100_000
    server = await start(plumews.serve(**seen.options, host="127.0.0.1", port=0, compression="deflate", max_size=limit))
    message = bytes(limit + size) if what == "zeros" else random.Random(4).randbytes(limit + size)
    async with await Squeezing.open(server) as wire:
        wire.send(*frames(BINARY, squeezed(message), count=count), close())
        code = (await asyncio.wait_for(wire.closing(), PATIENCE))[0]
    if size <= 0:
        assert (code, seen.messages) == (1000, [message])
    else:
        assert (code, seen.messages) == (1009, [])


async def test_max_ratio_limits_inflated_bytes(start: Any) -> None:
    seen = Seen("handler")
    deflate = Deflate(max_ratio=50)
    server = await start(plumews.serve(**seen.options, host="127.0.0.1", port=0, compression=deflate))
    async with await Squeezing.open(server) as wire:
        wire.send(frame(BINARY, bytes(64 * KiB)), *frames(BINARY, BOMB))
        assert await asyncio.wait_for(wire.closing(), PATIENCE) == (
            1009,
            f"payload too large: a compressed message that inflates to more than 50 times its {len(BOMB)} bytes",
        )
    assert seen.messages == [bytes(64 * KiB)]


async def test_row_1_unread_messages_wait_compressed(start: Any) -> None:
    go_on = asyncio.Event()
    sizes: list[int] = []

    async def handler(conn: plumews.Conn) -> None:
        await go_on.wait()
        async for message in conn:
            sizes.append(len(message))

    server = await start(plumews.serve(handler, "127.0.0.1", 0, compression="deflate"))
    sent = list(frames(BINARY, squeezed(bytes(4 * MiB))))
    async with await Squeezing.open(server) as wire:
        tracemalloc.start()
        try:
            wire.send(*sent * 12)
            (conn,) = server.connections
            await until(lambda: conn._backlog and conn._reading_paused and conn._inflate.waits_for == ROOM)
            assert len(conn._inbox) == 0  # more of the first one than a receive queue holds is not wanted yet
            assert tracemalloc.get_traced_memory()[1] < 3 * MiB
            assert queue_here().held == 0  # and it is in nobody's way
        finally:
            tracemalloc.stop()
        go_on.set()
        wire.send(close())
        await asyncio.wait_for(wire.closing(), PATIENCE)
    assert sizes == [4 * MiB] * 12


# --- behind the end ---------------------------------------------------------------------------------


def ended_with(sent: bytes, agreement: Agreement, **options: Any) -> plumews.Conn:
    """Return a connection whose peer sent all of ``sent`` and ended it before anybody read."""
    deflate = Deflate(server_takeover=agreement.server_takeover, client_takeover=agreement.client_takeover)
    conn, _ = fake_conn(compression=deflate, ping_interval=None, max_queue=4, **options)
    use_deflate(conn, agreement)
    receive(conn, sent)
    conn.connection_lost(None)
    return conn


@pytest.mark.parametrize("takeover", [False, True])
async def test_compressed_messages_are_read_after_the_end(takeover: bool) -> None:
    compressor = zlib.compressobj(6, zlib.DEFLATED, -12)
    messages = [f"message {i} " * 50 for i in range(300)]
    sent = b""
    for message in messages:
        data = (compressor.compress(message.encode()) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
        if not takeover:
            data = squeezed(message.encode())
        sent += b"".join(frames(Opcode.TEXT, data))
    conn = ended_with(sent, Agreement(12, 12, takeover, takeover, ""))
    received = [await asyncio.wait_for(conn.recv(), PATIENCE) for _ in messages]
    assert received == messages
    with pytest.raises(ConnectionClosedError):
        await conn.recv()
    assert conn._inflate is not None
    assert conn._inflate.context_size == 0


async def test_long_messages_after_the_end_let_others_run() -> None:
    size = 16 * 1024 * 1024
    sent = b"".join(frames(Opcode.BINARY, squeezed(bytes(size)))) * 6
    conn = ended_with(sent, Agreement(12, 12, False, False, ""))
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    running = asyncio.ensure_future(others())
    for _ in range(6):
        message = await asyncio.wait_for(conn.recv(), PATIENCE)
        assert len(message) == size
    running.cancel()
    assert turns > 6
    with pytest.raises(ConnectionClosedError):
        await conn.recv()


async def test_a_cancelled_read_after_the_end_loses_nothing() -> None:
    size = 16 * 1024 * 1024
    sent = b"".join(frames(Opcode.BINARY, squeezed(bytes(size)))) * 6
    conn = ended_with(sent, Agreement(12, 12, False, False, ""))
    received, cancelled = 0, 0
    while received < 6:
        reading = asyncio.ensure_future(conn.recv())
        await asyncio.sleep(0)
        if not reading.done():
            cancelled += 1
            reading.cancel()
        for message in await asyncio.gather(reading, return_exceptions=True):
            received += not isinstance(message, BaseException)
        assert cancelled < 10_000
    assert cancelled
    with pytest.raises(ConnectionClosedError):
        await conn.recv()


async def test_nothing_is_read_behind_a_fault_after_the_end() -> None:
    good = frame(Opcode.TEXT, b"good")
    sent = good * 6 + b"".join(frames(Opcode.TEXT, b"\xff\xff\xff")) + good
    conn = ended_with(sent, Agreement(12, 12, False, False, ""))
    for _ in range(6):
        assert await conn.recv() == "good"
    with pytest.raises(ConnectionClosedError):
        await conn.recv()
