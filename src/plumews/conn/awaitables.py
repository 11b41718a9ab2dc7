"""Awaitables of the next message and of a send, without a coroutine for each.

``async for`` and ``send`` run for every message, so they return objects that asyncio takes for coroutines. The first
step of such an object ends it, or its task waits for a future. All other cases go on in a coroutine. Compiled this
takes some tenths of a microsecond a message.

Invariants: nothing happens before an object is awaited, and each is awaited once. Only the step that returns a message
takes it, so a cancelled one loses nothing.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Coroutine
from typing import Any

from ..constants import Opcode
from ..protocol.message import Data, Pieces
from ..transport.awaitable import StepAwaitable
from ..transport.read_waiter import ReadWaiter
from .core import ConnCore

__all__ = ["AwaitableCore", "NextMessage", "SendMessage"]

_get_ident = threading.get_ident
_TEXT, _BINARY = map(int, (Opcode.TEXT, Opcode.BINARY))


class NextMessage(StepAwaitable):
    """Awaitable of the next message. With ``iterating`` a normal end raises ``StopAsyncIteration``."""

    __slots__ = ("_conn", "_inner", "_iterating", "_waiting", "_yielding")

    def _begin(self, conn: Any, iterating: bool) -> None:
        self.over = False
        self._conn = conn
        self._iterating = iterating
        self._inner: Coroutine[Any, Any, str | bytes] | None = None
        self._waiting: ReadWaiter | None = None
        self._yielding = False  # it waits for other tasks to run, not for a message

    def step(self) -> Any:
        """Take the message, wait for it, or go on in a coroutine."""
        if self._inner is not None:
            return self._long_way()
        conn, waiting = self._conn, self._waiting
        if conn is None:
            raise RuntimeError("cannot reuse already awaited coroutine")
        if waiting is not None:
            if not waiting.done():
                raise RuntimeError("one task waits here, not two")
            self._waiting = None
            if not self._yielding:
                conn._inbox.stop_waiting()
            waiting.result()
        message = conn._take_now(waiting is None)
        if isinstance(message, ReadWaiter):
            self._waiting, self._yielding = message, True
            return message.step()
        if message is not None:
            self._conn = None
            self.over = True
            return message
        if waiting is None or self._yielding:
            self._yielding = False
            waiting = self._waiting = conn._wait_now()
            if waiting is not None:
                return waiting.step()
        self._inner = conn._next_slowly(self._iterating)
        self._conn = None
        return self._long_way()

    def _long_way(self) -> Any:
        assert self._inner is not None
        outcome: Any = None
        try:
            outcome = self._inner.send(None)
        except StopIteration as end:
            outcome = end.value
            self.over = True
        return outcome

    def throw(self, kind: Any, value: Any = None, traceback: Any = None) -> Any:
        """Raise in the waiting reader, as a coroutine does."""
        exc = kind if value is None else value
        try:
            if self._inner is not None:
                return self._inner.throw(exc)
            self.close()
            raise exc
        finally:
            del exc, kind, value, traceback  # this frame is in the exception's traceback: no cycle

    def close(self) -> None:
        """Stop waiting, as a coroutine does."""
        if self._inner is not None:
            self._inner.close()
        if self._waiting is not None and self._conn is not None:
            self._waiting = None
            if not self._yielding:
                self._conn._inbox.stop_waiting()
        self._conn = None


class SendMessage(StepAwaitable):
    """Awaitable that queues a message."""

    __slots__ = ("_conn", "_inner", "_message", "_waiting")

    def _begin(self, conn: Any, message: Any) -> None:
        self.over = False
        self._conn = conn
        self._message = message
        self._inner: Coroutine[Any, Any, None] | None = None
        self._waiting: ReadWaiter | None = None

    def step(self) -> Any:
        """Queue the message now, or go on in a coroutine."""
        if self._inner is None:
            conn, self._conn = self._conn, None
            if conn is None:
                return self._turn_over()
            if conn._send_now(self._message):
                state = conn._state
                state.awaits_left -= 1
                if state.awaits_left <= 0:
                    waiting = self._waiting = state.check_slice()
                    if waiting is not None:
                        return waiting.step()
                self.over = True
                return None
            self._inner = conn._send_slowly(self._message, None, None)
            self._message = None
        outcome: Any = None
        try:
            outcome = self._inner.send(None)
        except StopIteration:
            self.over = True
        return outcome

    def _turn_over(self) -> None:
        """End after the wait for other tasks, with the message queued."""
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            raise RuntimeError("cannot reuse already awaited coroutine")
        waiting.result()
        self.over = True

    def throw(self, kind: Any, value: Any = None, traceback: Any = None) -> Any:
        """Raise or stop, as a coroutine does."""
        exc = kind if value is None else value
        try:
            if self._inner is not None:
                return self._inner.throw(exc)
            self._conn = None
            raise exc
        finally:
            del exc, kind, value, traceback

    def close(self) -> None:
        """Raise or stop, as a coroutine does."""
        if self._inner is not None:
            self._inner.close()
        self._conn = None

    def __del__(self) -> None:
        if self._conn is not None:
            text = "Conn.send() was never awaited: nothing was sent; without await there is send_nowait()"
            warnings.warn(text, RuntimeWarning, stacklevel=2)


class AwaitableCore(ConnCore):
    """Part of a connection that tasks call for each message."""

    __slots__ = ()

    def send(
        self, message: Data | Pieces, text: bool | None = None, *, compress: bool | None = None
    ) -> Coroutine[Any, Any, None]:
        """Return an awaitable that queues a message: ``str`` as text, bytes-like as binary.

        An iterator or asynchronous iterable of these is one message, sent in pieces while they come. Only one piece is
        in memory. Until its end all other senders wait as for a full queue. If it fails after its first piece, the
        connection is closed with 1011, because the peer has half a message.

        Args:
            message: the message; mutable bytes-like objects are copied.
            text: True sends bytes (which must be UTF-8) as text, False sends ``str`` as binary (default: by type).
            compress: True compresses, False does not. ``None`` (default) compresses large messages that get smaller.
                Without permessage-deflate no message is compressed.

        Raises:
            ConnectionClosed: the connection is closed or closing.
            SendTimeout: under ``SendBehavior.BLOCK``, the queue had no space within ``send_timeout``, or a message in
                pieces was not complete.
            SendQueueFull: the queue is full (``DROP``), or was full and the connection is closed (``CLOSE``). Under
                ``DROP_OLDEST`` and ``CONFLATE``, another message is being sent in pieces.
            TypeError: the message has another type, or ``compress`` is not a bool or ``None``.
            ValueError: text is not valid UTF-8.
            ConcurrencyError: called from another thread.
        """
        if text is not None or compress is not None:
            return self._send_slowly(message, text, compress)
        return self._sent(message)

    def _sent(self, message: Any) -> SendMessage:
        sent = SendMessage.__new__(SendMessage)
        sent._begin(self, message)
        return sent

    def __anext__(self) -> Coroutine[Any, Any, str | bytes]:
        """Return an awaitable of the next message. The iteration ends after close codes 1000, 1001 and 1005."""
        return self._next(True)

    def _next(self, iterating: bool) -> NextMessage:
        following = NextMessage.__new__(NextMessage)
        following._begin(self, iterating)
        return following

    def _take_now(self, at_once: bool) -> str | bytes | ReadWaiter | None:
        """Return the next message if it can be taken now, or what the reader awaits first, or ``None``.

        ``at_once`` is True for a reader that has not waited: it may have to let other tasks run first.
        """
        inbox = self._inbox
        if not len(inbox) or self._on_message is not None or self._stream is not None:
            return None
        if inbox.has_reader() or _get_ident() != self._thread:
            return None
        kind, data = inbox.peek()
        if not (kind == _TEXT and isinstance(data, str)) and not (kind == _BINARY and isinstance(data, bytes)):
            return None
        if at_once:
            state = self._state
            state.awaits_left -= 1
            if state.awaits_left <= 0:
                pause = state.check_slice()
                if pause is not None:
                    return pause
        inbox.take()
        if self._reading_paused:
            self._update_reading()
        message: str | bytes = data
        return message

    def _wait_now(self) -> ReadWaiter | None:
        """Return what a reader of an empty queue awaits, or ``None`` if it has to use a coroutine.

        Its replies leave first. The reader tells the receive queue when it stops waiting.
        """
        if self._ended or len(self._inbox) or self._on_message is not None or self._stream is not None:
            return None
        if self._inbox.has_reader() or _get_ident() != self._thread or self._rules.parser.streaming:
            return None
        waiting = self._inbox.start_waiting(self._loop)
        if not self._in_batch:  # else it leaves with the read that is being handled
            self._writer.flush()
        if self._reading_paused:
            self._update_reading()
        return waiting

    # --- abstract: Receiving and Sending implement them --------------------------------------------

    def _next_slowly(self, iterating: bool) -> Coroutine[Any, Any, str | bytes]:
        """Return the next message in all cases, in a coroutine."""
        raise NotImplementedError

    def _send_slowly(self, message: Any, text: bool | None, compress: bool | None) -> Coroutine[Any, Any, None]:
        """Queue a message that is long, needs checks, or finds no space."""
        raise NotImplementedError
