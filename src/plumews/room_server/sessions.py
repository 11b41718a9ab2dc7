"""Owners of the admitted connections of a room server: the sessions of members, and the feed of member counts.

A member gets the message that it has joined before any message of the room. Missed messages come before later ones. A
connection that watches counts is no member.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Coroutine
from typing import Any

from ..auth.credentials import logs_in_by_message, query_value
from ..conn import receiver
from ..conn.connection import Conn
from ..conn.handlers import CallbackEndpoint, HandlerEndpoint
from ..constants import ErrorCode
from ..errors import ConnectionClosed, HubFull, InvalidHandshake, SendQueueFull
from ..http11.models import Request
from ..hub.history import Recovery
from ..hub.history_store import EncodeRecovered
from ..hub.hub import Hub
from ..position import Position

__all__ = ["MemberCountFeed", "RoomSessions", "recovered_event"]


def recovered_event(recovery: Recovery) -> str:
    """Return the JSON event that a client gets before the messages that it missed."""
    position = None if recovery.position is None else str(recovery.position)
    event = {"type": "recovered", "complete": recovery.complete, "missed": recovery.messages, "position": position}
    return json.dumps(event)


class RoomSessions:
    """Sessions of the members of rooms. True for ``recovery`` lets a client name its last position (``?since=``)."""

    def __init__(
        self,
        hub: Hub,
        inside: HandlerEndpoint | CallbackEndpoint,
        recovery: bool,
        encode_recovered: EncodeRecovered | None,
    ) -> None:
        self._hub = hub
        self._inside = inside
        self._recovery = recovery
        self._encode_recovered = encode_recovered

    def check_request(self, request: Request) -> None:
        self._since(request)

    def check_space(self, room: str) -> None:
        self._hub.can_join(room)

    def enter(self, conn: Conn, room: str) -> Coroutine[Any, Any, None] | None:
        since = self._since(conn.request)
        if since is None:
            self._hub.join(room, conn)
            _say_joined(conn, room)
        else:
            self._hub.can_join(room)
            _say_joined(conn, room)  # before the missed messages, which the next call queues
            conn.metadata["recovery"] = self._hub.recover(room, conn, since, encode_recovered=self._encode_recovered)
        return self._inside.opened(conn)

    def _since(self, request: Request) -> Position | None:
        text = query_value(request, "since") if self._recovery else None
        if text is None:
            return None
        try:
            return Position.parse(text)
        except ValueError as exc:
            raise InvalidHandshake(f"invalid since: {exc}", code=ErrorCode.BAD_QUERY) from exc


def _say_joined(conn: Conn, room: str) -> None:
    if logs_in_by_message(conn.request):
        conn.send_nowait(json.dumps({"type": "joined", "room": room}))


class MemberCountFeed:
    """Connections that watch the member counts of rooms, at most as many as the hub may have members."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._watching = 0

    def check_request(self, request: Request) -> None:
        """Accept any request."""

    def check_space(self, room: str) -> None:
        self._hub._members.check_running()
        most = self._hub.config.max_connections
        if most and self._watching >= most:
            raise HubFull(f"websocket hub at capacity: {most} watchers")

    def enter(self, conn: Conn, room: str) -> None:
        self.check_space(room)

        def tell(room: str, count: int) -> None:
            with contextlib.suppress(SendQueueFull, ConnectionClosed):  # the next count will be sent
                conn.send_nowait(json.dumps({"type": "members", "room": room, "members": count}))

        end = self._hub.watch_count(room, tell)
        self._watching += 1

        def left(conn: Conn) -> None:
            self._watching -= 1
            end()

        conn.add_close_callback(left)
        tell(room, self._hub.room_count(room))
        receiver.deliver_to(conn, lambda conn, message: None, lambda conn, exc: None)
