"""Receiving: one message at a time, or one message as a stream.

Invariants: only the call that returns a message takes it from the queue, so a cancelled call loses nothing. Replies
leave before a reader waits. Messages that arrived before the end of the connection can be read after it.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Literal, overload

from ..constants import Opcode, StreamEvent
from ..errors import ConcurrencyError, ConnectionClosedOK
from .closing import ClosingCore
from .receive_queue import Item
from .stream import Stream, check_thread

__all__ = ["Receiving"]


class Receiving(ClosingCore):
    """Reading half of :class:`plumews.Conn`."""

    __slots__ = ()

    @overload
    def recv(self, decode: Literal[True]) -> Coroutine[Any, Any, str]: ...

    @overload
    def recv(self, decode: Literal[False]) -> Coroutine[Any, Any, bytes]: ...

    @overload
    def recv(self, decode: bool | None = None) -> Coroutine[Any, Any, str | bytes]: ...

    def recv(self, decode: bool | None = None) -> Coroutine[Any, Any, Any]:
        """Return an awaitable of the next message: ``str`` for text, ``bytes`` for binary.

        Args:
            decode: True returns ``str`` for both kinds (binary must be UTF-8), False returns ``bytes`` for both.

        Raises:
            ConnectionClosed: the connection is closed and no message is left. It is ``ConnectionClosedOK`` after a
                normal end.
            ConcurrencyError: another task is receiving, a stream is still open, or this is another thread.
        """
        return self._next(False) if decode is None else self._recv(decode)

    async def read_message(self) -> tuple[Opcode, bytes]:
        """Return the next message as ``(opcode, data)``.

        ``opcode`` is ``Opcode.TEXT`` or ``Opcode.BINARY``. ``data`` is ``bytes`` for both, and valid UTF-8 for text.

        Raises:
            ConnectionClosed: as :meth:`recv`.
            ConcurrencyError: as :meth:`recv`.
        """
        kind, payload = await self._next_message()
        return Opcode(kind), payload if isinstance(payload, bytes) else payload.encode()

    async def read_stream(self) -> Stream:
        """Return the next message as a stream of chunks, as soon as it begins.

        Raise ``read_limit`` first for messages above it (default 16 MiB). For example::

            async with await conn.read_stream() as stream:
                async for chunk in stream:
                    ...

        The stream raises ``ConnectionClosed`` if the connection ends inside the message.

        Raises:
            ConnectionClosed: as :meth:`recv`.
            ConcurrencyError: as :meth:`recv`.
        """
        self._check_reader()
        try:
            kind, data = await self._available(in_pieces=True)
        except BaseException:
            self._rules.parser.stop_streaming()  # no message had begun: the next one comes whole again
            raise
        self._take()
        if kind == StreamEvent.BEGIN:
            assert isinstance(data, Stream)
            stream = data
        else:
            # It was complete before it was asked for.
            stream = Stream(kind, self._stream_changed)
            if data:
                stream.feed(data.encode() if isinstance(data, str) else data)
            stream.finish()
        if not stream.done:
            self._stream = stream
        return stream

    def __aiter__(self) -> Receiving:
        return self

    # --- inside -----------------------------------------------------------------------------------

    async def _recv(self, decode: bool | None) -> str | bytes:
        kind, payload = await self._next_message()
        if decode is None:
            # Text reaches us as str, but as bytes where it was collected from a stream.
            return payload.decode() if kind == Opcode.TEXT and isinstance(payload, bytes) else payload
        if decode:
            return payload if isinstance(payload, str) else payload.decode()
        return payload if isinstance(payload, bytes) else payload.encode()

    async def _next_slowly(self, iterating: bool) -> str | bytes:
        try:
            return await self._recv(None)
        except ConnectionClosedOK:
            if iterating:
                raise StopAsyncIteration from None
            raise

    async def _next_message(self) -> tuple[int, str | bytes]:
        self._check_reader()
        while True:
            kind, data = await self._available()
            if kind != StreamEvent.BEGIN:
                self._take()
                return kind, data
            # A read_stream() that was cancelled had asked for it in pieces: put them together.
            payload = await data.complete()
            self._take()
            if self._filter is None or not self._run_in_context(self._filter, self, _as_it_came(data.opcode, payload)):
                return data.opcode, payload

    async def _available(self, *, in_pieces: bool = False) -> Item:
        """Wait until there is an item, and leave it in the queue."""
        inbox = self._inbox
        if len(inbox) or self._ended:
            pause = self._state.count_await()
            if pause is not None:
                await pause
                self._check_reader()
        while not len(inbox):
            if self._ended:
                if self._salvage():
                    continue
                raise self._past_the_end()
            # It may be streaming: a rest that is being discarded. What was received before comes before.
            if in_pieces and not self._rules.parser.streaming and not self._backlog:
                self._start_streaming()
                continue
            waiting = inbox.start_waiting(self._loop)
            try:
                if not self._in_batch:
                    self._writer.flush()
                self._update_reading()
                await waiting
            finally:
                inbox.stop_waiting()
        return inbox.peek()

    def _take(self) -> None:
        self._inbox.take()
        if self._reading_paused:
            self._update_reading()

    def _check_reader(self) -> None:
        self._check_thread()
        if self._on_message is not None:
            raise ConcurrencyError("messages of this connection go to its on_message callback")
        if self._stream is not None and not self._stream.done:
            raise ConcurrencyError("a stream is open: read it to its end or close it before the next message")
        if self._inbox.awaited:
            raise ConcurrencyError("another task is already receiving from this connection")

    def _check_thread(self) -> None:
        check_thread(self._thread)


def _as_it_came(opcode: Opcode, payload: bytes) -> str | bytes:
    return payload.decode() if opcode == Opcode.TEXT else payload
