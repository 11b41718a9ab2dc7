"""Who a client is, by its token: on the request, on the first message, and when it brings a new one (layer 5).

An authenticator verifies, at once or as a coroutine; here its answer becomes ``conn.user_info``, a refusal with its
status and code, or an entry in the log without what the client sent. Invariants: nobody waits for an authenticator
who does not have to; each connection has one token at most, and ends with it.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from ..conn.connection import Conn
from ..conn.logs import log_context
from ..constants import CloseCode, ErrorCode
from ..counters import RequestCounters
from ..errors import AuthError, InvalidHandshake, Refused
from ..http11.models import Request
from .credentials import Credentials, TokenSources, credentials_of_request
from .interfaces import TokenAuthenticator
from .simple import SimpleRoomAuth
from .token_lifetime import TokenRegistry
from .token_refresh import TokenRefresh

__all__ = ["Authentication", "failed"]

logger = logging.getLogger("plumews.server")


class Authentication:
    """The authentication of one server.

    ``identified(conn)`` is called when a refresh has changed ``conn.user_info``. Raises ``ValueError`` where a token is
    required that nobody could verify.
    """

    def __init__(
        self,
        authenticator: TokenAuthenticator,
        *,
        sources: TokenSources,
        require_token: bool,
        tally: RequestCounters,
        identified: Callable[[Conn], object] = lambda conn: None,
    ) -> None:
        if require_token and _knows_no_token(authenticator):
            raise ValueError(
                "require_token=True needs an auth that verifies tokens, or nobody could enter: SimpleRoomAuth(secret)"
            )
        self._authenticator = authenticator
        self._sources = sources
        self._require_token = require_token
        self._live = TokenRegistry(authenticator)
        self._refresh = TokenRefresh(self.verified, tally, identified)
        self.tally = tally

    def doubt(self) -> str:
        """Why nobody can log in; empty if somebody can."""
        sources = self._sources
        if not self._require_token or sources.named or sources.cookie or sources.query:
            return ""
        return "require_token=True, and no place for a token (token_sources, token_cookie, allow_query_secrets)"

    def credentials_of(self, request: Request) -> Credentials:
        """As :func:`credentials_of_request`, which says what it raises."""
        return credentials_of_request(request, self._sources)

    def check(self, conn: Conn, credentials: Credentials) -> Awaitable[None] | None:
        """Find out who ``conn`` is; returns an awaitable if that takes time.

        Raises :class:`InvalidHandshake`, here or from the awaitable: 401 without a token where one is required, 403
        for a bad one, 500 if the authenticator failed.
        """
        token = credentials.token
        if token is None:
            if self._require_token:
                raise Refused(
                    "websocket token required",
                    status=401,
                    code=ErrorCode.TOKEN_REQUIRED,
                    headers=(("WWW-Authenticate", "Bearer"),),
                )
            return None
        claims = self.verified(conn, token)
        if not isinstance(claims, Mapping):
            return self._check_later(conn, claims)
        self._authenticated(conn, claims)
        return None

    def expect_message(self, conn: Conn) -> None:
        """``conn`` logs in by its first message; what it says of that kind later is for us, too."""
        self._refresh.watch(conn, first=True)

    def is_good(self, conn: Conn) -> bool:
        """Whether ``conn``, which is open now, may go on; if its token has ended meanwhile, it is closed."""
        ended = self._refresh.ended(conn)
        if ended is not None:
            conn.close_nowait(CloseCode.UNAUTHORIZED, ended)
        return ended is None

    def verified(self, conn: Conn, token: str) -> Mapping[str, Any] | Awaitable[Mapping[str, Any]]:
        """The claims of ``token``, or an awaitable of them; raises :class:`InvalidHandshake`, as that does."""
        try:
            claims = self._authenticator.verify_jwt(token)
            if inspect.isawaitable(claims):
                return self._verified_later(conn, token, claims)
            return self._checked(claims)
        except (Exception, asyncio.CancelledError) as exc:
            raise _refusal(conn, token, exc) from None

    # --- inside -----------------------------------------------------------------------------------

    async def _verified_later(self, conn: Conn, token: str, claims: Awaitable[Any]) -> Mapping[str, Any]:
        try:
            return self._checked(await claims)
        except Exception as exc:
            raise _refusal(conn, token, exc) from None

    def _checked(self, claims: Any) -> Mapping[str, Any]:
        if not isinstance(claims, Mapping):
            raise TypeError(f"verify_jwt must return the claims as a mapping, not {type(claims).__name__}")
        self._live.check(claims)
        return claims

    async def _check_later(self, conn: Conn, claims: Awaitable[Mapping[str, Any]]) -> None:
        self._authenticated(conn, await claims)

    def _authenticated(self, conn: Conn, claims: Mapping[str, Any]) -> None:
        if conn._transport is None:
            return  # it is gone, and would not be forgotten
        token = self._live.add(conn, claims)
        conn.user_info = token.user
        self._refresh.watch(conn, token=token)
        self.tally.authenticated += 1


def _knows_no_token(authenticator: TokenAuthenticator) -> bool:
    if not isinstance(authenticator, SimpleRoomAuth) or authenticator.tokens is not None:
        return False
    return type(authenticator).verify_jwt is SimpleRoomAuth.verify_jwt  # else it knows tokens of another kind


def failed(conn: Conn, what: str, exc: BaseException, credentials: Credentials) -> InvalidHandshake:
    """The refusal for a failure of the application's code ``what``, which is logged without the credentials."""
    logger.error("%s failed", what, exc_info=exc, extra=log_context(conn, secrets=credentials))
    return InvalidHandshake("websocket handshake failed", status=500, code=ErrorCode.HANDSHAKE_FAILED)


def _refusal(conn: Conn, token: str, exc: BaseException) -> InvalidHandshake:
    if isinstance(exc, AuthError):
        return Refused(f"forbidden: invalid token ({exc})", code=ErrorCode.INVALID_TOKEN)
    if isinstance(exc, InvalidHandshake):
        return exc  # the application's own
    return failed(conn, "the authenticator", exc, Credentials(token))
