"""Tests of the acceptance of messages and of the time of their write, with waiting senders and full transports."""

from __future__ import annotations

from typing import Any

from plumews.constants import Opcode
from support.channel_setup import CLOSE, Outcome, Setup, message, ping, wait

# --- one write ------------------------------------------------------------------------------------


def test_flush_of_an_empty_queue_writes_nothing() -> None:
    setup = Setup()
    setup.writer._flush()
    assert setup.transport.writes == []


def test_gathered_output_leaves_in_one_write() -> None:
    setup = Setup()
    setup.writer._try_queue(message("a"))
    setup.writer._gather()
    setup.writer._try_queue(message("b"))
    setup.writer._gather()
    setup.writer._try_queue(message("c"))
    setup.writer._kick_output(True)
    assert setup.transport.writes == []
    assert setup.state.gathered == [setup.writer]
    setup.state.end_of_tick()
    assert setup.messages == ["a", "b", "c"]
    assert len(setup.transport.writes) == 1
    setup.writer._try_queue(message("d"))
    setup.writer._gather()
    setup.writer._flush()  # without waiting for the end of the iteration
    assert setup.messages == ["a", "b", "c", "d"]


def test_read_without_output_is_not_gathered() -> None:
    setup = Setup()
    setup.writer._gather()
    assert setup.state.gathered == []
    setup.writer._try_queue(message("a"))
    setup.writer._kick_output(False)  # as a broadcast does
    setup.writer._gather()
    assert setup.messages == ["a"]
    assert setup.state.gathered == []


def test_first_message_leaves_at_once_and_others_together() -> None:
    setup = Setup()
    for text in "abc":
        setup.writer._try_queue(message(text))
        setup.writer._kick_output(at_once=True)
    assert setup.messages == ["a"]
    setup.state.end_of_tick()
    assert len(setup.transport.writes) == 2
    assert setup.messages == ["a", "b", "c"]


def test_kick_without_at_once_writes_at_end_of_iteration() -> None:
    setup = Setup()
    for text in "abc":
        setup.writer._try_queue(message(text))
        setup.writer._kick_output(at_once=False)
    assert setup.transport.writes == []
    setup.state.end_of_tick()
    assert len(setup.transport.writes) == 1
    assert setup.messages == ["a", "b", "c"]


# --- bounds ---------------------------------------------------------------------------------------


def test_offer_flushes_before_it_refuses() -> None:
    setup = Setup()
    for index in range(100):
        assert setup.writer._try_queue(message(str(index)))
    assert len(setup.transport.writes) == 24  # by four
    setup.writer._flush()
    assert setup.messages == [str(index) for index in range(100)]


# --- waiting --------------------------------------------------------------------------------------


def test_waiting_senders_are_accepted_in_order() -> None:
    setup = Setup()
    setup.transport.fill()
    for text in "abcd":
        setup.writer._try_queue(message(text))
    outcomes = [wait(setup, text)[1] for text in "efg"]
    assert setup.writer._waiting_senders == 3
    assert [outcome.answers for outcome in outcomes] == [[], [], []]
    setup.transport.drain()
    assert [outcome.answers for outcome in outcomes] == [[True]] * 3
    assert setup.messages == list("abcdefg")
    assert setup.writer._waiting_senders == 0


def test_offer_does_not_overtake_waiting_senders() -> None:
    setup = Setup()
    setup.transport.fill()
    setup.writer._try_queue(message("x" * 600))
    _, outcome = wait(setup, "y" * 600)
    assert not setup.writer._try_queue(message("small enough"))
    setup.transport.drain()
    assert outcome.answers == [True]
    assert setup.messages == ["x" * 600, "y" * 600]


def test_withdrawn_waiter_lets_later_ones_pass() -> None:
    setup = Setup()
    setup.transport.fill()
    setup.writer._try_queue(message("x" * 600))
    waiter, outcome = wait(setup, "y" * 600)
    _, small = wait(setup, "small")
    assert setup.writer._withdraw(waiter)
    assert small.answers == [True]
    assert not setup.writer._withdraw(waiter)
    setup.transport.drain()
    assert outcome.answers == []
    assert setup.messages == ["x" * 600, "small"]


def test_accepted_waiter_cannot_withdraw() -> None:
    setup = Setup()
    setup.transport.fill()
    for text in "abcd":
        setup.writer._try_queue(message(text))
    waiter, outcome = wait(setup, "e")
    setup.transport.drain()
    assert outcome.answers == [True]
    assert not setup.writer._withdraw(waiter)


def test_full_transport_admits_waiters_up_to_the_bound() -> None:
    setup = Setup()
    setup.transport.fill()
    for text in "abcd":
        setup.writer._try_queue(message(text))
    outcomes = [wait(setup, text)[1] for text in "efghij"]
    setup.transport.full_after = 1
    setup.transport.drain()
    assert setup.messages == list("abcd")
    assert [outcome.answers for outcome in outcomes] == [[True]] * 4 + [[]] * 2
    setup.transport.drain()
    assert setup.messages == list("abcdefghij")
    assert [outcome.answers for outcome in outcomes] == [[True]] * 6


# --- the close frame ------------------------------------------------------------------------------


def test_close_refuses_waiting_senders() -> None:
    setup = Setup()
    setup.transport.fill()
    for text in "abcd":
        setup.writer._try_queue(message(text))
    outcomes = [wait(setup, text)[1] for text in "ef"]
    setup.writer._finish_output(CLOSE, setup.on_finished)
    assert [outcome.answers for outcome in outcomes] == [[False], [False]]
    setup.transport.drain()
    assert setup.messages == list("abcd")


