"""What happens on an open connection: a handler coroutine, or plain callbacks (layer 5).

A handler that returns closes with 1000, one that raises with 1011 and one log entry; the other connections do
not notice. The same holds for callbacks, which are called straight from the parser.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from .conn import Conn
from .constants import CloseCode
from .errors import ConnectionClosed
from .http11 import Request

__all__ = ["CallbackEndpoint", "Handler", "HandlerEndpoint", "OnMessage", "OnOpenOrClose", "endpoint_for"]

logger = logging.getLogger("plumews.server")

Handler: TypeAlias = Callable[[Conn], Awaitable[object]]
OnMessage: TypeAlias = Callable[[Conn, "str | bytes"], object]
OnOpenOrClose: TypeAlias = Callable[[Conn], object]


class HandlerEndpoint:
    """Runs ``async def handler(conn)`` for each connection, in a task of its own."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self.tasks: set[asyncio.Task[None]] = set()

    def admit(self, conn: Conn, request: Request) -> None:
        return None

    def opened(self, conn: Conn) -> None:
        task = conn._loop.create_task(self._run(conn))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _run(self, conn: Conn) -> None:
        code, reason = CloseCode.NORMAL_CLOSURE, ""
        try:
            await self._handler(conn)
        except ConnectionClosed:
            pass  # the handler used the connection until it ended: nothing is wrong with that
        except Exception:
            logger.exception("the handler of connection %s failed", conn.id)
            code, reason = CloseCode.INTERNAL_ERROR, "the handler failed"
        except BaseException:
            conn.abort()
            raise
        await conn.close(code, reason)


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

    def opened(self, conn: Conn) -> None:
        if self._on_close is not None:
            conn.add_close_callback(self._on_close)
        if self._on_open is not None:
            try:
                self._on_open(conn)
            except Exception as exc:
                callback_failed(conn, exc)
        conn._deliver_to(self._on_message, callback_failed)


def callback_failed(conn: Conn, exc: Exception) -> None:
    """A callback raised: the connection ends as that of a failed handler does."""
    if isinstance(exc, ConnectionClosed):
        return
    logger.error("a callback of connection %s failed", conn.id, exc_info=exc)
    conn.close_nowait(CloseCode.INTERNAL_ERROR, "the handler failed")


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
        return HandlerEndpoint(handler)
    if on_message is None:
        raise TypeError("give a handler coroutine, or an on_message function")
    for name, callback in (("on_open", on_open), ("on_message", on_message), ("on_close", on_close)):
        if callback is not None and (not callable(callback) or inspect.iscoroutinefunction(callback)):
            raise TypeError(f"{name} must be a plain function: it is called from the parser and cannot wait")
    return CallbackEndpoint(on_message, on_open, on_close)
