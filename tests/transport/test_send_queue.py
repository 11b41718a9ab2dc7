"""Tests of the send queue: its bounds, control frames and data, the order of frames, the close frame.

A channel on a transport that is no socket fills the queue and empties it.
"""

from __future__ import annotations

from plumews.constants import Opcode
from plumews.protocol.codec import Parser, build_frame
from plumews.protocol.message import encode
from support.channel_setup import CLOSE, Setup, message, ping, pong

# --- one write ------------------------------------------------------------------------------------


def test_whole_queue_leaves_in_one_write() -> None:
    setup = Setup(queue_size=64)
    for index in range(64):
        assert setup.channel._try_queue(message(str(index)))
    setup.channel._queue_ping(ping(b"p"))
    setup.channel._flush()
    assert len(setup.transport.writes) == 1
    assert setup.messages == [str(index) for index in range(64)]


def test_large_queue_leaves_in_writes_of_256_kib() -> None:
    setup = Setup(queue_size=1000, queue_bytes=10_000_000)
    texts = [str(index) * 10_000 for index in range(10)] * 10
    for text in texts:
        assert setup.channel._try_queue(message(text))
    setup.channel._flush()
    assert setup.messages == texts
    assert max(map(len, setup.transport.writes)) <= 256 * 1024 + 10_100


# --- bounds ---------------------------------------------------------------------------------------


def test_message_bound_holds_while_the_transport_is_full() -> None:
    setup = Setup()
    setup.transport.fill()
    assert [setup.channel._try_queue(message(text)) for text in "abcdef"] == [True] * 4 + [False] * 2
    assert setup.channel.queued_messages == 4
    setup.transport.drain()
    assert setup.messages == list("abcd")
    assert setup.channel.queued_messages == 0


def test_byte_bound_counts_whole_frames() -> None:
    setup = Setup(queue_size=100)
    setup.transport.fill()
    assert setup.channel._try_queue(message("x" * 496))  # and 4 bytes of header
    assert setup.channel.queued_bytes == 500
    assert not setup.channel._try_queue(message("x" * 497))
    assert setup.channel._try_queue(message("x" * 496))
    assert not setup.channel._try_queue(message(""))
    assert setup.channel.queued_bytes == 1000


def test_message_above_the_byte_bound_fits_an_empty_queue() -> None:
    setup = Setup()
    setup.transport.fill()
    assert setup.channel._try_queue(message("x" * 5000))
    assert not setup.channel._try_queue(message("x" * 5000))
    setup.transport.drain()
    assert setup.channel._try_queue(message("y"))


def test_message_being_sent_does_not_count_as_queued() -> None:
    setup = Setup(queue_bytes=2_000_000)
    setup.channel._try_queue(message("x" * 1_000_000))
    setup.transport.full_after = 1
    setup.channel._flush()
    assert setup.channel.queued_messages == 0
    assert [setup.channel._try_queue(message(text)) for text in "abcde"] == [True] * 4 + [False]
    setup.transport.drain()
    assert setup.messages == ["x" * 1_000_000, *"abcd"]


def test_message_of_many_buffers_keeps_its_place() -> None:
    setup = Setup(queue_bytes=100_000)
    setup.channel._try_queue(encode(Opcode.TEXT, b"waited"))
    setup.transport.fill()
    setup.channel._output_drained()
    setup.channel._resume_output()  # nothing has left yet
    setup.channel._try_queue(encode(Opcode.BINARY, bytes(20_000)))
    setup.state.end_of_tick()
    assert setup.messages == ["waited", bytes(20_000)]
    assert setup.channel.queued_age == 0.0


# --- control frames -------------------------------------------------------------------------------


def test_control_frames_go_before_queued_data() -> None:
    setup = Setup()
    setup.channel._try_queue(message("a"))
    setup.channel._queue_ping(ping(b"ours"))
    setup.channel._queue_pong(pong(b"theirs"))
    setup.channel._try_queue(message("b"))
    setup.channel._flush()
    assert [kind for kind, _ in setup.transport.events()] == [Opcode.PING, Opcode.PONG, Opcode.TEXT, Opcode.TEXT]


