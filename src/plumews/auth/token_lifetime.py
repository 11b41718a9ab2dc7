"""Lifetime of a token on a live connection: expiry, revocation, and renewal by the client.

A connection ends with its token, also one that ends or is revoked before the connection is open. A connection has one
deadline, and no task. ``{"type": "auth", "token": "..."}`` renews its token, and is answered by ``{"type": "auth",
"ok": true, "exp": ...}``. Neither handler nor room sees such a message. The new token must be of the same user.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from contextvars import Context
from typing import Any, Final, TypeVar

from .. import limits
from ..conn.connection import Conn
from ..conn.filters import add_filter, find_filter
from ..conn.handlers import is_stopped
from ..conn.logs import log_extra
from ..constants import CloseCode, ErrorCode
from ..counters import RequestCounters
from ..errors import ConnectionClosed, InvalidHandshake, Refused, SendQueueFull
from ..protocol.state import cut_reason
from ..transport.safe_calls import call_safely
from ..transport.timers import Deadline
from ..users import UserInfo, extract_user_info
from .credentials import auth_fields, credentials_in
from .interfaces import TokenAuthenticator
from .revocation import Revocation, Revocations

__all__ = [
    "ConnectionToken",
    "TokenRefresh",
    "TokenRegistry",
    "close_of_refusal",
    "is_logging_in",
    "log_refusal",
    "mark_logged_in",
    "refuse",
    "wait_for_answer",
]

logger = logging.getLogger("plumews.server")

T = TypeVar("T")

#: Verifies a token for a connection. Returns the claims at once, or an awaitable of them.
Verify = Callable[[Conn, str], "Mapping[str, Any] | Awaitable[Mapping[str, Any]]"]

EXPIRED: Final = "jwt expired"
REVOKED: Final = "token revoked"

#: Close codes that stand for an HTTP status on an open connection. Any other status is 4403.
_CLOSE_CODES: Final = {
    401: CloseCode.UNAUTHORIZED,
    408: CloseCode.AUTH_TIMEOUT,
    429: CloseCode.TRY_AGAIN_LATER,
    500: CloseCode.INTERNAL_ERROR,
    503: CloseCode.TRY_AGAIN_LATER,
}

_USAGE: Final = 'a new token must come as {"type": "auth", "token": ...}'

#: Later than any clock, and within the range in which a float counts fractions of a second.
_NEVER: Final = 1e12

#: Longest time in seconds between two looks at a token's end: a clock that is set moves the end by no more.
_CHECK_INTERVAL: Final = 300.0

#: Seconds from the end of a token to the look at it: at the second of its ``exp`` a token is still valid.
_GRAIN: Final = 0.01


class TokenRegistry:
    """Tokens of the live connections of one server, indexed by user and by ``jti``.

    The registry subscribes to revocations only while it has tokens.
    """

    def __init__(self, authenticator: TokenAuthenticator) -> None:
        self._revocations: Any = getattr(authenticator, "revocations", None)
        leeway = getattr(authenticator, "leeway", None)
        if isinstance(self._revocations, Revocations) and isinstance(leeway, (int, float)):
            self._revocations.allow_leeway(leeway)
        self.revoked: Callable[[Mapping[str, Any]], bool] = getattr(self._revocations, "revoked", lambda claims: False)
        #: An authenticator with a leeway or a clock of its own computes the remaining time itself.
        self.seconds_left: Callable[[Mapping[str, Any]], float | None] = getattr(
            authenticator, "seconds_left", _seconds_left
        )
        self._by_user: dict[str, dict[ConnectionToken, None]] = {}
        self._by_jti: dict[str, dict[ConnectionToken, None]] = {}
        self._count = 0
        self._unsubscribe: Callable[[], None] | None = None

    def __len__(self) -> int:
        """Return the number of connections with a token."""
        return self._count

    def add(self, conn: Conn, claims: Mapping[str, Any]) -> ConnectionToken:
        """Tie ``conn`` to the verified ``claims`` until it is closed."""
        self._count += 1
        if self._count == 1 and self._revocations is not None:
            self._subscribe(conn._loop)
        try:
            return ConnectionToken(self, conn, claims)
        except BaseException:
            self.remove()
            raise

    def check(self, claims: Mapping[str, Any]) -> None:
        """Raise the error of ``seconds_left`` for ``claims``, and ``TypeError`` if it returns no time."""
        left = self.seconds_left(claims)
        if left is not None and not isinstance(left, (int, float)):
            raise TypeError(f"seconds_left must return a number of seconds or None, not {type(left).__name__}")

    def remove(self) -> None:
        """Count one connection less, and end the subscription with the last of them."""
        self._count -= 1
        if self._count == 0 and self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None

    def index(self, token: ConnectionToken) -> None:
        for table, key in self._entries(token):
            table.setdefault(key, {})[token] = None

    def unindex(self, token: ConnectionToken) -> None:
        for table, key in self._entries(token):
            tokens = table[key]
            del tokens[token]
            if not tokens:
                del table[key]

    def _entries(self, token: ConnectionToken) -> list[tuple[dict[str, dict[ConnectionToken, None]], str]]:
        claims = token.claims
        tables = (self._by_user, claims.get("sub")), (self._by_jti, claims.get("jti"))
        return [(table, key) for table, key in tables if isinstance(key, str)]

    def _subscribe(self, loop: asyncio.AbstractEventLoop) -> None:
        def revoked(revocation: Revocation) -> None:  # in any thread
            with contextlib.suppress(RuntimeError):  # the loop is closed, and its connections with it
                loop.call_soon_threadsafe(self._revoke, revocation, context=Context())

        self._unsubscribe = self._revocations.subscribe(revoked)

    def _revoke(self, revocation: Revocation) -> None:
        tables = (self._by_user, revocation.user_id), (self._by_jti, revocation.jti)
        found = [token for table, key in tables if key is not None for token in table.get(key, ())]
        for token in found:
            if revocation.covers(token.claims):
                call_safely("closing a connection", token.end, REVOKED)


class ConnectionToken:
    """Token of one live connection, which is closed when the token ends."""

    __slots__ = ("_conn", "_deadline", "_tokens", "claims", "ended", "user")

    def __init__(self, tokens: TokenRegistry, conn: Conn, claims: Mapping[str, Any]) -> None:
        self._tokens = tokens
        self._conn = conn
        #: Reason why the token is no longer valid, or None while it is.
        self.ended: str | None = None
        self._deadline: Deadline | None = None
        left = tokens.seconds_left(claims)
        self._set(claims, left)
        conn.add_close_callback(self._remove)

    def renew(self, claims: Mapping[str, Any]) -> None:
        """Replace the claims, the user and the end of this token by those of a new token."""
        left = self._tokens.seconds_left(claims)
        self._tokens.unindex(self)
        self._set(claims, left)

    def end(self, reason: str) -> None:
        """Close the connection with 4401, at once or as soon as it is open."""
        self.ended = reason
        self._conn.close_nowait(CloseCode.UNAUTHORIZED, reason)

    def _set(self, claims: Mapping[str, Any], left: float | None) -> None:
        self.claims = claims
        #: Value that ``conn.user_info`` was set to. The application may have replaced it since.
        self.user: UserInfo = extract_user_info(claims)
        self._tokens.index(self)
        self._schedule(left)
        # A revocation before the indexing did not find this token.
        if self._tokens.revoked(claims):
            self.end(REVOKED)

    def _look(self) -> None:
        try:
            left = self._conn._run_in_context(self._tokens.seconds_left, self.claims)
        except BaseException:
            self.end(EXPIRED)  # the end is unknown, and there would be no further look
            raise
        self._schedule(left)

    def _schedule(self, left: float | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if left is None:
            return
        if not left >= 0:  # NaN, too, which an application may return
            self.end(EXPIRED)
            return
        # The clock of the tokens may be set while the loop's clock runs on.
        self._deadline = self._conn._state.timers.after(min(left + _GRAIN, _CHECK_INTERVAL), self._look)

    def _remove(self, conn: Conn) -> None:
        self._schedule(None)
        self._tokens.unindex(self)
        self._tokens.remove()


def _seconds_left(claims: Mapping[str, Any]) -> float | None:
    """Return the seconds until ``exp`` has passed, negative after it. Return None for a token that does not expire."""
    exp = claims.get("exp")
    if isinstance(exp, bool) or not isinstance(exp, (int, float)):
        return None
    return min(exp, _NEVER) - time.time()


class TokenRefresh:
    """Renewal of tokens on the live connections of one server."""

    def __init__(self, verify: Verify, counters: RequestCounters, identified: Callable[[Conn], object]) -> None:
        self._verify = verify
        self._counters = counters
        self._identified = identified
        self._tasks: set[asyncio.Future[None]] = set()

    def watch(self, conn: Conn, *, token: ConnectionToken | None = None, first: bool = False) -> None:
        """Filter renewals out of the messages of ``conn``. True for ``first`` passes its first message on unread."""
        renewals = find_filter(conn, _RenewalFilter)
        if renewals is None:
            renewals = _RenewalFilter(self, first)
            add_filter(conn, renewals)
        renewals.token = token

    def ended(self, conn: Conn) -> str | None:
        """Return why the token of ``conn`` is no longer valid. Return None if it is valid, or there is none."""
        renewals = find_filter(conn, _RenewalFilter)
        return None if renewals is None or renewals.token is None else renewals.token.ended

    def handle(self, conn: Conn, renewals: _RenewalFilter, fields: dict[str, Any]) -> None:
        """Verify the token in ``fields``, a renewal sent on ``conn``, and renew or close."""
        try:
            claims = self._verify(conn, _token_in(fields, renewals))
        except InvalidHandshake as exc:
            refuse(conn, exc, self._counters)
            return
        if isinstance(claims, Mapping):
            self._renew(conn, renewals, claims)
            return
        renewals.busy = True
        task = asyncio.ensure_future(self._renew_later(conn, renewals, claims))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _renew_later(self, conn: Conn, renewals: _RenewalFilter, claims: Awaitable[Mapping[str, Any]]) -> None:
        try:
            verified = await wait_for_answer(conn, asyncio.ensure_future(claims), limits.OPEN_TIMEOUT)
            self._renew(conn, renewals, verified)
        except asyncio.TimeoutError:
            late = InvalidHandshake("authentication took too long", status=408, code=ErrorCode.HANDSHAKE_TIMEOUT)
            refuse(conn, late, self._counters)
        except InvalidHandshake as exc:
            refuse(conn, exc, self._counters)
        except (Exception, asyncio.CancelledError):
            if is_stopped():
                raise
            logger.exception("looking at a new token failed", extra=log_extra(conn))
            conn.close_nowait(CloseCode.INTERNAL_ERROR, "authentication failed")
        finally:
            renewals.busy = False

    def _renew(self, conn: Conn, renewals: _RenewalFilter, claims: Mapping[str, Any]) -> None:
        token = renewals.token
        if conn.closed or token is None:
            return
        user, old_user = claims.get("sub"), token.claims.get("sub")
        if user != old_user or not old_user:  # tokens without a sub may belong to different users
            why = "the token is of another user" if old_user else "a token without a sub cannot be renewed"
            refuse(conn, Refused(f"forbidden: {why}", code=ErrorCode.OTHER_USER), self._counters)
            return
        follows_token = conn.user_info is token.user
        token.renew(claims)
        if token.ended is not None:
            return
        self._counters.authenticated += 1
        if follows_token:
            conn.user_info = token.user
            self._identified(conn)
        with contextlib.suppress(ConnectionClosed, SendQueueFull):  # the renewal counts without the answer, too
            conn.send_nowait(json.dumps({"type": "auth", "ok": True, "exp": claims.get("exp")}))


def is_logging_in(conn: Conn) -> bool:
    """Return whether ``conn`` is open and has yet to log in by its first message."""
    renewals = find_filter(conn, _RenewalFilter)
    return renewals is not None and renewals.logging_in


def mark_logged_in(conn: Conn) -> None:
    """Note that ``conn`` has logged in by its first message."""
    renewals = find_filter(conn, _RenewalFilter)
    if renewals is not None:
        renewals.logging_in = False


class _RenewalFilter:
    """Message filter of one connection that takes renewals out before the application sees them."""

    __slots__ = ("_first", "_refresh", "busy", "logging_in", "token")

    def __init__(self, refresh: TokenRefresh, first: bool) -> None:
        self._refresh = refresh
        self._first = self.logging_in = first
        self.token: ConnectionToken | None = None
        self.busy = False

    def __call__(self, conn: Conn, message: str | bytes) -> bool:
        """Return True for a renewal. Two string searches tell most other messages apart without parsing JSON."""
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
        self._refresh.handle(conn, self, fields)
        return True


async def wait_for_answer(conn: Conn, answer: asyncio.Future[T], seconds: float) -> T:
    """Return the result of ``answer``, which is cancelled when ``conn`` closes or ``seconds`` have passed.

    An answer that ignores its cancellation is not waited for. Raise ``TimeoutError`` of asyncio after that time, and
    ``RuntimeError`` for an answer that cancelled itself.
    """

    def cancel(conn: Conn) -> None:
        answer.cancel()  # so that passwords of closed connections are not hashed before those of open ones

    conn.add_close_callback(cancel)
    answer.add_done_callback(_consume_exception)
    try:
        await asyncio.wait({answer}, timeout=max(0.0, seconds))
    finally:
        conn.remove_close_callback(cancel)
        late = answer.cancel()
    if late:
        raise asyncio.TimeoutError
    if answer.cancelled() and not conn.closed:
        raise RuntimeError("whoever was asked cancelled itself")
    return answer.result()


def _consume_exception(answer: asyncio.Future[Any]) -> None:
    """Retrieve a late exception. Otherwise asyncio logs it, and its text may hold a secret."""
    if not answer.cancelled():
        answer.exception()


def refuse(conn: Conn, refusal: InvalidHandshake, counters: RequestCounters) -> None:
    """Close ``conn``, which is open, with the close code that stands for ``refusal``, and count it."""
    counters.refused.add(refusal.code)
    code, reason = close_of_refusal(refusal)
    log_refusal(conn, code, refusal.code)
    conn.close_nowait(code, reason)


def close_of_refusal(refusal: InvalidHandshake) -> tuple[CloseCode, str]:
    """Return the close code and the reason that stand for ``refusal`` on an open connection."""
    code = _CLOSE_CODES.get(refusal.status, CloseCode.FORBIDDEN)
    return code, "authentication failed" if code is CloseCode.INTERNAL_ERROR else cut_reason(str(refusal))


def log_refusal(conn: Conn, code: int, word: str) -> None:
    """Log that ``conn``, which is open, is closed with ``code`` because of the error code ``word``."""
    logger.info("refused by close code %d %s", code, word, extra=log_extra(conn, f"refused {word}"))


def _token_in(fields: dict[str, Any], renewals: _RenewalFilter) -> str:
    credentials = credentials_in(fields)
    if credentials is None or credentials.token is None:
        raise Refused(_USAGE, code=ErrorCode.INVALID_TOKEN)
    if renewals.token is None:
        raise Refused("there is no token here that a new one could follow", code=ErrorCode.INVALID_TOKEN)
    if renewals.busy:
        raise Refused("one new token at a time", code=ErrorCode.INVALID_TOKEN)
    return credentials.token
