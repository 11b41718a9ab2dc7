"""Who the members of a hub are (layer 4).

The users themselves are in `presence`; here are the questions about them. Who a connection is (``conn.user_info``) is
read when it joins a room, also one in which it is already.
"""

from __future__ import annotations

from collections.abc import Callable

from ..conn.connection import Conn
from ..constants import CloseCode
from ..protocol.state import check_close
from ..transport.safe_calls import call_safely
from ..validation import check_call
from .listening import Listening
from .presence import RoomPresence, check_user_id
from .presence_watch import PresenceCallback

__all__ = ["Identity"]


class Identity(Listening):
    """The part of :class:`plumews.Hub` that knows users."""

    def connections_of(self, user_id: str) -> list[Conn]:
        """The connections in any room whose ``user_info.id`` is ``user_id``, in the order in which they came.

        Raises ``TypeError`` or ``ValueError`` if ``user_id`` is no ``str`` or empty.
        """
        return list(self._people.members(check_user_id(user_id)))

    def disconnect_user(self, user_id: str, code: int = CloseCode.POLICY_VIOLATION, reason: str = "") -> int:
        """Close all connections of a user in this hub, behind what was sent to them; how many were open.

        It may come again: refuse it at the door, too.

        Args:
            user_id: as in :meth:`connections_of`.
            code: the close code (default 1008); reason: up to 123 bytes.

        Raises:
            TypeError, ValueError: an argument cannot be; nobody was disconnected.
        """
        self._bind()
        check_close(code, reason)
        conns = [conn for conn in self._people.members(check_user_id(user_id)) if not conn.closed]
        for conn in conns:
            call_safely("closing a connection", conn.close_nowait, code, reason)
        return len(conns)

    def presence(self, room: str) -> RoomPresence:
        """Who is in ``room``: one entry for each user, and how many connections without a user id.

        Users are known by ``conn.user_info``, which a token sets, or the application before it calls :meth:`join`.
        """
        return self._people.presence(room, self._table.count(room))

    def watch_presence(self, room: str, callback: PresenceCallback) -> Callable[[], None]:
        """Call ``callback(room, joined, left)`` after users came to ``room`` or left it, a few times a second at most.

        ``joined`` and ``left`` are tuples of :class:`plumews.UserInfo`, the difference to the last call; the first
        call, soon, names everybody who is there. A user is there while one of its connections is; who left and was
        back by the next call is not mentioned. Anonymous connections are not users: see :meth:`watch_count`.

        Returns the function that ends it. Raises ``InvalidRoomName``, or ``TypeError`` if ``callback`` is no plain
        function.
        """
        self._bind()
        self._table.check_name(room)
        check_call("the callback of watch_presence", callback, "room", "joined", "left")
        return self._until_ended(self._presence_watchers.add(room, callback))
