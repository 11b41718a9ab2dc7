"""The send queue on a transport that says when it is full: order, bounds, lanes, the close frame."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

from fakes import FakeTransport
from plumews import writer as writer_module
from plumews.codec import Parser, build_frame
from plumews.constants import Opcode
from plumews.loopstate import Flushable, LoopState
from plumews.outgoing import Encoded, encode
from plumews.writer import Waiter, Writer


class State(LoopState):
    """The loop's share: keeps who is dirty until the test ends the tick."""

    def __init__(self) -> None:
        super().__init__(None)  # type: ignore[arg-type]  # no loop
        self.dirty: list[Flushable] = []
        self.gathered: list[Flushable] = []

    def gather(self, writer: Flushable) -> None:
        assert writer not in self.gathered, "gathered twice"
        self.gathered.append(writer)

    def mark_dirty(self, writer: Flushable) -> None:
        assert writer not in self.dirty, "marked twice"
        self.dirty.append(writer)

    def end_of_tick(self) -> None:
        flushing, self.dirty, self.gathered = self.gathered + self.dirty, [], []
        for writer in flushing:
            writer.flush()


class Setup:
    def __init__(self, **bounds: int) -> None:
        self.state = State()
        self.writer = Writer(self.state, **{"queue_size": 4, "queue_bytes": 1000, **bounds})
        self.transport = FakeTransport(self)
        self.writer.attach(self.transport)  # type: ignore[arg-type]
        self.finished = 0

    def pause_writing(self) -> None:
        self.writer.pause()

    def resume_writing(self) -> None:
        self.writer.resume()
        self.state.end_of_tick()

    def on_finished(self) -> None:
        self.finished += 1

    @property
    def messages(self) -> list[Any]:
        return [payload for kind, payload in self.transport.events() if kind in (Opcode.TEXT, Opcode.BINARY)]


CLOSE = build_frame(Opcode.CLOSE, b"\x03\xe8")


def message(text: str) -> Encoded:
    return encode(Opcode.TEXT, text.encode())


def ping(payload: bytes) -> bytes:
    return build_frame(Opcode.PING, payload)


def pong(payload: bytes) -> bytes:
    return build_frame(Opcode.PONG, payload)


class Outcome:
    """What became of a message that waited."""

    def __init__(self) -> None:
        self.answers: list[bool] = []

    def __call__(self, accepted: bool) -> None:
        self.answers.append(accepted)


def wait(setup: Setup, text: str) -> tuple[Waiter, Outcome]:
    outcome = Outcome()
    return setup.writer.wait(message(text), outcome), outcome


# --- one write ------------------------------------------------------------------------------------


def test_everything_that_waits_leaves_in_one_write() -> None:
    setup = Setup(queue_size=64)
    for index in range(64):
        assert setup.writer.offer(message(str(index)))
    setup.writer.control(ping(b"p"))
    setup.writer.flush()
    assert len(setup.transport.writes) == 1
    assert setup.messages == [str(index) for index in range(64)]


def test_a_flush_of_nothing_writes_nothing() -> None:
    setup = Setup()
    setup.writer.flush()
    assert setup.transport.writes == []


def test_what_a_read_brought_can_wait_for_other_reads_of_the_tick() -> None:
    setup = Setup()
    setup.writer.offer(message("a"))
    setup.writer.gather()
    setup.writer.offer(message("b"))
    setup.writer.gather()
    setup.writer.offer(message("c"))
    setup.writer.kick(True)
    assert setup.transport.writes == []
    assert setup.state.gathered == [setup.writer]
    setup.state.end_of_tick()
    assert setup.messages == ["a", "b", "c"]
    assert len(setup.transport.writes) == 1
    setup.writer.offer(message("d"))
    setup.writer.gather()
    setup.writer.flush()  # somebody does not wait
    assert setup.messages == ["a", "b", "c", "d"]


def test_a_read_that_brought_nothing_to_send_is_no_reason_to_wait() -> None:
    setup = Setup()
    setup.writer.gather()
    assert setup.state.gathered == []
    setup.writer.offer(message("a"))
    setup.writer.kick(False)  # a broadcast, in a line of thousands
    setup.writer.gather()
    assert setup.messages == ["a"]
    assert setup.state.gathered == []


def test_a_lone_message_leaves_at_once_and_those_behind_it_together_at_the_end_of_the_tick() -> None:
    setup = Setup()
    for text in "abc":
        setup.writer.offer(message(text))
        setup.writer.kick(at_once=True)
    assert setup.messages == ["a"]
    setup.state.end_of_tick()
    assert len(setup.transport.writes) == 2
    assert setup.messages == ["a", "b", "c"]


