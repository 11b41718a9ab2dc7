"""Constants of the protocol and of its errors: opcodes, close codes, connection states, error codes.

Opcodes are those of RFC 6455 section 5.2, close codes those of section 7.4 and of its registry.
"""

from __future__ import annotations

import enum
from typing import Final

__all__ = [
    "ACCEPT_GUID",
    "COMPRESSED",
    "WEBSOCKET_VERSION",
    "CloseCode",
    "ErrorCode",
    "Opcode",
    "SendBehavior",
    "State",
    "StreamEvent",
    "close_code_name",
    "is_valid_close_code",
]

#: Suffix of the client's key before it is hashed (RFC 6455 section 1.3).
ACCEPT_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

#: Only standardised version of the protocol (RFC 6455 section 4.1).
WEBSOCKET_VERSION: Final = "13"


class Opcode(enum.IntEnum):
    """Opcode of a frame (RFC 6455 section 5.2).

    Attributes:
        CONT: Continuation of a fragmented message.
        TEXT: Text message, or its first frame.
        BINARY: Binary message, or its first frame.
        CLOSE: Close frame.
        PING: Ping frame.
        PONG: Pong frame.
    """

    CONT = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


class StreamEvent(enum.IntEnum):
    """Event of a streamed message, reported by the parser. The event of a whole message is its opcode."""

    BEGIN = 16
    CHUNK = 17
    END = 18


#: Flag added to the opcode of a message that is still compressed: its first frame has RSV1 (RFC 7692 section 6).
COMPRESSED: Final = 0x40


class CloseCode(enum.IntEnum):
    """Close code of a connection (RFC 6455 section 7.4.1, and the IANA registry for 1012 to 1014).

    Attributes:
        NORMAL_CLOSURE: 1000, the connection has done its work.
        GOING_AWAY: 1001, the server stops, or the browser leaves the page.
        PROTOCOL_ERROR: 1002, the peer violated RFC 6455.
        UNSUPPORTED_DATA: 1003, this type of message is not accepted.
        NO_STATUS_RCVD: 1005, never sent: the close frame had no code.
        ABNORMAL_CLOSURE: 1006, never sent: there was no close frame.
        INVALID_DATA: 1007, the payload is invalid, such as text that is not UTF-8.
        POLICY_VIOLATION: 1008, any reason without a code of its own.
        MESSAGE_TOO_BIG: 1009, the message exceeds the read limit.
        MANDATORY_EXTENSION: 1010, the server did not agree to an extension that the client requires.
        INTERNAL_ERROR: 1011, a handler or a callback failed.
        SERVICE_RESTART: 1012, the server restarts.
        TRY_AGAIN_LATER: 1013, the server is full, or the peer is a slow consumer.
        BAD_GATEWAY: 1014, a proxy received an invalid response.
        TLS_HANDSHAKE: 1015, never sent: TLS failed.
        UNAUTHORIZED: 4401, the room server requires a token, or the token has expired.
        FORBIDDEN: 4403, the token or the password is wrong.
        AUTH_TIMEOUT: 4408, the authentication message arrived too late.
    """

    NORMAL_CLOSURE = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    NO_STATUS_RCVD = 1005
    ABNORMAL_CLOSURE = 1006
    INVALID_DATA = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    MANDATORY_EXTENSION = 1010
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    BAD_GATEWAY = 1014
    TLS_HANDSHAKE = 1015
    # Codes of the room server, in the range for applications: the HTTP status plus 4000.
    UNAUTHORIZED = 4401
    FORBIDDEN = 4403
    AUTH_TIMEOUT = 4408


