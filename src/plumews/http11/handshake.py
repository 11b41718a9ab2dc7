"""Server side of the opening handshake: the checks of a request, and its responses (RFC 6455 section 4.2).

Invariant: a request either passes `check_upgrade` or raises an `InvalidHandshake` with the status, the code and the
headers of the refusal. Nothing that a peer sends raises any other exception.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ..constants import WEBSOCKET_VERSION, ErrorCode
from ..errors import InvalidHandshake, InvalidHeader, InvalidUpgrade
from .headers import Headers, HeadersLike, is_token, parse_tokens
from .models import Response
from .request import Request
from .websocket_key import accept_value, is_key

__all__ = [
    "accept",
    "accepted",
    "application_headers",
    "check_upgrade",
    "choose_subprotocol",
    "is_handshake_header",
    "offered_subprotocols",
    "refusal",
]

_VERSION: Final = ("Sec-WebSocket-Version", WEBSOCKET_VERSION)
_NUMBER: Final = WEBSOCKET_VERSION.encode()

#: Lines that every 101 has, up to the value of the last one.
_ANSWER: Final = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
)

#: Headers that the application cannot set, beside all that begin with sec-websocket-.
_OURS: Final = frozenset({"connection", "upgrade", "content-length", "transfer-encoding"})

#: Categories of error bodies by status. Others are "server_error" from 500 on, and "client_error".
_CATEGORIES: Final = {
    401: "auth_error",
    403: "auth_error",
    408: "timeout_error",
    429: "rate_limit_error",
}

#: Types of error bodies by status. Others are "internal_error" from 500 on, and "validation_failure".
_TYPES: Final = {
    401: "unauthorized_request",
    403: "forbidden_request",
    404: "resource_not_found",
    405: "method_not_allowed",
    408: "timeout_failure",
    409: "resource_conflict",
    410: "resource_gone",
    413: "value_out_of_range",
    429: "rate_limited",
    431: "value_out_of_range",
    501: "not_implemented",
    502: "bad_gateway",
    503: "service_unavailable",
}

_TYPES_OF_CODES: Final = {code.value: code.type for code in ErrorCode if code.type}


def check_upgrade(request: Request) -> str:
    """Return the client's key if ``request`` is a WebSocket handshake (RFC 6455 section 4.2.1).

    Raises:
        InvalidHandshake: 405, the method is not GET.
        InvalidUpgrade: 426, an ``Upgrade`` or ``Connection`` token is missing, or the version is not 13 or HTTP/1.0.
        InvalidHeader: 400, the key is missing, or not the base64 form of 16 bytes.
    """
    if request.method != "GET":
        raise InvalidHandshake(
            "method not allowed", status=405, code=ErrorCode.METHOD_NOT_ALLOWED, headers=(("Allow", "GET"),)
        )
    upgrade = request._says(b"connection", b"Upgrade") or request._lists(b"connection", "upgrade")
    if not (upgrade and request._asks_websocket()):
        # The usual cause is a proxy that speaks HTTP/1.0. The text tells it from a client that wants something else.
        needed = "" if request.http_version == "1.1" else ", in HTTP/1.1"
        raise InvalidUpgrade(f"websocket upgrade required{needed}", headers=(("Upgrade", "websocket"), _VERSION))
    if not request._says(b"sec-websocket-version", _NUMBER) and not _is_version(request):
        raise InvalidUpgrade(
            f"websocket version {WEBSOCKET_VERSION} required", code=ErrorCode.BAD_VERSION, headers=(_VERSION,)
        )
    keys = request._values_of(b"sec-websocket-key")
    if not keys or not (keys[0] or any(keys)):
        raise InvalidHeader("websocket key required", code=ErrorCode.KEY_MISSING)
    if len(keys) > 1 or not is_key(keys[0]):
        raise InvalidHeader("invalid websocket key", code=ErrorCode.KEY_INVALID)
    return keys[0]


def _is_version(request: Request) -> bool:
    versions: list[str] = request._values_of(b"sec-websocket-version")
    return versions == [WEBSOCKET_VERSION]


def offered_subprotocols(request: Request) -> list[str]:
    """Return the subprotocols that the client offers, in its order. Raise `InvalidHeader` if one is not a token."""
    offers = request._values_of(b"sec-websocket-protocol")
    return parse_tokens(offers, "Sec-WebSocket-Protocol header") if offers else offers


def choose_subprotocol(offered: Sequence[str], available: Sequence[str]) -> str | None:
    """Return the first of ``available``, in our order of preference, that the client offers, or ``None``.

    Without a subprotocol the client decides whether it goes on (RFC 6455 section 4.2.2). Subprotocols that are not
    listed are never chosen, so that a token offered as ``bearer.<jwt>`` is not sent back.
    """
    return next((subprotocol for subprotocol in available if subprotocol in offered), None)


def accept(
    request: Request, *, subprotocol: str | None = None, extensions: str | None = None, headers: HeadersLike = ()
) -> Response:
    """Return the 101 for a request that passed `check_upgrade` (RFC 6455 section 4.2.2, item 5).

    Raise ``ValueError`` if the client did not offer the subprotocol, or as :func:`application_headers`.
    """
    answer = Headers(
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Accept", accept_value(request.headers["Sec-WebSocket-Key"]).decode()),
    )
    if subprotocol is not None:
        if not is_token(subprotocol):
            raise ValueError(f"invalid subprotocol {subprotocol!r}: expected a token, such as chat.v1")
        if subprotocol not in offered_subprotocols(request):
            raise ValueError(f"subprotocol {subprotocol!r} was not offered by the client, which would have to fail")
        answer.add("Sec-WebSocket-Protocol", subprotocol)
    if extensions is not None:
        answer.add("Sec-WebSocket-Extensions", extensions)
    for name, value in application_headers(headers).raw_items():
        answer.add(name, value)
    return Response(101, answer)


def accepted(key: str, subprotocol: str | None = None, extensions: str | None = None, headers: bytes = b"") -> bytes:
    """Return the serialized form of :func:`accept` for the client's ``key``, which :func:`check_upgrade` returns.

    ``headers`` are lines that were checked and serialized.
    """
    chosen = b""
    if subprotocol is not None:
        chosen = f"Sec-WebSocket-Protocol: {subprotocol}\r\n".encode()
    if extensions is not None:
        chosen += f"Sec-WebSocket-Extensions: {extensions}\r\n".encode()
    return b"".join((_ANSWER, accept_value(key), b"\r\n", chosen, headers, b"\r\n"))


def application_headers(headers: HeadersLike) -> Headers:
    """Return the headers that an application adds to the 101. Raise ``ValueError`` for one that it cannot set."""
    checked = headers if isinstance(headers, Headers) else Headers(headers)
    for name in checked:
        if is_handshake_header(name):
            raise ValueError(f"header {name} belongs to the handshake: it cannot be set by the application")
    return checked


def is_handshake_header(name: str) -> bool:
    """Return True if the header ``name`` of a 101 belongs to the handshake."""
    return name.lower() in _OURS or name.lower().startswith("sec-websocket-")


def refusal(exc: InvalidHandshake, request_id: str | None = None) -> Response:
    """Return the response to a refused request, which closes the connection. It has the headers of ``exc``, too.

    Its body is JSON. ``category`` and ``type`` follow from the status and the code, also for refusals of the
    application. ``request_id`` is the id of the connection.
    """
    server = exc.status >= 500
    error = {
        "code": exc.code,
        "message": str(exc),
        "status": exc.status,
        "category": _CATEGORIES.get(exc.status, "server_error" if server else "client_error"),
        "type": _TYPES_OF_CODES.get(exc.code)
        or _TYPES.get(exc.status, "internal_error" if server else "validation_failure"),
    }
    body = {"error": error} if request_id is None else {"error": error, "request_id": request_id}
    safety = (("Connection", "close"), ("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff"))
    return Response.json(exc.status, body, Headers(safety, exc.headers))
