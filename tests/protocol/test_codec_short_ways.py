"""_codec.pxd: what compiled short ways call. They read and write what the general way does, or leave all to it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plumews.constants import Opcode
from support.codec_bodies import PURE_ONLY
from support.codec_bodies import Body as CodecBody

pytestmark = pytest.mark.skipif(PURE_ONLY, reason="nothing is compiled here")

codec: Any = CodecBody("c")
KEY = bytes.fromhex("37fa213d")
CONT, TEXT, BINARY, CLOSE, PING, PONG = map(int, Opcode)

SIZES = [0, 1, 3, 8, 31, 32, 64, 65, 124, 125, 126, 127, 1000, 0xFFFF, 0x10000, 0x10001, 300_000]
#: Text of one, two, three and four bytes a character.
LETTERS = ["a", "\xe9", "\u6211", "\U0001f600"]


def masked(opcode: int, payload: Any, **options: Any) -> bytes:
    frame: bytes = codec.build_frame(opcode, payload, mask_key=KEY, **options)
    return frame


def server(**options: Any) -> Any:
    return codec.Parser(**{"client": False, "max_size": None, **options})


def state(parser: Any) -> tuple[Any, ...]:
    """Return what a caller can see of a parser."""
    fault = parser.error and (type(parser.error), str(parser.error), parser.error.close_code)
    return fault, parser.halted, parser.left, parser.buffered, parser.mid_message, parser.streaming


def taken(parser: Any, data: bytes) -> list[Any]:
    """Return the messages that are taken from the beginning of ``data``, then those of the general way."""
    messages = []
    while True:
        before = state(parser)
        message, kind, used = codec._take_message(parser, data)
        assert state(parser) == before
        if not used:
            assert (message, kind) == (None, 0)
            return [*messages, *parser.feed_messages(data)]
        assert (type(message), kind) in ((str, TEXT), (bytes, BINARY))
        messages.append(message)
        data = data[used:]


def refused(parser: Any, data: bytes) -> None:
    """Check that nothing is taken."""
    before = state(parser)
    assert codec._take_message(parser, data) == (None, 0, 0)
    assert state(parser) == before


# --- take_message ---------------------------------------------------------------------------------


@pytest.mark.parametrize("client", [False, True], ids=["server", "client"])
@pytest.mark.parametrize("size", SIZES)
def test_a_plain_message_of_any_size_is_taken(size: int, client: bool) -> None:
    messages = [(BINARY, bytes(size)), *((TEXT, letter * size) for letter in LETTERS)]
    for opcode, message in messages:
        frame = codec.build_frame(opcode, message, masked=not client)
        assert codec._take_message(server(client=client), frame + b"\x81more") == (message, opcode, len(frame))


def test_messages_are_taken_one_by_one() -> None:
    parser = server()
    data = masked(TEXT, "one") + masked(BINARY, b"two") + masked(PING, b"?") + masked(TEXT, "three")
    assert taken(parser, data) == ["one", b"two", (PING, b"?"), "three"]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        masked(TEXT, "text", fin=False),
        masked(CONT, b"rest"),
        masked(PING, b"?"),
        masked(PONG, b""),
        masked(CLOSE, b"\x03\xe8"),
        masked(TEXT, b"deflated", rsv1=True),
        b"\xa1" + masked(TEXT, "reserved bit")[1:],
        masked(3, b"reserved opcode"),
        codec.build_frame(TEXT, "not masked") if not PURE_ONLY else b"",
        b"\x81\xfe\0\x05" + KEY + b"short",
        b"\x82\xff" + bytes(6) + b"\xff\xff" + KEY + bytes(0x20000),
        b"\x82\xff\x80" + bytes(7) + KEY + bytes(0x20000),
        masked(TEXT, b"bad \xff"),
        masked(TEXT, b"cut \xe2\x82"),
        masked(TEXT, b"surrogate \xed\xa0\x80" + b"x" * 200),
    ]
    if not PURE_ONLY
    else [],
)
def test_whatever_else_is_left_to_the_general_way(data: bytes) -> None:
    for options in ({}, {"allow_rsv1": True}):
        parser, other = server(**options), server(**options)
        refused(parser, data)
        assert (parser.feed(data), state(parser)) == (other.feed(data), state(other))


@pytest.mark.parametrize("size", [0, 5, 125, 126, 0xFFFF, 0x10000])
def test_an_incomplete_message_is_left_at_every_byte(size: int) -> None:
    frame = masked(BINARY, bytes(size))
    for end in (*range(min(len(frame), 20)), len(frame) - 1):
        refused(server(), frame[:end])


def test_nothing_is_taken_inside_a_frame_or_message() -> None:
    frame = masked(TEXT, "text")
    for begin in (frame[:1], frame[:5], frame[:-1], masked(TEXT, "a", fin=False), masked(PING, b"?")[:-1]):
        parser = server()
        parser.feed(begin)
        refused(parser, frame)


def test_nothing_is_taken_for_a_stream() -> None:
    parser = server()
    parser.start_streaming()
    refused(parser, masked(TEXT, "text"))


def test_nothing_is_taken_after_the_end() -> None:
    frame = masked(TEXT, "text")
    for last in (masked(CLOSE, b""), masked(3, b"")):
        parser = server()
        parser.feed(last)
        refused(parser, frame)
    parser = server()
    parser.stop()
    refused(parser, frame)


def test_nothing_is_taken_while_bytes_are_left() -> None:
    parser = server(slack=1)
    frame = masked(TEXT, "text")
    assert parser.feed_messages(frame * 2) == ["text"]
    refused(parser, frame)
    assert parser.feed_messages(frame) == ["text"]
    assert codec._take_message(parser, frame)[0] == "text"


def test_nothing_is_taken_where_text_is_not_decoded() -> None:
    refused(server(decode_text=False), masked(TEXT, "text"))


@pytest.mark.parametrize("size", [0, 5, 125, 126, 70_000])
def test_max_size_holds_for_what_is_taken(size: int) -> None:
    frame = masked(BINARY, bytes(size))
    assert codec._take_message(server(max_size=size), frame)[0] == bytes(size)
    if size:
        refused(server(max_size=size - 1), frame)


payloads = st.sampled_from(["", "a", "text " * 30, "a\xe9\u20ac\U0001f600", "\xe9" * 40, "x" * 70_000]) | st.text(
    max_size=40
)
pieces = st.one_of(
    st.builds(masked, st.sampled_from([TEXT, BINARY]), payloads.map(str.encode)),
    st.builds(
        masked,
        st.sampled_from([CONT, TEXT, BINARY, PING, CLOSE, 3]),
        st.binary(max_size=10),
        fin=st.booleans(),
        rsv1=st.booleans(),
    ),
    st.binary(max_size=3),
)


@settings(max_examples=300, deadline=None, database=None)
@given(st.lists(pieces, min_size=1, max_size=5).map(b"".join), st.data())
def test_both_ways_read_the_same_at_every_split(stream: bytes, data: st.DataObject) -> None:
    options = {
        "max_size": data.draw(st.sampled_from([None, 30, 70_000])),
        "decode_text": data.draw(st.sampled_from([True, True, False])),
        "allow_rsv1": data.draw(st.booleans()),
    }
    short = len(stream) < 300
    cuts = range(len(stream)) if short else data.draw(st.lists(st.integers(0, len(stream)), max_size=3))
    for cut in cuts:
        parser, other = server(**options), server(**options)
        for part in (stream[:cut], stream[cut:]):
            assert taken(parser, part) == other.feed_messages(part)
            assert state(parser) == state(other)


# --- short_frame and write_frame ------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_a_frame_is_that_of_build_frame(size: int) -> None:
    messages = [(BINARY, bytes(size)), *((TEXT, letter * size) for letter in LETTERS)]
    for opcode, message in [*messages, (BINARY, bytearray(size)), (BINARY, memoryview(bytes(size)))]:
        expected = codec.build_frame(opcode, message)
        assert codec._short_frame(opcode, message) == expected
        frame = codec._short_frame(opcode, message, True)
        assert codec.Parser(client=False, max_size=None, decode_text=False).feed(frame) == codec.Parser(
            client=True, max_size=None, decode_text=False
        ).feed(expected)


def test_messages_that_no_frame_can_hold_are_refused_alike() -> None:
    for message in ("\ud800", "text \udfff", 5, None, [b"a"], memoryview(bytes(8))[::2]):
        with pytest.raises((UnicodeEncodeError, TypeError, BufferError)) as expected:
            codec.build_frame(TEXT, message)
        with pytest.raises(expected.type) as raised:
            codec._short_frame(TEXT, message)
        assert str(raised.value) == str(expected.value)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mask", [False, True], ids=["unmasked", "masked"])
def test_a_frame_is_written_where_it_fits(size: int, mask: bool) -> None:
    for opcode, message in ((TEXT, "a" * size), (BINARY, b"b" * size)):
        length = len(codec._short_frame(opcode, message, mask))
        for room in (length, length + 1):
            used, memory = codec._write_frame(room, opcode, message, mask)
            assert (used, memory[used:]) == (length, bytes(room - length + 16))
            assert codec.Parser(client=not mask, max_size=None).feed(memory[:used]) == [(opcode, message)]
        assert codec._write_frame(length - 1, opcode, message, mask) == (-1, bytes(length + 15))


def test_write_frame_leaves_other_messages_to_short_frame() -> None:
    for message in ("\xe9", "\ud800", bytearray(b"bytes"), memoryview(b"bytes"), 5):
        assert codec._write_frame(100, BINARY, message) == (-1, bytes(116))
