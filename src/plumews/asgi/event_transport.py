"""Transport of a connection over the ASGI events of another server.

A `Conn` writes frames and reads frames. This transport turns the frames that it writes into ``websocket.send`` and
``websocket.close``, and the events of the server into frames. So a connection of any server has the send queue, the
overflow policies and the fan-out of our own.

One task sends events while there are any. It has one write of the connection at a time, and the connection is paused
until all of it is sent. Another task receives one event ahead of the application, so that the end of the client is
noticed at once. Invariant: after the end both tasks are gone, and no event is sent.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, MutableMapping
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from ..constants import CloseCode, Opcode, is_valid_close_code
from ..protocol.codec import Parser, build_frame
from ..protocol.state import cut_reason
from ..transport.loop_context import loop_context

if TYPE_CHECKING:
    from ..conn.connection import Conn

__all__ = ["EventTransport", "Receive", "Send"]

Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[object]]

logger = logging.getLogger("plumews.conn")

#: Key that leaves a payload as it is. A server accepts masked frames only.
_NO_MASK: Final = bytes(4)


class EventTransport(asyncio.Transport):
    """Transport of one connection.

    Args:
        conn: the connection.
        scope: scope of the request.
        receive: receives the events of the server.
        send: sends events to the server.
    """

    def __init__(self, conn: Conn, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        super().__init__()
        self._conn: Conn | None = conn
        self._loop = asyncio.get_running_loop()
        self._context = copy_context()
        self._receive = receive
        self._send = send
        self._info = {"peername": _address(scope.get("client")), "sockname": _address(scope.get("server"))}
        self._parser = Parser(client=True, max_size=None)
        self._events: deque[dict[str, Any]] = deque()
        self._size = 0
        self._writer: asyncio.Task[None] | None = None
        self._reader: asyncio.Task[None] | None = None
        #: Future of a reader that is paused, or is to pause.
        self._resumed: asyncio.Future[None] | None = None
        self._silent = False  # True if the server takes no more events
        self._closing = False

    def start(self) -> None:
        """Receive events from now on: the WebSocket is open."""
        if self._conn is not None:
            self._reader = self._start(self._read())

    # --- the transport ----------------------------------------------------------------------------

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._info.get(name, default)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Do nothing: one write is sent at a time."""

    def get_write_buffer_size(self) -> int:
        return self._size

    def is_closing(self) -> bool:
        return self._closing

    def can_write_eof(self) -> bool:
        return False

    def pause_reading(self) -> None:
        if self._resumed is None:
            self._resumed = self._loop.create_future()

    def resume_reading(self) -> None:
        resumed, self._resumed = self._resumed, None
        if resumed is not None and not resumed.done():
            resumed.set_result(None)

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._silent or self._conn is None:
            return
        for opcode, payload in self._parser.feed(data):
            event = _event_of(opcode, payload)
            if event is not None:
                self._events.append(event)
        if self._events and self._writer is None:
            self._size = len(data)
            self._writer = self._start(self._write())
            self._conn.pause_writing()

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._loop.call_soon(self._lose)

    def abort(self) -> None:
        self._silent = True
        self.close()

    # --- the tasks --------------------------------------------------------------------------------

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return self._context.copy().run(self._loop.create_task, work)

    async def _write(self) -> None:
        """Send the events, then resume the connection."""
        try:
            while self._events:
                event = self._events.popleft()
                await self._send(event)
                if event["type"] == "websocket.close":
                    self._closed(event)
                    return
        except Exception as exc:  # whatever the server raises, nothing more can be sent
            self._fail(exc)
            return
        finally:
            self._writer = None
            self._size = 0
        if self._conn is not None:
            self._conn.resume_writing()

    async def _read(self) -> None:
        """Give the events to the connection as frames."""
        state = loop_context(self._loop)
        try:
            while self._conn is not None:
                if self._resumed is not None:
                    await self._resumed
                    continue
                event = await self._receive()
                if event["type"] == "websocket.disconnect":
                    self._disconnected(event)
                    return
                if event["type"] == "websocket.receive" and self._conn is not None:
                    self._conn.data_received(_frame_of(event))
                pause = state.count_await()
                if pause is not None:
                    await pause
        except Exception as exc:
            self._fail(exc)
        finally:
            self._reader = None

    # --- the end ----------------------------------------------------------------------------------

    def _closed(self, event: Mapping[str, Any]) -> None:
        """End the connection, whose ``websocket.close`` is sent: the server does the rest of the handshake."""
        self._silent = True
        if self._conn is not None:
            self._conn.data_received(_close_frame(event["code"], event["reason"]))
        self.close()

    def _disconnected(self, event: Mapping[str, Any]) -> None:
        """End the connection as the ``websocket.disconnect`` tells."""
        self._silent = True
        code, reason = event.get("code"), event.get("reason")
        if code is None or code == CloseCode.NO_STATUS_RCVD:
            frame = _close_frame(None, "")
        elif is_valid_close_code(code):
            frame = _close_frame(code, reason or "")
        else:
            self._lose()
            return
        if self._conn is not None:
            self._conn.data_received(frame)

    def _fail(self, exc: Exception) -> None:
        if self._loop.is_closed():
            return  # the task is destroyed with its loop
        logger.debug("the server takes or gives no more events: %s", type(exc).__name__)
        self._silent = True
        self._lose()

    def _lose(self) -> None:
        """End the connection and the tasks."""
        conn, self._conn = self._conn, None
        self._closing = True
        self._events.clear()
        current = asyncio.current_task()
        for task in (self._writer, self._reader):
            if task is not None and task is not current:
                task.cancel()
        if conn is not None:
            conn.connection_lost(None)


def _address(given: Any) -> Any:
    """Return an address of a scope as sockets have it, ``None`` for a Unix socket."""
    if given is None or given[1] is None:
        return None
    return str(given[0]), int(given[1])


def _event_of(opcode: int, payload: Any) -> dict[str, Any] | None:
    """Return the event of a message or of a close frame, ``None`` for pings and pongs: the server has its own."""
    if opcode == Opcode.TEXT:
        return {"type": "websocket.send", "text": payload}
    if opcode == Opcode.BINARY:
        return {"type": "websocket.send", "bytes": bytes(payload)}
    if opcode == Opcode.CLOSE:
        code, reason = payload
        code = CloseCode.NORMAL_CLOSURE if code == CloseCode.NO_STATUS_RCVD else code
        return {"type": "websocket.close", "code": int(code), "reason": reason}
    return None


def _frame_of(event: Mapping[str, Any]) -> bytes:
    """Return the frame of a client for a ``websocket.receive``."""
    text = event.get("text")
    if text is not None:
        return build_frame(Opcode.TEXT, text.encode(), mask_key=_NO_MASK)
    return build_frame(Opcode.BINARY, event.get("bytes") or b"", mask_key=_NO_MASK)


def _close_frame(code: int | None, reason: str) -> bytes:
    payload = b"" if code is None else code.to_bytes(2, "big") + cut_reason(reason).encode()
    return build_frame(Opcode.CLOSE, payload, mask_key=_NO_MASK)
