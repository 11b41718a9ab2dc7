"""plumews.protocol.codec.Parser: every rule for a frame that comes in (RFC 6455 section 5), on both bodies."""

from __future__ import annotations

import gc
import math
import mmap
import os
import sys
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from plumews import limits
from plumews.constants import COMPRESSED, Opcode, StreamEvent, is_valid_close_code
from plumews.errors import InvalidData, PayloadTooBig, ProtocolError, TooManyFragments
from support.codec_bodies import on_both_bodies

pytestmark = on_both_bodies

KEY = bytes.fromhex("37fa213d")
CONT, TEXT, BINARY, CLOSE, PING, PONG = map(int, Opcode)
BEGIN, CHUNK, END = map(int, StreamEvent)
KiB = 1024


def server(codec: Any, **options: Any) -> Any:
    """A parser of what clients send: masked frames."""
    return codec.Parser(**{"client": False, "max_size": None, **options})


def client(codec: Any, **options: Any) -> Any:
    """A parser of what servers send: frames without a mask, which are easier to write down."""
    return codec.Parser(**{"client": True, "max_size": None, **options})


def masked(codec: Any, opcode: int, payload: bytes = b"", **options: Any) -> bytes:
    return codec.build_frame(opcode, payload, mask_key=KEY, **options)


def refused(parser: Any, data: bytes, kind: type[ProtocolError], text: str) -> None:
    """``data`` is refused at its last byte, not before it, and for the reason that ``text`` names."""
    assert parser.feed(data[:-1]) == []
    assert parser.error is None, "refused too early"
    assert parser.feed(data[-1:]) == []
    assert type(parser.error) is kind
    assert text in str(parser.error)
    assert parser.feed(b"\x81\x00" + b"\x81\x80" + KEY) == []
    assert (parser.mid_message, parser.buffered) == (False, 0)


# --- what a parser delivers -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frames", "events"),
    [
        ("810548656c6c6f", [(TEXT, "Hello")]),
        ("010348656c" + "80026c6f", [(TEXT, "Hello")]),
        ("890548656c6c6f", [(PING, b"Hello")]),
        ("8a00", [(PONG, b"")]),
        ("827e0100" + "ab" * 256, [(BINARY, b"\xab" * 256)]),
        ("827f0000000000010000" + "ab" * 65536, [(BINARY, b"\xab" * 65536)]),
        ("880203e8", [(CLOSE, (1000, ""))]),
    ],
    ids=["text", "fragmented text", "ping", "pong", "256 bytes", "64 KiB", "close"],
)
def test_section_5_7_the_examples_of_the_rfc(codec: Any, frames: str, events: list[Any]) -> None:
    assert client(codec).feed(bytes.fromhex(frames)) == events


def test_section_5_3_masked_payloads_are_unmasked(codec: Any) -> None:
    assert server(codec).feed(bytes.fromhex("818537fa213d7f9f4d5158")) == [(TEXT, "Hello")]


@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 65535, 65536])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_section_5_2_every_form_of_the_length_is_read(codec: Any, opcode: int, length: int) -> None:
    payload = b"x" * length
    message = payload.decode() if opcode == TEXT else payload
    frame = masked(codec, opcode, payload)
    assert server(codec).feed(frame) == [(opcode, message)]
    for cut in {1, 2, 3, 4, 6, 7, 8, 10, 13, 14, 15, len(frame) - 1} & set(range(len(frame))):
        parser = server(codec)
        assert parser.feed(frame[:cut]) == []
        assert parser.mid_message
        assert parser.feed(frame[cut:]) == [(opcode, message)]
        assert (parser.mid_message, parser.buffered, parser.error) == (False, 0, None)


def test_a_thousand_frames_in_one_read_come_in_order(codec: Any) -> None:
    stream = b"".join(masked(codec, BINARY if i % 3 else PING, b"%d" % i) for i in range(1000))
    assert server(codec).feed(stream) == [(BINARY if i % 3 else PING, b"%d" % i) for i in range(1000)]


