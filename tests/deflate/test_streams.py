"""Compressed and inflated messages: their bytes, references, limits and errors, and the memory of each library."""

from __future__ import annotations

import contextlib
import random
import sys
import time
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plumews import Deflate, limits
from plumews.deflate import streams
from plumews.deflate.streams import (
    BACKENDS,
    EMPTY,
    STEP,
    Compressor,
    ContextCompressor,
    Inflater,
    backend,
    inflate_context_size,
)
from plumews.errors import InvalidCompression, PayloadTooBig, ProtocolError
from support.compressed_messages import TAIL, squeezed, unsqueezed

HELLO = bytes.fromhex("f248cdc9c90700")  # RFC 7692 section 7.2.3.1


def compressor() -> Compressor:
    return Compressor("zlib", 6, 12, 5)


def context() -> ContextCompressor:
    return ContextCompressor("zlib", 6, 12, 5)


def test_rfc_example_compresses():
    assert compressor().compress(b"Hello") == HELLO
    assert context().compress(b"Hello") == HELLO


def test_takeover_second_hello_refers_to_the_first():
    hello = context()
    assert hello.compress(b"Hello") == HELLO
    assert hello.compress(b"Hello") == bytes.fromhex("f200110000")  # RFC 7692 section 7.2.3.2


def test_no_takeover_every_hello_is_the_same():
    hello = compressor()
    assert {hello.compress(b"Hello") for _ in range(5)} == {HELLO}


def test_empty_message_compresses_to_one_byte():
    for made in (compressor(), context()):
        assert [made.compress(b"") for _ in range(3)] == [b"\x00"] * 3
        assert made.compress(b"Hello") == HELLO
        assert made.compress(b"") == b"\x00"


@given(st.lists(st.binary(max_size=300) | st.integers(1, 9000).map(lambda n: b"ab" * n), max_size=6))
def test_any_messages_survive_with_and_without_takeover(messages):
    shared, own = compressor(), context()
    inflater = zlib.decompressobj(-12)
    for message in messages:
        assert unsqueezed(shared.compress(message), bits=12) == message
        assert inflater.decompress(own.compress(message) + TAIL) == message


def test_piece_can_be_inflated_at_once():
    own, inflater = context(), zlib.decompressobj(-12)
    for piece in (b"one", b"", b"one, two", b""):
        assert inflater.decompress(own.piece(piece)) == piece
    assert inflater.decompress(EMPTY + TAIL) == b""
    assert inflater.decompress(own.compress(b"one, two") + TAIL) == b"one, two"


def test_reset_ends_all_references():
    own = context()
    inflater = zlib.decompressobj(-12)
    inflater.decompress(own.compress(b"Hello") + TAIL)
    own.compress(b"Hello, lost")
    own.reset()
    data = own.compress(b"Hello, lost")
    assert inflater.decompress(data + TAIL) == b"Hello, lost"  # the peer's context goes on
    assert unsqueezed(data) == b"Hello, lost"  # and is not needed


def test_context_holds_no_memory_when_unused():
    own = context()
    assert own.size == 0
    own.compress(b"Hello")
    assert own.size == 38 * 1024
    own.reset()
    assert own.size == 0


class Failing:
    """Compressor that fails after ``good`` calls. It keeps the data of the calls before."""

    def __init__(self, made: Any, good: int, error: type[BaseException] = MemoryError) -> None:
        self._made = made
        self._good = good
        self._error = error

    def compress(self, payload: bytes) -> bytes:
        return self._answer(self._made.compress(payload))

    def flush(self, mode: int) -> bytes:
        return self._answer(self._made.flush(mode))

    def _answer(self, data: bytes) -> bytes:
        self._good -= 1
        if self._good < 0:
            raise self._error
        return data


@pytest.fixture
def failing(monkeypatch) -> Callable[..., None]:
    """Return a function that makes the next compressor fail after some calls, or its construction for -1."""

    def fail_after(good: int, error: type[BaseException] = MemoryError) -> None:
        def make(*key: Any) -> Any:
            monkeypatch.undo()
            if good < 0:
                raise error
            return Failing(streams._compressor(*key), good, error)

        monkeypatch.setattr(streams, "_compressor", make)

    return fail_after


@pytest.mark.parametrize("good", [-1, 0, 1, 2, 3])
@pytest.mark.parametrize("make", [compressor, context])
@pytest.mark.parametrize("size", [0, 10, 65535, 65536, 200_000])
def test_library_failure_loses_and_mixes_no_message(failing, good, make, size):
    failing(good)
    made, inflater = make(), zlib.decompressobj(-12)
    messages = [b"for one of us" * 9, bytes(size), b"for somebody else" * 9, b"for somebody else" * 9]
    for message in messages:
        data = made.compress(message)
        assert (unsqueezed(data) if make is compressor else inflater.decompress(data + TAIL)) == message


