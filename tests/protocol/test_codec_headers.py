"""Headers of arriving frames: each byte is checked as it arrives (RFC 6455 section 5.2), on both bodies."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest

from plumews import limits
from plumews.errors import PayloadTooBig, ProtocolError, TooManyFragments
from support.codec_bodies import on_both_bodies
from support.codec_parsers import (
    BINARY,
    CLOSE,
    CONT,
    KEY,
    PING,
    PONG,
    TEXT,
    KiB,
    client,
    masked,
    refused,
    server,
)

pytestmark = on_both_bodies


# --- the first byte -------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70])
@pytest.mark.parametrize("opcode", [TEXT, BINARY, PING, PONG, CLOSE])
def test_section_5_2_a_reserved_bit_is_a_protocol_error(codec: Any, opcode: int, bits: int) -> None:
    refused(server(codec), bytes([0x80 | bits | opcode]), ProtocolError, "reserved bits are set")


@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
def test_section_5_2_a_reserved_opcode_is_a_protocol_error(codec: Any, opcode: int) -> None:
    refused(server(codec), bytes([0x80 | opcode]), ProtocolError, f"reserved opcode {opcode}")


@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
def test_section_5_5_fragmented_control_frame_is_an_error(codec: Any, opcode: int) -> None:
    refused(server(codec), bytes([opcode]), ProtocolError, "protocol error: fragmented control frame")


@pytest.mark.parametrize("fin", [True, False])
def test_section_5_4_continuation_without_a_message_is_an_error(codec: Any, fin: bool) -> None:
    refused(server(codec), bytes([fin << 7]), ProtocolError, "continuation frame without a message")


def test_section_5_4_continuation_after_a_message_is_an_error(codec: Any) -> None:
    parser = server(codec)
    assert parser.feed(masked(codec, TEXT, b"a", fin=False) + masked(codec, CONT, b"b")) == [(TEXT, "ab")]
    refused(parser, b"\x80", ProtocolError, "continuation frame without a message")


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("fin", [True, False])
def test_section_5_4_message_inside_a_fragmented_one_is_an_error(codec: Any, opcode: int, fin: bool) -> None:
    parser = server(codec)
    parser.feed(masked(codec, TEXT, b"a", fin=False))
    refused(parser, bytes([opcode | fin << 7]), ProtocolError, "new data opcode while assembling")


# --- the second byte ------------------------------------------------------------------------------


@pytest.mark.parametrize("opcode", [TEXT, BINARY, PING, PONG, CLOSE])
@pytest.mark.parametrize("length", [0, 5, 126, 127])
def test_section_5_1_a_server_refuses_an_unmasked_frame(codec: Any, opcode: int, length: int) -> None:
    refused(server(codec), bytes([0x80 | opcode, length]), ProtocolError, "protocol error: unmasked client frame")


@pytest.mark.parametrize("opcode", [TEXT, BINARY, PING, PONG, CLOSE])
@pytest.mark.parametrize("length", [0, 5, 126, 127])
def test_section_5_1_a_client_refuses_a_masked_frame(codec: Any, opcode: int, length: int) -> None:
    refused(client(codec), bytes([0x80 | opcode, 0x80 | length]), ProtocolError, "protocol error: masked server frame")


@pytest.mark.parametrize("opcode", [PING, PONG, CLOSE])
@pytest.mark.parametrize("length", [126, 127])
def test_section_5_5_long_control_frame_is_rejected(codec: Any, opcode: int, length: int) -> None:
    header = bytes([0x80 | opcode, 0x80 | length])
    refused(server(codec), header, ProtocolError, "protocol error: control frame too large")


@pytest.mark.parametrize("opcode", [PING, PONG])
def test_section_5_5_a_control_frame_of_125_bytes_is_accepted(codec: Any, opcode: int) -> None:
    payload, parser = bytes(range(125)), server(codec)
    frame = masked(codec, opcode, payload)
    assert parser.feed(frame) == [(opcode, payload)]
    assert [event for i in range(len(frame)) for event in parser.feed(frame[i : i + 1])] == [(opcode, payload)]


# --- the length -----------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 1, 125])
def test_section_5_2_16_bit_length_below_126_is_an_error(codec: Any, length: int) -> None:
    refused(server(codec), b"\x82\xfe" + length.to_bytes(2, "big"), ProtocolError, "not in its shortest form")


@pytest.mark.parametrize("length", [0, 1, 125, 126, 65535])
def test_section_5_2_64_bit_length_below_65536_is_an_error(codec: Any, length: int) -> None:
    refused(server(codec), b"\x82\xff" + length.to_bytes(8, "big"), ProtocolError, "not in its shortest form")


HUGE = {
    "2^31-1": 2**31 - 1,
    "2^31": 2**31,
    "2^31+1": 2**31 + 1,
    "2^32-1": 2**32 - 1,
    "2^32": 2**32,
    "2^32+1": 2**32 + 1,
    "2^53+1": 2**53 + 1,
    "2^63-1": 2**63 - 1,
    "2^63": 2**63,
    "2^64-1": 2**64 - 1,
}


@pytest.mark.parametrize("length", HUGE.values(), ids=HUGE)
@pytest.mark.parametrize("first", ["first frame", "after a part"])
@pytest.mark.parametrize("max_size", [16 * limits.MiB, 2**31 - 2, 0, None])
def test_row_4_section_8_point_13_huge_length_is_rejected_early(
    codec: Any, length: int, first: str, max_size: int | None
) -> None:
    parser, opcode = server(codec, max_size=max_size), TEXT
    if first == "after a part":
        opcode = CONT
        parser.feed(masked(codec, TEXT, b"part" if max_size != 0 else b"", fin=False))
    header = bytes([0x80 | opcode, 0xFF]) + length.to_bytes(8, "big")
    if length >= 2**63:
        refused(parser, header, ProtocolError, "payload length with its top bit set")
    elif max_size is not None or (length == 2**63 - 1 and first == "after a part"):
        refused(parser, header, PayloadTooBig, "payload too large: a frame of ")
        assert parser.error.close_code == 1009
    else:
        assert parser.feed(header + KEY + codec.mask(b"abc", KEY)) == []
        assert (parser.error, parser.mid_message) == (None, True)


@pytest.mark.parametrize("opcode", [TEXT, BINARY, CONT])
def test_row_5_header_of_a_tebibyte_takes_no_memory(codec: Any, opcode: int) -> None:
    header, payload = codec.build_header(opcode, 2**40, mask_key=KEY), codec.mask(b"1234567", KEY)
    peaks = []
    for _ in range(3):  # what is counted is not ours alone: the least of some
        parser = server(codec)
        if opcode == CONT:
            parser.feed(masked(codec, BINARY, b"part", fin=False))
        tracemalloc.start()
        try:
            assert parser.feed(header + payload) == []
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
        assert parser.buffered == (11 if opcode == CONT else 7)
    assert min(peaks) < 4 * KiB


# --- limits ---------------------------------------------------------------------------------------


def message_in(codec: Any, size: int, fragments: int) -> bytes:
    """A binary message of ``size`` bytes in that many frames."""
    base, extra = divmod(size, fragments)
    frames = []
    for i in range(fragments):
        payload = bytes(base + (i < extra))
        frames.append(masked(codec, CONT if i else BINARY, payload, fin=i + 1 == fragments))
    return b"".join(frames)


@pytest.mark.parametrize("fragments", [1, 2, 1000])
def test_row_7_the_limit_is_one_of_the_message_not_of_the_frame(codec: Any, fragments: int) -> None:
    limit = 5000
    for size in (limit - 1, limit):
        parser = server(codec, max_size=limit)
        stream = message_in(codec, size, fragments)
        assert parser.feed(stream * 2) == [(BINARY, bytes(size))] * 2
        assert parser.error is None
    for piece in (1, 7, 10**6):
        parser, stream = server(codec, max_size=limit), message_in(codec, limit + 1, fragments)
        assert [parser.feed(stream[i : i + piece]) for i in range(0, len(stream), piece)].count([]) > 0
        assert type(parser.error) is PayloadTooBig
        assert parser.error.close_code == 1009


def test_message_too_big_is_rejected_by_its_header(codec: Any) -> None:
    for length, header in (
        (101, b"\x82\xe5"),
        (126, b"\x82\xfe\x00\x7e"),
        (65536, b"\x82\xff" + bytes(5) + b"\x01\0\0"),
    ):
        text = f"payload too large: a frame of {length} bytes, after 0 of the same message, is beyond the limit of 100"
        refused(server(codec, max_size=100), header, PayloadTooBig, text)


def test_max_size_counts_frames_of_one_message_only(codec: Any) -> None:
    parser = server(codec, max_size=10)
    assert len(parser.feed(masked(codec, BINARY, bytes(10)) * 3)) == 3
    parser.feed(masked(codec, BINARY, bytes(8), fin=False))
    refused(parser, b"\x80\x83", PayloadTooBig, "a frame of 3 bytes, after 8 of the same message")


def test_control_frames_are_not_bounded_by_the_limit_of_messages(codec: Any) -> None:
    assert server(codec, max_size=0).feed(masked(codec, PING, bytes(125))) == [(PING, bytes(125))]


def test_a_new_max_size_holds_from_the_next_header_on(codec: Any) -> None:
    parser = server(codec, max_size=100)
    frame = masked(codec, BINARY, bytes(100))
    parser.feed(frame[:50])
    parser.max_size = 10
    assert parser.max_size == 10
    assert parser.feed(frame[50:]) == [(BINARY, bytes(100))]
    parser.max_size = None
    assert parser.max_size is None
    parser.feed(masked(codec, BINARY, bytes(1000), fin=False))
    parser.max_size = 999
    refused(parser, b"\x80\x80", PayloadTooBig, "a frame of 0 bytes, after 1000")


@pytest.mark.parametrize("max_frames", [1, 2, 1000])
def test_a_message_may_have_max_frames_frames_and_no_more(codec: Any, max_frames: int) -> None:
    parser = server(codec, max_frames=max_frames)
    stream = message_in(codec, 3, max_frames)
    assert parser.feed(stream * 2 + masked(codec, PING)) == [(BINARY, bytes(3))] * 2 + [(PING, b"")]
    more = masked(codec, BINARY, fin=False) + masked(codec, CONT, fin=False) * (max_frames - 1)
    assert parser.feed(more + masked(codec, PING)) == [(PING, b"")]
    refused(parser, b"\x80", TooManyFragments, f"too many fragments: a message of more than {max_frames} frames")
    assert parser.error.close_code == 1008


def test_a_new_max_frames_holds_from_the_next_header_on(codec: Any) -> None:
    parser = server(codec)
    assert parser.max_frames is None
    parser.feed(masked(codec, BINARY, fin=False) + masked(codec, CONT, fin=False) * 4)
    parser.max_frames = 6
    assert parser.max_frames == 6
    assert parser.feed(masked(codec, CONT, fin=False)) == []
    assert parser.error is None
    refused(parser, b"\x00", TooManyFragments, "more than 6 frames")


@pytest.mark.parametrize("size", [0, 1, 2])
def test_row_8_flood_of_tiny_fragments_ends_at_max_frames(codec: Any, size: int) -> None:
    max_frames = limits.max_frames(2 * limits.MiB)
    parser = server(codec, max_size=2 * limits.MiB, max_frames=max_frames)
    parser.feed(masked(codec, BINARY, b"", fin=False))
    flood = masked(codec, CONT, bytes(size), fin=False) * 1000
    fed = 0
    tracemalloc.start()
    try:
        while parser.error is None:
            assert parser.feed(flood) == []
            fed += 1000
        assert tracemalloc.get_traced_memory()[1] < limits.MiB
    finally:
        tracemalloc.stop()
    assert type(parser.error) is TooManyFragments
    assert max_frames <= fed < max_frames + 1000


@pytest.mark.parametrize("name", ["max_size", "max_frames"])
def test_invalid_limit_error_says_what_would_be_right(codec: Any, name: str) -> None:
    least = {"max_size": 0, "max_frames": 1}[name]
    for value in (least - 1, -(2**64), 2**63):
        text = rf"^{name} must be None or {least} to 2\*\*63 - 1, not {value}$"
        with pytest.raises(ValueError, match=text):
            server(codec, **{name: value})
        with pytest.raises(ValueError, match=text):
            setattr(server(codec), name, value)
    with pytest.raises(TypeError, match=f"^{name} must be None or an int, not 'str'$"):
        server(codec, **{name: "1"})
    for value in (least, 2**63 - 1, None):
        assert getattr(server(codec, **{name: value}), name) == value
