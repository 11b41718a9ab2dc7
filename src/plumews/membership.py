"""Who is in a hub: joining, leaving, and what is to be known about it (layer 4).

The table itself is in `rooms`; here it meets connections, which leave by themselves when they close, and those who want
to hear of it. Invariants: a refused join changes nothing and is counted; a hub belongs to the loop on which it is first
used.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from .conn import Conn
from .errors import ConcurrencyError, ConnectionClosed, HubError, HubStopped
from .hub_config import HubConfig
from .rooms import RoomTable
from .slow import SlowMembers
from .watch import Watchers

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
        self._slow = SlowMembers(config, self._table.rooms_of)
        self._watchers = Watchers(self._table.count)
        self._accepted = self._rejected = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: int | None = None
        self._stopped = False

    # --- membership -------------------------------------------------------------------------------

    def join(self, room: str, conn: Conn) -> None:
        """Add ``conn`` to ``room``; joining twice is harmless. It leaves by itself when it closes.

        Raises:
            HubStopped, InvalidRoomName, ConnectionClosed, HubFull, RoomFull, TooManyRooms: nothing was changed.
            ConcurrencyError: the hub, or ``conn``, belongs to another event loop.
        """
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
            joined = self._table.join(room, conn)
        except (HubError, ConnectionClosed):
            self._rejected += 1
            raise
        if joined:
            self._accepted += 1
            self._watchers.changed(room)
        if new:
            conn.add_close_callback(self.remove)
            self._slow.joined(conn)

    def can_join(self, room: str) -> None:
        """Raise what :meth:`join` would raise for a new connection now; changes nothing, counts a refusal."""
        try:
            self._check_stopped()
            self._table.check_name(room)
            self._table.check_space(room)
        except HubError:
            self._rejected += 1
            raise

    def leave(self, room: str, conn: Conn) -> None:
        """Remove ``conn`` from ``room``; harmless if it is not there."""
        self._bind()
        if self._table.leave(room, conn):
            self._left(conn, [room])

    def remove(self, conn: Conn) -> None:
        """Remove ``conn`` from all its rooms. It stays open."""
        self._bind()
        rooms = self._table.remove(conn)
        if rooms:
            self._left(conn, rooms)

    def _left(self, conn: Conn, rooms: list[str]) -> None:
        if not self._table.is_member(None, conn):
            conn.remove_close_callback(self.remove)
            self._slow.left(conn)
        for room in rooms:
            self._watchers.changed(room)

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

    def watch_count(self, room: str, callback: Callable[[str, int], object]) -> Callable[[], None]:
        """Call ``callback(room, count)`` after the member count of ``room`` changed, a few times a second at most.

        Returns the function that ends it.
        """
        self._bind()
        return self._watchers.add(room, callback)

    # --- inside -----------------------------------------------------------------------------------

    def _bind(self) -> asyncio.AbstractEventLoop:
        """The loop of this hub: the one on which it is first used."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._thread = threading.get_ident()
        elif threading.get_ident() != self._thread:
            raise ConcurrencyError("a hub belongs to the thread of its event loop: use hub.publish_threadsafe")
        elif self._loop.is_closed():
            raise ConcurrencyError("the event loop of this hub is closed: make a hub for each loop")
        return self._loop

    def _check_stopped(self) -> None:
        if self._stopped:
            raise HubStopped("the hub is stopped")
