"""A message that is read while it arrives (layer 3).

Chunks come as the socket delivers them, also inside a frame, so that a message of any size is handled in
constant memory. Invariant: the end of the stream is the end of a complete message; a message that was cut
raises, it never looks short (section 8 point 1 of the seed's review). Each stream belongs to one message
and is never used again (point 2).
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
    """The message that ``await conn.read_stream()`` found. Use it with ``async with`` and ``async for``.

    ``opcode`` says whether the bytes are text (valid UTF-8, though a chunk may end inside a character) or
    binary. Leaving the ``async with`` early discards the rest of the message, and the connection goes on; a
    rest that takes longer than the close timeout (default 10 s) closes it with 1008.
    """

    __slots__ = {
        **dict.fromkeys(("_changed", "_chunks", "_closed", "_failure", "_finished", "_thread", "_waiter"), ""),
        "buffered": "Bytes that have arrived and were not read.",
        "held": "Bytes of memory that these take, about.",
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
        """The next chunk, never empty; ``b""`` at the end of the message.

        Raises:
            ConnectionClosed: the connection ended inside the message.
            ConcurrencyError: another task is reading, or the stream was closed.
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
        """All that is left of the message."""
        chunks = []
        while chunk := await self.read():
            chunks.append(chunk)
        return b"".join(chunks)

    async def aclose(self) -> None:
        """Discard what is left of the message. Closing again does nothing."""
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
        """The next chunk. Raises as :meth:`read`."""
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
        """Whether the application needs nothing more from it."""
        return self._closed or (self._finished and not self._chunks) or self._failure is not None

    @property
    def discarding(self) -> bool:
        """Whether the rest of the message is awaited only to be thrown away."""
        return self._closed and not self._finished and self._failure is None

    @property
    def awaited(self) -> bool:
        """Whether a reader waits for the next chunk."""
        return self._waiter is not None

    @property
    def hungry(self) -> bool:
        """Whether a reader waits for the next chunk, and there is none for it yet."""
        return self._waiter is not None and not self._waiter.done()

    async def complete(self) -> bytes:
        """The whole message, taken in one piece when it is there: cancelling this loses nothing."""
        while not self._finished:
            if self._failure is not None:
                raise self._failure()
            await self._wait()
        payload = b"".join(self._chunks)
        await self.aclose()
        return payload

    def feed(self, chunk: bytes) -> None:
        """Add bytes of the message that have arrived."""
        if not self._closed:
            self._chunks.append(chunk)
            self.buffered += len(chunk)
            self.held += len(chunk) + limits.RECEIVED_OVERHEAD
            self._wake()

    def finish(self) -> None:
        """Say that the message is complete."""
        self._finished = True
        self._wake()

    def end(self, failure: Callable[[], ConnectionClosed]) -> None:
        """The reading from the connection is over; ``failure`` says why this message is incomplete, if it is."""
        self._changed = _nobody_cares  # a stream that somebody keeps must not keep its connection
        if not self._finished:
            self._failure = failure
            self._wake()

    def give_up(self) -> None:
        """Nobody has asked for this message, and it will never be complete: hold nothing of it."""
        if not self._finished:
            self._chunks.clear()
            self.buffered = self.held = 0

    # --- waiting ----------------------------------------------------------------------------------

    async def _wait(self) -> None:
        if self._waiter is not None:
            raise ConcurrencyError("another task is reading this stream")
        self._waiter = asyncio.get_running_loop().create_future()
        self._changed()  # what was answered so far leaves, and reading goes on, before this reader waits
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _nobody_cares() -> None:
    """What a stream tells when its connection reads no more."""


def check_thread(thread: int) -> None:
    """Raise in another thread than ``thread``, in which the event loop of a connection runs."""
    if threading.get_ident() != thread:
        check_owner(thread, "connection")
        raise ConcurrencyError(
            "a connection belongs to the thread of its event loop: "
            "use loop.call_soon_threadsafe, asyncio.run_coroutine_threadsafe or hub.publish_threadsafe"
        )
