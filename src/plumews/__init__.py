"""plumews: WebSockets with rooms, as fast as the machine allows.

`serve` makes a server of a handler, `serve_rooms` one of a `Hub` with rooms; a `Conn` is one connection. The
names are those of the `websockets` package where it has the thing. What docstrings call the seed is the WebSocket
package of plumego, for Go, which plumews set out to match and to better.
"""

from __future__ import annotations

from .codec import BODY  # first: it decides whether what follows comes compiled

# isort: split
from .auth import SimpleRoomAuth, UserInfo, extract_user_info
from .broadcast import broadcast
from .compression import CompressionInfo
from .conn import Conn
from .constants import CloseCode, Opcode, SendBehavior, State
from .deflate import Deflate
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
    InvalidToken,
    InvalidUpgrade,
    PayloadTooBig,
    ProtocolError,
    RateLimited,
    Refused,
    RoomFull,
    SendQueueFull,
    SendTimeout,
    TokenExpired,
    TooManyFragments,
    TooManyRooms,
    WeakSecret,
    WebSocketException,
)
from .headers import Headers
from .history import HistoryLimits, Position, Recovery
from .http11 import Request, Response
from .hub import Hub
from .hub_config import HubConfig
from .presence import RoomPresence, UserPresence
from .reports import BroadcastResult, Gap, HubMetrics, ShutdownReport
from .room_door import RoomAuth
from .room_server import serve_rooms
from .server import Server, Serving, serve, unix_serve
from .settings import ConnConfig
from .snapshots import MemberInfo, RoomInfo
from .stream import Stream

__version__ = "0.1.0"

__all__ = [
    "BODY",
    "AuthError",
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
    "InvalidToken",
    "InvalidUpgrade",
    "MemberInfo",
    "OnMessage",
    "Opcode",
    "PayloadTooBig",
    "Position",
    "ProtocolError",
    "RateLimited",
    "Recovery",
    "Refused",
    "Request",
    "Response",
    "RoomAuth",
    "RoomFull",
    "RoomInfo",
    "RoomPresence",
    "SendBehavior",
    "SendQueueFull",
    "SendTimeout",
    "Server",
    "Serving",
    "ShutdownReport",
    "SimpleRoomAuth",
    "State",
    "Stream",
    "TokenExpired",
    "TooManyFragments",
    "TooManyRooms",
    "UserInfo",
    "UserPresence",
    "WeakSecret",
    "WebSocketException",
    "__version__",
    "broadcast",
    "extract_user_info",
    "serve",
    "serve_rooms",
    "unix_serve",
]
