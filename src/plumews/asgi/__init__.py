"""ASGI: applications of FastAPI, Starlette, Litestar or Django Channels on the WebSockets of this package.

May import the root vocabulary and the packages up to ``room_server``. It imports no ASGI server and no framework.
Public names are :class:`PlumeProtocol`, for ``uvicorn --ws plumews.asgi:PlumeProtocol``, :func:`conn`, the connection
of a WebSocket on any server, :class:`RoomAccess`, a dependency of FastAPI for tokens and room passwords,
:func:`rooms`, the room server as an application, and :class:`ClientDisconnected`. They are resolved when first used.

The application is a coroutine function that takes a scope, which describes the request, and the functions ``receive``
and ``send`` of events. A denial is an HTTP response in place of the WebSocket. The ASGI specification has the rest.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .connection import conn
    from .events import ClientDisconnected
    from .protocol import PlumeProtocol
    from .room_access import RoomAccess
    from .room_application import rooms

__all__ = ["ClientDisconnected", "PlumeProtocol", "RoomAccess", "conn", "rooms"]

_MODULES = {
    "ClientDisconnected": "events",
    "PlumeProtocol": "protocol",
    "RoomAccess": "room_access",
    "conn": "connection",
    "rooms": "room_application",
}

if not TYPE_CHECKING:  # checkers would take it for a sign that there is any name

    def __getattr__(name: str) -> object:
        """Import a public name when it is first used."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name, obj=sys.modules[__name__])
        return getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)

    def __dir__() -> list[str]:
        """Return the public names with those that are imported, for completion and ``help``."""
        return sorted({*globals(), *__all__})