def test_what_is_not_to_leave_at_once_leaves_at_the_end_of_the_tick() -> None:
    setup = Setup()
    for text in "abc":
        setup.writer.offer(message(text))
        setup.writer.kick(at_once=False)
    assert setup.transport.writes == []
    setup.state.end_of_tick()
    assert len(setup.transport.writes) == 1
    assert setup.messages == ["a", "b", "c"]


def test_a_large_backlog_leaves_in_writes_of_a_quarter_mebibyte() -> None:
    setup = Setup(queue_size=1000, queue_bytes=10_000_000)
    texts = [str(index) * 10_000 for index in range(10)] * 10
    for text in texts:
        assert setup.writer.offer(message(text))
    setup.writer.flush()
    assert setup.messages == texts
    assert max(map(len, setup.transport.writes)) <= 256 * 1024 + 10_100


def test_cve_2024_12254_row_11_the_writelines_that_never_pauses_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    affected = (3, 12) <= sys.version_info < (3, 12, 9) or (3, 13) <= sys.version_info < (3, 13, 2)
    assert affected is writer_module._WRITELINES_HAS_NO_BOUND
    monkeypatch.setattr(writer_module, "_WRITELINES_HAS_NO_BOUND", True)
    setup = Setup()
    setup.transport.writelines = None  # type: ignore[assignment,method-assign]
    setup.writer.offer(message("a"))
    setup.writer.offer(message("b"))
    setup.writer.flush()
    assert setup.messages == ["a", "b"]


# --- bounds ---------------------------------------------------------------------------------------


def test_before_the_answer_is_no_what_waits_is_flushed() -> None:
    setup = Setup()
    for index in range(100):
        assert setup.writer.offer(message(str(index)))
    assert len(setup.transport.writes) == 24  # by four
    setup.writer.flush()
    assert setup.messages == [str(index) for index in range(100)]


def test_a_full_transport_leaves_room_for_as_many_messages_as_the_bound_says() -> None:
    setup = Setup()
    setup.transport.fill()
    assert [setup.writer.offer(message(text)) for text in "abcdef"] == [True] * 4 + [False] * 2
    assert setup.writer.queued_messages == 4
    setup.transport.drain()
    assert setup.messages == list("abcd")
    assert setup.writer.queued_messages == 0


def test_the_bound_in_bytes_counts_whole_frames() -> None:
    setup = Setup(queue_size=100)
    setup.transport.fill()
    assert setup.writer.offer(message("x" * 496))  # and 4 bytes of header
    assert setup.writer.queued_bytes == 500
    assert not setup.writer.offer(message("x" * 497))
    assert setup.writer.offer(message("x" * 496))
    assert not setup.writer.offer(message(""))
    assert setup.writer.queued_bytes == 1000


def test_a_message_above_the_byte_bound_is_accepted_when_nothing_waits() -> None:
    setup = Setup()
    setup.transport.fill()
    assert setup.writer.offer(message("x" * 5000))
    assert not setup.writer.offer(message("x" * 5000))
    setup.transport.drain()
    assert setup.writer.offer(message("y"))


def test_the_message_on_its_way_does_not_count_as_waiting() -> None:
    setup = Setup(queue_bytes=2_000_000)
    setup.writer.offer(message("x" * 1_000_000))
    setup.transport.full_after = 1
    setup.writer.flush()
    assert setup.writer.queued_messages == 0
    assert [setup.writer.offer(message(text)) for text in "abcde"] == [True] * 4 + [False]
    setup.transport.drain()
    assert setup.messages == ["x" * 1_000_000, *"abcd"]


# --- waiting --------------------------------------------------------------------------------------


def test_a_message_of_many_buffers_that_comes_before_what_had_to_wait_has_left_goes_behind_it() -> None:
    setup = Setup(queue_bytes=100_000)
    setup.writer.offer(encode(Opcode.TEXT, b"waited"))
    setup.transport.fill()
    setup.writer.resume()  # nothing has left yet
    setup.writer.offer(encode(Opcode.BINARY, bytes(20_000)))
    setup.state.end_of_tick()
    assert setup.messages == ["waited", bytes(20_000)]
    assert setup.writer.queued_age == 0.0


def test_who_waits_is_accepted_when_there_is_space_in_the_order_of_waiting() -> None:
    setup = Setup()
    setup.transport.fill()
    for text in "abcd":
        setup.writer.offer(message(text))
    outcomes = [wait(setup, text)[1] for text in "efg"]
    assert setup.writer.waiting == 3
    assert [outcome.answers for outcome in outcomes] == [[], [], []]
    setup.transport.drain()
    assert [outcome.answers for outcome in outcomes] == [[True]] * 3
    assert setup.messages == list("abcdefg")
    assert setup.writer.waiting == 0