def test_library_failure_stores_the_piece(failing):
    failing(3)
    own, inflater = context(), zlib.decompressobj(-12)
    for piece in (b"one" * 99, b"two" * 99, b"three" * 99):
        assert inflater.decompress(own.piece(piece)) == piece
    assert inflater.decompress(EMPTY + TAIL) == b""


async def test_library_failure_is_logged_without_the_message(failing, caplog):
    failing(0)
    compressor().compress(b"secret")
    (line,) = caplog.messages
    assert line.startswith("compressing failed (MemoryError): a message is sent uncompressed")
    assert "secret" not in caplog.text


@pytest.mark.parametrize("make", [compressor, context])
def test_interrupted_message_leaves_nothing_behind(failing, make):
    failing(1, KeyboardInterrupt)
    made = make()
    with pytest.raises(KeyboardInterrupt):
        made.compress(b"for one of us" * 9)
    assert unsqueezed(made.compress(b"for somebody else")) == b"for somebody else"


def test_nested_messages_do_not_mix():
    shared = compressor()
    inner: list[bytes] = []

    class Interrupted(Failing):
        def compress(self, payload: bytes) -> bytes:
            data = super().compress(payload)
            inner.append(shared.compress(b"inner"))  # as by a finalizer, or by the handler of a signal
            return data

    shared._made = Interrupted(streams._compressor("zlib", 6, 12, 5), 2)
    assert unsqueezed(shared.compress(b"outer")) == b"outer"
    assert [unsqueezed(data) for data in inner] == [b"inner"]


# --- libraries --------------------------------------------------------------------------------------


def installed(name: str) -> str:
    """Return ``name``, or skip the test: all back ends but zlib are extras."""
    pytest.importorskip(BACKENDS[name].module)
    return name


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("bits", [9, 12, 15])
def test_back_end_makes_valid_messages_at_every_level(name, bits):
    library = backend(installed(name))
    messages = [b"", b"a", b"Hello" * 100, bytes(range(256)) * 40, b"Hello" * 100, bytes(70_000), b""]
    for level in library.levels:
        compressor = Compressor(name, level, bits, 5)
        for message in messages:
            data = compressor.compress(message)
            assert zlib.decompressobj(-bits).decompress(data + b"\x00\x00\xff\xff") == message


@pytest.mark.parametrize("name", BACKENDS)
def test_level_out_of_range_of_the_back_end_raises(name):
    library = backend(installed(name))
    assert Deflate(backend=name).level == library.default_level
    assert Deflate(backend=name, level=library.levels[-1]).level == library.levels[-1]
    with pytest.raises(ValueError, match=f"level must be {library.levels[0]} to {library.levels[-1]}, not"):
        Deflate(backend=name, level=library.levels[-1] + 1)


@pytest.mark.parametrize("name", BACKENDS)
def test_context_size_is_the_memory_of_the_back_end(name):
    library = backend(installed(name))
    for level in (library.levels[0], library.default_level, library.levels[-1]):
        for bits, memory in [(9, 1), (12, 2), (12, 5), (15, 7), (15, 8), (15, 9)]:
            tracemalloc.start()
            try:
                made = library.compressor(level, bits, memory)
                made.compress(bytes(9000))
                taken = tracemalloc.get_traced_memory()[0]
            finally:
                tracemalloc.stop()
            assert library.context_size(level, bits, memory) == pytest.approx(taken, abs=4096)


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("bits", range(9, 16))
def test_back_end_refers_no_further_back_than_the_window(name, bits):
    library = backend(installed(name))
    chance = random.Random(bits)
    part = chance.randbytes(300)
    message = part
    for gap in (0, 200, 260, 500, 3700, 4000, 32_000, 33_000):
        message += chance.randbytes(gap) + part
    for level in library.levels:
        inflater = zlib.decompressobj(-bits)
        rest, out = Compressor(name, level, bits, 9).compress(message) + b"\x00\x00\xff\xff", []
        while rest or out[-1]:  # in steps: within what it makes at once zlib does not look how far back it goes
            out.append(inflater.decompress(rest, 64))
            rest = inflater.unconsumed_tail
        assert b"".join(out) == message


@pytest.mark.parametrize("name", ["zlib-ng", "isal"])
def test_missing_back_end_names_its_extra(name, monkeypatch):
    for module in (BACKENDS[name].module, BACKENDS[name].module.partition(".")[0]):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"{name} is not installed: install plumews\[{name}\]"):
        Deflate(backend=name)


KiB = 1024
MiB = 1024 * KiB
BOMB = squeezed(bytes(16 * MiB))


def inflate(inflater: Inflater, *pieces: bytes, limit: int | None = None) -> bytes:
    """Return the message in ``pieces``, each of which is inflated before the next."""
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


# --- inflating: valid messages ----------------------------------------------------------------------


def test_rfc_examples_inflate():
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


