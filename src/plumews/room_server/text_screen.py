"""The text policy on live connections: what it does not allow reaches neither room nor handler (layer 5).

Binary messages are not looked at; neither is the message by which a client logs in, which nobody but the door reads.
Invariant: what stands behind it is looked at even if it came in the same read.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from ..auth.credentials import logs_in_by_message
from ..conn.connection import Conn
from ..conn.filters import add_filter
from ..constants import ErrorCode
from ..counters import RequestCounters
from ..errors import InvalidText
from ..http11.models import Request
from ..protocol.state import cut_reason
from ..server.endpoints import Endpoint
from .text_filter import TextPolicy

__all__ = ["TextFilterEndpoint"]


class TextFilterEndpoint:
    """The endpoint ``inside``, whose messages are held to ``policy``."""

    def __init__(self, inside: Endpoint, policy: TextPolicy, tally: RequestCounters) -> None:
        self._inside = inside
        self._policy = policy
        self._tally = tally
        self.check: Callable[[Request], None] | None = getattr(inside, "check", None)

    def admit(self, conn: Conn, request: Request) -> Awaitable[None] | None:
        return self._inside.admit(conn, request)

    def opened(self, conn: Conn, deadline: float) -> Coroutine[Any, Any, None] | None:
        work = self._inside.opened(conn, deadline)
        # Behind whatever else looks at messages: a new token is not for the policy. Nothing was received yet.
        add_filter(conn, _TextScreen(self._policy, self._tally, first=logs_in_by_message(conn.request)))
        return work


class _TextScreen:
    """Sees each message of one connection; ``first`` if it begins with one that logs it in."""

    __slots__ = ("_first", "_policy", "_tally")

    def __init__(self, policy: TextPolicy, tally: RequestCounters, *, first: bool) -> None:
        self._policy = policy
        self._tally = tally
        self._first = first

    def __call__(self, conn: Conn, message: str | bytes) -> bool:
        if self._first:
            self._first = False
            return False
        if not isinstance(message, str):
            return False
        try:
            self._policy.check(message)
        except InvalidText as exc:
            self._tally.refused.add(ErrorCode.MESSAGE_REJECTED.value)
            if self._policy.on_violation == "close":
                conn.close_nowait(exc.close_code, cut_reason(f"message rejected: {exc}"))
            return True
        return False
