"""Awaitables of ``recv``, ``send`` and ``async for`` that avoid a coroutine per message.

Compiled with Cython. They behave as coroutines do, and asyncio takes them for some. The first step of an awaitable ends
it, or its task waits for a future. All other cases go on in a coroutine of `receiver` or `sender`.

Invariants: nothing happens before an awaitable is awaited, and each is awaited once. Only the step that returns a
message takes it, so a cancelled one loses nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import Coroutine
from typing import Any

from ..transport.awaitable import StepAwaitable
from ..transport.channel import Channel
from ..transport.read_waiter import ReadWaiter
from . import receiver, sender
from .receive_queue import ReceiveQueue

__all__ = ["MessageChannel", "NextMessage", "SendMessage"]

_NONE_AT_END = receiver.NONE_AT_END


class MessageChannel(Channel):
    """Abstract channel of messages: what the awaitables ask of a connection, which implements it."""

    __slots__ = ("_inbox",)

    _inbox: ReceiveQueue

    def _take_now(self, at_once: bool) -> str | bytes | ReadWaiter | None:
        """Return the next message if it can be taken now, or what the reader awaits first, or ``None``.

        ``at_once`` is True for a reader that has not waited: it may have to let other tasks run first.
        """
        raise NotImplementedError  # abstract: `ConnCore` implements it

    def _wait_now(self) -> ReadWaiter | None:
        """Return what a reader of an empty queue awaits, or ``None`` if it has to use a coroutine.

        The reader tells the receive queue when it stops waiting.
        """
        raise NotImplementedError  # abstract: `ConnCore` implements it

    def _is_read_to_end(self) -> bool:
        """Return True if the connection has ended well, and an iteration ends without a message or a pause."""
        raise NotImplementedError  # abstract: `ConnCore` implements it

    def _queue_now(self, message: Any) -> bool:
        """Queue a short, plain message if there is space. Return False if the caller has to go the long way."""
        raise NotImplementedError  # abstract: `ConnCore` implements it


class NextMessage(StepAwaitable):
    """Awaitable of the next message.

    With ``iterating`` a normal end raises ``StopAsyncIteration``. With ``NONE_AT_END`` it returns ``None``.
    """

    __slots__ = ("_conn", "_inner", "_iterating", "_waiting", "_yielding")

    def _begin(self, conn: Any, iterating: int) -> None:
        self.over = False
        self._conn = conn
        self._iterating = iterating
        self._inner: Coroutine[Any, Any, str | bytes | None] | None = None
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
        self._conn = None
        if self._iterating and conn._is_read_to_end():
            conn._state.awaits_left -= 1
            if self._iterating == _NONE_AT_END:
                self.over = True
                return None
            raise StopAsyncIteration
        self._inner = receiver.next_slowly(conn, self._iterating)
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
            if conn._queue_now(self._message):
                state = conn._state
                state.awaits_left -= 1
                if state.awaits_left <= 0:
                    waiting = self._waiting = state.check_slice()
                    if waiting is not None:
                        return waiting.step()
                self.over = True
                return None
            self._inner = sender.send_slowly(conn, self._message, None, None)
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