def test_pong_goes_between_fragments_of_a_long_message() -> None:
    setup = Setup(queue_bytes=10_000_000)
    setup.channel._try_queue(message("x" * 1_000_000))
    setup.transport.full_after = 1
    setup.channel._flush()
    setup.channel._queue_pong(pong(b"now"))
    setup.transport.drain()
    assert setup.transport.events() == [(Opcode.PONG, b"now"), (Opcode.TEXT, "x" * 1_000_000)]
    first, second, *_ = setup.transport.writes
    assert len(first) <= 256 * 1024 + 65_600
    assert second.startswith(pong(b"now"))


def test_long_masked_message_is_cut_between_frames() -> None:
    setup = Setup(queue_bytes=10_000_000)
    payload = bytes(1_000_001)
    setup.channel._try_queue(encode(Opcode.BINARY, payload, mask=lambda: b"mask"))
    setup.transport.full_after = 1
    setup.channel._flush()
    setup.channel._queue_ping(build_frame(Opcode.PING, b"now", mask_key=b"keys"))
    setup.transport.drain()
    parser = Parser(client=False, max_size=None)
    assert parser.feed(setup.transport.wire) == [(Opcode.PING, b"now"), (Opcode.BINARY, payload)]
    assert parser.error is None


def test_each_ping_is_answered_while_the_socket_takes_bytes() -> None:
    setup = Setup()
    for index in range(1000):
        setup.channel._queue_pong(pong(str(index).encode()))
    setup.channel._flush()
    assert [payload for _, payload in setup.transport.events()] == [str(index).encode() for index in range(1000)]


def test_row_10_full_socket_keeps_only_the_newest_pong() -> None:
    setup = Setup()
    setup.transport.fill()
    for index in range(100_000):
        setup.channel._queue_pong(pong(str(index).encode()))
    setup.transport.drain()
    assert setup.transport.events() == [(Opcode.PONG, b"99999")]


# --- the close frame ------------------------------------------------------------------------------


def test_close_frame_goes_behind_accepted_messages() -> None:
    setup = Setup()
    setup.transport.fill()
    for text in "abc":
        setup.channel._try_queue(message(text))
    setup.channel._finish_output(CLOSE, setup.on_finished)
    assert not setup.channel._finished
    setup.transport.drain()
    assert setup.messages == list("abc")
    assert setup.transport.wire.endswith(CLOSE)
    assert setup.channel._finished
    assert setup.finished == 1


def test_close_frame_waits_for_the_last_fragment() -> None:
    setup = Setup(queue_bytes=10_000_000)
    setup.channel._try_queue(message("x" * 1_000_000))
    setup.transport.full_after = 1
    setup.channel._flush()
    setup.channel._finish_output(CLOSE, setup.on_finished)
    setup.transport.full_after = 1
    setup.transport.drain()
    assert setup.finished == 0
    setup.transport.drain()
    assert [kind for kind, _ in setup.transport.events()] == [Opcode.TEXT, Opcode.CLOSE]
    assert setup.finished == 1


def test_nothing_leaves_after_the_close_frame() -> None:
    setup = Setup()
    setup.channel._finish_output(CLOSE, setup.on_finished)
    setup.channel._queue_ping(ping(b"late"))
    setup.channel._queue_pong(pong(b"late"))
    setup.channel._flush()
    setup.transport.fill()
    setup.channel._queue_pong(pong(b"later"))
    setup.channel._write_last()
    setup.transport.drain()
    assert setup.transport.wire == CLOSE
    assert setup.finished == 1


def test_pending_pong_leaves_before_the_close_frame() -> None:
    setup = Setup()
    setup.transport.fill()
    setup.channel._queue_pong(pong(b"owed"))
    setup.channel._finish_output(CLOSE, setup.on_finished)
    setup.transport.drain()
    assert [kind for kind, _ in setup.transport.events()] == [Opcode.PONG, Opcode.CLOSE]


# --- its age --------------------------------------------------------------------------------------


def test_queued_age_counts_only_while_the_transport_is_full() -> None:
    setup = Setup()
    setup.channel._try_queue(message("a"))
    assert (setup.channel.queued_messages, setup.channel.queued_age) == (1, 0.0)
    setup.channel._flush()
    setup.transport.fill()
    setup.channel._try_queue(message("b"))
    before = setup.channel.queued_age
    while setup.channel.queued_age <= before:
        pass  # the clock is that of the machine
    setup.transport.drain()
    assert (setup.channel.queued_messages, setup.channel.queued_age) == (0, 0.0)
