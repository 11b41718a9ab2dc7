"""A message to a hub by HTTP: the seed's admin broadcast, for who has its secret (layer 5).

``POST /_admin/broadcast?room=lobby`` with the message as its body. Invariants: nothing is read from who has not shown
that he may; a slip in the address never becomes a message to everybody; an address pays for a wrong secret before it is
told that it was wrong.
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

#: Where the seed has it.
BROADCAST_PATH: Final = "/_admin/broadcast"

_BINARY: Final = "application/octet-stream"


def check_broadcast_secret(secret: str | bytes) -> bytes:
    """``secret`` as bytes, if it can be one: visible ASCII of 32 characters or more, as it must fit a header.

    Raises ``WeakSecret`` for a short one, ``TypeError`` or ``ValueError`` for what fits no header; without the secret.
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
    """A route for ``routes=`` that broadcasts the body of a POST in ``hub``.

    ``?room=`` is the room, several are several rooms, and without one it is everybody. ``keep=false`` keeps the message
    out of the histories of the rooms. Anything else in the query is refused. The body is sent as text, whatever its
    type, but ``Content-Type: application/octet-stream`` as binary.

    Answers: 204 when it is done, also where nobody is there; 400 ``WEBSOCKET_INVALID_ROOM``, ``WEBSOCKET_BAD_QUERY``,
    ``WEBSOCKET_INVALID_UTF8``; 401 ``UNAUTHORIZED``; 413 ``WEBSOCKET_REQUEST_TOO_LARGE``; 429
    ``WEBSOCKET_TOO_MANY_ATTEMPTS`` after too many wrong secrets from one address, also for the right one; 503
    ``WEBSOCKET_BROADCAST_REJECTED`` where nobody got it who should have, or the hub was stopped.

    Args:
        hub: where it is broadcast, on the loop of the server.
        secret: whoever sends ``Authorization: Bearer <secret>`` may; 32 characters of visible ASCII or more.
        authorizer: instead of a secret, ``f(request) -> bool``, plain or ``async def``, asked before the body is read.
        max_body: bytes of the longest message (default 1 MiB).
        attempts: what addresses have tried wrong (default: 20 tries, then one in 3 seconds).
        clock: seconds that never go back.

    Raises:
        WeakSecret: ``secret`` is shorter than 32 bytes. TypeError, ValueError: another argument is wrong, or there is
            neither ``secret`` nor ``authorizer``, or both.
    """
    if not isinstance(hub, Hub):
        raise TypeError(f"hub must be a plumews.Hub, not {type(hub).__name__}")
    if (secret is None) == (authorizer is None):
        raise TypeError("give either the secret of the broadcasts or an authorizer")
    may = authorizer if secret is None else _has_secret(check_broadcast_secret(secret))
    if may is None or not callable(may):
        raise TypeError(f"authorizer must be a function, not {type(may).__name__}")
    gate = _Gate(may, Attempts() if attempts is None else attempts, clock)
    return Route(_broadcaster(hub), methods=("POST",), max_body=max_body, authorize=gate.check)


def _has_secret(secret: bytes) -> Callable[[Request], bool]:
    return lambda request: hmac.compare_digest(bearer_of(request).encode(), secret)


class _Gate:
    """Who may, and how often an address may be wrong about that."""

    def __init__(self, may: Callable[[Request], Any], attempts: Attempts, clock: Callable[[], float]) -> None:
        self._may = may
        self._attempts = attempts
        self._clock = clock

    async def check(self, request: Request) -> None:
        """Raise ``Refused`` for who may not: 401, or 429 where it is not even asked."""
        address, now = request.client_address or None, self._clock()
        self._attempts.check(address, now, "too many wrong secrets from this address")
        self._attempts.charge(address, now)  # before the check, so that concurrent guesses cannot exceed the limit
        try:
            may = self._may(request)
            may = await may if inspect.isawaitable(may) else may
        except BaseException:
            self._attempts.refund(address, self._clock())
            raise
        if not may:
            raise Refused(
                "unauthorized", status=401, code=ErrorCode.UNAUTHORIZED, headers=(("WWW-Authenticate", "Bearer"),)
            )
        self._attempts.refund(address, self._clock())


def _broadcaster(hub: Hub) -> Callable[[Request], Response]:
    def answer(request: Request) -> Response:
        rooms, keep = _asked(request)
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


def _asked(request: Request) -> tuple[list[str], bool]:
    """The rooms in the query, of which none is everybody, and whether their histories keep the message."""
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