def test_kinds_are_plain_ints_and_payloads_are_plain_bytes_and_str(codec: Any) -> None:
    parser = server(codec)
    parser.start_streaming()
    stream = masked(codec, BINARY, b"a") + b"".join(masked(codec, kind, b"b") for kind in (TEXT, BINARY, PING, PONG))
    events = parser.feed(bytearray(stream) + masked(codec, CLOSE))
    assert [type(kind) for kind, _ in events] == [int] * 8
    kinds = [BEGIN, CHUNK, END, TEXT, BINARY, PING, PONG, CLOSE]
    assert [kind for kind, _ in events] == kinds
    assert [type(payload) for _, payload in events] == [int, bytes, type(None), str, bytes, bytes, bytes, tuple]


@pytest.mark.parametrize("text", ["", "a", "é", "€" * 50, "😀" * 5000, "a" * 20_000, "a" * 999 + "é"])
def test_text_is_a_str_or_with_decode_text_off_checked_bytes(codec: Any, text: str) -> None:
    for side, key in ((client, None), (server, KEY)):
        frame = codec.build_frame(TEXT, text, mask_key=key)
        assert side(codec).feed(frame) == [(TEXT, text)]
        assert side(codec, decode_text=False).feed(frame) == [(TEXT, text.encode())]
        parser = side(codec)
        assert parser.feed(frame[:-1]) + parser.feed(frame[-1:]) == [(TEXT, text)]


def test_decode_text_off_still_refuses_what_is_not_utf_8(codec: Any) -> None:
    for payload in (b"\xff", b"\xc3"):
        parser = server(codec, decode_text=False)
        assert parser.feed(masked(codec, TEXT, payload)) == []
        assert type(parser.error) is InvalidData


def test_control_frames_come_between_the_fragments_of_a_message(codec: Any) -> None:
    stream = masked(codec, TEXT, b"Hel", fin=False) + masked(codec, PING, b"now") + masked(codec, CONT, b"", fin=False)
    stream += masked(codec, PONG) + masked(codec, CONT, b"lo")
    expected = [(PING, b"now"), (PONG, b""), (TEXT, "Hello")]
    assert server(codec).feed(stream) == expected
    parser = server(codec)
    assert [event for i in range(len(stream)) for event in parser.feed(stream[i : i + 1])] == expected


def test_any_contiguous_buffer_is_fed_and_none_is_kept(codec: Any) -> None:
    frame = masked(codec, BINARY, b"payload")
    for data in (bytearray(frame), memoryview(frame), memoryview(bytearray(frame))):
        assert server(codec).feed(data) == [(BINARY, b"payload")]
    for cut in (1, 5, 10):
        parser, data = server(codec), bytearray(frame[:cut])
        assert parser.feed(data) == []
        data[:] = bytes(cut)
        data.append(0)  # BufferError if the parser still looks at it
        assert parser.feed(frame[cut:]) == [(BINARY, b"payload")]


def test_a_fed_bytes_object_is_not_kept_even_by_an_error(codec: Any) -> None:
    for data in (masked(codec, BINARY, bytes(300))[:200], masked(codec, TEXT, b"\xff" * 300), bytes(300) + b"\xff"):
        parser = server(codec)
        before = sys.getrefcount(data)
        parser.feed(data)
        gc.collect()
        assert sys.getrefcount(data) == before


@pytest.mark.parametrize("data", ["text", 5, None], ids=lambda data: type(data).__name__)
def test_what_is_no_buffer_is_a_type_error_and_changes_nothing(codec: Any, data: Any) -> None:
    parser, frame = server(codec), masked(codec, BINARY, b"payload")
    parser.feed(frame[:8])
    with pytest.raises(TypeError, match=f"^a bytes-like object is required, not '{type(data).__name__}'$"):
        parser.feed(data)
    with pytest.raises(BufferError, match="not contiguous"):
        parser.feed(memoryview(frame)[::2])
    assert parser.feed(frame[8:]) == [(BINARY, b"payload")]


