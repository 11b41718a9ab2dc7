"""The plain HTTP answers beside the WebSocket: a page, a health check (layer 5).

One small table from path to answer. A plain function answers GET and HEAD, and gets no request body; a `Route` says
which methods it answers and how large a body it takes. Each answer closes its connection, because everything that is
worth keeping open is a WebSocket.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from .. import limits
from ..errors import InvalidHandshake
from ..http11.headers import Headers
from ..http11.models import Request, Response
from ..validation import check_call, entries_of

__all__ = [
    "Route",
    "Routes",
    "answer_options",
    "answer_route",
    "checked_answer",
    "json_route",
    "static_route",
    "takes_body",
]

#: Path to what answers it. It runs on the loop: it must not block.
#: The second is what type checkers make of a dict in a variable that has functions and routes; `Site` looks at each.
Routes: TypeAlias = "Mapping[str, Callable[[Request], Response] | Route] | dict[str, object]"

_METHOD: Final = re.compile("[A-Z]+(-[A-Z]+)*")

#: Sent with every answer that a browser may show: nothing is sniffed, framed, or told to other sites.
_SAFE_HEADERS = (
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
)


@dataclass(frozen=True)
class Route:
    """A route that answers other methods than GET and HEAD, takes a body, or takes time.

    Args:
        handler: ``f(request) -> Response``, plain or ``async def``; ``request.body`` is the whole body. A plain one
            runs on the loop and must not block. :class:`plumews.InvalidHandshake` refuses.
        methods: those it answers (default ``POST``); others get 405. HEAD comes with GET.
        max_body: bytes of the largest body (default 1 MiB; 0: none); a larger one gets 413 before it is read. Body and
            handler have to be done within the open timeout of the server.
        authorize: ``f(request)``, plain or ``async def``, asked before any of the body is read: what it returns does
            not matter, :class:`plumews.InvalidHandshake` refuses (default: everybody may).

    A page of a foreign site (``Origin``) is refused with 403, but for GET and HEAD. Only bodies with a
    ``Content-Length`` are read; the handler's answer ends the connection. Each connection may hold one body while it
    comes: memory is bounded by ``max_body`` times the connections that the server and ``authorize`` let in.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind, or out of range.
    """

    handler: Callable[[Request], Response | Awaitable[Response]]
    methods: Collection[str] = ("POST",)
    max_body: int = limits.ROUTE_BODY
    authorize: Callable[[Request], Any] | None = None

    def __post_init__(self) -> None:
        if not callable(self.handler):
            raise TypeError(f"handler must be a function, not {type(self.handler).__name__}")
        if self.authorize is not None and not callable(self.authorize):
            raise TypeError(f"authorize must be a function or None, not {type(self.authorize).__name__}")
        for name in ("handler", "authorize"):
            if getattr(self, name) is not None:
                check_call(f"the {name} of a route", getattr(self, name), "request")
        methods = entries_of("methods", self.methods, '"POST"')
        if not methods:
            raise ValueError("methods must have at least one method, such as POST")
        for method in methods:
            if not _METHOD.fullmatch(method):
                raise ValueError(f"invalid method {method!r}: expected a name in capitals, such as POST")
        if isinstance(self.max_body, bool) or not isinstance(self.max_body, int):
            raise TypeError(f"max_body must be an int, not {type(self.max_body).__name__}")
        if self.max_body < 0:
            raise ValueError(f"max_body must be 0 or more, not {self.max_body}")
        more = ("HEAD",) if "GET" in methods and "HEAD" not in methods else ()
        object.__setattr__(self, "methods", (*methods, *more))

    def check_method(self, request: Request) -> None:
        """Raise :class:`InvalidHandshake` 405 for a method that is not answered."""
        if request.method not in self.methods:
            raise _not_allowed(self.methods)


def takes_body(routes: Mapping[str, Any], request: Request) -> bool:
    """Whether there is a route for ``request`` that takes a body."""
    route = routes.get(request.raw_path)
    return isinstance(route, Route) and route.max_body > 0


def answer_route(routes: Mapping[str, Any], request: Request) -> Response | None:
    """The answer of the function for ``request``, or ``None`` if its path has none.

    Raises:
        InvalidHandshake: 405 for a method other than GET and HEAD.
    """
    route = routes.get(request.raw_path)
    if route is None or isinstance(route, Route):
        return None
    if request.method not in ("GET", "HEAD"):
        raise _not_allowed(("GET", "HEAD"))
    return checked_answer(request, route(request))


def answer_options(route: object) -> Response:
    """Return which methods a path has, to OPTIONS (RFC 9110 section 9.3.7). ``None`` is the path of a WebSocket.

    Load balancers ask so whether a server is there.
    """
    methods = route.methods if isinstance(route, Route) else ("GET",) if route is None else ("GET", "HEAD")
    return Response(200, (("Allow", ", ".join((*methods, "OPTIONS"))),))


def _not_allowed(methods: Collection[str]) -> InvalidHandshake:
    allow = (("Allow", ", ".join(methods)),)
    return InvalidHandshake("method not allowed", status=405, code="METHOD_NOT_ALLOWED", headers=allow)


def checked_answer(request: Request, response: object) -> Response:
    """What a route answered, with the headers that every answer has; a ``TypeError`` for what is no answer."""
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
