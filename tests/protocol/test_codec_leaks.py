"""The codec keeps nothing: after any number of rounds as much memory is in use as before.

Each round goes through one way in which a parser, a validator or a builder can end, good or bad. tracemalloc counts
what Python gave out and did not get back, under every allocator, so that the same tests hold under a sanitizer.
"""

from __future__ import annotations

import gc
import sys
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from plumews.protocol.pure import masking
from support.codec_bodies import on_both_bodies

pytestmark = on_both_bodies

KEY = b"\x37\xfa\x21\x3d"
LARGE = 50_000


def frames(codec: Any, *parts: tuple[int, bytes, bool]) -> bytes:
    return b"".join(codec.build_frame(opcode, data, fin=fin, mask_key=KEY) for opcode, data, fin in parts)


def parser(codec: Any) -> Any:
    return codec.Parser(client=False, max_size=2 * LARGE, max_frames=4)


def whole_messages(codec: Any) -> None:
    stream = frames(codec, (1, "é".encode() * 50, True), (2, bytes(LARGE), True), (9, b"ping", True), (1, b"a", True))
    assert len(parser(codec).feed(bytearray(stream))) == 4


def messages_in_fragments_and_crumbs(codec: Any) -> None:
    stream = frames(
        codec, (1, b"a" * LARGE, False), (10, b"pong", True), (0, b"b" * LARGE, True), (8, b"\x03\xe8", True)
    )
    reader = parser(codec)
    assert sum(len(reader.feed(stream[at : at + 999])) for at in range(0, len(stream), 999)) == 3


def messages_in_place(codec: Any) -> None:
    stream = frames(codec, (2, bytes(LARGE), True), (1, "é".encode() * 20_000, True), (1, b"a" * LARGE, True))
    reader = parser(codec)
    kept, events = [], []
    while stream:
        view = reader.receive_buffer(9)
        if view is None:
            events += reader.feed(stream[:8])
            stream = stream[8:]
        else:
            size = min(len(view), len(stream), 9999)
            view[:size] = stream[:size]
            kept.append(view[size - 1 :])  # outlives what it is a view of
            events += reader.buffer_updated(size)
            stream = stream[size:]
    assert [kind for kind, _ in events] == [2, 1, 1]


def memory_lent_and_never_filled(codec: Any) -> None:
    reader = parser(codec)
    reader.feed(frames(codec, (2, bytes(LARGE), True))[:99])
    assert reader.receive_buffer(9) is not None
    with pytest.raises(ValueError, match="has room for"):
        reader.buffer_updated(LARGE + 1)


def bare_messages(codec: Any) -> None:
    stream = frames(codec, (1, b"a", True), (2, bytes(LARGE), True), (9, b"", True), (1, "é".encode(), True))
    assert len(parser(codec).feed_messages(stream)) == 4


def batches(codec: Any) -> None:
    messages = [(1, "a" * LARGE), (1, "é" * LARGE), (2, bytearray(LARGE)), (1, "small")]
    assert len(codec.build_batch(iter(messages))) > 3
    assert len(codec.build_batch(messages, masked=True)) == 1
    for wrong in ([(99, b"")], [(1, "a"), (1, None)], [(2, bytearray(9)), 7], 7):
        with pytest.raises((ValueError, TypeError)):
            codec.build_batch(wrong)


def a_message_cut_by_the_end_of_the_connection(codec: Any) -> None:
    reader = parser(codec)
    reader.feed(frames(codec, (2, bytes(LARGE), False))[:-1])
    assert reader.mid_message


def a_streamed_message(codec: Any) -> None:
    reader = parser(codec)
    reader.feed(frames(codec, (2, bytes(LARGE), False)))
    assert len(reader.start_streaming()) == 2
    assert len(reader.feed(frames(codec, (0, bytes(LARGE), True)))) == 2


def a_streamed_message_that_is_dropped(codec: Any) -> None:
    reader = parser(codec)
    reader.start_streaming()
    assert len(reader.feed(frames(codec, (2, bytes(LARGE), False)))) == 2


