"""Broadcast to a hub over HTTP: ``POST /_admin/broadcast?room=lobby`` with the message as the body.

The body is read only after the client is authorized. A misspelled query never becomes a broadcast to all rooms. An
address is charged for each attempt before the secret is checked, so concurrent guesses cannot exceed the limit.
"""

from __future__ import annotations

import hmac
import inspect
import time
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import parse_qsl

from .. import limits
from ..auth.credentials import bearer_of
from ..auth.password_checker import Attempts
from ..constants import ErrorCode
from ..errors import InvalidHandshake, InvalidHeader, Refused, WeakSecret
from ..http11.models import Request, Response
from ..hub.hub import Hub
from ..server.routes import Route

__all__ = ["BROADCAST_PATH", "admin_broadcast_route", "check_broadcast_secret"]

#: Path of the route that ``broadcast_secret`` of ``serve_rooms`` adds.
BROADCAST_PATH: Final = "/_admin/broadcast"

_BINARY: Final = "application/octet-stream"


def check_broadcast_secret(secret: str | bytes) -> bytes:
    """Return ``secret`` as bytes. No error repeats it.

    Args:
        secret: 32 to 8,192 characters of visible ASCII, because it is sent in a header.

    Raises:
        WeakSecret: ``secret`` is shorter than 32 characters.
        TypeError: it is neither ``str`` nor ``bytes``.
        ValueError: it is too long, or not visible ASCII.
    """
    if not isinstance(secret, (str, bytes)):
        raise TypeError(f"the websocket broadcast secret must be a str or bytes, not {type(secret).__name__}")
    text = secret if isinstance(secret, str) else secret.decode("latin-1")
    if not (text.isascii() and text.isprintable() and " " not in text):
        raise ValueError(
            "the websocket broadcast secret must be visible ASCII, without spaces; secrets.token_urlsafe() makes one"
        )
    if len(text) < limits.SECRET_SIZE:
        raise WeakSecret(
            f"websocket broadcast secret must be at least {limits.SECRET_SIZE} bytes, and has {len(text)}; "
            "secrets.token_urlsafe() makes one"
        )
    if len(text) > limits.TOKEN_SIZE:
        raise ValueError(f"the websocket broadcast secret must be at most {limits.TOKEN_SIZE} bytes, to fit its header")
    return text.encode()


