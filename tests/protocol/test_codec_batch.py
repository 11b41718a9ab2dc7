"""plumews.codec: many messages in one call, out (build_batch) and in (feed_messages), and mask keys, on both bodies."""

from __future__ import annotations

import array
import itertools
import os
import threading
from typing import Any

import pytest

from plumews.constants import COMPRESSED, Opcode
from plumews.limits import COPY_SIZE, RECEIVED_OVERHEAD
from support.codec_bodies import on_both_bodies

pytestmark = on_both_bodies

KEY = bytes.fromhex("37fa213d")
CONT, TEXT, BINARY, CLOSE, PING, PONG = map(int, Opcode)


def parsed(codec: Any, buffers: list[Any], *, client: bool) -> list[Any]:
    """Return the events of a parser for ``buffers``: complete, and without a violation."""
    parser = codec.Parser(client=client, max_size=None)
    events = parser.feed(b"".join(buffers))
    assert (parser.error, parser.mid_message) == (None, False)
    return events


# --- build_batch ----------------------------------------------------------------------------------


@pytest.mark.parametrize("masked", [False, True])
def test_a_batch_is_the_frames_of_its_messages_in_order(codec: Any, masked: bool) -> None:
    messages = [(TEXT, "hello"), (BINARY, b""), (TEXT, "é" * 200), (PING, b"?"), (BINARY, bytearray(b"x" * 70_000))]
    messages += [(BINARY, memoryview(b"abcd").cast("I")), (TEXT, ""), (TEXT, "z" * 20_000), (PONG, b"!")]
    expected = [(TEXT, "hello"), (BINARY, b""), (TEXT, "é" * 200), (PING, b"?"), (BINARY, b"x" * 70_000)]
    expected += [(BINARY, b"abcd"), (TEXT, ""), (TEXT, "z" * 20_000), (PONG, b"!")]
    buffers = codec.build_batch(messages, masked=masked)
    assert parsed(codec, buffers, client=not masked) == expected
    if not masked:
        assert b"".join(buffers) == b"".join(codec.build_frame(opcode, payload) for opcode, payload in messages)


def test_small_messages_are_one_bytes_object(codec: Any) -> None:
    buffers = codec.build_batch([(TEXT, "a"), (BINARY, bytes(COPY_SIZE)), (CLOSE, b"\x03\xe8")])
    assert [type(buffer) for buffer in buffers] == [bytes]
    assert codec.build_batch([]) == []
    assert codec.build_batch([(BINARY, b"")]) == [b"\x82\0"]


def test_large_payload_follows_its_header_without_a_copy(codec: Any) -> None:
    large = bytes(COPY_SIZE + 1)
    text = "a" * (COPY_SIZE + 1)
    buffers = codec.build_batch([(TEXT, "a"), (BINARY, large), (BINARY, large), (TEXT, text), (TEXT, "b")])
    assert buffers[0] == b"\x81\x01a" + codec.build_header(BINARY, len(large))
    assert buffers[1] is buffers[3] is large
    assert buffers[2] == codec.build_header(BINARY, len(large))
    assert (type(buffers[5]), buffers[5]) == (memoryview, text.encode())
    assert buffers[6] == b"\x81\x01b"
    assert len(buffers) == 7


def test_mutable_payload_is_copied(codec: Any) -> None:
    for size in (10, COPY_SIZE + 1):
        payload = bytearray(size)
        buffers = codec.build_batch([(BINARY, payload)])
        payload[:] = b"\xff" * size
        assert b"".join(buffers).endswith(bytes(size))
        payload.append(0)


def test_a_large_text_is_passed_on_as_a_read_only_view(codec: Any) -> None:
    text = "a" * 100_000
    for buffers in (codec.build_batch([(TEXT, text)]), codec.fragment(TEXT, text, size=2**20)):
        view = buffers[1]
        assert (type(view), view.readonly, len(view)) == (memoryview, True, len(text))
        assert bytes(view[10:20]) == b"a" * 10
    buffers = codec.fragment(TEXT, text, size=30_000)
    del text
    assert b"".join(buffers[1::2]) == b"a" * 100_000


def test_masked_batch_is_one_bytes_object_with_a_key_per_frame(codec: Any) -> None:
    (batch,) = codec.build_batch([(BINARY, bytes(4))] * 500 + [(BINARY, bytes(COPY_SIZE + 1))], masked=True)
    keys = [batch[start + 2 : start + 6] for start in range(0, 5000, 10)]
    assert all(batch[start + 6 : start + 10] == batch[start + 2 : start + 6] for start in range(0, 5000, 10))
    assert len(set(keys)) == 500


def test_messages_may_come_from_any_iterable(codec: Any) -> None:
    assert codec.build_batch(iter([(TEXT, "a")])) == codec.build_batch(((TEXT, "a"),)) == [b"\x81\x01a"]
    assert codec.build_batch([Opcode.TEXT, "a"] for _ in range(2)) == [b"\x81\x01a" * 2]


