"""plumews.codec: large payloads received in place (receive_buffer, buffer_updated), on both bodies."""

from __future__ import annotations

import gc
import random
import tracemalloc
from typing import Any

import pytest

from plumews import limits
from plumews.errors import InvalidData, ProtocolError
from support.codec_bodies import on_both_bodies

pytestmark = on_both_bodies

KEY = bytes.fromhex("37fa213d")
CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
BEGIN, CHUNK, END = 16, 17, 18
KiB = 1024


def server(codec: Any, **options: Any) -> Any:
    return codec.Parser(**{"client": False, "max_size": None, **options})


def masked(codec: Any, opcode: int, payload: Any = b"", **options: Any) -> bytes:
    return codec.build_frame(opcode, payload, mask_key=KEY, **options)


def receive(parser: Any, data: bytes, least: int = 1) -> list[Any]:
    """Feed ``data`` as an event loop does: into a lent buffer while there is one, else by feed()."""
    events: list[Any] = []
    while data:
        room = parser.receive_buffer(least)
        if room is None:
            return events + parser.feed(data)
        size = min(len(room), len(data))
        room[:size] = data[:size]
        events += parser.buffer_updated(size)
        data = data[size:]
    return events


# --- what is delivered ----------------------------------------------------------------------------


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("side", ["client", "server"])
@pytest.mark.parametrize("unit", ["a", "aé語😀"], ids=["ascii", "mixed"])
def test_message_received_in_place_is_complete(codec: Any, side: str, opcode: int, unit: str) -> None:
    text = unit * 50_000
    key = KEY if side == "server" else None
    stream = codec.build_frame(opcode, text, mask_key=key)
    parser = codec.Parser(client=side == "client", max_size=None)
    assert parser.feed(stream[:1000]) == []
    events = []
    for at in range(1000, len(stream), 30_001):
        assert events == []
        assert parser.mid_message
        events += receive(parser, stream[at : at + 30_001])
    assert events == [(opcode, text if opcode == TEXT else text.encode())]
    assert (parser.buffered, parser.error) == (0, None)
    assert parser.feed(codec.build_frame(BINARY, b"next", mask_key=key)) == [(BINARY, b"next")]


def test_fragments_control_frames_and_both_kinds_of_reads_mix(codec: Any) -> None:
    dice = random.Random(3)
    for trial in range(60):
        pieces = [dice.randbytes(dice.choice((0, 10, 5000, 150_000))) for _ in range(3)]
        stream = masked(codec, BINARY, pieces[0], fin=False) + masked(codec, PING, b"p")
        stream += masked(codec, CONT, pieces[1], fin=False) + masked(codec, CONT, pieces[2]) + masked(codec, PONG)
        parser, events, at = server(codec), [], 0
        while at < len(stream):
            size = dice.choice((1, 13, 1000, 70_000))
            events += (receive if dice.random() < 0.6 else type(parser).feed)(parser, stream[at : at + size])
            at += size
        assert events == [(PING, b"p"), (BINARY, b"".join(pieces)), (PONG, b"")], trial


@pytest.mark.parametrize("decode_text", [True, False])
def test_a_text_is_checked_as_it_arrives_in_place(codec: Any, decode_text: bool) -> None:
    stream = masked(codec, TEXT, b"a" * 100_000 + b"\xed\xa0\x80" + b"a" * 100_000)
    parser = server(codec, decode_text=decode_text)
    parser.feed(stream[:14])
    assert receive(parser, stream[14:100_015]) == []
    assert parser.error is None
    assert receive(parser, stream[100_015:100_016]) == []
    assert type(parser.error) is InvalidData
    assert parser.receive_buffer(1) is None
    assert (parser.buffered, parser.mid_message) == (0, False)


def test_with_decode_text_off_or_compressed_bytes_come_in_place(codec: Any) -> None:
    text = "é" * 100_000
    stream = masked(codec, TEXT, text)
    parser = server(codec, decode_text=False)
    parser.feed(stream[:100])
    assert receive(parser, stream[100:]) == [(TEXT, text.encode())]

    parser = server(codec, allow_rsv1=True)
    stream = masked(codec, TEXT, b"\xff" * 100_000, rsv1=True)
    parser.feed(stream[:100])
    assert receive(parser, stream[100:]) == [(TEXT | 0x40, b"\xff" * 100_000)]


# --- when there is a buffer -----------------------------------------------------------------------


