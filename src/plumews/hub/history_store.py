"""Histories of all rooms of a hub: their lifetime, their bounds together, and the recovery of missed messages.

The policy is asked for a room when its history would begin. Invariants: histories and their bytes are bounded over all
rooms. Beyond that the room goes first that was used least recently. A history lives while its room has members, and
the age of its messages longer. It never comes back under the same epoch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias, cast

from .. import limits
from ..conn.connection import Conn
from ..conn.sender import outgoing
from ..deflate.encodings import EncodingCache
from ..position import Position
from ..protocol.message import Data, EncodedMessage, opcode_of
from ..transport import message_run, waiters
from ..transport.timers import Deadline, Timers
from ..validation import check_call, is_plain_function
from .config import HubConfig
from .history import HistoryLimits, Recovery, RoomHistory
from .member import AnyMember, OtherMembers
from .rooms import Target

__all__ = [
    "EncodeRecovered",
    "HistoryStore",
    "Places",
    "Policy",
    "check_encode_recovered",
    "check_recovery",
    "send_missed",
]

#: Returns the bounds of a room's history. ``None``: the room has none.
Policy = Callable[[str], HistoryLimits | None]

#: Bytes of kept messages that have compressed encodings, with these, for all members of a hub that recover.
ENCODINGS_BYTES = 4 * 1024 * 1024

#: Position of a message in the history of its room. For several rooms those in each that has a history.
Places: TypeAlias = "Position | dict[str, Position] | None"

#: Makes of a recovery the message that the peer gets before the missed ones.
EncodeRecovered: TypeAlias = "Callable[[Recovery], Data | None]"


class _Entry:
    """A history and its end."""

    __slots__ = ("deadline", "stream", "used")

    def __init__(self, stream: RoomHistory) -> None:
        self.stream = stream
        self.used = 0.0  # time of the last question, the last message, or the leave of the last member
        self.deadline: Deadline | None = None


class HistoryStore:
    """Histories of the rooms of one hub."""

    def __init__(self, policy: Policy, config: HubConfig, has_members: Callable[[str], object]) -> None:
        self._policy = policy
        self._max_rooms = config.max_history_rooms
        self._max_bytes = config.max_history_bytes
        self._has_members = has_members
        # In the order of use, and of them those that hold messages.
        self._entries: dict[str, _Entry] = {}
        self._filled: dict[str, RoomHistory] = {}
        #: Compressed encodings of kept messages, to be sent again.
        self.encodings = EncodingCache(ENCODINGS_BYTES)
        #: Bytes of memory that all this takes, about.
        self.bytes = 0

    def __len__(self) -> int:
        """Return the number of rooms that have a history."""
        return len(self._entries)

    def stream(self, room: str, timers: Timers) -> RoomHistory | None:
        """Return the history of ``room``, which begins now if there is none. ``None`` if the room has none."""
        entry = self._use(room, timers)
        if entry is None:
            return None
        self._expire(room, entry, timers.time())
        return entry.stream

    def position(self, room: str, timers: Timers) -> Position | None:
        """Return the position behind the newest message of ``room``. ``None`` if the room has no history."""
        stream = self.stream(room, timers)
        return None if stream is None else stream.position

    def next_places(self, target: Target, timers: Timers) -> Places:
        """Return the position that the next message to ``target`` will have."""
        if target is None:
            return None
        rooms = [target] if isinstance(target, str) else target
        streams = {room: self.stream(room, timers) for room in rooms}
        places = {room: stream.next_position for room, stream in streams.items() if stream is not None}
        return places.get(target) if isinstance(target, str) else places

    def keep(self, target: Target, message: EncodedMessage, timers: Timers) -> Places:
        """Keep a message that is about to be sent to the members of ``target``, and return its position."""
        if target is None:
            return None
        # Kept is the message alone: compressed encodings that members get now are not counted here.
        message = EncodedMessage(message.buffers, message.size, message.compress)
        if isinstance(target, str):
            return self.record(target, message, timers)
        places = {room: self.record(room, message, timers) for room in dict.fromkeys(target)}
        return {room: place for room, place in places.items() if place is not None}

    def record(self, room: str, message: EncodedMessage, timers: Timers) -> Position | None:
        """Keep a message of ``room`` and return its position. ``None`` if the room has no history."""
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
        """Begin the end of the history of ``room`` if its last member has left."""
        entry = self._entries.get(room)
        if entry is not None and not self._has_members(room):
            entry.used = timers.time()
            self._arm(room, entry, timers)

    def clear(self) -> None:
        """Forget everything."""
        for room in list(self._entries):
            self._forget(room)
        self.encodings.clear()

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
        """Return True if so many rooms are too many. They may take half of the bytes. One room is always allowed."""
        if self._max_bytes and rooms > 1 and rooms * limits.HISTORY_ROOM_OVERHEAD * 2 > self._max_bytes:
            return True
        return 0 < self._max_rooms < rooms

    def _arm(self, room: str, entry: _Entry, timers: Timers) -> None:
        """Set the deadline of ``entry``. One deadline is enough, because its end only moves away."""
        if entry.deadline is None:
            due = entry.stream.next_expiry
            due = entry.used + entry.stream.bounds.max_age if due is None else due
            entry.deadline = timers.at(due, lambda: self._due(room, entry, timers))

    def _due(self, room: str, entry: _Entry, timers: Timers) -> None:
        entry.deadline = None
        now = timers.time()
        self._expire(room, entry, now)
        gone = not len(entry.stream) and not self._has_members(room)
        if gone and entry.used + entry.stream.bounds.max_age <= now:
            self._forget(room)
        elif gone or len(entry.stream):
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
        """Drop the oldest message of the room that was published to least recently."""
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


# --- recovery -------------------------------------------------------------------------------------


def check_encode_recovered(function: object) -> None:
    """Raise `TypeError` unless ``function`` is a plain function of a :class:`plumews.Recovery`."""
    if not is_plain_function(function):
        raise TypeError(
            "encode_recovered must be a plain function, which takes a plumews.Recovery and returns a str, bytes or "
            f"None, not {getattr(function, '__qualname__', type(function).__name__)}"
        )
    check_call("encode_recovered", cast("Callable[..., object]", function), "recovery")


def check_recovery(position: object, encode_recovered: object) -> None:
    """Raise `TypeError` for arguments that :meth:`plumews.Hub.recover` does not take."""
    if not isinstance(position, Position):
        raise TypeError(f"position must be a plumews.Position, not {type(position).__name__}: use Position.parse")
    if encode_recovered is not None:
        check_encode_recovered(encode_recovered)


def send_missed(
    history: HistoryStore | None,
    room: str,
    conn: AnyMember,
    position: Position,
    timers: Timers,
    encode_recovered: EncodeRecovered | None,
    ask: Callable[[EncodeRecovered, Recovery], Data | None],
    others: OtherMembers,
) -> Recovery:
    """Queue the messages of ``room`` since ``position`` for ``conn``, behind the message of ``encode_recovered``.

    ``ask`` calls that function so that it cannot broadcast. ``others`` are the members that are no `Conn`.
    """
    stream = None if history is None else history.stream(room, timers)
    complete, messages = (False, []) if stream is None else stream.since(position)
    place = None if stream is None else stream.position
    if not isinstance(conn, Conn):
        sent = others.fitting(conn, messages, 0 if encode_recovered is None else 1)
        recovery = Recovery(complete and sent == len(messages), sent, place)
        said = None if encode_recovered is None else ask(encode_recovered, recovery)
        queued = others.queue_missed(conn, said, messages, sent)
        return Recovery(complete and queued == len(messages), queued, place)
    if history is not None:
        messages = history.encodings.choose(messages, conn._shared, conn._deflate is not None)
    sent = message_run.room_for(conn, messages)
    recovery = Recovery(complete and sent == len(messages), sent, place)
    run = messages[:sent]
    if encode_recovered is not None:
        said = ask(encode_recovered, recovery)
        if said is not None:
            event = outgoing(conn, opcode_of(said), said)
            if conn._in_pieces or waiters.count(conn):  # neither can it be queued, nor was anything else
                conn._dropped += 1
            else:
                run.insert(0, event)
        elif conn.closed:
            raise conn._rules.closed()
    conn._dropped += len(messages) - sent
    message_run.accept(conn, run)
    return recovery
