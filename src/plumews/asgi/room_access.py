"""Access of clients to rooms by token and password, as a dependency of FastAPI.

The checks are those of the room server. A client that may not enter gets an HTTP status, if it is a program. A page
sees no status: for a browser, which sends an ``Origin``, the WebSocket is accepted and closed with the code that the
room server uses. So is any client whose WebSocket is accepted already. Both are exceptions of Starlette, so an
application may handle them in its own way.

Invariant: a client that is refused never reaches the endpoint.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any, Final

from .. import limits
from ..auth.credentials import AuthOptions
from ..auth.interfaces import RoomAuth, RoomAuthorizer, TokenAuthenticator
from ..auth.token_lifetime import close_of_refusal
from ..constants import CloseCode
from ..errors import InvalidHandshake
from ..http11.handshake import offered_subprotocols
from ..http11.origin import AllowedOrigin, allowed_origins, check_origin
from ..http11.redaction import BEARER
from ..room_server.context import room_endpoints
from ..room_server.endpoint import room_of
from ..validation import check_time
from .connection import conn as connection_of
from .connection import extension_of, opening
from .room_admission import decided

if TYPE_CHECKING:
    from ..conn.connection import Conn
    from ..http11.models import Request
    from ..hub.hub import Hub
    from ..users import UserInfo
    from .scope import Extension

__all__ = ["RoomAccess"]

#: Places of a token. A first message is not one: the endpoint reads the messages.
_SOURCES: Final = ("header", "subprotocol")


class RoomAccess:
    """Dependency of a WebSocket endpoint of FastAPI that admits clients to a room.

    The room is the path parameter ``room``, else ``?room=`` (default ``default``). The dependency is called before
    ``accept()``: after it, a program gets a close code in place of a status. Its value is the user of the token,
    ``None`` without a token. The connection gets the user, and ends with the token. Its client may renew the token, as
    in :func:`plumews.serve_rooms`. In Starlette, await it: ``user = await access(websocket)``.

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
        open_timeout: seconds for all checks (default 10). After that the client is refused with 408 or 4408.

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
        open_timeout: float = limits.OPEN_TIMEOUT,
    ) -> None:
        check_time("open_timeout", open_timeout)
        self._open_timeout = open_timeout
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
            starlette.exceptions.WebSocketException: a browser may not enter, or a client whose WebSocket is accepted
                already. It has the close code of the room server.
            starlette.websockets.WebSocketDisconnect: the client has left before it was decided.
            RuntimeError: the WebSocket is closed.
        """
        extension = _extension(websocket)
        accepted = "conn" in extension
        conn = extension.opening
        request = conn.request
        try:
            if self._checks_origin:
                check_origin(request, self._origins, request.secure)
            room = websocket.path_params.get("room")  # a converter of the route may give 0
            decision = self._endpoint.admit_to(room_of(request) if room is None else str(room), conn, request)
            if not await decided(conn, decision, self._open_timeout):
                raise _disconnect()
        except InvalidHandshake as exc:
            self._requests.refused.add(exc.code)
            if accepted:
                raise _close(exc) from exc
            raise await _refusal(websocket, request, exc) from exc
        if accepted:
            self._opened(conn)
        else:
            extension.on_open = self._opened
        return conn.user_info

    def _opened(self, conn: Conn) -> None:
        """Close ``conn`` if its token has ended since it was verified."""
        self._endpoint.opened(conn, 0.0)


def _extension(websocket: Any) -> Extension:
    """Return our extension of a WebSocket of Starlette, accepted or not."""
    if websocket.application_state.name == "CONNECTING":
        return opening(websocket)
    connection_of(websocket)  # on another server it is made of the events now
    extension = extension_of(websocket.scope)
    assert extension is not None
    return extension


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
    denial = "websocket.http.response" in (websocket.scope.get("extensions") or {})
    if "Origin" not in request.headers and denial:
        exceptions = importlib.import_module("starlette.exceptions")
        denied: Exception = exceptions.HTTPException(
            exc.status, detail=f"{exc} ({exc.code})", headers=dict(exc.headers)
        )
        return denied
    if "Origin" in request.headers:
        await websocket.accept(subprotocol=_subprotocol(request))
    return _close(exc)


def _close(exc: InvalidHandshake) -> Exception:
    """Return the exception of Starlette that closes an accepted WebSocket."""
    code, reason = close_of_refusal(exc)
    exceptions = importlib.import_module("starlette.exceptions")
    refused: Exception = exceptions.WebSocketException(code=int(code), reason=reason)
    return refused


def _disconnect() -> Exception:
    """Return the exception of Starlette for a client that has left."""
    left: Exception = importlib.import_module("starlette.websockets").WebSocketDisconnect(CloseCode.ABNORMAL_CLOSURE)
    return left


def _subprotocol(request: Request) -> str | None:
    """Return an offered subprotocol that is no token: without one, a browser that offers some sees no close code."""
    try:
        offered = offered_subprotocols(request)
    except InvalidHandshake:
        return None
    return next((subprotocol for subprotocol in offered if not subprotocol.startswith(BEARER)), None)
