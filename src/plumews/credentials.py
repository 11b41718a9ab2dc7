"""The token and the room password of a request, wherever a client can put them (layer 2).

A program sets ``Authorization: Bearer`` and ``X-WebSocket-Room-Password``. A browser cannot set headers: it offers
the subprotocol ``bearer.<token>`` beside a real one (section 8 point 22 of the seed's review), or sends both in
its first message. ``?token=`` and ``?room_password=`` work as in the seed when they are allowed: addresses end up in
logs (point 20).
"""

from __future__ import annotations

import json
from typing import Any, Final, NamedTuple

from .errors import InvalidHeader, Refused
from .handshake import BEARER, offered_subprotocols
from .http11 import Request

__all__ = ["Credentials", "bearer_of", "credentials_of_message", "credentials_of_request"]

_SUBPROTOCOL: Final = BEARER
_PASSWORD_HEADER: Final = "X-WebSocket-Room-Password"  # noqa: S105 - a name, no password
_IN_QUERY: Final = ("token", "room_password")


class Credentials(NamedTuple):
    """What a client says about itself; ``None`` is nothing, and so is an empty token."""

    token: str | None = None
    password: str | None = None

    def __repr__(self) -> str:
        return "Credentials(...)"  # never in a log


def credentials_of_request(request: Request, *, allow_query: bool) -> Credentials:
    """The credentials in the headers, the subprotocols and, if ``allow_query``, the query.

    Raises:
        Refused: 403, there are secrets in the query and they are not allowed there.
        InvalidHeader: a header is repeated or malformed.
    """
    if not allow_query and any(name in request.query for name in _IN_QUERY):
        raise Refused("secrets in the query are not accepted here", code="WEBSOCKET_QUERY_SECRETS")
    token = bearer_of(request) or _offered(request) or request.query.get("token")
    password = _only(request, _PASSWORD_HEADER)
    if password is None:
        password = request.query.get("room_password")
    return Credentials(token or None, password)


def credentials_of_message(message: str | bytes) -> Credentials | None:
    """What ``{"type": "auth", "token": ..., "password": ...}`` says; ``None`` if the message is no such thing."""
    try:
        fields: Any = json.loads(message)
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict) or fields.get("type") != "auth":
        return None
    token, password = fields.get("token"), fields.get("password")
    if not isinstance(token, (str, type(None))) or not isinstance(password, (str, type(None))):
        return None
    return Credentials(token or None, password)


def bearer_of(request: Request) -> str:
    """The token in ``Authorization: Bearer``, empty without one; `InvalidHeader` for two such headers."""
    scheme, _, token = (_only(request, "Authorization") or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _offered(request: Request) -> str:
    tokens = (
        offer.removeprefix(_SUBPROTOCOL) for offer in offered_subprotocols(request) if offer.startswith(_SUBPROTOCOL)
    )
    return next(tokens, "")


def _only(request: Request, name: str) -> str | None:
    values = request.headers.get_all(name)
    if len(values) > 1:
        raise InvalidHeader(f"more than one {name} header")
    return values[0] if values else None