def test_nobody_overtakes_those_who_wait() -> None:
    setup = Setup()
    setup.transport.fill()
    setup.writer.offer(message("x" * 600))
    _, outcome = wait(setup, "y" * 600)
    assert not setup.writer.offer(message("small enough"))
    setup.transport.drain()
    assert outcome.answers == [True]
    assert setup.messages == ["x" * 600, "y" * 600]


def test_who_withdraws_lets_those_behind_pass() -> None:
    setup = Setup()
    setup.transport.fill()
    setup.writer.offer(message("x" * 600))
    waiter, outcome = wait(setup, "y" * 600)
    _, small = wait(setup, "small")
    assert setup.writer.withdraw(waiter)
    assert small.answers == [True]
    assert not setup.writer.withdraw(waiter)
    setup.transport.drain()
    assert outcome.answers == []
    assert setup.messages == ["x" * 600, "small"]


def test_who_was_accepted_cannot_withdraw() -> None:
    setup = Setup()
    setup.transport.fill()
    for text in "abcd":
        setup.writer.offer(message(text))
    waiter, outcome = wait(setup, "e")
    setup.transport.drain()
    assert outcome.answers == [True]
    assert not setup.writer.withdraw(waiter)


def test_a_transport_that_fills_up_again_admits_only_as_many_as_there_is_space() -> None:
    setup = Setup()
    setup.transport.fill()
    for text in "abcd":
        setup.writer.offer(message(text))
    outcomes = [wait(setup, text)[1] for text in "efghij"]
    setup.transport.full_after = 1
    setup.transport.drain()
    assert setup.messages == list("abcd")
    assert [outcome.answers for outcome in outcomes] == [[True]] * 4 + [[]] * 2
    setup.transport.drain()
    assert setup.messages == list("abcdefghij")
    assert [outcome.answers for outcome in outcomes] == [[True]] * 6


# --- control frames -------------------------------------------------------------------------------


def test_control_frames_go_before_the_data_that_waits() -> None:
    setup = Setup()
    setup.writer.offer(message("a"))
    setup.writer.control(ping(b"ours"))
    setup.writer.pong(pong(b"theirs"))
    setup.writer.offer(message("b"))
    setup.writer.flush()
    assert [kind for kind, _ in setup.transport.events()] == [Opcode.PING, Opcode.PONG, Opcode.TEXT, Opcode.TEXT]


def test_a_pong_goes_between_the_fragments_of_a_long_message() -> None:
    setup = Setup(queue_bytes=10_000_000)
    setup.writer.offer(message("x" * 1_000_000))
    setup.transport.full_after = 1
    setup.writer.flush()
    setup.writer.pong(pong(b"now"))
    setup.transport.drain()
    assert setup.transport.events() == [(Opcode.PONG, b"now"), (Opcode.TEXT, "x" * 1_000_000)]
    first, second, *_ = setup.transport.writes
    assert len(first) <= 256 * 1024 + 65_600
    assert second.startswith(pong(b"now"))


def test_a_long_message_of_masked_frames_is_cut_between_frames_too() -> None:
    setup = Setup(queue_bytes=10_000_000)
    payload = bytes(1_000_001)
    setup.writer.offer(encode(Opcode.BINARY, payload, mask=lambda: b"mask"))
    setup.transport.full_after = 1
    setup.writer.flush()
    setup.writer.control(build_frame(Opcode.PING, b"now", mask_key=b"keys"))
    setup.transport.drain()
    parser = Parser(client=False, max_size=None)
    assert parser.feed(setup.transport.wire) == [(Opcode.PING, b"now"), (Opcode.BINARY, payload)]
    assert parser.error is None


def test_each_ping_is_answered_while_the_socket_takes_bytes() -> None:
    setup = Setup()
    for index in range(1000):
        setup.writer.pong(pong(str(index).encode()))
    setup.writer.flush()
    assert [payload for _, payload in setup.transport.events()] == [str(index).encode() for index in range(1000)]


def test_row_10_while_the_socket_takes_nothing_only_the_newest_pong_is_kept() -> None:
    setup = Setup()
    setup.transport.fill()
    for index in range(100_000):
        setup.writer.pong(pong(str(index).encode()))
    setup.transport.drain()
    assert setup.transport.events() == [(Opcode.PONG, b"99999")]


# --- the close frame ------------------------------------------------------------------------------


def test_the_close_frame_goes_behind_what_was_accepted_before_it() -> None:
    setup = Setup()
    setup.transport.fill()
    for text in "abc":
        setup.writer.offer(message(text))
    setup.writer.finish(CLOSE, setup.on_finished)
    assert not setup.writer.finished
    setup.transport.drain()
    assert setup.messages == list("abc")
    assert setup.transport.wire.endswith(CLOSE)
    assert setup.writer.finished
    assert setup.finished == 1


