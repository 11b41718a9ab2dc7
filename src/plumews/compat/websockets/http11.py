"""Request and response of an opening handshake, as in ``websockets.http11``."""

from __future__ import annotations

import dataclasses
import os
import sys

from ... import __version__
from ...http11 import headers as native_headers
from ...http11 import models as native
from .datastructures import Headers

__all__ = ["SERVER", "USER_AGENT", "Request", "Response"]

_PRODUCT = f"Python/{sys.version_info[0]}.{sys.version_info[1]} plumews/{__version__}"

#: Default of the ``Server`` header.
SERVER = os.environ.get("WEBSOCKETS_SERVER", _PRODUCT)

#: Default of the ``User-Agent`` header.
USER_AGENT = os.environ.get("WEBSOCKETS_USER_AGENT", _PRODUCT)


@dataclasses.dataclass
class Request:
    """HTTP request.

    Attributes:
        path: Path with the query, as sent.
        headers: Header lines.
        method: Method.
        protocol: ``"HTTP/1.1"`` or ``"HTTP/1.0"``.
    """

    path: str
    headers: Headers
    method: str = "GET"
    protocol: str = "HTTP/1.1"


@dataclasses.dataclass
class Response:
    """HTTP response.

    Attributes:
        status_code: Status code.
        reason_phrase: Text behind the status.
        headers: Header lines.
        body: Body.
    """

    status_code: int
    reason_phrase: str
    headers: Headers
    body: bytes | bytearray = b""


def request_of(request: native.Request) -> Request:
    """Return the request of a connection of plumews."""
    headers = Headers.read(list(request.headers.raw_items()))
    return Request(request.target, headers, request.method, f"HTTP/{request.http_version}")  # type: ignore[arg-type]


def response_of(response: native.Response) -> Response:
    """Return the response of a connection of plumews."""
    return Response(response.status, response.reason, Headers(response.headers), response.body)


def native_response(response: Response) -> native.Response:
    """Return ``response`` for plumews.

    Raises:
        TypeError: it is no :class:`Response`, or one of its parts has the wrong type.
        ValueError: one of its parts cannot be sent.
    """
    if isinstance(response, tuple):
        raise TypeError(
            "a tuple as response is of the legacy API: return connection.respond(status, text) or "
            "Response(status, reason, headers, body), or import serve from plumews.compat.websockets.legacy.server"
        )
    if not isinstance(response, Response):
        raise TypeError(f"a hook must return a Response or None, not {type(response).__name__}")
    headers = native_headers.Headers(Headers(response.headers))
    return native.Response(int(response.status_code), headers, bytes(response.body or b""), response.reason_phrase)
