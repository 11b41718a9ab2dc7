"""Tests of senders that wait for space in the send queue."""

from __future__ import annotations

from typing import Any

from plumews.transport import waiters
from support.channel_setup import CLOSE, Outcome, Setup, full_setup, message, ping, wait


def test_waiting_senders_are_accepted_in_order() -> None:
    setup = full_setup()
    outcomes = [wait(setup, text)[1] for text in "efg"]
    assert waiters.count(setup.channel) == 3
    assert [outcome.answers for outcome in outcomes] == [[], [], []]
    setup.transport.drain()
    assert [outcome.answers for outcome in outcomes] == [[True]] * 3
    assert setup.messages == list("abcdefg")
    assert waiters.count(setup.channel) == 0


def test_offer_does_not_overtake_waiting_senders() -> None:
    setup = Setup()
    setup.transport.fill()
    setup.channel._try_queue(message("x" * 600))
    _, outcome = wait(setup, "y" * 600)
    assert not setup.channel._try_queue(message("small enough"))
    setup.transport.drain()
    assert outcome.answers == [True]
    assert setup.messages == ["x" * 600, "y" * 600]


def test_last_waiter_may_send_behind_itself() -> None:
    setup = Setup(queue_size=1)
    setup.transport.fill()
    setup.channel._try_queue(message("a"))
    begun: list[bool] = []
    waiters.add(setup.channel, message("b"), lambda good: begun.append(setup.channel._begin_pieces()))
    setup.resume_writing()
    assert begun == [True]
    setup.channel._end_pieces()
    assert setup.messages == ["a", "b"]


def test_withdrawn_waiter_lets_later_ones_pass() -> None:
    setup = Setup()
    setup.transport.fill()
    setup.channel._try_queue(message("x" * 600))
    waiter, outcome = wait(setup, "y" * 600)
    _, small = wait(setup, "small")
    assert waiters.withdraw(setup.channel, waiter)
    assert small.answers == [True]
    assert not waiters.withdraw(setup.channel, waiter)
    setup.transport.drain()
    assert outcome.answers == []
    assert setup.messages == ["x" * 600, "small"]


def test_accepted_waiter_cannot_withdraw() -> None:
    setup = full_setup()
    waiter, outcome = wait(setup, "e")
    setup.transport.drain()
    assert outcome.answers == [True]
    assert not waiters.withdraw(setup.channel, waiter)


def test_full_transport_admits_waiters_up_to_the_bound() -> None:
    setup = full_setup()
    outcomes = [wait(setup, text)[1] for text in "efghij"]
    setup.transport.full_after = 1
    setup.transport.drain()
    assert setup.messages == list("abcd")
    assert [outcome.answers for outcome in outcomes] == [[True]] * 4 + [[]] * 2
    setup.transport.drain()
    assert setup.messages == list("abcdefghij")
    assert [outcome.answers for outcome in outcomes] == [[True]] * 6


def test_close_refuses_waiting_senders() -> None:
    setup = full_setup()
    outcomes = [wait(setup, text)[1] for text in "ef"]
    setup.channel._finish_output(CLOSE, setup.on_finished)
    assert [outcome.answers for outcome in outcomes] == [[False], [False]]
    setup.transport.drain()
    assert setup.messages == list("abcd")


def test_detach_refuses_waiters_and_keeps_nothing() -> None:
    setup = full_setup()
    _, outcome = wait(setup, "e")
    setup.channel._finish_output(CLOSE, setup.on_finished)
    setup.channel._detach()
    assert outcome.answers == [False]
    assert setup.channel.queued_messages == setup.channel.queued_bytes == 0
    setup.channel._output_drained()
    setup.channel._resume_output()
    assert setup.transport.wire == b""
    assert setup.finished == 0


# --- callbacks that change the state --------------------------------------------------------------


def full_with_waiters(setup: Setup, *texts: str, done: Any) -> list[Outcome]:
    """Fill the queue and let ``texts`` wait for space. ``done`` is called when the first one is accepted."""
    setup.transport.fill()
    for text in "abcd":
        assert setup.channel._try_queue(message(text))
    outcomes = [Outcome() for _ in texts]
    for text, outcome in zip(texts, outcomes, strict=True):
        waiters.add(setup.channel, message(text), outcome)
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
        setup, "e", "f", "g", done=lambda: setup.channel._finish_output(CLOSE, setup.on_finished)
    )
    setup.transport.drain()
    assert answers(outcomes) == [[True], [False], [False]]
    assert setup.messages == list("abcde")
    assert setup.transport.wire.endswith(CLOSE)
    assert setup.finished == 1
    assert (setup.channel.queued_messages, setup.channel.queued_bytes, waiters.count(setup.channel)) == (0, 0, 0)


def test_accepted_waiter_may_discard_and_others_are_refused() -> None:
    setup = Setup()
    outcomes = full_with_waiters(setup, "e", "f", "g", done=setup.channel._drop_output)
    setup.transport.drain()
    assert answers(outcomes) == [[True], [False], [False]]
    assert setup.messages == list("abcd")
    assert (setup.channel.queued_messages, setup.channel.queued_bytes, waiters.count(setup.channel)) == (0, 0, 0)


def test_accepted_waiter_may_lose_the_transport() -> None:
    setup = Setup()
    outcomes = full_with_waiters(setup, "e", "f", done=setup.channel._detach)
    setup.transport.drain()
    assert answers(outcomes) == [[True], [False]]
    assert setup.messages == list("abcd")
    assert (setup.channel.queued_messages, setup.channel.queued_bytes, waiters.count(setup.channel)) == (0, 0, 0)


def test_accepted_waiter_may_send_but_not_overtake() -> None:
    setup = Setup()
    offered = []

    def send() -> None:
        offered.append(setup.channel._try_queue(message("too early")))
        setup.channel._queue_ping(ping(b"p"))
        setup.channel._kick_output(at_once=True)

    outcomes = full_with_waiters(setup, "e", "f", done=send)
    setup.transport.drain()
    setup.state.end_of_tick()
    assert offered == [False]
    assert answers(outcomes) == [[True], [True]]
    assert setup.messages == list("abcdef")


def test_accepted_waiter_may_flush() -> None:
    setup = Setup()
    outcomes = full_with_waiters(setup, *"efghijklm", done=setup.channel._flush)
    setup.transport.drain()
    assert answers(outcomes) == [[True]] * 9
    assert setup.messages == list("abcdefghijklm")
    assert (setup.channel.queued_messages, setup.channel.queued_bytes) == (0, 0)