def test_the_close_frame_waits_for_the_last_fragment() -> None:
    setup = Setup(queue_bytes=10_000_000)
    setup.writer.offer(message("x" * 1_000_000))
    setup.transport.full_after = 1
    setup.writer.flush()
    setup.writer.finish(CLOSE, setup.on_finished)
    setup.transport.full_after = 1
    setup.transport.drain()
    assert setup.finished == 0
    setup.transport.drain()
    assert [kind for kind, _ in setup.transport.events()] == [Opcode.TEXT, Opcode.CLOSE]
    assert setup.finished == 1


def test_nothing_leaves_after_the_close_frame() -> None:
    setup = Setup()
    setup.writer.finish(CLOSE, setup.on_finished)
    setup.writer.control(ping(b"late"))
    setup.writer.pong(pong(b"late"))
    setup.writer.flush()
    setup.transport.fill()
    setup.writer.pong(pong(b"later"))
    setup.writer.last_words()
    setup.transport.drain()
    assert setup.transport.wire == CLOSE
    assert setup.finished == 1


def test_a_pong_that_was_owed_leaves_before_the_close_frame() -> None:
    setup = Setup()
    setup.transport.fill()
    setup.writer.pong(pong(b"owed"))
    setup.writer.finish(CLOSE, setup.on_finished)
    setup.transport.drain()
    assert [kind for kind, _ in setup.transport.events()] == [Opcode.PONG, Opcode.CLOSE]


def test_who_waits_for_space_when_the_closing_begins_is_refused() -> None:
    setup = Setup()
    setup.transport.fill()
    for text in "abcd":
        setup.writer.offer(message(text))
    outcomes = [wait(setup, text)[1] for text in "ef"]
    setup.writer.finish(CLOSE, setup.on_finished)
    assert [outcome.answers for outcome in outcomes] == [[False], [False]]
    setup.transport.drain()
    assert setup.messages == list("abcd")


def test_what_is_discarded_does_not_leave_and_the_last_words_do_though_the_transport_is_full() -> None:
    setup = Setup()
    setup.transport.fill()
    for text in "abcd":
        setup.writer.offer(message(text))
    _, outcome = wait(setup, "e")
    setup.writer.discard()
    setup.writer.finish(CLOSE, setup.on_finished)
    assert setup.transport.wire == b""
    setup.writer.last_words()
    assert setup.transport.wire == CLOSE
    assert setup.finished == 1
    assert outcome.answers == [False]
    assert (setup.writer.queued_messages, setup.writer.queued_bytes) == (0, 0)


def test_a_message_that_is_discarded_half_sent_ends_at_a_frame() -> None:
    setup = Setup(queue_bytes=10_000_000)
    setup.writer.offer(message("x" * 1_000_000))
    setup.transport.full_after = 1
    setup.writer.flush()
    setup.writer.discard()
    setup.writer.finish(CLOSE, setup.on_finished)
    setup.writer.last_words()
    assert setup.transport.events() == [(Opcode.CLOSE, (1000, ""))]
    assert setup.finished == 1


# --- a transport that is gone ---------------------------------------------------------------------


def test_nothing_is_written_to_a_transport_that_is_closing() -> None:
    setup = Setup()
    setup.transport.closing = True
    setup.writer.offer(message("a"))
    setup.writer.flush()
    assert setup.transport.writes == []


def test_when_the_transport_is_gone_who_waits_is_told_and_nothing_is_kept() -> None:
    setup = Setup()
    setup.transport.fill()
    for text in "abcd":
        setup.writer.offer(message(text))
    _, outcome = wait(setup, "e")
    setup.writer.finish(CLOSE, setup.on_finished)
    setup.writer.detach()
    assert outcome.answers == [False]
    assert setup.writer.queued_messages == setup.writer.queued_bytes == 0
    setup.writer.resume()
    assert setup.transport.wire == b""
    assert setup.finished == 0


# --- who is told may do anything ------------------------------------------------------------------


def full_with_waiters(setup: Setup, *texts: str, done: Any) -> list[Outcome]:
    """The queue is full, and ``texts`` wait for space; when the first is told, ``done`` is called."""
    setup.transport.fill()
    for text in "abcd":
        assert setup.writer.offer(message(text))
    outcomes = [Outcome() for _ in texts]
    for text, outcome in zip(texts, outcomes, strict=True):
        setup.writer.wait(message(text), outcome)
    first = outcomes[0]
    told = first.answers

    class Once(list[bool]):
        def append(self, accepted: bool) -> None:
            told.append(accepted)
            done()

    first.answers = Once()
    first.told = told  # type: ignore[attr-defined]
    return outcomes


def answers(outcomes: list[Outcome]) -> list[list[bool]]:
    return [getattr(outcome, "told", outcome.answers) for outcome in outcomes]


