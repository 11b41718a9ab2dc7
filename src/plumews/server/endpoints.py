"""Endpoints: the owners of the WebSockets of one path, and the authentication in front of them.

A client authenticates by its request, or by its first message on the open connection. The endpoint behind the
authentication sees neither that message nor the new tokens that the client sends later.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Coroutine
from typing import Any, Protocol

from ..auth.authentication import Authentication, admit_by_message
from ..auth.credentials import Credentials, logs_in_by_message
from ..conn.connection import Conn
from ..conn.handlers import CallbackEndpoint, HandlerEndpoint
from ..conn.logs import log_extra
from ..constants import CloseCode
from ..http11.models import Request

__all__ = ["AuthenticatedEndpoint", "Endpoint", "TokenEndpoint"]

logger = logging.getLogger("plumews.server")


class Endpoint(Protocol):
    """Owner of the WebSockets of one path."""

    def admit(self, conn: Conn, request: Request) -> Awaitable[None] | None:
        """Raise :class:`InvalidHandshake` to refuse. Return an awaitable if the decision takes time."""

    def opened(self, conn: Conn, deadline: float) -> Coroutine[Any, Any, None] | None:
        """Take over the open connection, right behind the 101 and before its first frame is parsed.

        Returns the work to run as a task of the server, if any. ``deadline`` is the time of the loop's clock at which
        the open timeout ends, for clients that authenticate on the open connection.
        """


class AuthenticatedEndpoint(ABC):
    """Endpoint of clients that authenticate by token, with ``authentication``.

    A subclass overrides :meth:`enter`, and :meth:`authorize` to check more than the token.
    """

    def __init__(self, authentication: Authentication) -> None:
        self._authentication = authentication

    def authorize(self, conn: Conn, credentials: Credentials) -> Awaitable[None] | None:
        """Raise :class:`InvalidHandshake` if ``conn``, whose token is verified, must not enter.

        Return an awaitable if the decision takes time.
        """
        return None

    @abstractmethod
    def enter(self, conn: Conn) -> Coroutine[Any, Any, None] | None:
        """Take over ``conn``, open and authorized. Return the work to run as a task of the server, if any."""

    # --- an endpoint ------------------------------------------------------------------------------

    def admit(self, conn: Conn, request: Request) -> Awaitable[None] | None:
        credentials = self._authentication.credentials_of(request)
        # A page sees no status: it gets every refusal by close code, when it has sent its first message.
        return None if logs_in_by_message(request) else self._decide(conn, credentials)

    def opened(self, conn: Conn, deadline: float) -> Coroutine[Any, Any, None] | None:
        if not logs_in_by_message(conn.request):
            return self._enter(conn)
        self._authentication.expect_message(conn)
        return admit_by_message(conn, deadline, self._authentication.counters, self._check_message, self._enter)

    # --- inside -----------------------------------------------------------------------------------

    async def _check_message(self, conn: Conn, said: Credentials) -> None:
        work = self._decide(conn, self._authentication.credentials_of(conn.request).with_message(said))
        if work is not None:
            await work

    def _decide(self, conn: Conn, credentials: Credentials) -> Awaitable[None] | None:
        work = self._authentication.check(conn, credentials)
        return self.authorize(conn, credentials) if work is None else self._decide_later(conn, credentials, work)

    async def _decide_later(self, conn: Conn, credentials: Credentials, work: Awaitable[None]) -> None:
        await work
        authorizing = self.authorize(conn, credentials)
        if authorizing is not None:
            await authorizing

    def _enter(self, conn: Conn) -> Coroutine[Any, Any, None] | None:
        # The token may have ended since it was verified. From here to the handler nothing is awaited.
        if conn.closed or not self._authentication.is_good(conn):
            return None
        try:
            return self.enter(conn)
        except (Exception, asyncio.CancelledError):
            logger.exception("letting a connection in failed", extra=log_extra(conn))
            conn.close_nowait(CloseCode.INTERNAL_ERROR, "the handler failed")
            return None


class TokenEndpoint(AuthenticatedEndpoint):
    """Endpoint of authenticated connections that belong to no room. They are owned by ``inside``."""

    def __init__(self, authentication: Authentication, inside: HandlerEndpoint | CallbackEndpoint) -> None:
        super().__init__(authentication)
        self._inside = inside

    def enter(self, conn: Conn) -> Coroutine[Any, Any, None] | None:
        return self._inside.opened(conn)
