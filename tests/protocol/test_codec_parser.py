"""Events of the parser: messages, close frames, violations, compressed messages, on both bodies."""

from __future__ import annotations

import gc
import sys
from typing import Any

import pytest

from plumews.constants import COMPRESSED, is_valid_close_code
from plumews.errors import InvalidData, ProtocolError
from support.codec_bodies import on_both_bodies
from support.codec_parsers import (
    BEGIN,
    BINARY,
    CHUNK,
    CLOSE,
    CONT,
    END,
    KEY,
    PING,
    PONG,
    TEXT,
    client,
    masked,
    refused,
    server,
)

pytestmark = on_both_bodies


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


def test_event_kinds_are_ints_and_payloads_bytes_or_str(codec: Any) -> None:
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


# --- close frames ---------------------------------------------------------------------------------


def test_section_7_4_section_8_point_8_every_close_code(codec: Any) -> None:
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


def test_section_5_5_1_close_payload_of_one_byte_is_an_error(codec: Any) -> None:
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


def test_section_8_point_1_close_frame_cuts_a_message(codec: Any) -> None:
    parser = server(codec)
    assert parser.feed(masked(codec, TEXT, b"half", fin=False) + masked(codec, CLOSE)) == [(CLOSE, (1005, ""))]
    assert (parser.mid_message, parser.buffered) == (True, 0)


# --- faults in general ----------------------------------------------------------------------------


def test_row_22_only_events_before_a_violation_are_delivered(codec: Any) -> None:
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


def test_rfc_7692_compressed_message_is_marked_and_not_checked(codec: Any) -> None:
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
def test_rfc_7692_rsv1_inside_a_message_is_a_protocol_error(codec: Any, opcode: int) -> None:
    parser = server(codec, allow_rsv1=True)
    parser.feed(masked(codec, TEXT, b"a", rsv1=True, fin=False))
    refused(parser, bytes([0xC0 | opcode]), ProtocolError, "RSV1 is set on a frame that does not begin a message")


@pytest.mark.parametrize("bits", [0x10, 0x20, 0x30, 0x50, 0x60, 0x70])
def test_rfc_7692_allows_no_other_reserved_bit(codec: Any, bits: int) -> None:
    refused(server(codec, allow_rsv1=True), bytes([0x81 | bits]), ProtocolError, "reserved bits are set")
