"""The admin's broadcast: POST a message to a room, with a secret of its own (layer 5; the seed's admin endpoint).

Who has the secret says something to a room, or to everybody, without a connection: a deployment script, a shop. Wrong
secrets cost their address as wrong passwords do. Invariants: the secret is compared in constant time, and before the
body is read.
"""

from __future__ import annotations

import hmac
import math
import time

from . import limits
from .attempts import Attempts
from .constants import Opcode
from .credentials import bearer_of
from .errors import InvalidHandshake, Refused, WeakSecret
from .http11 import Request, Response
from .hub import Hub
from .request_body import BodyRoute

__all__ = ["admin_broadcast_route"]


def admin_broadcast_route(hub: Hub, secret: str | bytes, *, max_body: int = limits.ADMIN_BODY) -> BodyRoute:
    """A route, for ``routes=``, that broadcasts the body of a POST.

    ``Authorization: Bearer <secret>`` is needed. ``?room=`` names the room; without it everybody gets the message. It
    is text, in UTF-8, unless ``Content-Type`` is ``application/octet-stream``. The answer is 204, also where nobody is
    there; 400 for a bad name or bad text, 401 without the secret, 413 beyond ``max_body`` bytes (default 1 MiB), 429
    after too many wrong secrets, 503 ``WEBSOCKET_BROADCAST_REJECTED`` where the hub is stopped or overloaded.

    Raises:
        WeakSecret: the secret has fewer than 32 bytes. It must not be that of the tokens.
    """
    expected = secret.encode() if isinstance(secret, str) else bytes(secret)
    if len(expected) < limits.SECRET_SIZE:
        raise WeakSecret(
            f"websocket broadcast secret must be at least {limits.SECRET_SIZE} bytes, not {len(expected)}; "
            "secrets.token_urlsafe(32) makes one"
        )
    attempts = Attempts()

    def admit(request: Request) -> None:
        address, now = request.client_address or None, time.monotonic()
        wait = attempts.retry_after(address, now)
        if wait > 0:
            raise Refused(
                "too many wrong secrets from this address",
                status=429,
                code="WEBSOCKET_TOO_MANY_ATTEMPTS",
                headers=(("Retry-After", str(math.ceil(wait))),),
            )
        if not hmac.compare_digest(bearer_of(request).encode(), expected):
            attempts.failed(address, now)
            raise Refused(
                "the secret of the admin is required",
                status=401,
                code="UNAUTHORIZED",
                headers=(("WWW-Authenticate", "Bearer"),),
            )

    def answer(request: Request, body: bytes) -> Response:
        binary = request.headers.get("Content-Type", "").partition(";")[0].strip().lower() == "application/octet-stream"
        opcode = Opcode.BINARY if binary else Opcode.TEXT
        room = request.query.get("room")
        try:
            if room is None:
                result = hub.broadcast_all(body, opcode=opcode)
            else:
                result = hub.broadcast_room(room, body, opcode=opcode)
        except UnicodeDecodeError:
            raise InvalidHandshake("the message is not valid UTF-8", code="WEBSOCKET_INVALID_TEXT") from None
        if result.invalid:
            raise InvalidHandshake("invalid websocket room", code="WEBSOCKET_INVALID_ROOM")
        if result.stopped or result.overloaded:
            raise Refused("websocket broadcast rejected", status=503, code="WEBSOCKET_BROADCAST_REJECTED")
        return Response(204)

    return BodyRoute(answer, admit, max_body)