def test_receive_buffer_exists_only_for_large_missing_payloads(codec: Any) -> None:
    parser = server(codec)
    assert parser.receive_buffer() is None
    stream = masked(codec, BINARY, bytes(100_000))
    parser.feed(stream[:7])
    assert parser.receive_buffer(1) is None  # inside a header
    parser.feed(stream[7:14])
    assert parser.receive_buffer(100_001) is None
    assert 65536 <= len(parser.receive_buffer()) <= 100_000
    assert len(parser.receive_buffer(100_000)) == 100_000
    parser.feed(stream[14:50_000])
    assert parser.receive_buffer() is None
    assert len(parser.receive_buffer(50_014)) == 50_014
    assert 1 <= len(parser.receive_buffer(-5)) <= 50_014
    parser.feed(stream[50_000:])
    assert parser.receive_buffer(1) is None

    parser.feed(masked(codec, BINARY, b"part", fin=False) + masked(codec, PING, bytes(100))[:20])
    assert parser.receive_buffer(1) is None  # inside a control frame
    parser = server(codec)
    parser.start_streaming()
    parser.feed(stream[:14])
    assert parser.receive_buffer(1) is None


def test_a_view_is_one_of_writable_bytes(codec: Any) -> None:
    parser = server(codec)
    parser.feed(masked(codec, BINARY, bytes(100_000))[:20])
    view = parser.receive_buffer()
    assert type(view) is memoryview
    assert (view.readonly, view.format, view.itemsize, view.ndim, view.c_contiguous) == (False, "B", 1, 1, True)


def test_receive_buffer_again_releases_the_earlier_view(codec: Any) -> None:
    parser = server(codec)
    stream = masked(codec, BINARY, bytes(range(250)) * 400)
    parser.feed(stream[:20])
    first = parser.receive_buffer()
    second = parser.receive_buffer()
    with pytest.raises(ValueError, match="released"):
        first[0] = 1
    size = len(second)
    second[:] = stream[20 : 20 + size]
    assert parser.buffer_updated(size) + parser.feed(stream[20 + size :]) == [(BINARY, bytes(range(250)) * 400)]


def test_a_feed_in_between_is_in_order_and_ends_the_view(codec: Any) -> None:
    parser = server(codec)
    stream = masked(codec, BINARY, bytes(range(250)) * 400)
    parser.feed(stream[:20])
    view = parser.receive_buffer()
    view[:5] = b"never"
    assert parser.feed(stream[20:5000]) == []
    with pytest.raises(ValueError, match="released"):
        view[0] = 1
    with pytest.raises(ValueError, match=r"^there is no buffer to be updated: call receive_buffer\(\) first"):
        parser.buffer_updated(5)
    assert receive(parser, stream[5000:]) == [(BINARY, bytes(range(250)) * 400)]


def test_nothing_arrived_is_nothing(codec: Any) -> None:
    parser = server(codec)
    stream = masked(codec, BINARY, bytes(100_000))
    parser.feed(stream[:20])
    parser.receive_buffer()
    assert parser.buffer_updated(0) == []
    with pytest.raises(ValueError, match="no buffer"):
        parser.buffer_updated(0)
    assert receive(parser, stream[20:], 99_000) == [(BINARY, bytes(100_000))]


def test_start_streaming_releases_the_view(codec: Any) -> None:
    for opcode in (TEXT, BINARY):
        parser = server(codec)
        stream = masked(codec, opcode, b"abc" * 50_000)
        parser.feed(stream[:14])
        assert receive(parser, stream[14:1014]) == []
        view = parser.receive_buffer()
        assert parser.start_streaming() == [(BEGIN, opcode), (CHUNK, (b"abc" * 500)[:1000])]
        with pytest.raises(ValueError, match="released"):
            view[0] = 1
        with pytest.raises(ValueError, match="no buffer"):
            parser.buffer_updated(1)
        assert parser.feed(stream[1014:])[-1] == (END, None)

        parser.feed(stream[:14])
        parser.receive_buffer()
        assert parser.start_streaming() == [(BEGIN, opcode)]
        assert parser.buffered == 0


@pytest.mark.parametrize("nbytes", [-1, 100_000, 2**70, -(2**70)])
def test_buffer_updated_with_a_wrong_size_changes_nothing(codec: Any, nbytes: int) -> None:
    parser = server(codec)
    stream = masked(codec, BINARY, bytes(100_000))
    parser.feed(stream[:20])
    size = len(parser.receive_buffer())
    with pytest.raises(ValueError, match=rf"^the buffer has room for 0 to {size} bytes, not {nbytes}$"):
        parser.buffer_updated(nbytes)
    assert receive(parser, stream[20:], 99_000) == [(BINARY, bytes(100_000))]


def test_arguments_that_are_no_ints_are_a_type_error(codec: Any) -> None:
    parser = server(codec)
    parser.feed(masked(codec, BINARY, bytes(100_000))[:20])
    with pytest.raises(TypeError, match="cannot be interpreted as an integer"):
        parser.receive_buffer("1")
    parser.receive_buffer()
    with pytest.raises(TypeError, match="cannot be interpreted as an integer"):
        parser.buffer_updated(1.0)


