"""Coming back to a room without having missed anything (layer 4).

What a room remembers is in `history`, all rooms together in `archive`; here somebody joins who has been there before.
Invariant: between what is recovered and what is broadcast afterwards nothing is missing, twice, or in another order,
because nothing can be broadcast in between.
"""

from __future__ import annotations

from . import limits
from .archive import Archive
from .conn import Conn
from .forms import KeptForms
from .history import Position, Recovery
from .hub_config import HubConfig
from .identity import Identity
from .loopstate import loop_state
from .outgoing import Encoded
from .rooms import Target
from .timers import Timers

__all__ = ["Recovering"]


class Recovering(Identity):
    """The part of :class:`plumews.Hub` that remembers."""

    def __init__(self, config: HubConfig) -> None:
        super().__init__(config)
        policy = config.history_policy
        self._archive: Archive | None = None
        self._forms = KeptForms(limits.RECOVERED_FORMS)
        if policy is not None:
            self._archive = Archive(
                policy,
                max_rooms=config.max_history_rooms,
                max_bytes=config.max_history_bytes,
                has_members=self._table.count,
            )

    # --- history ----------------------------------------------------------------------------------

    def position(self, room: str) -> Position | None:
        """Where ``room`` stands: behind the newest message that was broadcast to it; ``None`` without a history.

        Who joins now gets what comes behind it. The history of a room begins with its first message, or here.

        Raises:
            HubStopped: the hub forgets everything when it stops. InvalidRoomName: as :meth:`join`.
        """
        timers = self._timers()
        self._check_stopped()
        self._table.check_name(room)
        stream = None if self._archive is None else self._archive.stream(room, timers)
        return None if stream is None else stream.position

    def recover(self, room: str, conn: Conn, position: Position) -> Recovery:
        """:meth:`join` ``room``, and get what was broadcast to it since ``position``, before all that comes later.

        What is kept of it is queued at once, in order. The result says honestly whether that is all: it is not if
        something was too old, or too much for the bounds of the history; if ``conn``'s own send queue had no space
        for the rest, whatever its send behavior (the rest counts in its ``dropped_messages``); or if ``position`` is
        of another life of the history, when everything is sent that there is, or lies in the future, when nothing is.
        ``Position("", 0)`` is nobody's: a newcomer with it gets what is kept.

        Messages to everybody, to one user, and with ``where=`` are no part of a room's history; what was broadcast with
        ``exclude=`` is, and what went to several rooms is in that of each.

        Raises:
            As :meth:`join`: nothing was changed.
            ValueError: ``conn`` is a member, and gets what is broadcast already. TypeError: ``position`` is none.
        """
        if not isinstance(position, Position):
            raise TypeError(f"position must be a plumews.Position, not {type(position).__name__}: use Position.parse")
        timers = self._timers()
        if isinstance(conn, Conn) and conn._loop is self._loop:
            if room in self._table.rooms_of(conn):
                raise ValueError("the connection is in this room already: call recover instead of join, not behind it")
            if conn._behind is not None:
                # What was broadcast to it before, here too, if it was a member until just now, is decided first.
                conn._catch_up()
        self._enter(room, conn)
        try:
            recovery = self._bring_back(room, conn, position, timers)
        except BaseException:
            self.leave(room, conn)
            raise
        self._joined(conn, room)  # not before: who hears of it may broadcast at once
        return recovery

    # --- inside -----------------------------------------------------------------------------------

    def _bring_back(self, room: str, conn: Conn, position: Position, timers: Timers) -> Recovery:
        stream = None if self._archive is None else self._archive.stream(room, timers)
        if stream is None:
            return Recovery(complete=False, messages=0, position=None)
        complete, messages = stream.since(position)
        messages = self._forms.choose(messages, conn)
        sent = 0
        while sent < len(messages) and conn._writer.offer(messages[sent]):
            sent += 1
        left_out = len(messages) - sent
        if sent:
            conn._kick_later()
        conn._writer.dropped += left_out
        return Recovery(complete=complete and not left_out, messages=sent, position=stream.position)

    def _record(self, target: Target, message: Encoded) -> Position | None:
        """Remember a message that is about to be sent to the members of ``target``; where, if that is one room."""
        if self._archive is None or target is None:
            return None
        # What is kept is the message alone: the forms of it that its members get now are not counted there.
        message = Encoded(message.buffers, message.size, message.compress)
        if isinstance(target, str):
            return self._archive.record(target, message, self._timers())
        for room in target:
            self._archive.record(room, message, self._timers())
        return None

    def _left(self, conn: Conn, rooms: list[str]) -> None:
        super()._left(conn, rooms)
        if self._archive is not None:
            timers = self._timers()
            for room in rooms:
                self._archive.left(room, timers)

    def _timers(self) -> Timers:
        return loop_state(self._bind()).timers
