"""Access of clients to rooms by token and password, as a dependency of FastAPI.

The checks are those of the room server. A client that may not enter gets an HTTP status, if it is a program. A page
sees no status: for a browser, which sends an ``Origin``, the WebSocket is accepted and closed with the code that the
room server uses. Both are exceptions of Starlette, so an application may handle them in its own way.

Invariant: a client that is refused never reaches the endpoint.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any, Final

from ..auth.credentials import AuthOptions
from ..auth.interfaces import RoomAuth, RoomAuthorizer, TokenAuthenticator
from ..auth.token_lifetime import close_of_refusal
from ..errors import InvalidHandshake, Refused
from ..http11.handshake import offered_subprotocols
from ..http11.origin import AllowedOrigin, allowed_origins, check_origin
from ..http11.redaction import BEARER
from ..room_server.context import room_endpoints
from ..room_server.endpoint import room_of
from .connection import opening

if TYPE_CHECKING:
    from ..conn.connection import Conn
    from ..http11.models import Request
    from ..hub.hub import Hub
    from ..users import UserInfo

__all__ = ["RoomAccess"]

#: Places of a token. A first message is not one: the endpoint reads the messages.
_SOURCES: Final = ("header", "subprotocol")


class RoomAccess:
    """Dependency of a WebSocket endpoint of FastAPI that admits clients to a room.

    The room is the path parameter ``room``, else ``?room=`` (default ``default``). The dependency is called before
    ``accept()``. Its value is the user of the token, ``None`` without a token. The connection gets the user, and ends
    with the token. Its client may renew the token, as in :func:`plumews.serve_rooms`. In Starlette, await it:
    ``user = await access(websocket)``.

    Args:
        hub: hub of the rooms. It says whether there is space.
        auth: passwords and tokens, such as :class:`plumews.SimpleRoomAuth`. ``None`` if ``token_auth`` and
            ``room_auth`` are given.
        token_auth: verifies the tokens instead: a :class:`plumews.TokenAuthenticator`.
        room_auth: authorizes clients for rooms instead: a :class:`plumews.RoomAuthorizer`.
        allow_unknown_rooms: True admits clients to rooms without a password (default True).
        require_token: True refuses clients without a token (default False).
        token_sources: enabled places of a token, of ``"header"`` and ``"subprotocol"`` (default: both).
        token_cookie: name of a cookie with the token (default ``None``).
        allow_query_secrets: True accepts ``?token=`` and ``?room_password=`` (default False).
        origins: origins whose pages may connect beside the server's own, as in :func:`plumews.serve`. By default no
            origin is checked, or with ``token_cookie`` only the server's own is allowed.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind, or contradicts another one.
    """

    def __init__(
        self,
        hub: Hub,
        auth: RoomAuth | None = None,
        *,
        token_auth: TokenAuthenticator | None = None,
        room_auth: RoomAuthorizer | None = None,
        allow_unknown_rooms: bool = True,
        require_token: bool = False,
        token_sources: Collection[str] = _SOURCES,
        token_cookie: str | None = None,
        allow_query_secrets: bool = False,
        origins: Iterable[AllowedOrigin] | None = None,
    ) -> None:
        options = AuthOptions(require_token, token_sources, token_cookie, allow_query_secrets)
        if "message" in options.token_sources:
            raise ValueError(
                'RoomAccess reads no message: token_sources may have "header" and "subprotocol". '
                "plumews.asgi.rooms lets clients log in by their first message"
            )
        self._origins = allowed_origins(origins)
        options.check_origins(self._origins)
        self._checks_origin = origins is not None or token_cookie is not None
        make, _ = room_endpoints(
            hub,
            auth,
            options,
            token_auth=token_auth,
            room_auth=room_auth,
            allow_unknown_rooms=allow_unknown_rooms,
        )
        self._requests = hub._requests
        self._endpoint = make(_Space(hub))

    @property
    def __signature__(self) -> inspect.Signature:
        """Signature for FastAPI, which passes the WebSocket by its type."""
        websockets = importlib.import_module("starlette.websockets")
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        return inspect.Signature([inspect.Parameter("websocket", kind, annotation=websockets.WebSocket)])

    async def __call__(self, websocket: Any) -> UserInfo | None:
        """Return the user of ``websocket``, if it may enter the room.

        Raises:
            starlette.exceptions.HTTPException: a program may not enter. It has the status of the room server.
            starlette.exceptions.WebSocketException: a browser may not enter. It has the close code of the room server.
        """
        extension = opening(websocket)
        conn = extension.opening
        request = conn.request
        try:
            if self._checks_origin:
                check_origin(request, self._origins, request.secure)
            room = websocket.path_params.get("room")  # a converter of the route may give 0
            deciding = self._endpoint.admit_to(room_of(request) if room is None else str(room), conn, request)
            if deciding is not None:
                await deciding
            if conn._transport is None:
                raise Refused("the client has gone")
            extension.on_open = self._opened
        except InvalidHandshake as exc:
            self._requests.refused.add(exc.code)
            raise await _refusal(websocket, request, exc) from exc
        return conn.user_info

    def _opened(self, conn: Conn) -> None:
        """Close ``conn`` if its token has ended since it was verified."""
        self._endpoint.opened(conn, 0.0)


class _Space:
    """Owner of the connections of the endpoint, which the application itself takes over."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def check_request(self, request: Request) -> None:
        """Accept any request."""

    def check_space(self, room: str) -> None:
        self._hub.can_join(room)

    def enter(self, conn: Conn, room: str) -> None:
        """Do nothing."""


async def _refusal(websocket: Any, request: Request, exc: InvalidHandshake) -> Exception:
    """Return the exception of Starlette that refuses ``websocket``. A browser's is accepted first."""
    exceptions = importlib.import_module("starlette.exceptions")
    denial = "websocket.http.response" in (websocket.scope.get("extensions") or {})
    refused: Exception
    if "Origin" not in request.headers and denial:
        refused = exceptions.HTTPException(exc.status, detail=f"{exc} ({exc.code})", headers=dict(exc.headers))
        return refused
    if "Origin" in request.headers:
        await websocket.accept(subprotocol=_subprotocol(request))
    code, reason = close_of_refusal(exc)
    refused = exceptions.WebSocketException(code=int(code), reason=reason)
    return refused


def _subprotocol(request: Request) -> str | None:
    """Return an offered subprotocol that is no token: without one, a browser that offers some sees no close code."""
    try:
        offered = offered_subprotocols(request)
    except InvalidHandshake:
        return None
    return next((subprotocol for subprotocol in offered if not subprotocol.startswith(BEARER)), None)
