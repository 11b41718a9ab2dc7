"""Inflating in steps: everything that zlib makes, at every split; and what is wrong, too large, or too slow."""

from __future__ import annotations

import contextlib
import random
import time
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plumews import limits
from plumews.deflate.inflating import STEP, Inflater
from plumews.errors import InvalidCompression, PayloadTooBig, ProtocolError
from support.compressed_messages import TAIL, squeezed

KiB = 1024
MiB = 1024 * KiB
BOMB = squeezed(bytes(16 * MiB))


def inflate(inflater: Inflater, *pieces: bytes, limit: int | None = None) -> bytes:
    """The message that comes in ``pieces``; each is inflated before the next."""
    inflater.start(limit)
    out = []
    for piece in pieces:
        inflater.feed(piece)
        while inflater.pending:
            out.append(inflater.step())
    inflater.finish()
    while inflater.pending:
        out.append(inflater.step())
    assert all(len(each) <= STEP for each in out)
    return b"".join(out)


def both() -> list[Inflater]:
    return [Inflater(15, takeover=False), Inflater(15, takeover=True)]


# --- what is right ----------------------------------------------------------------------------------


def test_the_examples_of_the_rfc():
    for inflater in both():
        for data in (
            "f248cdc9c90700",  # section 7.2.3.1: one block
            "000500faff48656c6c6f00",  # 7.2.3.3: a block that is not compressed
            "f348cdc9c90700" + "00",  # 7.2.3.4: a final block
            "f24805000000ffffcac9c90700",  # 7.2.3.5: two blocks
        ):
            assert inflate(inflater, bytes.fromhex(data)) == b"Hello"
        assert inflate(inflater, b"\x00") == b""  # 7.2.3.6
        assert inflater.size == (0 if not inflater._takeover else inflater.size)


def test_with_takeover_a_message_may_refer_to_the_one_before():
    fresh, remembering = both()
    assert inflate(remembering, bytes.fromhex("f248cdc9c90700")) == b"Hello"
    assert inflate(remembering, bytes.fromhex("f200110000")) == b"Hello"
    inflate(fresh, bytes.fromhex("f248cdc9c90700"))
    with pytest.raises(InvalidCompression):
        inflate(fresh, bytes.fromhex("f200110000"))


@given(st.lists(st.binary(max_size=300) | st.integers(0, 90_000).map(lambda n: b"ab" * n), max_size=4), st.data())
def test_any_messages_with_any_parameters_come_back_at_any_split(messages, data):
    bits, level = data.draw(st.integers(9, 15)), data.draw(st.integers(0, 9))
    takeover, memory = data.draw(st.booleans()), data.draw(st.integers(1, 9))
    compressor = zlib.compressobj(level, zlib.DEFLATED, -bits, memory)
    inflater = Inflater(bits, takeover=takeover)
    for message in messages:
        if not takeover:
            compressor = zlib.compressobj(level, zlib.DEFLATED, -bits, memory)
        wire = (compressor.compress(message) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4] or b"\x00"
        cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=4)))
        pieces = [wire[a:b] for a, b in zip([0, *cuts], [*cuts, len(wire)], strict=True)]
        assert inflate(inflater, *pieces, limit=len(message)) == message


def test_every_split_in_two_and_byte_by_byte():
    message = b"".join(b"%d, " % index for index in range(60))
    wire = squeezed(message)
    for takeover in (False, True):
        inflater = Inflater(15, takeover=takeover)
        for cut in range(len(wire) + 1):
            stands_for_itself = wire[:cut], wire[cut:]
            assert inflate(inflater, *stands_for_itself, limit=len(message)) == message
        assert inflate(inflater, *(bytes([byte]) for byte in wire), limit=len(message)) == message


def test_a_final_block_ends_the_context_and_the_next_message_begins_afresh():
    inflater = Inflater(15, takeover=True)
    for end in (b"", b"\x00"):
        closed = zlib.compressobj(6, zlib.DEFLATED, -15)
        assert inflate(inflater, closed.compress(b"Hello") + closed.flush() + end) == b"Hello"
        assert inflater.size == 0
        assert inflate(inflater, squeezed(b"Hello")) == b"Hello"
        assert inflate(inflater, closed_in_two(end)[0], closed_in_two(end)[1]) == b"Hello"


def closed_in_two(end: bytes) -> tuple[bytes, bytes]:
    closed = zlib.compressobj(6, zlib.DEFLATED, -15)
    return closed.compress(b"Hello") + closed.flush(), end


def test_what_cannot_be_compressed_passes():
    noise = random.Random(7).randbytes(300_000)
    for level in (0, 9):
        for inflater in both():
            assert inflate(inflater, squeezed(noise, level=level), limit=len(noise)) == noise


# --- what is wrong ----------------------------------------------------------------------------------

WRONG = {
    "no DEFLATE": b"\xff" * 10,
    "nothing at all": b"",
    "a reserved block type": b"\x06\x00",
    "a stored block that lies": b"\x00\x05\x00\x05\x00Hello",
    "a distance beyond the beginning": bytes.fromhex("f200110000"),
}


