"""Runners of an open connection: a handler coroutine, or plain callbacks called from the parser.

A handler that returns closes with 1000. One that raises closes with 1011 and logs one entry. Other connections go on.
The same holds for callbacks. ``ConnectionClosed`` of its own connection is no failure of a handler, that of another
connection is. A ``CancelledError`` is a failure, unless the server has cancelled the handler.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any, Final, TypeAlias

from ..constants import CloseCode
from ..errors import ConnectionClosed
from ..http11.models import Request
from ..transport.forks import FOREIGN
from ..validation import check_call, is_plain_function
from . import closing, receiver
from .connection import Conn
from .logs import log_extra

__all__ = [
    "CallbackEndpoint",
    "Handler",
    "HandlerEndpoint",
    "OnMessage",
    "OnOpenOrClose",
    "cancel",
    "endpoint_for",
    "is_stopped",
    "leaves_of",
]

logger = logging.getLogger("plumews.server")

Handler: TypeAlias = Callable[[Conn], Awaitable[object]]
OnMessage: TypeAlias = Callable[[Conn, "str | bytes"], object]
OnOpenOrClose: TypeAlias = Callable[[Conn], object]

_FAILED = "the handler failed"

#: Tasks that their server has cancelled. In all others a CancelledError is a failure.
_cancelled: Final[weakref.WeakSet[asyncio.Future[Any]]] = weakref.WeakSet()


def cancel(task: asyncio.Future[Any]) -> None:
    """Cancel a task of a server that stops."""
    _cancelled.add(task)
    task.cancel()


def is_stopped() -> bool:
    """Return True if the running task was cancelled by its server, or with all others by the end of its event loop."""
    if asyncio.current_task() in _cancelled:
        return True
    cancelling: Callable[[Any], int] | None = getattr(asyncio.Task, "cancelling", None)  # Python 3.11
    return cancelling is not None and all(map(cancelling, asyncio.all_tasks()))


class HandlerEndpoint:
    """Endpoint that runs ``async def handler(conn)`` for each connection, in a task of its own."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler

    def admit(self, conn: Conn, request: Request) -> None:
        return None

    def opened(self, conn: Conn, deadline: float = 0.0) -> Coroutine[Any, Any, None]:
        return self._run(conn)

    async def _run(self, conn: Conn) -> None:
        code, reason = CloseCode.NORMAL_CLOSURE, ""
        try:
            work = self._handler(conn)
            if not inspect.isawaitable(work):
                raise TypeError(f"the handler must be an `async def` function: it returned {work!r}")
            await work
        except BaseException as exc:
            if _ends_the_task(exc):
                if not conn._loop.is_closed():  # else the task is destroyed with its loop, and no transport works
                    closing.abort(conn)
                raise
            if not _is_its_own_end(conn, exc):
                logger.exception(_FAILED, extra=log_extra(conn))
                code, reason = CloseCode.INTERNAL_ERROR, _FAILED
        if conn._thread != FOREIGN:  # else this process is a child, and the connection goes on in its parent
            conn.close_nowait(code, reason)  # the server waits for its end, not this task


class CallbackEndpoint:
    """Endpoint that calls ``on_open(conn)``, ``on_message(conn, message)`` and ``on_close(conn)``, plain functions."""

    def __init__(
        self, on_message: OnMessage, on_open: OnOpenOrClose | None = None, on_close: OnOpenOrClose | None = None
    ) -> None:
        self._on_message = on_message
        self._on_open = on_open
        self._on_close = on_close

    def admit(self, conn: Conn, request: Request) -> None:
        return None

    def opened(self, conn: Conn, deadline: float = 0.0) -> None:
        if self._on_close is not None:
            conn.add_close_callback(self._closed)
        if self._on_open is not None:
            try:
                conn._run_in_context(self._on_open, conn)
            except (Exception, asyncio.CancelledError) as exc:
                _callback_failed(conn, exc)
        receiver.deliver_to(conn, self._on_message, _callback_failed)

    def _closed(self, conn: Conn) -> None:
        assert self._on_close is not None
        try:
            self._on_close(conn)
        except (Exception, asyncio.CancelledError) as exc:
            _callback_failed(conn, exc)


def _callback_failed(conn: Conn, exc: BaseException) -> None:
    """Log the exception of a callback, and close its connection with 1011."""
    if not _is_its_own_end(conn, exc):
        logger.error("a callback failed", exc_info=exc, extra=log_extra(conn))
        conn.close_nowait(CloseCode.INTERNAL_ERROR, _FAILED)


def _is_its_own_end(conn: Conn, exc: BaseException) -> bool:
    """Return True if ``exc`` only tells that ``conn`` is closed, alone or in the group of a task group."""
    told = [each for each in leaves_of(exc) if not isinstance(each, asyncio.CancelledError)]
    return conn.closed and bool(told) and all(isinstance(each, ConnectionClosed) for each in told)


def _ends_the_task(exc: BaseException) -> bool:
    """Return True if ``exc`` ends the program, or if the server has cancelled the running task."""
    cancelled = False
    for each in leaves_of(exc):
        if isinstance(each, asyncio.CancelledError):
            cancelled = True
        elif not isinstance(each, Exception):
            return True
        elif not isinstance(each, ConnectionClosed):
            return False
    return cancelled and is_stopped()


def leaves_of(exc: BaseException) -> Iterator[BaseException]:
    """Yield the exceptions in a group, nested or not. Any other exception is its own leaf."""
    waiting = [exc]
    while waiting:
        each = waiting.pop()
        inner = getattr(each, "exceptions", None)  # Python 3.10 has only the groups of the ``exceptiongroup`` package
        if isinstance(inner, tuple) and inner and all(isinstance(one, BaseException) for one in inner):
            waiting += inner
        else:
            yield each


def endpoint_for(
    handler: Handler | None,
    on_open: OnOpenOrClose | None,
    on_message: OnMessage | None,
    on_close: OnOpenOrClose | None,
) -> HandlerEndpoint | CallbackEndpoint:
    """Return the endpoint for a handler or for callbacks. Raise ``TypeError`` for anything else."""
    if handler is not None:
        if on_message is not None or on_open is not None or on_close is not None:
            raise TypeError("give either a handler coroutine or on_open, on_message and on_close, not both")
        if not callable(handler):
            raise TypeError(f"the handler must be an `async def` function, not {type(handler).__name__}")
        if inspect.isasyncgenfunction(handler):
            raise TypeError("the handler must be an `async def` function without yield: messages leave by conn.send")
        check_call("the handler", handler, "conn")
        return HandlerEndpoint(handler)
    if on_message is None:
        raise TypeError("give a handler coroutine, or an on_message function")
    for name, callback, parameters in (
        ("on_open", on_open, ("conn",)),
        ("on_message", on_message, ("conn", "message")),
        ("on_close", on_close, ("conn",)),
    ):
        if callback is None:
            continue
        if not is_plain_function(callback):
            raise TypeError(f"{name} must be a plain function: it is called from the parser and cannot wait")
        check_call(name, callback, *parameters)
    return CallbackEndpoint(on_message, on_open, on_close)