def test_row_25_batch_with_an_invalid_message_builds_nothing(codec: Any) -> None:
    for bad, error in (
        ((TEXT, None), TypeError),
        ((TEXT, 5), TypeError),
        ((16, b""), ValueError),
        ((TEXT, "\ud800"), UnicodeEncodeError),
        ((BINARY, memoryview(b"abcd")[::2]), BufferError),
        ((TEXT,), TypeError),
        (7, TypeError),
    ):
        with pytest.raises(error):
            codec.build_batch([(TEXT, "a"), bad])
    assert codec.build_batch([(BINARY, array.array("f", [1.5]))]) == [b"\x82\x04" + array.array("f", [1.5]).tobytes()]


# --- feed_messages --------------------------------------------------------------------------------


def test_feed_messages_returns_plain_messages_and_other_events(codec: Any) -> None:
    stream = codec.build_frame(TEXT, "é" * 300) + codec.build_frame(BINARY, b"a") + codec.build_frame(PING, b"p")
    stream += codec.build_frame(TEXT, "x", fin=False) + codec.build_frame(CONT, "y") + codec.build_frame(TEXT, "")
    stream += codec.build_frame(BINARY, bytes(200)) + codec.build_frame(TEXT, b"\xff", rsv1=True)
    stream += codec.build_frame(PONG, b"") + codec.build_frame(CLOSE, b"\x03\xe8bye")
    told = ["é" * 300, b"a", (PING, b"p"), "xy", "", bytes(200), (TEXT | COMPRESSED, b"\xff"), (PONG, b"")]
    told.append((CLOSE, (1000, "bye")))
    assert codec.Parser(client=True, max_size=None, allow_rsv1=True).feed_messages(stream) == told
    parser = codec.Parser(client=True, max_size=None, allow_rsv1=True)
    assert [each for at in range(len(stream)) for each in parser.feed_messages(stream[at : at + 1])] == told


def test_feed_messages_without_decode_text_marks_texts(codec: Any) -> None:
    stream = codec.build_frame(TEXT, "a") + codec.build_frame(BINARY, b"b")
    stream += codec.build_frame(TEXT, "c", fin=False) + codec.build_frame(CONT, "d")
    parser = codec.Parser(client=True, max_size=None, decode_text=False)
    assert parser.feed_messages(stream) == [(TEXT, b"a"), b"b", (TEXT, b"cd")]


def test_what_is_streamed_and_what_is_wrong_is_told_as_by_feed(codec: Any) -> None:
    parser = codec.Parser(client=True, max_size=None)
    parser.start_streaming()
    stream = codec.build_frame(BINARY, b"ab") + codec.build_frame(BINARY, b"whole")
    assert parser.feed_messages(stream) == [(16, BINARY), (17, b"ab"), (18, None), b"whole"]
    assert parser.feed(codec.build_frame(BINARY, b"c")) == [(BINARY, b"c")]
    assert parser.feed_messages(codec.build_frame(TEXT, "good") + codec.build_frame(TEXT, b"\xff")) == ["good"]
    assert parser.error.close_code == 1007
    assert parser.feed_messages(codec.build_frame(TEXT, "late")) == []
    with pytest.raises(TypeError):
        codec.Parser(client=True, max_size=None).feed_messages("text")


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_feed_messages_reads_only_the_first_size_bytes(codec: Any, kind: Any) -> None:
    stream = codec.build_frame(BINARY, b"ab") + codec.build_frame(BINARY, b"cd")
    parser = codec.Parser(client=True, max_size=None)
    assert parser.feed_messages(kind(stream), 3) == []
    assert parser.feed_messages(kind(stream[3:]), 1) == [b"ab"]
    assert parser.feed_messages(kind(stream[4:]), 0) == parser.feed_messages(kind(stream[4:]), -1) == []
    assert parser.feed_messages(kind(stream[4:]), 1 << 80) == [b"cd"]
    with pytest.raises(TypeError):
        parser.feed_messages(kind(stream), "4")


# --- keys (section 10.3) --------------------------------------------------------------------------


