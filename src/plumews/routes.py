"""The plain HTTP answers beside the WebSocket: a page, a health check (layer 5).

One small table from path to answer. GET and HEAD only, no request bodies; each answer closes its connection,
because everything that is worth keeping open is a WebSocket.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from .errors import InvalidHandshake
from .headers import Headers
from .http11 import Request, Response

__all__ = ["Routes", "answer_route", "json_route", "static_route"]

#: Path to the function that answers it. It runs on the loop: it must not block.
Routes: TypeAlias = "Mapping[str, Callable[[Request], Response]]"

#: Sent with every answer that a browser may show: nothing is sniffed, framed, or told to other sites.
_SAFE_HEADERS = (
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
)


def answer_route(routes: Routes, request: Request) -> Response | None:
    """The answer of the route for ``request``, or ``None`` if its path has none.

    Raises:
        InvalidHandshake: 405 for a method other than GET and HEAD.
    """
    route = routes.get(request.path)
    if route is None:
        return None
    if request.method not in ("GET", "HEAD"):
        raise InvalidHandshake(
            "method not allowed", status=405, code="METHOD_NOT_ALLOWED", headers=(("Allow", "GET, HEAD"),)
        )
    response = route(request)
    if not isinstance(response, Response):
        raise TypeError(f"the route of {request.path} must return a Response, not {type(response).__name__}")
    missing = [header for header in _SAFE_HEADERS if header[0] not in response.headers]
    # A copy: a route may answer with the same object again.
    return Response(response.status, Headers(response.headers, missing), response.body, response.reason)


def static_route(body: bytes, content_type: str, *headers: tuple[str, str]) -> Callable[[Request], Response]:
    """A route that always answers ``body``."""
    fixed = (("Content-Type", content_type), ("Cache-Control", "no-cache"), *headers)
    return lambda request: Response(200, fixed, body)


def json_route(source: Callable[[], object]) -> Callable[[Request], Response]:
    """A route that answers what ``source()`` gives, as JSON."""
    return lambda request: Response.json(200, source(), [("Cache-Control", "no-store")])
