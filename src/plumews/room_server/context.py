"""Context of a room server: its endpoints and routes, whatever serves them: our own server, or an ASGI application.

`server` and the package ``asgi`` pass the keywords that their callers give: `options` checks them.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from .. import limits
from ..auth.authentication import Authentication
from ..auth.credentials import AuthOptions
from ..auth.interfaces import RoomAuth, RoomAuthorizer, TokenAuthenticator
from ..auth.password_checker import AUTHORIZER_THREADS, BlockingPool, PasswordChecker
from ..auth.passwords import RoomPasswords
from ..auth.simple import SimpleRoomAuth
from ..conn.config import ConnConfig
from ..conn.connection import Conn
from ..conn.handlers import OnMessage, endpoint_for
from ..errors import HubError
from ..hub.hub import Hub
from ..server.context import ServerContext
from ..server.endpoints import Endpoint
from .admin import BROADCAST_PATH, admin_broadcast_route
from .endpoint import RoomEndpoint, RoomOwner
from .options import split_room_options
from .page import page_routes
from .sessions import MemberCountFeed, RoomSessions, recovered_event
from .status import health_route, room_list_route
from .text_filter import TextFilterEndpoint

__all__ = ["room_context", "room_endpoints"]

_NO_ROOM = "allow_unknown_rooms=False, and no room has a password yet (set_room_password)"


#: Function that returns the endpoint whose connections ``owner`` takes over.
MakeEndpoint = Callable[[RoomOwner], RoomEndpoint]


def room_endpoints(
    hub: Hub,
    auth: RoomAuth | None,
    options: AuthOptions,
    *,
    token_auth: TokenAuthenticator | None = None,
    room_auth: RoomAuthorizer | None = None,
    allow_unknown_rooms: bool = True,
) -> tuple[MakeEndpoint, list[Callable[[], str]]]:
    """Return the function that makes endpoints of rooms, and functions that tell why no client could enter.

    All endpoints share one memory of passwords: guesses of an address count at each of them. Raise as
    :func:`plumews.serve_rooms`.
    """
    if not isinstance(hub, Hub):
        raise TypeError(f"hub must be a plumews.Hub, not {type(hub).__name__}")
    authentication = Authentication(
        _authenticator(auth if token_auth is None else token_auth),
        options,
        counters=hub._requests,
        identified=lambda conn: _identify(hub, conn),
    )
    authorizer = _authorizer(auth if room_auth is None else room_auth, allow_unknown_rooms)
    password_checker = PasswordChecker(authorizer)
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

    return endpoint, [
        authentication.doubt,
        lambda: "the hub has been stopped" if hub._members.stopped else "",
        lambda: "" if allow_unknown_rooms or not _has_no_room(authorizer) else _NO_ROOM,
    ]


def room_context(hub: Hub, auth: RoomAuth | None, given: Mapping[str, Any]) -> tuple[ServerContext, ConnConfig]:
    """Return the context of a room server and the configuration of its connections.

    The arguments are those of :func:`plumews.serve_rooms`, with its keywords as ``given``.
    """
    options, server_options, auth_options, config = split_room_options(given)
    auth_options.check_origins(server_options.origins)
    endpoint, doubts = room_endpoints(
        hub,
        auth,
        auth_options,
        token_auth=options.token_auth,
        room_auth=options.room_auth,
        allow_unknown_rooms=options.allow_unknown_rooms,
    )
    if options.recovery and hub.config.history is None:
        raise ValueError("recovery=True needs a hub that remembers: HubConfig(history=HistoryLimits())")

    on_message = options.on_message
    if options.handler is None and on_message is None:
        on_message = _fan_out(hub, options.echo)
    handling = endpoint_for(options.handler, options.on_open, on_message, options.on_close)
    rooms: Endpoint = endpoint(RoomSessions(hub, handling, options.recovery, options.encode_recovered))
    if options.text_policy is not None:
        rooms = TextFilterEndpoint(rooms, options.text_policy, hub._requests)
    endpoints: dict[str | None, Endpoint] = {options.path: rooms}
    if options.members_path is not None:
        endpoints[options.members_path] = endpoint(MemberCountFeed(hub))
    secret = options.broadcast_secret
    routes: dict[str, Any] = {"/healthz": health_route(hub, broadcast_enabled=secret is not None)}
    if options.page:
        routes.update(page_routes(recovery=options.recovery and options.encode_recovered is recovered_event))
        routes["/rooms.json"] = room_list_route(hub, options.rooms_table)
    routes.update(server_options.routes)
    if secret is not None:
        _add_broadcast(routes, hub, secret, auth, options.token_auth)
    context = ServerContext(endpoints, dataclasses.replace(server_options, routes=routes), hub._requests, doubts)
    return context, config


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