class ErrorCode(str, enum.Enum):
    """Code of a refused request or message, for programs, in error bodies, metrics and logs.

    A member is the ``str`` that is sent. Applications may refuse with codes of their own.

    Attributes:
        type: The ``type`` of the error body if the HTTP status does not determine it, else "".
        counted_as: The property of :class:`plumews.HubMetrics` that counts it, besides ``requests_refused``, else "".
    """

    _value_: str
    type: str
    counted_as: str

    def __new__(cls, value: str, type: str = "", counted_as: str = "") -> ErrorCode:  # noqa: A002
        member = str.__new__(cls, value)
        member._value_ = value
        member.type = type
        member.counted_as = counted_as
        return member

    # Python 3.10 and 3.11 format members of (str, Enum) differently.
    __str__ = str.__str__

    # The opening handshake.
    BAD_HEADER = "WEBSOCKET_BAD_HEADER"
    BAD_QUERY = "WEBSOCKET_BAD_QUERY"
    BAD_REQUEST = "WEBSOCKET_BAD_REQUEST"
    BAD_UPGRADE = "WEBSOCKET_BAD_UPGRADE"
    BAD_VERSION = "WEBSOCKET_BAD_VERSION"
    FORBIDDEN = "WEBSOCKET_FORBIDDEN"
    FORBIDDEN_HOST = "WEBSOCKET_FORBIDDEN_HOST", "", "security_rejections"
    FORBIDDEN_ORIGIN = "WEBSOCKET_FORBIDDEN_ORIGIN", "", "security_rejections"
    HANDSHAKE_FAILED = "WEBSOCKET_HANDSHAKE_FAILED"
    HANDSHAKE_TIMEOUT = "WEBSOCKET_HANDSHAKE_TIMEOUT"
    HEAD_TOO_LARGE = "WEBSOCKET_HEAD_TOO_LARGE"
    KEY_INVALID = "WEBSOCKET_KEY_INVALID", "invalid_format", "invalid_ws_keys"
    KEY_MISSING = "WEBSOCKET_KEY_MISSING", "required_field_missing", "invalid_ws_keys"
    # Authentication.
    INVALID_TOKEN = "WEBSOCKET_INVALID_TOKEN", "invalid_token", "security_rejections"
    OTHER_USER = "WEBSOCKET_OTHER_USER"
    QUERY_SECRETS = "WEBSOCKET_QUERY_SECRETS", "", "security_rejections"
    TOKEN_REQUIRED = "WEBSOCKET_TOKEN_REQUIRED", "", "security_rejections"
    TOKEN_SOURCE = "WEBSOCKET_TOKEN_SOURCE"  # noqa: S105
    TOO_MANY_ATTEMPTS = "WEBSOCKET_TOO_MANY_ATTEMPTS"
    TWO_TOKENS = "WEBSOCKET_TWO_TOKENS"
    # Limits of a server.
    BUSY = "WEBSOCKET_BUSY"
    OUT_OF_DESCRIPTORS = "WEBSOCKET_OUT_OF_DESCRIPTORS"
    RATE_LIMITED = "WEBSOCKET_RATE_LIMITED"
    STOPPING = "WEBSOCKET_STOPPING"
    TOO_MANY_CONNECTIONS = "WEBSOCKET_TOO_MANY_CONNECTIONS"
    TOO_MANY_FROM_ADDRESS = "WEBSOCKET_TOO_MANY_FROM_ADDRESS"
    TOO_MANY_HANDSHAKES = "WEBSOCKET_TOO_MANY_HANDSHAKES"
    # Rooms.
    BROADCAST_REJECTED = "WEBSOCKET_BROADCAST_REJECTED"
    INVALID_ROOM = "WEBSOCKET_INVALID_ROOM", "invalid_format", "security_rejections"
    INVALID_UTF8 = "WEBSOCKET_INVALID_UTF8"
    JOIN_DENIED = "WEBSOCKET_JOIN_DENIED"
    MESSAGE_REJECTED = "WEBSOCKET_MESSAGE_REJECTED"
    ROOM_FORBIDDEN = "WEBSOCKET_ROOM_FORBIDDEN", "", "security_rejections"
    # Routes, which answer HTTP requests.
    EXPECTATION_FAILED = "EXPECTATION_FAILED"
    INTERNAL_ERROR = "INTERNAL_ERROR"
    METHOD_NOT_ALLOWED = "METHOD_NOT_ALLOWED"
    NOT_FOUND = "NOT_FOUND"
    REQUEST_TOO_LARGE = "WEBSOCKET_REQUEST_TOO_LARGE"
    ROUTE_FORBIDDEN = "FORBIDDEN"
    ROUTE_TOKEN_REQUIRED = "TOKEN_REQUIRED"  # noqa: S105
    UNAUTHORIZED = "UNAUTHORIZED"


class State(enum.IntEnum):
    """State of a connection (RFC 6455 sections 4.1 and 7).

    Attributes:
        CONNECTING: The opening handshake is not complete.
        OPEN: Messages may be sent.
        CLOSING: A close frame was sent, or the connection is being aborted.
        CLOSED: The TCP connection has ended.
    """

    CONNECTING = 0
    OPEN = 1
    CLOSING = 2
    CLOSED = 3


class SendBehavior(enum.Enum):
    """Overflow policy: behavior of a send when the send queue is full.

    While a fragmented message is being sent, nothing can be queued behind it. ``DROP_OLDEST`` and ``CONFLATE`` then
    refuse the new message as ``DROP`` does.

    Attributes:
        BLOCK: Wait for space, up to the send timeout.
        DROP: Refuse the new message.
        CLOSE: Close the connection with 1013.
        DROP_OLDEST: Queue the new message, and drop the oldest one of which no byte was sent.
        CONFLATE: Replace a queued message that has the key of the new one, so that the newest message of each key
            stays. A message with a key may overtake others with a key, never one without. Without a key the policy
            is that of ``DROP_OLDEST``.
    """

    BLOCK = "block"
    DROP = "drop"
    CLOSE = "close"
    DROP_OLDEST = "drop-oldest"
    CONFLATE = "conflate"


_NEVER_ON_THE_WIRE: Final = frozenset({1004, 1005, 1006, 1015})


def is_valid_close_code(code: int) -> bool:
    """Return True if a close frame may carry ``code`` (RFC 6455 section 7.4.2)."""
    if 1000 <= code <= 1014:
        return code not in _NEVER_ON_THE_WIRE
    return 3000 <= code <= 4999


def close_code_name(code: int) -> str:
    """Return ``code`` with its name, such as ``"1001 (going away)"``."""
    try:
        name = CloseCode(code).name.lower().replace("_", " ")
    except ValueError:
        if 3000 <= code <= 3999:
            name = "registered"
        elif 4000 <= code <= 4999:
            name = "private use"
        else:
            name = "unknown"
    return f"{code} ({name})"
