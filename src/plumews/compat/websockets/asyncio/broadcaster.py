"""Function ``broadcast()`` of `websockets`, to connections of this tree and of plumews."""

from __future__ import annotations

import builtins
from collections.abc import Iterable
from typing import TYPE_CHECKING

from .... import limits
from ....conn import full_queue
from ....conn.connection import Conn
from ....conn.sender import send_shared
from ....constants import Opcode, State
from ....deflate.encodings import encoding_for
from ....errors import SendQueueFull
from ....protocol.message import encode, payload_of
from ..exceptions import ConcurrencyError, ConnectionClosed
from ..typing import DataLike

if TYPE_CHECKING:
    from .connection import Connection

__all__ = ["broadcast"]


def broadcast(
    connections: Iterable[Connection | Conn],
    message: DataLike,
    *,
    text: bool | None = None,
    raise_exceptions: bool = False,
) -> None:
    """Send a message to all open connections, without waiting.

    The message is encoded once. A connection on which a message is being sent in fragments is left out. One whose send
    queue exceeds ``queue_bytes`` of ``serve()`` (default 64 MiB) is closed with 1013. Both are logged.

    Args:
        connections: the connections; those that are not open are left out.
        message: ``str`` leaves as text, bytes-like as binary.
        text: True sends bytes as text, False sends ``str`` as binary.
        raise_exceptions: raise these failures as an ``ExceptionGroup`` (Python 3.11) in place of the log.

    Raises:
        TypeError: the message has another type.
        ValueError: bytes that are sent as text are not valid UTF-8, or there are no exception groups.
    """
    if not isinstance(message, (str, bytes, bytearray, memoryview)):
        raise TypeError("data must be str or bytes")
    group = getattr(builtins, "ExceptionGroup", None)
    if raise_exceptions and group is None:
        raise ValueError("raise_exceptions requires at least Python 3.11")
    if text is None:
        text = isinstance(message, str)
    opcode = Opcode.TEXT if text else Opcode.BINARY
    encoded = encode(opcode, payload_of(opcode, message), fragment_size=limits.COUNT_MOST)
    failures: list[Exception] = []
    for connection in connections:
        conn = connection if isinstance(connection, Conn) else connection.plumews
        if conn._rules.state is not State.OPEN:
            continue
        failure: Exception
        if conn._in_pieces:
            failure = ConcurrencyError("sending a fragmented message")
        else:
            try:
                send_shared(conn, encoding_for(encoded, conn._shared))
                continue
            except SendQueueFull as exc:
                full_queue.evict(conn)
                failure = RuntimeError("failed to write message")
                failure.__cause__ = exc
            except ConnectionClosed:
                continue
        if raise_exceptions:
            failures.append(failure)
        else:
            connection.logger.warning("skipped broadcast: %s", failure.__cause__ or failure)
    if failures and group is not None:
        raise group("skipped broadcast", failures)
