"""The libraries that compress: each writes what zlib reads, and one that is not there is named."""

from __future__ import annotations

import random
import sys
import tracemalloc
import zlib

import pytest

from plumews import Deflate
from plumews.deflate.backends import BACKENDS, backend
from plumews.deflate.streams import Compressor


def installed(name: str) -> str:
    """``name``, or a test that is left out: the back ends but zlib are extras."""
    pytest.importorskip(BACKENDS[name].module)
    return name


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("bits", [9, 12, 15])
def test_every_level_of_a_back_end_makes_messages_that_stand_for_themselves(name, bits):
    library = backend(installed(name))
    messages = [b"", b"a", b"Hello" * 100, bytes(range(256)) * 40, b"Hello" * 100, bytes(70_000), b""]
    for level in library.levels:
        compressor = Compressor(name, level, bits, 5)
        for message in messages:
            data = compressor.compress(message)
            assert zlib.decompressobj(-bits).decompress(data + b"\x00\x00\xff\xff") == message


@pytest.mark.parametrize("name", BACKENDS)
def test_levels_are_those_of_the_back_end(name):
    library = backend(installed(name))
    assert Deflate(backend=name).level == library.default_level
    assert Deflate(backend=name, level=library.levels[-1]).level == library.levels[-1]
    with pytest.raises(ValueError, match=f"level must be at most {library.levels[-1]}"):
        Deflate(backend=name, level=library.levels[-1] + 1)


@pytest.mark.parametrize("name", BACKENDS)
def test_the_memory_of_a_context_is_what_the_back_end_takes(name):
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
def test_no_back_end_refers_further_back_than_the_window(name, bits):
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
def test_a_back_end_that_is_not_installed_is_named_with_its_extra(name, monkeypatch):
    for module in (BACKENDS[name].module, BACKENDS[name].module.partition(".")[0]):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"{name} is not installed: install plumews\[{name}\]"):
        Deflate(backend=name)
