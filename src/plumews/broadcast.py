"""`broadcast`: one message to any connections, without a hub (layer 4).

The function of the `websockets` package, for programs that keep their own set of connections. The message is encoded
once; nobody is waited for. A :class:`plumews.Hub` does more: rooms, limits, order, results.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from .conn import Conn
from .constants import State
from .errors import ConnectionClosed, SendQueueFull
from .outgoing import Data, encode, opcode_of, payload_of

__all__ = ["broadcast"]

logger = logging.getLogger("plumews.server")


def broadcast(connections: Iterable[Conn], message: Data) -> None:
    """Queue ``message`` on each of ``connections`` that is open; never waits, never raises for one of them.

    ``str`` leaves as text, bytes-like as binary. A connection whose send queue is full loses the message, which it
    counts in ``dropped_messages``, or older ones under ``SendBehavior.DROP_OLDEST`` and ``CONFLATE``; under ``CLOSE``
    it is closed with 1013.

    Raises:
        TypeError, ValueError: ``message`` is not what a message is made of, or a connection is none.
        ConcurrencyError: called from another thread than that of the connections.
    """
    opcode = opcode_of(message)
    encoded = encode(opcode, payload_of(opcode, message))
    full = 0
    for conn in connections:
        if not isinstance(conn, Conn):
            raise TypeError(f"broadcast goes to plumews.Conn objects, not to {type(conn).__name__}")
        if conn.state is State.OPEN:
            try:
                conn._send_shared(encoded)
            except (SendQueueFull, ConnectionClosed):
                full += 1
    if full:
        logger.debug("a broadcast found %d full send queues", full)
