"""``broadcast``: one message to any connections, without a hub.

It is the function of the `websockets` package, for programs that keep their own set of connections. The message is
encoded once, and no connection is waited for. A :class:`plumews.Hub` also has rooms, limits, order and results.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from ..constants import State
from ..deflate.encodings import encoding_for
from ..errors import ConnectionClosed, SendQueueFull
from ..protocol.message import Data, checked_compress, encode, opcode_of, payload_of
from .connection import Conn
from .sender import send_shared

__all__ = ["broadcast"]

logger = logging.getLogger("plumews.server")


def broadcast(connections: Iterable[Conn], message: Data, *, compress: bool | None = None) -> None:
    """Queue a message on each open connection, without waiting.

    A connection whose send queue is full loses the message and counts it in ``dropped_messages``. Under
    ``SendBehavior.DROP_OLDEST`` and ``CONFLATE`` it loses older messages instead. Under ``CLOSE`` it is closed with
    1013. No connection's failure is raised. Connections with the same parameters of permessage-deflate share one
    compressed form.

    Args:
        connections: the connections; those that are not open are left out.
        message: ``str`` leaves as text, bytes-like as binary.
        compress: True compresses, False does not. ``None`` (default) compresses messages that get smaller, from
            ``min_size`` (128 bytes, :class:`plumews.Deflate`) to 64 KiB. A longer message holds up the loop, for 20 ms
            per MiB.

    Raises:
        TypeError: ``message`` is neither ``str`` nor bytes-like, or a connection is not a :class:`plumews.Conn`.
        ValueError: ``message`` is not valid UTF-8.
        ConcurrencyError: called from another thread than that of the connections.
    """
    opcode = opcode_of(message)
    encoded = encode(opcode, payload_of(opcode, message), compress=checked_compress(compress))
    full = 0
    for conn in connections:
        if not isinstance(conn, Conn):
            raise TypeError(f"broadcast goes to plumews.Conn objects, not to {type(conn).__name__}")
        if conn.state is State.OPEN:
            try:
                send_shared(conn, encoding_for(encoded, conn._shared))
            except (SendQueueFull, ConnectionClosed):
                full += 1
    if full:
        logger.debug("a broadcast found %d full send queues", full)
