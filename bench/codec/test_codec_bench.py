"""The codec beside its peers: masks, UTF-8, frames in, frames out.

    python -m pytest bench/codec --benchmark-enable --benchmark-group-by=group --benchmark-columns=min,median

Each group is one job; its rows are our two bodies and the peers, so that ratios can be read off. On a shared machine
only ratios within a run mean anything. A peer does less or more than we do in places; the comments say where.
"""

from __future__ import annotations

import codecs
import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp._websocket.helpers import websocket_mask
from aiohttp._websocket.reader import WebSocketDataQueue, WebSocketReader
from websockets.frames import Frame, Opcode
from websockets.speedups import apply_mask
from websockets.streams import StreamReader

from plumews import _codec, _codec_py

OURS = {"plumews": _codec, "plumews pure": _codec_py}
KEY = bytes.fromhex("37fa213d")
KiB = 1024
SIZES = {"32 B": 32, "1 KiB": KiB, "64 KiB": 64 * KiB, "1 MiB": 1024 * KiB}

Benchmark = Callable[..., Any]


def ids(jobs: dict[str, Any]) -> dict[str, Any]:
    return {"argvalues": list(jobs.values()), "ids": list(jobs)}


# --- masks ----------------------------------------------------------------------------------------


def aiohttp_mask(data: bytes, key: bytes) -> bytearray:
    copy = bytearray(data)  # its kernel works in place
    websocket_mask(key, copy)
    return copy


MASKS: dict[str, Any] = {name: body.mask for name, body in OURS.items()}
MASKS |= {"websockets": apply_mask, "aiohttp": aiohttp_mask}


@pytest.mark.parametrize("mask", **ids(MASKS))
@pytest.mark.parametrize("size", **ids(SIZES))
def test_mask(benchmark: Benchmark, size: int, mask: Any) -> None:
    benchmark.group = f"mask {size} bytes"  # type: ignore[attr-defined]
    benchmark(mask, bytes(size), KEY)


# --- UTF-8 ----------------------------------------------------------------------------------------

TEXTS = {"ASCII": "a" * 16 * KiB, "Cyrillic": "ж" * 8 * KiB, "CJK": "語" * 5461}


def decode(data: bytes) -> bool:
    codecs.utf_8_decode(data, "strict", False)  # what the peers do: not fail-fast, and it builds the text
    return True


VALIDATORS: dict[str, Any] = {name: body.Utf8Validator().feed for name, body in OURS.items()}
VALIDATORS |= {"CPython decode": decode}


@pytest.mark.parametrize("validate", **ids(VALIDATORS))
@pytest.mark.parametrize("text", **ids(TEXTS))
def test_utf8(benchmark: Benchmark, text: str, validate: Any) -> None:
    benchmark.group = f"UTF-8 16 KiB {text[0]!r}"  # type: ignore[attr-defined]
    assert benchmark(validate, text.encode())


# --- frames in ------------------------------------------------------------------------------------


def ours(body: Any) -> Callable[[bytes], int]:
    def parse(stream: bytes) -> int:
        return len(body.Parser(client=False, max_size=16 * KiB * KiB).feed(stream))

    return parse


def websockets_parse(stream: bytes) -> int:
    """Frames, not messages: text is not decoded here, fragments are not put together."""
    reader = StreamReader()
    reader.feed_data(stream)
    count = 0
    while reader.buffer:
        list(Frame.parse(reader.read_exact, mask=True, max_size=16 * KiB * KiB))  # all is there: it never waits
        count += 1
    return count


def aiohttp_parse(stream: bytes) -> int:
    """Messages in a queue that a reader would empty."""
    protocol: Any = SimpleNamespace(_reading_paused=True)
    loop: Any = SimpleNamespace()
    queue = WebSocketDataQueue(protocol, 1 << 30, loop=loop)
    reader = WebSocketReader(queue, 16 * KiB * KiB, False, True)
    reader.feed_data(stream)
    return len(queue._buffer)


PARSERS = {name: ours(body) for name, body in OURS.items()}
PARSERS |= {"websockets": websockets_parse, "aiohttp": aiohttp_parse}


def frames(opcode: int, payload: bytes, count: int) -> bytes:
    return b"".join(_codec.build_frame(opcode, payload, mask_key=os.urandom(4)) for _ in range(count))


STREAMS = {
    "1000 x binary 32 B": (1000, frames(2, b"a" * 32, 1000)),
    "1000 x ASCII 32 B": (1000, frames(1, b"a" * 32, 1000)),
    "1000 x Cyrillic 32 B": (1000, frames(1, "ж".encode() * 16, 1000)),
    "100 x binary 1 KiB": (100, frames(2, b"a" * KiB, 100)),
    "1 x ASCII 1 MiB": (1, frames(1, b"a" * KiB * KiB, 1)),
}


@pytest.mark.parametrize("parse", **ids(PARSERS))
@pytest.mark.parametrize("name", STREAMS)
def test_parse(benchmark: Benchmark, name: str, parse: Any) -> None:
    benchmark.group = f"parse {name}"  # type: ignore[attr-defined]
    count, stream = STREAMS[name]
    assert benchmark(parse, stream) == count


@pytest.mark.parametrize("body", **ids(OURS))
def test_parse_1_mib_in_64_kib_reads(benchmark: Benchmark, body: Any) -> None:
    benchmark.group = "parse 1 x binary 1 MiB in 64 KiB reads"  # type: ignore[attr-defined]
    stream = frames(2, bytes(KiB * KiB), 1)
    reads = [stream[start : start + 64 * KiB] for start in range(0, len(stream), 64 * KiB)]

    def parse() -> int:
        parser = body.Parser(client=False, max_size=None)
        return sum(len(parser.feed(read)) for read in reads)

    assert benchmark(parse) == 1


# --- frames out -----------------------------------------------------------------------------------

BUILDERS: dict[str, Any] = {name: body.build_frame for name, body in OURS.items()}
BUILDERS |= {"websockets": lambda opcode, payload: Frame(Opcode(opcode), payload).serialize(mask=False)}


@pytest.mark.parametrize("build", **ids(BUILDERS))
@pytest.mark.parametrize("size", **ids(SIZES))
def test_build(benchmark: Benchmark, size: int, build: Any) -> None:
    benchmark.group = f"build {size} bytes"  # type: ignore[attr-defined]
    benchmark(build, 2, bytes(size))


@pytest.mark.parametrize("body", **ids(OURS))
def test_fragment_1_mib(benchmark: Benchmark, body: Any) -> None:
    benchmark.group = "fragment 1 MiB"  # type: ignore[attr-defined]
    assert len(benchmark(body.fragment, 2, bytes(KiB * KiB))) == 32
