"""Who is in a hub: joining, leaving, and what is to be known about it (layer 4).

The table itself is in `rooms`; here it meets connections, which leave by themselves when they close. Who wants to hear
of it says so in `listening`. Invariants: a refused join changes nothing and is counted; who hears of a change finds it
complete; a hub belongs to the loop on which it is first used.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterable

from ..conn.connection import Conn
from ..counters import BoundedCounter, RequestCounters
from ..errors import ConcurrencyError, ConnectionClosed, HubError, HubStopped, RateLimited
from ..transport.forks import FOREIGN, check_owner, loop_descriptors, own
from .config import HubConfig
from .events import EventDispatcher
from .presence import PresenceIndex
from .presence_watch import PresenceWatchers
from .refusals import REASONS, reason_of
from .rooms import RoomTable
from .slow_members import SlowMembers
from .watch import CountWatchers

__all__ = ["Membership"]


class Membership:
    """The members' half of :class:`plumews.Hub`."""

    def __init__(self, config: HubConfig) -> None:
        self.config = config
        self._table: RoomTable[Conn] = RoomTable(
            max_connections=config.max_connections,
            max_room_connections=config.max_room_connections,
            max_rooms_per_connection=config.max_rooms_per_connection,
            check_name=config.check_room_name,
        )
        self._accepting = config.accepting()
        self._callbacks = EventDispatcher()
        self._slow = SlowMembers(config, self._table.rooms_of, self._callbacks)
        self._watchers = CountWatchers(self._table.count)
        self._presence_watchers = PresenceWatchers(lambda room: self._people.users(room))
        self._people: PresenceIndex[Conn] = PresenceIndex(
            self._table.rooms_of, self._presence_watchers.came, self._presence_watchers.went
        )
        self._accepted = 0
        self._refusals = BoundedCounter(REASONS)  # of joins
        self._requests = RequestCounters()  # of the servers that let in its members
        self._since: dict[Conn, float] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: int | None = None
        self._stopped = False

    # --- membership -------------------------------------------------------------------------------

    def join(self, room: str, conn: Conn) -> None:
        """Add ``conn`` to ``room``; joining twice is harmless. It leaves by itself when it closes.

        Who it is, for :meth:`presence` and :meth:`send_to_user`, is what ``conn.user_info`` says now; after a change
        of that, join again. Who goes from one room to another joins first and leaves then: without a room it is a
        stranger, to the accept rate, too.

        Raises:
            HubStopped, InvalidRoomName, ConnectionClosed, HubFull, RoomFull, TooManyRooms: nothing was changed.
            RateLimited: the same, and its ``retry_after`` says when to come again.
            ConcurrencyError: the hub, or ``conn``, belongs to another event loop.
            TypeError: ``conn`` is no ``Conn``.
        """
        if self._enter(room, conn):
            self._joined(conn, room)

    def _enter(self, room: str, conn: Conn) -> bool:
        """:meth:`join` before anybody hears of it; whether ``conn`` is new in ``room``."""
        loop = self._bind()
        try:
            self._check_stopped()
            if not isinstance(conn, Conn):
                raise TypeError(f"a member must be a Conn, not {type(conn).__name__}")
            if conn._loop is not loop:
                raise ConcurrencyError("the connection belongs to another event loop than the hub")
            self._table.check_name(room)
            if conn.closed:
                raise conn._closed_error()
            new = not self._table.is_member(None, conn)
            if new and self._accepting is not None:
                self._table.check_space(room, conn)  # who finds no space takes no token
                self._check_rate(self._accepting.take(loop.time()))
            joined = self._table.join(room, conn)
        except (HubError, ConnectionClosed) as exc:
            self._refusals.add(reason_of(exc))
            raise
        now = time.time()
        if new:
            self._since[conn] = now
            conn.add_close_callback(self.remove)
            self._slow.joined(conn)
        self._people.enter(room, conn, conn.user_info, now, new=joined)
        if joined:
            self._accepted += 1
        return joined

    def _joined(self, conn: Conn, room: str) -> None:
        self._watchers.changed(room)
        self._callbacks.happened("join", (room, conn))

    def can_join(self, room: str) -> None:
        """Raise what :meth:`join` would raise for a new connection now; changes nothing, counts a refusal."""
        try:
            self._check_stopped()
            self._table.check_name(room)
            self._table.check_space(room)
            if self._accepting is not None:
                self._check_rate(self._accepting.wait(self._bind().time()))
        except HubError as exc:
            self._refusals.add(reason_of(exc))
            raise

    def leave(self, room: str, conn: Conn) -> None:
        """Remove ``conn`` from ``room``; harmless if it is not there."""
        self._bind()
        if self._table.leave(room, conn):
            self._left(conn, [room])
            self._callbacks.happened("leave", (room, conn))

    def remove(self, conn: Conn) -> None:
        """Remove ``conn`` from all its rooms. It stays open."""
        self._bind()
        rooms = self._table.remove(conn)
        if rooms:
            self._left(conn, rooms)
            self._callbacks.happened("leave", *[(room, conn) for room in rooms])

    def _left(self, conn: Conn, rooms: list[str]) -> None:
        """``conn`` is out of ``rooms``, before anybody hears of it."""
        for room in rooms:
            self._people.leave(room, conn)
            self._watchers.changed(room)
        self._slow.moved(conn)
        if not self._table.is_member(None, conn):
            self._people.forget(conn)
            conn.remove_close_callback(self.remove)
            self._slow.left(conn)
            self._since.pop(conn, None)

    # --- questions --------------------------------------------------------------------------------

    def room_count(self, room: str) -> int:
        """Members of ``room``; 0 if there is no such room."""
        return self._table.count(room)

    def total_count(self) -> int:
        """Members of all rooms added up (the seed): a connection in two rooms counts twice."""
        return self._table.registrations

    def connection_count(self) -> int:
        """Unique connections in any room."""
        return self._table.connections

    def rooms(self) -> list[str]:
        """The names of the rooms that have members."""
        return self._table.names()

    def rooms_of(self, conn: Conn) -> list[str]:
        """The rooms in which ``conn`` is."""
        return self._table.rooms_of(conn)

    def members(self, room: str) -> list[Conn]:
        """A snapshot of the members of ``room``, in the order in which they joined."""
        return list(self._table.roll(room).members)

    # --- inside -----------------------------------------------------------------------------------

    def _forked(self) -> Iterable[int]:
        """This process is a child of the one that has the hub."""
        self._thread = FOREIGN
        assert self._loop is not None
        return loop_descriptors(self._loop)

    def _bind(self) -> asyncio.AbstractEventLoop:
        """The loop of this hub: the one on which it is first used."""
        if self._loop is None:
            try:
                self._loop = asyncio.get_running_loop()
            except RuntimeError:
                raise RuntimeError("no running event loop: a hub is used in coroutines and callbacks") from None
            self._thread = threading.get_ident()
            own(self)
        self._check_thread()
        if self._loop.is_closed():
            raise ConcurrencyError("the event loop of this hub is closed: make a hub for each loop")
        return self._loop

    def _check_thread(self) -> None:
        """Raise in another thread than that of the hub. A hub that was not used yet belongs to none."""
        if self._thread is not None and threading.get_ident() != self._thread:
            check_owner(self._thread, "hub")
            raise ConcurrencyError(
                "a hub belongs to the thread of its event loop: use hub.publish_threadsafe or loop.call_soon_threadsafe"
            )

    def _check_rate(self, wait: float) -> None:
        """Raise unless ``wait``, the seconds until one more may be accepted, is over."""
        if wait:
            rate = self.config.accept_rate
            raise RateLimited(f"websocket join rate exceeded: {rate:g} new connections a second", wait)

    def _end_watches(self) -> None:
        """Nothing more is told to those who watch rooms."""
        self._watchers.clear()
        self._presence_watchers.clear()

    def _check_stopped(self) -> None:
        if self._stopped:
            raise HubStopped("the hub is stopped")
