"""A new token for a live connection, as a message of its own (layer 5).

``{"type": "auth", "token": "..."}`` extends the life of a connection that came with a token; the answer is ``{"type":
"auth", "ok": true, "exp": ...}``. Such a message is for the server alone: on a connection with a token, or that logs
in by message, neither handler nor room ever sees it. Whoever brings a bad token is closed with 4403, and has to come
again. Invariants: a connection stays the user that it is; one new token at a time is looked at, and for no longer than
the opening may take.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeVar

from .. import limits
from ..conn.connection import Conn
from ..conn.filters import add_screen, screen_of
from ..conn.handlers import is_stopped
from ..conn.logs import log_context
from ..constants import CloseCode, ErrorCode
from ..counters import RequestCounters
from ..errors import ConnectionClosed, InvalidHandshake, Refused, SendQueueFull
from ..protocol.state import cut_reason
from .credentials import auth_fields, credentials_in
from .token_lifetime import ConnectionToken

__all__ = ["TokenRefresh", "answered", "entered", "is_entering", "log_refusal", "refuse"]

logger = logging.getLogger("plumews.server")

T = TypeVar("T")

#: Answers at once, or later.
Verify = Callable[[Conn, str], "Mapping[str, Any] | Awaitable[Mapping[str, Any]]"]

#: What stands for an HTTP status on an open connection; any other is 4403.
_CLOSE_CODES: Final = {
    401: CloseCode.UNAUTHORIZED,
    408: CloseCode.AUTH_TIMEOUT,
    429: CloseCode.TRY_AGAIN_LATER,
    500: CloseCode.INTERNAL_ERROR,
    503: CloseCode.TRY_AGAIN_LATER,
}

_USAGE: Final = 'a new token must come as {"type": "auth", "token": ...}'


class TokenRefresh:
    """The refreshes of one server."""

    def __init__(self, verify: Verify, tally: RequestCounters, identified: Callable[[Conn], object]) -> None:
        self._verify = verify
        self._tally = tally
        self._identified = identified
        self._tasks: set[asyncio.Future[None]] = set()

    def watch(self, conn: Conn, *, token: ConnectionToken | None = None, first: bool = False) -> None:
        """Look for new tokens in what ``conn`` says; of its ``first`` message somebody else takes care."""
        screen = screen_of(conn, _Screen)
        if screen is None:
            screen = _Screen(self, first)
            add_screen(conn, screen)
        screen.token = token

    def ended(self, conn: Conn) -> str | None:
        """Why the token of ``conn`` is good no longer; ``None`` if it is, or there is none."""
        screen = screen_of(conn, _Screen)
        return None if screen is None or screen.token is None else screen.token.ended

    def came(self, conn: Conn, screen: _Screen, fields: dict[str, Any]) -> None:
        """``conn`` has brought a new token."""
        try:
            claims = self._verify(conn, _token_in(fields, screen))
        except InvalidHandshake as exc:
            refuse(conn, exc, self._tally)
            return
        if isinstance(claims, Mapping):
            self._renew(conn, screen, claims)
            return
        screen.busy = True
        task = asyncio.ensure_future(self._renew_later(conn, screen, claims))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _renew_later(self, conn: Conn, screen: _Screen, claims: Awaitable[Mapping[str, Any]]) -> None:
        try:
            self._renew(conn, screen, await answered(conn, asyncio.ensure_future(claims), limits.OPEN_TIMEOUT))
        except asyncio.TimeoutError:
            late = InvalidHandshake("authentication took too long", status=408, code=ErrorCode.HANDSHAKE_TIMEOUT)
            refuse(conn, late, self._tally)
        except InvalidHandshake as exc:
            refuse(conn, exc, self._tally)
        except (Exception, asyncio.CancelledError):
            if is_stopped():
                raise
            logger.exception("looking at a new token failed", extra=log_context(conn))
            conn.close_nowait(CloseCode.INTERNAL_ERROR, "authentication failed")
        finally:
            screen.busy = False

    def _renew(self, conn: Conn, screen: _Screen, claims: Mapping[str, Any]) -> None:
        token = screen.token
        if conn.closed or token is None:
            return
        user, was = claims.get("sub"), token.claims.get("sub")
        if user != was or not was:  # without a sub a token is of nobody in particular, and any other one might be
            why = "the token is of another user" if was else "a token without a sub cannot be renewed"
            refuse(conn, Refused(f"forbidden: {why}", code=ErrorCode.OTHER_USER), self._tally)
            return
        was_ours = conn.user_info is token.user
        token.renew(claims)
        if token.ended is not None:
            return
        self._tally.authenticated += 1
        if was_ours:
            conn.user_info = token.user
            self._identified(conn)
        with contextlib.suppress(ConnectionClosed, SendQueueFull):  # it counts whether or not they can be told
            conn.send_nowait(json.dumps({"type": "auth", "ok": True, "exp": claims.get("exp")}))


def is_entering(conn: Conn) -> bool:
    """Return whether ``conn`` is open and has yet to log in by its first message."""
    screen = screen_of(conn, _Screen)
    return screen is not None and screen.entering


def entered(conn: Conn) -> None:
    """Note that ``conn`` has logged in by its first message."""
    screen = screen_of(conn, _Screen)
    if screen is not None:
        screen.entering = False


class _Screen:
    """Sees each message of one connection before anybody else does."""

    __slots__ = ("_first", "_refresh", "busy", "entering", "token")

    def __init__(self, refresh: TokenRefresh, first: bool) -> None:
        self._refresh = refresh
        self._first = self.entering = first
        self.token: ConnectionToken | None = None
        self.busy = False

    def __call__(self, conn: Conn, message: str | bytes) -> bool:
        """Whether ``message`` was for us. Most are not, and are told from one that may be without reading them."""
        if self._first:
            self._first = False
            return False
        if isinstance(message, str):
            if '"auth"' not in message or not message.lstrip().startswith("{"):
                return False
        elif b'"auth"' not in message or not message.lstrip().startswith(b"{"):
            return False
        if len(message) > limits.HEAD_SIZE:
            return False
        fields = auth_fields(message)
        if fields is None:
            return False
        self._refresh.came(conn, self, fields)
        return True


async def answered(conn: Conn, asked: asyncio.Future[T], seconds: float) -> T:
    """What was ``asked`` on behalf of ``conn``, which is open; it is cancelled when the connection or the time ends.

    Who does not let itself be cancelled is not waited for. Raises ``asyncio.TimeoutError`` after ``seconds``,
    ``RuntimeError`` where it cancelled itself, and what it raised.
    """

    def gone(conn: Conn) -> None:
        asked.cancel()  # or the passwords of those who are gone would be hashed before those of who is there

    conn.add_close_callback(gone)
    asked.add_done_callback(_looked_at)
    try:
        await asyncio.wait({asked}, timeout=max(0.0, seconds))
    finally:
        conn.remove_close_callback(gone)
        late = asked.cancel()
    if late:
        raise asyncio.TimeoutError
    if asked.cancelled() and not conn.closed:
        raise RuntimeError("whoever was asked cancelled itself")
    return asked.result()


def _looked_at(asked: asyncio.Future[Any]) -> None:
    """What comes too late is no concern of asyncio's, whose log would tell it with all that stands in it."""
    if not asked.cancelled():
        asked.exception()


def refuse(conn: Conn, refusal: InvalidHandshake, tally: RequestCounters) -> None:
    """Close ``conn``, which is open, with what its handshake would have been refused for; it is counted."""
    tally.refused.add(refusal.code)
    code = _CLOSE_CODES.get(refusal.status, CloseCode.FORBIDDEN)
    reason = "authentication failed" if code is CloseCode.INTERNAL_ERROR else cut_reason(str(refusal))
    log_refusal(conn, code, refusal.code)
    conn.close_nowait(code, reason)


def log_refusal(conn: Conn, code: int, word: str) -> None:
    """Log that ``conn``, which is open, is closed with ``code`` for what ``word`` says."""
    logger.info("refused by close code %d %s", code, word, extra=log_context(conn, f"refused {word}"))


def _token_in(fields: dict[str, Any], screen: _Screen) -> str:
    credentials = credentials_in(fields)
    if credentials is None or credentials.token is None:
        raise Refused(_USAGE, code=ErrorCode.INVALID_TOKEN)
    if screen.token is None:
        raise Refused("there is no token here that a new one could follow", code=ErrorCode.INVALID_TOKEN)
    if screen.busy:
        raise Refused("one new token at a time", code=ErrorCode.INVALID_TOKEN)
    return credentials.token