def test_who_is_accepted_may_close_and_those_behind_are_refused_once() -> None:
    setup = Setup()
    outcomes = full_with_waiters(setup, "e", "f", "g", done=lambda: setup.writer.finish(CLOSE, setup.on_finished))
    setup.transport.drain()
    assert answers(outcomes) == [[True], [False], [False]]
    assert setup.messages == list("abcde")
    assert setup.transport.wire.endswith(CLOSE)
    assert setup.finished == 1
    assert (setup.writer.queued_messages, setup.writer.queued_bytes, setup.writer.waiting) == (0, 0, 0)


def test_who_is_accepted_may_discard_and_nothing_is_accepted_behind_its_back() -> None:
    setup = Setup()
    outcomes = full_with_waiters(setup, "e", "f", "g", done=setup.writer.discard)
    setup.transport.drain()
    assert answers(outcomes) == [[True], [False], [False]]
    assert setup.messages == list("abcd")
    assert (setup.writer.queued_messages, setup.writer.queued_bytes, setup.writer.waiting) == (0, 0, 0)


def test_who_is_accepted_may_lose_the_transport() -> None:
    setup = Setup()
    outcomes = full_with_waiters(setup, "e", "f", done=setup.writer.detach)
    setup.transport.drain()
    assert answers(outcomes) == [[True], [False]]
    assert setup.messages == list("abcd")
    assert (setup.writer.queued_messages, setup.writer.queued_bytes, setup.writer.waiting) == (0, 0, 0)


def test_who_is_accepted_may_send_and_does_not_overtake_those_who_wait() -> None:
    setup = Setup()
    offered = []

    def send() -> None:
        offered.append(setup.writer.offer(message("too early")))
        setup.writer.control(ping(b"p"))
        setup.writer.kick(at_once=True)

    outcomes = full_with_waiters(setup, "e", "f", done=send)
    setup.transport.drain()
    setup.state.end_of_tick()
    assert offered == [False]
    assert answers(outcomes) == [[True], [True]]
    assert setup.messages == list("abcdef")


def test_who_is_accepted_may_flush() -> None:
    setup = Setup()
    outcomes = full_with_waiters(setup, *"efghijklm", done=setup.writer.flush)
    setup.transport.drain()
    assert answers(outcomes) == [[True]] * 9
    assert setup.messages == list("abcdefghijklm")
    assert (setup.writer.queued_messages, setup.writer.queued_bytes) == (0, 0)


def test_who_is_told_that_the_close_frame_left_may_lose_the_transport() -> None:
    setup = Setup()
    setup.writer.offer(message("a"))
    setup.writer.finish(CLOSE, setup.writer.detach)
    assert setup.messages == ["a"]
    assert setup.transport.wire.endswith(CLOSE)


def test_a_transport_that_has_room_again_is_not_written_to_before_its_call_returns() -> None:
    setup = Setup()
    setup.transport.fill()
    setup.writer.offer(message("a"))
    setup.writer.resume()
    assert setup.transport.writes == []
    setup.state.end_of_tick()
    assert setup.messages == ["a"]


def test_a_transport_that_is_full_again_before_the_tick_ends_is_left_alone() -> None:
    setup = Setup()
    setup.transport.fill()
    setup.writer.offer(message("a"))
    setup.writer.resume()
    setup.writer.pause()
    setup.state.end_of_tick()
    assert setup.transport.writes == []
    setup.transport.drain()
    assert setup.messages == ["a"]


# --- straight to the socket -----------------------------------------------------------------------


class Socket:
    """The socket behind a transport: takes as many bytes as the test says, and as it lies before the transport."""

    def fileno(self) -> int:
        return 4711


class SocketTransport(FakeTransport):
    """A transport that leaves its socket to the writer, and holds what it is given until the test takes it away."""

    def __init__(self, protocol: Any) -> None:
        super().__init__(protocol)
        self.room = 0  # bytes that the socket takes
        self.held = bytearray()
        self.most_held = 0
        self.sends = 0
        self.paused = False

    def get_extra_info(self, name: str) -> Any:
        return Socket() if name == "socket" else None

    def get_write_buffer_size(self) -> int:
        return len(self.held)

    def send(self, fd: int, buffers: list[Any]) -> int:
        """What stands in for :func:`plumews.wire.send`."""
        assert fd == 4711
        assert not self.closing, "a byte for a descriptor that may be another's"
        assert not self.held, "past a transport that holds something"
        self.sends += 1
        data = b"".join(buffers)
        taken = data[: self.room]
        self.room -= len(taken)
        if taken:
            self.writes.append(taken)
        return -1 if len(taken) == len(data) else len(taken)

    def write(self, data: bytes | memoryview) -> None:
        assert not self.closing, "a write to a transport that is closing"
        self.held += data
        self.most_held = max(self.most_held, len(self.held))
        if not self.paused:
            self.paused = True
            self.protocol.pause_writing()

    def take(self, count: int) -> None:
        """The socket takes ``count`` bytes: first what the transport holds."""
        self.room += count
        moved = self.held[: self.room]
        del self.held[: len(moved)]
        self.room -= len(moved)
        if moved:
            self.writes.append(bytes(moved))
        if not self.held and self.paused:
            self.paused = False
            self.protocol.resume_writing()


