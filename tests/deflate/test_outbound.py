"""Compression of sent messages: the choice, the context, and the memory and statistics of a connection.

A queue that is full when the test says so shows that a dropped message never enters a context.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import random
import tracemalloc
import zlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

import plumews
from plumews import ConnConfig, Deflate, Opcode, SendBehavior, SendQueueFull, limits
from plumews.conn.opening import use_deflate
from plumews.conn.receiver import deliver_to
from plumews.constants import COMPRESSED
from plumews.deflate.config import Agreement
from plumews.deflate.outbound import DeflateParams, OutboundDeflate
from plumews.protocol.codec import Parser
from plumews.protocol.message import encode
from plumews.transport import displacing
from support.compressed_messages import TAIL, Squeezing, frame, squeezed, unsqueezed
from support.fakes import PATIENCE, FakeTransport, echo, fake_conn, feed, pass_time, ticks, until
from support.raw_client import Wire, close, text, upgrade

TEXT, BINARY = Opcode.TEXT, Opcode.BINARY
JSON = json.dumps([{"id": index, "name": f"user {index}"} for index in range(40)])
ALONE = Agreement(12, 12, False, False, "permessage-deflate")
TAKEOVER = Agreement(12, 12, True, True, "permessage-deflate")
CONTEXT = 38 * 1024  # what zlib holds for 12 bits and memory level 5


def compressing(agreement: Agreement = ALONE, **config: Any) -> tuple[plumews.Conn, FakeTransport]:
    """Return an open connection that compresses, on a fake transport."""
    conn, transport = fake_conn(**{"compression": "deflate", **config})
    use_deflate(conn, agreement)
    return conn, transport


def ignore(conn: plumews.Conn, exc: BaseException) -> None:
    """Ignore a failure."""


def left(transport: FakeTransport) -> list[tuple[int, bytes]]:
    """Return the frames that were written since the last call."""
    transport.protocol._flush()
    parser = Parser(client=True, max_size=None, decode_text=False, allow_rsv1=True)
    events = parser.feed(transport.wire)
    assert parser.error is None
    assert not parser.mid_message
    transport.writes.clear()
    return events


# --- the choice -------------------------------------------------------------------------------------


@pytest.mark.parametrize("min_size", [0, 1, 100])
def test_never_compressed_is_the_bound_of_should_compress(min_size: int) -> None:
    params = DeflateParams(("zlib", 6, 12, 5), min_size, 64 * 1024)
    sizes = range(200)
    assert [size for size in sizes if not params.should_compress(size, None)] == list(range(min_size))
    assert params.never_compressed() == min_size - 1


# --- time of writing --------------------------------------------------------------------------------


@pytest.mark.parametrize("reader", ["handler", "callback"])
async def test_answers_of_several_connections_are_written_together(
    reader: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plumews.transport.loop_context.GATHER_TIME", 60.0)
    transports = []
    readers = []

    async def handler(conn: plumews.Conn) -> None:
        async for message in conn:
            await conn.send(message)

    for _ in range(3):
        conn, transport = compressing()
        if reader == "handler":
            readers.append(asyncio.ensure_future(handler(conn)))
        else:
            deliver_to(conn, lambda conn, message: conn.send_nowait(message), ignore)
        transports.append(transport)
    await ticks()
    for transport in transports:
        feed(transport.protocol, frame(TEXT, JSON.encode()))
        assert [each.wire for each in transports] == [b""] * 3
    await ticks(1)
    for transport in transports:
        assert len(transport.writes) == 1
        ((_, answer),) = left(transport)
        assert unsqueezed(answer).decode() == JSON
        transport.protocol.connection_lost(None)
    for reader in readers:
        with contextlib.suppress(plumews.ConnectionClosed):
            await reader


async def test_gathered_answer_is_written_before_the_end() -> None:
    conn, transport = compressing()
    deliver_to(conn, lambda conn, message: conn.send_nowait(message), ignore)
    feed(conn, frame(TEXT, JSON.encode()))
    assert transport.wire == b""
    conn.eof_received()
    assert len(transport.writes) == 1
    ((_, answer),) = left(transport)
    assert unsqueezed(answer).decode() == JSON
    conn.connection_lost(None)


# --- choice -----------------------------------------------------------------------------------------


async def test_message_from_min_size_on_is_compressed() -> None:
    conn, transport = compressing()
    for message in ("x" * 127, b"x" * 127, "x" * 128, b"x" * 128, JSON):
        await conn.send(message)
    events = left(transport)
    assert [kind for kind, _ in events] == [TEXT, BINARY, TEXT | COMPRESSED, BINARY | COMPRESSED, TEXT | COMPRESSED]
    assert unsqueezed(events[-1][1]).decode() == JSON


async def test_min_size_counts_utf8_bytes() -> None:
    conn, transport = compressing()
    await conn.send("\u20ac" * 42)
    await conn.send("\u20ac" * 43)
    assert [kind for kind, _ in left(transport)] == [TEXT, TEXT | COMPRESSED]


async def test_incompressible_message_is_sent_as_it_is() -> None:
    conn, transport = compressing()
    noise = random.Random(1).randbytes(1000)
    await conn.send(noise)
    assert left(transport) == [(BINARY, noise)]


METHODS = {
    "send": lambda conn, message, **how: conn.send(message, **how),
    "write_text": lambda conn, message, **how: conn.write_text(message, **how),
    "write_binary": lambda conn, message, **how: conn.write_binary(message.encode(), **how),
    "write_message": lambda conn, message, **how: conn.write_message(TEXT, message, **how),
    "write_json": lambda conn, message, **how: conn.write_json(message, **how),
    "write_many": lambda conn, message, **how: conn.write_many([message], **how),
    "pieces": lambda conn, message, **how: conn.send(iter([message]), **how),
}


async def send_nowait(conn: plumews.Conn, message: str, **how: Any) -> None:
    conn.send_nowait(message, **how)


@pytest.mark.parametrize("send", [*METHODS.values(), send_nowait], ids=[*METHODS, "send_nowait"])
async def test_every_send_method_takes_compress(send: Any) -> None:
    conn, transport = compressing()
    for message, how, compressed in (
        ("x" * 1000, {}, True),
        ("x" * 1000, {"compress": False}, False),
        ("x", {"compress": True}, True),
        ("x", {}, False),
    ):
        await send(conn, message, **how)
        ((kind, data),) = left(transport)
        assert bool(kind & COMPRESSED) is compressed
        assert (unsqueezed(data) if compressed else data).strip(b'"') == message.encode()
    plain, transport = fake_conn()
    await send(plain, "x" * 1000, compress=True)  # there it means nothing
    assert not left(transport)[0][0] & COMPRESSED
    for one in (conn, plain):
        with pytest.raises(TypeError, match="compress must be True, False or None, not int"):
            await send(one, "x" * 1000, compress=1)


async def test_empty_compressed_message_is_one_byte() -> None:
    for agreement in (ALONE, TAKEOVER):
        conn, transport = compressing(agreement)
        for _ in range(2):
            await conn.send("", compress=True)
        assert left(transport) == [(TEXT | COMPRESSED, b"\x00")] * 2


async def test_long_message_is_compressed_before_fragmenting() -> None:
    conn, transport = compressing(fragment_size=1000)
    message = random.Random(2).randbytes(5000).hex()
    await conn.send(message)
    assert transport.wire[0] == 0x41  # TEXT with RSV1, not the last
    ((kind, data),) = left(transport)
    assert kind == TEXT | COMPRESSED
    assert unsqueezed(data).decode() == message


@pytest.mark.parametrize("agreement", [ALONE, TAKEOVER], ids=["alone", "takeover"])
async def test_each_piece_can_be_inflated_when_it_arrives(agreement: Agreement) -> None:
    conn, transport = compressing(agreement, fragment_size=100)
    inflater = zlib.decompressobj(-12)
    parts: list[bytes] = []

    async def pieces() -> AsyncIterator[bytes]:
        for index in range(5):
            yield b"piece %d of these, " % index * 20
            events = Parser(client=True, max_size=None, allow_rsv1=True)
            events.start_streaming()
            parts.append(b"".join(data for kind, data in events.feed(transport.wire) if kind == 17))
            assert inflater.copy().decompress(parts[-1]).endswith(b"piece %d of these, " % index)

    await conn.send(pieces())
    ((kind, data),) = left(transport)
    assert kind == BINARY | COMPRESSED
    expected = b"".join(b"piece %d of these, " % index * 20 for index in range(5))
    assert inflater.decompress(data + TAIL) == expected
    await conn.send(expected)
    ((_, data),) = left(transport)
    if agreement is TAKEOVER:
        assert inflater.decompress(data + TAIL) == expected
        assert len(data) < 40  # it was all there before
    else:
        assert unsqueezed(data) == expected


async def test_long_message_in_pieces_lets_others_run() -> None:
    conn, transport = compressing()
    message = random.Random(8).randbytes(2 * limits.MiB).hex()
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    counting = asyncio.ensure_future(count())
    await asyncio.sleep(0)
    for pieces in ([message], [message[at : at + 65536] for at in range(0, len(message), 65536)]):
        turns = 0
        await conn.send(iter(pieces))
        assert turns > 3  # it takes a tenth of a second
        ((_, data),) = left(transport)
        assert unsqueezed(data) == message.encode()
    counting.cancel()


async def test_cancelled_pieces_close_the_connection() -> None:
    conn, transport = compressing()
    transport.full_after = 1

    async def pieces() -> AsyncIterator[bytes]:
        yield b"x" * 1000
        raise AssertionError("nobody asks for this")

    sending = asyncio.ensure_future(conn.send(pieces()))
    while not transport.writes:
        await asyncio.sleep(0)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert conn.closed


# --- context ----------------------------------------------------------------------------------------


async def test_waiting_message_is_compressed_and_counted_once() -> None:
    conn, transport = compressing(queue_size=2, send_timeout=None)
    transport.fill()
    conn.send_nowait(JSON)
    conn.send_nowait(JSON)
    waiting = asyncio.ensure_future(conn.send(JSON))
    await asyncio.sleep(0)
    assert not waiting.done()
    transport.drain()
    await asyncio.wait_for(waiting, PATIENCE)
    assert len(left(transport)) == 3
    assert conn.compression is not None
    assert conn.compression.sent_messages == 3


async def test_takeover_makes_a_repeated_message_small() -> None:
    conn, transport = compressing(TAKEOVER)
    inflater = zlib.decompressobj(-12)
    sizes = []
    for message in (JSON, "short", JSON, JSON):
        await conn.send(message)
        ((kind, data),) = left(transport)
        if kind & COMPRESSED:
            sizes.append(len(data))
            data = inflater.decompress(data + TAIL)
        assert data.decode() == message
    assert sizes[1] < sizes[0] / 5


@pytest.mark.parametrize("behavior", [SendBehavior.BLOCK, SendBehavior.DROP], ids=str)
async def test_dropped_message_never_enters_the_context(behavior: SendBehavior) -> None:
    conn, transport = compressing(TAKEOVER, queue_size=2, send_behavior=behavior, send_timeout=0.001)
    inflater = zlib.decompressobj(-12)
    await conn.send(JSON)
    transport.fill()
    conn.send_nowait(JSON + "1")
    conn.send_nowait(JSON + "2")
    for lost in ("3", "4"):
        with pytest.raises((SendQueueFull, TimeoutError)):
            await conn.send(random.Random(lost).randbytes(500).hex())
    waiting = None
    if behavior is SendBehavior.BLOCK:
        conn._config.__dict__["send_timeout"] = None
        cancelled = asyncio.ensure_future(conn.send(random.Random(5).randbytes(500).hex()))
        waiting = asyncio.ensure_future(conn.send(JSON + "6"))
        await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.sleep(0)
    transport.drain()
    await asyncio.sleep(0)
    if waiting is not None:
        await asyncio.wait_for(waiting, PATIENCE)
    await conn.send(JSON + "7")
    received = [inflater.decompress(data + TAIL).decode() for _, data in left(transport)]
    expected = [JSON, JSON + "1", JSON + "2", JSON + "6", JSON + "7"]
    assert received == [message for message in expected if waiting is not None or not message.endswith("6")]


async def test_evicted_message_leaves_the_context() -> None:
    conn, transport = compressing(TAKEOVER, send_behavior=SendBehavior.DROP)
    inflater = zlib.decompressobj(-12)
    await conn.send("begin" * 50)
    transport.fill()
    conn.send_nowait(JSON)
    assert displacing.drop_queued(conn) == 1
    transport.drain()
    conn.send_nowait(JSON)
    await asyncio.sleep(0)
    assert [inflater.decompress(data + TAIL).decode() for _, data in left(transport)] == ["begin" * 50, JSON]


async def test_broadcast_goes_through_the_context() -> None:
    conn, transport = compressing(TAKEOVER)
    inflater = zlib.decompressobj(-12)
    hub = plumews.Hub()
    hub.join("room", conn)
    for _ in range(3):
        await hub.publish("room", JSON)
        conn.send_nowait("mine" * 100)
    plumews.broadcast([conn], JSON)
    await asyncio.sleep(0)
    events = left(transport)
    assert all(kind == TEXT | COMPRESSED for kind, _ in events)
    assert hub.inspect(conn).compression_bytes == CONTEXT
    messages = [inflater.decompress(data + TAIL).decode() for _, data in events]
    assert messages == [JSON, "mine" * 100] * 3 + [JSON]
    assert len(events[-1][1]) < 30
    hub.remove(conn)
    await hub.stop()


async def test_idle_context_is_freed() -> None:
    conn, transport = compressing(TAKEOVER)
    inflater = zlib.decompressobj(-12)

    def held() -> int:
        assert conn.compression is not None
        return conn.compression.context_bytes

    assert held() == 0
    await conn.send(JSON)
    assert held() == CONTEXT
    pass_time(limits.CONTEXT_IDLE)
    await ticks()
    assert held() == CONTEXT  # it was used within the time
    pass_time(limits.CONTEXT_IDLE)
    await until(lambda: held() == 0)
    await conn.send(JSON)
    first, second = left(transport)
    assert len(second[1]) == len(first[1])
    assert [inflater.decompress(data + TAIL).decode() for _, data in (first, second)] == [JSON, JSON]


# --- shared parameters ------------------------------------------------------------------------------


async def test_equal_agreements_share_their_parameters() -> None:
    one, other = compressing()[0], compressing()[0]
    assert one._deflate is not None
    assert other._deflate is not None
    assert one._deflate.shared_params == other._deflate.shared_params
    assert hash(one._deflate.shared_params) == hash(other._deflate.shared_params)
    encoded = one._deflate.encode(TEXT, JSON.encode())
    assert encoded.buffers == other._deflate.encode(TEXT, JSON.encode()).buffers
    assert encoded.size == sum(map(len, encoded.buffers))
    keys = {one._deflate.shared_params}
    for agreement, config in (
        (ALONE._replace(server_window_bits=11), {}),
        (ALONE, {"fragment_size": 1000}),
        (ALONE, {"compression": Deflate(level=1)}),
        (ALONE, {"compression": Deflate(mem_level=9)}),
        (ALONE, {"compression": Deflate(min_size=0)}),
    ):
        conn, _ = compressing(agreement, **config)
        assert conn._deflate is not None
        keys.add(conn._deflate.shared_params)
    assert len(keys) == 6
    takeover, _ = compressing(TAKEOVER)
    assert takeover._deflate is not None
    assert takeover._deflate.shared_params is None


@pytest.mark.parametrize("size", [0, 5, 125, 126, 20_000, 200_000])
def test_encoded_message_returns_opcode_and_payload(size: int) -> None:
    payload = random.Random(size).randbytes(size)
    assert encode(BINARY, payload).message() == (BINARY, payload)
    assert encode(TEXT, payload.hex().encode(), fragment_size=100).message() == (TEXT, payload.hex().encode())


# --- server -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", ["server_max_window_bits=8", "client_max_window_bits=16", "constructor", 'a=""'])
async def test_row_3_invalid_offer_leaves_compression_off(start: Any, wrong: str) -> None:
    server = await start(plumews.serve(echo, "127.0.0.1", 0, compression="deflate"))
    async with await Wire.open(server, "/", f"Sec-WebSocket-Extensions: permessage-deflate; {wrong}") as wire:
        assert wire.header("Sec-WebSocket-Extensions") is None
        wire.send(text(JSON))
        assert await wire.message() == JSON
        (conn,) = server.connections
        assert conn.compression is None


async def test_row_14_malformed_extensions_header_is_400(start: Any) -> None:
    server = await start(plumews.serve(echo, "127.0.0.1", 0, compression="deflate"))
    for line in ('a;b="' + "\\c" * 5000, "b" + " " * 9000 + "x", "a;;b"):
        async with await Wire.connect(server) as wire:
            status, body = await wire.response(upgrade("/", f"Sec-WebSocket-Extensions: {line}"))
            assert status == 400
            assert b"invalid Sec-WebSocket-Extensions header" in body


async def test_compression_is_off_by_default(start: Any) -> None:
    server = await start(plumews.serve(echo, "127.0.0.1", 0))
    async with await Squeezing.open(server) as wire:
        assert wire.header("Sec-WebSocket-Extensions") is None


async def test_compression_info_has_parameters_and_counts(start: Any) -> None:
    server = await start(plumews.serve(echo, "127.0.0.1", 0, compression="deflate"))
    async with await Squeezing.open(server) as wire:
        wire.send(frame(TEXT, JSON.encode()))
        assert await wire.inflated() == (TEXT, JSON.encode())
        (conn,) = server.connections
        told = conn.compression
        assert told is not None
        assert (told.server_window_bits, told.client_window_bits) == (12, 12)
        assert (told.server_takeover, told.client_takeover, told.context_bytes) == (False, False, 0)
        assert (told.received_messages, told.received_payload_bytes) == (1, len(JSON))
        assert told.received_wire_bytes == len(squeezed(JSON.encode()))
        assert (told.sent_messages, told.sent_payload_bytes) == (1, len(JSON))
        assert 0 < told.sent_wire_bytes < len(JSON) / 2
        assert conn.response is not None
        assert conn.response.headers["Sec-WebSocket-Extensions"] == wire.header("Sec-WebSocket-Extensions")
        wire.send(close())
        await wire.eof()


async def test_idle_connection_costs_little_more_with_compression() -> None:
    config = ConnConfig(compression="deflate")

    def conns(agreement: Agreement | None) -> list[Any]:
        made = []
        for _ in range(200):
            conn = plumews.Conn(config)
            if agreement is not None:
                use_deflate(conn, agreement)
            made.append(conn)
        return made

    sizes = []
    for agreement in (None, ALONE):
        conns(agreement)
        gc.collect()
        tracemalloc.start()
        kept = conns(agreement)
        gc.collect()
        sizes.append(tracemalloc.get_traced_memory()[0] / len(kept))
        tracemalloc.stop()
    assert sizes[1] - sizes[0] < 1024
    assert sizes[1] < 8 * 1024


@pytest.mark.parametrize("takeover", [False, True])
async def test_window_of_8_bits_sends_nothing_compressed(takeover):
    conn, _ = compressing()
    agreement = Agreement(12, 8, False, takeover, "permessage-deflate")
    outbound = OutboundDeflate(agreement, Deflate(), 1000, conn._state.timers, client=True)
    for compress in (None, True):
        message = outbound.enter(outbound.encode(TEXT, b"x" * 500, compress))
        assert message.buffers == encode(TEXT, b"x" * 500).buffers
        assert outbound.begin(500, compress) is None
    assert outbound.params.never_compressed() > limits.MiB
    conn.abort()
