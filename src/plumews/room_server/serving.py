"""The function `serve_rooms`: a server whose connections each belong to one room of a hub.

A client enters the room in ``?room=`` (default ``default``) with the room's password and, if required, a token. Each of
its messages is sent to all members of the room, the client included. A handler or callbacks may replace that. A
connection to ``/members`` watches the member count of a room, so that the messages of a room come from members only.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .. import limits
from ..auth.authentication import Authentication
from ..auth.interfaces import RoomAuth, RoomAuthorizer, TokenAuthenticator
from ..auth.password_checker import AUTHORIZER_THREADS, BlockingPool, PasswordChecker
from ..auth.passwords import RoomPasswords
from ..auth.simple import SimpleRoomAuth
from ..conn.connection import Conn
from ..conn.handlers import Handler, OnMessage, OnOpenOrClose, endpoint_for
from ..errors import HubError
from ..hub.history_store import EncodeRecovered, check_encode_recovered
from ..hub.hub import Hub
from ..server.context import ServerContext
from ..server.endpoints import Endpoint
from ..server.options import TcpKeywords, split_options
from ..server.server import Serving, serve_on_tcp
from .admin import BROADCAST_PATH, admin_broadcast_route
from .endpoint import RoomEndpoint, RoomOwner
from .page import page_routes
from .sessions import MemberCountFeed, RoomSessions, recovered_event
from .status import RoomsTable, check_rooms_table, health_route, room_list_route
from .text_filter import TextFilterEndpoint, TextPolicy

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["serve_rooms"]

#: A browser that offers ``bearer.<token>`` fails the connection unless another offered subprotocol is chosen.
_SUBPROTOCOLS = ("plumews",)

_NO_ROOM = "allow_unknown_rooms=False, and no room has a password yet (set_room_password)"


def serve_rooms(
    hub: Hub,
    auth: RoomAuth | None,
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
    token_auth: TokenAuthenticator | None = None,
    room_auth: RoomAuthorizer | None = None,
    allow_unknown_rooms: bool = True,
    broadcast_secret: str | bytes | None = None,
    text_policy: TextPolicy | None = None,
    recovery: bool = False,
    encode_recovered: EncodeRecovered | None = recovered_event,
    **options: Unpack[TcpKeywords],
) -> Serving:
    """Serve the rooms of ``hub``.

    A client names its room in ``?room=``. It authenticates by the headers ``Authorization: Bearer <token>`` and
    ``X-WebSocket-Room-Password``, or by the subprotocols ``plumews, bearer.<token>``. With ``?auth=message`` it sends
    ``{"type": "auth", "password": ..., "token": ...}`` as its first message. A cookie and the query are other places,
    if they are enabled. A connection ends with its token, unless the client sends a new one as such a message.

    Args:
        hub: hub that connections join. It outlives the server and is stopped by the caller.
        auth: passwords and tokens, such as :class:`plumews.SimpleRoomAuth`. ``None`` if ``token_auth`` and
            ``room_auth`` are given.
        token_auth: verifies the tokens instead: a :class:`plumews.TokenAuthenticator`.
        room_auth: authorizes clients for rooms instead: a :class:`plumews.RoomAuthorizer`.
        host: address to listen on, as in :func:`plumews.serve`.
        port: port to listen on, as in :func:`plumews.serve`.
        handler: coroutine function instead of the fan-out, as in :func:`plumews.serve`. It runs after authentication
            and joining, with ``conn.metadata["room"]`` and ``conn.user_info``.
        on_open: callback after joining, as in :func:`plumews.serve`.
        on_message: callback instead of the fan-out, as in :func:`plumews.serve`.
        on_close: callback after the end of a connection, as in :func:`plumews.serve`.
        path: path of the WebSocket (default ``/ws``).
        members_path: path of the WebSocket that sends the member count as JSON (default ``/members``). ``None``: none.
        page: True serves a browser page at ``/`` (default False).
        rooms_table: clients that see the list of rooms, their members and long queues on that page: ``"nobody"``
            (default), ``"everybody"``, or ``"local"``, which is a direct request from this machine. A proxy on this
            machine that sends no proxy headers passes for that.
        echo: True sends a message to its sender, too (default True).
        allow_unknown_rooms: True admits clients to rooms without a password (default True). An authorizer with
            ``authorize_room``, or without ``has_room_password``, decides about each room itself.
        broadcast_secret: secret of ``POST /_admin/broadcast``, see :func:`plumews.admin_broadcast_route` (default: no
            such route). At least 32 bytes, and none of the keys of tokens.
        text_policy: rules for text messages beyond UTF-8 (default ``None``: none). A message that breaks one closes the
            connection, or is skipped, before room, handler or callback see it. A handler that uses ``read_stream``
            checks its messages itself.
        recovery: True accepts ``?since=POSITION`` and sends a client the messages that it missed in its room before any
            later one, as :meth:`plumews.Hub.recover` does (default False). ``?since=start`` sends all that are kept.
            ``conn.metadata["recovery"]`` is the :class:`plumews.Recovery` then. Needs a hub with ``history``.
        encode_recovered: encodes the event that such a client gets before the messages that it missed, as in
            :meth:`plumews.Hub.recover` (default: ``{"type": "recovered", "complete": true, "missed": 2, "position":
            "1f0c9a5be27d4830.17"}``). ``None`` sends no event.
        options: options as in :func:`plumews.serve`, such as ``queue_size``, ``send_timeout`` and ``send_behavior`` of
            the send queue of each connection (64, 0.05 s, BLOCK), or ``token_cookie``. ``require_token`` is False by
            default.

    Returns:
        The server: start it with ``async with``, or await it.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument is out of range, or contradicts another one.
        WeakSecret: ``broadcast_secret`` is too short.
        OSError: the address cannot be used, as in :func:`plumews.serve`. Raised when the result is awaited.
    """
    if not isinstance(hub, Hub):
        raise TypeError(f"hub must be a plumews.Hub, not {type(hub).__name__}")
    server_options, auth_options, config = split_options({"subprotocols": _SUBPROTOCOLS, **options})
    auth_options.check_origins(server_options.origins)
    authentication = Authentication(
        _authenticator(auth if token_auth is None else token_auth),
        auth_options,
        counters=hub._requests,
        identified=lambda conn: _identify(hub, conn),
    )
    authorizer = _authorizer(auth if room_auth is None else room_auth, allow_unknown_rooms)
    check_rooms_table(rooms_table)
    if text_policy is not None and not isinstance(text_policy, TextPolicy):
        raise TypeError(f"text_policy must be a plumews.TextPolicy, not {type(text_policy).__name__}")
    if path == members_path:
        raise ValueError(f"path and members_path must differ, both are {path!r}")
    if recovery and hub.config.history is None:
        raise ValueError("recovery=True needs a hub that remembers: HubConfig(history=HistoryLimits())")
    if encode_recovered is not None:
        check_encode_recovered(encode_recovered)
        if not recovery and encode_recovered is not recovered_event:
            raise ValueError("encode_recovered is for recovery=True, which is not given")

    password_checker = PasswordChecker(authorizer)  # shared: guesses of an address count at all endpoints
    authorizer_pool = BlockingPool(AUTHORIZER_THREADS, limits.PASSWORD_QUEUE)

    def endpoint(owner: RoomOwner) -> RoomEndpoint:
        return RoomEndpoint(
            hub,
            authentication,
            authorizer,
            owner,
            allow_unknown_rooms=allow_unknown_rooms,
            password_checker=password_checker,
            authorizer_pool=authorizer_pool,
        )

    if handler is None and on_message is None:
        on_message = _fan_out(hub, echo)
    rooms: Endpoint = endpoint(
        RoomSessions(hub, endpoint_for(handler, on_open, on_message, on_close), recovery, encode_recovered)
    )
    if text_policy is not None:
        rooms = TextFilterEndpoint(rooms, text_policy, hub._requests)
    endpoints: dict[str | None, Endpoint] = {path: rooms}
    if members_path is not None:
        endpoints[members_path] = endpoint(MemberCountFeed(hub))
    routes: dict[str, Any] = {"/healthz": health_route(hub, broadcast_enabled=broadcast_secret is not None)}
    if page:
        routes.update(page_routes(recovery=recovery and encode_recovered is recovered_event))
        routes["/rooms.json"] = room_list_route(hub, rooms_table)
    routes.update(server_options.routes)
    if broadcast_secret is not None:
        _add_broadcast(routes, hub, broadcast_secret, auth, token_auth)
    doubts = (
        authentication.doubt,
        lambda: "the hub has been stopped" if hub._members.stopped else "",
        lambda: "" if allow_unknown_rooms or not _has_no_room(authorizer) else _NO_ROOM,
    )
    context = ServerContext(endpoints, dataclasses.replace(server_options, routes=routes), hub._requests, doubts)
    return serve_on_tcp(context, config, host, port, hub)


def _add_broadcast(routes: dict[str, Any], hub: Hub, secret: str | bytes, *authenticators: object) -> None:
    if BROADCAST_PATH in routes:
        raise ValueError(f"the route of {BROADCAST_PATH} is that of broadcast_secret: give one of the two")
    routes[BROADCAST_PATH] = admin_broadcast_route(hub, secret)
    for authenticator in authenticators:
        signs_with = getattr(authenticator, "signs_with", None)
        if signs_with is not None and signs_with(secret):
            raise ValueError("websocket broadcast secret must be separate from websocket JWT secret")


def _authenticator(given: TokenAuthenticator | None) -> TokenAuthenticator:
    if isinstance(given, type) or not callable(getattr(given, "verify_jwt", None)):
        raise TypeError("auth must be a plumews.SimpleRoomAuth(...), or have its method verify_jwt; or give token_auth")
    assert given is not None
    return given


def _authorizer(given: RoomAuthorizer | None, allow_unknown_rooms: bool) -> RoomAuthorizer:
    if given is not None and callable(getattr(given, "authorize_room", None)):
        return given
    if given is None or not callable(getattr(given, "check_room_password", None)):
        raise TypeError(
            "auth must be a plumews.SimpleRoomAuth, or have its method check_room_password, or authorize_room; "
            "or give room_auth"
        )
    if not allow_unknown_rooms and not callable(getattr(given, "has_room_password", None)):
        raise TypeError("allow_unknown_rooms=False needs has_room_password(room), which says what rooms there are")
    return given


def _has_no_room(authorizer: RoomAuthorizer) -> bool:
    """Return whether ``authorizer`` decides by room passwords only, and has none yet."""
    if hasattr(authorizer, "authorize_room"):
        return False
    asked = getattr(type(authorizer), "has_room_password", None)
    if isinstance(authorizer, SimpleRoomAuth) and asked is SimpleRoomAuth.has_room_password:
        return not len(authorizer.passwords)
    return isinstance(authorizer, RoomPasswords) and asked is RoomPasswords.has_room_password and not len(authorizer)


def _identify(hub: Hub, conn: Conn) -> None:
    """Update the user of ``conn`` in the hub, if it is a member."""
    for room in hub.rooms_of(conn)[:1]:  # the user is the same in all rooms
        with contextlib.suppress(HubError):  # the hub has been stopped
            hub.join(room, conn)


def _fan_out(hub: Hub, echo: bool) -> OnMessage:
    """Return the callback that sends each message to the whole room."""

    def relay(conn: Conn, message: str | bytes) -> None:
        hub.broadcast_room(conn.metadata["room"], message, exclude=None if echo else conn)

    return relay
