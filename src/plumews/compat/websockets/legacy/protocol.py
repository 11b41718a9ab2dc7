"""Base class of connections with its legacy name, for annotations and ``isinstance``."""

from __future__ import annotations

from ..asyncio.connection import Connection, broadcast

__all__ = ["WebSocketCommonProtocol", "broadcast"]

#: Base class of all connections.
WebSocketCommonProtocol = Connection
