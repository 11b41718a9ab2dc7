"""The exceptions (layer 0).

    WebSocketException
    ├── ConnectionClosed                    "connection closed"
    │   ├── ConnectionClosedOK              both sides said 1000, 1001 or nothing
    │   └── ConnectionClosedError           anything else
    ├── ProtocolError                       "protocol error"       the peer broke RFC 6455: 1002
    │   ├── InvalidData                     text that is not UTF-8: 1007
    │   ├── InvalidCompression              a compressed message that cannot be inflated: 1007
    │   ├── PayloadTooBig                   "payload too large"    beyond the read limit: 1009
    │   └── TooManyFragments                beyond the bound of frames in one message: 1008
    ├── InvalidText (ValueError)            a text message outside a policy, in the words of its rule
    ├── InvalidHandshake                    a request that is refused, with its HTTP status
    │   ├── InvalidMessage                  not an HTTP/1.1 request that we accept
    │   ├── InvalidHeader                   a header that is missing, repeated or wrong
    │   │   ├── InvalidOrigin               403
    │   │   └── InvalidUpgrade              426: not a WebSocket request
    │   └── Refused                         403, 429, 503 ...: understood, and turned away
    ├── SendTimeout (TimeoutError)          "send timeout"
    ├── SendQueueFull                       "send queue full"
    ├── ConcurrencyError                    two readers at once, or a foreign thread
    ├── HubError
    │   ├── HubFull, RoomFull, RateLimited, HubStopped, InvalidRoomName, TooManyRooms
    └── AuthError
        ├── InvalidToken                    "invalid jwt"
        │   ├── TokenExpired                "jwt expired"
        │   └── TokenRevoked                "invalid jwt": it was good until it was revoked
        ├── RevocationsFull                 no more revocations can be kept
        ├── WeakSecret (ValueError)         a key that is too short
        └── WeakRoomPassword (ValueError)   "room password does not meet strength requirements"

The texts in quotation marks are the seed's phrases: each stands in the message of its class.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from . import limits
from .constants import CloseCode, ErrorCode, close_code_name

__all__ = [
    "AuthError",
    "Close",
    "ConcurrencyError",
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
    "InvalidText",
    "InvalidToken",
    "InvalidUpgrade",
    "PayloadTooBig",
    "ProtocolError",
    "RateLimited",
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
    """Everything that plumews raises on purpose, but for ``ValueError`` and ``TypeError``; copies and pickles."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self), self.args), self.__dict__  # what __init__ took is in the text already


def _restored(cls: type[WebSocketException], args: tuple[Any, ...]) -> WebSocketException:
    exc = cls.__new__(cls, *args)
    exc.args = args  # an OSError would leave that to __init__
    return exc


class Close(NamedTuple):
    """What a close frame said.

    Attributes:
        code: the close code, 1005 if there was none.
        reason: the text behind it, empty if there was none.
    """

    code: int
    reason: str

    def __str__(self) -> str:
        name = close_code_name(self.code)
        return f"{name} {self.reason}" if self.reason else name


# --- a connection that is over --------------------------------------------------------------------


class ConnectionClosed(WebSocketException):
    """The connection is closed, or closing, and cannot do what was asked.

    ``rcvd`` and ``sent`` are the close frames of the peer and of ours, or ``None`` where there was none;
    ``code`` and ``reason`` are the peer's, 1006 if it sent none (RFC 6455 section 7.1.5).
    """

    def __init__(self, rcvd: Close | None, sent: Close | None, cause: str = "") -> None:
        self.rcvd = rcvd
        self.sent = sent
        parts = ["connection closed"]
        if rcvd is not None:
            parts.append(f"received {rcvd}")
        if sent is not None:
            parts.append(f"sent {sent}")
        if rcvd is None and sent is None:
            parts.append("no close frame received or sent")
        if cause:
            parts.append(cause)
        super().__init__(parts[0] + ": " + "; ".join(parts[1:]))

    @property
    def code(self) -> int:
        """Close code that the peer sent, 1006 if it sent no close frame."""
        return CloseCode.ABNORMAL_CLOSURE if self.rcvd is None else self.rcvd.code

    @property
    def reason(self) -> str:
        """Close reason that the peer sent, empty if it sent none."""
        return "" if self.rcvd is None else self.rcvd.reason


class ConnectionClosedOK(ConnectionClosed):
    """The connection ended as it should."""


class ConnectionClosedError(ConnectionClosed):
    """The connection ended by an error, a refusal, or without a close frame."""


# --- a peer that breaks the protocol --------------------------------------------------------------


class ProtocolError(WebSocketException):
    """The peer sent what RFC 6455 forbids.

    Attributes:
        close_code: what the connection is closed with.
        phrase: what the text begins with.
    """

    close_code: int = CloseCode.PROTOCOL_ERROR
    phrase: str = "protocol error"

    def __init__(self, detail: str = "") -> None:
        self.detail = detail
        super().__init__(f"{self.phrase}: {detail}" if detail else self.phrase)


class InvalidData(ProtocolError):
    """Text, or a close reason, that is not UTF-8 (RFC 6455 section 8.1)."""

    close_code = CloseCode.INVALID_DATA
    phrase = "invalid UTF-8"


class InvalidCompression(ProtocolError):
    """A compressed message that cannot be inflated (RFC 7692 section 7.2.2)."""

    close_code = CloseCode.INVALID_DATA
    phrase = "invalid compressed data"