class Direct(Setup):
    """A writer past a :class:`SocketTransport`."""

    transport: SocketTransport

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: int, **bounds: int) -> None:
        super().__init__(**bounds)
        self.transport = SocketTransport(self)
        self.transport.room = room
        self.writer.attach(self.transport)  # type: ignore[arg-type]
        monkeypatch.setattr(writer_module.wire, "send", self.transport.send)

    def whole(self) -> list[tuple[int, Any]]:
        """Everything that has left, once all of it has."""
        self.transport.take(10_000_000)
        return self.transport.events()


def test_past_a_transport_the_whole_queue_leaves_in_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = Direct(monkeypatch, room=10_000, queue_size=64)
    for index in range(64):
        setup.writer.offer(message(str(index)))
    setup.writer.flush()
    assert setup.transport.sends == 1
    assert setup.transport.most_held == 0
    assert setup.messages == [str(index) for index in range(64)]


def test_the_transport_is_to_hold_nothing_without_asking_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Direct(monkeypatch, room=0).transport.limits == [0]


SIZES = [5, 0, 130, 16 * 1024, 16 * 1024 - 3, 3, 16 * 1024 + 1, 70_000, 2]
"""Whole frames of every kind, one longer than any payload that is copied, and a message of two fragments."""


def queue_all(setup: Direct) -> list[bytes]:
    payloads = [bytes([index]) * size for index, size in enumerate(SIZES)]
    for payload in payloads:
        assert setup.writer.offer(encode(Opcode.BINARY, payload))
    setup.writer.control(ping(b"ours"))
    setup.writer.pong(pong(b"theirs"))
    return payloads


