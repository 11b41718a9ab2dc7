"""`serve_rooms`: the seed's `ServeWSWithAuth` as a server (layer 5).

A client enters the room in ``?room=`` (``default`` without one) with its password and, maybe, a token; each message
it sends goes to everybody in the room, itself included. A handler or callbacks may take the place of that.
Whoever asks at ``/members`` is told how many members a room has, on a connection of its own: the messages of a room
are only what its members said.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from .conn import Conn
from .endpoints import CallbackEndpoint, Handler, HandlerEndpoint, OnMessage, OnOpenOrClose, endpoint_for
from .errors import ConnectionClosed, HubFull, SendQueueFull
from .http11 import Request, Response
from .hub import Hub
from .options import TcpOptions
from .page import page_routes
from .password_gate import PasswordGate
from .room_door import Inside, RoomAuth, RoomDoor
from .room_list import RoomsTable, check_rooms_table, room_list_route
from .routes import json_route
from .server import Serving, serve_endpoints
from .site import Endpoint

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["serve_rooms"]

#: A browser that offers ``bearer.<token>`` fails unless another subprotocol of its offer is chosen.
_SUBPROTOCOLS = ("plumews",)


def serve_rooms(
    hub: Hub,
    auth: RoomAuth,
    host: str | Sequence[str] | None = None,
    port: int | None = None,
    *,
    handler: Handler | None = None,
    on_open: OnOpenOrClose | None = None,
    on_message: OnMessage | None = None,
    on_close: OnOpenOrClose | None = None,
    path: str = "/ws",
    members_path: str | None = "/members",
    page: bool = False,
    rooms_table: RoomsTable = "nobody",
    echo: bool = True,
    require_token: bool = False,
    allow_unknown_rooms: bool = True,
    allow_query_secrets: bool = False,
    **options: Unpack[TcpOptions],
) -> Serving:
    """Serve the rooms of ``hub``; the seed's ``ServeWSWithAuth``.

    A client names its room in ``?room=`` and says who it is in one of these ways: the headers ``Authorization:
    Bearer <token>`` and ``X-WebSocket-Room-Password``; the subprotocols ``plumews, bearer.<token>``; ``?auth=message``
    and then ``{"type": "auth", "password": ..., "token": ...}`` as its first message; or the query, where that is
    allowed.

    Args:
        hub: where connections join; it outlives the server, stop it yourself.
        auth: passwords and tokens, such as :class:`plumews.SimpleRoomAuth`.
        host, port: where to listen, as in :func:`plumews.serve`.
        handler, on_open, on_message, on_close: instead of the fan-out, as in :func:`plumews.serve`; they run after
            authentication and joining, with ``conn.metadata["room"]`` and ``conn.user_info``.
        path: of the WebSocket (default ``/ws``).
        members_path: of the WebSocket that tells the member count as JSON (default ``/members``; ``None``: none).
        page: whether ``/`` answers with a page for the browser (default False).
        rooms_table: who sees on that page which rooms there are, how many are in them, and whose queues are long:
            ``"nobody"`` (default), ``"everybody"``, or ``"local"``, which is who asks straight from this machine; a
            proxy on this machine that does not say that it is one would pass for that.
        echo: whether the sender gets its own message, too (default True, the seed's behaviour).
        require_token: refuse clients without a token (default False, the seed's behaviour).
        allow_unknown_rooms: let everybody into rooms without a password (default True, the seed's behaviour).
        allow_query_secrets: accept ``?token=`` and ``?room_password=`` (default False: addresses end up in logs).
        options: as in :func:`plumews.serve`; first of all ``queue_size``, ``send_timeout`` and ``send_behavior``, the
            send queue of each connection (64, 0.05 s, BLOCK).

    Raises:
        TypeError, ValueError: an argument is of the wrong kind. OSError: as in :func:`plumews.serve`.
    """
    if not isinstance(hub, Hub):
        raise TypeError(f"hub must be a plumews.Hub, not {type(hub).__name__}")
    for name in ("verify_jwt", "has_room_password", "check_room_password"):
        if not callable(getattr(auth, name, None)):
            raise TypeError(f"auth must be a plumews.SimpleRoomAuth, or have its method {name}")
    check_rooms_table(rooms_table)
    if path == members_path:
        raise ValueError(f"path and members_path must differ, both are {path!r}")

    gate = PasswordGate(auth)  # one for all doors: what an address guesses at one counts at the others

    def door(inside: Inside) -> RoomDoor:
        return RoomDoor(
            hub,
            auth,
            inside,
            require_token=require_token,
            allow_unknown_rooms=allow_unknown_rooms,
            allow_query_secrets=allow_query_secrets,
            gate=gate,
        )

    if handler is None and on_message is None:
        on_message = _fan_out(hub, echo)
    endpoints: dict[str | None, Endpoint] = {
        path: door(_Rooms(hub, endpoint_for(handler, on_open, on_message, on_close)))
    }
    if members_path is not None:
        endpoints[members_path] = door(_Count(hub))
    routes: dict[str, Callable[[Request], Response]] = {"/healthz": json_route(lambda: {"status": "ok"})}
    if page:
        routes.update(page_routes())
        routes["/rooms.json"] = room_list_route(hub, rooms_table)
    routes.update(options.get("routes") or {})
    defaults: TcpOptions = {"subprotocols": _SUBPROTOCOLS}
    return serve_endpoints(endpoints, host, port, {**defaults, **options, "routes": routes}, hub._requests)


def _fan_out(hub: Hub, echo: bool) -> OnMessage:
    """What the seed does with a message: the whole room gets it."""

    def relay(conn: Conn, message: str | bytes) -> None:
        hub.broadcast_room(conn.metadata["room"], message, exclude=None if echo else conn)

    return relay


class _Rooms:
    """The rooms, and what happens in them."""

    def __init__(self, hub: Hub, inside: HandlerEndpoint | CallbackEndpoint) -> None:
        self._hub = hub
        self._inside = inside

    def check_space(self, room: str) -> None:
        self._hub.can_join(room)

    def enter(self, conn: Conn, room: str) -> Coroutine[Any, Any, None] | None:
        self._hub.join(room, conn)
        if conn.request.query.get("auth") == "message":
            # It is told that it is in, before any message of the room.
            conn.send_nowait(json.dumps({"type": "joined", "room": room}))
        return self._inside.opened(conn)


class _Count:
    """The connections that are told how many members a room has: no members themselves, but as many at most."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._watching = 0

    def check_space(self, room: str) -> None:
        self._hub._check_stopped()
        most = self._hub.config.max_connections
        if most and self._watching >= most:
            raise HubFull(f"websocket hub at capacity: {most} watchers")

    def enter(self, conn: Conn, room: str) -> None:
        self.check_space(room)

        def tell(room: str, count: int) -> None:
            with contextlib.suppress(SendQueueFull, ConnectionClosed):  # then the next count will do
                conn.send_nowait(json.dumps({"type": "members", "room": room, "members": count}))

        end = self._hub.watch_count(room, tell)
        self._watching += 1

        def left(conn: Conn) -> None:
            self._watching -= 1
            end()

        conn.add_close_callback(left)
        tell(room, self._hub.room_count(room))
        conn._deliver_to(lambda conn, message: None, lambda conn, exc: None)