def test_the_end_of_the_connection_ends_the_loan(codec: Any) -> None:
    parser = server(codec)
    parser.feed(masked(codec, BINARY, bytes(100_000), fin=False)[:20])
    view = parser.receive_buffer()
    parser.feed(masked(codec, BINARY, bytes(100_000), fin=False)[20:])
    parser.feed(b"\xff")
    assert type(parser.error) is ProtocolError
    assert parser.receive_buffer(1) is None
    with pytest.raises(ValueError, match="no buffer"):
        parser.buffer_updated(1)
    with pytest.raises(ValueError, match="released"):
        view[0] = 1


# --- views that outlive what they were lent for ---------------------------------------------------


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("keep", [lambda view: view[10:], memoryview, lambda view: view.cast("b")])
def test_kept_view_cannot_change_a_delivered_message(codec: Any, opcode: int, keep: Any) -> None:
    parser, kept, delivered = server(codec), [], []
    for _ in range(3):
        stream = masked(codec, opcode, b"x" * 100_000)
        parser.feed(stream[:14])
        kept.append(keep(parser.receive_buffer()))
        delivered += receive(parser, stream[14:])
        for view in kept:
            view.cast("B")[:] = b"\xee" * view.nbytes
        assert delivered[-1] == (opcode, b"x" * 100_000 if opcode == BINARY else "x" * 100_000)
    assert delivered == delivered[:1] * 3


def test_loop_that_holds_its_view_feeds_the_last_byte(codec: Any) -> None:
    parser, stream, rooms = server(codec), masked(codec, BINARY, b"x" * 100_000), []
    for _ in range(3):
        parser.feed(stream[:14])
        with memoryview(parser.receive_buffer(99_999)) as held:  # as uvloop does
            rooms.append(len(held))
            held[:] = stream[14 : 14 + len(held)]
            events = parser.buffer_updated(len(held))
        events += parser.feed(stream[14 + rooms[-1] :])
        assert events == [(BINARY, b"x" * 100_000)]
    assert rooms == ([100_000, 99_999, 99_999] if codec.name == "c" else [99_999] * 3)


def test_a_view_outlives_its_parser_and_its_message(codec: Any) -> None:
    stream = masked(codec, BINARY, bytes(100_000))
    parser = server(codec)
    parser.feed(stream[:20])
    view = parser.receive_buffer()
    part = view[100:200]
    del parser
    gc.collect()
    view[:100] = part[:] = b"\xee" * 100
    assert bytes(part) == b"\xee" * 100

    parser = server(codec)
    parser.feed(stream[:20])
    part = parser.receive_buffer()[100:200]
    parser.feed(stream[20:] + b"\xff")
    assert parser.error is not None
    del parser
    gc.collect()
    part[:] = b"\xee" * 100
    assert bytes(part) == b"\xee" * 100


def test_a_message_grows_while_somebody_keeps_a_view(codec: Any) -> None:
    parser = server(codec)
    stream = masked(codec, BINARY, b"a" * 70_000, fin=False)
    parser.feed(stream[:20])
    part = parser.receive_buffer()[:10]
    receive(parser, stream[20:])
    events = parser.feed(masked(codec, CONT, b"b" * 300_000))
    part[:] = b"\xee" * 10
    assert events == [(BINARY, b"a" * 70_000 + b"b" * 300_000)]


# --- memory ---------------------------------------------------------------------------------------


def test_row_5_announced_tebibyte_reserves_at_most_the_limit(codec: Any) -> None:
    parser = server(codec)
    parser.feed(codec.build_header(BINARY, 2**40, mask_key=KEY))
    tracemalloc.start()
    try:
        assert len(parser.receive_buffer()) >= 65536
        assert tracemalloc.get_traced_memory()[1] < limits.READ_LIMIT + 64 * KiB
    finally:
        tracemalloc.stop()


def test_a_large_message_in_place_is_one_allocation(codec: Any) -> None:
    payload = bytes(limits.MiB)
    stream = masked(codec, BINARY, payload)
    measures = []
    for _ in range(3):  # what is counted is not ours alone: the least of some
        parser = server(codec)
        tracemalloc.start()
        try:
            parser.feed(stream[:20])
            events = []
            for at in range(20, len(stream), 64 * KiB):
                events += receive(parser, stream[at : at + 64 * KiB])
            measures.append(tracemalloc.get_traced_memory())
        finally:
            tracemalloc.stop()
        assert events == [(BINARY, payload)]
        del events
    held, peak = min(measures)
    assert held < limits.MiB + 8 * KiB
    if codec.name == "c":  # the plain body has a room beside the message
        assert peak < limits.MiB + 128 * KiB


def test_stop_gives_up_what_has_arrived(codec: Any) -> None:
    parser = server(codec)
    receive(parser, masked(codec, BINARY, bytes(300_000))[:-1])
    view = parser.receive_buffer(1)
    assert view is not None
    assert parser.buffered
    parser.stop()
    assert parser.buffered == 0
    assert parser.receive_buffer(1) is None
    assert parser.feed(masked(codec, TEXT, b"late")) == []
    assert parser.error is None
    with pytest.raises(ValueError, match="released"):
        view[0]
