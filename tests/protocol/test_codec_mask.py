"""plumews.codec: masks (RFC 6455 section 5.3), on both bodies and every tier."""

from __future__ import annotations

import array
import ctypes
import itertools
from typing import Any

import pytest

from support.codec_bodies import on_every_tier

pytestmark = on_every_tier

KEY = bytes.fromhex("37fa213d")
PATTERN = bytes(itertools.islice(itertools.cycle(range(251)), 100_000))

#: Sizes at which a kernel changes its ways: words, vectors, cache pieces.
EDGE_SIZES = [0, 1, 3, 4, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 255, 256, 257, 4095, 4096, 4097]
EDGE_SIZES += [16383, 16384, 16385, 32767, 32768, 32769, 65535, 65536, 65537]


def byte_by_byte(data: bytes, key: bytes, offset: int = 0) -> bytes:
    """Section 5.3 to the letter."""
    return bytes(octet ^ key[(i + offset) % 4] for i, octet in enumerate(data))


def test_mask_is_what_section_5_3_says(codec: Any) -> None:
    assert codec.mask(b"Hello", KEY) == bytes.fromhex("7f9f4d5158")


@pytest.mark.parametrize("size", EDGE_SIZES)
def test_masks_match_the_definition_at_edge_sizes(codec: Any, size: int) -> None:
    data = PATTERN[:size]
    expected = byte_by_byte(data, KEY)
    assert codec.mask(data, KEY) == expected
    copy = bytearray(data)
    assert codec.mask_inplace(copy, KEY) is None
    assert copy == expected


def test_row_6_kernels_stay_inside_their_input(codec: Any) -> None:
    for size in range(201):
        expected = byte_by_byte(PATTERN[:size], KEY)
        for start in range(16):
            room = bytearray(b"\xee" * start + PATTERN[:size] + b"\xee" * 16)
            window = memoryview(room)[start : start + size]
            assert codec.mask(window, KEY) == expected
            codec.mask_inplace(window, KEY)
            assert room == b"\xee" * start + expected + b"\xee" * 16


def test_offset_is_the_position_of_the_data_in_the_payload(codec: Any) -> None:
    whole = codec.mask(PATTERN[:1000], KEY)
    for cut in range(40):
        assert codec.mask(PATTERN[:cut], KEY) + codec.mask(PATTERN[cut:1000], KEY, cut) == whole
        rest = bytearray(PATTERN[cut:1000])
        codec.mask_inplace(rest, KEY, offset=cut)
        assert rest == whole[cut:]


@pytest.mark.parametrize("offset", [2**31 + 1, 2**32 + 2, 2**63 + 3, -1, -6])
def test_an_offset_of_any_size_counts_modulo_4(codec: Any, offset: int) -> None:
    assert codec.mask(b"abcdefg", KEY, offset) == byte_by_byte(b"abcdefg", KEY, offset % 4)


def test_masking_twice_gives_the_data_back(codec: Any) -> None:
    assert codec.mask(codec.mask(PATTERN, KEY), KEY) == PATTERN


def test_a_key_of_zeros_changes_nothing(codec: Any) -> None:
    assert codec.mask(PATTERN, bytes(4)) == PATTERN
    copy = bytearray(PATTERN)
    codec.mask_inplace(copy, bytes(4))
    assert copy == PATTERN


def test_a_key_that_begins_with_zeros_is_a_key(codec: Any) -> None:
    key = b"\0\0\0\x01"
    assert codec.mask(PATTERN[:99], key, 3) == byte_by_byte(PATTERN[:99], key, 3)


@pytest.mark.parametrize("length", [0, 1, 2, 3, 5, 6, 7, 8])
def test_row_6_a_key_that_is_not_4_bytes_is_a_value_error(codec: Any, length: int) -> None:
    for function in (codec.mask, codec.mask_inplace):
        with pytest.raises(ValueError, match=f"^the mask key must be exactly 4 bytes, not {length}$"):
            function(bytearray(b"data"), bytes(length))


@pytest.mark.parametrize("key", [None, "abcd", bytearray(4), memoryview(b"abcd"), 1, [1, 2, 3, 4]])
def test_a_key_that_is_not_bytes_is_a_type_error(codec: Any, key: Any) -> None:
    for function in (codec.mask, codec.mask_inplace):
        with pytest.raises(TypeError, match=f"^the mask key must be bytes, not '{type(key).__name__}'$"):
            function(bytearray(b"data"), key)


@pytest.mark.parametrize(
    "buffer",
    [
        bytearray(PATTERN[:24]),
        memoryview(PATTERN[:24]),
        memoryview(PATTERN[:24]).cast("I"),
        memoryview(PATTERN[:24]).cast("B", (2, 3, 4)),
        array.array("f", [1.5, -2.0, 3.25]),
        array.array("d", [1.5, -2.0]),
        array.array("H"),
        (ctypes.c_uint32 * 3)(1, 2, 3),
    ],
    ids=["bytearray", "memoryview", "ints", "three dimensions", "floats", "doubles", "empty", "ctypes"],
)
def test_row_25_any_contiguous_buffer_is_masked_byte_for_byte(codec: Any, buffer: Any) -> None:
    data = memoryview(buffer).tobytes()
    assert codec.mask(buffer, KEY) == byte_by_byte(data, KEY)
    if not memoryview(buffer).readonly:
        codec.mask_inplace(buffer, KEY)
        assert memoryview(buffer).tobytes() == byte_by_byte(data, KEY)
        codec.mask_inplace(buffer, KEY)


@pytest.mark.parametrize("data", ["text", 7, None, [1, 2], object()], ids=lambda data: type(data).__name__)
def test_row_25_what_is_no_buffer_is_a_type_error(codec: Any, data: Any) -> None:
    for function in (codec.mask, codec.mask_inplace):
        with pytest.raises(TypeError, match=f"^a bytes-like object is required, not '{type(data).__name__}'$"):
            function(data, KEY)


def test_buffer_with_gaps_is_a_buffer_error_with_advice(codec: Any) -> None:
    gaps = memoryview(bytearray(b"abcdef"))[::2]
    for function in (codec.mask, codec.mask_inplace):
        with pytest.raises(BufferError, match=r"^the buffer is not contiguous: pass a copy, bytes\(\.\.\.\)$"):
            function(gaps, KEY)
    assert gaps.tobytes() == b"ace"


@pytest.mark.parametrize("data", [b"bytes", memoryview(b"view")], ids=["bytes", "view"])
def test_mask_inplace_refuses_a_read_only_buffer(codec: Any, data: Any) -> None:
    with pytest.raises(BufferError, match="read-only"):
        codec.mask_inplace(data, KEY)
    assert bytes(data) in (b"bytes", b"view")


def test_a_released_view_is_a_value_error(codec: Any) -> None:
    view = memoryview(b"data")
    view.release()
    for function in (codec.mask, codec.mask_inplace):
        with pytest.raises(ValueError, match="released"):
            function(view, KEY)


def test_no_buffer_stays_exported_after_success_or_error(codec: Any) -> None:
    data = bytearray(b"abcdefgh")
    codec.mask(data, KEY)
    codec.mask_inplace(data, KEY)
    with pytest.raises(ValueError, match="4 bytes"):
        codec.mask(data, b"")
    data.append(0)  # BufferError if somebody still looks at it
