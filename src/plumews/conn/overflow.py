"""Overflow policies: the answer of a full send queue to one more message.

Each :class:`SendBehavior` has one policy, which all connections share. A new behavior is a member of that enum and a
policy in :data:`POLICIES`. Policies call `full_queue` to wait, to close, or to displace queued messages, which are
counted there. A new operation on a full queue is a function of :mod:`plumews.transport.displacing`.
"""

from __future__ import annotations

import enum
from collections.abc import Hashable
from typing import TYPE_CHECKING

from ..constants import SendBehavior
from ..errors import SendQueueFull
from ..protocol.message import EncodedMessage
from ..transport import displacing
from . import full_queue

if TYPE_CHECKING:
    from .core import ConnCore

__all__ = ["POLICIES", "Outcome", "OverflowPolicy"]


class Outcome(enum.Enum):
    """Result of a broadcast to a member whose send queue is full."""

    QUEUED = "queued"
    DROPPED = "dropped"
    #: The hub keeps the message until the queue has space, for ``send_timeout`` at most.
    WAITS = "waits"
    #: The hub counts the message as dropped, then closes the connection with 1013.
    CLOSES = "closes"


class OverflowPolicy:
    """Base class of the policies. By default the new message is refused.

    Policies have no state. ``message`` is ``None`` where a message in pieces is to begin, which cannot displace others.
    """

    __slots__ = ()

    #: True if a sender waits for space, up to ``send_timeout``.
    waits = False
    #: True if a new message takes the place of queued ones. Then the kernel's buffer is kept small.
    displaces = False
    #: True if a broadcast with a key replaces the queued one with the same key, even while there is space.
    uses_key = False
    #: True if queued messages may be dropped, for newer ones or because the members of a hub hold too much memory.
    drops_queued = True
    #: True if :meth:`broadcast` always drops the message and does nothing else. Then a fan-out does not call it.
    only_drops = False

    async def send(self, conn: ConnCore, message: EncodedMessage | None) -> None:
        """Queue a message of a sender that can wait. Raise as :meth:`plumews.Conn.send`."""
        self.send_now(conn, message)

    def send_now(self, conn: ConnCore, message: EncodedMessage | None) -> None:
        """Queue a message of a sender that cannot wait, or raise ``SendQueueFull``."""
        conn._dropped += 1
        raise SendQueueFull("dropped")

    def broadcast(self, conn: ConnCore, message: EncodedMessage, key: Hashable = None) -> Outcome:
        """Return the outcome of a hub's broadcast; the hub counts it and does the rest."""
        return Outcome.DROPPED

    def can_queue(self, conn: ConnCore, size: int) -> bool:
        """Return whether a message of ``size`` bytes finds space now, in the place of others if need be."""
        return conn._can_queue(size)

    def relieve(self, conn: ConnCore) -> int:
        """Drop the queued messages to free memory. Return their number; with 0 the hub closes the connection."""
        count = displacing.drop_queued(conn) if self.drops_queued else 0
        full_queue.count_displaced(conn, count)
        return count


class _Drop(OverflowPolicy):
    """Policy of ``SendBehavior.DROP``: refuse the new message."""

    __slots__ = ()
    only_drops = True


class _Block(OverflowPolicy):
    """Policy of ``SendBehavior.BLOCK``: wait for space."""

    __slots__ = ()
    waits = True
    drops_queued = False

    async def send(self, conn: ConnCore, message: EncodedMessage | None) -> None:
        await full_queue.wait_for_space(conn, message)

    def broadcast(self, conn: ConnCore, message: EncodedMessage, key: Hashable = None) -> Outcome:
        return Outcome.WAITS


class _Close(OverflowPolicy):
    """Policy of ``SendBehavior.CLOSE``: close with 1013."""

    __slots__ = ()
    drops_queued = False

    def send_now(self, conn: ConnCore, message: EncodedMessage | None) -> None:
        conn._dropped += 1
        full_queue.evict(conn)
        raise SendQueueFull("connection closed")

    def broadcast(self, conn: ConnCore, message: EncodedMessage, key: Hashable = None) -> Outcome:
        return Outcome.CLOSES


class _DropOldest(OverflowPolicy):
    """Policy of ``SendBehavior.DROP_OLDEST``: the oldest messages make room."""

    __slots__ = ()
    displaces = True

    def send_now(self, conn: ConnCore, message: EncodedMessage | None) -> None:
        if message is None or not full_queue.displace(conn, message):
            super().send_now(conn, message)

    def broadcast(self, conn: ConnCore, message: EncodedMessage, key: Hashable = None) -> Outcome:
        return Outcome.QUEUED if full_queue.displace(conn, message) else Outcome.DROPPED

    def can_queue(self, conn: ConnCore, size: int) -> bool:
        return super().can_queue(conn, size) or not conn._in_pieces


class _Conflate(_DropOldest):
    """Policy of ``SendBehavior.CONFLATE``: the newest message of each key stays."""

    __slots__ = ()
    uses_key = True

    def broadcast(self, conn: ConnCore, message: EncodedMessage, key: Hashable = None) -> Outcome:
        if key is None:
            return super().broadcast(conn, message)
        return Outcome.QUEUED if full_queue.conflate(conn, message, key) else Outcome.DROPPED


#: The policy of each behavior.
POLICIES = {
    SendBehavior.BLOCK: _Block(),
    SendBehavior.DROP: _Drop(),
    SendBehavior.CLOSE: _Close(),
    SendBehavior.DROP_OLDEST: _DropOldest(),
    SendBehavior.CONFLATE: _Conflate(),
}
