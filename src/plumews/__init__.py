"""WebSockets with rooms: a server library for asyncio.

`serve` runs a handler for each connection, a `Conn`. `serve_rooms` runs a `Hub` with rooms. Names are those of the
`websockets` package where it has an equal.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from . import _compiled

BODY = _compiled.select_body()  # first: it decides whether what follows comes compiled

# isort: split
from . import auth, errors, room_server, server
from .auth import *  # noqa: F403
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
from .room_server import *  # noqa: F403
from .server import *  # noqa: F403

_compiled.forbid_new()  # last: it handles the classes of the modules that are imported

__version__ = "0.1.0"

__all__ = [
    "BODY",
    "BroadcastResult",
    "CloseCode",
    "CompressionInfo",
    "Conn",
    "ConnConfig",
    "Deflate",
    "Gap",
    "Handler",
    "Headers",
    "HistoryLimits",
    "Hub",
    "HubConfig",
    "HubMetrics",
    "MemberInfo",
    "OnMessage",
    "Opcode",
    "Position",
    "Recovery",
    "Request",
    "Response",
    "RoomInfo",
    "RoomPresence",
    "SendBehavior",
    "ShutdownReport",
    "State",
    "Stream",
    "UserPresence",
    "__version__",
    "broadcast",
    "sanitize_for_logging",
    "validate_room_name",
]
__all__ += auth.__all__
__all__ += errors.__all__
__all__ += room_server.__all__
__all__ += server.__all__
__all__ += ["connect", "unix_connect"]  # imported when they are used

#: Packages that cost nothing until they are used.
_OPTIONAL = ("asgi", "client", "compat", "sync")

#: Names of them.
_LAZY = {"connect": "client", "unix_connect": "client"}

if TYPE_CHECKING:
    from .client.connector import connect as connect
    from .client.connector import unix_connect as unix_connect
else:  # checkers would take it for a sign that there is any name

    def __getattr__(name: str) -> object:
        """Import an optional package, or a name of one, when it is first used. Say where names of others are."""
        if name in _OPTIONAL:
            return importlib.import_module(f".{name}", __name__)
        if name in _LAZY:
            globals()[name] = value = getattr(importlib.import_module(f".{_LAZY[name]}", __name__), name)
            return value
        raise missing_name(name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *_OPTIONAL, *_LAZY})