def test_last_words_leave_after_discard_on_a_full_transport() -> None:
    setup = Setup()
    setup.transport.fill()
    for text in "abcd":
        setup.writer._try_queue(message(text))
    _, outcome = wait(setup, "e")
    setup.writer._drop_output()
    setup.writer._finish_output(CLOSE, setup.on_finished)
    assert setup.transport.wire == b""
    setup.writer._write_last()
    assert setup.transport.wire == CLOSE
    assert setup.finished == 1
    assert outcome.answers == [False]
    assert (setup.writer._queued_messages, setup.writer._queued_bytes) == (0, 0)


def test_discarded_message_ends_at_a_frame() -> None:
    setup = Setup(queue_bytes=10_000_000)
    setup.writer._try_queue(message("x" * 1_000_000))
    setup.transport.full_after = 1
    setup.writer._flush()
    setup.writer._drop_output()
    setup.writer._finish_output(CLOSE, setup.on_finished)
    setup.writer._write_last()
    assert setup.transport.events() == [(Opcode.CLOSE, (1000, ""))]
    assert setup.finished == 1


# --- a transport that is gone ---------------------------------------------------------------------


def test_closing_transport_is_not_written_to() -> None:
    setup = Setup()
    setup.transport.closing = True
    setup.writer._try_queue(message("a"))
    setup.writer._flush()
    assert setup.transport.writes == []


def test_detach_refuses_waiters_and_keeps_nothing() -> None:
    setup = Setup()
    setup.transport.fill()
    for text in "abcd":
        setup.writer._try_queue(message(text))
    _, outcome = wait(setup, "e")
    setup.writer._finish_output(CLOSE, setup.on_finished)
    setup.writer._detach()
    assert outcome.answers == [False]
    assert setup.writer._queued_messages == setup.writer._queued_bytes == 0
    setup.writer._output_drained()
    setup.writer._resume_output()
    assert setup.transport.wire == b""
    assert setup.finished == 0


# --- callbacks that change the state --------------------------------------------------------------


def full_with_waiters(setup: Setup, *texts: str, done: Any) -> list[Outcome]:
    """Fill the queue and let ``texts`` wait for space. ``done`` is called when the first one is accepted."""
    setup.transport.fill()
    for text in "abcd":
        assert setup.writer._try_queue(message(text))
    outcomes = [Outcome() for _ in texts]
    for text, outcome in zip(texts, outcomes, strict=True):
        setup.writer._wait(message(text), outcome)
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


def test_accepted_waiter_may_close_and_others_are_refused() -> None:
    setup = Setup()
    outcomes = full_with_waiters(
        setup, "e", "f", "g", done=lambda: setup.writer._finish_output(CLOSE, setup.on_finished)
    )
    setup.transport.drain()
    assert answers(outcomes) == [[True], [False], [False]]
    assert setup.messages == list("abcde")
    assert setup.transport.wire.endswith(CLOSE)
    assert setup.finished == 1
    assert (setup.writer._queued_messages, setup.writer._queued_bytes, setup.writer._waiting_senders) == (0, 0, 0)


def test_accepted_waiter_may_discard_and_others_are_refused() -> None:
    setup = Setup()
    outcomes = full_with_waiters(setup, "e", "f", "g", done=setup.writer._drop_output)
    setup.transport.drain()
    assert answers(outcomes) == [[True], [False], [False]]
    assert setup.messages == list("abcd")
    assert (setup.writer._queued_messages, setup.writer._queued_bytes, setup.writer._waiting_senders) == (0, 0, 0)


def test_accepted_waiter_may_lose_the_transport() -> None:
    setup = Setup()
    outcomes = full_with_waiters(setup, "e", "f", done=setup.writer._detach)
    setup.transport.drain()
    assert answers(outcomes) == [[True], [False]]
    assert setup.messages == list("abcd")
    assert (setup.writer._queued_messages, setup.writer._queued_bytes, setup.writer._waiting_senders) == (0, 0, 0)


def test_accepted_waiter_may_send_but_not_overtake() -> None:
    setup = Setup()
    offered = []

    def send() -> None:
        offered.append(setup.writer._try_queue(message("too early")))
        setup.writer._queue_ping(ping(b"p"))
        setup.writer._kick_output(at_once=True)

    outcomes = full_with_waiters(setup, "e", "f", done=send)
    setup.transport.drain()
    setup.state.end_of_tick()
    assert offered == [False]
    assert answers(outcomes) == [[True], [True]]
    assert setup.messages == list("abcdef")


def test_accepted_waiter_may_flush() -> None:
    setup = Setup()
    outcomes = full_with_waiters(setup, *"efghijklm", done=setup.writer._flush)
    setup.transport.drain()
    assert answers(outcomes) == [[True]] * 9
    assert setup.messages == list("abcdefghijklm")
    assert (setup.writer._queued_messages, setup.writer._queued_bytes) == (0, 0)


def test_close_frame_callback_may_lose_the_transport() -> None:
    setup = Setup()
    setup.writer._try_queue(message("a"))
    setup.writer._finish_output(CLOSE, setup.writer._detach)
    assert setup.messages == ["a"]
    assert setup.transport.wire.endswith(CLOSE)


def test_resume_writes_after_the_call_of_the_transport() -> None:
    setup = Setup()
    setup.transport.fill()
    setup.writer._try_queue(message("a"))
    setup.writer._output_drained()
    setup.writer._resume_output()
    assert setup.transport.writes == []
    setup.state.end_of_tick()
    assert setup.messages == ["a"]


def test_transport_paused_again_in_the_iteration_is_skipped() -> None:
    setup = Setup()
    setup.transport.fill()
    setup.writer._try_queue(message("a"))
    setup.writer._output_drained()
    setup.writer._resume_output()
    setup.writer._pause_output()
    setup.state.end_of_tick()
    assert setup.transport.writes == []
    setup.transport.drain()
    assert setup.messages == ["a"]
