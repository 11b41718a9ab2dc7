"""Authentication of connections by token: on the request, by the first message, and on renewal.

The answer of an authenticator becomes ``conn.user_info``, a refusal with status and code, or a log entry without the
credentials of the client. An authenticator that answers at once costs no task. A connection that logs in by its first
message is open, but not admitted. A refusal is a close code then, because a page sees no status.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

from .. import limits
from ..conn.connection import Conn
from ..conn.handlers import is_stopped
from ..conn.logs import log_extra
from ..constants import CloseCode, ErrorCode
from ..counters import RequestCounters
from ..errors import AuthError, ConnectionClosed, InvalidHandshake, Refused
from ..http11.models import Request
from .credentials import AuthOptions, Credentials, credentials_of_message, credentials_of_request
from .interfaces import TokenAuthenticator
from .simple import SimpleRoomAuth
from .token_lifetime import TokenRefresh, TokenRegistry, log_refusal, mark_logged_in, refuse, wait_for_answer

__all__ = ["Authentication", "admit_by_message", "failed"]

logger = logging.getLogger("plumews.server")

Check = Callable[[Conn, Credentials], Awaitable[None]]
Enter = Callable[[Conn], "Coroutine[Any, Any, None] | None"]


class Authentication:
    """Authentication of the clients of one server.

    ``identified(conn)`` is called after a renewal has changed ``conn.user_info``. Raise ``ValueError`` if a token is
    required and the authenticator verifies none.
    """

    def __init__(
        self,
        authenticator: TokenAuthenticator,
        options: AuthOptions,
        *,
        counters: RequestCounters,
        identified: Callable[[Conn], object] = lambda conn: None,
    ) -> None:
        if options.require_token and _verifies_nothing(authenticator):
            raise ValueError(
                "require_token=True needs an auth that verifies tokens, or nobody could enter: SimpleRoomAuth(secret)"
            )
        self._authenticator = authenticator
        self._options = options
        self._tokens = TokenRegistry(authenticator)
        self._refresh = TokenRefresh(self.verify, counters, identified)
        self.counters = counters

    def doubt(self) -> str:
        """Return why no client can log in, or an empty string."""
        options = self._options
        places = options.token_sources or options.token_cookie or options.allow_query_secrets
        if places or not options.require_token:
            return ""
        return "require_token=True, and no place for a token (token_sources, token_cookie, allow_query_secrets)"

    def credentials_of(self, request: Request) -> Credentials:
        """Return the credentials of ``request``. Raise the errors of :func:`credentials_of_request`."""
        return credentials_of_request(request, self._options)

    def check(self, conn: Conn, credentials: Credentials) -> Awaitable[None] | None:
        """Verify the token of ``conn`` and set ``conn.user_info``. A coroutine function does it in the awaitable.

        Raises:
            InvalidHandshake: 401 without a token if one is required, 403 for an invalid token, 500 if the
                authenticator failed. The awaitable raises it as well.
        """
        token = credentials.token
        if token is None:
            if self._options.require_token:
                raise Refused(
                    "websocket token required",
                    status=401,
                    code=ErrorCode.TOKEN_REQUIRED,
                    headers=(("WWW-Authenticate", "Bearer"),),
                )
            return None
        claims = self.verify(conn, token)
        if not isinstance(claims, Mapping):
            return self._check_later(conn, claims)
        self._register(conn, claims)
        return None

    def expect_message(self, conn: Conn) -> None:
        """Let ``conn`` log in by its first message. Later messages of that kind are renewals."""
        self._refresh.watch(conn, first=True)

    def is_good(self, conn: Conn) -> bool:
        """Return whether the token of ``conn``, which is open, is still valid. Close ``conn`` if it has ended."""
        ended = self._refresh.ended(conn)
        if ended is not None:
            conn.close_nowait(CloseCode.UNAUTHORIZED, ended)
        return ended is None

    def verify(self, conn: Conn, token: str) -> Mapping[str, Any] | Awaitable[Mapping[str, Any]]:
        """Return the claims of ``token``, or an awaitable of them. Either may raise :class:`InvalidHandshake`."""
        try:
            claims = self._authenticator.verify_jwt(token)
            if inspect.isawaitable(claims):
                return self._verify_later(conn, token, claims)
            return self._checked(claims)
        except (Exception, asyncio.CancelledError) as exc:
            raise _refusal(conn, token, exc) from None

    # --- inside -----------------------------------------------------------------------------------

    async def _verify_later(self, conn: Conn, token: str, claims: Awaitable[Any]) -> Mapping[str, Any]:
        try:
            return self._checked(await claims)
        except Exception as exc:
            raise _refusal(conn, token, exc) from None

    def _checked(self, claims: Any) -> Mapping[str, Any]:
        if not isinstance(claims, Mapping):
            raise TypeError(f"verify_jwt must return the claims as a mapping, not {type(claims).__name__}")
        self._tokens.check(claims)
        return claims

    async def _check_later(self, conn: Conn, claims: Awaitable[Mapping[str, Any]]) -> None:
        self._register(conn, await claims)

    def _register(self, conn: Conn, claims: Mapping[str, Any]) -> None:
        if conn._transport is None:
            return  # it is lost already, and no close callback would remove its token
        token = self._tokens.add(conn, claims)
        conn.user_info = token.user
        self._refresh.watch(conn, token=token)
        self.counters.authenticated += 1


def _verifies_nothing(authenticator: TokenAuthenticator) -> bool:
    """Return whether ``authenticator`` refuses every token. A subclass may verify tokens of another kind."""
    if not isinstance(authenticator, SimpleRoomAuth) or authenticator.tokens is not None:
        return False
    return type(authenticator).verify_jwt is SimpleRoomAuth.verify_jwt


def failed(conn: Conn, what: str, exc: BaseException, credentials: Credentials) -> InvalidHandshake:
    """Log that the application's code ``what`` failed, without the credentials. Return the refusal that follows."""
    logger.error("%s failed", what, exc_info=exc, extra=log_extra(conn, secrets=credentials))
    return InvalidHandshake("websocket handshake failed", status=500, code=ErrorCode.HANDSHAKE_FAILED)


