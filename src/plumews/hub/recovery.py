"""Coming back to a room without having missed anything (layer 4).

What a room remembers is in `history`, all rooms together in `archive`; here somebody joins who has been there before.
Invariant: between what is recovered and what is broadcast afterwards nothing is missing, twice, or in another order,
because nothing can be broadcast in between.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, cast

from .. import limits
from ..conn.connection import Conn
from ..deflate.encodings import EncodingCache
from ..position import Position
from ..protocol.message import Data, EncodedMessage, opcode_of
from ..transport.loop_context import loop_context
from ..transport.timers import Timers
from ..validation import check_call, is_plain_function
from .config import HubConfig
from .history import Recovery
from .history_store import HistoryStore
from .identity import Identity
from .rooms import Target

__all__ = ["EncodeRecovered", "Recovering", "check_encode_recovered"]

#: Makes of a recovery what the peer is sent before the missed messages.
EncodeRecovered: TypeAlias = "Callable[[Recovery], Data | None]"


def check_encode_recovered(function: object) -> None:
    """Raise ``TypeError`` unless ``function`` is a plain function of a :class:`plumews.Recovery`."""
    if not is_plain_function(function):
        raise TypeError(
            "encode_recovered must be a plain function, which takes a plumews.Recovery and returns a str, bytes or "
            f"None, not {getattr(function, '__qualname__', type(function).__name__)}"
        )
    check_call("encode_recovered", cast("Callable[..., object]", function), "recovery")


class Recovering(Identity):
    """The part of :class:`plumews.Hub` that remembers."""

    def __init__(self, config: HubConfig) -> None:
        super().__init__(config)
        policy = config.history_policy
        self._archive: HistoryStore | None = None
        self._forms = EncodingCache(limits.RECOVERED_FORMS)
        self._encoding = 0  # whether the application is asked for the text of a message
        if policy is not None:
            self._archive = HistoryStore(
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

    def recover(
        self, room: str, conn: Conn, position: Position, *, encode_recovered: EncodeRecovered | None = None
    ) -> Recovery:
        """:meth:`join` ``room``, and get what was broadcast to it since ``position``, before all that comes later.

        What is kept of it is queued at once, in order. The result says honestly whether that is all: it is not if
        something was too old, or too much for the bounds of the history; if ``conn`` takes nothing now and its send
        queue had no space for the rest, whatever its send behavior (the rest counts in its ``dropped_messages``); or
        if ``position`` is of another life of the history, when everything is sent that there is, or lies in the
        future, when nothing is. With ``Position("", 0)`` a newcomer gets what is kept, which is all if nothing was
        dropped since the history of the room began.

        Messages to everybody, to one user, with ``where=`` and with ``keep=False`` are no part of a room's history;
        what was broadcast with ``exclude=`` is, and what went to several rooms is in that of each.

        Args:
            room: as in :meth:`join`.
            conn: a connection that is not in ``room``.
            position: what it saw last.
            encode_recovered: a plain function that makes of the :class:`Recovery` what the peer is sent before the
                missed messages: ``str`` leaves as text, bytes-like as binary, ``None`` is nothing. It cannot
                broadcast. By default nothing is sent.

        Raises:
            HubError, ConnectionClosed, ConcurrencyError: as :meth:`join`; nothing was changed.
            ValueError: ``conn`` is a member, and gets what is broadcast already.
            TypeError: ``position`` is none, or ``encode_recovered`` is no plain function, or returns no message. What
                it raises is raised, too, and ``conn`` is no member then.
        """
        if not isinstance(position, Position):
            raise TypeError(f"position must be a plumews.Position, not {type(position).__name__}: use Position.parse")
        if encode_recovered is not None:
            check_encode_recovered(encode_recovered)
        timers = self._timers()
        if isinstance(conn, Conn) and conn._loop is self._loop:
            if room in self._table.rooms_of(conn):
                raise ValueError("the connection is in this room already: call recover instead of join, not behind it")
            if conn._behind is not None:
                # What was broadcast to it before, here too, if it was a member until just now, is decided first.
                conn._catch_up()
        self._enter(room, conn)
        try:
            recovery = self._bring_back(room, conn, position, timers, encode_recovered)
        except BaseException:
            if self._table.leave(room, conn):
                self._left(conn, [room])  # nobody has heard that it came
            raise
        self._joined(conn, room)  # not before: who hears of it may broadcast at once
        return recovery

    # --- inside -----------------------------------------------------------------------------------

    def _bring_back(
        self, room: str, conn: Conn, position: Position, timers: Timers, encode_recovered: EncodeRecovered | None
    ) -> Recovery:
        stream = None if self._archive is None else self._archive.stream(room, timers)
        complete, messages = (False, []) if stream is None else stream.since(position)
        messages = self._forms.choose(messages, conn._shared, conn._deflate is not None)
        writer = conn._writer
        sent = writer.room_for(messages)
        recovery = Recovery(
            complete=complete and sent == len(messages),
            messages=sent,
            position=None if stream is None else stream.position,
        )
        run = messages[:sent]
        if encode_recovered is not None:
            said = self._asked(encode_recovered, recovery)
            if said is not None:
                event = conn._outgoing(opcode_of(said), said)
                if writer.in_pieces or writer.waiting:  # neither can it be queued, nor was anything else
                    writer.dropped += 1
                else:
                    run.insert(0, event)
            elif conn.closed:
                raise conn._closed_error()
        writer.dropped += len(messages) - sent
        writer.accept_run(run)
        return recovery

    def _asked(self, encode: Callable[[Any], Any], about: object) -> Any:
        """What the application makes of ``about``, in the midst of what must not be interrupted by a broadcast."""
        self._encoding += 1
        try:
            return encode(about)
        finally:
            self._encoding -= 1

    def _next_position(self, target: Target) -> Position | dict[str, Position] | None:
        """Where the next message to ``target`` will be; for several rooms in each of them that has a history."""
        if self._archive is None or target is None:
            return None
        rooms = [target] if isinstance(target, str) else target
        streams = {room: self._archive.stream(room, self._timers()) for room in rooms}
        places = {room: stream.next_position for room, stream in streams.items() if stream is not None}
        return places.get(target) if isinstance(target, str) else places

    def _record(self, target: Target, message: EncodedMessage) -> Position | dict[str, Position] | None:
        """Remember a message that is about to be sent to the members of ``target``; where, as `_next_position` says."""
        if self._archive is None or target is None:
            return None
        # What is kept is the message alone: the forms of it that its members get now are not counted there.
        message = EncodedMessage(message.buffers, message.size, message.compress)
        if isinstance(target, str):
            return self._archive.record(target, message, self._timers())
        places = {room: self._archive.record(room, message, self._timers()) for room in dict.fromkeys(target)}
        return {room: place for room, place in places.items() if place is not None}

    def _left(self, conn: Conn, rooms: list[str]) -> None:
        super()._left(conn, rooms)
        if self._archive is not None:
            timers = self._timers()
            for room in rooms:
                self._archive.left(room, timers)

    def _timers(self) -> Timers:
        return loop_context(self._bind()).timers
