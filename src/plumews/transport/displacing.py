"""Displacing: make space in the full send queue of a channel, at the cost of messages that it holds.

Functions that take the channel. Compiled with Cython. `send_queue` finds the messages that go. The functions here count
them and queue the new message. The overflow policy of the connection decides whether any of this happens.

Invariants: a waiting sender is never overtaken, and a message that is sent in fragments never cut. If a call fails, the
connection ends, because no report could tell its peer which messages are missing.
"""

from __future__ import annotations

from typing import Any

from ..protocol.message import EncodedMessage
from .channel import Channel
from .send_queue import DONE, STALE

__all__ = ["conflate", "displace", "drop_queued"]


def displace(channel: Channel, message: EncodedMessage) -> int:
    """Queue ``message``, which was refused, in place of the oldest ones.

    Return how many were dropped for it; -1 if it cannot be queued, because a message is sent in fragments.
    """
    if channel._waiters is not None or channel._in_pieces:
        return -1
    try:
        dropped = 0
        queue = channel._queue
        if queue is not None:
            before = queue.bytes
            dropped = queue.make_room(message.size)
            channel._displaced_bytes += before - queue.bytes
        Channel._enter(channel, message, message.size)
    except BaseException:
        channel._fail_output(None)
        raise
    channel._evicted += dropped
    return dropped


def conflate(channel: Channel, message: EncodedMessage, key: Any) -> int:
    """Queue ``message`` in place of the queued one with ``key``, else as :func:`displace` does."""
    if channel._waiters is not None:
        return -1
    try:
        queue = channel._queue
        if queue is not None:
            found, size = queue.replace(message, key)
            channel._displaced_bytes += size
            if found == DONE:
                channel._replaced += 1
                return 0
            if channel._in_pieces:
                return -1
            if found == STALE:
                channel._displaced_bytes += queue.take_key(key)
                channel._replaced += 1
            elif not queue.has_space(message.size):
                channel._write_out()
        dropped = displace(channel, message)
        if dropped >= 0 and channel._queue is not None:
            channel._queue.remember(key)
    except BaseException:
        channel._fail_output(None)
        raise
    return dropped


def drop_queued(channel: Channel) -> int:
    """Drop all queued messages, except for one that is sent in fragments. Return how many."""
    dropped = 0
    if channel._queue is not None and not channel._in_pieces:
        dropped, size = channel._queue.drop_messages()
        channel._displaced_bytes += size
        Channel._return_queue(channel)
    channel._evicted += dropped
    if dropped and channel._compressor is not None:
        channel._compressor.reset()
    return dropped
