"""What the rooms of a hub remember: the streams, how long they live, and how much they are together (layer 4).

Whether a room has a history is asked when it would begin. Invariants: streams and their bytes are bounded over all
rooms: beyond that the room goes first that was used least recently; a stream lives while its room has members, and
the age of its messages longer; it never comes back under the same epoch.
"""

from __future__ import annotations

from collections.abc import Callable

from .. import limits
from ..position import Position
from ..protocol.message import EncodedMessage
from ..transport.timers import Deadline, Timers
from .history import HistoryLimits, RoomHistory

__all__ = ["HistoryStore", "Policy"]

#: Says how much of a room is kept; ``None`` is nothing.
Policy = Callable[[str], HistoryLimits | None]


class _Entry:
    """A stream and its end."""

    __slots__ = ("deadline", "stream", "used")

    def __init__(self, stream: RoomHistory) -> None:
        self.stream = stream
        self.used = 0.0  # when it was last asked for, added to, or left by the last member
        self.deadline: Deadline | None = None


class HistoryStore:
    """The streams of one hub. Limits of 0 are none."""

    def __init__(self, policy: Policy, *, max_rooms: int, max_bytes: int, has_members: Callable[[str], object]) -> None:
        self._policy = policy
        self._max_rooms = max_rooms
        self._max_bytes = max_bytes
        self._has_members = has_members
        # In the order of use, and of them those that hold messages.
        self._entries: dict[str, _Entry] = {}
        self._filled: dict[str, RoomHistory] = {}
        #: Bytes of memory that all this takes, about.
        self.bytes = 0

    def __len__(self) -> int:
        """How many rooms have a stream."""
        return len(self._entries)

    def stream(self, room: str, timers: Timers) -> RoomHistory | None:
        """The stream of ``room``, which begins now if there is none; ``None`` if the room has no history."""
        entry = self._use(room, timers)
        if entry is None:
            return None
        self._expire(room, entry, timers.time())
        return entry.stream

    def record(self, room: str, message: EncodedMessage, timers: Timers) -> Position | None:
        """Number and keep a message of ``room``; its position, ``None`` if the room has no history."""
        entry = self._use(room, timers)
        if entry is None:
            return None
        stream = entry.stream
        before = stream.bytes
        stream.record(message, timers.time())
        self.bytes += stream.bytes - before
        self._filled.pop(room, None)
        if len(stream):
            self._filled[room] = stream
        while self._max_bytes and self.bytes > self._max_bytes and self._filled:
            self._drop_oldest()
        return stream.position

    def left(self, room: str, timers: Timers) -> None:
        """Somebody has left ``room``."""
        entry = self._entries.get(room)
        if entry is not None and not self._has_members(room):
            entry.used = timers.time()
            self._arm(room, entry, timers)

    def clear(self) -> None:
        """Forget everything."""
        for room in list(self._entries):
            self._forget(room)

    # --- inside -----------------------------------------------------------------------------------

    def _use(self, room: str, timers: Timers) -> _Entry | None:
        entry = self._entries.pop(room, None)
        if entry is None:
            bounds = self._policy(room)
            if bounds is None:
                return None
            if not isinstance(bounds, HistoryLimits):
                raise TypeError(f"history must give HistoryLimits or None for a room, not {type(bounds).__name__}")
            if self._is_full(len(self._entries) + 1):
                self._forget(next(iter(self._entries)))
            entry = _Entry(RoomHistory(bounds))
            self.bytes += limits.HISTORY_ROOM_OVERHEAD
        self._entries[room] = entry
        entry.used = timers.time()
        self._arm(room, entry, timers)
        return entry

    def _is_full(self, rooms: int) -> bool:
        """Return whether so many rooms are too many: they may take half of the bytes, and one there may always be."""
        if self._max_bytes and rooms > 1 and rooms * limits.HISTORY_ROOM_OVERHEAD * 2 > self._max_bytes:
            return True
        return 0 < self._max_rooms < rooms

    def _arm(self, room: str, entry: _Entry, timers: Timers) -> None:
        """See to the end of ``entry`` when there may be one; one deadline is enough, for the end only moves away."""
        if entry.deadline is None:
            due = entry.stream.next_expiry
            due = entry.used + entry.stream.bounds.max_age if due is None else due
            entry.deadline = timers.at(due, lambda: self._due(room, entry, timers))

    def _due(self, room: str, entry: _Entry, timers: Timers) -> None:
        entry.deadline = None
        now = timers.time()
        self._expire(room, entry, now)
        if not len(entry.stream) and not self._has_members(room):
            if entry.used + entry.stream.bounds.max_age <= now:
                self._forget(room)
                return
            self._arm(room, entry, timers)
        elif len(entry.stream):
            self._arm(room, entry, timers)
        # Else there is nothing to do before the next message, or before the last member leaves.

    def _expire(self, room: str, entry: _Entry, now: float) -> None:
        stream = entry.stream
        self.bytes -= stream.bytes
        stream.expire(now)
        self.bytes += stream.bytes
        if not len(stream):
            self._filled.pop(room, None)

    def _drop_oldest(self) -> None:
        """Make room: the oldest message of the room that was published to least recently."""
        room, stream = next(iter(self._filled.items()))
        self.bytes -= stream.bytes
        stream.drop_oldest()
        self.bytes += stream.bytes
        if not len(stream):
            del self._filled[room]

    def _forget(self, room: str) -> None:
        entry = self._entries.pop(room)
        self._filled.pop(room, None)
        self.bytes -= entry.stream.bytes + limits.HISTORY_ROOM_OVERHEAD
        if entry.deadline is not None:
            entry.deadline.cancel()
            entry.deadline = None