def faults_after_a_part(codec: Any) -> None:
    for fault in (b"\xff", b"\x81", b"\x80\xff" + b"\xff" * 12, b"\x80\x81" + KEY + b"\xff", b"\x88\x81" + KEY + b"1"):
        reader = parser(codec)
        reader.feed(frames(codec, (1, b"a" * LARGE, False)) + fault)
        assert reader.error is not None


def too_many_fragments(codec: Any) -> None:
    reader = parser(codec)
    reader.feed(frames(codec, (2, b"a" * 999, False), *[(0, b"", False)] * 4))
    assert reader.error is not None


def validators(codec: Any) -> None:
    validator = codec.Utf8Validator()
    assert validator.feed("é".encode() * 999 + b"\xe2")
    assert not validator.feed(memoryview(b"ab"))


def masks_and_frames(codec: Any) -> None:
    data = bytearray(LARGE)
    codec.mask_inplace(data, KEY, 3)
    assert codec.mask(memoryview(data)[1:], KEY) != data
    assert codec.build_frame(1, "é" * LARGE, mask_key=KEY)
    assert len(codec.fragment(2, data, size=999, mask=lambda: KEY)) > 50
    assert len(codec.fragment(2, bytes(LARGE), size=999)) > 100


def refused_arguments(codec: Any) -> None:
    strided = memoryview(bytes(99))[::2]
    for call in (
        lambda: codec.mask(strided, KEY),
        lambda: codec.mask(b"data", b"key"),
        lambda: codec.mask_inplace(bytes(99), KEY),
        lambda: codec.build_frame(99, bytearray(99)),
        lambda: codec.build_frame(1, "\ud800" * 99),
        lambda: codec.fragment(1, bytearray(LARGE), mask=lambda: b"key"),
        lambda: parser(codec).feed(strided),
        lambda: codec.Parser(client=True, max_size=-1),
    ):
        with pytest.raises((ValueError, BufferError)):
            call()


ROUNDS = [
    whole_messages,
    messages_in_fragments_and_crumbs,
    messages_in_place,
    memory_lent_and_never_filled,
    bare_messages,
    batches,
    a_message_cut_by_the_end_of_the_connection,
    a_streamed_message,
    a_streamed_message_that_is_dropped,
    faults_after_a_part,
    too_many_fragments,
    validators,
    masks_and_frames,
    refused_arguments,
]


def in_use() -> int:
    """Bytes that are in use, but for the plain body's supply of mask keys, which comes and goes by the thousand."""
    masking._KEYS.clear()
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


BOUND = 50 * 16  # the smallest object, kept in every other of 100 rounds


def kept(call: Callable[[], None]) -> int:
    """Bytes more in use after 100 calls than before, where they were fewest: a leak shows every time.

    What is counted is not ours alone: a cache that fills late or another thread may keep something once.
    """
    fewest, after = sys.maxsize, in_use()
    for _ in range(5):
        before = after
        for _ in range(100):
            call()
        after = in_use()
        fewest = min(fewest, after - before)
        if fewest < BOUND:
            break
    return fewest


@pytest.mark.parametrize("one_round", ROUNDS, ids=lambda one_round: one_round.__name__)
def test_rounds_leave_no_memory_behind(codec: Any, one_round: Callable[[Any], None]) -> None:
    tracemalloc.start()
    try:
        for _ in range(5):
            one_round(codec)  # caches fill
        assert kept(lambda: one_round(codec)) < BOUND
    finally:
        tracemalloc.stop()


def test_the_measure_sees_one_small_object_a_round(codec: Any) -> None:
    leaked: list[bytes] = []
    tracemalloc.start()
    try:
        assert kept(lambda: leaked.append(codec.mask(b"abc", KEY))) > BOUND
    finally:
        tracemalloc.stop()


def test_the_measure_does_not_see_what_is_kept_once(codec: Any) -> None:
    once: list[bytes] = []
    tracemalloc.start()
    try:
        assert kept(lambda: once.append(bytes(LARGE)) if not once else None) < BOUND
        assert once
    finally:
        tracemalloc.stop()
