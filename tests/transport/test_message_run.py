"""Tests of runs of messages that are accepted at once."""

from __future__ import annotations

from plumews.conn.full_queue import never_left
from plumews.transport import message_run
from support.channel_setup import Setup, message
from support.fakes import fake_conn


def test_run_of_messages_leaves_behind_those_queued_before() -> None:
    setup = Setup(queue_size=8)
    setup.channel._try_queue(message("before"))
    message_run.accept(setup.channel, [message("a"), message("b")])
    assert setup.messages == ["before", "a", "b"]


async def test_run_for_a_transport_that_closes_counts_each_message():
    conn, transport = fake_conn(ping_interval=None)
    transport.closing = True
    message_run.accept(conn, [message("a"), message("b"), message("c")])
    assert (conn.queued_messages, transport.writes) == (3, [])
    transport.closing = False
    conn.abort()
    assert never_left(conn)[0] == 3


def test_full_queue_has_room_for_the_first_of_a_run() -> None:
    setup = Setup(queue_size=4)
    setup.transport.fill()
    run = [message(text) for text in "abcdef"]
    assert message_run.room_for(setup.channel, run) == 4
    message_run.accept(setup.channel, run[:3])
    assert message_run.room_for(setup.channel, run) == 1
    setup.transport.drain()
    assert setup.messages == ["a", "b", "c"]
    assert message_run.room_for(setup.channel, run) == 6


def test_message_in_fragments_leaves_no_room_for_a_run() -> None:
    setup = Setup()
    assert setup.channel._begin_pieces()
    assert message_run.room_for(setup.channel, [message("a")]) == 0
