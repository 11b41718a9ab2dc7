"""Senders that wait for space in the send queue of a channel, in order.

Functions that take the channel. Its deque of waiters exists only while some wait. Until the last of them is gone, no
other message is accepted.

Invariants: waiters are served in the order in which they came. Each is told its outcome once, unless it is withdrawn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..protocol.message import EncodedMessage

if TYPE_CHECKING:
    from .channel import Channel

__all__ = ["Waiter", "add", "admit", "count", "last", "put_back", "refuse", "withdraw"]


class Waiter:
    """Message that waits for space in the queue.

    ``done(accepted)`` is called once, unless the waiter is withdrawn. With ``None`` for the message it waits to begin a
    message in fragments.
    """

    __slots__ = ("done", "message")

    def __init__(self, message: EncodedMessage | None, done: Callable[[bool], None]) -> None:
        self.message = message
        self.done = done


def add(channel: Channel, message: EncodedMessage | None, done: Callable[[bool], None]) -> Waiter:
    """Wait for space: call ``done(True)`` when the message is accepted, ``done(False)`` when it never will be.

    Without a message, ``done(True)`` tells that a message in fragments has begun.
    """
    waiter = Waiter(message, done)
    if channel._waiters is None:
        channel._waiters = deque()
    channel._waiters.append(waiter)
    return waiter


def put_back(channel: Channel, waiter: Waiter) -> None:
    """Let ``waiter`` wait again, as the first, with another message: its last one was just accepted."""
    if channel._waiters is None:
        channel._waiters = deque()
    channel._waiters.appendleft(waiter)


def last(channel: Channel) -> Waiter | None:
    """Return the last waiter, or ``None``."""
    return channel._waiters[-1] if channel._waiters else None


def count(channel: Channel) -> int:
    """Return the number of waiters."""
    return len(channel._waiters) if channel._waiters else 0


def withdraw(channel: Channel, waiter: Waiter) -> bool:
    """Remove ``waiter``. Return False if its message was accepted or refused before."""
    if channel._waiters is None or waiter not in channel._waiters:
        return False
    channel._waiters.remove(waiter)
    admit(channel)  # a smaller message behind it may fit
    return True


def admit(channel: Channel) -> None:
    """Accept the messages of waiters while there is space. A failure ends the connection."""
    # Read anew in each step: `done` may send, withdraw, or end the connection.
    try:
        while channel._waiters and not channel._in_pieces:
            waiter = channel._waiters[0]
            message = waiter.message
            if message is None:
                channel._in_pieces = True
            elif channel._queue is None or channel._queue.has_space(message.size):
                channel._enter(message, message.size)
            else:
                break
            channel._waiters.popleft()
            if not channel._waiters:
                channel._waiters = None  # a message that `done` sends has no waiter before it
            waiter.done(True)
    except BaseException as exc:
        channel._fail_output(exc)
        if not isinstance(exc, Exception):
            raise
    if not channel._waiters:
        channel._waiters = None


def refuse(channel: Channel) -> None:
    """Refuse all messages that wait for space."""
    waiters, channel._waiters = channel._waiters, None
    while waiters:
        channel._call_done(waiters.popleft().done, False)
