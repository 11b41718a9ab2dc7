"""Exceptions.

    WebSocketException
    ├── ConnectionClosed                    "connection closed"
    │   ├── ConnectionClosedOK              both sides said 1000, 1001 or nothing
    │   └── ConnectionClosedError           anything else
    ├── ProtocolError                       "protocol error"       the peer violated RFC 6455: 1002
    │   ├── InvalidData                     text that is not UTF-8: 1007
    │   ├── InvalidCompression              a compressed message that cannot be inflated: 1007
    │   ├── PayloadTooBig                   "payload too large"    beyond the read limit: 1009
    │   └── TooManyFragments                beyond the limit of frames in one message: 1008
    ├── InvalidText (ValueError)            a text message that a text policy refuses, with the rule
    ├── InvalidHandshake                    a request that is refused, with its HTTP status; an answer that is wrong
    │   ├── InvalidMessage                  not an HTTP/1.1 request or response that we accept
    │   ├── InvalidHeader                   a header that is missing, repeated or wrong
    │   │   ├── InvalidOrigin               403
    │   │   └── InvalidUpgrade              426: not a WebSocket request
    │   ├── InvalidStatus                   a server refuses a client: its answer is not 101
    │   └── Refused                         403, 429, 503 ...: understood, and refused
    ├── InvalidURI (ValueError)             a WebSocket URI or the URL of a proxy that is malformed
    ├── ConnectError (OSError)              a client got no connection, with the step that failed
    │   ├── ConnectTimeout (TimeoutError)   after the open timeout
    │   ├── ProxyError                      the proxy refused, with its HTTP status
    │   └── RedirectError                   a redirect that is not followed
    ├── SendTimeout (TimeoutError)          "send timeout"
    ├── SendQueueFull                       "send queue full"
    ├── ConcurrencyError                    two readers at once, or a foreign thread
    ├── HubError
    │   ├── HubFull, RoomFull, RateLimited, HubStopped, InvalidRoomName, TooManyRooms
    └── AuthError
        ├── InvalidToken                    "invalid jwt"
        │   ├── TokenExpired                "jwt expired"
        │   └── TokenRevoked                "invalid jwt": valid until it was revoked
        ├── RevocationsFull                 no more revocations can be kept
        ├── WeakSecret (ValueError)         a key that is too short
        └── WeakRoomPassword (ValueError)   "room password does not meet strength requirements"

Programs may match the phrases in quotation marks: each is part of the message of its class.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

from . import limits
from .constants import CloseCode, ErrorCode, close_code_name

__all__ = [
    "AuthError",
    "Close",
    "ConcurrencyError",
    "ConnectError",
    "ConnectTimeout",
    "ConnectionClosed",
    "ConnectionClosedError",
    "ConnectionClosedOK",
    "HubError",
    "HubFull",
    "HubStopped",
    "InvalidCompression",
    "InvalidData",
    "InvalidHandshake",
    "InvalidHeader",
    "InvalidMessage",
    "InvalidOrigin",
    "InvalidRoomName",
    "InvalidStatus",
    "InvalidText",
    "InvalidToken",
    "InvalidURI",
    "InvalidUpgrade",
    "PayloadTooBig",
    "ProtocolError",
    "ProxyError",
    "RateLimited",
    "RedirectError",
    "Refused",
    "RevocationsFull",
    "RoomFull",
    "SendQueueFull",
    "SendTimeout",
    "TokenExpired",
    "TokenRevoked",
    "TooManyFragments",
    "TooManyRooms",
    "WeakRoomPassword",
    "WeakSecret",
    "WebSocketException",
]


class WebSocketException(Exception):
    """Base class of the exceptions of plumews. Wrong arguments raise ``ValueError`` or ``TypeError`` instead.

    Exceptions can be copied and pickled.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self), self.args), self.__dict__  # the arguments of __init__ are in the text already


