"""Credentials of a request: a token and a room password, and the options about their places.

A program sets ``Authorization: Bearer`` and ``X-WebSocket-Room-Password``. A browser cannot set headers. It offers the
subprotocol ``bearer.<token>`` beside a real one, sends both in its first message, or sends a cookie (RFC 6265).
``?token=`` and ``?room_password=`` are accepted only if they are allowed, because addresses end up in logs. A request
has at most one token. Credentials in a disabled place are refused, never ignored.

A new place of a secret is listed in :mod:`plumews.http11.redaction`, which keeps it out of logs, and read here. A new
option about secrets is a field of :class:`AuthOptions` and its type in :class:`AuthKeywords`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypedDict

from ..constants import ErrorCode
from ..errors import InvalidHandshake, InvalidHeader, Refused
from ..http11.handshake import offered_subprotocols
from ..http11.headers import is_token
from ..http11.models import Request
from ..http11.origin import AllowedOrigin, check_origin
from ..http11.redaction import BEARER, PASSWORD_HEADER, QUERY_SECRETS, TOKEN_HEADER, cookies_of, query_values
from ..validation import entries_of

__all__ = [
    "TOKEN_SOURCES",
    "AuthKeywords",
    "AuthOptions",
    "Credentials",
    "auth_fields",
    "bearer_of",
    "credentials_in",
    "credentials_of_message",
    "credentials_of_request",
    "logs_in_by_message",
    "query_value",
]

#: Sources that are enabled by name. A cookie is enabled by its own name, and the query by ``allow_query_secrets``.
TOKEN_SOURCES: Final = ("header", "subprotocol", "message")


class Credentials(NamedTuple):
    """Token and room password of a client. An empty token counts as None."""

    token: str | None = None
    password: str | None = None

    def __repr__(self) -> str:
        return "Credentials(...)"  # a repr may be logged

    def with_message(self, said: Credentials) -> Credentials:
        """Return these credentials of a request, completed by those that the first message ``said``.

        A password of the message takes precedence. Two different tokens raise :class:`Refused`.
        """
        if self.token and said.token and self.token != said.token:
            raise Refused("two different tokens", code=ErrorCode.TWO_TOKENS)
        return Credentials(said.token or self.token, self.password if said.password is None else said.password)


@dataclass(frozen=True)
class AuthOptions:
    """Options about the secrets of clients: one list, shared by `serve`, `unix_serve` and `serve_rooms`.

    Args:
        require_token: True refuses clients without a token (default: True in `serve` and `unix_serve` with an
            authenticator, False in `serve_rooms`).
        token_sources: enabled places of a token, of ``"header"`` (``Authorization: Bearer``), ``"subprotocol"``
            (``bearer.<token>``) and ``"message"`` (``?auth=message`` and a first message). The default is all of them.
        token_cookie: name of a cookie with the token (default ``None``). A browser sends it with requests of every
            page, so such a request must have an ``Origin``.
        allow_query_secrets: True accepts ``?token=`` and ``?room_password=`` (default False: addresses end up in logs).

    Raises:
        TypeError: ``token_sources`` is not a collection of names.
        ValueError: a source is unknown, or the name of the cookie is invalid.
    """

    require_token: bool | None = None
    token_sources: Collection[str] = TOKEN_SOURCES
    token_cookie: str | None = None
    allow_query_secrets: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "token_sources", entries_of("token_sources", self.token_sources, '"header"'))
        for name in self.token_sources:
            if name not in TOKEN_SOURCES:
                raise ValueError(
                    f"unknown token source {name!r}: there are {', '.join(TOKEN_SOURCES)}; "
                    "a cookie is named by token_cookie, and allow_query_secrets opens the query"
                )
        cookie = self.token_cookie
        if cookie is not None and not (isinstance(cookie, str) and is_token(cookie)):
            raise ValueError(f'token_cookie must be the name of a cookie, such as "__Host-token", not {cookie!r}')

    def check_origins(self, origins: Iterable[AllowedOrigin] | None) -> None:
        """Raise ``ValueError`` if a token cookie is enabled and pages of any site may connect with it."""
        if self.token_cookie is not None and any(map(_matches_any_site, origins or ())):
            raise ValueError(
                'with token_cookie the origins must be listed: "*", "null" and a pattern that matches all of them '
                "would let any site act as its visitors"
            )


class AuthKeywords(TypedDict, total=False):
    """Keywords about the secrets of clients, with their types: see :class:`AuthOptions`."""

    require_token: bool | None
    token_sources: Collection[str]
    token_cookie: str | None
    allow_query_secrets: bool


def _matches_any_site(origin: AllowedOrigin) -> bool:
    """Return whether ``origin`` matches pages of unknown sites."""
    if isinstance(origin, re.Pattern):
        return any(origin.fullmatch(f"{scheme}://nobody.knows.it.invalid") for scheme in ("http", "https"))
    return origin in ("*", "null")


def credentials_of_request(request: Request, options: AuthOptions) -> Credentials:
    """Return the credentials in the headers, the subprotocols, the cookies and the query.

    Raises:
        Refused: 403, credentials are in a disabled place.
        InvalidHandshake: 400, ``?auth=`` is not ``message``, or is given twice. With a misspelled value the first
            message would be an ordinary one, and a room would get the password.
        InvalidHeader: 400, a header is repeated or malformed, or there are two different tokens or passwords.
        InvalidOrigin: 403, a token is in a cookie and there is no ``Origin``.
    """
    if not options.allow_query_secrets and any(name in request.query for name in QUERY_SECRETS):
        raise Refused("secrets in the query are not accepted here", code=ErrorCode.QUERY_SECRETS)
    if logs_in_by_message(request):
        _check_source("message", "a first message", options)
    elif query_value(request, "auth"):
        raise InvalidHandshake("auth in the query must be message, or be left out", code=ErrorCode.BAD_QUERY)
    tokens = {token for token in _tokens(request, options) if token}
    if len(tokens) > 1:
        raise InvalidHeader("two different tokens in one request", code=ErrorCode.TWO_TOKENS)
    password = _only(request, PASSWORD_HEADER)
    if password is None:
        passwords = set(query_values(request, "room_password"))
        if len(passwords) > 1:
            raise InvalidHeader("two different room passwords in one request")
        password = next(iter(passwords), None)
    return Credentials(next(iter(tokens), None), password)


def query_value(request: Request, name: str) -> str | None:
    """Return the value of ``name`` in the query. Raise `InvalidHandshake` (400) if it is given twice."""
    if name in request.repeated:
        raise InvalidHandshake(f"more than one {name} in the query", code=ErrorCode.BAD_QUERY)
    return request.query.get(name)


def logs_in_by_message(request: Request) -> bool:
    """Return whether the client logs in by its first message. Raise the errors of :func:`query_value`."""
    return query_value(request, "auth") == "message"


def credentials_of_message(message: str | bytes) -> Credentials | None:
    """Return the credentials in ``{"type": "auth", "token": ..., "password": ...}``, or None for another message."""
    fields = auth_fields(message)
    return None if fields is None else credentials_in(fields)


def auth_fields(message: str | bytes) -> dict[str, Any] | None:
    """Return the fields of a message of type ``auth``, or None for another message."""
    try:
        # Bytes are decoded first: json.loads of bytes accepts UTF-16 and lone surrogates.
        fields: Any = json.loads(message if isinstance(message, str) else message.decode(), object_pairs_hook=_object)
    except (ValueError, RecursionError):
        return None
    return fields if isinstance(fields, dict) and fields.get("type") == "auth" else None


class _Ambiguous(dict[str, Any]):
    """Object with a duplicate name. Parsers differ in which value counts (RFC 8259 section 4)."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    return fields if len(fields) == len(pairs) else _Ambiguous(fields)


