"""What one room remembers, and where in it somebody stands (layer 2).

A stream numbers the messages of a room and keeps the newest of them, as they were encoded: the bytes that the members'
queues hold, too, not copies. Time is passed in. Invariants: what is kept has no holes and ends with the newest message;
a number is given once in the life of a stream, which its epoch names; beyond its bounds the oldest go first.
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
    """How much of a room is kept, whichever bound is met first.

    Args:
        max_messages: the newest so many (default 100).
        max_age: seconds for which a message is kept (default 300); so long the history of a room outlives its last
            member, and its last message.
        max_bytes: of all that is kept together, in memory (default 1 MiB): the frames, and 272 for each message.

    Raises:
        ValueError: a bound is not more than 0. TypeError: it is not a number.
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
    """What somebody got who came back; the messages themselves are on their way.

    Attributes:
        complete: whether nothing is missing between the position that was asked for and what comes from now on.
        messages: how many were queued for it.
        position: behind the last message before what comes from now on; ``None`` if the room has no history.
    """

    complete: bool
    messages: int
    position: Position | None


class RoomHistory:
    """The messages of one room, numbered from 1."""

    __slots__ = ("_kept", "bounds", "bytes", "epoch", "offset")

    def __init__(self, bounds: HistoryLimits) -> None:
        self.bounds = bounds
        self.epoch = secrets.token_hex(8)
        #: Of the newest message.
        self.offset = 0
        #: Bytes of memory that all messages take which are kept, about.
        self.bytes = 0
        self._kept: deque[tuple[float, EncodedMessage]] = deque()

    def __len__(self) -> int:
        """How many messages are kept."""
        return len(self._kept)

    @property
    def position(self) -> Position:
        """Behind the newest message."""
        return Position(self.epoch, self.offset)

    @property
    def next_position(self) -> Position:
        """Behind the message that will be recorded next."""
        return Position(self.epoch, self.offset + 1)

    @property
    def next_expiry(self) -> float | None:
        """When the oldest message is too old; ``None`` if none is kept."""
        return self._kept[0][0] + self.bounds.max_age if self._kept else None

    def record(self, message: EncodedMessage, now: float) -> None:
        """Number ``message`` and keep it, as far as the bounds allow."""
        offset, size = self.offset + 1, self.bytes + message.size + limits.HISTORY_OVERHEAD
        self._kept.append((now, message))
        self.offset, self.bytes = offset, size
        while len(self._kept) > self.bounds.max_messages or self.bytes > self.bounds.max_bytes:
            self.drop_oldest()

    def expire(self, now: float) -> None:
        """Forget what is too old."""
        while self._kept and self._kept[0][0] + self.bounds.max_age <= now:
            self.drop_oldest()

    def drop_oldest(self) -> None:
        """Forget the oldest message that is kept."""
        self.bytes -= self._kept.popleft()[1].size + limits.HISTORY_OVERHEAD

    def since(self, position: Position) -> tuple[bool, list[EncodedMessage]]:
        """What is kept of the messages behind ``position``, and whether that is all of them.

        ``Position("", 0)`` is the start of this stream. For any other epoch everything is new, and never complete. A
        position in the future gets nothing, and is not complete.
        """
        if position.epoch != self.epoch and (position.epoch or position.offset):
            return False, [message for _, message in self._kept]
        missed = self.offset - position.offset
        if missed < 0:
            return False, []
        first = max(0, len(self._kept) - missed)
        return missed <= len(self._kept), [message for _, message in islice(self._kept, first, None)]
