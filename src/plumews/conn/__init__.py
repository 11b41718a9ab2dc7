"""One WebSocket connection: receiving, sending, keepalive, overflow policies and closing.

May import the root vocabulary, ``protocol``, ``http11``, ``transport`` and ``deflate``. Public names are
:class:`Conn`, :class:`ConnConfig` and :class:`Stream`.

The receive queue holds messages that the handler has not read. The send queue holds messages that the transport has not
accepted; an overflow policy decides when it is full. A message filter sees each message before the application does. A
loss report is a frame of a hub about messages that a slow consumer did not get.
"""

from __future__ import annotations

from .config import ConnConfig
from .connection import Conn
from .stream import Stream

__all__ = ["Conn", "ConnConfig", "Stream"]
