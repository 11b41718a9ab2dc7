"""Membership of one hub: the rules of joining, and what follows each join and leave.

`rooms` has the table. `Membership` puts connections into it, which leave by themselves when they close. Invariants: a
refused join changes nothing and is counted. A callback finds the change complete that it is told.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from .. import errors
from ..conn.connection import Conn
from ..constants import State
from ..counters import OTHER, BoundedCounter
from ..errors import ConcurrencyError, ConnectionClosed, HubError, HubStopped, RateLimited
from ..rate_limit import TokenBucket, default_burst
from ..transport.loop_context import loop_context
from .config import HubConfig
from .events import CountWatchers, EventDispatcher
from .history import Recovery
from .history_store import HistoryStore
from .member import AnyMember, ClosingMember, check_member
from .presence import PresenceIndex
from .rooms import RoomTable
from .slow_members import SlowMembers

__all__ = ["REASONS", "Membership", "reason_of"]


def _word(cls: type[Exception]) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()


#: The word of each exception that refuses a join. Read from `errors`, so that a new exception has one, too.
_WORDS: Final = {
    cls: _word(cls)
    for cls in vars(errors).values()
    if cls is ConnectionClosed or (isinstance(cls, type) and issubclass(cls, HubError) and cls is not HubError)
}

#: All reasons of refused joins: ``hub_full``, ``room_full``, ``connection_closed`` and so on.
REASONS: Final = tuple(_WORDS.values())


def reason_of(refusal: Exception) -> str:
    """Return the word by which ``refusal`` is counted. An application's own subclass makes no new word."""
    return next((_WORDS[cls] for cls in type(refusal).__mro__ if cls in _WORDS), OTHER)


#: Function that removes a member. The member calls it when it closes.
OnClose: TypeAlias = Callable[[Any], object]