def cuts() -> list[int]:
    """Where to cut: beside each border between buffers, and in the middle of each."""
    at, points = 0, {0}
    buffers = [ping(b"ours"), pong(b"theirs")]
    for index, size in enumerate(SIZES):
        buffers += encode(Opcode.BINARY, bytes([index]) * size).buffers  # type: ignore[arg-type]
    for buffer in [*buffers, CLOSE]:
        points |= {at + 1, at + len(buffer) // 2, at + len(buffer) - 1, at + len(buffer)}
        at += len(buffer)
    return sorted(points)


def frame_ends(data: bytes) -> list[int]:
    """Where the frames in ``data`` end, the last of which may be cut."""
    ends, at = [], 0
    while at < len(data):
        length = data[at + 1] & 0x7F if at + 1 < len(data) else 0
        extended = {126: 2, 127: 8}.get(length, 0)
        if extended:
            length = int.from_bytes(data[at + 2 : at + 2 + extended], "big")
        at += 2 + extended + length
        ends.append(at)
    return ends


def frames_in(data: bytes) -> int:
    """Frames that are all there."""
    return sum(end <= len(data) for end in frame_ends(data))


def whole_frames(data: bytes) -> bool:
    """Whether ``data`` ends with the end of a frame."""
    return not data or frame_ends(data)[-1] == len(data)


@pytest.mark.parametrize("closing", [False, True], ids=["open", "closing"])
@pytest.mark.parametrize("cut", cuts())
def test_wherever_it_is_cut_one_frame_waits_in_the_transport_and_all_arrives_in_order(
    monkeypatch: pytest.MonkeyPatch, cut: int, closing: bool
) -> None:
    setup = Direct(monkeypatch, room=cut, queue_size=100, queue_bytes=10_000_000)
    payloads = queue_all(setup)
    if closing:
        setup.writer.finish(CLOSE, setup.on_finished)
    else:
        setup.writer.flush()
    gone = setup.transport.wire + bytes(setup.transport.held)
    parser = Parser(client=True, max_size=None)
    given = [payload for kind, payload in parser.feed(gone) if kind == Opcode.BINARY]
    assert parser.error is None
    assert frames_in(gone) - frames_in(setup.transport.wire) in (0, 1), "more than the rest of one frame"
    assert whole_frames(gone)
    begun = len(given) + (1 if parser.mid_message else 0)
    assert setup.writer.queued_messages == len(payloads) - begun
    waiting = payloads[begun:]
    assert setup.writer.queued_bytes == sum(encode(Opcode.BINARY, payload).size for payload in waiting)
    setup.writer.pong(pong(b"old"))
    setup.writer.pong(pong(b"new"))
    late = ([] if closing else [b"old", b"new"]) if not setup.writer.paused else [] if closing else [b"new"]
    setup.writer.flush()
    setup.transport.take(10_000_000)
    events = setup.transport.events()
    assert [payload for kind, payload in events if kind == Opcode.BINARY] == payloads
    pongs = [payload for kind, payload in events if kind == Opcode.PONG]
    assert pongs[-1:] == (late or [b"theirs"])[-1:]
    assert [payload for kind, payload in events if kind == Opcode.PING] == [b"ours"]
    assert (setup.writer.queued_messages, setup.writer.queued_bytes) == (0, 0)
    assert (events[-1][0] == Opcode.CLOSE) is closing
    assert setup.finished == closing


def test_behind_a_frame_that_is_cut_the_longest_frame_of_one_buffer_stays_in_the_queue(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    setup = Direct(monkeypatch, room=3, queue_bytes=100_000)
    for payload in (b"cut here", bytes(16 * 1024)):
        setup.writer.offer(encode(Opcode.BINARY, payload))
    setup.writer.flush()
    assert len(setup.transport.held) == 2 + 8 - 3
    assert setup.writer.queued_messages == 1
    assert setup.writer.queued_bytes == 4 + 16 * 1024


def test_a_payload_that_looks_like_a_header_takes_no_frame_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = Direct(monkeypatch, room=0, queue_bytes=100_000)
    fragment_size = 4
    payload = b"\x82\x7e\x82\x7e" * (17 * 1024 // 4)
    setup.writer.offer(encode(Opcode.BINARY, payload, fragment_size=fragment_size))
    for cut in range(200):
        setup.writer.flush()
        held = len(setup.transport.held)
        assert held <= 2 + fragment_size
        assert (len(setup.transport.wire) + held) % (2 + fragment_size) == 0
        setup.transport.take(held + cut % 7)
    assert setup.whole() == [(Opcode.BINARY, payload)]


def test_what_is_queued_while_a_frame_is_cut_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = Direct(monkeypatch, room=1)
    assert setup.writer.offer(message("cut"))
    setup.writer.flush()
    assert setup.writer.paused
    assert [setup.writer.offer(message(text)) for text in "abcdef"] == [True] * 4 + [False] * 2
    assert setup.writer.queued_messages == 4
    assert len(setup.transport.held) == len(message("cut").buffers[0]) - 1
    assert setup.whole() == [(Opcode.TEXT, text) for text in ("cut", *"abcd")]


@pytest.mark.parametrize("cut", [1, 4, 9, 10, 11, 30_000, 60_000])
def test_what_is_discarded_while_a_frame_is_cut_leaves_that_frame_whole_and_the_close_behind_it(
    monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    setup = Direct(monkeypatch, room=cut, queue_bytes=10_000_000)
    setup.writer.offer(encode(Opcode.BINARY, bytes(60_001)))
    setup.writer.offer(message("never"))
    setup.writer.flush()
    setup.writer.discard()
    assert (setup.writer.queued_messages, setup.writer.queued_bytes) == (0, 0)
    setup.writer.finish(CLOSE, setup.on_finished)
    setup.writer.last_words()
    assert setup.finished == 1
    assert setup.whole() == [(Opcode.BINARY, bytes(60_001)), (Opcode.CLOSE, (1000, ""))]


def test_the_last_words_are_no_door_for_what_comes_after_them(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = Direct(monkeypatch, room=1)
    setup.writer.offer(message("cut"))
    setup.writer.flush()
    setup.writer.finish(CLOSE, setup.on_finished)
    setup.writer.discard()
    setup.writer.last_words()
    setup.writer.pong(pong(b"late"))
    setup.writer.control(ping(b"late"))
    setup.writer.flush()
    assert setup.whole() == [(Opcode.TEXT, "cut"), (Opcode.CLOSE, (1000, ""))]


def test_a_transport_that_holds_an_answer_gets_what_is_sent_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = Direct(monkeypatch, room=1000)
    setup.transport.held += b"HTTP/1.1 101 ..."  # but does not ask to wait
    setup.writer.offer(message("a"))
    setup.writer.flush()
    assert setup.transport.sends == 0
    setup.transport.take(0)
    assert setup.transport.wire == b"HTTP/1.1 101 ..." + b"".join(message("a").buffers)


def test_nothing_goes_to_the_descriptor_of_a_transport_that_is_gone_or_going(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = Direct(monkeypatch, room=1000)
    setup.transport.closing = True
    setup.writer.offer(message("a"))
    setup.writer.flush()
    setup.writer.detach()
    setup.writer.offer(message("b"))
    setup.writer.control(ping(b"p"))
    setup.writer.kick(at_once=True)
    setup.writer.resume()
    setup.state.end_of_tick()
    assert setup.transport.sends == 0
    assert setup.transport.wire == b""


def test_pongs_collapse_only_while_the_socket_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = Direct(monkeypatch, room=3)
    for index in range(3):
        setup.writer.pong(pong(bytes([index])))
    setup.writer.flush()  # one is gone, the second is cut at its beginning, the third waits
    for index in range(3, 100):
        setup.writer.pong(pong(bytes([index])))
    assert [payload[0] for _, payload in setup.whole()] == [0, 1, 99]
    setup.writer.pong(pong(b"a"))
    setup.writer.pong(pong(b"b"))
    setup.writer.flush()
    assert [payload for _, payload in setup.transport.events()][3:] == [b"a", b"b"]


# --- by another thread ----------------------------------------------------------------------------


class HandedOver(Direct):
    """One whose next write somebody else may make."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: int = 10_000, **bounds: int) -> None:
        super().__init__(monkeypatch, room, **bounds)
        self.fds: list[int] = []
        self.queues: list[list[Any]] = []

    def hand_over(self) -> bool:
        self.state.dirty = []
        return self.writer.hand_over(self.fds, self.queues)

    def queue(self, *texts: str) -> None:
        for text in texts:
            assert self.writer.offer(message(text))
        self.writer.kick(at_once=False)


def test_what_is_to_leave_with_this_tick_may_be_handed_over_once(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = HandedOver(monkeypatch)
    setup.queue("a", "b")
    assert setup.hand_over()
    assert not setup.hand_over()
    assert setup.fds == [4711]
    assert b"".join(setup.queues[0]) == b"\x81\x01a\x81\x01b"
    assert not setup.writer.was_sent(-1)
    assert (setup.writer.queued_messages, setup.writer.queued_bytes) == (0, 0)
    setup.queue("c")
    assert setup.hand_over()
    assert not setup.writer.was_sent(-1)
    assert setup.whole() == []


def waits_for_the_end_of_the_tick(setup: HandedOver) -> None:
    setup.state.end_of_tick()
    setup.writer.offer(message("of the next"))


def is_closing(setup: HandedOver) -> None:
    setup.transport.closing = True


def is_gone(setup: HandedOver) -> None:
    setup.writer.detach()


def holds_something(setup: HandedOver) -> None:
    setup.transport.held += b"x"
    setup.writer.attach(setup.transport)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "happens",
    [
        pytest.param(waits_for_the_end_of_the_tick, id="it has left, and what is new was not kicked"),
        pytest.param(is_closing, id="the transport closes"),
        pytest.param(is_gone, id="the transport is gone"),
        pytest.param(holds_something, id="the transport holds something"),
        pytest.param(lambda setup: setup.writer.control(ping(b"p")), id="a ping"),
        pytest.param(lambda setup: setup.writer.pong(pong(b"p")), id="a pong"),
        pytest.param(
            lambda setup: setup.writer.offer(encode(Opcode.TEXT, bytes(20_000))), id="a message in two buffers"
        ),
        pytest.param(lambda setup: wait(setup, "x"), id="a sender waits for space"),
        pytest.param(lambda setup: setup.writer.when_empty(lambda good: None), id="somebody waits until it is empty"),
    ],
)
def test_nothing_is_handed_over_when_there_is_more_to_it(
    monkeypatch: pytest.MonkeyPatch, happens: Callable[[HandedOver], object]
) -> None:
    setup = HandedOver(monkeypatch, queue_bytes=100_000)
    setup.queue("a")
    happens(setup)
    assert not setup.hand_over()
    assert (setup.fds, setup.queues) == ([], [])


def test_a_writer_with_a_transport_that_is_no_socket_hands_nothing_over() -> None:
    setup = Setup()
    setup.writer.offer(message("a"))
    setup.writer.kick(at_once=False)
    assert not setup.writer.hand_over([], [])
    setup.state.end_of_tick()
    assert setup.messages == ["a"]


@pytest.mark.parametrize("taken", [0, 1, 2, 3, 4, 5, 8])
def test_of_what_was_handed_over_the_frame_that_is_cut_goes_to_the_transport_and_no_more(
    monkeypatch: pytest.MonkeyPatch, taken: int
) -> None:
    setup = HandedOver(monkeypatch)
    setup.queue("a", "b", "c")
    assert setup.hand_over()
    setup.transport.writes.append(b"".join(setup.queues[0])[:taken])
    assert setup.writer.was_sent(taken)
    assert len(setup.transport.held) == 3 - taken % 3
    assert setup.writer.queued_messages == 2 - taken // 3
    assert setup.writer.queued_bytes == 3 * (2 - taken // 3)
    setup.whole()
    setup.state.end_of_tick()
    assert setup.messages == ["a", "b", "c"]
