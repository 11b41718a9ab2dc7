"""Compressed messages that arrive over a socket: whole, in fragments, as streams; too large, wrong, or too much work.

Rows 1, 2, 3 and 7 of what has broken others. A raw client makes the frames with Python's zlib.
"""

from __future__ import annotations

import asyncio
import functools
import io
import random
import time
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import pytest

import plumews
from plumews import ConnectionClosedError, Deflate, Opcode, limits
from plumews.deflate.config import Agreement
from plumews.deflate.inbound import ROOM, SHORT, InflateQueue, inflate_queue
from plumews.protocol.codec import build_frame
from plumews.transport.loop_context import loop_context
from support.compressed_messages import Squeezing, frame, frames, squeezed
from support.fakes import PATIENCE, fake_conn, until
from support.raw_client import Wire, close, masked, text

KiB = 1024
MiB = 1024 * KiB
BOMB = squeezed(bytes(16 * MiB))
TEXT, BINARY, CONT = Opcode.TEXT, Opcode.BINARY, Opcode.CONT
ALONE = Agreement(12, 12, False, False, "permessage-deflate")
TAKEOVER = Deflate(server_takeover=True, client_takeover=True)


def queue_here() -> InflateQueue:
    """The queue of this loop."""
    return inflate_queue(loop_context(asyncio.get_running_loop()))


class Seen:
    """A server that keeps what its one handler or callback got, and how the connection ended."""

    def __init__(self, door: str) -> None:
        self.messages: list[Any] = []
        self.conns: list[plumews.Conn] = []
        self.ended: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
        self.doors: dict[str, Any] = {"handler": self.handler}
        if door == "callback":
            self.doors = {"on_message": self.on_message, "on_open": self.conns.append}

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


DOORS = pytest.mark.parametrize("door", ["handler", "callback"])


async def echo(conn: plumews.Conn) -> None:
    async for message in conn:
        await conn.send(message, compress=False)


# --- what arrives -----------------------------------------------------------------------------------


@DOORS
@pytest.mark.parametrize("count", [1, 2, 7])
async def test_messages_arrive_as_they_were_with_pings_in_between(start: Any, door: str, count: int) -> None:
    seen = Seen(door)
    server = await start(plumews.serve(**seen.doors, host="127.0.0.1", port=0, compression="deflate"))
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


async def test_with_takeover_messages_refer_to_those_before(start: Any) -> None:
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
async def test_a_stream_inflates_as_it_goes_in_little_memory(start: Any, settings: Deflate) -> None:
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
async def test_the_rest_of_a_stream_that_is_left_is_not_in_the_way_of_the_next_message(
    start: Any, settings: Deflate
) -> None:
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


async def test_a_stream_that_is_cut_raises(start: Any) -> None:
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


# --- clients that keep their context against what was agreed ----------------------------------------

OFFERS = {
    "bare": "permessage-deflate",
    "window": "permessage-deflate; client_max_window_bits",
    "promised": "permessage-deflate; client_no_context_takeover",
}


def keeping(messages: int = 3) -> list[bytes]:
    """The payloads of equal messages from a client that keeps its context."""
    compressor = zlib.compressobj(6, zlib.DEFLATED, -12)
    message = random.Random(2).randbytes(200)
    return [(compressor.compress(message) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4] for _ in range(messages)]


