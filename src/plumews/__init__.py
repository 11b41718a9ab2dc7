"""plumews: WebSockets with rooms, as fast as the machine allows.

`serve` makes a server of a handler, `serve_rooms` one of a `Hub` with rooms; a `Conn` is one connection. The
names are those of the `websockets` package where it has the thing. What docstrings call the seed is the WebSocket
package of plumego, for Go, which plumews set out to match and to better.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .codec import BODY  # first: it decides whether what follows comes compiled

# isort: split
from .admin import admin_broadcast_route
from .auth import AuthMetrics, SecureRoomAuth, SimpleRoomAuth
from .authorizing import RoomAuthorization, RoomAuthorizer, TokenAuthenticator
from .broadcast import broadcast
from .compression import CompressionInfo
from .conn import Conn
from .constants import CloseCode, Opcode, SendBehavior, State
from .deflate import Deflate
from .elsewhere import missing_name
from .endpoints import Handler, OnMessage
from .errors import (
    AuthError,
    Close,
    ConcurrencyError,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    HubError,
    HubFull,
    HubStopped,
    InvalidCompression,
    InvalidData,
    InvalidHandshake,
    InvalidHeader,
    InvalidMessage,
    InvalidOrigin,
    InvalidRoomName,
    InvalidText,
    InvalidToken,
    InvalidUpgrade,
    PayloadTooBig,
    ProtocolError,
    RateLimited,
    Refused,
    RevocationsFull,
    RoomFull,
    SendQueueFull,
    SendTimeout,
    TokenExpired,
    TokenRevoked,
    TooManyFragments,
    TooManyRooms,
    WeakRoomPassword,
    WeakSecret,
    WebSocketException,
)
from .headers import Headers
from .history import HistoryLimits, Position, Recovery
from .http11 import Request, Response
from .hub import Hub
from .hub_config import HubConfig
from .log_text import sanitize_for_logging
from .passwords import RoomPasswords
from .presence import RoomPresence, UserPresence
from .reports import BroadcastResult, Gap, HubMetrics
from .revocation import Revocation, Revocations
from .room_door import RoomAuth
from .room_server import serve_rooms
from .rooms import validate_room_name
from .routes import Route
from .server import Server, Serving, serve, unix_serve
from .settings import ConnConfig
from .shutdown import ShutdownReport
from .snapshots import MemberInfo, RoomInfo
from .stream import Stream
from .strength import PasswordStrength, generate_secure_secret, validate_room_password
from .text_policy import TextPolicy, validate_text_message
from .tokens import HS256TokenAuth
from .users import UserInfo, extract_user_info

__version__ = "0.1.0"

__all__ = [
    "BODY",
    "AuthError",
    "AuthMetrics",
    "BroadcastResult",
    "Close",
    "CloseCode",
    "CompressionInfo",
    "ConcurrencyError",
    "Conn",
    "ConnConfig",
    "ConnectionClosed",
    "ConnectionClosedError",
    "ConnectionClosedOK",
    "Deflate",
    "Gap",
    "HS256TokenAuth",
    "Handler",
    "Headers",
    "HistoryLimits",
    "Hub",
    "HubConfig",
    "HubError",
    "HubFull",
    "HubMetrics",
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
    "MemberInfo",
    "OnMessage",
    "Opcode",
    "PasswordStrength",
    "PayloadTooBig",
    "Position",
    "ProtocolError",
    "RateLimited",
    "Recovery",
    "Refused",
    "Request",
    "Response",
    "Revocation",
    "Revocations",
    "RevocationsFull",
    "RoomAuth",
    "RoomAuthorization",
    "RoomAuthorizer",
    "RoomFull",
    "RoomInfo",
    "RoomPasswords",
    "RoomPresence",
    "Route",
    "SecureRoomAuth",
    "SendBehavior",
    "SendQueueFull",
    "SendTimeout",
    "Server",
    "Serving",
    "ShutdownReport",
    "SimpleRoomAuth",
    "State",
    "Stream",
    "TextPolicy",
    "TokenAuthenticator",
    "TokenExpired",
    "TokenRevoked",
    "TooManyFragments",
    "TooManyRooms",
    "UserInfo",
    "UserPresence",
    "WeakRoomPassword",
    "WeakSecret",
    "WebSocketException",
    "__version__",
    "admin_broadcast_route",
    "broadcast",
    "extract_user_info",
    "generate_secure_secret",
    "sanitize_for_logging",
    "serve",
    "serve_rooms",
    "unix_serve",
    "validate_room_name",
    "validate_room_password",
    "validate_text_message",
]

if not TYPE_CHECKING:  # checkers would take it for a sign that there is any name

    def __getattr__(name: str) -> object:
        """Say where names of other packages are."""
        raise missing_name(name)
