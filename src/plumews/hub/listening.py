"""Who wants to hear of what happens in a hub (layer 4).

How callbacks are called is in `callbacks`, what is told of slow members in `notices`. Invariant: whoever registers gets
the function that ends it.
"""

from __future__ import annotations

from collections.abc import Callable

from ..conn.connection import Conn
from ..validation import check_call
from .membership import Membership
from .results import Gap

__all__ = ["Listening"]


class Listening(Membership):
    """The part of :class:`plumews.Hub` that calls back."""

    # --- members ----------------------------------------------------------------------------------

    def on_join(self, callback: Callable[[str, Conn], object]) -> Callable[[], None]:
        """Call ``callback(room, conn)`` whenever a connection has joined a room.

        It may do what it likes, joining, leaving, closing and publishing included; what that changes is told when all
        callbacks have heard of this. One that raises is reported to the event loop, and the join stands.
        Each call runs in a new copy of the context in which ``on_join`` was called.

        Returns the function that ends it. Raises ``TypeError`` if ``callback`` is no plain function.
        """
        self._check_thread()
        check_call("the callback of on_join", callback, "room", "conn")
        return self._until_ended(self._callbacks.add("join", callback))

    def on_leave(self, callback: Callable[[str, Conn], object]) -> Callable[[], None]:
        """As :meth:`on_join`, whenever a connection has left a room, by itself or because it is gone."""
        self._check_thread()
        check_call("the callback of on_leave", callback, "room", "conn")
        return self._until_ended(self._callbacks.add("leave", callback))

    def watch_count(self, room: str, callback: Callable[[str, int], object]) -> Callable[[], None]:
        """Call ``callback(room, count)`` after the member count of ``room`` changed, a few times a second at most.

        Returns the function that ends it. Raises ``InvalidRoomName``, or ``TypeError`` if ``callback`` is no plain
        function.
        """
        check_call("the callback of watch_count", callback, "room", "count")
        self._bind()
        self._table.check_name(room)
        return self._until_ended(self._watchers.add(room, callback))

    # --- slow members -----------------------------------------------------------------------------

    def on_slow(self, callback: Callable[[Conn], object]) -> Callable[[], None]:
        """Call ``callback(conn)`` when the send queue of a member is half full and its peer takes nothing.

        Once for each time, until the queue was empty again. Callbacks about slow members are called at the end of the
        tick; for what they may do, and what comes of one that raises, see :meth:`on_join`.

        Returns the function that ends it. Raises ``TypeError`` if ``callback`` is no plain function.
        """
        self._check_thread()
        check_call("the callback of on_slow", callback, "conn")
        return self._until_ended(self._slow.notices.register("slow", callback))

    def on_drop(self, callback: Callable[[Conn, str | None, int], object]) -> Callable[[], None]:
        """As :meth:`on_slow`: ``callback(conn, room, count)`` when a member has lost messages; those of a tick are
        told together.

        ``room`` is ``None`` where they were for everybody, for several rooms or for one user, or may be of any room
        that the member is in.
        """
        self._check_thread()
        check_call("the callback of on_drop", callback, "conn", "room", "count")
        return self._until_ended(self._slow.notices.register("drop", callback))

    def on_gap(self, callback: Callable[[Conn, Gap], object]) -> Callable[[], None]:
        """As :meth:`on_slow`: ``callback(conn, gap)`` when a member that has lost messages takes others again, or ends.

        At that point stands what ``encode_gap`` made of it, if that is configured and the connection was not cut.
        ``gap.dropped`` counts what was lost since the last call for this member and room.
        """
        self._check_thread()
        check_call("the callback of on_gap", callback, "conn", "gap")
        return self._until_ended(self._slow.notices.register("gap", callback))

    # --- inside -----------------------------------------------------------------------------------

    def _until_ended(self, end: Callable[[], None]) -> Callable[[], None]:
        """Return ``end`` for the application, which may call it in the thread of the hub alone."""

        def checked() -> None:
            self._check_thread()
            end()

        return checked