@DOORS
@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
@pytest.mark.parametrize("behavior", [plumews.SendBehavior.BLOCK, plumews.SendBehavior.CONFLATE])
async def test_client_takeover_reads_a_client_that_keeps_its_context(
    start: Any, door: str, offer: str, behavior: plumews.SendBehavior
) -> None:
    seen = Seen(door)
    server = await start(
        plumews.serve(
            **seen.doors, host="127.0.0.1", port=0, send_behavior=behavior, compression=Deflate(client_takeover=True)
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


@DOORS
@pytest.mark.parametrize("count", [1, 3])
async def test_a_kept_context_is_named_in_reason_and_log(
    start: Any, door: str, count: int, caplog: pytest.LogCaptureFixture
) -> None:
    seen = Seen(door)
    server = await start(plumews.serve(**seen.doors, host="127.0.0.1", port=0, compression="deflate"))
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


async def test_a_kept_context_is_named_inside_a_stream(start: Any, caplog: pytest.LogCaptureFixture) -> None:
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
async def test_what_no_kept_context_makes_is_not_called_one(
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


# --- what is wrong ----------------------------------------------------------------------------------

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


@DOORS
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(("opcode", "data", "code"), FAULTS.values(), ids=FAULTS.keys())
async def test_a_fault_ends_the_connection_behind_what_came_before_it(
    start: Any, door: str, count: int, opcode: int, data: bytes, code: int
) -> None:
    seen = Seen(door)
    server = await start(plumews.serve(**seen.doors, host="127.0.0.1", port=0, compression="deflate"))
    async with await Squeezing.open(server) as wire:
        began = time.process_time()
        wire.send(text("before"), *frames(opcode, data, count=count), text("after"), frame(TEXT, b"after"))
        assert (await asyncio.wait_for(wire.closing(), PATIENCE))[0] == code
        assert time.process_time() - began < 0.5
        await wire.eof()
    assert seen.messages == ["before"]


@pytest.mark.parametrize("reading", ["text", "binary"])
async def test_a_fault_inside_a_stream_raises_there(start: Any, reading: str) -> None:
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
async def test_row_3_ghsa_mq44_7p77_q5h7_rsv1_only_where_it_was_agreed_on(
    start: Any, compression: Any, sent: bytes, code: int
) -> None:
    seen = Seen("callback")
    server = await start(plumews.serve(**seen.doors, host="127.0.0.1", port=0, compression=compression))
    async with await Squeezing.open(server) as wire:
        assert (wire.header("Sec-WebSocket-Extensions") is not None) is (compression is not None)
        wire.send(text("before"), sent, text("after"))
        assert (await asyncio.wait_for(wire.closing(), PATIENCE))[0] == code
        await wire.eof()
    assert seen.messages == ["before"]


# --- what is too large ------------------------------------------------------------------------------


@DOORS
@pytest.mark.parametrize("count", [1, 100], ids=["whole", "fragmented"])
async def test_row_1_cve_2018_1000518_a_bomb_is_refused_and_costs_no_memory(start: Any, door: str, count: int) -> None:
    seen = Seen(door)
    server = await start(plumews.serve(**seen.doors, host="127.0.0.1", port=0, compression="deflate", max_size=MiB))
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


@DOORS
@pytest.mark.parametrize("count", [1, 2, 1000])
@pytest.mark.parametrize("size", [-1, 0, 1], ids=["limit-1", "limit", "limit+1"])
@pytest.mark.parametrize("what", ["zeros", "noise"])
async def test_row_7_cve_2026_9675_the_limit_holds_for_what_comes_out(
    start: Any, door: str, count: int, size: int, what: str
) -> None:
    seen = Seen(door)
    limit = 100_000
    server = await start(plumews.serve(**seen.doors, host="127.0.0.1", port=0, compression="deflate", max_size=limit))
    message = bytes(limit + size) if what == "zeros" else random.Random(4).randbytes(limit + size)
    async with await Squeezing.open(server) as wire:
        wire.send(*frames(BINARY, squeezed(message), count=count), close())
        code = (await asyncio.wait_for(wire.closing(), PATIENCE))[0]
    if size <= 0:
        assert (code, seen.messages) == (1000, [message])
    else:
        assert (code, seen.messages) == (1009, [])


async def test_a_ratio_is_a_limit_where_one_is_set(start: Any) -> None:
    seen = Seen("handler")
    deflate = Deflate(max_ratio=50)
    server = await start(plumews.serve(**seen.doors, host="127.0.0.1", port=0, compression=deflate))
    async with await Squeezing.open(server) as wire:
        wire.send(frame(BINARY, bytes(64 * KiB)), *frames(BINARY, BOMB))
        assert await asyncio.wait_for(wire.closing(), PATIENCE) == (
            1009,
            f"payload too large: a compressed message that inflates to more than 50 times its {len(BOMB)} bytes",
        )
    assert seen.messages == [bytes(64 * KiB)]


async def test_messages_that_nobody_reads_wait_compressed(start: Any) -> None:
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
            await until(lambda: conn._backlog and conn._reading_paused and conn._inflow.waits_for == ROOM)
            assert len(conn._inbox) == 0  # more of the first one than a receive queue holds is not wanted yet
            assert tracemalloc.get_traced_memory()[1] < 3 * MiB
            assert queue_here().held == 0  # and it is in nobody's way
        finally:
            tracemalloc.stop()
        go_on.set()
        wire.send(close())
        await asyncio.wait_for(wire.closing(), PATIENCE)
    assert sizes == [4 * MiB] * 12


# --- what is too much work --------------------------------------------------------------------------


@DOORS
async def test_row_2_who_sends_bombs_below_the_limit_waits_and_nobody_else(start: Any, door: str) -> None:
    seen = Seen("callback")

    def on_message(conn: plumews.Conn, message: Any) -> None:
        if conn.request.path == "/echo":
            conn.send_nowait(message)
        else:
            seen.messages.append(len(message))

    async def handler(conn: plumews.Conn) -> None:
        async for message in conn:
            on_message(conn, message)

    doors = {"handler": handler} if door == "handler" else {"on_message": on_message}
    server = await start(plumews.serve(**doors, host="127.0.0.1", port=0, compression="deflate"))
    sent = b"".join(frames(BINARY, BOMB))

    async def attack(wire: Wire) -> None:
        for _ in range(10):
            wire.send(sent * 3)
            await asyncio.sleep(0.048)  # the pace of the attack

    async def p99(bad: Wire, good: Wire) -> float:
        attacker = asyncio.ensure_future(attack(bad))
        latencies: list[float] = []
        until = time.monotonic() + 0.6
        while time.monotonic() < until:
            began = time.perf_counter()
            good.send(text("how long"))
            assert await asyncio.wait_for(good.message(), PATIENCE) == "how long"
            latencies.append(time.perf_counter() - began)
            await asyncio.sleep(0.002)  # the pace of who measures, and is no attacker
        await attacker
        return sorted(latencies)[(len(latencies) - 1) * 99 // 100]

    async with await Squeezing.open(server) as bad, await Wire.open(server, "/echo") as good:
        for _ in range(3):  # others may have the core for a while
            if await p99(bad, good) < 0.05:
                break
        else:
            pytest.fail("an echo had to wait for somebody else's messages")
    assert seen.messages  # and what was sent does arrive
    assert set(seen.messages) == {16 * MiB}


async def test_small_messages_take_no_more_than_the_share_of_their_connection() -> None:
    conn, transport = fake_conn(compression="deflate")
    conn._compress(Agreement(12, 12, False, False, ""))
    received: list[int] = []
    conn._deliver_to(lambda _, message: received.append(len(message)), lambda _, exc: None)
    sent = b"".join(frames(BINARY, squeezed(bytes(64 * KiB)))) * 400
    began = time.monotonic()
    conn._receive(sent)
    assert 0 < len(received) < 400  # what one read may do at once
    assert not transport.reading
    while len(received) < 400:
        await asyncio.sleep(0)
    assert received == [64 * KiB] * 400
    assert transport.reading
    assert time.monotonic() - began < PATIENCE


def receiving(agreement: Agreement = ALONE) -> tuple[plumews.Conn, list[int]]:
    """A connection that inflates, and the sizes of what it was sent."""
    conn, _ = fake_conn(compression="deflate", ping_interval=None)
    conn._compress(agreement)
    received: list[int] = []
    conn._deliver_to(lambda _, message: received.append(len(message)), lambda _, exc: None)
    return conn, received


@pytest.mark.parametrize("reading", ["whole", "stream"])
async def test_what_is_done_beside_inflating_counts_as_such(reading: str, monkeypatch: pytest.MonkeyPatch) -> None:
    conn, received = receiving(Agreement(12, 12, True, True, ""))
    sent = b"".join(frames(TEXT, squeezed("\u20ac".encode() * MiB)))
    slow = Mock(side_effect=lambda part: time.sleep(0.0005) or True)
    if reading == "whole":

        class Kept(io.BytesIO):
            def write(self, part: Any) -> int:
                slow(part)
                return super().write(part)

        monkeypatch.setattr("plumews.deflate.inbound.io", Mock(BytesIO=Kept))
    else:
        conn._on_message = None
        conn._start_streaming()
        monkeypatch.setattr("plumews.deflate.inbound.Utf8Validator", lambda: Mock(feed=slow))
    conn._receive(sent)
    assert 0 < slow.call_count < 10  # of 48 steps
    assert received == []
    conn.abort()


async def test_row_2_many_who_begin_together_do_not_hold_the_loop() -> None:
    several = [receiving() for _ in range(20)]
    sent = b"".join(frames(BINARY, squeezed(bytes(64 * KiB)))) * 100
    began = time.thread_time()
    for conn, _ in several:
        conn._receive(sent)
    assert time.thread_time() - began < 5 * limits.FAN_OUT_SLICE  # each may have as much where it is alone
    end = time.monotonic() + PATIENCE
    while any(len(received) < 5 for _, received in several):  # and each has its turn
        assert time.monotonic() < end
        await asyncio.sleep(0)
    for conn, _ in several:
        conn.abort()


@pytest.mark.parametrize("agreement", [ALONE, Agreement(12, 12, True, True, "")], ids=["alone", "takeover"])
async def test_what_is_short_goes_at_once_though_others_have_used_up_the_time(agreement: Agreement) -> None:
    conn, received = receiving(agreement)
    queue_here().used_until = time.monotonic() + 60
    conn._receive(b"".join([frame(TEXT, b"hello" * 200), *frames(BINARY, squeezed(bytes(20_000)))]))
    assert received == [1000]
    await until(lambda: received == [1000, 20_000])


async def test_row_2_what_is_much_on_the_wire_and_little_inflated_is_not_short() -> None:
    conn, received = receiving()
    queue_here().used_until = time.monotonic() + 60
    empty = bytes.fromhex("000000ffff")
    conn._receive(b"".join(frames(BINARY, empty * (SHORT // 5) + squeezed(b"x" * 100))))
    assert received == []
    await until(lambda: received == [100])


async def test_row_1_many_bombs_below_the_limit_are_not_in_memory_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "INFLATED_PARTS", 2 * MiB)
    queue = queue_here()
    bomb = b"".join(frames(BINARY, squeezed(bytes(4 * MiB))))
    several = [receiving() for _ in range(8)]
    tracemalloc.start()
    try:
        for conn, _ in several:
            conn._receive(bomb * 2)
        await until(lambda: all(len(received) == 2 for _, received in several))
        assert tracemalloc.get_traced_memory()[1] < 2 * MiB + 3 * 4 * MiB
    finally:
        tracemalloc.stop()
    assert queue.held == 0


async def test_what_was_begun_on_a_connection_that_ends_is_held_no_more() -> None:
    queue = queue_here()
    for end in (lambda conn: conn.close_nowait(), lambda conn: conn.connection_lost(None)):
        conn, received = receiving()
        conn._receive(b"".join(frames(BINARY, BOMB)))
        await until(lambda: queue.held > 0)
        end(conn)
        await until(lambda: queue.held == 0)
        assert received == []


async def test_a_connection_that_closes_does_not_stand_in_line_for_that() -> None:
    conn, received = receiving()
    queue = queue_here()
    queue.used_until = queue.free_at = time.monotonic() + 60
    conn._receive(b"".join([*frames(BINARY, BOMB), close(1000)]))
    conn.close_nowait()
    await until(lambda: conn.state is plumews.State.CLOSED)
    assert (conn.close_code, received) == (1000, [])


async def test_a_fault_of_ours_in_its_turn_ends_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    conn, received = receiving()
    conn._receive(b"".join(frames(BINARY, BOMB)))
    conn._inflow._inflater._inflater = Mock(**{"decompress.side_effect": MemoryError})
    await until(lambda: conn.closed)
    assert conn._rules.close_sent.code == 1011
    (entry,) = caplog.records
    assert entry.exc_info[0] is MemoryError
    assert received == []


async def test_a_connection_that_is_closed_meanwhile_inflates_no_more() -> None:
    for end in (lambda conn: conn.close_nowait(), lambda conn: conn.connection_lost(None)):
        await close_in_the_middle(end)


async def close_in_the_middle(end: Callable[[Any], None]) -> None:
    conn, transport = fake_conn(compression="deflate")
    conn._compress(Agreement(12, 12, False, False, ""))
    received: list[int] = []
    conn._deliver_to(lambda _, message: received.append(len(message)), lambda _, exc: None)
    conn._receive(b"".join([*frames(BINARY, BOMB), close()]))
    assert not transport.reading
    end(conn)
    ended = until(lambda: conn._rules.close_rcvd is not None or conn.state is plumews.State.CLOSED)
    await asyncio.wait_for(ended, PATIENCE)
    assert received == []
    assert conn.close_code in (1000, 1006)


# --- the queue of a loop ----------------------------------------------------------------------------


class Waiting:
    """A connection that waits in the queue, and what it does in its turn."""

    def __init__(self, queue: InflateQueue, resume: Callable[[Waiting], object]) -> None:
        self.queue = queue
        self._inflow = Mock(resume=resume)


async def test_queue_gives_turns_in_the_order_of_waiting() -> None:
    queue = queue_here()
    seen: list[str] = []

    def resume(name: str, conn: Waiting) -> None:
        assert queue.is_free(time.monotonic())
        assert not queue.is_free(time.monotonic() + limits.FAN_OUT_SLICE)
        seen.append(name)
        if len(seen) < 7:
            queue.wait(conn, 0)

    for name in "abc":
        queue.wait(Waiting(queue, functools.partial(resume, name)), 0)
    assert seen == []
    assert not queue.is_free(time.monotonic())  # others do not overtake
    await until(lambda: len(seen) == 9)
    assert "".join(seen) == "abcabcabc"


async def test_queue_resumes_messages_in_progress_first_when_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "INFLATED_PARTS", 100)
    queue = queue_here()
    seen: list[str] = []

    def resume(conn: Waiting) -> None:
        seen.append("a")
        if len(seen) < 3:
            queue.wait(conn, 101)

    queue.wait(Waiting(queue, resume), 101)
    queue.wait(Waiting(queue, lambda conn: seen.append("b")), 0)
    await until(lambda: len(seen) == 4)
    assert "".join(seen) == "aaab"
    assert queue.held == 0


async def test_queue_runs_one_turn_in_each_loop_iteration() -> None:
    queue = queue_here()
    seen: list[int] = []
    for index in range(3):
        queue.wait(Waiting(queue, lambda _, index=index: seen.append(index)), 0)  # type: ignore[misc]
    await asyncio.sleep(0)
    assert seen == [0]
    await until(lambda: len(seen) == 3)
    assert seen == [0, 1, 2]


async def test_queue_leaves_others_as_long_as_a_turn_took() -> None:
    queue = queue_here()
    times: list[float] = []

    def work(conn: Waiting) -> None:
        times.append(time.monotonic())
        while queue.is_free(time.monotonic()):
            pass
        times.append(time.monotonic())
        if len(times) < 8:
            queue.wait(conn, 0)

    queue.wait(Waiting(queue, work), 0)
    await until(lambda: len(times) == 8)
    for end, begin in zip(times[1::2], times[2::2], strict=False):
        assert begin - end >= 0.8 * limits.FAN_OUT_SLICE


async def test_queue_goes_on_behind_a_turn_that_fails() -> None:
    loop = asyncio.get_running_loop()
    queue = queue_here()
    failures: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: failures.append(context))
    seen: list[Waiting] = []
    queue.wait(Waiting(queue, Mock(side_effect=RuntimeError("in its turn"))), 0)
    queue.wait(Waiting(queue, seen.append), 0)
    await until(lambda: len(seen) == 1)
    assert [str(failure["exception"]) for failure in failures] == ["in its turn"]


def test_queue_belongs_to_one_loop() -> None:
    async def here() -> InflateQueue:
        assert queue_here() is queue_here()
        return queue_here()

    assert asyncio.run(here()) is not asyncio.run(here())
