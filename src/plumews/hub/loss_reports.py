"""Gap events: tell a member what it has lost, in the place where it is missing (layer 4).

A refused message is missing behind all that waits, one that gave way in front of it. While nothing leaves, losses are
added up. One event for each room is queued when the peer takes something again, before the next message is queued, and
before the close frame. Two events never stand side by side: one that still waits when more is lost is taken back and
told anew.

Invariant: the events of a member and its debt add up to what it has lost, whatever rooms it is in by now.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from .. import limits
from ..conn.connection import Conn
from ..constants import State
from ..protocol.message import encode, opcode_of, payload_of
from ..transport.safe_calls import in_own_context
from .notices import Notices
from .results import Gap

__all__ = ["Debt", "EncodeGap", "Gaps"]

EncodeGap = Callable[[Gap], "str | bytes | None"]


class End:
    """What is missing at one end of a member's queue, by room, and the events about it that stand there."""

    __slots__ = ("lost", "notes")

    def __init__(self) -> None:
        self.lost: dict[str | None, int] = {}
        self.notes: list[tuple[memoryview, str | None, int]] = []

    def add(self, room: str | None, count: int) -> None:
        """Add ``count`` lost messages of ``room``; a member that has lost some of very many rooms is told a sum."""
        if room not in self.lost and len(self.lost) >= limits.ROOMS_PER_CONNECTION:
            room = None
        self.lost[room] = self.lost.get(room, 0) + count


class Debt:
    """Loss that one member was not told of. Another hub reports the part in ``elsewhere``."""

    __slots__ = ("elsewhere", "first", "last")

    def __init__(self) -> None:
        self.first = End()
        self.last = End()
        self.elsewhere = End()

    def __bool__(self) -> bool:
        return bool(self.first.lost or self.last.lost or self.elsewhere.lost)


class Gaps:
    """Makes the events of one hub."""

    def __init__(self, encode_gap: EncodeGap | None, notices: Notices) -> None:
        self._encode_gap = None if encode_gap is None else in_own_context(encode_gap)
        self._notices = notices
        #: Whether the application is at it, maybe in the midst of a broadcast.
        self.encoding = False

    @property
    def encodes(self) -> bool:
        """Whether the application is asked when events are queued."""
        return self._encode_gap is not None

    @property
    def wanted(self) -> bool:
        """Whether anybody is to hear of gaps."""
        return self._encode_gap is not None or self._notices.wanted("gap")

    def pay(self, conn: Conn, debt: Debt) -> None:
        """Queue the events that ``conn`` is owed; not within a message in pieces, which leaves a debt."""
        self._tell(conn, debt.elsewhere)
        for end, first in ((debt.first, True), (debt.last, False)):
            if not end.lost:
                continue
            if self._encode_gap is None:
                self._tell(conn, end)
            elif conn._writer.takes_note(first=first):
                self._queue(conn, end, self._tell(conn, end), first)

    def give_up(self, conn: Conn, debt: Debt) -> None:
        """Tell the application alone: nothing can be queued for ``conn`` any more."""
        for end in (debt.first, debt.last, debt.elsewhere):
            self._tell(conn, end)

    def _tell(self, conn: Conn, end: End) -> dict[str | None, int]:
        lost, end.lost = end.lost, {}
        for room, count in lost.items():
            self._notices.gap(conn, Gap(room, count))
        return lost

    def _queue(self, conn: Conn, end: End, lost: dict[str | None, int], first: bool) -> None:
        writer = conn._writer
        notes, end.notes = end.notes, []
        told = End()
        told.lost = lost
        for note, room, count in reversed(notes):
            if writer.take_note(note, last=not first):
                told.add(room, count)
        # All are encoded before one is queued: the application is asked, and it may end the connection.
        encoded = [(self._encode(Gap(room, count)), room, count) for room, count in lost.items()]
        if conn.state is not State.OPEN:
            return
        end.notes = [(frame, room, count) for frame, room, count in encoded if frame is not None]
        for frame, _, _ in reversed(end.notes) if first else end.notes:
            writer.add_note(frame, first=first)
        conn._kick_later()

    def _encode(self, gap: Gap) -> memoryview | None:
        assert self._encode_gap is not None
        outer, self.encoding = self.encoding, True  # what it sends directly may make it be asked for another member
        try:
            data = self._encode_gap(gap)
            if data is None:
                return None
            opcode = opcode_of(data)
            return memoryview(b"".join(encode(opcode, payload_of(opcode, data)).buffers))
        except (Exception, asyncio.CancelledError) as exc:
            asyncio.get_running_loop().call_exception_handler({"message": "encode_gap failed", "exception": exc})
            return None
        finally:
            self.encoding = outer
