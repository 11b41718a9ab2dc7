"""One WebSocket connection: receive, send, keep alive, close.

May import the root vocabulary, ``protocol``, ``http11``, ``transport`` and ``deflate``.
"""

from __future__ import annotations

from .config import ConnConfig
from .connection import Conn
from .stream import Stream

__all__ = ["Conn", "ConnConfig", "Stream"]