def _restored(cls: type[WebSocketException], args: tuple[Any, ...]) -> WebSocketException:
    exc = cls.__new__(cls, *args)
    exc.args = args  # OSError leaves that to __init__
    return exc


class Close(NamedTuple):
    """Content of a close frame.

    Attributes:
        code: Close code, 1005 if the frame has none.
        reason: Close reason, empty if the frame has none.
    """

    code: int
    reason: str

    def __str__(self) -> str:
        name = close_code_name(self.code)
        return f"{name} {self.reason}" if self.reason else name


# --- closed connections ---------------------------------------------------------------------------


@functools.lru_cache(maxsize=32)  # most connections of a server end in the same way
def _closed_text(rcvd: Close | None, sent: Close | None, cause: str) -> str:
    parts = []
    if rcvd is not None:
        parts.append(f"received {rcvd}")
    if sent is not None:
        parts.append(f"sent {sent}")
    if rcvd is None and sent is None:
        parts.append("no close frame received or sent")
    if cause and (sent is None or sent.reason != cause):
        parts.append(cause)
    return "connection closed: " + "; ".join(parts)


class ConnectionClosed(WebSocketException):
    """The connection is closed or closing.

    Attributes:
        rcvd: Close frame of the peer, ``None`` without one.
        sent: Our close frame, ``None`` without one.
    """

    def __init__(self, rcvd: Close | None, sent: Close | None, cause: str = "") -> None:
        self.rcvd = rcvd
        self.sent = sent
        super().__init__(_closed_text(rcvd, sent, cause))

    @property
    def code(self) -> int:
        """Close code of the peer, 1006 without a close frame (RFC 6455 section 7.1.5)."""
        return CloseCode.ABNORMAL_CLOSURE if self.rcvd is None else self.rcvd.code

    @property
    def reason(self) -> str:
        """Close reason of the peer, empty without one."""
        return "" if self.rcvd is None else self.rcvd.reason


class ConnectionClosedOK(ConnectionClosed):
    """The connection was closed normally: both close codes are 1000, 1001 or absent."""


class ConnectionClosedError(ConnectionClosed):
    """The connection was closed with another code, or without a close frame."""


# --- protocol violations --------------------------------------------------------------------------


class ProtocolError(WebSocketException):
    """The peer violated RFC 6455. The connection is closed with ``close_code``.

    Methods of a connection raise :class:`ConnectionClosedError` with this text.

    Attributes:
        close_code: Close code.
        phrase: Beginning of the text.
    """

    close_code: int = CloseCode.PROTOCOL_ERROR
    phrase: str = "protocol error"

    def __init__(self, detail: str = "") -> None:
        self.detail = detail
        super().__init__(f"{self.phrase}: {detail}" if detail else self.phrase)


class InvalidData(ProtocolError):
    """A text message or a close reason is not UTF-8 (RFC 6455 section 8.1)."""

    close_code = CloseCode.INVALID_DATA
    phrase = "invalid UTF-8"


class InvalidCompression(ProtocolError):
    """A compressed message cannot be inflated (RFC 7692 section 7.2.2)."""

    close_code = CloseCode.INVALID_DATA
    phrase = "invalid compressed data"


class PayloadTooBig(ProtocolError):
    """A message exceeds the read limit. It is refused when the frame header is read."""

    close_code = CloseCode.MESSAGE_TOO_BIG
    phrase = "payload too large"


class TooManyFragments(ProtocolError):
    """A message exceeds the limit of frames."""

    close_code = CloseCode.POLICY_VIOLATION
    phrase = "too many fragments"


class InvalidText(WebSocketException, ValueError):
    """A :class:`plumews.TextPolicy` refuses the text message. The error text does not quote the message.

    Attributes:
        rule: Rule that is broken: ``"length"``, ``"empty"``, ``"utf8"`` or ``"control"``.
    """

    def __init__(self, rule: str, text: str) -> None:
        super().__init__(text)
        self.rule = rule

    @property
    def close_code(self) -> int:
        """Code that a connection is closed with."""
        return _TEXT_CODES.get(self.rule, CloseCode.POLICY_VIOLATION)


