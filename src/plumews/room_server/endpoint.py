"""Who may enter a room: the order of checks, on a request or on a first message (layer 5).

Room name, token, space, the room itself; the slow ones last, in a thread, a bounded number at once. Refused with an
HTTP status where the client can see one, and with a close code where it cannot. Who it is that asks is for `login`
to say, and what happens inside the room for `room_server`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

from ..auth.authentication import Authentication, admit_by_message, failed
from ..auth.credentials import Credentials, logs_in_by_message, query_value
from ..auth.interfaces import RoomAuthorization, RoomAuthorizer
from ..auth.password_checker import PasswordChecker
from ..conn.connection import Conn
from ..conn.logs import log_context
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
from ..validation import is_coroutine_function

__all__ = ["Inside", "RoomEndpoint"]

logger = logging.getLogger("plumews.server")


class Inside(Protocol):
    """What is behind the door."""

    def check_request(self, request: Request) -> None:
        """Raise :class:`InvalidHandshake` for one that asks for what there cannot be."""

    def check_space(self, room: str) -> None:
        """Raise :class:`HubError` if there is no place for one more."""

    def enter(self, conn: Conn, room: str) -> Coroutine[Any, Any, None] | None:
        """Take ``conn`` in, or raise :class:`HubError`; what is returned runs as its task."""


class RoomEndpoint:
    """The endpoint of a path whose connections each belong to one room."""

    def __init__(
        self,
        hub: Hub,
        login: Authentication,
        authorizer: RoomAuthorizer,
        inside: Inside,
        *,
        allow_unknown_rooms: bool,
        password_checker: PasswordChecker,
    ) -> None:
        self._hub = hub
        self._login = login
        self._auth = authorizer
        self._authorize_room: Callable[[RoomAuthorization], Any] | None = getattr(authorizer, "authorize_room", None)
        #: One that cannot say which rooms have a password is asked about each of them.
        self._has_room_password: Callable[[str], bool] | None = getattr(authorizer, "has_room_password", None)
        self._inside = inside
        self._allow_unknown_rooms = allow_unknown_rooms
        self._password_checker = password_checker

    # --- on the request ---------------------------------------------------------------------------

    def check(self, request: Request) -> None:
        """Raise :class:`InvalidHandshake` for what is wrong with ``request`` itself, whoever asks."""
        try:
            self._hub.config.check_room_name(_room_of(request))
        except InvalidRoomName as exc:
            raise InvalidHandshake(f"invalid websocket room: {exc}", code=ErrorCode.INVALID_ROOM) from exc
        self._inside.check_request(request)

    def admit(self, conn: Conn, request: Request) -> Awaitable[None] | None:
        room = conn.metadata["room"] = _room_of(request)
        self.check(request)
        credentials = self._login.credentials_of(request)
        if logs_in_by_message(request):
            return None  # a page sees no status: it is told all, a full room too, by the close code
        work = self._login.check(conn, credentials)
        if work is not None:
            return self._admit_later(conn, work, credentials)
        self._check_space(room)
        return self._authorize(conn, credentials)

    async def _admit_later(self, conn: Conn, work: Awaitable[None], credentials: Credentials) -> None:
        await work
        self._check_space(conn.metadata["room"])
        await _done(self._authorize(conn, credentials))

    def opened(self, conn: Conn, deadline: float) -> Coroutine[Any, Any, None] | None:
        if not logs_in_by_message(conn.request):
            return self._let_in(conn)
        self._login.expect_message(conn)
        return admit_by_message(conn, deadline, self._login.counters, self._check_message, self._let_in)

    async def _check_message(self, conn: Conn, said: Credentials) -> None:
        credentials = self._login.credentials_of(conn.request).with_message(said)
        await _done(self._login.check(conn, credentials))
        await _done(self._authorize(conn, credentials))

    # --- the checks -------------------------------------------------------------------------------

    def _check_space(self, room: str) -> None:
        try:
            self._inside.check_space(room)
        except RoomFull as exc:
            raise Refused.busy(str(exc), ErrorCode.JOIN_DENIED, status=429) from exc
        except RateLimited as exc:
            raise Refused.busy(str(exc), ErrorCode.JOIN_DENIED, exc.retry_after, status=429) from exc
        except HubError as exc:
            raise Refused.busy(str(exc), ErrorCode.JOIN_DENIED) from exc

    def _authorize(self, conn: Conn, credentials: Credentials) -> Awaitable[None] | None:
        """Whether ``conn`` may enter its room; an authorizer that has ``authorize_room`` is asked that and no more."""
        room = conn.metadata["room"]
        if self._authorize_room is not None:
            return self._guarded(conn, credentials, self._ask(self._authorize_room, conn, room, credentials.password))
        if self._has_room_password is not None and not self._has_room_password(room):
            if not self._allow_unknown_rooms:
                raise Refused("forbidden: unknown room", code=ErrorCode.ROOM_FORBIDDEN)
            return None
        return self._guarded(conn, credentials, self._check_password(conn, room, credentials))

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
        pool = self._password_checker.pool
        pool.check_space("too many wait to be let in")
        call = pool.start(authorize, asked)
        try:
            return await call.answer()
        finally:
            call.abandon()

    async def _guarded(self, conn: Conn, credentials: Credentials, work: Coroutine[Any, Any, None]) -> None:
        """``work``, whose failures are logged without the credentials."""
        try:
            await work
        except InvalidHandshake:
            raise
        except Exception as exc:
            raise failed(conn, "the authorizer", exc, credentials) from None

    async def _check_password(self, conn: Conn, room: str, credentials: Credentials) -> None:
        password = credentials.password
        if self._has_room_password is not None and password is None:
            correct = False  # it has one
        else:
            correct = await self._password_checker.check(room, password, conn.client_address or None)
        if not correct:
            detail = ": none was sent" if password is None else ""
            raise Refused(f"forbidden: bad room password{detail}", code=ErrorCode.ROOM_FORBIDDEN)
        self._hub._requests.authenticated += 1

    # --- inside -----------------------------------------------------------------------------------

    def _let_in(self, conn: Conn) -> Coroutine[Any, Any, None] | None:
        """The last check and the joining in one step, behind the 101 (section 8 point 3 of the seed's review)."""
        if conn.closed or not self._login.is_good(conn):
            return None
        try:
            return self._inside.enter(conn, conn.metadata["room"])
        except HubStopped as exc:
            conn.close_nowait(CloseCode.GOING_AWAY, cut_reason(str(exc)))
        except (HubFull, RoomFull, RateLimited) as exc:
            conn.close_nowait(CloseCode.TRY_AGAIN_LATER, cut_reason(str(exc)))
        except HubError as exc:
            conn.close_nowait(CloseCode.POLICY_VIOLATION, cut_reason(str(exc)))
        except (Exception, asyncio.CancelledError):
            logger.exception("letting a connection in failed", extra=log_context(conn))
            conn.close_nowait(CloseCode.INTERNAL_ERROR, "the handler failed")
        return None


def _room_of(request: Request) -> str:
    return query_value(request, "room") or "default"


async def _done(work: Awaitable[None] | None) -> None:
    if work is not None:
        await work
