"""Client side of the opening handshake, without I/O (RFC 6455 section 4.1).

Invariants: an answer is either accepted, or an :class:`plumews.InvalidHandshake` says what is wrong with it. Nothing
that a server sends raises any other exception. No header of an application can add a line to the request. Interim
responses are passed over, up to a bound.
"""

from __future__ import annotations

import os
import platform
from base64 import b64encode
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, NoReturn

from .. import __version__, limits
from ..constants import WEBSOCKET_VERSION
from ..deflate.config import Agreement, Deflate, check_answer, offer
from ..errors import InvalidHeader, InvalidMessage, InvalidStatus, InvalidUpgrade
from ..http11.handshake import is_handshake_header
from ..http11.headers import Headers, HeadersLike, has_token
from ..http11.models import Response
from ..http11.response_parser import ResponseReader
from ..http11.websocket_key import accept_value

__all__ = ["USER_AGENT", "Accepted", "ClientHandshake", "bearer", "check_headers"]

#: Default value of ``User-Agent``.
USER_AGENT: Final = f"Python/{platform.python_version()} plumews/{__version__}"

#: Headers that may stand in the request once.
_ONCE: Final = ("Authorization", "Host", "Origin", "User-Agent")

#: Options that set the headers that belong to the handshake.
_OPTIONS: Final = {"sec-websocket-extensions": "compression", "sec-websocket-protocol": "subprotocols"}

#: Headers of an answer that may stand in it once (RFC 6455 sections 11.3.2 to 11.3.4).
_ANSWERED_ONCE: Final = ("Upgrade", "Sec-WebSocket-Accept", "Sec-WebSocket-Extensions", "Sec-WebSocket-Protocol")


class Accepted(NamedTuple):
    """Answer of a server that opened the WebSocket.

    Attributes:
        response: Response 101.
        subprotocol: Subprotocol that the server chose, or ``None``.
        agreement: Parameters of permessage-deflate, or ``None`` without compression.
        rest: Bytes behind the response: the first frames.
    """

    response: Response
    subprotocol: str | None
    agreement: Agreement | None
    rest: bytes


def bearer(token: str) -> str:
    """Return the value of ``Authorization`` for a token (RFC 6750).

    Raises:
        TypeError: ``token`` is no ``str``.
        ValueError: It is empty, or contains other characters than visible ASCII. The text does not quote it.
    """
    if not isinstance(token, str):
        raise TypeError(f"a token must be a str, not {type(token).__name__}")
    if not (token and token.isascii() and token.isprintable() and " " not in token):
        raise ValueError("invalid token: expected visible ASCII, without spaces")
    return f"Bearer {token}"


def check_headers(headers: HeadersLike | None) -> Headers:
    """Return the headers that an application adds to the request.

    Raises:
        ValueError: A header is malformed, belongs to the handshake, or stands there twice and must not.
        TypeError: ``headers`` is neither a mapping nor a list of pairs of ``str``.
    """
    if isinstance(headers, (str, bytes)) or not isinstance(headers, (Iterable, type(None))):
        raise TypeError(f"headers must be a mapping or a list of pairs, not {type(headers).__name__}")
    checked = Headers() if headers is None else Headers(headers)
    for name in checked:
        if is_handshake_header(name):
            option = _OPTIONS.get(name.lower())
            hint = f"use the option {option}" if option else "it cannot be set by the application"
            raise ValueError(f"header {name} belongs to the handshake: {hint}")
    twice = checked.repeated(_ONCE)
    if twice is not None:
        raise ValueError(f"more than one {twice} header")
    return checked