def _refusal(conn: Conn, token: str, exc: BaseException) -> InvalidHandshake:
    if isinstance(exc, AuthError):
        return Refused(f"forbidden: invalid token ({exc})", code=ErrorCode.INVALID_TOKEN)
    if isinstance(exc, InvalidHandshake):
        return exc  # raised by the application itself
    return failed(conn, "the authenticator", exc, Credentials(token))


def admit_by_message(
    conn: Conn, deadline: float, counters: RequestCounters, check: Check, enter: Enter
) -> Coroutine[Any, Any, None]:
    """Read the first message of ``conn``, check its credentials, then enter.

    The read limit is lowered at once, because a short first message may have arrived already. An `InvalidHandshake` of
    ``check`` becomes a close code. ``enter`` admits the connection. A coroutine that it returns runs in the same task.
    """
    limit = conn.read_limit
    conn.read_limit = limits.HEAD_SIZE if limit is None else min(limit, limits.HEAD_SIZE)
    return _admit(conn, limit, deadline, counters, check, enter)


async def _admit(
    conn: Conn, limit: int | None, deadline: float, counters: RequestCounters, check: Check, enter: Enter
) -> None:
    checking = asyncio.ensure_future(_check_message(conn, check))
    try:
        await wait_for_answer(conn, checking, deadline - conn._loop.time())
    except asyncio.TimeoutError:
        counters.refused.add(ErrorCode.HANDSHAKE_TIMEOUT.value)
        log_refusal(conn, CloseCode.AUTH_TIMEOUT, ErrorCode.HANDSHAKE_TIMEOUT)
        conn.close_nowait(CloseCode.AUTH_TIMEOUT, "authentication took too long")
    except InvalidHandshake as exc:
        refuse(conn, exc, counters)
    except ConnectionClosed:
        pass
    except (Exception, asyncio.CancelledError) as exc:
        if isinstance(exc, asyncio.CancelledError):
            if is_stopped():
                raise
            if conn.closed:
                return
        logger.exception("authenticating a connection failed", extra=log_extra(conn))
        conn.close_nowait(CloseCode.INTERNAL_ERROR, "authentication failed")
    else:
        conn.read_limit = limit
        mark_logged_in(conn)
        work = enter(conn)
        if work is not None:
            await work


async def _check_message(conn: Conn, check: Check) -> None:
    credentials = credentials_of_message(await conn.recv())
    if credentials is None:
        raise Refused('the first message must be {"type": "auth", "password": ..., "token": ...}')
    await check(conn, credentials)
