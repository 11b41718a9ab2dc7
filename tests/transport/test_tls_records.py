"""Counting of TLS records: pieces of any size, empty records, and bytes that are none."""

from __future__ import annotations

import random
import struct

import pytest

from plumews.transport.tls_records import RecordCounter

LONGEST = (1 << 14) + 2048


def record(size: int, kind: int = 23) -> bytes:
    return struct.pack("!BHH", kind, 0x0303, size) + bytes(size)


def count(counter: RecordCounter, data: bytes) -> int:
    return counter.count(bytearray(data), len(data))


def test_each_record_counts_with_its_last_byte() -> None:
    counter = RecordCounter()
    stream = record(3) + record(0) + record(1, kind=20) + record(LONGEST, kind=22)
    ends = [at for at in range(len(stream)) if count(counter, stream[at : at + 1])]
    assert ends == [7, 12, 18, len(stream) - 1]


@pytest.mark.parametrize("seed", range(20))
def test_pieces_count_what_the_whole_counts(seed: int) -> None:
    chance = random.Random(seed)
    sizes = [chance.choice((0, 1, 5, 300, LONGEST)) for _ in range(30)]
    stream = b"".join(record(size, chance.randrange(20, 25)) for size in sizes)
    assert count(RecordCounter(), stream) == len(sizes)
    counter, counted, at = RecordCounter(), 0, 0
    while at < len(stream):
        size = chance.choice((1, 2, 4, 5, 6, 1000, 40_000))
        counted += count(counter, stream[at : at + size])
        at += size
    assert counted == len(sizes)


@pytest.mark.parametrize("wrong", [b"GET / HTTP/1.1", b"\x19", struct.pack("!BHH", 23, 0x0303, LONGEST + 1)])
def test_what_is_no_record_counts_as_its_bytes_from_then_on(wrong: bytes) -> None:
    counter = RecordCounter()
    assert count(counter, record(10)[:-1]) == 0
    rest = record(10)[-1:] + record(2) + wrong
    assert count(counter, rest) == len(rest)
    assert count(counter, record(7)) == len(record(7))
