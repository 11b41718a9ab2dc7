"""Overflow policies: one for each behavior, and the answer of each to a send, an immediate send and a broadcast."""

from __future__ import annotations

import pytest

from plumews import Opcode, SendBehavior, SendQueueFull, SendTimeout, State
from plumews.conn.overflow import POLICIES, Outcome
from plumews.protocol.message import encode
from support.fakes import full, ticks
from support.members import texts

BLOCK, DROP, CLOSE = SendBehavior.BLOCK, SendBehavior.DROP, SendBehavior.CLOSE
DROP_OLDEST, CONFLATE = SendBehavior.DROP_OLDEST, SendBehavior.CONFLATE


def message(text):
    return encode(Opcode.TEXT, text.encode(), fragment_size=65536)


def overfull(behavior, **config):
    """A connection whose queue of two is full, its transport, and its policy."""
    conn, transport = full(queue_size=2, send_behavior=behavior, **config)
    for text in ("1", "2"):
        conn.send_nowait(text)
    return conn, transport, conn._config.overflow


def test_every_behavior_has_one_policy() -> None:
    assert set(POLICIES) == set(SendBehavior)
    assert len(set(POLICIES.values())) == len(SendBehavior)


def test_policies_differ_in_these_properties() -> None:
    names = ("waits", "displaces", "uses_key", "drops_queued", "only_drops")
    having = {name: {each for each, policy in POLICIES.items() if getattr(policy, name)} for name in names}
    assert having == {
        "waits": {BLOCK},
        "displaces": {DROP_OLDEST, CONFLATE},
        "uses_key": {CONFLATE},
        "drops_queued": {DROP, DROP_OLDEST, CONFLATE},
        "only_drops": {DROP},
    }


@pytest.mark.parametrize("behavior", SendBehavior)
async def test_config_holds_the_shared_policy_of_its_behavior(behavior) -> None:
    conn, _, policy = overfull(behavior)
    assert policy is POLICIES[behavior] is conn._config.overflow


@pytest.mark.parametrize("behavior", [BLOCK, DROP])
async def test_send_now_refuses_the_new_message(behavior) -> None:
    conn, _, policy = overfull(behavior)
    with pytest.raises(SendQueueFull, match="dropped"):
        policy.send_now(conn, message("3"))
    assert (conn.queued_messages, conn.dropped_messages, conn.state) == (2, 1, State.OPEN)


async def test_send_now_closes_the_connection() -> None:
    conn, _, policy = overfull(CLOSE)
    with pytest.raises(SendQueueFull, match="connection closed"):
        policy.send_now(conn, message("3"))
    assert (conn.queued_messages, conn.dropped_messages, conn.state) == (0, 1, State.CLOSING)


@pytest.mark.parametrize("behavior", [DROP_OLDEST, CONFLATE])
async def test_send_now_displaces_the_oldest_message(behavior) -> None:
    conn, transport, policy = overfull(behavior)
    policy.send_now(conn, message("3"))
    assert (conn.queued_messages, conn.dropped_messages) == (2, 1)
    transport.drain()
    assert texts(transport.wire) == ["2", "3"]


@pytest.mark.parametrize("behavior", [DROP, DROP_OLDEST, CONFLATE])
async def test_beginning_of_a_message_in_pieces_is_refused(behavior) -> None:
    conn, _, policy = overfull(behavior)
    with pytest.raises(SendQueueFull, match="dropped"):
        await policy.send(conn, None)
    assert (conn.queued_messages, conn.dropped_messages) == (2, 1)


async def test_send_waits_for_the_send_timeout() -> None:
    conn, _, policy = overfull(BLOCK, send_timeout=0.01)
    with pytest.raises(SendTimeout):
        await policy.send(conn, message("3"))
    assert (conn.queued_messages, conn.dropped_messages) == (2, 1)


@pytest.mark.parametrize(
    ("behavior", "key", "outcome"),
    [
        (BLOCK, "k", Outcome.WAITS),
        (DROP, "k", Outcome.DROPPED),
        (CLOSE, "k", Outcome.CLOSES),
        (DROP_OLDEST, "k", Outcome.QUEUED),
        (CONFLATE, "k", Outcome.QUEUED),
        (CONFLATE, None, Outcome.QUEUED),
    ],
)
async def test_broadcast_returns_the_outcome_and_counts_nothing(behavior, key, outcome) -> None:
    conn, _, policy = overfull(behavior)
    assert policy.broadcast(conn, message("3"), key) is outcome
    assert (conn.queued_messages, conn.state) == (2, State.OPEN)
    assert conn.dropped_messages == (outcome is Outcome.QUEUED)


@pytest.mark.parametrize("behavior", [DROP_OLDEST, CONFLATE])
async def test_broadcast_is_dropped_while_pieces_are_sent(behavior) -> None:
    conn, _, policy = overfull(behavior)
    conn._in_pieces = True
    assert policy.broadcast(conn, message("3"), "k") is Outcome.DROPPED
    assert not policy.can_queue(conn, 1)


async def test_broadcast_with_a_key_replaces_the_older_one() -> None:
    conn, transport, policy = overfull(CONFLATE)
    for text in ("3", "4", "5"):
        assert policy.broadcast(conn, message(text), "k") is Outcome.QUEUED
    assert (conn.replaced_messages, conn.dropped_messages) == (2, 1)
    transport.drain()
    assert texts(transport.wire) == ["2", "5"]


@pytest.mark.parametrize("behavior", SendBehavior)
async def test_can_queue_is_true_where_others_are_displaced(behavior) -> None:
    conn, transport, policy = overfull(behavior)
    assert policy.can_queue(conn, 1) is policy.displaces
    transport.drain()
    await ticks()
    assert policy.can_queue(conn, 1)


@pytest.mark.parametrize("behavior", SendBehavior)
async def test_relieve_drops_the_queue_where_that_is_allowed(behavior) -> None:
    conn, _, policy = overfull(behavior)
    assert policy.relieve(conn) == (2 if policy.drops_queued else 0)
    assert conn.dropped_messages == conn.evicted_messages == (2 if policy.drops_queued else 0)
    assert conn.queued_messages == (0 if policy.drops_queued else 2)
