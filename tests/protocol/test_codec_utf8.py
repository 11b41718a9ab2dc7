"""plumews.codec: UTF-8 that arrives in pieces (RFC 6455 section 8.1, RFC 3629), on both bodies and every tier.

The judge is CPython's decoder for what is complete, and the set of all beginnings of characters for what is not.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import pytest

from support.codec_bodies import on_every_tier

pytestmark = on_every_tier

KEY = bytes.fromhex("37fa213d")


@functools.cache
def encodings() -> list[bytes]:
    """The UTF-8 of every character but ASCII; of those that differ only in the last byte, of one."""
    return [chr(code).encode() for code in range(0x80, 0x110000, 64) if not 0xD800 <= code <= 0xDFFF]


@functools.cache
def everything() -> bytes:
    """The UTF-8 of every character."""
    return "".join(chr(code) for code in range(0x110000) if not 0xD800 <= code <= 0xDFFF).encode()


#: Every proper beginning of a character.
BEGINNINGS = {character[:size] for character in encodings() for size in range(1, len(character))}


def is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


@functools.cache
def can_become_utf8(data: bytes) -> bool:
    """Return True if some continuation of ``data`` is valid UTF-8."""
    return is_utf8(data) or any(data[-size:] in BEGINNINGS and is_utf8(data[:-size]) for size in (1, 2, 3))


# Each byte at a border of RFC 3629's table, or just beyond one.
LEADS = [0x00, 0x41, 0x7F, 0x80, 0xBF, 0xC0, 0xC1, 0xC2, 0xDF, 0xE0, 0xE1, 0xEC, 0xED, 0xEE, 0xEF]
LEADS += [0xF0, 0xF1, 0xF3, 0xF4, 0xF5, 0xF8, 0xFE, 0xFF]
FOLLOWERS = [0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0]


@functools.cache
def sequences(length: int) -> list[bytes]:
    return [bytes(parts) for parts in itertools.product(LEADS, *[FOLLOWERS] * (length - 1))]


def splits(data: bytes) -> list[list[bytes]]:
    """Every way to cut ``data`` into pieces."""
    ways = []
    for cuts in itertools.product((False, True), repeat=len(data) - 1):
        places = [0, *[i + 1 for i, cut in enumerate(cuts) if cut], len(data)]
        ways.append([data[a:b] for a, b in itertools.pairwise(places)])
    return ways


@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_row_23_border_sequences_match_at_every_split(codec: Any, length: int) -> None:
    validator = codec.Utf8Validator()
    for data in sequences(length):
        complete, possible = is_utf8(data), can_become_utf8(data)
        for pieces in splits(data):
            validator.reset()
            results = [validator.feed(piece) for piece in pieces]
            assert (results[-1], validator.complete) == (possible, complete), pieces


def test_every_pair_of_bytes_is_rejected_at_its_first_bad_byte(codec: Any) -> None:
    validator = codec.Utf8Validator()
    for first in range(256):
        possible = can_become_utf8(bytes([first]))
        for second in range(256):
            validator.reset()
            assert validator.feed(bytes([first])) is possible
            assert validator.feed(bytes([second])) is can_become_utf8(bytes([first, second]))


def test_every_character_is_accepted_whole_and_byte_by_byte(codec: Any) -> None:
    validator = codec.Utf8Validator()
    assert validator.feed(everything())
    assert validator.complete
    for character in encodings():
        for size in range(len(character)):
            assert validator.feed(character[size : size + 1])
            assert validator.complete is (size + 1 == len(character))


@pytest.mark.parametrize("filler", ["a", "é", "€", "😀", "aé€😀"])
def test_a_bad_byte_is_found_at_every_place_of_a_long_text(codec: Any, filler: str) -> None:
    validator = codec.Utf8Validator()
    text = (filler * 100).encode()
    for place in range(130):
        for bad in (0xFF, 0xC0, 0xF5):
            validator.reset()
            assert validator.feed(text[:place] + bytes([bad]) + text[place:]) is False
        validator.reset()
        assert validator.feed(text[:place]) is True
        assert validator.complete is is_utf8(text[:place])
        assert validator.feed(text[place:]) is True
        assert validator.complete is True


def test_surrogate_is_rejected_at_its_second_byte(codec: Any) -> None:
    validator = codec.Utf8Validator()
    assert validator.feed(b"\xed")
    assert not validator.feed(b"\xa0")  # which CPython's incremental decoder waits out
    assert not validator.complete


def test_false_stays_false_until_reset(codec: Any) -> None:
    validator = codec.Utf8Validator()
    assert not validator.feed(b"\xff")
    assert not validator.feed(b"fine")
    assert not validator.feed(b"")
    assert not validator.complete
    validator.reset()
    assert validator.complete
    assert validator.feed(b"fine")


def test_validator_begins_complete_and_reset_forgets_bytes(codec: Any) -> None:
    validator = codec.Utf8Validator()
    assert validator.complete
    assert validator.feed(b"")
    assert validator.complete
    assert validator.feed(b"\xe2\x82")
    assert not validator.complete
    validator.reset()
    assert validator.complete
    assert not validator.feed(b"\xac")


def test_any_contiguous_buffer_is_validated_and_nothing_else(codec: Any) -> None:
    validator = codec.Utf8Validator()
    assert validator.feed(bytearray("é".encode()))
    assert validator.feed(memoryview("é".encode()))
    with pytest.raises(TypeError, match="a bytes-like object is required, not 'str'"):
        validator.feed("é")
    with pytest.raises(BufferError, match="not contiguous"):
        validator.feed(memoryview(b"abcd")[::2])
    assert validator.complete


@pytest.mark.parametrize("length", [2, 3, 4])
def test_row_23_text_of_border_sequences_equals_bytes_decode(codec: Any, length: int) -> None:
    for data in sequences(length):
        expected = [(1, data.decode())] if is_utf8(data) else []
        for cut in range(length):
            parser = codec.Parser(client=True, max_size=None)
            frames = codec.build_frame(1, data[:cut], fin=cut == 0) if cut else b""
            frames += codec.build_frame(0 if cut else 1, data[cut:])
            assert parser.feed(frames) == expected
            assert (parser.error is None) == bool(expected)
            if parser.error is not None:
                assert parser.error.close_code == 1007


def test_row_23_continuation_bytes_alone_in_a_frame_are_rejected(codec: Any) -> None:
    parser = codec.Parser(client=True, max_size=None)
    assert parser.feed(codec.build_frame(1, b"ok", fin=False) + codec.build_frame(0, b"\x80\x80")) == []
    assert parser.error.close_code == 1007
    assert str(parser.error).startswith("invalid UTF-8: ")


def test_masked_text_is_rejected_at_its_first_bad_byte(codec: Any) -> None:
    parser = codec.Parser(client=False, max_size=None)
    frame = codec.build_header(1, 1_000_000, mask_key=KEY) + codec.mask("é".encode() * 5000 + b"\xf4\x90", KEY)
    assert parser.feed(frame[:-1]) == []
    assert parser.error is None
    assert parser.feed(frame[-1:]) == []
    assert parser.error.close_code == 1007


def test_text_that_ends_inside_a_character_is_rejected(codec: Any) -> None:
    parser = codec.Parser(client=True, max_size=None)
    assert parser.feed(codec.build_frame(1, b"\xe2\x82", fin=False)) == []
    assert parser.error is None
    assert parser.feed(codec.build_frame(0, b"")) == []
    assert parser.error.close_code == 1007
    assert "ends inside a character" in str(parser.error)
