"""Messages that the parser delivers while they arrive, on both bodies."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest

from plumews.constants import COMPRESSED
from plumews.errors import InvalidData, PayloadTooBig, TooManyFragments
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
    KiB,
    masked,
    refused,
    server,
)

pytestmark = on_both_bodies


# --- streaming ------------------------------------------------------------------------------------


def test_streamed_message_is_delivered_inside_a_frame(codec: Any) -> None:
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


def test_streamed_message_spans_frames_and_control_frames(codec: Any) -> None:
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


def test_streaming_inside_a_message_delivers_collected_bytes(codec: Any) -> None:
    parser = server(codec)
    frame = masked(codec, BINARY, b"abcdef")
    parser.feed(frame[:9])
    assert parser.start_streaming() == [(BEGIN, BINARY), (CHUNK, b"abc")]
    assert parser.buffered == 0
    assert parser.feed(frame[9:]) == [(CHUNK, b"def"), (END, None)]

    parser.feed(masked(codec, TEXT, b"ab", fin=False) + masked(codec, CONT, b"cd", fin=False))
    assert parser.start_streaming() == [(BEGIN, TEXT), (CHUNK, b"abcd")]
    assert parser.feed(masked(codec, CONT, b"e")) == [(CHUNK, b"e"), (END, None)]


def test_streaming_after_a_header_begins_at_once(codec: Any) -> None:
    parser = server(codec)
    parser.feed(masked(codec, TEXT, b"a")[:6])
    assert parser.start_streaming() == [(BEGIN, TEXT)]


def test_half_a_header_is_nothing_of_a_message_yet(codec: Any) -> None:
    parser = server(codec)
    frame = masked(codec, TEXT, b"a")
    parser.feed(frame[:5])
    assert parser.start_streaming() == []
    assert parser.feed(frame[5:]) == [(BEGIN, TEXT), (CHUNK, b"a"), (END, None)]


def test_arriving_control_frame_is_no_part_of_a_message(codec: Any) -> None:
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


def test_streamed_text_delivers_valid_bytes_before_a_violation(codec: Any) -> None:
    parser = server(codec)
    parser.start_streaming()
    assert parser.feed(masked(codec, TEXT, "aé".encode() + b"\xed\xa0\x80rest")) == [
        (BEGIN, TEXT),
        (CHUNK, "aé".encode() + b"\xed"),
    ]
    assert type(parser.error) is InvalidData
    assert parser.streaming


def test_chunk_may_end_inside_a_character_and_message_may_not(codec: Any) -> None:
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


def test_section_8_point_12_streamed_message_takes_no_memory(codec: Any) -> None:
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


def test_rfc_7692_compressed_message_is_streamed_with_its_mark(codec: Any) -> None:
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


def test_streaming_after_the_end_delivers_nothing(codec: Any) -> None:
    parser = server(codec)
    parser.feed(masked(codec, BINARY, b"a", fin=False) + masked(codec, CLOSE))
    assert parser.start_streaming() == []
    assert parser.feed(masked(codec, CONT, b"b")) == []