@pytest.mark.parametrize("wire", WRONG.values(), ids=WRONG.keys())
def test_what_is_no_compressed_message_is_refused(wire):
    for inflater in both():
        with pytest.raises(InvalidCompression, match="invalid compressed data") as refused:
            inflate(inflater, wire)
        assert refused.value.close_code == 1007


def test_a_message_that_stops_inside_a_block_is_refused():
    wire = squeezed(bytes(range(256)) * 20)
    refused = 0
    for cut in range(1, len(wire) - 1):
        inflater = Inflater(15, takeover=False)
        try:
            inflate(inflater, wire[:cut])
        except InvalidCompression:
            refused += 1
    assert refused == len(wire) - 2


@pytest.mark.parametrize("after", [b"\x01", b"\x00\x00", b"\x03\x00", TAIL, b"x" * 100_000], ids=len)
@pytest.mark.parametrize("split", [False, True])
def test_row_2_trailing_bytes_behind_a_final_block_are_refused(after, split):
    closed = zlib.compressobj(6, zlib.DEFLATED, -15)
    wire = closed.compress(b"Hello") + closed.flush()
    for inflater in both():
        with pytest.raises(InvalidCompression, match="behind its final block"):
            inflate(inflater, *((wire, after) if split else (wire + after,)))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 400_000], ids=lambda size: f"pieces-of-{size}")
def test_row_2_cve_2026_128131_many_empty_members_are_refused_within_10_ms(size):
    members = b"\x03\x00" * 200_000
    inflater = Inflater(15, takeover=False)
    began = time.process_time()
    with pytest.raises(InvalidCompression, match="behind its final block"):
        inflate(inflater, *(members[at : at + size] for at in range(0, min(len(members), 5 * size), size)))
    assert time.process_time() - began < 0.01


# --- what is too large ------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 2, 1000, 65535, 65536, 65537, 200_000])
def test_the_limit_is_that_of_what_comes_out(size):
    for message in (bytes(size), random.Random(size).randbytes(size)):
        for inflater in both():
            assert inflate(inflater, squeezed(message) or b"\x00", limit=size) == message
            with pytest.raises(PayloadTooBig, match=f"beyond the limit of {size}"):
                inflate(inflater, squeezed(message + b"x"), limit=size)


def test_row_1_cve_2018_1000518_a_bomb_makes_no_more_than_the_limit():
    assert len(BOMB) < 17 * KiB
    inflater = Inflater(15, takeover=False)
    tracemalloc.start()
    try:
        with pytest.raises(PayloadTooBig) as refused:
            inflate(inflater, BOMB, limit=MiB)
        assert tracemalloc.get_traced_memory()[1] < 2 * MiB
    finally:
        tracemalloc.stop()
    assert refused.value.close_code == 1009
    assert "16777216" not in str(refused.value)  # nobody has counted


def test_every_call_of_zlib_has_a_bound():
    asked = []

    class Spy:
        eof, unconsumed_tail, unused_data = False, b"", b""

        def decompress(self, data: bytes, most: int) -> bytes:
            asked.append(most)
            return b"x" * min(most, 100)

    inflater = Inflater(15, takeover=True)
    inflater._inflater = Spy()
    with pytest.raises(PayloadTooBig):
        inflate(inflater, *[b"x"] * 30, limit=250)
    assert asked == [251, 151, 51]


def test_a_ratio_bounds_what_is_made_of_little():
    inflater = Inflater(15, takeover=False, max_ratio=100)
    with pytest.raises(PayloadTooBig, match=f"more than 100 times its {len(BOMB)} bytes") as refused:
        inflate(inflater, BOMB)
    assert refused.value.close_code == 1009
    small = bytes(limits.RATIO_FREE)
    assert inflate(Inflater(15, takeover=False, max_ratio=100), squeezed(small)) == small
    text = b"".join(b"%d, " % index for index in range(50_000))
    assert inflate(Inflater(15, takeover=False, max_ratio=100), squeezed(text)) == text


def test_time_follows_what_is_received_and_made():
    noise = random.Random(3).randbytes(4 * MiB)
    wire = squeezed(noise, level=1)
    durations = []
    for part in (wire[: len(wire) // 8], wire):
        inflater = Inflater(15, takeover=True)
        began = time.process_time()
        with contextlib.suppress(ProtocolError):
            inflate(inflater, part)
        durations.append(time.process_time() - began)
    assert durations[1] < 20 * durations[0] + 0.01


def test_without_takeover_nothing_is_held_between_messages():
    inflater = Inflater(15, takeover=False)
    inflater.start(None)
    assert inflater.size == 39 * KiB
    assert inflate(inflater, squeezed(b"Hello" * 1000)) == b"Hello" * 1000
    assert inflater.size == 0
    remembering = Inflater(9, takeover=True)
    inflate(remembering, squeezed(b"Hello", bits=9))
    assert remembering.size == 7.5 * KiB
