"""Tests of the acceptance of messages and of the time of their write, also to full and to ended transports."""

from __future__ import annotations

from plumews.constants import Opcode
from support.channel_setup import CLOSE, Setup, full_setup, message, wait

# --- one write ------------------------------------------------------------------------------------


def test_flush_of_an_empty_queue_writes_nothing() -> None:
    setup = Setup()
    setup.channel._flush()
    assert setup.transport.writes == []


def test_gathered_output_leaves_in_one_write() -> None:
    setup = Setup()
    setup.channel._try_queue(message("a"))
    setup.channel._gather()
    setup.channel._try_queue(message("b"))
    setup.channel._gather()
    setup.channel._try_queue(message("c"))
    setup.channel._kick_output(True)
    assert setup.transport.writes == []
    assert setup.state.gathered == [setup.channel]
    setup.state.end_of_tick()
    assert setup.messages == ["a", "b", "c"]
    assert len(setup.transport.writes) == 1
    setup.channel._try_queue(message("d"))
    setup.channel._gather()
    setup.channel._flush()  # without waiting for the end of the iteration
    assert setup.messages == ["a", "b", "c", "d"]


def test_read_without_output_is_not_gathered() -> None:
    setup = Setup()
    setup.channel._gather()
    assert setup.state.gathered == []
    setup.channel._try_queue(message("a"))
    setup.channel._kick_output(False)  # as a broadcast does
    setup.channel._gather()
    assert setup.messages == ["a"]
    assert setup.state.gathered == []


def test_first_message_leaves_at_once_and_others_together() -> None:
    setup = Setup()
    for text in "abc":
        setup.channel._try_queue(message(text))
        setup.channel._kick_output(at_once=True)
    assert setup.messages == ["a"]
    setup.state.end_of_tick()
    assert len(setup.transport.writes) == 2
    assert setup.messages == ["a", "b", "c"]


def test_kick_without_at_once_writes_at_end_of_iteration() -> None:
    setup = Setup()
    for text in "abc":
        setup.channel._try_queue(message(text))
        setup.channel._kick_output(at_once=False)
    assert setup.transport.writes == []
    setup.state.end_of_tick()
    assert len(setup.transport.writes) == 1
    assert setup.messages == ["a", "b", "c"]


# --- bounds ---------------------------------------------------------------------------------------


def test_offer_flushes_before_it_refuses() -> None:
    setup = Setup()
    for index in range(100):
        assert setup.channel._try_queue(message(str(index)))
    assert len(setup.transport.writes) == 24  # by four
    setup.channel._flush()
    assert setup.messages == [str(index) for index in range(100)]


# --- the close frame ------------------------------------------------------------------------------


def test_last_words_leave_after_discard_on_a_full_transport() -> None:
    setup = full_setup()
    _, outcome = wait(setup, "e")
    setup.channel._drop_output()
    setup.channel._finish_output(CLOSE, setup.on_finished)
    assert setup.transport.wire == b""
    setup.channel._write_last()
    assert setup.transport.wire == CLOSE
    assert setup.finished == 1
    assert outcome.answers == [False]
    assert (setup.channel.queued_messages, setup.channel.queued_bytes) == (0, 0)


def test_discarded_message_ends_at_a_frame() -> None:
    setup = Setup(queue_bytes=10_000_000)
    setup.channel._try_queue(message("x" * 1_000_000))
    setup.transport.full_after = 1
    setup.channel._flush()
    setup.channel._drop_output()
    setup.channel._finish_output(CLOSE, setup.on_finished)
    setup.channel._write_last()
    assert setup.transport.events() == [(Opcode.CLOSE, (1000, ""))]
    assert setup.finished == 1


# --- a transport that is gone ---------------------------------------------------------------------


def test_closing_transport_is_not_written_to() -> None:
    setup = Setup()
    setup.transport.closing = True
    setup.channel._try_queue(message("a"))
    setup.channel._flush()
    assert setup.transport.writes == []


# --- callbacks that change the state --------------------------------------------------------------


def test_close_frame_callback_may_lose_the_transport() -> None:
    setup = Setup()
    setup.channel._try_queue(message("a"))
    setup.channel._finish_output(CLOSE, setup.channel._detach)
    assert setup.messages == ["a"]
    assert setup.transport.wire.endswith(CLOSE)


def test_resume_writes_after_the_call_of_the_transport() -> None:
    setup = Setup()
    setup.transport.fill()
    setup.channel._try_queue(message("a"))
    setup.channel._output_drained()
    setup.channel._resume_output()
    assert setup.transport.writes == []
    setup.state.end_of_tick()
    assert setup.messages == ["a"]


def test_transport_paused_again_in_the_iteration_is_skipped() -> None:
    setup = Setup()
    setup.transport.fill()
    setup.channel._try_queue(message("a"))
    setup.channel._output_drained()
    setup.channel._resume_output()
    setup.channel._pause_output()
    setup.state.end_of_tick()
    assert setup.transport.writes == []
    setup.transport.drain()
    assert setup.messages == ["a"]