_TEXT_CODES = {"length": CloseCode.MESSAGE_TOO_BIG, "utf8": CloseCode.INVALID_DATA}


# --- refused requests -----------------------------------------------------------------------------


class InvalidHandshake(WebSocketException):
    """The request is refused.

    Args:
        text: Reason, for people. The client gets it.
        status: HTTP status (default: that of the class).
        code: Error code, stable, for programs (default: that of the class).
        headers: Headers of the response.
    """

    status: int = 400
    code: str = ErrorCode.BAD_REQUEST.value

    def __init__(
        self,
        text: str,
        *,
        status: int | None = None,
        code: str | None = None,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(text)
        if status is not None:
            self.status = status
        if code is not None:
            self.code = str(code)
        self.headers = headers


class InvalidMessage(InvalidHandshake):
    """The data is not an HTTP/1.1 request or response, or not one that is accepted."""


class InvalidHeader(InvalidHandshake):
    """A header is missing, repeated or invalid."""

    code = ErrorCode.BAD_HEADER.value


class InvalidOrigin(InvalidHeader):
    """The request comes from a page of another origin."""

    status = 403
    code = ErrorCode.FORBIDDEN_ORIGIN.value


class InvalidUpgrade(InvalidHeader):
    """The request is no WebSocket handshake of version 13."""

    status = 426
    code = ErrorCode.BAD_UPGRADE.value


class InvalidStatus(InvalidHandshake):
    """The server refuses the WebSocket: the status of its response is not 101.

    Args:
        response: Response, a :class:`plumews.Response`.

    Attributes:
        response: Response with its headers and the first 64 KiB of its body, as far as they arrived.
        status: Status of the response.
    """

    def __init__(self, response: Any) -> None:  # this package is below that of responses
        reason = f" {response.reason}" if response.reason else ""
        super().__init__(f"the server refused the WebSocket: HTTP {response.status}{reason}", status=response.status)
        self.response = response


class Refused(InvalidHandshake):
    """The request is valid and refused: by authentication, by a limit, or because the server stops."""

    status = 403
    code = ErrorCode.FORBIDDEN.value

    @classmethod
    def busy(cls, text: str, code: str, retry_after: float = limits.RETRY_AFTER, *, status: int = 503) -> Refused:
        """Return the refusal of a request that may succeed later, with a ``Retry-After`` header.

        Args:
            text: Reason, for people. The client gets it.
            code: Error code, stable, for programs.
            retry_after: Seconds that the client waits (default 5), rounded up to whole ones, at least 1.
            status: 503 if the server lacks capacity (default), 429 if the client or the room exceeds its limit.
        """
        return cls(text, status=status, code=code, headers=(("Retry-After", str(max(1, math.ceil(retry_after)))),))


# --- connecting -----------------------------------------------------------------------------------


class InvalidURI(WebSocketException, ValueError):
    """The WebSocket URI, or the URL of a proxy, is malformed. The text contains neither user nor password."""


class ConnectError(WebSocketException, OSError):
    """A client cannot connect.

    Args:
        step: Step that failed.
        address: Address that was tried.
        detail: Reason, for people.

    Attributes:
        step: ``"resolve"``, ``"connect"``, ``"proxy"``, ``"tls"``, ``"handshake"`` or ``"redirect"``.
        address: Host and port that were tried, or a path. Empty if there was none yet.
    """

    def __init__(self, step: str, address: str, detail: str) -> None:
        self.step = step
        self.address = address
        super().__init__(f"cannot connect: {step}{f' ({address})' if address else ''}: {detail}")

    @classmethod
    def of(cls, step: str, address: str, exc: OSError) -> ConnectError:
        """Return the error of a failed step, with the text and the ``errno`` of ``exc``."""
        detail = exc.strerror or str(exc) or type(exc).__name__
        if getattr(exc, "reason", "") == "WRONG_VERSION_NUMBER":
            detail += ": no TLS there, as behind ws:// or http://"
        error = cls(step, address, detail)
        error.errno = exc.errno
        return error

    def __reduce__(self) -> tuple[Any, ...]:
        restore, args, state = super().__reduce__()
        return restore, args, {**state, "errno": self.errno}


class ConnectTimeout(ConnectError, TimeoutError):
    """There is no connection after the open timeout. The step is the one that took too long."""


class ProxyError(ConnectError):
    """The proxy refused the connection, or its reply is malformed.

    Attributes:
        status: HTTP status of the proxy, such as 407, or ``None``.
        headers: Headers of its reply, as pairs.
    """

    def __init__(
        self, address: str, detail: str, status: int | None = None, headers: tuple[tuple[str, str], ...] = ()
    ) -> None:
        super().__init__("proxy", address, detail)
        self.status = status
        self.headers = headers


class RedirectError(ConnectError):
    """A redirect is not followed: one too many, from ``wss`` to ``ws``, or to an invalid URI.

    Attributes:
        status: HTTP status of the redirect.
    """

    def __init__(self, address: str, detail: str, status: int) -> None:
        super().__init__("redirect", address, detail)
        self.status = status


# --- sending --------------------------------------------------------------------------------------


class SendTimeout(WebSocketException, TimeoutError):
    """The send queue was still full after the send timeout (``SendBehavior.BLOCK``)."""

    def __init__(self, detail: str = "") -> None:
        super().__init__(f"send timeout: {detail}" if detail else "send timeout")


class SendQueueFull(WebSocketException):
    """The send queue is full: the message is dropped, or the connection is closed."""

    def __init__(self, detail: str = "") -> None:
        super().__init__(f"send queue full: {detail}" if detail else "send queue full")


class ConcurrencyError(WebSocketException, RuntimeError):
    """Two concurrent readers, or a call from a thread or a child process that does not own the connection."""


# --- hub ------------------------------------------------------------------------------------------


class HubError(WebSocketException):
    """Base class of the errors of a hub."""


class HubFull(HubError):
    """The hub has reached its limit of connections."""


class RoomFull(HubError):
    """The room has reached its limit of connections."""


class RateLimited(HubError):
    """New connections exceed the accept rate.

    Attributes:
        retry_after: Seconds until a connection is accepted.
    """

    def __init__(self, text: str, retry_after: float = 0.0) -> None:
        super().__init__(text)
        self.retry_after = retry_after


class HubStopped(HubError):
    """The hub is stopped."""


class InvalidRoomName(HubError, ValueError):
    """The naming policy refuses the name of the room."""


class TooManyRooms(HubError):
    """The connection has reached its limit of rooms."""


# --- authentication -------------------------------------------------------------------------------


class AuthError(WebSocketException):
    """Base class of authentication and authorization errors."""


class InvalidToken(AuthError):
    """The token is not signed by us, or not valid now.

    Attributes:
        phrase: Beginning of the text.
    """

    phrase = "invalid jwt"

    def __init__(self, detail: str = "") -> None:
        super().__init__(f"{self.phrase}: {detail}" if detail else self.phrase)


class TokenExpired(InvalidToken):
    """The token has expired."""

    phrase = "jwt expired"


class TokenRevoked(InvalidToken):
    """The token is revoked."""

    def __init__(self, detail: str = "it was revoked") -> None:
        super().__init__(detail)


class RevocationsFull(AuthError):
    """The limit of revocations is reached: revoked tokens would be accepted."""


class WeakSecret(AuthError, ValueError):
    """The key is too short to sign with."""


class WeakRoomPassword(AuthError, ValueError):
    """The room password is easy to guess.

    Attributes:
        phrase: Beginning of the text.
    """

    phrase = "room password does not meet strength requirements"

    def __init__(self, detail: str = "") -> None:
        super().__init__(f"{self.phrase}: {detail}" if detail else self.phrase)
