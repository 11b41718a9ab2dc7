"""Authentication in front of any endpoint: what ``serve(..., authenticator=)`` puts there (layer 5).

The endpoint behind it sees connections with ``conn.user_info``, and neither the first message of a client that logs in
by message nor the new tokens that it sends later.
"""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine, Iterable
from typing import Any

from ..auth.authentication import Authentication, admit_by_message
from ..auth.credentials import Credentials, TokenSources, logs_in_by_message
from ..auth.interfaces import TokenAuthenticator
from ..conn.connection import Conn
from ..conn.handlers import CallbackEndpoint, HandlerEndpoint
from ..counters import RequestCounters
from ..http11.models import Request
from ..http11.origin import AllowedOrigin
from .context import Endpoint

__all__ = ["TokenEndpoint", "token_door"]


class TokenEndpoint:
    """The endpoint of connections that are authenticated by token, and belong to no room."""

    def __init__(self, login: Authentication, inside: HandlerEndpoint | CallbackEndpoint) -> None:
        self._login = login
        self._inside = inside
        self.doubt = login.doubt

    def admit(self, conn: Conn, request: Request) -> Awaitable[None] | None:
        credentials = self._login.credentials_of(request)
        return None if logs_in_by_message(request) else self._login.check(conn, credentials)

    def opened(self, conn: Conn, deadline: float) -> Coroutine[Any, Any, None] | None:
        if not logs_in_by_message(conn.request):
            return self._let_in(conn)
        self._login.expect_message(conn)
        return admit_by_message(conn, deadline, self._login.counters, self._check_message, self._let_in)

    async def _check_message(self, conn: Conn, said: Credentials) -> None:
        work = self._login.check(conn, self._login.credentials_of(conn.request).with_message(said))
        if work is not None:
            await work

    def _let_in(self, conn: Conn) -> Coroutine[Any, Any, None] | None:
        if conn.closed or not self._login.is_good(conn):
            return None
        return self._inside.opened(conn)


def token_door(
    inside: HandlerEndpoint | CallbackEndpoint,
    authenticator: TokenAuthenticator | None,
    *,
    require_token: bool | None,
    sources: TokenSources,
    origins: Iterable[AllowedOrigin] | None,
    counters: RequestCounters,
) -> Endpoint:
    """``inside``, behind a door if there is an ``authenticator``.

    Raises:
        TypeError: the authenticator verifies no tokens, or there is none for the cookie. ValueError: with a cookie any
            ``origins`` could act as their visitors.
    """
    if authenticator is None:
        if sources != TokenSources():
            raise TypeError("token_sources, token_cookie and allow_query_secrets need an authenticator")
        if require_token:
            raise TypeError("require_token=True needs an authenticator, such as plumews.SimpleRoomAuth(secret)")
        return inside
    if isinstance(authenticator, type) or not callable(getattr(authenticator, "verify_jwt", None)):
        raise TypeError("authenticator must be a plumews.SimpleRoomAuth(...), or have its method verify_jwt")
    sources.check_origins(origins)
    required = require_token is None or require_token
    return TokenEndpoint(
        Authentication(authenticator, sources=sources, require_token=required, counters=counters), inside
    )