def admin_broadcast_route(
    hub: Hub,
    secret: str | bytes | None = None,
    *,
    authorizer: Callable[[Request], Any] | None = None,
    max_body: int = limits.ROUTE_BODY,
    attempts: Attempts | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Route:
    """Return a route for ``routes=`` that broadcasts the body of a POST in ``hub``.

    ``?room=`` names the room and may be repeated. Without it, all members get the message. ``keep=false`` keeps the
    message out of the histories of the rooms. Any other query is refused. The body is sent as text, whatever its type.
    With ``Content-Type: application/octet-stream`` it is sent as binary.

    Responses: 204 if the message is queued, also without any member. 400 ``WEBSOCKET_INVALID_ROOM``,
    ``WEBSOCKET_BAD_QUERY`` or ``WEBSOCKET_INVALID_UTF8``. 401 ``UNAUTHORIZED``. 413 ``WEBSOCKET_REQUEST_TOO_LARGE``.
    429 ``WEBSOCKET_TOO_MANY_ATTEMPTS`` after too many wrong secrets from one address, also for the right one. 503
    ``WEBSOCKET_BROADCAST_REJECTED`` if no member has space in its queue, or the hub was stopped.

    Args:
        hub: hub on the loop of the server.
        secret: secret of requests with ``Authorization: Bearer <secret>``, 32 characters of visible ASCII or more.
        authorizer: function ``f(request) -> bool`` instead of a secret, plain or ``async def``. It is called before the
            body is read.
        max_body: bytes of the longest message (default 1 MiB).
        attempts: failed attempts of addresses (default: 20, then one every 3 seconds).
        clock: returns seconds that never go back.

    Returns:
        The route.

    Raises:
        WeakSecret: ``secret`` is shorter than 32 bytes.
        TypeError: another argument is wrong, or not exactly one of ``secret`` and ``authorizer`` is given.
        ValueError: ``secret`` is not visible ASCII.
    """
    if not isinstance(hub, Hub):
        raise TypeError(f"hub must be a plumews.Hub, not {type(hub).__name__}")
    if (secret is None) == (authorizer is None):
        raise TypeError("give either the secret of the broadcasts or an authorizer")
    allows = authorizer if secret is None else _has_secret(check_broadcast_secret(secret))
    if allows is None or not callable(allows):
        raise TypeError(f"authorizer must be a function, not {type(allows).__name__}")
    limited = _LimitedAuthorizer(allows, Attempts() if attempts is None else attempts, clock)
    return Route(_broadcaster(hub), methods=("POST",), max_body=max_body, authorize=limited.check)


def _has_secret(secret: bytes) -> Callable[[Request], bool]:
    return lambda request: hmac.compare_digest(bearer_of(request).encode(), secret)


class _LimitedAuthorizer:
    """Authorizer of requests that limits the failed attempts of each address."""

    def __init__(self, allows: Callable[[Request], Any], attempts: Attempts, clock: Callable[[], float]) -> None:
        self._allows = allows
        self._attempts = attempts
        self._clock = clock

    async def check(self, request: Request) -> None:
        """Raise ``Refused`` for an unauthorized request: 401, or 429 after too many failures of its address."""
        address, now = request.client_address or None, self._clock()
        self._attempts.check(address, now, "too many wrong secrets from this address")
        self._attempts.charge(address, now)  # before the check, so that concurrent guesses cannot exceed the limit
        try:
            allowed = self._allows(request)
            allowed = await allowed if inspect.isawaitable(allowed) else allowed
        except BaseException:
            self._attempts.refund(address, self._clock())
            raise
        if not allowed:
            raise Refused(
                "unauthorized", status=401, code=ErrorCode.UNAUTHORIZED, headers=(("WWW-Authenticate", "Bearer"),)
            )
        self._attempts.refund(address, self._clock())


def _broadcaster(hub: Hub) -> Callable[[Request], Response]:
    def answer(request: Request) -> Response:
        rooms, keep = _target(request)
        message = _message_of(request)
        result = hub.broadcast_room(rooms, message, keep=keep) if rooms else hub.broadcast_all(message)
        if result.invalid:
            raise InvalidHandshake("invalid websocket room", code=ErrorCode.INVALID_ROOM)
        if result.stopped:
            text = "websocket broadcast rejected: the hub was stopped"
            raise Refused(text, status=503, code=ErrorCode.BROADCAST_REJECTED)
        if result.rejected:
            text = "websocket broadcast rejected: nobody had space for it"
            raise Refused.busy(text, ErrorCode.BROADCAST_REJECTED)
        return Response(204)

    return answer


def _target(request: Request) -> tuple[list[str], bool]:
    """Return the rooms in the query and whether their histories keep the message. No rooms mean all members."""
    fields = parse_qsl(request.query_string, keep_blank_values=True)
    if any(name not in ("room", "keep") for name, _ in fields) or (request.query_string and not fields):
        raise InvalidHandshake("unknown field in the query: there are room and keep", code=ErrorCode.BAD_QUERY)
    keep = [value for name, value in fields if name == "keep"] or ["true"]
    rooms = [value for name, value in fields if name == "room"]
    if len(keep) > 1 or keep[0] not in ("true", "false") or (keep[0] == "false" and not rooms):
        raise InvalidHandshake("keep must be true or false, once, and goes with room", code=ErrorCode.BAD_QUERY)
    return rooms, keep[0] == "true"


def _message_of(request: Request) -> str | bytes:
    kinds = request.headers.get_all("Content-Type")
    if len(kinds) > 1:
        raise InvalidHeader("more than one Content-Type header")
    if kinds and kinds[0].partition(";")[0].strip(" \t").lower() == _BINARY:
        return request.body
    try:
        return request.body.decode()
    except UnicodeDecodeError:
        raise InvalidHandshake(
            f"invalid utf-8 in message: send bytes as Content-Type: {_BINARY}", code=ErrorCode.INVALID_UTF8
        ) from None