class Membership:
    """Members of one hub, and the parts of the hub that follow their joins and leaves."""

    def __init__(
        self,
        config: HubConfig,
        rooms: RoomTable[Any],
        events: EventDispatcher,
        counts: CountWatchers,
        presence: PresenceIndex[Any],
        history: HistoryStore | None,
        slow: SlowMembers,
    ) -> None:
        self._rooms = rooms
        self._events = events
        self._counts = counts
        self._presence = presence
        self._history = history
        self._slow = slow
        self._rate = config.accept_rate
        self._bucket: TokenBucket | None = None
        if config.accept_rate:
            self._bucket = TokenBucket(config.accept_rate, config.accept_burst or default_burst(config.accept_rate))
        #: True refuses all joins.
        self.stopped = False
        self.accepted = 0
        self.refusals = BoundedCounter(REASONS)
        #: Time of each member's first join, in seconds since the epoch.
        self.since: dict[Any, float] = {}

    # --- joining ----------------------------------------------------------------------------------

    def join(self, room: str, member: AnyMember, loop: asyncio.AbstractEventLoop, on_close: OnClose) -> None:
        """Add ``member`` to ``room``. Raise as :meth:`plumews.Hub.join`."""
        if self._enter(room, member, loop, on_close):
            self._announce(room, member)

    def rejoin(
        self,
        room: str,
        member: AnyMember,
        loop: asyncio.AbstractEventLoop,
        on_close: OnClose,
        send: Callable[[], Recovery],
    ) -> Recovery:
        """Add ``member`` to ``room`` and return the result of ``send()``. If that raises, ``member`` did not join.

        Nothing can be broadcast between the join and the end of ``send()``.
        """
        if not isinstance(member, Conn) or member._loop is loop:
            if room in self._rooms.rooms_of(member):
                raise ValueError("the connection is in this room already: call recover instead of join, not behind it")
            if isinstance(member, Conn):
                # Earlier broadcasts to it are decided first, in this room, too, if it was a member until just now.
                member._catch_up()
        self._enter(room, member, loop, on_close)
        try:
            recovery = send()
        except BaseException:
            if self._rooms.leave(room, member):
                self._left(member, [room], loop, on_close)  # without an event: its join was not announced
            raise
        self._announce(room, member)  # not before: a callback may broadcast at once
        return recovery

    def check_join(self, room: str, loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
        """Raise the error that a new member would get from :meth:`join` now. The refusal is counted."""
        try:
            self.check_running()
            self._rooms.check_name(room)
            self._rooms.check_space(room)
            if self._bucket is not None:
                self._check_rate(self._bucket.wait(loop().time()))
        except HubError as exc:
            self.refusals.add(reason_of(exc))
            raise

    def check_running(self) -> None:
        """Raise `HubStopped` after the stop of the hub."""
        if self.stopped:
            raise HubStopped("the hub is stopped")

    def _check_rate(self, wait: float) -> None:
        """Raise `RateLimited` if it takes ``wait`` seconds until one more may be accepted."""
        if wait:
            raise RateLimited(f"websocket join rate exceeded: {self._rate:g} new connections a second", wait)

    def _enter(self, room: str, member: AnyMember, loop: asyncio.AbstractEventLoop, on_close: OnClose) -> bool:
        """Add ``member`` to ``room`` without an event. Return True if it is new there."""
        try:
            self.check_running()
            check_member(member)
            if isinstance(member, Conn) and member._loop is not loop:
                raise ConcurrencyError("the connection belongs to another event loop than the hub")
            self._rooms.check_name(room)
            if isinstance(member, Conn) and member.closed:
                raise member._rules.closed()
            new = not self._rooms.is_member(None, member)
            if new and self._bucket is not None:
                self._rooms.check_space(room, member)  # a connection that finds no space takes no token
                self._check_rate(self._bucket.take(loop.time()))
            joined = self._rooms.join(room, member)
            if new:
                self._follow(room, member, on_close)
        except (HubError, ConnectionClosed) as exc:
            self.refusals.add(reason_of(exc))
            raise
        now = time.time()
        if new:
            self.since[member] = now
            self._slow.joined(member)
        self._presence.enter(room, member, member.user_info, now, new=joined)
        if joined:
            self.accepted += 1
        return joined

    def _follow(self, room: str, member: AnyMember, on_close: OnClose) -> None:
        """Add ``on_close`` to a new member, which may have closed and may fail, unless it is a `Conn`."""
        try:
            member.add_close_callback(on_close)  # of a closed member it is called at once
            if not self._rooms.is_member(room, member):
                raise ConnectionClosed(None, None)
        except BaseException:
            self._rooms.leave(room, member)
            raise

    def _announce(self, room: str, member: AnyMember) -> None:
        self._counts.changed(room)
        self._events.dispatch("join", (room, member))

    # --- leaving ----------------------------------------------------------------------------------

    def leave(self, room: str, member: AnyMember, loop: asyncio.AbstractEventLoop, on_close: OnClose) -> None:
        """Remove ``member`` from ``room``, if it is there."""
        if self._rooms.leave(room, member):
            self._left(member, [room], loop, on_close)
            self._events.dispatch("leave", (room, member))

    def remove(self, member: AnyMember, loop: asyncio.AbstractEventLoop, on_close: OnClose) -> None:
        """Remove ``member`` from all its rooms."""
        rooms = self._rooms.remove(member)
        if rooms:
            announced = member in self.since  # else it has closed before its join, which is refused
            self._left(member, rooms, loop, on_close)
            if announced:
                self._events.dispatch("leave", *[(room, member) for room in rooms])

    def _left(self, member: AnyMember, rooms: list[str], loop: asyncio.AbstractEventLoop, on_close: OnClose) -> None:
        """Let the parts of the hub follow the leave of ``rooms``, before its event."""
        for room in rooms:
            self._presence.leave(room, member)
            self._counts.changed(room)
        self._slow.moved(member)
        if not self._rooms.is_member(None, member):
            self._presence.forget(member)
            if isinstance(member, Conn):
                member.remove_close_callback(on_close)
            self._slow.left(member)
            self.since.pop(member, None)
        if self._history is not None:
            timers = loop_context(loop).timers
            for room in rooms:
                self._history.left(room, timers)

    # --- shutdown ---------------------------------------------------------------------------------

    def is_to_close(self, conn: Conn | ClosingMember) -> bool:
        """Return True if the shutdown closes ``conn``: it has not left the hub, or has closed by itself."""
        if isinstance(conn, ClosingMember):
            return self._rooms.is_member(None, conn.member)
        return conn.state is State.CLOSED or self._rooms.is_member(None, conn)

    def end_watches(self) -> None:
        """Forget the watchers of counts and presence."""
        self._counts.clear()
        self._presence.watchers.clear()
