"""History of one room: its newest messages, numbered, and their bounds.

A history keeps messages as they were encoded. It shares their bytes with the members' send queues. Time is passed in.
Invariants: the kept messages have no holes and end with the newest one. A number is used once in the life of a history,
which its epoch names. Beyond the bounds the oldest messages are dropped first.
"""

from __future__ import annotations

import secrets
from collections import deque
from dataclasses import dataclass
from itertools import islice

from .. import limits
from ..position import Position
from ..protocol.message import EncodedMessage
from ..validation import check_count, check_time

__all__ = ["HistoryLimits", "Recovery", "RoomHistory"]


@dataclass(frozen=True)
class HistoryLimits:
    """Bounds of the history of one room. The first bound that is reached counts.

    Args:
        max_messages: number of messages, 1 or more (default 100).
        max_age: seconds that a message is kept (default 300). The history of a room outlives its last member and its
            last message by that time.
        max_bytes: bytes of memory (default 1 MiB): the frames, and 272 for each message.

    Raises:
        ValueError: a bound is not more than 0.
        TypeError: a bound is not a number.
    """

    max_messages: int = limits.HISTORY_MESSAGES
    max_age: float = limits.HISTORY_AGE
    max_bytes: int = limits.HISTORY_ROOM_BYTES

    def __post_init__(self) -> None:
        check_count("max_messages", self.max_messages)
        check_time("max_age", self.max_age)
        check_count("max_bytes", self.max_bytes)


@dataclass(frozen=True)
class Recovery:
    """Result of :meth:`plumews.Hub.recover`. The messages are queued.

    Attributes:
        complete: True if no message is missing between the requested position and later messages.
        messages: number of messages that were queued.
        position: position behind the last message before later ones. ``None`` if the room has no history.
    """

    complete: bool
    messages: int
    position: Position | None


class RoomHistory:
    """Messages of one room, numbered from 1."""

    __slots__ = ("_kept", "bounds", "bytes", "epoch", "offset")

    def __init__(self, bounds: HistoryLimits) -> None:
        self.bounds = bounds
        self.epoch = secrets.token_hex(8)
        #: Number of the newest message.
        self.offset = 0
        #: Bytes of memory that the kept messages take, about.
        self.bytes = 0
        self._kept: deque[tuple[float, EncodedMessage]] = deque()

    def __len__(self) -> int:
        """Return the number of kept messages."""
        return len(self._kept)

    @property
    def position(self) -> Position:
        """Position behind the newest message."""
        return Position(self.epoch, self.offset)

    @property
    def next_position(self) -> Position:
        """Position behind the message that will be recorded next."""
        return Position(self.epoch, self.offset + 1)

    @property
    def next_expiry(self) -> float | None:
        """Time at which the oldest message is too old. ``None`` if no message is kept."""
        return self._kept[0][0] + self.bounds.max_age if self._kept else None

    def record(self, message: EncodedMessage, now: float) -> None:
        """Give ``message`` the next number and keep it, as far as the bounds allow."""
        offset, size = self.offset + 1, self.bytes + message.size + limits.HISTORY_OVERHEAD
        self._kept.append((now, message))
        self.offset, self.bytes = offset, size
        while len(self._kept) > self.bounds.max_messages or self.bytes > self.bounds.max_bytes:
            self.drop_oldest()

    def expire(self, now: float) -> None:
        """Drop the messages that are too old."""
        while self._kept and self._kept[0][0] + self.bounds.max_age <= now:
            self.drop_oldest()

    def drop_oldest(self) -> None:
        """Drop the oldest message that is kept."""
        self.bytes -= self._kept.popleft()[1].size + limits.HISTORY_OVERHEAD

    def since(self, position: Position) -> tuple[bool, list[EncodedMessage]]:
        """Return whether all messages behind ``position`` are kept, and the kept ones.

        ``Position("", 0)`` is the start of this history. For any other epoch all messages are new, and never complete.
        For a position in the future there are none, which is not complete.
        """
        if position.epoch != self.epoch and (position.epoch or position.offset):
            return False, [message for _, message in self._kept]
        missed = self.offset - position.offset
        if missed < 0:
            return False, []
        first = max(0, len(self._kept) - missed)
        return missed <= len(self._kept), [message for _, message in islice(self._kept, first, None)]
