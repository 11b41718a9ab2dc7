"""Plain HTTP responses beside the WebSocket: a page, a health check, an upload.

A table maps paths to routes. A plain function answers GET and HEAD and gets no request body. A `Route` names the
methods that it answers and the size of its largest body. Each response closes its connection.

A request body is read only after the request is authorized and its announced size is accepted. At most ``max_body``
bytes are kept (RFC 9110 section 10.1.1, RFC 9112 section 6.3).
"""

from __future__ import annotations

import asyncio
import hmac
import inspect
import re
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

from .. import limits
from ..auth.credentials import bearer_of
from ..constants import ErrorCode
from ..errors import InvalidHandshake, InvalidHeader, Refused
from ..http11.headers import Headers
from ..http11.models import Request, Response
from ..http11.origin import LOOPBACK_HOSTS, check_host, is_loopback
from ..validation import check_call, check_count, check_function, entries_of

__all__ = [
    "BodyReader",
    "RequestBody",
    "Route",
    "Routes",
    "answer_options",
    "answer_route",
    "answer_with_body",
    "check_route_token",
    "checked_answer",
    "is_local",
    "json_route",
    "restricted",
    "static_route",
    "takes_body",
]

#: Routes by path. A plain function runs on the event loop and must not block.
#: The second form is the type that checkers infer for a dict variable with functions and routes in it.
Routes: TypeAlias = "Mapping[str, Callable[[Request], Response] | Route] | dict[str, object]"

_METHOD: Final = re.compile("[A-Z]+(-[A-Z]+)*")

#: Headers of each response that a browser may show: no sniffing, no framing, no referrer.
_SAFE_HEADERS = (
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
)

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

#: Headers that proxies add to a request, and the prefix of the others.
_FORWARDED: Final = ("CF-Connecting-IP", "Forwarded", "True-Client-IP", "Via", "X-Client-IP", "X-Real-IP")
_FORWARDED_PREFIX: Final = "x-forwarded"


@dataclass(frozen=True)
class Route:
    """Route that answers other methods than GET and HEAD, takes a body, or takes time.

    A page of a foreign site (``Origin``) is refused with 403, except for GET and HEAD. Only bodies with a
    ``Content-Length`` are read. Body and handler have to be done within the open timeout of the server. Each connection
    holds at most one body of ``max_body`` bytes.

    Args:
        handler: ``f(request) -> Response``, plain or ``async def``; ``request.body`` is the whole body. A plain one
            runs on the event loop and must not block. :class:`plumews.InvalidHandshake` refuses.
        methods: methods that are answered (default ``POST``); others get 405. HEAD is added to GET.
        max_body: bytes of the largest body (default 1 MiB; 0: none); a larger one gets 413 before it is read.
        authorize: ``f(request)``, plain or ``async def``, called before the body is read. Its result is ignored;
            :class:`plumews.InvalidHandshake` refuses (default: every client is allowed).

    Raises:
        TypeError, ValueError: an argument is of the wrong kind, or out of range.
    """

    handler: Callable[[Request], Response | Awaitable[Response]]
    methods: Collection[str] = ("POST",)
    max_body: int = limits.ROUTE_BODY
    authorize: Callable[[Request], Any] | None = None

    def __post_init__(self) -> None:
        check_function("handler", self.handler)
        check_function("authorize", self.authorize, optional=True)
        for name in ("handler", "authorize"):
            if getattr(self, name) is not None:
                check_call(f"the {name} of a route", getattr(self, name), "request")
        methods = entries_of("methods", self.methods, '"POST"')
        if not methods:
            raise ValueError("methods must have at least one method, such as POST")
        for method in methods:
            if not _METHOD.fullmatch(method):
                raise ValueError(f"invalid method {method!r}: expected a name in capitals, such as POST")
        check_count("max_body", self.max_body, least=0)
        more = ("HEAD",) if "GET" in methods and "HEAD" not in methods else ()
        object.__setattr__(self, "methods", (*methods, *more))

    def check_method(self, request: Request) -> None:
        """Raise :class:`InvalidHandshake` (405) for a method that is not answered."""
        if request.method not in self.methods:
            raise _not_allowed(self.methods)


