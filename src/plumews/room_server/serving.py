"""`serve_rooms`: the seed's `ServeWSWithAuth` as a server (layer 5).

A client enters the room in ``?room=`` (``default`` without one) with its password and, maybe, a token; each message
it sends goes to everybody in the room, itself included. A handler or callbacks may take the place of that.
Whoever asks at ``/members`` is told how many members a room has, on a connection of its own: the messages of a room
are only what its members said.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..auth.authentication import Authentication
from ..auth.interfaces import RoomAuth, RoomAuthorizer, TokenAuthenticator
from ..auth.password_checker import PasswordChecker
from ..auth.passwords import RoomPasswords
from ..auth.simple import SimpleRoomAuth
from ..conn.connection import Conn
from ..conn.handlers import Handler, OnMessage, OnOpenOrClose, endpoint_for
from ..errors import HubError
from ..hub.history_store import EncodeRecovered, check_encode_recovered
from ..hub.hub import Hub
from ..server.context import ServerContext
from ..server.endpoints import Endpoint
from ..server.options import ServerKeywords, split_options
from ..server.server import Serving, serve_on_tcp
from .admin import BROADCAST_PATH, admin_broadcast_route
from .endpoint import RoomEndpoint, RoomOwner
from .health import health_route
from .page import page_routes
from .sessions import MemberCountFeed, RoomSessions, recovered_event
from .status import RoomsTable, check_rooms_table, room_list_route
from .text_filter import TextPolicy
from .text_screen import TextFilterEndpoint

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["serve_rooms"]

#: A browser that offers ``bearer.<token>`` fails unless another subprotocol of its offer is chosen.
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
    **options: Unpack[ServerKeywords],
) -> Serving:
    """Serve the rooms of ``hub``; the seed's ``ServeWSWithAuth``.

    A client names its room in ``?room=`` and says who it is in one of these ways: the headers ``Authorization:
    Bearer <token>`` and ``X-WebSocket-Room-Password``; the subprotocols ``plumews, bearer.<token>``; ``?auth=message``
    and then ``{"type": "auth", "password": ..., "token": ...}`` as its first message; a cookie, or the query, where
    that is allowed. A connection ends with its token, unless it sends a new one in time as such a message.

    Args:
        hub: where connections join; it outlives the server, stop it yourself.
        auth: passwords and tokens, such as :class:`plumews.SimpleRoomAuth`; ``None`` if the next two are given.
        token_auth: verifies the tokens instead: a :class:`plumews.TokenAuthenticator`.
        room_auth: says who enters which room instead: a :class:`plumews.RoomAuthorizer`.
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
        allow_unknown_rooms: let everybody into rooms without a password (default True, the seed's behaviour); an
            authorizer with ``authorize_room``, or without ``has_room_password``, decides about each room by itself.
        broadcast_secret: whoever has it may ``POST /_admin/broadcast``, see :func:`plumews.admin_broadcast_route`
            (default: nobody may, and there is no such path). At least 32 bytes, and none of those that sign tokens.
        text_policy: what text messages may be, beyond UTF-8 (default ``None``: anything). Who breaks it is closed, or
            not heard, before room, handler or callback see it. What a handler reads with ``read_stream`` it has to
            look at by itself.
        recovery: whether ``?since=POSITION`` brings a client what it missed in its room, before anything later, as
            :meth:`plumews.Hub.recover` does (default False). ``?since=start`` brings all that is kept.
            ``conn.metadata["recovery"]`` is the :class:`plumews.Recovery` then. Needs a hub with ``history``.
        encode_recovered: what such a client is sent before the messages that it missed, as in
            :meth:`plumews.Hub.recover` (default: ``{"type": "recovered", "complete": true, "missed": 2, "position":
            "1f0c9a5be27d4830.17"}``). ``None`` sends nothing.
        options: as in :func:`plumews.serve`, such as ``queue_size``, ``send_timeout`` and ``send_behavior`` of the send
            queue of each connection (64, 0.05 s, BLOCK), or ``token_cookie``. ``require_token`` is False by default.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind. WeakSecret: ``broadcast_secret`` is too short.
        OSError: as in :func:`plumews.serve`.
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

    def endpoint(owner: RoomOwner) -> RoomEndpoint:
        return RoomEndpoint(
            hub,
            authentication,
            authorizer,
            owner,
            allow_unknown_rooms=allow_unknown_rooms,
            password_checker=password_checker,
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
    """Return whether ``authorizer`` knows of room passwords alone, and of none yet."""
    if hasattr(authorizer, "authorize_room"):
        return False
    asked = getattr(type(authorizer), "has_room_password", None)
    if isinstance(authorizer, SimpleRoomAuth) and asked is SimpleRoomAuth.has_room_password:
        return not len(authorizer.passwords)
    return isinstance(authorizer, RoomPasswords) and asked is RoomPasswords.has_room_password and not len(authorizer)


def _identify(hub: Hub, conn: Conn) -> None:
    """The hub looks again who ``conn`` is, if it is a member."""
    for room in hub.rooms_of(conn)[:1]:  # what is true of it in one room is in all
        with contextlib.suppress(HubError):  # the hub has been stopped
            hub.join(room, conn)


def _fan_out(hub: Hub, echo: bool) -> OnMessage:
    """What the seed does with a message: the whole room gets it."""

    def relay(conn: Conn, message: str | bytes) -> None:
        hub.broadcast_room(conn.metadata["room"], message, exclude=None if echo else conn)

    return relay
