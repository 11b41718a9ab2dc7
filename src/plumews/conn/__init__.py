"""One WebSocket connection: receiving, sending, keepalive, overflow policies and closing.

May import the root vocabulary, ``protocol``, ``http11``, ``transport`` and ``deflate``. Public names are :class:`Conn`,
:class:`ConnConfig` and :class:`Stream`.

`Conn` is a `ConnCore`, which is a `Channel`: one object that holds all that a read, a send and a delivery touch. Its
other parts are made when they are first used. Everything slow is a function that takes the connection. A *short way* is
compiled code for the most common case. It leaves all other cases to the *general way*, which alone exists in plain
Python.

The receive queue holds messages that the handler has not read. The send queue holds messages that the transport has not
accepted. An overflow policy decides about a message for which it has no space. A message filter sees each message
before the application does. A loss report is a frame of a hub about messages that a slow consumer did not get.

`core` delivers the messages of a read to callbacks, or to `receive_queue`, which wakes ``async for``. `receiver` pauses
reading and resumes it. `sender` has the slow ways to send. `overflow` and `full_queue` drop the messages of a slow peer
and count them. `closing` has the closing handshake and the linger after it.
"""

from __future__ import annotations

from .config import ConnConfig
from .connection import Conn
from .stream import Stream

__all__ = ["Conn", "ConnConfig", "Stream"]
