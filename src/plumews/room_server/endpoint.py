"""Endpoint of a path whose connections each belong to one room.

The checks are, in this order: the name of the room, the token, the space in the room, the password. Slow checks run
last. A refusal is an HTTP status, or a close code if the client logs in by its first message.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

from ..auth.authentication import Authentication, failed
from ..auth.credentials import Credentials, logs_in_by_message, query_value
from ..auth.interfaces import RoomAuthorization, RoomAuthorizer
from ..auth.password_checker import BlockingPool, PasswordChecker, truth_of
from ..conn.connection import Conn
from ..constants import CloseCode, ErrorCode
from ..errors import (
    HubError,
    HubFull,
    HubStopped,
    InvalidHandshake,
    InvalidRoomName,
    RateLimited,
    Refused,
    RoomFull,
)
from ..http11.models import Request
from ..hub.hub import Hub
from ..protocol.state import cut_reason
from ..server.endpoints import AuthenticatedEndpoint
from ..validation import is_coroutine_function

__all__ = ["RoomEndpoint", "RoomOwner", "room_of"]


class RoomOwner(Protocol):
    """Owner of the connections of a :class:`RoomEndpoint`."""

    def check_request(self, request: Request) -> None:
        """Raise :class:`InvalidHandshake` for a request that cannot be served."""

    def check_space(self, room: str) -> None:
        """Raise :class:`HubError` if there is no space for another connection."""

    def enter(self, conn: Conn, room: str) -> Coroutine[Any, Any, None] | None:
        """Take over ``conn``, or raise :class:`HubError`. Return the work to run as a task of the server, if any."""


class RoomEndpoint(AuthenticatedEndpoint):
    """Endpoint of a path whose connections each belong to one room.

    Args:
        hub: hub of the rooms.
        authentication: verifies the tokens.
        authorizer: decides about each room. If it has ``authorize_room``, that method decides alone. Without
            ``has_room_password`` every room is checked.
        owner: owner of the connections that may enter.
        allow_unknown_rooms: True admits clients to rooms without a password.
        password_checker: runs the checks of passwords.
        authorizer_pool: runs an ``authorize_room`` that is a plain function.
    """

    def __init__(
        self,
        hub: Hub,
        authentication: Authentication,
        authorizer: RoomAuthorizer,
        owner: RoomOwner,
        *,
        allow_unknown_rooms: bool,
        password_checker: PasswordChecker,
        authorizer_pool: BlockingPool,
    ) -> None:
        super().__init__(authentication)
        self._hub = hub
        self._authorize_room: Callable[[RoomAuthorization], Any] | None = getattr(authorizer, "authorize_room", None)
        self._has_room_password: Callable[[str], bool] | None = getattr(authorizer, "has_room_password", None)
        self._owner = owner
        self._allow_unknown_rooms = allow_unknown_rooms
        self._password_checker = password_checker
        self._authorizer_pool = authorizer_pool

    def check(self, request: Request) -> None:
        """Raise :class:`InvalidHandshake` for an invalid ``request``, whoever the client is."""
        self._check(request, room_of(request))

    def admit(self, conn: Conn, request: Request) -> Awaitable[None] | None:
        return self.admit_to(room_of(request), conn, request)

    def admit_to(self, room: str, conn: Conn, request: Request) -> Awaitable[None] | None:
        """Decide as :meth:`admit` about ``room``, whatever the query says."""
        conn.metadata["room"] = room
        self._check(request, room)
        return super().admit(conn, request)

    def authorize(self, conn: Conn, credentials: Credentials) -> Awaitable[None] | None:
        room = conn.metadata["room"]
        if not logs_in_by_message(conn.request):  # else the open connection is told by its close code, in `enter`
            self._check_space(room)
        if self._authorize_room is not None:
            return self._guarded(conn, credentials, self._ask(self._authorize_room, conn, room, credentials.password))
        if self._has_room_password is not None and not self._has_room_password(room):
            if not self._allow_unknown_rooms:
                raise Refused("forbidden: unknown room", code=ErrorCode.ROOM_FORBIDDEN)
            return None
        return self._guarded(conn, credentials, self._check_password(conn, room, credentials))

    def enter(self, conn: Conn) -> Coroutine[Any, Any, None] | None:
        try:
            return self._owner.enter(conn, conn.metadata["room"])
        except HubStopped as exc:
            conn.close_nowait(CloseCode.GOING_AWAY, cut_reason(str(exc)))
        except (HubFull, RoomFull, RateLimited) as exc:
            conn.close_nowait(CloseCode.TRY_AGAIN_LATER, cut_reason(str(exc)))
        except HubError as exc:
            conn.close_nowait(CloseCode.POLICY_VIOLATION, cut_reason(str(exc)))
        return None

    # --- the checks -------------------------------------------------------------------------------

    def _check(self, request: Request, room: str) -> None:
        try:
            self._hub.config.check_room_name(room)
        except InvalidRoomName as exc:
            raise InvalidHandshake(f"invalid websocket room: {exc}", code=ErrorCode.INVALID_ROOM) from exc
        self._owner.check_request(request)

    def _check_space(self, room: str) -> None:
        try:
            self._owner.check_space(room)
        except RoomFull as exc:
            raise Refused.busy(str(exc), ErrorCode.JOIN_DENIED, status=429) from exc
        except RateLimited as exc:
            raise Refused.busy(str(exc), ErrorCode.JOIN_DENIED, exc.retry_after, status=429) from exc
        except HubError as exc:
            raise Refused.busy(str(exc), ErrorCode.JOIN_DENIED) from exc

    async def _ask(
        self, authorize: Callable[[RoomAuthorization], Any], conn: Conn, room: str, password: str | None
    ) -> None:
        user = conn.user_info
        claims = {} if user is None else user.claims
        asked = RoomAuthorization(conn.request, room, password, user, claims, user is None)
        if not await self._answer_of(authorize, asked):
            raise Refused("forbidden: this room is not for you", code=ErrorCode.ROOM_FORBIDDEN)
        self._hub._requests.authenticated += 1

    async def _answer_of(self, authorize: Callable[[RoomAuthorization], Any], asked: RoomAuthorization) -> bool:
        """Return the answer of the authorizer. A coroutine function runs on the loop, a plain function in a thread."""
        if is_coroutine_function(authorize):
            return bool(await authorize(asked))
        self._authorizer_pool.check_space("too many wait to be let in")
        work = self._authorizer_pool.start(authorize, asked)
        try:
            return await truth_of(asyncio.shield(work))
        finally:
            self._authorizer_pool.abandon(work)

    async def _guarded(self, conn: Conn, credentials: Credentials, work: Coroutine[Any, Any, None]) -> None:
        """Await ``work``. Log its failure without the credentials."""
        try:
            await work
        except InvalidHandshake:
            raise
        except Exception as exc:
            raise failed(conn, "the authorizer", exc, credentials) from None

    async def _check_password(self, conn: Conn, room: str, credentials: Credentials) -> None:
        password = credentials.password
        if self._has_room_password is not None and password is None:
            correct = False  # the room has a password
        else:
            correct = await self._password_checker.check(room, password, conn.client_address or None)
        if not correct:
            detail = ": none was sent" if password is None else ""
            raise Refused(f"forbidden: bad room password{detail}", code=ErrorCode.ROOM_FORBIDDEN)
        self._hub._requests.authenticated += 1


def room_of(request: Request) -> str:
    """Return the room that the query of ``request`` names (default ``default``)."""
    return query_value(request, "room") or "default"
