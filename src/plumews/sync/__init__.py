"""Blocking client for scripts, notebooks and threads: ``plumews.sync.connect()`` and ``unix_connect()``.

May import the root vocabulary, and the packages up to ``conn`` and ``client``. Public names are :class:`connect`,
:class:`unix_connect`, :class:`Conn` and :class:`Stream`.

The thread of a caller reads and writes the socket itself, on the codec without I/O. Reading has one owner at any
moment: the thread that holds the reading lock. The watcher is one thread for all connections of the process. It sends
keepalive pings, enforces deadlines, and reads for connections that no caller reads from. The reader finds pings, and
the writer answers them.
"""

from __future__ import annotations

from .connection import Conn
from .connector import connect, unix_connect
from .stream import Stream

__all__ = ["Conn", "Stream", "connect", "unix_connect"]
