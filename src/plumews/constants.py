"""The words of the protocol: opcodes, close codes, connection states (layer 0).

Numbers are those of RFC 6455: opcodes from section 5.2, close codes from section 7.4 and the
registry it opens. Nothing here has behaviour beyond a lookup.
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

#: RFC 6455 section 1.3: appended to the client's key before it is hashed.
ACCEPT_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

#: RFC 6455 section 4.1: the only version of the protocol that was ever standardised.
WEBSOCKET_VERSION: Final = "13"


class Opcode(enum.IntEnum):
    """What a frame carries (RFC 6455 section 5.2).

    Attributes:
        CONT: more of the message whose first frame came before.
        TEXT, BINARY: a message, or the first frame of one.
        CLOSE, PING, PONG: control frames.
    """

    CONT = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


class StreamEvent(enum.IntEnum):
    """What the codec's parser reports of a message that is streamed; a whole one is reported by its opcode."""

    BEGIN = 16
    CHUNK = 17
    END = 18


#: Added to the opcode of a message whose first frame had RSV1: still compressed (RFC 7692 section 6).
COMPRESSED: Final = 0x40


class CloseCode(enum.IntEnum):
    """Why a connection ended (RFC 6455 section 7.4.1; 1012-1014 from the IANA registry).

    Attributes:
        NORMAL_CLOSURE: 1000, all is done.
        GOING_AWAY: 1001, the server stops, or the page was left.
        PROTOCOL_ERROR: 1002, the peer broke RFC 6455.
        UNSUPPORTED_DATA: 1003, a kind of message that is not accepted.
        NO_STATUS_RCVD: 1005, never on the wire: the close frame had no code.
        ABNORMAL_CLOSURE: 1006, never on the wire: there was no close frame.
        INVALID_DATA: 1007, such as text that is not UTF-8.
        POLICY_VIOLATION: 1008, what no other code says.
        MESSAGE_TOO_BIG: 1009, a message beyond the read limit.
        MANDATORY_EXTENSION: 1010, the server did not agree to an extension that the client needs.
        INTERNAL_ERROR: 1011, a handler or a callback failed.
        SERVICE_RESTART: 1012, the server stops and comes back.
        TRY_AGAIN_LATER: 1013, the server is full, or the peer does not keep up.
        BAD_GATEWAY: 1014, a proxy got no valid answer.
        TLS_HANDSHAKE: 1015, never on the wire: TLS failed.
        UNAUTHORIZED: 4401, the room server wants a token, or the token has ended.
        FORBIDDEN: 4403, a wrong token or password.
        AUTH_TIMEOUT: 4408, the first message that authenticates came too late.
    """

    NORMAL_CLOSURE = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    NO_STATUS_RCVD = 1005  # never on the wire: the close frame had no code
    ABNORMAL_CLOSURE = 1006  # never on the wire: there was no close frame
    INVALID_DATA = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    MANDATORY_EXTENSION = 1010
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    BAD_GATEWAY = 1014
    TLS_HANDSHAKE = 1015  # never on the wire: TLS failed before there was a wire
    # Of the range for applications, what the room server uses: HTTP's number plus 4000.
    UNAUTHORIZED = 4401
    FORBIDDEN = 4403
    AUTH_TIMEOUT = 4408


class ErrorCode(str, enum.Enum):
    """Stable words that tell programs why a request was refused: in answers, metrics and logs.

    A member is the ``str`` that is sent. Applications may refuse with words of their own, which are not listed here.

    Attributes:
        type: the ``type`` of the error body where it does not follow from the status of the answer, else "".
        counted_as: the sum of :class:`plumews.HubMetrics` that counts it besides ``requests_refused``, else "".
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
    """Where a connection stands (RFC 6455 section 4.1 and 7).

    Attributes:
        CONNECTING: the opening handshake is not done.
        OPEN: messages may be sent.
        CLOSING: a close frame was sent, or the connection is being cut.
        CLOSED: the TCP connection is gone.
    """

    CONNECTING = 0
    OPEN = 1
    CLOSING = 2
    CLOSED = 3


class SendBehavior(enum.Enum):
    """What a send does when the connection's send queue is full (the seed's three choices, and two more).

    ``BLOCK`` waits for space up to the send timeout, ``DROP`` refuses the new message, ``CLOSE`` closes the connection
    with 1013. ``DROP_OLDEST`` accepts the new message and drops the oldest that has not begun to leave. ``CONFLATE``
    does the same for messages without a key; one with a key takes the place of an older one with its key that waits,
    so that the newest of each key stays. Such a message may pass others with a key, and never one without.

    While a message is sent in pieces, behind which nothing can be queued, the last two refuse as ``DROP`` does.
    """

    BLOCK = "block"
    DROP = "drop"
    CLOSE = "close"
    DROP_OLDEST = "drop-oldest"
    CONFLATE = "conflate"


_NEVER_ON_THE_WIRE: Final = frozenset({1004, 1005, 1006, 1015})


def is_valid_close_code(code: int) -> bool:
    """Whether a close frame may carry ``code`` (RFC 6455 section 7.4.2)."""
    if 1000 <= code <= 1014:
        return code not in _NEVER_ON_THE_WIRE
    return 3000 <= code <= 4999


def close_code_name(code: int) -> str:
    """A close code for people: ``"1001 (going away)"``."""
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
