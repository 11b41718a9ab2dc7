"""Exceptions, with the names, constructors and texts of ``websockets.exceptions``.

Exceptions that a connection raises are subclasses of those of plumews: ``except plumews.ConnectionClosed`` catches
both. `InvalidHandshake` and its subclasses may be raised by ``select_subprotocol`` to refuse a client with 400. The
exceptions of clients exist as names, so that ``except`` clauses can list them; no server raises them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ... import errors
from ...errors import ConcurrencyError, PayloadTooBig, ProtocolError, TooManyFragments, WebSocketException
from .frames import Close, close_of

if TYPE_CHECKING:
    from .http11 import Response

__all__ = [
    "AbortHandshake",
    "ConcurrencyError",
    "ConnectionClosed",
    "ConnectionClosedError",
    "ConnectionClosedOK",
    "DuplicateParameter",
    "HeaderLineTooLong",
    "InvalidHandshake",
    "InvalidHeader",
    "InvalidHeaderFormat",
    "InvalidHeaderValue",
    "InvalidMessage",
    "InvalidMethod",
    "InvalidOrigin",
    "InvalidParameterName",
    "InvalidParameterValue",
    "InvalidProtocol",
    "InvalidProxy",
    "InvalidProxyMessage",
    "InvalidProxyStatus",
    "InvalidState",
    "InvalidStatus",
    "InvalidStatusCode",
    "InvalidURI",
    "InvalidUpgrade",
    "NegotiationError",
    "PayloadTooBig",
    "ProtocolError",
    "ProxyError",
    "RedirectHandshake",
    "RequestLineTooLong",
    "SecurityError",
    "StatusLineTooLong",
    "TooManyFragments",
    "TooManyHeaders",
    "WebSocketException",
    "WebSocketProtocolError",
]

#: Name of :class:`ProtocolError` in the legacy API.
WebSocketProtocolError = ProtocolError


# --- the end of a connection ----------------------------------------------------------------------


class ConnectionClosed(errors.ConnectionClosed):
    """The connection is closed.

    Attributes:
        rcvd: Close frame of the peer, ``None`` without one.
        sent: Our close frame, ``None`` without one.
        rcvd_then_sent: True if the peer closed first, False if we did, ``None`` unless there are both frames.
    """

    rcvd: Close | None
    sent: Close | None

    def __init__(
        self, rcvd: errors.Close | None, sent: errors.Close | None, rcvd_then_sent: bool | None = None
    ) -> None:
        super().__init__(close_of(rcvd), close_of(sent))
        self.rcvd_then_sent = rcvd_then_sent
        self.args = (self.rcvd, self.sent, rcvd_then_sent)

    def __str__(self) -> str:
        rcvd, sent = self.rcvd, self.sent
        if rcvd is None:
            return "no close frame received or sent" if sent is None else f"sent {sent}; no close frame received"
        if sent is None:
            return f"received {rcvd}; no close frame sent"
        return f"received {rcvd}; then sent {sent}" if self.rcvd_then_sent else f"sent {sent}; then received {rcvd}"


class ConnectionClosedOK(ConnectionClosed, errors.ConnectionClosedOK):
    """The connection was closed normally: both close codes are 1000, 1001 or absent."""


class ConnectionClosedError(ConnectionClosed, errors.ConnectionClosedError):
    """The connection was closed with another code, or without a close frame."""


# --- the opening handshake ------------------------------------------------------------------------


class InvalidHandshake(errors.InvalidHandshake):
    """The opening handshake failed. A server refuses with 400."""

    def __init__(self, *args: object) -> None:
        super().__init__(" ".join(map(str, args)))


class SecurityError(InvalidHandshake):
    """A request or a response exceeds a limit."""


class RequestLineTooLong(SecurityError):
    """The request line is too long."""


class StatusLineTooLong(SecurityError):
    """The status line is too long."""


class HeaderLineTooLong(SecurityError):
    """A header line is too long."""


class TooManyHeaders(SecurityError):
    """There are too many headers."""


class InvalidMessage(InvalidHandshake):
    """A request or a response is malformed."""


class InvalidMethod(InvalidHandshake):
    """The method of a request is not GET."""

    def __init__(self, method: str) -> None:
        super().__init__(f"unsupported HTTP method: {method}")
        self.method = method


class InvalidProtocol(InvalidHandshake):
    """The version of HTTP is not 1.1."""

    def __init__(self, protocol: str) -> None:
        super().__init__(f"unsupported HTTP version: {protocol}")
        self.protocol = protocol


class InvalidHeader(InvalidHandshake):
    """A header is missing or invalid."""

    def __init__(self, name: str, value: str | None = None) -> None:
        if value is None:
            text = f"missing {name} header"
        elif value == "":
            text = f"empty {name} header"
        else:
            text = f"invalid {name} header: {value}"
        super().__init__(text)
        self.name = name
        self.value = value


class InvalidHeaderFormat(InvalidHeader):
    """A header cannot be parsed."""

    def __init__(self, name: str, error: str, header: str, pos: int) -> None:
        super().__init__(name, f"{error} at {pos} in {header}")


class InvalidHeaderValue(InvalidHeader):
    """The value of a header is not acceptable."""


class InvalidOrigin(InvalidHeader):
    """The origin of a request is not allowed."""

    def __init__(self, origin: str | None) -> None:
        super().__init__("Origin", origin)


class InvalidUpgrade(InvalidHeader):
    """The ``Upgrade`` or ``Connection`` header is wrong."""


class NegotiationError(InvalidHandshake):
    """No subprotocol or extension could be agreed on."""


class DuplicateParameter(NegotiationError):
    """A parameter of an extension is repeated."""

    def __init__(self, name: str) -> None:
        super().__init__(f"duplicate parameter: {name}")
        self.name = name


class InvalidParameterName(NegotiationError):
    """The name of a parameter of an extension is invalid."""

    def __init__(self, name: str) -> None:
        super().__init__(f"invalid parameter name: {name}")
        self.name = name


class InvalidParameterValue(NegotiationError):
    """The value of a parameter of an extension is invalid."""

    def __init__(self, name: str, value: str | None) -> None:
        if value is None:
            text = f"missing value for parameter {name}"
        elif value == "":
            text = f"empty value for parameter {name}"
        else:
            text = f"invalid value for parameter {name}: {value}"
        super().__init__(text)
        self.name = name
        self.value = value


class AbortHandshake(InvalidHandshake):
    """The handshake is aborted by an HTTP response (legacy)."""

    def __init__(self, status: int, headers: Any, body: bytes = b"") -> None:
        super().__init__(f"HTTP {int(status)}, {len(headers)} headers, {len(body)} bytes")
        self.status = status
        self.headers = headers
        self.body = body


# --- clients --------------------------------------------------------------------------------------


class InvalidURI(WebSocketException):
    """The address is no WebSocket URI."""

    def __init__(self, uri: str, msg: str) -> None:
        super().__init__(f"{_without_credentials(uri)} isn't a valid URI: {msg}")
        self.uri = uri
        self.msg = msg


class InvalidProxy(WebSocketException):
    """The address of the proxy is invalid."""

    def __init__(self, proxy: str, msg: str) -> None:
        super().__init__(f"{_without_credentials(proxy)} isn't a valid proxy: {msg}")
        self.proxy = proxy
        self.msg = msg


def _without_credentials(uri: str) -> str:
    """Return ``uri`` without its user and password, which do not belong into a log."""
    return re.sub(r"//.*@", "//***@", uri)


class ProxyError(InvalidHandshake):
    """The proxy cannot be used."""


class InvalidProxyMessage(ProxyError):
    """The response of the proxy is malformed."""


class InvalidProxyStatus(ProxyError):
    """The proxy rejected the connection."""

    def __init__(self, response: Response) -> None:
        super().__init__(f"proxy rejected connection: HTTP {response.status_code:d}")
        self.response = response


class InvalidStatus(InvalidHandshake):
    """The server rejected the connection."""

    def __init__(self, response: Response) -> None:
        super().__init__(f"server rejected WebSocket connection: HTTP {response.status_code:d}")
        self.response = response


class InvalidStatusCode(InvalidHandshake):
    """The server rejected the connection (legacy)."""

    def __init__(self, status_code: int, headers: Any) -> None:
        super().__init__(f"server rejected WebSocket connection: HTTP {status_code}")
        self.status_code = status_code
        self.headers = headers


class RedirectHandshake(InvalidHandshake):
    """The server redirected the client (legacy)."""

    def __init__(self, uri: str) -> None:
        super().__init__(f"redirect to {uri}")
        self.uri = uri


# --- without I/O ----------------------------------------------------------------------------------


class InvalidState(WebSocketException, AssertionError):
    """A frame is sent in a state that does not allow it."""
