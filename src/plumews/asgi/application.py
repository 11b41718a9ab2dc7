"""Application of one WebSocket: it is run, receives events, and sends events.

The functions ``receive`` and ``send`` of the application read from the connection and write to it, without a queue or a
task between. In the opening handshake the first event of the application decides: ``websocket.accept`` opens the
connection, ``websocket.close`` and ``websocket.http.response.start`` deny it.

Invariants: an application gets one ``websocket.disconnect``, behind the messages that came before it. What it sends to
a client that has gone raises `ClientDisconnected`. Its end closes the connection: with 1000, or with 1011 and one log
entry if it fails. An end that only tells that the client has gone is no failure.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from ..conn import closing
from ..conn.full_queue import drain
from ..conn.handlers import is_stopped
from ..constants import CloseCode, ErrorCode
from ..errors import ConcurrencyError, ConnectionClosed, Refused, SendQueueFull, SendTimeout
from ..http11.handshake import refusal
from ..http11.headers import Headers
from ..http11.models import Response
from .context import log_access, logger
from .denial import DenialResponse, respond
from .events import (
    ClientDisconnected,
    Event,
    accept_headers,
    accept_subprotocol,
    checked_payload,
    close_of,
    disconnect_event,
    tells_disconnect,
    unsent_close,
)

if TYPE_CHECKING:
    from ..conn.connection import Conn
    from .context import AsgiContext
    from .protocol import PlumeProtocol
    from .scope import Extension, Scope

__all__ = ["Application"]

#: States: before the first event of the application, with a response in parts, open, and after its last event.
_CONNECTING: Final = 0
_DENYING: Final = 1
_OPEN: Final = 2
_CLOSED: Final = 3

#: Events that are expected in each state, in the words of uvicorn.
_EXPECTED: Final = {
    _CONNECTING: "Expected ASGI message 'websocket.accept', 'websocket.close' or 'websocket.http.response.start' "
    "but got '{}'.",
    _DENYING: "Expected ASGI message 'websocket.http.response.body' but got '{}'.",
    _OPEN: "Expected ASGI message 'websocket.send' or 'websocket.close', but got '{}'.",
    _CLOSED: "Unexpected ASGI message '{}', after sending 'websocket.close' or response already completed.",
}
_TOO_LATE: Final = " The WebSocket is open: an HTTP response or error can only be sent before accept()."

_FAILED: Final = "the application failed"


class Application:
    """Run of the application for one connection.

    Args:
        context: state of the server.
        protocol: protocol of the connection.
        conn: the connection.
        scope: scope of the request.
        tasks: tasks of the server, which hold that of :meth:`run`. At its end it leaves them.
    """

    __slots__ = (
        "_conn",
        "_context",
        "_denial",
        "_disconnected",
        "_end",
        "_extension",
        "_protocol",
        "_ready",
        "_scope",
        "_state",
        "_stopped",
        "_tasks",
        "_told",
        "_waiter",
        "_waits",
        "task",
    )

    def __init__(
        self, context: AsgiContext, protocol: PlumeProtocol, conn: Conn, scope: Scope, tasks: set[Any]
    ) -> None:
        self._context = context
        self._tasks = tasks
        self._protocol: PlumeProtocol | None = protocol
        self._conn = conn
        self._scope: Scope | None = scope
        self._extension: Extension = scope["extensions"]["plumews"]
        self._state = _CONNECTING
        self._waits = context.options.waits
        self._told = False  # websocket.connect is received
        self._ready = False  # and the connection is open: the next event is a message
        self._disconnected = False  # websocket.disconnect is received
        self._stopped = False  # the server stops
        #: The websocket.disconnect after our own end, ``None`` if that of the connection tells it.
        self._end: Event | None = None
        #: Future of a receive() that waits for the connection to open.
        self._waiter: asyncio.Future[None] | None = None
        self._denial: DenialResponse | None = None
        #: Task of :meth:`run`, set by the protocol.
        self.task: asyncio.Task[None] | None = None

    # --- the run ----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Call the application, and end the connection behind it."""
        assert self._scope is not None
        if self._protocol is not None:  # else the client has gone before the application began
            self._protocol.hand_over()
        try:
            result = await self._context.app(self._scope, self.receive, self.send)
        except BaseException as exc:
            if self._conn._loop.is_closed():  # the task is destroyed with its loop, and no transport works
                raise
            if isinstance(exc, asyncio.CancelledError) and (self._is_over() or is_stopped()):
                if self._stopped or is_stopped():
                    closing.abort(self._conn)
                else:  # what the application has sent before its end still leaves
                    self._finish(CloseCode.NORMAL_CLOSURE, "")
                raise
            if not (self._is_over() and tells_disconnect(exc)):
                logger.error("Exception in ASGI application\n", exc_info=exc)
            self._finish(CloseCode.INTERNAL_ERROR, _FAILED)
        else:
            if self._state == _CONNECTING and not self._has_gone():
                logger.error("ASGI callable returned without completing handshake.")
            elif result is not None:
                logger.error("ASGI callable should return None, but returned '%s'.", result)
            self._finish(CloseCode.NORMAL_CLOSURE, "")
        finally:
            self._tasks.discard(self.task)
            self.task = None

    def _finish(self, code: int, reason: str) -> None:
        """End the connection, unless the application has."""
        state, self._state = self._state, _CLOSED
        if state == _OPEN:
            if not self._conn.closed:
                closing.begin_close(self._conn, code, reason)
        elif state == _DENYING:
            assert self._denial is not None
            self._denial.finish()
        elif state == _CONNECTING and not self._has_gone():
            self._deny(Response.text(500, "Internal Server Error"))

    # --- calls of the protocol --------------------------------------------------------------------

    def gone(self) -> None:
        """Note that the connection is gone."""
        self._protocol = None
        if self.task is not None and self.task.done():  # it was cancelled before it began
            self._tasks.discard(self.task)
        if self._waiter is not None:
            self._wake()

    def stop(self) -> None:
        """Close the connection, because the server stops: with 1012, or with 503 before it is open."""
        self._stopped = True
        if self._state == _CONNECTING:
            self._state = _CLOSED
            self._end = _disconnect(CloseCode.ABNORMAL_CLOSURE)
            if not self._has_gone():
                stopping = Refused("the server is stopping", status=503, code=ErrorCode.STOPPING)
                self._deny(refusal(stopping, str(self._conn.id)))
            self._wake()
        elif self._state == _OPEN:
            if not self._conn.closed and not self._conn._ended:
                self._end = _disconnect(CloseCode.SERVICE_RESTART)
                self._ready = False
            closing.begin_close(self._conn, CloseCode.SERVICE_RESTART, "")
        closing.hasten(self._conn, self._context.close_timeout)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _has_gone(self) -> bool:
        """Return True if the client has gone, as far as its transport tells."""
        conn = self._conn
        return conn._ended or conn._transport is None or conn._transport.is_closing()

    def _is_over(self) -> bool:
        """Return True if the client has gone, or if the application or the server has ended the connection."""
        return (
            self._stopped or self._state == _CLOSED or self._has_gone() or (self._state == _OPEN and self._conn.closed)
        )

    def _gone_error(self) -> ClientDisconnected:
        return ClientDisconnected(str(self._conn._rules.closed()))

    # --- receive ----------------------------------------------------------------------------------

    async def receive(self) -> Event:
        """Return the next event for the application. A receive that is cancelled takes none.

        Raises:
            ConcurrencyError: another task is receiving.
            ClientDisconnected: the ``websocket.disconnect`` was received before.
        """
        if not self._ready:
            if not self._told:
                self._told = True
                self._ready = self._state == _OPEN and self._end is None
                return {"type": "websocket.connect"}
            event = await self._last_event()
            if event is not None:
                return event
        try:
            message = await self._conn._next_or_none()  # its normal end costs no exception
        except ConnectionClosed:
            return self._disconnect()
        if type(message) is str:
            return {"type": "websocket.receive", "text": message}
        if message is None:
            return self._disconnect()
        return {"type": "websocket.receive", "bytes": message}

    async def _last_event(self) -> Event | None:
        """Wait until the connection is open or gone. Return the last event, ``None`` if a message comes before it."""
        while self._state in (_CONNECTING, _DENYING) and not self._has_gone():
            if self._waiter is not None:
                raise ConcurrencyError("another task is already receiving from this connection")
            self._waiter = self._conn._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if self._state == _OPEN and self._end is None:
            self._ready = True
            return None
        return None if len(self._conn._inbox) else self._disconnect()

    def _disconnect(self) -> Event:
        """Return the ``websocket.disconnect``, once."""
        if self._disconnected:
            raise self._gone_error()
        self._disconnected = True
        return self._end or disconnect_event(self._conn)

    # --- send -------------------------------------------------------------------------------------

    async def send(self, event: Event) -> None:
        """Send an event of the application.

        Raises:
            ClientDisconnected: the client has gone.
            SendQueueFull: the send queue is full, and the options say not to wait any longer.
            RuntimeError: another event is expected.
            TypeError, ValueError: the event has a wrong value.
        """
        if self._state != _OPEN or event["type"] != "websocket.send":
            if self._state == _CONNECTING and event["type"] == "websocket.accept":
                self._accept(event)
            else:
                await self._send_other(event)
            return
        data = event.get("bytes")
        if data is None:
            data = event.get("text")
            if type(data) is not str:
                data = checked_payload(event)
        elif type(data) is not bytes:
            data = checked_payload(event)
        conn = self._conn
        try:
            await conn.send(data)
            if conn._paused and self._waits:
                await drain(conn)
        except ConnectionClosed as exc:
            raise ClientDisconnected(str(exc)) from None
        except SendTimeout as exc:  # an OSError, which frameworks would take for the end of the connection
            raise SendQueueFull(str(exc)) from None

    async def _send_other(self, event: Event) -> None:
        """Send an event that is no message of an open connection."""
        kind, state = event["type"], self._state
        if self._stopped or (state != _CLOSED and self._has_gone()):
            raise self._gone_error()
        if state == _CONNECTING and kind == "websocket.close":
            self._refuse(event)
        elif state == _CONNECTING and kind == "websocket.http.response.start":
            assert self._protocol is not None
            assert self._scope is not None
            self._denial = DenialResponse(self._conn, self._protocol.default_headers(), event)
            self._state = _DENYING
            log_access(self._scope, str(self._denial.status))
        elif state == _DENYING and kind == "websocket.http.response.body":
            await self._send_denial(event)
        elif state == _OPEN and kind == "websocket.close":
            self._close(event)
        else:
            late = _TOO_LATE if state == _OPEN and kind.startswith("websocket.http.response") else ""
            raise RuntimeError(_EXPECTED[state].format(kind) + late)

    # --- accept and close -------------------------------------------------------------------------

    def _accept(self, event: Event) -> None:
        """Answer 101, and open the connection."""
        if self._stopped or self._has_gone():
            raise self._gone_error()
        assert self._protocol is not None
        assert self._scope is not None
        protocol, conn, scope = self._protocol, self._conn, self._scope
        headers = accept_headers(event) if event.get("headers") else None
        subprotocol = event.get("subprotocol")
        if subprotocol is not None:
            subprotocol = accept_subprotocol(event, scope["subprotocols"])
        if not protocol.accept(scope, subprotocol, headers):
            raise self._gone_error()
        self._state = _OPEN
        self._ready = self._told
        self._scope = None
        self._extension["conn"] = conn
        protocol.opened(self._extension.on_open)
        if self._waiter is not None:
            self._wake()
        log_access(scope, "[accepted]")  # last: it may fail, because applications change their scope

    def _close(self, event: Event) -> None:
        if self._conn.closed:
            raise self._gone_error()
        code, reason = close_of(event, logger)
        self._state = _CLOSED
        self._ready = False
        self._end = _disconnect(code, reason)
        closing.begin_close(self._conn, code, reason)

    # --- denial -----------------------------------------------------------------------------------

    def _refuse(self, event: Event) -> None:
        """Deny the connection with 403."""
        assert self._scope is not None
        hint = unsent_close(event)
        self._state = _CLOSED
        self._end = _disconnect(CloseCode.ABNORMAL_CLOSURE)
        self._deny(Response(403))
        self._wake()
        log_access(self._scope, "403")
        if hint:
            logger.info("%s", hint)

    async def _send_denial(self, event: Event) -> None:
        assert self._denial is not None
        try:
            await self._denial.send_body(event)
        finally:
            if self._denial.over:
                self._state = _CLOSED
                self._end = _disconnect(CloseCode.ABNORMAL_CLOSURE)
                self._wake()

    def _deny(self, response: Response) -> None:
        """Send a whole response, or cut the connection if that fails."""
        closing.guard(self._conn, self._respond, response)

    def _respond(self, response: Response) -> None:
        """Send a whole response, with the headers of the server."""
        assert self._protocol is not None
        response.headers = Headers(self._protocol.default_headers(), response.headers)
        respond(self._conn, response)


def _disconnect(code: int, reason: str | None = None) -> Event:
    event: Event = {"type": "websocket.disconnect", "code": int(code)}
    if reason is not None:
        event["reason"] = reason
    return event
