"""`serve_rooms`: the seed's `ServeWSWithAuth` as a server (layer 5).

A client enters the room in ``?room=`` (``default`` without one) with its password and, maybe, a token; each message
it sends goes to everybody in the room, itself included. A handler or callbacks may take the place of that.
Whoever asks at ``/members`` is told how many members a room has, on a connection of its own: the messages of a room
are only what its members said.
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Sequence
from typing import Any

from . import limits
from .conn import Conn
from .constants import SendBehavior
from .endpoints import CallbackEndpoint, Handler, HandlerEndpoint, OnMessage, OnOpenOrClose, endpoint_for
from .errors import ConnectionClosed, HubFull, SendQueueFull
from .hub import Hub
from .opening import Endpoint
from .page import page_routes
from .room_door import RoomAuth, RoomDoor
from .routes import json_route
from .server import Serving, serve_endpoints

__all__ = ["serve_rooms"]


def serve_rooms(
    hub: Hub,
    auth: RoomAuth,
    host: str | Sequence[str] | None = None,
    port: int | None = None,
    *,
    queue_size: int = limits.QUEUE_SIZE,
    send_timeout: float | None = limits.SEND_TIMEOUT,
    send_behavior: SendBehavior = SendBehavior.BLOCK,
    handler: Handler | None = None,
    on_open: OnOpenOrClose | None = None,
    on_message: OnMessage | None = None,
    on_close: OnOpenOrClose | None = None,
    path: str = "/ws",
    members_path: str | None = "/members",
    page: bool = False,
    echo: bool = True,
    require_token: bool = False,
    allow_unknown_rooms: bool = True,
    allow_query_secrets: bool = False,
    open_timeout: float = limits.OPEN_TIMEOUT,
    **options: Any,
) -> Serving:
    """Serve the rooms of ``hub``; the seed's ``ServeWSWithAuth``.

    Args:
        hub: where connections join; it outlives the server, stop it yourself.
        auth: passwords and tokens, such as :class:`plumews.SimpleRoomAuth`.
        host, port: where to listen, as in :func:`plumews.serve`.
        queue_size, send_timeout, send_behavior: the send queue of each connection (64, 0.05 s, BLOCK).
        handler, on_open, on_message, on_close: instead of the fan-out, as in :func:`plumews.serve`; they run after
            authentication and joining, with ``conn.metadata["room"]`` and ``conn.user_info``.
        path: of the WebSocket (default ``/ws``).
        members_path: of the WebSocket that tells the member count as JSON (default ``/members``; ``None``: none).
        page: whether ``/`` answers with a page for the browser (default False).
        echo: whether the sender gets its own message, too (default True, the seed's behaviour).
        require_token: refuse clients without a token (default False, the seed's behaviour).
        allow_unknown_rooms: let everybody into rooms without a password (default True, the seed's behaviour).
        allow_query_secrets: accept ``?token=`` and ``?room_password=`` (default False: addresses end up in logs).
        open_timeout: seconds from the accepted connection to the joined room (default 10).
        options: as in :func:`plumews.serve`.
    """
    door = functools.partial(
        RoomDoor,
        hub,
        auth,
        require_token=require_token,
        allow_unknown_rooms=allow_unknown_rooms,
        allow_query_secrets=allow_query_secrets,
        open_timeout=open_timeout,
    )
    inside: HandlerEndpoint | CallbackEndpoint
    if handler is None and on_message is None:
        inside = endpoint_for(None, on_open, _fan_out(hub, echo), on_close)
    else:
        inside = endpoint_for(handler, on_open, on_message, on_close)

    def enter(conn: Conn, room: str) -> None:
        hub.join(room, conn)
        _welcome(conn, room)
        inside.opened(conn)

    endpoints: dict[str | None, Endpoint] = {path: door(enter)}
    if members_path is not None:
        endpoints[members_path] = door(_Count(hub).enter)
    routes = {"/healthz": json_route(lambda: {"status": "ok"})}
    if page:
        routes.update(page_routes())
    routes.update(options.pop("routes", None) or {})
    options.setdefault("subprotocols", ("plumews",))  # a browser that offers bearer.<token> needs one that is chosen
    return serve_endpoints(
        endpoints,
        host,
        port,
        routes=routes,
        queue_size=queue_size,
        send_timeout=send_timeout,
        send_behavior=send_behavior,
        open_timeout=open_timeout,
        **options,
    )


def _fan_out(hub: Hub, echo: bool) -> OnMessage:
    """What the seed does with a message: the whole room gets it."""

    def relay(conn: Conn, message: str | bytes) -> None:
        hub.broadcast_room(conn.metadata["room"], message, exclude=None if echo else conn)

    return relay


def _welcome(conn: Conn, room: str) -> None:
    """Whoever authenticated by message is told that it worked, before any message of the room."""
    if conn.request is not None and conn.request.query.get("auth") == "message":
        conn.send_nowait(json.dumps({"type": "joined", "room": room}))


class _Count:
    """The connections that are told how many members a room has."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._watching = 0

    def enter(self, conn: Conn, room: str) -> None:
        most = self._hub.config.max_connections
        if most and self._watching >= most:
            raise HubFull(f"websocket hub at capacity: {most} watchers")
        self._watching += 1

        def tell(room: str, count: int) -> None:
            with contextlib.suppress(SendQueueFull, ConnectionClosed):  # then the next count will do
                conn.send_nowait(json.dumps({"type": "members", "room": room, "members": count}))

        end = self._hub.watch_count(room, tell)

        def left(conn: Conn) -> None:
            self._watching -= 1
            end()

        conn.add_close_callback(left)
        tell(room, self._hub.room_count(room))
        conn._deliver_to(lambda conn, message: None, lambda conn, exc: None)