def test_takeover_message_refers_to_the_one_before():
    fresh, remembering = both()
    assert inflate(remembering, bytes.fromhex("f248cdc9c90700")) == b"Hello"
    assert inflate(remembering, bytes.fromhex("f200110000")) == b"Hello"
    inflate(fresh, bytes.fromhex("f248cdc9c90700"))
    with pytest.raises(InvalidCompression):
        inflate(fresh, bytes.fromhex("f200110000"))


@given(st.lists(st.binary(max_size=300) | st.integers(0, 90_000).map(lambda n: b"ab" * n), max_size=4), st.data())
def test_messages_inflate_with_any_parameters_and_splits(messages, data):
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


def test_message_inflates_at_every_split_and_byte_by_byte():
    message = b"".join(b"%d, " % index for index in range(60))
    wire = squeezed(message)
    for takeover in (False, True):
        inflater = Inflater(15, takeover=takeover)
        for cut in range(len(wire) + 1):
            stands_for_itself = wire[:cut], wire[cut:]
            assert inflate(inflater, *stands_for_itself, limit=len(message)) == message
        assert inflate(inflater, *(bytes([byte]) for byte in wire), limit=len(message)) == message


def test_final_block_ends_the_context():
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


def test_incompressible_data_inflates():
    noise = random.Random(7).randbytes(300_000)
    for level in (0, 9):
        for inflater in both():
            assert inflate(inflater, squeezed(noise, level=level), limit=len(noise)) == noise


# --- inflating: invalid messages --------------------------------------------------------------------

WRONG = {
    "no DEFLATE": b"\xff" * 10,
    "nothing at all": b"",
    "a reserved block type": b"\x06\x00",
    "a stored block that lies": b"\x00\x05\x00\x05\x00Hello",
    "a distance beyond the beginning": bytes.fromhex("f200110000"),
}


@pytest.mark.parametrize("wire", WRONG.values(), ids=WRONG.keys())
def test_invalid_deflate_is_refused(wire):
    for inflater in both():
        with pytest.raises(InvalidCompression, match="invalid compressed data") as refused:
            inflate(inflater, wire)
        assert refused.value.close_code == 1007


def test_message_cut_inside_a_block_is_refused():
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
def test_row_2_bytes_behind_a_final_block_are_refused(after, split):
    closed = zlib.compressobj(6, zlib.DEFLATED, -15)
    wire = closed.compress(b"Hello") + closed.flush()
    for inflater in both():
        with pytest.raises(InvalidCompression, match="behind its final block"):
            inflate(inflater, *((wire, after) if split else (wire + after,)))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 400_000], ids=lambda size: f"pieces-of-{size}")
def test_row_2_cve_2026_128131_members_are_refused_within_10_ms(size):
    members = b"\x03\x00" * 200_000
    inflater = Inflater(15, takeover=False)
    began = time.process_time()
    with pytest.raises(InvalidCompression, match="behind its final block"):
        inflate(inflater, *(members[at : at + size] for at in range(0, min(len(members), 5 * size), size)))
    assert time.process_time() - began < 0.01


# --- inflating: too large messages ------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 2, 1000, 65535, 65536, 65537, 200_000])
def test_limit_holds_for_inflated_bytes(size):
    for message in (bytes(size), random.Random(size).randbytes(size)):
        for inflater in both():
            assert inflate(inflater, squeezed(message) or b"\x00", limit=size) == message
            with pytest.raises(PayloadTooBig, match=f"beyond the limit of {size}"):
                inflate(inflater, squeezed(message + b"x"), limit=size)


def test_row_1_cve_2018_1000518_bomb_makes_at_most_the_limit():
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


def test_every_zlib_call_is_bounded():
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


def test_max_ratio_bounds_inflated_bytes():
    inflater = Inflater(15, takeover=False, max_ratio=100)
    with pytest.raises(PayloadTooBig, match=f"more than 100 times its {len(BOMB)} bytes") as refused:
        inflate(inflater, BOMB)
    assert refused.value.close_code == 1009
    small = bytes(limits.RATIO_FREE)
    assert inflate(Inflater(15, takeover=False, max_ratio=100), squeezed(small)) == small
    text = b"".join(b"%d, " % index for index in range(50_000))
    assert inflate(Inflater(15, takeover=False, max_ratio=100), squeezed(text)) == text


def test_inflating_takes_linear_time():
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


def test_no_takeover_holds_nothing_between_messages():
    inflater = Inflater(15, takeover=False)
    inflater.start(None)
    assert inflater.size == 39 * KiB
    assert inflate(inflater, squeezed(b"Hello" * 1000)) == b"Hello" * 1000
    assert inflater.size == 0
    remembering = Inflater(9, takeover=True)
    inflate(remembering, squeezed(b"Hello", bits=9))
    assert remembering.size == 7.5 * KiB


def test_inflate_context_size_is_that_of_zconf():
    assert inflate_context_size(15) == (32 + 7) * 1024