# --- functions by path ----------------------------------------------------------------------------


def takes_body(routes: Mapping[str, Any], request: Request) -> bool:
    """Return True if ``request`` has a route that takes a body."""
    route = routes.get(request.raw_path)
    return isinstance(route, Route) and route.max_body > 0


def answer_route(routes: Mapping[str, Any], request: Request) -> Response | None:
    """Return the response of the function for ``request``, or ``None`` if its path has none.

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
    """Return the methods of a path, for OPTIONS (RFC 9110 section 9.3.7). ``None`` is the path of a WebSocket.

    Load balancers use OPTIONS as a health check.
    """
    methods = route.methods if isinstance(route, Route) else ("GET",) if route is None else ("GET", "HEAD")
    return Response(200, (("Allow", ", ".join((*methods, "OPTIONS"))),))


def _not_allowed(methods: Collection[str]) -> InvalidHandshake:
    allow = (("Allow", ", ".join(methods)),)
    return InvalidHandshake("method not allowed", status=405, code=ErrorCode.METHOD_NOT_ALLOWED, headers=allow)


def checked_answer(request: Request, response: object) -> Response:
    """Return a copy of ``response`` with the headers of every response. Raise ``TypeError`` if it is no response."""
    if not isinstance(response, Response):
        raise TypeError(f"the route of {request.path} must return a Response, not {type(response).__name__}")
    missing = [header for header in _SAFE_HEADERS if header[0] not in response.headers]
    # A copy: a route may return the same object again.
    return Response(response.status, Headers(response.headers, missing), response.body, response.reason)


def static_route(body: bytes, content_type: str, *headers: tuple[str, str]) -> Callable[[Request], Response]:
    """Return a route that always answers ``body``."""
    fixed = (("Content-Type", content_type), ("Cache-Control", "no-cache"), *headers)
    return lambda request: Response(200, fixed, body)


def json_route(source: Callable[[], object]) -> Callable[[Request], Response]:
    """Return a route that answers the result of ``source()`` as JSON."""
    return lambda request: Response.json(200, source(), [("Cache-Control", "no-store")])


# --- requests with a body -------------------------------------------------------------------------


class BodyReader(Protocol):
    """Body of one request."""

    async def read(self, length: int, *, invite: bool) -> bytes:
        """Return the first ``length`` bytes. With ``invite`` the client waits for 100 Continue before it sends them."""


class RequestBody:
    """Body of one request of our own server, at the beginning of ``rest``: the bytes received behind the head.

    Args:
        rest: its owner appends to it and then calls :meth:`arrived`.
        ask_transport: ``ask_transport(name, *args)`` calls a method of the transport, and never raises.
        is_over: returns True if the request is answered, or the client has gone.
    """

    __slots__ = ("_ask_transport", "_complete", "_is_over", "_length", "_rest")

    def __init__(self, rest: bytearray, ask_transport: Callable[..., object], is_over: Callable[[], bool]) -> None:
        self._rest = rest
        self._ask_transport = ask_transport
        self._is_over = is_over
        self._length = 0
        self._complete: asyncio.Future[None] | None = None

    def arrived(self) -> None:
        """Wake the reader if the body is complete. Pause reading if too much is behind it."""
        enough = len(self._rest) >= self._length
        if self._complete is not None and enough and not self._complete.done():
            self._complete.set_result(None)
        if enough and len(self._rest) > limits.HEAD_SIZE:
            self._ask_transport("pause_reading")

    async def read(self, length: int, *, invite: bool) -> bytes:
        """Return the first ``length`` bytes. With ``invite`` the client waits for 100 Continue before it sends them."""
        if self._is_over():
            raise asyncio.CancelledError  # an authorizer may have ignored its cancellation
        if len(self._rest) < length:
            self._length = length
            self._complete = asyncio.get_running_loop().create_future()
            if invite and not self._rest:
                self._ask_transport("write", _CONTINUE)
            self._ask_transport("resume_reading")
            await self._complete
        with memoryview(self._rest) as view:
            return bytes(view[:length])


async def answer_with_body(route: Route, request: Request, body: BodyReader) -> Response:
    """Return the response of ``route``. Its method is already checked.

    Raises:
        InvalidHandshake: 413 for a body that is too large, 417 for an ``Expect`` that is not ``100-continue``, or a
            refusal of the route's functions.
    """
    if route.authorize is not None:
        allowed = route.authorize(request)
        if inspect.isawaitable(allowed):
            await allowed
    length = request.content_length
    if length > route.max_body:
        raise InvalidHandshake("request body too large", status=413, code=ErrorCode.REQUEST_TOO_LARGE)
    if length:
        # RFC 9110 section 10.1.1: a client of HTTP/1.0 would take the 100 for the answer.
        expected = request.headers.get_all("Expect") if request.http_version == "1.1" else []
        if any(value.lower() != "100-continue" for value in expected):
            raise InvalidHandshake(
                "unknown expectation: there is 100-continue", status=417, code=ErrorCode.EXPECTATION_FAILED
            )
        request.body = await body.read(length, invite=bool(expected))
    answer = route.handler(request)
    return checked_answer(request, await answer if inspect.isawaitable(answer) else answer)


# --- restricted routes ----------------------------------------------------------------------------


def is_local(request: Request) -> bool:
    """Return True if ``request`` visibly came straight from this machine.

    It came from a loopback address, names a loopback host, and has no header of a proxy. Behind a proxy on this machine
    every client has a loopback address. A proxy that adds no header cannot be detected: use a token there.
    """
    address = request.remote_address
    if not (isinstance(address, tuple) and is_loopback(address[0])):
        return False  # also a Unix socket, whose client usually is a proxy
    headers = request.headers
    if "Host" not in headers:
        return False  # HTTP/1.0, which proxies speak
    if any(name in headers for name in _FORWARDED) or any(
        name.lower().startswith(_FORWARDED_PREFIX) for name in headers
    ):
        return False
    try:
        check_host(request, LOOPBACK_HOSTS)
    except InvalidHeader:
        return False  # DNS rebinding: a foreign name that resolves to this machine
    return True


def check_route_token(token: str) -> str:
    """Return ``token`` if it is visible ASCII of at least 16 characters, as it must fit a header.

    Raises:
        ValueError: it is not. The message does not contain the token.
    """
    if not (token.isascii() and token.isprintable() and " " not in token):
        raise ValueError("the token must be visible ASCII, without spaces")
    if not limits.ROUTE_TOKEN <= len(token) <= limits.TOKEN_SIZE:
        raise ValueError(
            f"the token has {len(token)} characters and must have {limits.ROUTE_TOKEN} to {limits.TOKEN_SIZE}; "
            "secrets.token_urlsafe() makes one"
        )
    return token


def restricted(route: Callable[[Request], Response], token: str | None = None) -> Callable[[Request], Response]:
    """Return ``route`` for this machine alone, or for clients that send a token.

    Without a token, a client is local if it connects from a loopback address to a loopback name, without a header of a
    proxy. A proxy on this machine that adds no header cannot be detected. Use a token there.

    Args:
        route: answers the allowed requests.
        token: required as ``Authorization: Bearer <token>``, from any address; other requests get 401. By default
            requests from this machine are allowed, and others get 403.

    Raises:
        ValueError: ``token`` is too short, too long, or not visible ASCII.
    """
    expected = None if token is None else check_route_token(token).encode()

    def answer(request: Request) -> Response:
        if expected is None:
            if not is_local(request):
                raise Refused("forbidden: this is for this machine alone", code=ErrorCode.ROUTE_FORBIDDEN)
        elif not hmac.compare_digest(bearer_of(request).encode(), expected):
            raise Refused(
                "a token is required",
                status=401,
                code=ErrorCode.ROUTE_TOKEN_REQUIRED,
                headers=(("WWW-Authenticate", "Bearer"),),
            )
        return route(request)

    return answer