class PayloadTooBig(ProtocolError):
    """A message beyond the read limit, refused when its header is read."""

    close_code = CloseCode.MESSAGE_TOO_BIG
    phrase = "payload too large"


class TooManyFragments(ProtocolError):
    """A message of more frames than its bound allows."""

    close_code = CloseCode.POLICY_VIOLATION
    phrase = "too many fragments"


class InvalidText(WebSocketException, ValueError):
    """A text message that a :class:`plumews.TextPolicy` does not allow.

    ``rule`` is ``"length"``, ``"empty"``, ``"utf8"`` or ``"control"``; ``close_code`` is what a connection is closed
    with for it. Nothing of the message stands in the text.
    """

    def __init__(self, rule: str, text: str) -> None:
        super().__init__(text)
        self.rule = rule

    @property
    def close_code(self) -> int:
        """Code with which a connection is closed for it."""
        return _TEXT_CODES.get(self.rule, CloseCode.POLICY_VIOLATION)


_TEXT_CODES = {"length": CloseCode.MESSAGE_TOO_BIG, "utf8": CloseCode.INVALID_DATA}


# --- a request that is refused --------------------------------------------------------------------


class InvalidHandshake(WebSocketException):
    """A request that is refused.

    ``status`` is the HTTP status, ``code`` a stable word for programs, the text is for people and is sent
    to the client; ``headers`` go with the answer.
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
    """What arrived is not an HTTP/1.1 request, or not one that we accept."""


class InvalidHeader(InvalidHandshake):
    """A header is missing, repeated or wrong."""

    code = ErrorCode.BAD_HEADER.value


class InvalidOrigin(InvalidHeader):
    """The request comes from a page of another site."""

    status = 403
    code = ErrorCode.FORBIDDEN_ORIGIN.value


class InvalidUpgrade(InvalidHeader):
    """The request does not ask for a WebSocket, or not for version 13."""

    status = 426
    code = ErrorCode.BAD_UPGRADE.value


class Refused(InvalidHandshake):
    """The request was understood and turned away: by authentication, by a limit, by a stop."""

    status = 403
    code = ErrorCode.FORBIDDEN.value

    @classmethod
    def busy(cls, text: str, code: str, retry_after: float = limits.RETRY_AFTER, *, status: int = 503) -> Refused:
        """Return the refusal of a request that may succeed later.

        Args:
            text: the reason, sent to the client.
            code: the stable word for programs.
            retry_after: seconds that the client is told to wait (default 5), rounded up to whole ones, at least 1.
            status: 503 if the server lacks room (default), 429 if this client or room has used up its share.
        """
        return cls(text, status=status, code=code, headers=(("Retry-After", str(max(1, math.ceil(retry_after)))),))


# --- sending --------------------------------------------------------------------------------------


class SendTimeout(WebSocketException, TimeoutError):
    """The send queue had no space within the send timeout (``SendBehavior.BLOCK``)."""

    def __init__(self, detail: str = "") -> None:
        super().__init__(f"send timeout: {detail}" if detail else "send timeout")


class SendQueueFull(WebSocketException):
    """The send queue is full: the message was dropped, or the connection was closed."""

    def __init__(self, detail: str = "") -> None:
        super().__init__(f"send queue full: {detail}" if detail else "send queue full")


class ConcurrencyError(WebSocketException, RuntimeError):
    """Two readers at once, or a call from a thread or a child process that does not own the connection."""


# --- hub ------------------------------------------------------------------------------------------


class HubError(WebSocketException):
    """A hub refused what was asked."""


class HubFull(HubError):
    """The hub has as many connections as it may have."""


class RoomFull(HubError):
    """The room has as many connections as it may have."""


class RateLimited(HubError):
    """More connections come than are accepted in this time; ``retry_after`` seconds from now there is room for one."""

    def __init__(self, text: str, retry_after: float = 0.0) -> None:
        super().__init__(text)
        self.retry_after = retry_after


class HubStopped(HubError):
    """The hub was stopped."""


class InvalidRoomName(HubError, ValueError):
    """A room name outside the policy."""


class TooManyRooms(HubError):
    """The connection is in as many rooms as it may be in."""


# --- authentication -------------------------------------------------------------------------------


class AuthError(WebSocketException):
    """Who asks is not who may."""


class InvalidToken(AuthError):
    """The token is not one that we signed, or not valid now.

    Attributes:
        phrase: what the text begins with.
    """

    phrase = "invalid jwt"

    def __init__(self, detail: str = "") -> None:
        super().__init__(f"{self.phrase}: {detail}" if detail else self.phrase)


class TokenExpired(InvalidToken):
    """The token was valid once."""

    phrase = "jwt expired"


class TokenRevoked(InvalidToken):
    """The token was valid until somebody revoked it."""

    def __init__(self, detail: str = "it was revoked") -> None:
        super().__init__(detail)


class RevocationsFull(AuthError):
    """No more revocations can be kept: tokens that ought to be refused would be let in."""


class WeakSecret(AuthError, ValueError):
    """A key that is too short to sign with."""


class WeakRoomPassword(AuthError, ValueError):
    """A room password that is easy to guess.

    Attributes:
        phrase: what the text begins with.
    """

    phrase = "room password does not meet strength requirements"

    def __init__(self, detail: str = "") -> None:
        super().__init__(f"{self.phrase}: {detail}" if detail else self.phrase)