def test_an_empty_read_is_nothing(codec: Any) -> None:
    parser = server(codec)
    assert parser.feed(b"") == []
    assert not parser.mid_message


# --- the first byte -------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70])
@pytest.mark.parametrize("opcode", [TEXT, BINARY, PING, PONG, CLOSE])
def test_section_5_2_a_reserved_bit_is_a_protocol_error(codec: Any, opcode: int, bits: int) -> None:
    refused(server(codec), bytes([0x80 | bits | opcode]), ProtocolError, "reserved bits are set")


@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
def test_section_5_2_a_reserved_opcode_is_a_protocol_error(codec: Any, opcode: int) -> None:
    refused(server(codec), bytes([0x80 | opcode]), ProtocolError, f"reserved opcode {opcode}")


@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
def test_section_5_5_a_fragmented_control_frame_is_a_protocol_error(codec: Any, opcode: int) -> None:
    refused(server(codec), bytes([opcode]), ProtocolError, "protocol error: fragmented control frame")


@pytest.mark.parametrize("fin", [True, False])
def test_section_5_4_a_continuation_without_a_message_is_a_protocol_error(codec: Any, fin: bool) -> None:
    refused(server(codec), bytes([fin << 7]), ProtocolError, "continuation frame without a message")


def test_section_5_4_a_continuation_after_the_end_of_a_message_is_a_protocol_error(codec: Any) -> None:
    parser = server(codec)
    assert parser.feed(masked(codec, TEXT, b"a", fin=False) + masked(codec, CONT, b"b")) == [(TEXT, "ab")]
    refused(parser, b"\x80", ProtocolError, "continuation frame without a message")


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("fin", [True, False])
def test_section_5_4_a_new_message_inside_a_fragmented_one_is_a_protocol_error(
    codec: Any, opcode: int, fin: bool
) -> None:
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
def test_section_5_5_a_control_frame_beyond_125_bytes_is_refused_by_its_7_bit_length(
    codec: Any, opcode: int, length: int
) -> None:
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
def test_section_5_2_a_16_bit_length_below_126_is_not_the_shortest_form(codec: Any, length: int) -> None:
    refused(server(codec), b"\x82\xfe" + length.to_bytes(2, "big"), ProtocolError, "not in its shortest form")