def test_row_24_a_key_is_4_bytes_and_no_two_are_alike(codec: Any) -> None:
    keys = [codec.new_mask() for _ in range(5000)]
    assert {type(key) for key in keys} == {bytes}
    assert {len(key) for key in keys} == {4}
    assert len(set(keys)) > 4990  # of 2**32: a birthday or two
    bits = [sum(key[i // 8] >> i % 8 & 1 for key in keys) for i in range(32)]
    assert all(2200 < count < 2800 for count in bits)


def test_row_24_keys_come_from_the_random_source_of_the_system(codec: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []
    source = os.urandom

    def urandom(size: int) -> bytes:
        asked.append(source(size))
        return asked[-1]

    monkeypatch.setattr(os, "urandom", urandom)
    keys = {codec.new_mask() for _ in range(3000)}
    assert {len(pool) for pool in asked} == {4096}
    given = {pool[i : i + 4] for pool in asked for i in range(0, 4096, 4)}
    assert len(keys & given) > 1900  # all but what was left of a pool before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_row_24_no_key_is_repeated_after_a_fork(codec: Any) -> None:
    codec.new_mask()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, b"".join(codec.new_mask() for _ in range(1000)))
        finally:
            os._exit(0)
    os.close(writer)
    ours = {codec.new_mask() for _ in range(1000)}
    with os.fdopen(reader, "rb") as pipe:
        theirs = pipe.read()
    os.waitpid(child, 0)
    assert len(theirs) == 4000
    assert len(ours & {theirs[i : i + 4] for i in range(0, 4000, 4)}) < 3


def test_row_24_threads_get_keys_of_their_own(codec: Any) -> None:
    found: list[list[bytes]] = []
    start = threading.Barrier(4)

    def take() -> None:
        start.wait()
        found.append([codec.new_mask() for _ in range(5000)])

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({key for keys in found for key in keys}) > 19_980


def test_row_24_each_masked_frame_has_a_fresh_key(codec: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = itertools.count()  # of three thousand real keys two are alike once in a thousand runs

    def urandom(size: int) -> bytes:
        return b"".join(next(numbers).to_bytes(4, "big") for _ in range(size // 4))

    monkeypatch.setattr(os, "urandom", urandom)
    for _ in range(1024):
        codec.new_mask()  # what was left of a pool before
    frames = [codec.build_frame(BINARY, bytes(4), masked=True) for _ in range(3000)]
    assert len({frame[2:6] for frame in frames}) == 3000
    assert all(frame[:2] == b"\x82\x84" and frame[2:6] == frame[6:] for frame in frames)
    assert codec.build_frame(BINARY, bytes(4), masked=True, mask_key=KEY) == b"\x82\x84" + KEY + KEY
    assert codec.build_frame(BINARY, b"ab", masked=False) == b"\x82\x02ab"
    (stream,) = codec.fragment(BINARY, bytes(40), size=4, mask=codec.new_mask)
    assert len({stream[i + 2 : i + 6] for i in range(0, 100, 10)}) == 10
    assert parsed(codec, [stream], client=False) == [(BINARY, bytes(40))]


# --- feed_messages, within a bound ------------------------------------------------------------------


def fed_in_parts(parser: Any, data: bytes) -> tuple[list[Any], list[int]]:
    """All events of ``data``, and how many came of each call."""
    events: list[Any] = []
    counts = []
    while True:
        part = parser.feed_messages(memoryview(data))
        events += part
        counts.append(len(part))
        assert parser.halted == (parser.left > 0 or parser.error is not None)
        if not parser.left:
            return events, counts
        data = data[len(data) - parser.left :]


@pytest.mark.parametrize("masked", [False, True])
def test_slack_bounds_the_events_of_one_call(codec: Any, masked: bool) -> None:
    stream = b"".join(codec.build_frame(BINARY, b"", masked=masked) for _ in range(40))
    parser = codec.Parser(client=not masked, max_size=None, slack=10 * RECEIVED_OVERHEAD)
    assert fed_in_parts(parser, stream) == ([b""] * 40, [10] * 4)
    parser = codec.Parser(client=not masked, max_size=None, slack=1)
    assert fed_in_parts(parser, stream) == ([b""] * 40, [1] * 40)
    assert len(parser.feed(stream)) == 40  # which has no such bound


@pytest.mark.parametrize(("character", "excess"), [("a", 0), ("é", 0), ("€", 1), ("\U0001f600", 3)])
def test_slack_counts_what_wide_text_takes(codec: Any, character: str, excess: int) -> None:
    stream = codec.build_frame(TEXT, character * 1000) * 20
    fragmented = b"".join(codec.fragment(TEXT, (character * 1000).encode(), size=2000)) * 20
    for data, frames in ((stream, 1), (fragmented, -(-len(character.encode()) * 1000 // 2000))):
        parser = codec.Parser(client=True, max_size=None, slack=8000)
        events, counts = fed_in_parts(parser, data)
        assert events == [character * 1000] * 20
        assert max(counts) <= 8000 // (1000 * excess + frames * RECEIVED_OVERHEAD) + 1
        assert max(counts) >= min(8000 // (1000 * excess + frames * RECEIVED_OVERHEAD), 20)


def test_slack_changes_nothing_but_the_calls(codec: Any) -> None:
    parser = codec.Parser(client=True, max_size=None, slack=1)
    stream = codec.build_frame(TEXT, "a", fin=False) + codec.build_frame(PING, b"p") + codec.build_frame(CONT, "b")
    stream += codec.build_frame(BINARY, bytes(300)) + codec.build_frame(PONG, b"") + codec.build_frame(TEXT, b"\xff")
    events, counts = fed_in_parts(parser, stream)
    assert events == [(PING, b"p"), "ab", bytes(300), (PONG, b"")]
    assert max(counts) == 1
    assert (parser.error.close_code, parser.halted, parser.left) == (1007, True, 0)
    assert parser.feed_messages(stream) == []
    assert parser.halted
    parser = codec.Parser(client=True, max_size=None, slack=1)
    assert fed_in_parts(parser, codec.build_frame(CLOSE, b"") + stream) == ([(CLOSE, (1005, ""))], [1])


@pytest.mark.parametrize("slack", [0, -1])
def test_slack_must_be_positive(codec: Any, slack: int) -> None:
    with pytest.raises(ValueError, match="slack"):
        codec.Parser(client=True, max_size=None, slack=slack)
