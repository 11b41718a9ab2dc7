"""The body of a request, for the few routes that take one (layer 5).

A body is read only on a route that was registered for it, when the route has let the request in, by its Content-Length,
within the route's bound and the deadline of the opening; never with an upgrade. Invariant: at most ``length`` bytes are
held, and what comes behind them is thrown away.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from . import limits
from .errors import InvalidHandshake, InvalidMessage
from .http11 import Request, Response

__all__ = ["BodyRoute", "check_body"]


@dataclass(frozen=True)
class BodyRoute:
    """A route for POST: ``admit(request)`` raises :class:`InvalidHandshake` before the body is read, ``answer`` has it.

    Args:
        answer: ``f(request, body)``, async or not, gives the :class:`plumews.Response`.
        admit: called on the loop, first; it must not block.
        max_body: bytes (default 1 MiB).
    """

    answer: Callable[[Request, bytes], Response | Awaitable[Response]]
    admit: Callable[[Request], None] = lambda request: None
    max_body: int = limits.ADMIN_BODY

    def check(self, request: Request) -> None:
        """Raises :class:`InvalidHandshake`: 405 for another method, 413 for a body beyond the bound; what ``admit``
        raises.
        """
        if request.method != "POST":
            raise InvalidHandshake(
                "method not allowed", status=405, code="METHOD_NOT_ALLOWED", headers=(("Allow", "POST"),)
            )
        self.admit(request)
        if request.content_length > self.max_body:
            raise InvalidHandshake(
                f"request body too large: more than {self.max_body} bytes",
                status=413,
                code="WEBSOCKET_REQUEST_TOO_LARGE",
            )


def check_body(request: Request, route: object) -> None:
    """Raise :class:`InvalidMessage` 400 for a body that no route has asked for."""
    if request.content_length and not isinstance(route, BodyRoute):
        raise InvalidMessage("request body not allowed")
