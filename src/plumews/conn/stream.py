"""Stream of one message that is read while it arrives.

Chunks come as the socket delivers them, also inside a frame, so a message of any size takes constant memory.
Invariants: the end of a stream is the end of a complete message. An incomplete message raises. Each stream belongs to
one message.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType

from .. import limits
from ..constants import Opcode
from ..errors import ConcurrencyError, ConnectionClosed
from ..transport.forks import check_owner
from ..transport.loop_context import loop_context

__all__ = ["Stream", "check_thread"]


class Stream:
    """Message from ``await conn.read_stream()``. Use it with ``async with`` and ``async for``.

    ``opcode`` is that of the message. Text is valid UTF-8, but a chunk may end inside a character. Leaving the ``async
    with`` early discards the rest of the message, and the connection goes on. A rest that takes longer than
    ``close_timeout`` (default 10 s) closes the connection with 1008.
    """

    __slots__ = {
        **dict.fromkeys(("_changed", "_chunks", "_closed", "_failure", "_finished", "_thread", "_waiter"), ""),
        "buffered": "Bytes that have arrived and are not read yet.",
        "held": "Approximate memory of these, in bytes.",
        "opcode": "``Opcode.TEXT`` or ``Opcode.BINARY``.",
    }

    def __init__(self, opcode: int, changed: Callable[[], None]) -> None:
        self._thread = threading.get_ident()
        self.opcode = Opcode(opcode)
        self.buffered = 0
        self.held = 0
        self._chunks: deque[bytes] = deque()
        self._finished = False
        self._closed = False
        self._failure: Callable[[], ConnectionClosed] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._changed = changed

    # --- for the application ----------------------------------------------------------------------

    async def read(self) -> bytes:
        """Return the next chunk, or ``b""`` at the end of the message.

        Raises:
            ConnectionClosed: the connection ended inside the message.
            ConcurrencyError: another task is reading, or the stream is closed.
        """
        check_thread(self._thread)
        pause = loop_context(asyncio.get_running_loop()).count_await() if self._chunks or self.done else None
        if pause is not None:
            await pause
        while not self._chunks:
            if self._closed:
                raise ConcurrencyError("this stream is closed: read inside its `async with` block")
            if self._finished:
                return b""
            if self._failure is not None:
                raise self._failure()
            await self._wait()
        chunk = self._chunks.popleft()
        self.buffered -= len(chunk)
        self.held -= len(chunk) + limits.RECEIVED_OVERHEAD
        self._changed()
        return chunk

    async def read_all(self) -> bytes:
        """Return the rest of the message.

        Raises:
            ConnectionClosed: as :meth:`read`.
            ConcurrencyError: as :meth:`read`.
        """
        chunks = []
        while chunk := await self.read():
            chunks.append(chunk)
        return b"".join(chunks)

    async def aclose(self) -> None:
        """Discard the rest of the message. Closing a second time has no effect."""
        check_thread(self._thread)
        if not self._closed:
            self._closed = True
            self._chunks.clear()
            self.buffered = self.held = 0
            self._wake()
            self._changed()

    async def __aenter__(self) -> Stream:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> bytes:
        """Return the next chunk. Raise as :meth:`read`."""
        chunk = await self.read()
        if not chunk:
            raise StopAsyncIteration
        return chunk

    def __repr__(self) -> str:
        state = "closed" if self._closed else "complete" if self._finished else "arriving"
        return f"<plumews.Stream {self.opcode.name} {state} buffered={self.buffered}>"

    # --- for the connection -----------------------------------------------------------------------

    @property
    def done(self) -> bool:
        """True if the application gets nothing more from this stream."""
        return self._closed or (self._finished and not self._chunks) or self._failure is not None

    @property
    def discarding(self) -> bool:
        """True while the rest of the message is received only to be discarded."""
        return self._closed and not self._finished and self._failure is None

    @property
    def awaited(self) -> bool:
        """True while a reader waits for the next chunk."""
        return self._waiter is not None

    @property
    def hungry(self) -> bool:
        """True while a reader waits and no chunk is there for it."""
        return self._waiter is not None and not self._waiter.done()

    async def complete(self) -> bytes:
        """Return the whole message once it is complete. Cancelling this call loses nothing."""
        while not self._finished:
            if self._failure is not None:
                raise self._failure()
            await self._wait()
        payload = b"".join(self._chunks)
        await self.aclose()
        return payload

    def feed(self, chunk: bytes) -> None:
        """Add received bytes of the message."""
        if not self._closed:
            self._chunks.append(chunk)
            self.buffered += len(chunk)
            self.held += len(chunk) + limits.RECEIVED_OVERHEAD
            self._wake()

    def finish(self) -> None:
        """Mark the message as complete."""
        self._finished = True
        self._wake()

    def end(self, failure: Callable[[], ConnectionClosed]) -> None:
        """End the stream of a connection that reads no more. ``failure`` makes the error of an incomplete message."""
        self._changed = _do_nothing  # a stream that is kept must not keep its connection
        if not self._finished:
            self._failure = failure
            self._wake()

    def give_up(self) -> None:
        """Free the chunks of a message that stays incomplete and unread."""
        if not self._finished:
            self._chunks.clear()
            self.buffered = self.held = 0

    # --- waiting ----------------------------------------------------------------------------------

    async def _wait(self) -> None:
        if self._waiter is not None:
            raise ConcurrencyError("another task is reading this stream")
        self._waiter = asyncio.get_running_loop().create_future()
        self._changed()  # replies leave, and reading resumes, before this reader waits
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _do_nothing() -> None:
    """Ignore a change of a stream whose connection reads no more."""


def check_thread(thread: int) -> None:
    """Raise ``ConcurrencyError`` unless this is ``thread``, the thread of a connection's event loop."""
    if threading.get_ident() != thread:
        check_owner(thread, "connection")
        raise ConcurrencyError(
            "a connection belongs to the thread of its event loop: "
            "use loop.call_soon_threadsafe, asyncio.run_coroutine_threadsafe or hub.publish_threadsafe"
        )
