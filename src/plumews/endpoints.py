"""What happens on an open connection: a handler coroutine, or plain callbacks (layer 5).

A handler that returns closes with 1000, one that raises with 1011 and one log entry; the other connections do
not notice. The same holds for callbacks, which are called straight from the parser. That a connection is closed is
no failure of who used it until then; that another one is closed is.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeAlias

from .callbacks import check_call, is_plain_function
from .conn import Conn
from .constants import CloseCode
from .errors import ConnectionClosed
from .http11 import Request
from .logs import about

__all__ = ["CallbackEndpoint", "Handler", "HandlerEndpoint", "OnMessage", "OnOpenOrClose", "endpoint_for"]

logger = logging.getLogger("plumews.server")

Handler: TypeAlias = Callable[[Conn], Awaitable[object]]
OnMessage: TypeAlias = Callable[[Conn, "str | bytes"], object]
OnOpenOrClose: TypeAlias = Callable[[Conn], object]

_FAILED = "the handler failed"


class HandlerEndpoint:
    """Runs ``async def handler(conn)`` for each connection, in a task of its own."""

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
        except Exception as exc:
            if not _is_its_own_end(conn, exc):
                logger.exception("the handler failed", extra=about(conn))
                code, reason = CloseCode.INTERNAL_ERROR, _FAILED
        except BaseException:
            conn.abort()
            raise
        conn.close_nowait(code, reason)  # the server waits for its end, not this task


class CallbackEndpoint:
    """Calls plain functions: ``on_open(conn)``, ``on_message(conn, message)``, ``on_close(conn)``."""

    def __init__(
        self,
        on_message: OnMessage,
        on_open: OnOpenOrClose | None = None,
        on_close: OnOpenOrClose | None = None,
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
                conn._within(self._on_open, conn)
            except Exception as exc:
                _callback_failed(conn, exc)
        conn._deliver_to(self._on_message, _callback_failed)

    def _closed(self, conn: Conn) -> None:
        assert self._on_close is not None
        try:
            self._on_close(conn)
        except Exception as exc:
            _callback_failed(conn, exc)


def _callback_failed(conn: Conn, exc: BaseException) -> None:
    """A callback raised: the connection ends as that of a failed handler does."""
    if not _is_its_own_end(conn, exc):
        logger.error("a callback failed", exc_info=exc, extra=about(conn))
        conn.close_nowait(CloseCode.INTERNAL_ERROR, _FAILED)


def _is_its_own_end(conn: Conn, exc: BaseException) -> bool:
    return isinstance(exc, ConnectionClosed) and conn.closed


def endpoint_for(
    handler: Handler | None,
    on_open: OnOpenOrClose | None,
    on_message: OnMessage | None,
    on_close: OnOpenOrClose | None,
) -> HandlerEndpoint | CallbackEndpoint:
    """The endpoint for a handler, or for callbacks; anything else is a clear ``TypeError``."""
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
