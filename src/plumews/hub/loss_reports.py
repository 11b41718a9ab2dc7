"""Loss reports: tell members, the application and the log about messages that slow members lost.

A refused message is missing behind everything that waits, a displaced one in front of it. While nothing leaves, losses
are added up. One event for each room is queued when the peer takes data again, before the next message, and before the
close frame. An event that still waits when more is lost is taken back and encoded anew. Callbacks run at the end of the
event loop iteration, never within a broadcast.

Invariants: the events of a member and its unreported loss add up to what it lost, whatever rooms it is in by now. What
waits for callbacks is bounded by the number of members.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable
from contextvars import Context
from typing import Any

from .. import limits
from ..conn import full_queue
from ..conn.connection import Conn
from ..constants import State
from ..protocol.message import EncodedMessage, encode, opcode_of, payload_of
from ..transport.loop_context import loop_context
from ..transport.safe_calls import in_own_context
from ..transport.send_queue import Note
from ..transport.timers import Deadline
from .events import EventDispatcher
from .results import Gap

__all__ = ["DropLog", "EncodeGap", "LossReports", "LostMessages", "Notices", "UnreportedLoss"]

logger = logging.getLogger("plumews.hub")

#: Seconds between two lines of a hub about lost messages. A line for each drop would flood the log of a busy machine.
LOG_INTERVAL = 1.0

_lines = itertools.count(1)

EncodeGap = Callable[[Gap], "str | bytes | None"]


class LostMessages(dict["str | None", int]):
    """Numbers of lost messages by room."""

    __slots__ = ()

    def add(self, room: str | None, count: int) -> None:
        """Add ``count`` lost messages of ``room``. Beyond the bound of rooms they are added up without a room."""
        if room not in self and len(self) >= limits.ROOMS_PER_CONNECTION:
            room = None
        self[room] = self.get(room, 0) + count


class _QueueEnd:
    """Loss at one end of a connection's queue, and the frames of the events about it that stand there."""

    __slots__ = ("frames", "lost")

    def __init__(self) -> None:
        self.lost = LostMessages()
        self.frames: list[tuple[Any, str | None, int]] = []


class UnreportedLoss:
    """Loss of one connection that no event has told yet. Another hub reports the part in ``elsewhere``."""

    __slots__ = ("elsewhere", "first", "last")

    def __init__(self) -> None:
        self.first = _QueueEnd()
        self.last = _QueueEnd()
        self.elsewhere = LostMessages()

    def __bool__(self) -> bool:
        return bool(self.first.lost or self.last.lost or self.elsewhere)


class LossReports:
    """Events about lost messages for the members of one hub."""

    def __init__(self, encode_gap: EncodeGap | None, notices: Notices) -> None:
        self._encode_gap = None if encode_gap is None else in_own_context(encode_gap)
        self._notices = notices
        #: True while ``encode_gap`` runs, which may be in the midst of a broadcast.
        self.encoding = False

    @property
    def encodes(self) -> bool:
        """True if the application encodes an event for each loss."""
        return self._encode_gap is not None

    @property
    def wanted(self) -> bool:
        """True if the member or a callback hears of losses."""
        return self._encode_gap is not None or self._notices.wanted("gap")

    def report(self, conn: Conn, loss: UnreportedLoss) -> None:
        """Queue the events about ``loss``. Within a message in pieces nothing is queued and ``loss`` is kept."""
        self.notify(conn, loss.elsewhere)
        for end, first in ((loss.first, True), (loss.last, False)):
            if not end.lost:
                continue
            if self._encode_gap is None:
                self.notify(conn, end.lost)
            elif full_queue.takes_note(conn, first=first):
                self._queue(conn, end, first)

    def give_up(self, conn: Conn, loss: UnreportedLoss) -> None:
        """Notify the application alone, because nothing can be queued for ``conn`` any more."""
        for lost in (loss.first.lost, loss.last.lost, loss.elsewhere):
            self.notify(conn, lost)

    def notify(self, member: Any, lost: LostMessages) -> LostMessages:
        """Call ``on_gap`` for the losses of ``member``. Clear ``lost``, and return a copy of it."""
        copy = LostMessages(lost)
        lost.clear()
        for room, count in copy.items():
            self._notices.gap(member, Gap(room, count))
        return copy

    def event(self, gap: Gap) -> EncodedMessage | None:
        """Return the message that the application encodes for ``gap``, in one buffer. ``None`` if it wants none."""
        if self._encode_gap is None:
            return None
        outer, self.encoding = self.encoding, True  # a direct send within may lead to a call for another member
        try:
            data = self._encode_gap(gap)
            if data is None:
                return None
            opcode = opcode_of(data)
            message = encode(opcode, payload_of(opcode, data))
            return EncodedMessage([b"".join(message.buffers)], message.size)
        except (Exception, asyncio.CancelledError) as exc:
            asyncio.get_running_loop().call_exception_handler({"message": "encode_gap failed", "exception": exc})
            return None
        finally:
            self.encoding = outer

    def _queue(self, conn: Conn, end: _QueueEnd, first: bool) -> None:
        lost = self.notify(conn, end.lost)
        frames, end.frames = end.frames, []
        for frame, room, count in reversed(frames):
            if full_queue.take_note(conn, frame, last=not first):
                lost.add(room, count)
        # All are encoded before one is queued: encode_gap may end the connection.
        events = [(self.event(Gap(room, count)), room, count) for room, count in lost.items()]
        if conn.state is not State.OPEN:
            return
        end.frames = [
            (Note(bytes(event.buffers[0])), room, count) for event, room, count in events if event is not None
        ]
        for frame, _, _ in reversed(end.frames) if first else end.frames:
            full_queue.add_note(conn, frame, first=first)
        conn._kick_later()


