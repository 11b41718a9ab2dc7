"""Stream of one message that is read while it arrives, by the thread that reads the stream.

Invariants: the end of a stream is the end of a complete message. An incomplete message raises.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING

from ..constants import Opcode
from ..errors import ConcurrencyError

if TYPE_CHECKING:
    from .connection import Conn
    from .reader import MessageReader

__all__ = ["Stream"]


class Stream:
    """Message from ``conn.read_stream()``. Use it with ``with`` and ``for``.

    Text is valid UTF-8, but a chunk may end inside a character. Leaving the ``with`` early discards the rest of the
    message, and the connection goes on.

    Attributes:
        opcode: ``Opcode.TEXT`` or ``Opcode.BINARY``.
        buffered: Bytes that have arrived and are not read yet.
        complete: True once the end of the message has arrived.
    """

    __slots__ = ("_chunks", "_closed", "_conn", "_reader", "buffered", "complete", "opcode")

    def __init__(self, reader: MessageReader, opcode: int) -> None:
        self.opcode = Opcode(opcode)
        self.buffered = 0
        self.complete = False
        self._reader = reader
        self._conn: Conn | None = None
        self._chunks: deque[bytes] = deque()
        self._closed = False

    def read(self, timeout: float | None = None) -> bytes:
        """Return the next chunk, or ``b""`` at the end of the message.

        Args:
            timeout: Seconds to wait (default ``None``: no limit).

        Raises:
            TimeoutError: Nothing came in time. Nothing is lost.
            ConnectionClosed: The connection ended inside the message.
            ConcurrencyError: The stream is closed.
        """
        if self._closed:
            raise ConcurrencyError("this stream is closed: read inside its `with` block")
        if not self.ready:
            self._reader.fill(self, timeout)
        if not self._chunks:
            return b""
        chunk = self._chunks.popleft()
        self.buffered -= len(chunk)
        return chunk

    def read_all(self, timeout: float | None = None) -> bytes:
        """Return the rest of the message. ``timeout`` is for each chunk. Raise as :meth:`read`."""
        return b"".join(iter(lambda: self.read(timeout), b""))

    def close(self) -> None:
        """Discard the rest of the message. Closing a second time has no effect."""
        self._closed = True
        self._chunks.clear()
        self.buffered = 0

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        """Return the next chunk. Raise as :meth:`read`."""
        chunk = self.read()
        if not chunk:
            raise StopIteration
        return chunk

    def __repr__(self) -> str:
        state = "closed" if self._closed else "complete" if self.complete else "arriving"
        return f"<plumews.sync.Stream {self.opcode.name} {state} buffered={self.buffered}>"

    # --- for the connection -----------------------------------------------------------------------

    def owned_by(self, conn: Conn) -> Stream:
        """Keep ``conn`` alive while the application has this stream. Return the stream."""
        self._conn = conn
        return self

    @property
    def ready(self) -> bool:
        """True if `read` need not wait."""
        return bool(self._chunks) or self.complete

    @property
    def done(self) -> bool:
        """True if the application gets nothing more from this stream."""
        return self._closed or (self.complete and not self._chunks)

    def feed(self, chunk: bytes) -> None:
        """Add received bytes of the message."""
        if not self._closed and chunk:
            self._chunks.append(chunk)
            self.buffered += len(chunk)

    def finish(self) -> None:
        """Mark the message as complete."""
        self.complete = True
