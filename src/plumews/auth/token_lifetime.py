"""The tokens by which connections live: each ends with its ``exp``, or when it is revoked (layer 5).

One deadline on the loop's timer wheel for each connection with a token that expires, no task. Revocations come in any
thread, and are looked up by user and by ``jti``. Invariants: what is kept follows the connections, and the
revocations are listened to only while there are any; a token that ends before its connection is open ends it then, and
so does one that is revoked between its verification and its entry here.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from contextvars import Context
from typing import Any, Final

from .. import limits
from ..conn.connection import Conn
from ..constants import CloseCode
from ..transport.safe_calls import call_safely
from ..transport.timers import Deadline
from ..users import UserInfo, extract_user_info
from .interfaces import TokenAuthenticator
from .revocation import Revocation, Revocations

__all__ = ["ConnectionToken", "TokenRegistry"]

EXPIRED: Final = "jwt expired"
REVOKED: Final = "token revoked"

#: Beyond any clock, and within what can be counted in fractions of a second.
_NEVER: Final = 1e12


class TokenRegistry:
    """Those of one server."""

    def __init__(self, authenticator: TokenAuthenticator) -> None:
        self._revocations: Any = getattr(authenticator, "revocations", None)
        leeway = getattr(authenticator, "leeway", None)
        if isinstance(self._revocations, Revocations) and isinstance(leeway, (int, float)):
            self._revocations.allow_leeway(leeway)
        self.revoked: Callable[[Mapping[str, Any]], bool] = getattr(self._revocations, "revoked", lambda claims: False)
        #: An authenticator with a leeway or a clock of its own says how long its tokens are good.
        self.seconds_left: Callable[[Mapping[str, Any]], float | None] = getattr(
            authenticator, "seconds_left", _seconds_left
        )
        self._by_user: dict[str, dict[ConnectionToken, None]] = {}
        self._by_jti: dict[str, dict[ConnectionToken, None]] = {}
        self._count = 0
        self._unsubscribe: Callable[[], None] | None = None

    def __len__(self) -> int:
        """Connections that live by a token."""
        return self._count

    def add(self, conn: Conn, claims: Mapping[str, Any]) -> ConnectionToken:
        """``conn`` lives by the verified ``claims`` from now on, until it is gone."""
        self._count += 1
        if self._count == 1 and self._revocations is not None:
            self._subscribe(conn._loop)
        try:
            return ConnectionToken(self, conn, claims)
        except BaseException:
            self.removed()
            raise

    def check(self, claims: Mapping[str, Any]) -> None:
        """Raise what ``seconds_left`` raises for ``claims``, and ``TypeError`` if what it returns is no time."""
        left = self.seconds_left(claims)
        if left is not None and not isinstance(left, (int, float)):
            raise TypeError(f"seconds_left must return a number of seconds or None, not {type(left).__name__}")

    def removed(self) -> None:
        self._count -= 1
        if self._count == 0 and self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None

    def index(self, token: ConnectionToken) -> None:
        for table, key in self._places(token):
            table.setdefault(key, {})[token] = None

    def unindex(self, token: ConnectionToken) -> None:
        for table, key in self._places(token):
            tokens = table[key]
            del tokens[token]
            if not tokens:
                del table[key]

    def _places(self, token: ConnectionToken) -> list[tuple[dict[str, dict[ConnectionToken, None]], str]]:
        claims = token.claims
        tables = (self._by_user, claims.get("sub")), (self._by_jti, claims.get("jti"))
        return [(table, key) for table, key in tables if isinstance(key, str)]

    def _subscribe(self, loop: asyncio.AbstractEventLoop) -> None:
        def revoked(revocation: Revocation) -> None:  # in any thread
            with contextlib.suppress(RuntimeError):  # the loop is closed, and with it the connections
                loop.call_soon_threadsafe(self._revoke, revocation, context=Context())

        self._unsubscribe = self._revocations.subscribe(revoked)

    def _revoke(self, revocation: Revocation) -> None:
        tables = (self._by_user, revocation.user_id), (self._by_jti, revocation.jti)
        found = [token for table, key in tables if key is not None for token in table.get(key, ())]
        for token in found:
            if revocation.covers(token.claims):
                call_safely("closing a connection", token.end, REVOKED)


class ConnectionToken:
    """The token of one connection."""

    __slots__ = ("_conn", "_deadline", "_tokens", "claims", "ended", "user")

    def __init__(self, tokens: TokenRegistry, conn: Conn, claims: Mapping[str, Any]) -> None:
        self._tokens = tokens
        self._conn = conn
        #: Why the token is good no longer; ``None`` while it is.
        self.ended: str | None = None
        self._deadline: Deadline | None = None
        left = tokens.seconds_left(claims)
        self._take(claims, left)
        conn.add_close_callback(self._gone)

    def renew(self, claims: Mapping[str, Any]) -> None:
        """The connection lives by these ``claims`` instead; whoever it is said to be it is no more."""
        left = self._tokens.seconds_left(claims)
        self._tokens.unindex(self)
        self._take(claims, left)

    def end(self, reason: str) -> None:
        """The token is good no longer: nor is the connection, now or as soon as it is open."""
        self.ended = reason
        self._conn.close_nowait(CloseCode.UNAUTHORIZED, reason)

    def _take(self, claims: Mapping[str, Any], left: float | None) -> None:
        self.claims = claims
        #: What ``conn.user_info`` was set to; the application may have set another since.
        self.user: UserInfo = extract_user_info(claims)
        self._tokens.index(self)
        self._wait(left)
        # Whoever revoked it before it was in the index was not told that it lives.
        if self._tokens.revoked(claims):
            self.end(REVOKED)

    def _watch(self) -> None:
        try:
            left = self._conn._within(self._tokens.seconds_left, self.claims)
        except BaseException:
            self.end(EXPIRED)  # nobody knows how long it is good, and nobody would look again
            raise
        self._wait(left)

    def _wait(self, left: float | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if left is None:
            return
        if not left >= 0:  # whatever number an application makes of it
            self.end(EXPIRED)
            return
        # The clock of the tokens may be set while the loop's goes on: nobody looks at it less often than this.
        self._deadline = self._conn._state.timers.after(min(left + limits.TOKEN_GRAIN, limits.TOKEN_CHECK), self._watch)

    def _gone(self, conn: Conn) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self._tokens.unindex(self)
        self._tokens.removed()


def _seconds_left(claims: Mapping[str, Any]) -> float | None:
    """Seconds until ``exp`` has passed, less than 0 when it has; ``None`` for a token that does not expire."""
    exp = claims.get("exp")
    if isinstance(exp, bool) or not isinstance(exp, (int, float)):
        return None
    return min(exp, _NEVER) - time.time()
