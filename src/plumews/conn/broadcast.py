"""`broadcast`: one message to any connections, without a hub (layer 4).

The function of the `websockets` package, for programs that keep their own set of connections. The message is encoded
once; nobody is waited for. A :class:`plumews.Hub` does more: rooms, limits, order, results.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from ..constants import State
from ..deflate.encodings import form_of
from ..errors import ConnectionClosed, SendQueueFull
from ..protocol.message import Data, checked_compress, encode, opcode_of, payload_of
from .connection import Conn

__all__ = ["broadcast"]

logger = logging.getLogger("plumews.server")


def broadcast(connections: Iterable[Conn], message: Data, *, compress: bool | None = None) -> None:
    """Queue ``message`` on each of ``connections`` that is open; never waits, never raises for one of them.

    ``str`` leaves as text, bytes-like as binary. A connection whose send queue is full loses the message, which it
    counts in ``dropped_messages``, or older ones under ``SendBehavior.DROP_OLDEST`` and ``CONFLATE``; under ``CLOSE``
    it is closed with 1013.

    Connections that agreed on permessage-deflate get it compressed, once for all that agreed on the same. With
    ``compress`` ``None`` it is one of 128 bytes or more (:class:`plumews.Deflate`) that gets smaller, and has no more
    than 64 KiB: a longer one leaves as it is unless ``compress`` is True, since that holds up the loop, 20 ms for
    1 MiB. False: as it is.

    Raises:
        TypeError, ValueError: ``message`` is not what a message is made of, or a connection is none.
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
                conn._send_shared(form_of(encoded, conn._shared, conn._deflate is not None))
            except (SendQueueFull, ConnectionClosed):
                full += 1
    if full:
        logger.debug("a broadcast found %d full send queues", full)
