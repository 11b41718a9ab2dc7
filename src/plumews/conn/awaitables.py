"""What applications await most, the next message and a send, without a coroutine for each (layer 3).

``async for`` and ``send`` run for every message. Here they give objects that asyncio takes for coroutines: what can be
had at once ends them in their first step, a reader that has to wait is what its task waits for, and whatever is not
that simple goes on in a coroutine, the long way. Compiled this is some tenths of a microsecond a message.

Invariants: nothing happens before it is awaited; each is awaited once; a message is taken only by the step that returns
it, so a cancelled one loses nothing.
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
    """The next message of a connection; ``iterating`` makes its good end the end of an iteration."""

    __slots__ = ("_conn", "_in_turn", "_inner", "_iterating", "_waiting")

    def _begin(self, conn: Any, iterating: bool) -> None:
        self.over = False
        self._conn = conn
        self._iterating = iterating
        self._inner: Coroutine[Any, Any, str | bytes] | None = None
        self._waiting: ReadWaiter | None = None
        self._in_turn = False  # what it waits for is its turn, not a message

    def step(self) -> Any:
        """Take it, wait for it, or go the long way."""
        if self._inner is not None:
            return self._long_way()
        conn, waiting = self._conn, self._waiting
        if conn is None:
            raise RuntimeError("cannot reuse already awaited coroutine")
        if waiting is not None:
            if not waiting.done():
                raise RuntimeError("one task waits here, not two")
            self._waiting = None
            if not self._in_turn:
                conn._inbox.stop_waiting()
            waiting.result()
        message = conn._take_now(waiting is None)
        if isinstance(message, ReadWaiter):
            self._waiting, self._in_turn = message, True
            return message.step()
        if message is not None:
            self._conn = None
            self.over = True
            return message
        if waiting is None or self._in_turn:
            self._in_turn = False
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
        """As of a coroutine: whoever waited has stopped."""
        exc = kind if value is None else value
        try:
            if self._inner is not None:
                return self._inner.throw(exc)
            self.close()
            raise exc
        finally:
            del exc, kind, value, traceback  # this frame is in the exception's traceback: no cycle

    def close(self) -> None:
        """As of a coroutine: nothing is awaited any more."""
        if self._inner is not None:
            self._inner.close()
        if self._waiting is not None and self._conn is not None:
            self._waiting = None
            if not self._in_turn:
                self._conn._inbox.stop_waiting()
        self._conn = None


class SendMessage(StepAwaitable):
    """A message that is queued when this is awaited."""

    __slots__ = ("_conn", "_inner", "_message", "_waiting")

    def _begin(self, conn: Any, message: Any) -> None:
        self.over = False
        self._conn = conn
        self._message = message
        self._inner: Coroutine[Any, Any, None] | None = None
        self._waiting: ReadWaiter | None = None

    def step(self) -> Any:
        """Queue it at once, or go the long way."""
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
        """The message is queued, and others have had their turn."""
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            raise RuntimeError("cannot reuse already awaited coroutine")
        waiting.result()
        self.over = True

    def throw(self, kind: Any, value: Any = None, traceback: Any = None) -> Any:
        """As of a coroutine."""
        exc = kind if value is None else value
        try:
            if self._inner is not None:
                return self._inner.throw(exc)
            self._conn = None
            raise exc
        finally:
            del exc, kind, value, traceback

    def close(self) -> None:
        """As of a coroutine."""
        if self._inner is not None:
            self._inner.close()
        self._conn = None

    def __del__(self) -> None:
        if self._conn is not None:
            text = "Conn.send() was never awaited: nothing was sent; without await there is send_nowait()"
            warnings.warn(text, RuntimeWarning, stacklevel=2)


class AwaitableCore(ConnCore):
    """The part of a connection that tasks are at for each message."""

    __slots__ = ()

    def send(
        self, message: Data | Pieces, text: bool | None = None, *, compress: bool | None = None
    ) -> Coroutine[Any, Any, None]:
        """Queue a message: ``str`` as text, bytes-like as binary. To be awaited.

        An asynchronous iterable, or an iterator, of such is one message that is sent in pieces while they come, in
        memory for one of them; nothing else can be sent before its end, and other senders, of messages in pieces too,
        wait as for a full queue. If it fails behind its first piece the connection is closed with 1011, for the peer
        has half a message.

        Args:
            message: what to send; bytes-like objects that can change are copied.
            text: ``True`` sends bytes (which must be UTF-8) as text, ``False`` sends ``str`` as binary.
            compress: ``True`` compresses, ``False`` does not, ``None`` does if the message is large enough and gets
                smaller; all where permessage-deflate was agreed on, else it leaves as it is.

        Raises:
            ConnectionClosed: the connection is closed, or closing.
            SendTimeout: the queue had no space, or a message in pieces was not complete, within the send timeout
                (``SendBehavior.BLOCK``).
            SendQueueFull: the queue is full (``DROP``), or was and the connection was closed (``CLOSE``); under
                ``DROP_OLDEST`` and ``CONFLATE`` only while another message is being sent in pieces.
            TypeError, ValueError: the message is not one; ``compress`` is no choice.
        """
        if text is not None or compress is not None:
            return self._send_slowly(message, text, compress)
        return self._sent(message)

    def _sent(self, message: Any) -> SendMessage:
        sent = SendMessage.__new__(SendMessage)
        sent._begin(self, message)
        return sent

    def __anext__(self) -> Coroutine[Any, Any, str | bytes]:
        """The next message; the iteration ends when the connection ended with 1000, 1001 or no code."""
        return self._next(True)

    def _next(self, iterating: bool) -> NextMessage:
        following = NextMessage.__new__(NextMessage)
        following._begin(self, iterating)
        return following

    def _take_now(self, at_once: bool) -> str | bytes | ReadWaiter | None:
        """The next message, if there is one and nothing speaks against taking it; else ask the long way.

        ``at_once``: its reader has not waited, so that it may be the turn of others, which it must await then.
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
        """What a reader awaits that found nothing, if nothing speaks against waiting; else ask the long way.

        What it answered so far leaves first. It must tell the receive queue when it has stopped waiting.
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

    # --- what is in Receiving and Sending ---------------------------------------------------------

    def _next_slowly(self, iterating: bool) -> Coroutine[Any, Any, str | bytes]:
        """The next message, whatever stands in its way."""
        raise NotImplementedError

    def _send_slowly(self, message: Any, text: bool | None, compress: bool | None) -> Coroutine[Any, Any, None]:
        """Queue what is long, or must be looked at, or has no space."""
        raise NotImplementedError