class ClientHandshake:
    """Request of one client, and the check of the answer.

    Args:
        host: Value of ``Host``, such as ``example.com:8080``.
        resource: Path and query.
        origin: Value of ``Origin``, or ``None`` for no such header.
        subprotocols: Subprotocols that are offered, in the order of preference.
        deflate: Options of permessage-deflate, which is offered, or ``None``.
        user_agent: Value of ``User-Agent``, or ``None`` for no such header.
        authorization: Value of ``Authorization``, or ``None`` for no such header.
        headers: Headers of the application. They replace ``Host``, ``Origin``, ``User-Agent`` and ``Authorization``.
        max_head: Bytes of the largest head of an answer (default 16 KiB).

    Attributes:
        headers: Headers of the request.
        request: Bytes of the request.
        refusal: Error for an answer that is not 101, once its head is read. Its body may still arrive: `feed` raises
            the error when the body is complete. The caller bounds the time, and raises it then.

    Raises:
        ValueError: A value contains a control character, or as :func:`check_headers`.
    """

    __slots__ = (
        "_deflate",
        "_interim",
        "_key",
        "_max_head",
        "_reader",
        "_subprotocols",
        "headers",
        "refusal",
        "request",
    )

    def __init__(
        self,
        host: str,
        resource: str,
        *,
        origin: str | None = None,
        subprotocols: Sequence[str] = (),
        deflate: Deflate | None = None,
        user_agent: str | None = USER_AGENT,
        authorization: str | None = None,
        headers: HeadersLike | None = None,
        max_head: int = limits.HEAD_SIZE,
    ) -> None:
        self._key = b64encode(os.urandom(16)).decode()
        self._subprotocols = subprotocols
        self._deflate = deflate
        self._max_head = max_head
        self._reader = ResponseReader(max_head)
        self._interim = 0
        self.refusal: InvalidStatus | None = None
        added = None if headers is None else check_headers(headers)
        pairs = [
            ("Host", host),
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Key", self._key),
            ("Sec-WebSocket-Version", WEBSOCKET_VERSION),
            ("Sec-WebSocket-Extensions", None if deflate is None else offer(deflate)),
            ("Sec-WebSocket-Protocol", ", ".join(subprotocols) or None),
            ("Origin", origin),
            ("User-Agent", user_agent),
            ("Authorization", authorization),
        ]
        lines = [(name, value) for name, value in pairs if value is not None and (added is None or name not in added)]
        if added is not None:
            lines += added.raw_items()
        self.headers = Headers.checked(lines)
        self.request = f"GET {resource} HTTP/1.1\r\n".encode("ascii") + self.headers.serialize()

    def feed(self, data: bytes | bytearray | memoryview) -> Accepted | None:
        """Read the next bytes of the answer. Return what was agreed on once the 101 is complete, ``None`` before.

        Raises:
            InvalidStatus: The server refused, and the body of its response is complete.
            InvalidMessage: The answer is malformed or too large, or there were too many interim responses.
            InvalidUpgrade: The 101 has another ``Upgrade`` or ``Connection``.
            InvalidHeader: Another header of the 101 is missing, repeated or wrong, or does not fit the request.
        """
        while self.refusal is None:
            response = self._reader.feed(data)
            if response is None:
                return None
            data = self._reader.rest
            if response.status == 101:
                return self._check(response, data)
            if response.status >= 200:
                self.refusal = InvalidStatus(response)
                break
            self._interim += 1
            if self._interim > limits.INTERIM_RESPONSES:
                raise InvalidMessage(f"more than {limits.INTERIM_RESPONSES} interim responses (1xx)")
            self._reader = ResponseReader(self._max_head)
        complete = self._reader.feed_body(data)
        self.refusal.response.body = self._reader.body
        if complete:
            raise self.refusal
        return None

    def feed_eof(self) -> NoReturn:
        """Raise the error of an answer that ends here.

        Raises:
            InvalidStatus: The server refused. The end of the connection ended the body.
            ConnectionResetError: There is no whole answer.
        """
        if self.refusal is not None:
            raise self.refusal
        answered = "in the middle of its answer" if self._reader.started else "before it answered"
        raise ConnectionResetError(f"the server closed the connection {answered}")

    def _check(self, response: Response, rest: bytes) -> Accepted:
        headers = response.headers
        twice = headers.repeated(_ANSWERED_ONCE)
        if twice is not None:
            raise InvalidHeader(f"the server answered with more than one {twice} header")
        if headers.get("Upgrade", "").lower() != "websocket":
            raise InvalidUpgrade("the server answered 101 without Upgrade: websocket")
        if not has_token(headers.get_all("Connection"), "upgrade"):
            raise InvalidUpgrade("the server answered 101 without Connection: Upgrade")
        accept = headers.get("Sec-WebSocket-Accept")
        if accept is None:
            raise InvalidHeader("the server answered 101 without Sec-WebSocket-Accept")
        if accept != accept_value(self._key).decode():
            raise InvalidHeader("the server answered with a wrong Sec-WebSocket-Accept: it is for another request")
        return Accepted(response, self._chosen(headers), self._agreed(headers), rest)

    def _chosen(self, headers: Headers) -> str | None:
        chosen = headers.get("Sec-WebSocket-Protocol")
        if chosen is not None and chosen not in self._subprotocols:
            raise InvalidHeader(f"the server chose the subprotocol {chosen[:100]!a}, which was not offered")
        return chosen

    def _agreed(self, headers: Headers) -> Agreement | None:
        answered = headers.get_all("Sec-WebSocket-Extensions")
        if self._deflate is not None:
            return check_answer(answered, self._deflate)
        if any(value.strip(" \t,") for value in answered):
            raise InvalidHeader("the server answered with an extension, but none was offered")
        return None
