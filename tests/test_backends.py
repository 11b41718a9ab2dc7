"""The libraries that compress: each writes what zlib reads, and one that is not there is named."""

from __future__ import annotations

import sys
import zlib

import pytest

from plumews import Deflate
from plumews.backends import BACKENDS, backend
from plumews.deflating import Compressor


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
    with pytest.raises(ValueError, match=f"level must be {library.levels[0]} to {library.levels[-1]}"):
        Deflate(backend=name, level=library.levels[-1] + 1)


@pytest.mark.parametrize("name", ["zlib-ng", "isal"])
def test_a_back_end_that_is_not_installed_is_named_with_its_extra(name, monkeypatch):
    for module in (BACKENDS[name].module, BACKENDS[name].module.partition(".")[0]):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"{name} is not installed: install plumews\[{name}\]"):
        Deflate(backend=name)
