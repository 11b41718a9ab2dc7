"""Who may enter a room: the order of checks, on a request or on a first message (layer 5).

Room name, token, space, password; the slow one last, in a thread, a bounded number at once. Refused with an HTTP
status where the client can see one, and with a close code where it cannot. What happens inside the room is for
`room_server` to say.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Coroutine, Mapping
from typing import Any, Final, Protocol

from . import limits
from .authorizing import RoomAuthorizer, TokenAuthenticator
from .conn import Conn
from .constants import CloseCode
from .credentials import Credentials, credentials_of_message, credentials_of_request
from .errors import (
    AuthError,
    ConnectionClosed,
    HubError,
    HubFull,
    HubStopped,
    InvalidHandshake,
    InvalidRoomName,
    RateLimited,
    Refused,
    RoomFull,
)
from .http11 import Request
from .hub import Hub
from .password_gate import PasswordGate
from .protocol import cut_reason
from .users import extract_user_info

__all__ = ["Inside", "RoomAuth", "RoomDoor"]

logger = logging.getLogger("plumews.server")

#: What a status becomes for who is told by a close code; the others become 4403.
_CLOSE_CODES: Final = {
    401: CloseCode.UNAUTHORIZED,
    429: CloseCode.TRY_AGAIN_LATER,
    503: CloseCode.TRY_AGAIN_LATER,
}

_RETRY: Final = (("Retry-After", "5"),)


class RoomAuth(TokenAuthenticator, RoomAuthorizer, Protocol):
    """Who may do what; :class:`plumews.SimpleRoomAuth` is one."""

    def has_room_password(self, room: str, /) -> bool:
        """Whether ``room`` is protected, and known."""


class Inside(Protocol):
    """What is behind the door."""

    def check_space(self, room: str) -> None:
        """Raise :class:`HubError` if there is no place for one more."""

    def enter(self, conn: Conn, room: str) -> Coroutine[Any, Any, None] | None:
        """Take ``conn`` in, or raise :class:`HubError`; what is returned runs as its task."""


class RoomDoor:
    """The endpoint of a path whose connections each belong to one room."""

    def __init__(
        self,
        hub: Hub,
        auth: RoomAuth,
        inside: Inside,
        *,
        require_token: bool,
        allow_unknown_rooms: bool,
        allow_query_secrets: bool,
        gate: PasswordGate | None = None,
    ) -> None:
        self._hub = hub
        self._auth = auth
        self._inside = inside
        self._require_token = require_token
        self._allow_unknown_rooms = allow_unknown_rooms
        self._allow_query_secrets = allow_query_secrets
        self._gate = PasswordGate(auth) if gate is None else gate

    # --- on the request ---------------------------------------------------------------------------

    def admit(self, conn: Conn, request: Request) -> Awaitable[None] | None:
        room = request.query.get("room") or "default"
        conn.metadata["room"] = room
        try:
            self._hub.config.check_room_name(room)
        except InvalidRoomName as exc:
            raise InvalidHandshake(f"invalid websocket room: {exc}", code="WEBSOCKET_INVALID_ROOM") from exc
        credentials = credentials_of_request(request, allow_query=self._allow_query_secrets)
        if _by_message(request):
            return None  # a page sees no status: it is told all, a full room too, by the close code
        self._check_token(conn, credentials)
        self._check_space(room)
        return self._check_password(conn, room, credentials) if self._is_protected(room) else None

    def opened(self, conn: Conn, deadline: float) -> Coroutine[Any, Any, None] | None:
        if not _by_message(conn.request):
            return self._let_in(conn)
        limit = conn.read_limit
        conn.read_limit = limits.HEAD_SIZE if limit is None else min(limit, limits.HEAD_SIZE)
        return self._admit_by_message(conn, limit, deadline)

    # --- on the first message ---------------------------------------------------------------------

    async def _admit_by_message(self, conn: Conn, limit: int | None, deadline: float) -> None:
        check = asyncio.ensure_future(self._check_message(conn))

        def nobody_waits(conn: Conn) -> None:
            check.cancel()  # or the passwords of those who are gone would be hashed before those of who is there

        conn.add_close_callback(nobody_waits)
        try:
            await asyncio.wait_for(check, deadline - conn._loop.time())
        except asyncio.TimeoutError:
            self._hub._requests.refused.add("WEBSOCKET_HANDSHAKE_TIMEOUT")
            conn.close_nowait(CloseCode.AUTH_TIMEOUT, "authentication took too long")
        except InvalidHandshake as exc:
            self._hub._requests.refused.add(exc.code)
            conn.close_nowait(_CLOSE_CODES.get(exc.status, CloseCode.FORBIDDEN), cut_reason(str(exc)))
        except ConnectionClosed:
            pass  # nobody is there any more
        except asyncio.CancelledError:
            if not conn.closed:
                raise  # the server stops
        except Exception:
            logger.exception("authenticating connection %s failed", conn.id)
            conn.close_nowait(CloseCode.INTERNAL_ERROR, "authentication failed")
        else:
            conn.remove_close_callback(nobody_waits)
            conn.read_limit = limit
            work = self._let_in(conn)
            if work is not None:
                await work

    async def _check_message(self, conn: Conn) -> None:
        room = conn.metadata["room"]
        credentials = credentials_of_message(await conn.recv())
        if credentials is None:
            raise Refused('the first message must be {"type": "auth", "password": ..., "token": ...}')
        self._check_token(conn, credentials)
        if self._is_protected(room):
            await self._check_password(conn, room, credentials)

    # --- the checks -------------------------------------------------------------------------------

    def _check_token(self, conn: Conn, credentials: Credentials) -> None:
        if credentials.token is None:
            if self._require_token:
                raise Refused(
                    "websocket token required",
                    status=401,
                    code="WEBSOCKET_TOKEN_REQUIRED",
                    headers=(("WWW-Authenticate", "Bearer"),),
                )
            return
        try:
            claims = self._auth.verify_jwt(credentials.token)
        except AuthError as exc:
            raise Refused(f"forbidden: invalid token ({exc})", code="WEBSOCKET_INVALID_TOKEN") from exc
        assert isinstance(claims, Mapping), "verify_jwt must be a plain method here"
        conn.user_info = extract_user_info(claims)
        self._hub._requests.authenticated += 1

    def _check_space(self, room: str) -> None:
        try:
            self._inside.check_space(room)
        except RoomFull as exc:
            raise Refused(str(exc), status=429, code="WEBSOCKET_JOIN_DENIED", headers=_RETRY) from exc
        except RateLimited as exc:
            retry = (("Retry-After", str(max(1, math.ceil(exc.retry_after)))),)
            raise Refused(str(exc), status=429, code="WEBSOCKET_JOIN_DENIED", headers=retry) from exc
        except HubError as exc:
            raise Refused(str(exc), status=503, code="WEBSOCKET_JOIN_DENIED", headers=_RETRY) from exc

    def _is_protected(self, room: str) -> bool:
        protected = self._auth.has_room_password(room)
        if not protected and not self._allow_unknown_rooms:
            raise Refused("forbidden: unknown room", code="WEBSOCKET_ROOM_FORBIDDEN")
        return protected

    async def _check_password(self, conn: Conn, room: str, credentials: Credentials) -> None:
        password = credentials.password
        if password is None or not await self._gate.check(room, password, _address(conn)):
            raise Refused("forbidden: bad room password", code="WEBSOCKET_ROOM_FORBIDDEN")
        self._hub._requests.authenticated += 1

    # --- inside -----------------------------------------------------------------------------------

    def _let_in(self, conn: Conn) -> Coroutine[Any, Any, None] | None:
        """The last check and the joining in one step, behind the 101 (section 8 point 3 of the seed's review)."""
        if conn.closed:
            return None
        try:
            return self._inside.enter(conn, conn.metadata["room"])
        except HubStopped as exc:
            conn.close_nowait(CloseCode.GOING_AWAY, cut_reason(str(exc)))
        except (HubFull, RoomFull, RateLimited) as exc:
            conn.close_nowait(CloseCode.TRY_AGAIN_LATER, cut_reason(str(exc)))
        except HubError as exc:
            conn.close_nowait(CloseCode.POLICY_VIOLATION, cut_reason(str(exc)))
        except Exception:
            logger.exception("letting connection %s in failed", conn.id)
            conn.close_nowait(CloseCode.INTERNAL_ERROR, "the handler failed")
        return None


def _by_message(request: Request) -> bool:
    return request.query.get("auth") == "message"


def _address(conn: Conn) -> str | None:
    """Whose guesses count together; who comes by a Unix socket has no address."""
    address = conn.remote_address
    return address[0] if isinstance(address, tuple) else None