@pytest.mark.parametrize("length", [0, 1, 125, 126, 65535])
def test_section_5_2_a_64_bit_length_below_65536_is_not_the_shortest_form(codec: Any, length: int) -> None:
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
def test_row_4_and_section_8_point_13_a_huge_length_is_refused_when_the_header_is_read(
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
def test_row_5_a_header_that_claims_a_tebibyte_takes_no_memory(codec: Any, opcode: int) -> None:
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


def test_a_message_too_big_is_refused_before_its_mask_and_payload_arrive(codec: Any) -> None:
    for length, header in (
        (101, b"\x82\xe5"),
        (126, b"\x82\xfe\x00\x7e"),
        (65536, b"\x82\xff" + bytes(5) + b"\x01\0\0"),
    ):
        text = f"payload too large: a frame of {length} bytes, after 0 of the same message, is beyond the limit of 100"
        refused(server(codec, max_size=100), header, PayloadTooBig, text)


def test_the_bytes_of_earlier_frames_count_and_those_of_earlier_messages_do_not(codec: Any) -> None:
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
def test_row_8_a_flood_of_tiny_fragments_ends_at_max_frames_and_takes_no_memory(codec: Any, size: int) -> None:
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
def test_a_limit_that_is_no_limit_is_refused_with_what_would_be_right(codec: Any, name: str) -> None:
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


# --- close frames ---------------------------------------------------------------------------------


def test_section_7_4_and_section_8_point_8_every_close_code_from_999_to_5000(codec: Any) -> None:
    for code in [*range(999, 5001), 0, 1, 65535]:
        parser = server(codec)
        events = parser.feed(masked(codec, CLOSE, code.to_bytes(2, "big") + b"why"))
        valid = 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999
        assert valid == is_valid_close_code(code)
        if valid:
            assert events == [(CLOSE, (code, "why"))]
            assert parser.error is None
        else:
            assert events == []
            assert f"close code {code} may not be sent" in str(parser.error)
            assert parser.error.close_code == 1002


def test_section_7_1_5_a_close_frame_without_payload_says_1005(codec: Any) -> None:
    assert server(codec).feed(masked(codec, CLOSE)) == [(CLOSE, (1005, ""))]


def test_section_5_5_1_a_close_payload_of_one_byte_is_a_protocol_error(codec: Any) -> None:
    refused(server(codec), masked(codec, CLOSE, b"\x03"), ProtocolError, "close frame with a payload of one byte")


@pytest.mark.parametrize("reason", [b"\xff", b"\xc3", b"ok\xed\xa0\x80", b"\xc0\x80"])
def test_row_23_a_close_reason_that_is_not_utf_8_is_1007(codec: Any, reason: bytes) -> None:
    parser = server(codec)
    refused(parser, masked(codec, CLOSE, b"\x03\xe8" + reason), InvalidData, "the reason of a close frame")
    assert parser.error.close_code == 1007


@pytest.mark.parametrize("reason", ["x" * 123, "é" * 61, "😀" * 30])
def test_row_25_a_close_reason_of_any_length_comes_exactly(codec: Any, reason: str) -> None:
    frame = masked(codec, CLOSE, b"\x0f\xa0" + reason.encode())
    assert server(codec).feed(frame) == [(CLOSE, (4000, reason))]
    parser = server(codec)
    assert [event for i in range(len(frame)) for event in parser.feed(frame[i : i + 1])] == [(CLOSE, (4000, reason))]


def test_section_5_5_1_nothing_is_read_after_a_close_frame(codec: Any) -> None:
    parser = server(codec)
    stream = masked(codec, TEXT, b"a") + masked(codec, CLOSE, b"\x03\xe8") + masked(codec, TEXT, b"b") + b"\xff\xff"
    assert parser.feed(stream) == [(TEXT, "a"), (CLOSE, (1000, ""))]
    assert parser.feed(masked(codec, TEXT, b"c")) == []
    assert (parser.error, parser.mid_message, parser.buffered) == (None, False, 0)


def test_section_8_point_1_a_message_cut_by_a_close_frame_is_still_known_to_be_cut(codec: Any) -> None:
    parser = server(codec)
    assert parser.feed(masked(codec, TEXT, b"half", fin=False) + masked(codec, CLOSE)) == [(CLOSE, (1005, ""))]
    assert (parser.mid_message, parser.buffered) == (True, 0)


# --- faults in general ----------------------------------------------------------------------------


def test_row_22_what_came_before_a_fault_is_delivered_and_nothing_after_it(codec: Any) -> None:
    parser = server(codec)
    stream = masked(codec, TEXT, b"a") + masked(codec, PING) + b"\x83\x80" + KEY + masked(codec, TEXT, b"b")
    assert parser.feed(stream) == [(TEXT, "a"), (PING, b"")]
    error = parser.error
    assert str(error) == "protocol error: reserved opcode 3 (RFC 6455 section 5.2)"
    assert parser.feed(masked(codec, TEXT, b"c")) == []
    assert parser.error is error


def test_a_fault_drops_what_was_held_of_the_message(codec: Any) -> None:
    parser = server(codec)
    parser.feed(masked(codec, BINARY, bytes(100_000), fin=False))
    assert parser.buffered == 100_000
    refused(parser, b"\x83", ProtocolError, "reserved opcode 3")


def test_of_two_faults_the_one_in_the_earlier_byte_is_told(codec: Any) -> None:
    for stream, text in (
        (b"\xf3\x00", "reserved bits"),  # and a reserved opcode, unmasked
        (b"\x83\x00", "reserved opcode"),  # unmasked
        (b"\x09\x00", "fragmented control frame"),  # unmasked
        (b"\x80\x00", "continuation frame without"),  # unmasked
        (b"\x89\x7e", "unmasked client frame"),  # too large
        (b"\x82\x7e\x00\x00", "unmasked client frame"),  # length not minimal
        (b"\x82\xfe\x00\x7d", "not in its shortest form"),  # too big
    ):
        for piece in (1, len(stream)):
            parser = server(codec, max_size=1)
            for i in range(0, len(stream), piece):
                parser.feed(stream[i : i + piece])
            assert text in str(parser.error)


# --- RSV1 (RFC 7692) ------------------------------------------------------------------------------


def test_rfc_7692_a_compressed_message_is_marked_and_its_bytes_are_not_checked(codec: Any) -> None:
    parser = server(codec, allow_rsv1=True)
    stream = masked(codec, TEXT, b"\xff\x00", rsv1=True) + masked(codec, BINARY, b"\xfe", rsv1=True)
    stream += masked(codec, TEXT, b"\xff", rsv1=True, fin=False) + masked(codec, PING) + masked(codec, CONT, b"\xc3")
    stream += masked(codec, TEXT, b"plain")
    assert parser.feed(stream) == [
        (TEXT | COMPRESSED, b"\xff\x00"),
        (BINARY | COMPRESSED, b"\xfe"),
        (PING, b""),
        (TEXT | COMPRESSED, b"\xff\xc3"),
        (TEXT, "plain"),
    ]


@pytest.mark.parametrize("opcode", [CONT, PING, PONG, CLOSE])
def test_rfc_7692_rsv1_on_a_frame_that_begins_no_message_is_a_protocol_error(codec: Any, opcode: int) -> None:
    parser = server(codec, allow_rsv1=True)
    parser.feed(masked(codec, TEXT, b"a", rsv1=True, fin=False))
    refused(parser, bytes([0xC0 | opcode]), ProtocolError, "RSV1 is set on a frame that does not begin a message")


@pytest.mark.parametrize("bits", [0x10, 0x20, 0x30, 0x50, 0x60, 0x70])
def test_rfc_7692_allows_no_other_reserved_bit(codec: Any, bits: int) -> None:
    refused(server(codec, allow_rsv1=True), bytes([0x81 | bits]), ProtocolError, "reserved bits are set")


# --- state between reads --------------------------------------------------------------------------


def test_buffered_and_mid_message_follow_a_message_through_its_frames(codec: Any) -> None:
    parser = server(codec)
    seen = []
    for data in (
        b"\x02",  # a header, begun
        b"\x85" + KEY,  # its rest: five bytes of payload are to come
        codec.mask(b"abc", KEY),
        codec.mask(b"de", KEY, 3),  # the first frame is complete
        b"\x89\x82" + KEY + codec.mask(b"p", KEY),  # a ping, begun
        codec.mask(b"q", KEY, 1),
        b"\x80\x80" + KEY[:3],
        KEY[3:],
    ):
        events = parser.feed(data)
        seen.append((events, parser.buffered, parser.mid_message))
    assert seen == [
        ([], 1, True),
        ([], 0, True),
        ([], 3, True),
        ([], 5, True),
        ([], 6, True),
        ([(PING, b"pq")], 5, True),
        ([], 10, True),
        ([(BINARY, b"abcde")], 0, False),
    ]


def test_row_9_memory_of_open_fragments_follows_the_bytes_received(codec: Any) -> None:
    parser = server(codec, max_size=limits.READ_LIMIT)
    parts = [codec.build_header(CONT if i else BINARY, 10_000, fin=False, mask_key=KEY) for i in range(200)]
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for header in parts:
            parser.feed(header + bytes(10_000))
            held = tracemalloc.get_traced_memory()[1] - before
            assert held <= 2 * (parser.buffered + 10_000) + 64 * KiB
    finally:
        tracemalloc.stop()
    assert parser.buffered == 2_000_000


def test_row_9_what_a_header_announces_is_reserved_only_where_much_has_come(codec: Any) -> None:
    parser = server(codec, max_size=limits.READ_LIMIT)
    parser.feed(codec.build_header(BINARY, limits.READ_LIMIT, mask_key=KEY))
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(200):
            parser.feed(bytes(10_000))
            reserved = tracemalloc.get_traced_memory()[1] - before
            assert reserved <= min(17 * parser.buffered, limits.READ_LIMIT) + 64 * KiB
            if parser.buffered < 32 * KiB:
                assert reserved <= 2 * (parser.buffered + 10_000) + 64 * KiB
    finally:
        tracemalloc.stop()
    assert parser.buffered == 2_000_000


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc here to tell what is resident")
@pytest.mark.skipif("ASAN_OPTIONS" in os.environ, reason="the sanitizer keeps back what was freed")
def test_row_9_resident_memory_follows_the_bytes_received_whatever_a_header_declares(codec: Any) -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE

    header, piece = codec.build_header(BINARY, limits.READ_LIMIT, mask_key=KEY), bytes(64 * KiB)
    parsers = [server(codec, max_size=limits.READ_LIMIT) for _ in range(100)]
    before = resident()
    for parser in parsers:
        parser.feed(header)
        parser.feed(piece)
    assert resident() - before <= len(parsers) * (2 * len(piece) + 64 * KiB)


def test_row_9_a_frame_one_byte_a_read_costs_linear_time(codec: Any) -> None:
    def seconds(size: int) -> float:
        parser = server(codec)
        parser.feed(codec.build_header(TEXT, size, mask_key=bytes(4)))
        began = time.process_time()
        for _ in range(size - 1):
            parser.feed(b"a")
        spent = time.process_time() - began
        assert parser.feed(b"a") == [(TEXT, "a" * size)]
        return spent

    small = large = math.inf
    for _ in range(10):  # the machine is not ours alone: the best of some
        small = min(small, *(seconds(10_000) for _ in range(3)))
        large = min(large, seconds(80_000))
        if large < 2.5 * 8 * small:
            break
    assert large < 2.5 * 8 * small  # quadratic: 64 times


def test_a_connection_between_messages_holds_no_buffer(codec: Any) -> None:
    parser = server(codec)
    big = masked(codec, BINARY, bytes(limits.MiB))
    parser.feed(big[: limits.MiB // 2])
    assert len(parser.feed(big[limits.MiB // 2 :])) == 1
    held = []
    for _ in range(3):  # what is counted is not ours alone: the least of some
        tracemalloc.start()
        try:
            parser.feed(big[: limits.MiB // 2])
            parser.feed(big[limits.MiB // 2 :])
            held.append(tracemalloc.get_traced_memory()[0])
        finally:
            tracemalloc.stop()
    assert min(held) < 4 * KiB


# --- streaming ------------------------------------------------------------------------------------


def test_a_streamed_message_comes_as_its_bytes_arrive_inside_a_frame(codec: Any) -> None:
    parser = server(codec)
    assert not parser.streaming
    assert parser.start_streaming() == []
    assert parser.streaming
    frame = masked(codec, BINARY, b"abcdef")
    assert parser.feed(frame[:3]) == []
    assert parser.feed(frame[3:6]) == [(BEGIN, BINARY)]
    assert parser.feed(frame[6:8]) == [(CHUNK, b"ab")]
    assert parser.buffered == 0
    assert parser.feed(frame[8:] + masked(codec, BINARY, b"whole")) == [
        (CHUNK, b"cdef"),
        (END, None),
        (BINARY, b"whole"),
    ]
    assert not parser.streaming


def test_a_streamed_message_spans_frames_with_control_frames_in_between(codec: Any) -> None:
    parser = server(codec)
    parser.start_streaming()
    stream = masked(codec, TEXT, b"ab", fin=False) + masked(codec, PING) + masked(codec, CONT, b"", fin=False)
    stream += masked(codec, CONT, b"c", fin=False) + masked(codec, PONG, b"x") + masked(codec, CONT, b"")
    assert parser.feed(stream) == [
        (BEGIN, TEXT),
        (CHUNK, b"ab"),
        (PING, b""),
        (CHUNK, b"c"),
        (PONG, b"x"),
        (END, None),
    ]


def test_an_empty_streamed_message_has_no_chunk(codec: Any) -> None:
    parser = server(codec)
    parser.start_streaming()
    assert parser.feed(masked(codec, TEXT)) == [(BEGIN, TEXT), (END, None)]


def test_streaming_started_in_mid_message_tells_what_was_collected(codec: Any) -> None:
    parser = server(codec)
    frame = masked(codec, BINARY, b"abcdef")
    parser.feed(frame[:9])
    assert parser.start_streaming() == [(BEGIN, BINARY), (CHUNK, b"abc")]
    assert parser.buffered == 0
    assert parser.feed(frame[9:]) == [(CHUNK, b"def"), (END, None)]

    parser.feed(masked(codec, TEXT, b"ab", fin=False) + masked(codec, CONT, b"cd", fin=False))
    assert parser.start_streaming() == [(BEGIN, TEXT), (CHUNK, b"abcd")]
    assert parser.feed(masked(codec, CONT, b"e")) == [(CHUNK, b"e"), (END, None)]


def test_streaming_started_after_a_header_but_before_any_payload_begins_at_once(codec: Any) -> None:
    parser = server(codec)
    parser.feed(masked(codec, TEXT, b"a")[:6])
    assert parser.start_streaming() == [(BEGIN, TEXT)]


def test_half_a_header_is_nothing_of_a_message_yet(codec: Any) -> None:
    parser = server(codec)
    frame = masked(codec, TEXT, b"a")
    parser.feed(frame[:5])
    assert parser.start_streaming() == []
    assert parser.feed(frame[5:]) == [(BEGIN, TEXT), (CHUNK, b"a"), (END, None)]


def test_a_control_frame_that_is_arriving_is_nothing_of_a_message(codec: Any) -> None:
    parser = server(codec)
    frame = masked(codec, PING, b"abc")
    parser.feed(frame[:8])
    assert parser.start_streaming() == []
    assert parser.feed(frame[8:]) == [(PING, b"abc")]
    assert parser.streaming


def test_streaming_twice_without_an_end_is_a_value_error(codec: Any) -> None:
    parser = server(codec)
    parser.start_streaming()
    with pytest.raises(ValueError, match=r"^streaming was started already"):
        parser.start_streaming()
    parser.feed(masked(codec, TEXT, b"a", fin=False))
    with pytest.raises(ValueError, match=r"^streaming was started already"):
        parser.start_streaming()
    assert parser.feed(masked(codec, CONT)) == [(END, None)]
    assert parser.start_streaming() == []


def test_stop_streaming_is_in_time_until_begin_was_told(codec: Any) -> None:
    parser = server(codec)
    assert parser.stop_streaming() is True
    parser.start_streaming()
    assert parser.stop_streaming() is True
    assert not parser.streaming
    assert parser.feed(masked(codec, TEXT, b"whole")) == [(TEXT, "whole")]
    parser.start_streaming()
    parser.feed(masked(codec, TEXT, b"a", fin=False))
    assert parser.stop_streaming() is False
    assert parser.feed(masked(codec, CONT, b"b")) == [(CHUNK, b"b"), (END, None)]
    assert parser.stop_streaming() is True


def test_a_streamed_text_is_checked_and_its_good_bytes_come_before_the_fault(codec: Any) -> None:
    parser = server(codec)
    parser.start_streaming()
    assert parser.feed(masked(codec, TEXT, "aé".encode() + b"\xed\xa0\x80rest")) == [
        (BEGIN, TEXT),
        (CHUNK, "aé".encode() + b"\xed"),
    ]
    assert type(parser.error) is InvalidData
    assert parser.streaming


def test_a_chunk_of_text_may_end_inside_a_character_but_the_message_may_not(codec: Any) -> None:
    parser = server(codec)
    parser.start_streaming()
    assert parser.feed(masked(codec, TEXT, b"\xe2", fin=False)) == [(BEGIN, TEXT), (CHUNK, b"\xe2")]
    assert parser.feed(masked(codec, CONT, b"\x82")) == [(CHUNK, b"\x82")]
    assert "ends inside a character" in str(parser.error)


def test_a_character_begun_before_start_streaming_ends_after_it(codec: Any) -> None:
    parser = server(codec)
    parser.feed(masked(codec, TEXT, b"\xe2\x82", fin=False))
    assert parser.start_streaming() == [(BEGIN, TEXT), (CHUNK, b"\xe2\x82")]
    assert parser.feed(masked(codec, CONT, b"\xac")) == [(CHUNK, b"\xac"), (END, None)]


def test_the_limits_hold_for_a_streamed_message_as_a_whole(codec: Any) -> None:
    parser = server(codec, max_size=10, max_frames=3)
    parser.start_streaming()
    parser.feed(masked(codec, BINARY, bytes(8), fin=False))
    refused(parser, b"\x80\x83", PayloadTooBig, "a frame of 3 bytes, after 8")
    parser = server(codec, max_size=10, max_frames=3)
    parser.start_streaming()
    parser.feed(masked(codec, BINARY, bytes(1), fin=False) + masked(codec, CONT, bytes(1), fin=False) * 2)
    refused(parser, b"\x80", TooManyFragments, "more than 3 frames")


def test_section_8_point_12_a_streamed_message_takes_no_memory_of_its_own(codec: Any) -> None:
    parser = server(codec)
    parser.start_streaming()
    parser.feed(codec.build_header(BINARY, 2**40, mask_key=KEY))
    piece = bytes(64 * KiB)
    tracemalloc.start()
    try:
        for _ in range(50):
            ((kind, chunk),) = parser.feed(piece)
            assert (kind, len(chunk)) == (CHUNK, len(piece))
        assert tracemalloc.get_traced_memory()[1] < 4 * len(piece)
    finally:
        tracemalloc.stop()


def test_rfc_7692_a_compressed_message_is_streamed_under_its_mark(codec: Any) -> None:
    parser = server(codec, allow_rsv1=True)
    parser.start_streaming()
    assert parser.feed(masked(codec, TEXT, b"\xff", rsv1=True)) == [
        (BEGIN, TEXT | COMPRESSED),
        (CHUNK, b"\xff"),
        (END, None),
    ]
    parser.feed(masked(codec, BINARY, b"\xff", rsv1=True, fin=False))
    assert parser.start_streaming() == [(BEGIN, BINARY | COMPRESSED), (CHUNK, b"\xff")]


def test_a_stream_cut_by_a_close_frame_has_no_end(codec: Any) -> None:
    parser = server(codec)
    parser.start_streaming()
    stream = masked(codec, BINARY, b"a", fin=False) + masked(codec, CLOSE)
    assert parser.feed(stream) == [(BEGIN, BINARY), (CHUNK, b"a"), (CLOSE, (1005, ""))]
    assert parser.mid_message
    assert parser.stop_streaming() is False


def test_after_the_end_of_the_connection_there_is_nothing_to_stream(codec: Any) -> None:
    parser = server(codec)
    parser.feed(masked(codec, BINARY, b"a", fin=False) + masked(codec, CLOSE))
    assert parser.start_streaming() == []
    assert parser.feed(masked(codec, CONT, b"b")) == []
