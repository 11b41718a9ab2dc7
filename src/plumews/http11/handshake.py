"""The server's side of the opening handshake, as decisions about a request (layer 2).

RFC 6455 section 4.2: is this an upgrade to WebSocket 13, which subprotocol, what is the answer. Invariant: a
request either passes `check_upgrade` or raises an `InvalidHandshake` that carries the status, the word and
the headers of its refusal; nothing that a peer sends raises anything else.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from typing import Final

from ..constants import ACCEPT_GUID, WEBSOCKET_VERSION, ErrorCode
from ..errors import InvalidHandshake, InvalidHeader, InvalidUpgrade
from .headers import Headers, HeadersLike, has_token, is_token, parse_tokens
from .models import Request, Response

__all__ = [
    "accept",
    "accept_key",
    "accepted",
    "application_headers",
    "check_upgrade",
    "choose_subprotocol",
    "is_handshake_header",
    "offered_subprotocols",
    "refusal",
]

_VERSION: Final = ("Sec-WebSocket-Version", WEBSOCKET_VERSION)

#: The lines that every answer has, up to the value of the last.
_ANSWER: Final = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
)

#: Bytes of the nonce in Sec-WebSocket-Key (RFC 6455 section 4.1), and of its base64.
_NONCE_SIZE: Final = 16
_KEY_SIZE: Final = 24

#: What the answer says by itself, or must not say; and everything that begins with sec-websocket-.
_OURS: Final = frozenset({"connection", "upgrade", "content-length", "transfer-encoding"})


_CATEGORIES: Final = {
    401: "auth_error",
    403: "auth_error",
    408: "timeout_error",
    429: "rate_limit_error",
}

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


def accept_key(key: str) -> str:
    """What proves that ``key`` was read by a WebSocket server (RFC 6455 section 4.2.2, item 5.4)."""
    digest = hashlib.sha1(key.encode() + ACCEPT_GUID, usedforsecurity=False).digest()
    return base64.b64encode(digest).decode()


def check_upgrade(request: Request) -> str:
    """The client's key, if ``request`` asks for a WebSocket as RFC 6455 section 4.2.1 wants it.

    Raises, in this order: `InvalidHandshake` 405 for a method that is not GET; `InvalidUpgrade` 426 for missing
    ``Upgrade`` and ``Connection`` tokens, for HTTP/1.0, and for a version that is not 13; `InvalidHeader` 400 for a key
    that is missing or not the base64 of 16 bytes. The words are those of the seed.
    """
    headers = request.headers
    if request.method != "GET":
        raise InvalidHandshake(
            "method not allowed", status=405, code=ErrorCode.METHOD_NOT_ALLOWED, headers=(("Allow", "GET"),)
        )
    if not (request.wants_websocket and has_token(headers.get_all("Connection"), "upgrade")):
        # A proxy that speaks HTTP/1.0 is the usual cause, and is to be told from a client that asks for something else.
        needed = "" if request.http_version == "1.1" else ", in HTTP/1.1"
        raise InvalidUpgrade(f"websocket upgrade required{needed}", headers=(("Upgrade", "websocket"), _VERSION))
    if headers.get_all("Sec-WebSocket-Version") != [WEBSOCKET_VERSION]:
        raise InvalidUpgrade(
            f"websocket version {WEBSOCKET_VERSION} required", code=ErrorCode.BAD_VERSION, headers=(_VERSION,)
        )
    keys = headers.get_all("Sec-WebSocket-Key")
    if not any(keys):
        raise InvalidHeader("websocket key required", code=ErrorCode.KEY_MISSING)
    if len(keys) > 1 or not _is_key(keys[0]):
        raise InvalidHeader("invalid websocket key", code=ErrorCode.KEY_INVALID)
    return keys[0]


def _is_key(key: str) -> bool:
    if len(key) != _KEY_SIZE:
        return False
    try:
        return len(base64.b64decode(key, validate=True)) == _NONCE_SIZE
    except (binascii.Error, ValueError):
        return False


def offered_subprotocols(request: Request) -> list[str]:
    """The subprotocols that the client offers, in its order; `InvalidHeader` if one is not a token."""
    return parse_tokens(request.headers.get_all("Sec-WebSocket-Protocol"), "Sec-WebSocket-Protocol header")


def choose_subprotocol(offered: Sequence[str], available: Sequence[str]) -> str | None:
    """The first of ``available``, which is in our order of preference, that was offered.

    ``None`` if there is none: the connection then goes without a subprotocol, and it is the client that decides
    whether it can (RFC 6455 section 4.2.2). Only what is listed is ever chosen, so that a token which a browser
    sends as ``bearer.<jwt>`` is not sent back.
    """
    return next((subprotocol for subprotocol in available if subprotocol in offered), None)


def accept(
    request: Request, *, subprotocol: str | None = None, extensions: str | None = None, headers: HeadersLike = ()
) -> Response:
    """The 101 for a request that passed `check_upgrade` (RFC 6455 section 4.2.2, item 5).

    ``extensions`` is the value of ``Sec-WebSocket-Extensions``, if any was agreed; ``headers`` are the
    application's. Raises ``ValueError`` for a header that is the handshake's own or cannot stand on one line, and
    for a subprotocol that the client did not offer.
    """
    answer = Headers(
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Accept", accept_key(request.headers["Sec-WebSocket-Key"])),
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


def accepted(
    request: Request, *, subprotocol: str | None = None, extensions: str | None = None, headers: bytes = b""
) -> bytes:
    """What :func:`accept` serializes to, made in one go; ``headers`` are lines that were checked and serialized."""
    chosen = b"" if subprotocol is None else b"Sec-WebSocket-Protocol: %b\r\n" % subprotocol.encode()
    if extensions is not None:
        chosen += b"Sec-WebSocket-Extensions: %b\r\n" % extensions.encode()
    key = accept_key(request.headers["Sec-WebSocket-Key"]).encode()
    return b"%b%b\r\n%b%b\r\n" % (_ANSWER, key, chosen, headers)


def application_headers(headers: HeadersLike) -> Headers:
    """What an application adds to the 101, checked.

    Raises ``ValueError`` for a header that is the handshake's own, or that cannot stand on one line.
    """
    checked = headers if isinstance(headers, Headers) else Headers(headers)
    for name in checked:
        if is_handshake_header(name):
            raise ValueError(f"header {name} belongs to the handshake: it cannot be set by the application")
    return checked


def is_handshake_header(name: str) -> bool:
    """Whether the handshake alone says what stands in the header ``name`` of a 101."""
    return name.lower() in _OURS or name.lower().startswith("sec-websocket-")


def refusal(exc: InvalidHandshake, request_id: str | None = None) -> Response:
    """The answer to a request that is refused, after which the connection is closed.

    ``exc.headers`` are added.
    """
    headers = Headers(
        ("Connection", "close"),
        ("Cache-Control", "no-store"),
        ("X-Content-Type-Options", "nosniff"),
    )
    return Response.json(exc.status, _error_body(exc, request_id), Headers(headers, exc.headers))


def _error_body(exc: InvalidHandshake, request_id: str | None = None) -> dict[str, object]:
    """What the answer to a refused request says; ``request_id`` is the id of its connection, which is for the log."""
    server = exc.status >= 500
    error = {
        "code": exc.code,
        "message": str(exc),
        "status": exc.status,
        "category": _CATEGORIES.get(exc.status, "server_error" if server else "client_error"),
        "type": _TYPES_OF_CODES.get(exc.code)
        or _TYPES.get(exc.status, "internal_error" if server else "validation_failure"),
    }
    return {"error": error} if request_id is None else {"error": error, "request_id": request_id}