def credentials_in(fields: dict[str, Any]) -> Credentials | None:
    """Return the credentials in ``fields``, or None if one of them is not text or a name is duplicate."""
    token, password = fields.get("token"), fields.get("password")
    if isinstance(fields, _Ambiguous) or not (_is_text(token) and _is_text(password)):
        return None
    return Credentials(token or None, password)


def _is_text(value: object) -> bool:
    """Return whether ``value`` is absent, or text without a lone surrogate (``\\ud800`` in JSON)."""
    if value is None:
        return True
    return isinstance(value, str) and not any("\ud800" <= char <= "\udfff" for char in value)


def bearer_of(request: Request) -> str:
    """Return the token in ``Authorization: Bearer``, or an empty string. Raise `InvalidHeader` for two such headers."""
    scheme, _, token = (_only(request, TOKEN_HEADER) or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _tokens(request: Request, options: AuthOptions) -> Iterator[str]:
    if token := bearer_of(request):
        _check_source("header", "an Authorization header", options)
        yield token
    for offer in offered_subprotocols(request):
        if offer.startswith(BEARER):
            _check_source("subprotocol", "a subprotocol", options)
            yield offer.removeprefix(BEARER)
    if options.token_cookie is not None:
        for token in _cookies(request, options.token_cookie):
            check_origin(request, ("*",), secure=request.secure, required=True)  # the server has checked its value
            yield token
    yield from query_values(request, "token")


def _cookies(request: Request, name: str) -> Iterator[str]:
    """Yield the values of the cookie ``name``. If two differ, another site may have set one of them."""
    for key, value in cookies_of(request):
        if key == name:
            if not value.isascii():
                raise InvalidHeader(f"non-ASCII byte in the cookie {name}")
            yield value


def _check_source(name: str, where: str, options: AuthOptions) -> None:
    if name not in options.token_sources:
        raise Refused(f"credentials in {where} are not accepted here", code=ErrorCode.TOKEN_SOURCE)


def _only(request: Request, name: str) -> str | None:
    values = request.headers.get_all(name)
    if len(values) > 1:
        raise InvalidHeader(f"more than one {name} header")
    return values[0] if values else None