class Notices:
    """Callbacks of one hub about slow members, called at the end of the event loop iteration.

    Drops of one member and room within an iteration are told by one call.
    """

    def __init__(self, callbacks: EventDispatcher) -> None:
        self._callbacks = callbacks
        self._slow: list[Any] = []
        self._drops: dict[tuple[Any, str | None], int] = {}
        self._gaps: list[tuple[Any, Gap]] = []
        self._scheduled = False

    def wanted(self, kind: str) -> bool:
        """Return True if a callback for ``kind`` is registered."""
        return self._callbacks.wanted(kind)

    def slow(self, member: Any) -> None:
        """Tell that the queue of ``member`` is half full."""
        if self.wanted("slow"):
            self._slow.append(member)
            self._schedule()

    def dropped(self, member: Any, room: str | None, count: int) -> None:
        """Tell that ``member`` has lost ``count`` messages."""
        if self.wanted("drop"):
            self._drops[member, room] = self._drops.get((member, room), 0) + count
            self._schedule()

    def gap(self, member: Any, gap: Gap) -> None:
        """Tell that the next message of ``member`` stands behind ``gap``."""
        if self.wanted("gap"):
            self._gaps.append((member, gap))
            self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            asyncio.get_running_loop().call_soon(self._call, context=Context())
            self._scheduled = True

    def _call(self) -> None:
        self._scheduled = False
        slow, self._slow = self._slow, []
        drops, self._drops = self._drops, {}
        gaps, self._gaps = self._gaps, []
        self._callbacks.dispatch("slow", *[(member,) for member in slow])
        self._callbacks.dispatch("drop", *[(member, room, count) for (member, room), count in drops.items()])
        self._callbacks.dispatch("gap", *gaps)


class DropLog:
    """Log of one hub about slow members: at most one line a second, with numbers and no text from outside."""

    def __init__(self) -> None:
        #: Number of the next line, among those of all hubs.
        self.interval = next(_lines)
        self._messages = self._closed = 0
        self._members: set[int] = set()
        self._next: Deadline | None = None

    def dropped(self, member: Any, count: int) -> None:
        """Count ``count`` lost messages of ``member``."""
        self.concern(member)
        self.count(count)

    def concern(self, member: Any) -> None:
        """Count ``member`` in the next line."""
        self._members.add(id(member))

    def count(self, count: int) -> None:
        """Count ``count`` lost messages of members that :meth:`concern` has counted."""
        self._messages += count
        if self._next is None:
            self._next = loop_context(asyncio.get_running_loop()).timers.after(LOG_INTERVAL, self.write)

    def closed(self, member: Any) -> None:
        """Count a member that is closed with 1013."""
        self._closed += 1
        self.dropped(member, 0)

    def write(self) -> None:
        """Log what was counted since the last line."""
        if self._next is None:
            return
        self._next.cancel()
        self._next = None
        self.interval = next(_lines)
        logger.warning(
            "slow members: %d messages dropped, %d members concerned, %d of them closed",
            self._messages,
            len(self._members),
            self._closed,
        )
        self._messages = self._closed = 0
        self._members.clear()
