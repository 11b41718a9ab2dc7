"""Compressed messages that chance makes, over the wire: whatever Python's zlib makes of them, a server does, too.

    python -m fuzz.compressed [--seconds N] [--seed N]      in tests/; prints the seed of each connection that differs

A connection agrees on parameters, sends messages in all the ways in which zlib can make them, whole or in fragments,
some of them broken, and reads the echo. What is to come of it is said by zlib in one call, without bounds or steps.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
import zlib
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import plumews
from plumews.constants import COMPRESSED, Opcode
from support.compressed_messages import TAIL, Squeezing, frames
from support.raw_client import masked

LIMIT = 256 * 1024
_CLOSED = TAIL + b"\x03\x00"


async def echo(conn: plumews.Conn) -> None:
    """Whole messages or streams, as the path says."""
    while conn.request.path == "/stream":
        async with await conn.read_stream() as stream:
            data = await stream.read_all()
            await conn.write_message(stream.opcode, data)
    async for message in conn:
        await conn.send(message)


def settings(chance: random.Random) -> plumews.Deflate:
    return plumews.Deflate(
        level=chance.randint(1, 9),
        server_window_bits=chance.randint(9, 15),
        client_window_bits=chance.randint(9, 15),
        server_takeover=chance.random() < 0.5,
        client_takeover=chance.random() < 0.5,
        mem_level=chance.randint(1, 9),
        min_size=chance.choice([0, 1, 128]),
    )


def material(chance: random.Random) -> tuple[int, bytes]:
    size = chance.choice([0, 1, 10, 1000, 20_000, LIMIT - 1, LIMIT, LIMIT + 1])
    kind = chance.randrange(4)
    if kind == 0:
        return Opcode.BINARY, chance.randbytes(size)
    if kind == 1:
        return Opcode.BINARY, bytes(size)
    words = [chance.choice(["word ", "\u20ac", "\U0001f600", "a", "{}"]) * chance.randint(1, 9) for _ in range(50)]
    text = "".join(words) * (size // 100 + 1)
    return Opcode.TEXT, text.encode()[:size].decode(errors="ignore").encode()


def compressed(chance: random.Random, compressor: Any, payload: bytes) -> bytes:
    """``payload`` with flushes anywhere."""
    out, at = b"", 0
    while at < len(payload) and chance.random() < 0.3:
        step = chance.randint(1, len(payload))
        out += compressor.compress(payload[at : at + step])
        out += compressor.flush(chance.choice([zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH, zlib.Z_NO_FLUSH]))
        at += step
    out += compressor.compress(payload[at:])
    end = compressor.flush(zlib.Z_SYNC_FLUSH)
    # Flushed just before, there is nothing to flush, and the end of that flush is not to be cut off.
    return (out + end)[:-4] if end else out + b"\x00"


def broken(chance: random.Random, data: bytes) -> bytes:
    at = chance.randrange(len(data) + 1)
    return chance.choice(
        [
            data[:at],
            data + chance.randbytes(chance.randint(1, 3)),
            data[:at] + chance.randbytes(1) + data[at + 1 :],
            data[:at] + data[at + chance.randint(1, 4) :],
        ]
    )


def expected(opcode: int, data: bytes) -> tuple[bytes | None, set[int]]:
    """Return zlib's output for a message on its own, or the close codes that may reject it."""
    if not data:
        return None, {1007}
    inflater = zlib.decompressobj(-15)
    try:
        out = inflater.decompress(data + _CLOSED, 64 * LIMIT)
    except zlib.error:
        return None, {1007, 1009}  # whichever is found first
    codes = {1009} if len(out) > LIMIT else set()
    if not inflater.eof or inflater.unused_data not in (b"", _CLOSED, b"\x00" + _CLOSED):
        codes.add(1007)
    if opcode == Opcode.TEXT:
        try:
            out.decode()
        except UnicodeDecodeError:
            codes.add(1007)
    return None if codes else out, codes


async def one_connection(seed: int) -> int:
    """One connection as ``seed`` makes it; how many messages came back."""
    chance = random.Random(seed)
    deflate = settings(chance)
    came_back = 0
    async with plumews.serve(echo, "127.0.0.1", 0, compression=deflate, max_size=LIMIT) as server:
        offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"
        async with await Squeezing.open(server, chance.choice(["/", "/stream"]), offer) as wire:
            compressor: Any = None
            inflater: Any = None
            for _ in range(chance.randint(1, 8)):
                opcode, payload = material(chance)
                if compressor is None or not deflate.client_takeover:
                    level, memory = chance.randint(0, 9), chance.randint(1, 9)
                    strategy = chance.randint(0, 4)
                    bits = deflate.client_window_bits
                    compressor = zlib.compressobj(level, zlib.DEFLATED, -bits, memory, strategy)
                data = compressed(chance, compressor, payload)
                out: bytes | None = payload if len(payload) <= LIMIT else None
                codes = {1009}
                if not deflate.client_takeover:
                    if chance.random() < 0.2:
                        data = broken(chance, data)
                    out, codes = expected(opcode, data)
                for each in frames(opcode, data, count=chance.choice([1, 1, 2, 5, 50])):
                    wire.send(each, *([masked(Opcode.PING, b"")] * (chance.random() < 0.1)))
                answer: Any = None
                while answer is None or answer[0] == Opcode.PONG:
                    answer = await asyncio.wait_for(wire.event(), 30)
                kind, back = answer
                if out is None:
                    assert (kind, back[0]) in {(Opcode.CLOSE, code) for code in codes}, (kind, back, codes)
                    return came_back
                if kind & COMPRESSED:
                    if inflater is None or not deflate.server_takeover:
                        inflater = zlib.decompressobj(-deflate.server_window_bits)
                    back = inflater.decompress(back + TAIL)
                assert (kind & ~COMPRESSED, back) == (opcode, out)
                came_back += 1
    return came_back


async def main(seconds: float, seed: int) -> int:
    until = time.monotonic() + seconds
    connections = messages = differ = 0
    while time.monotonic() < until:
        try:
            messages += await one_connection(seed + connections)
        except Exception as exc:
            differ += 1
            sys.stdout.write(f"seed {seed + connections}: {exc!r}\n"[:500])
        connections += 1
    sys.stdout.write(f"{connections} connections, {messages} messages came back, {differ} connections differ\n")
    return int(differ > 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="fuzz.compressed", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    options = parser.parse_args()
    sys.exit(asyncio.run(main(options.seconds, options.seed)))
