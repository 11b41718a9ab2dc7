"""WebSockets with rooms: a server library for asyncio.

`serve` runs a handler for each connection, a `Conn`. `serve_rooms` runs a `Hub` with rooms. Names are those of the
`websockets` package where it has an equal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import _compiled

BODY = _compiled.select_body()  # first: it decides whether what follows comes compiled

# isort: split
from . import errors
from .auth.interfaces import RoomAuth, RoomAuthorization, RoomAuthorizer, TokenAuthenticator
from .auth.passwords import PasswordStrength, RoomPasswords, generate_secure_secret, validate_room_password
from .auth.revocation import Revocation, Revocations
from .auth.simple import AuthMetrics, SecureRoomAuth, SimpleRoomAuth
from .auth.tokens import HS256TokenAuth
from .conn.attribute_hints import missing_name
from .conn.broadcast import broadcast
from .conn.config import ConnConfig
from .conn.connection import Conn
from .conn.graceful_close import ShutdownReport
from .conn.handlers import Handler, OnMessage
from .conn.stream import Stream
from .constants import CloseCode, Opcode, SendBehavior, State
from .deflate.config import Deflate
from .deflate.outbound import CompressionInfo
from .errors import *  # noqa: F403
from .http11.headers import Headers
from .http11.models import Request, Response
from .http11.redaction import sanitize_for_logging
from .hub.config import HubConfig
from .hub.history import HistoryLimits, Recovery
from .hub.hub import Hub
from .hub.metrics import HubMetrics
from .hub.presence import RoomPresence, UserPresence
from .hub.results import BroadcastResult, Gap, MemberInfo, RoomInfo
from .hub.rooms import validate_room_name
from .position import Position
from .room_server.admin import admin_broadcast_route
from .room_server.serving import serve_rooms
from .room_server.text_filter import TextPolicy, validate_text_message
from .server.routes import Route, restricted
from .server.server import Server, Serving, serve, unix_serve
from .users import UserInfo, extract_user_info

__version__ = "0.1.0"

__all__ = [
    "BODY",
    "AuthMetrics",
    "BroadcastResult",
    "CloseCode",
    "CompressionInfo",
    "Conn",
    "ConnConfig",
    "Deflate",
    "Gap",
    "HS256TokenAuth",
    "Handler",
    "Headers",
    "HistoryLimits",
    "Hub",
    "HubConfig",
    "HubMetrics",
    "MemberInfo",
    "OnMessage",
    "Opcode",
    "PasswordStrength",
    "Position",
    "Recovery",
    "Request",
    "Response",
    "Revocation",
    "Revocations",
    "RoomAuth",
    "RoomAuthorization",
    "RoomAuthorizer",
    "RoomInfo",
    "RoomPasswords",
    "RoomPresence",
    "Route",
    "SecureRoomAuth",
    "SendBehavior",
    "Server",
    "Serving",
    "ShutdownReport",
    "SimpleRoomAuth",
    "State",
    "Stream",
    "TextPolicy",
    "TokenAuthenticator",
    "UserInfo",
    "UserPresence",
    "__version__",
    "admin_broadcast_route",
    "broadcast",
    "extract_user_info",
    "generate_secure_secret",
    "restricted",
    "sanitize_for_logging",
    "serve",
    "serve_rooms",
    "unix_serve",
    "validate_room_name",
    "validate_room_password",
    "validate_text_message",
]
__all__ += errors.__all__

if not TYPE_CHECKING:  # checkers would take it for a sign that there is any name

    def __getattr__(name: str) -> object:
        """Say where names of other packages are."""
        raise missing_name(name)
