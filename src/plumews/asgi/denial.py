"""Denial: an HTTP response of the application, or of us, in place of the WebSocket.

A body that comes in one event has a ``Content-Length``. A body of several events is sent as it comes, in chunks unless
the application gave its length. Invariants: the head leaves once, at the latest when the application ends. No byte
beyond the length leaves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from ..conn import closing
from ..conn.full_queue import drain
from ..errors import ConnectionClosed
from ..http11.headers import Headers
from ..http11.models import Response
from .events import ClientDisconnected, headers_of

if TYPE_CHECKING:
    from ..conn.connection import Conn

__all__ = ["DenialResponse", "checked_status", "respond"]

#: Headers that only the server sets: they frame the response.
_OURS: Final = ("Connection", "Transfer-Encoding")


def respond(conn: Conn, response: Response, *, done: bool = True) -> None:
    """Send a whole response in place of the WebSocket, and end the connection.

    ``done`` is True if the client sent nothing behind its request.
    """
    if "Connection" not in response.headers:
        response.headers.add("Connection", "close")
    wire = response.serialize()
    if conn._request is not None and conn._request.method == "HEAD":
        wire = wire[: len(wire) - len(response.body)]
    closing.ask(conn, "write", wire)
    _finish(conn, done)


def _finish(conn: Conn, done: bool) -> None:
    closing.ask(conn, "resume_reading")
    closing.close_gently(conn, peer_is_done=done)


def checked_status(event: Mapping[str, Any]) -> int:
    """Return the status of a response. Raise ``RuntimeError`` unless it is that of a final response."""
    status = event["status"]
    if isinstance(status, bool) or not isinstance(status, int) or not 200 <= status < 600:
        raise RuntimeError(f"Invalid HTTP status code '{status}' in response.")
    return int(status)


class DenialResponse:
    """Response of an application, sent by its events.

    Args:
        conn: connection of the request.
        defaults: headers of the server.
        event: ``websocket.http.response.start``.
    """

    __slots__ = ("_chunked", "_conn", "_headers", "_left", "_started", "over", "status")

    def __init__(self, conn: Conn, defaults: Headers, event: Mapping[str, Any]) -> None:
        self._conn = conn
        self.status = checked_status(event)
        headers = Headers(defaults, headers_of(event))
        for name in _OURS:
            if name in headers:
                del headers[name]
        headers.add("Connection", "close")
        self._headers = headers
        self._started = False
        self._chunked = False
        #: Bytes of the body that may still leave, ``None`` without a ``Content-Length``.
        self._left = _length(headers)
        #: True once the response is complete.
        self.over = False

    async def send_body(self, event: Mapping[str, Any]) -> None:
        """Send the body of a ``websocket.http.response.body``. Wait until the transport takes more."""
        body, more = event.get("body"), bool(event.get("more_body", False))
        if not isinstance(body, (bytes, bytearray, memoryview, type(None))):
            raise TypeError(f"'body' of websocket.http.response.body must be bytes, not {type(body).__name__}")
        body = b"" if body is None else bytes(body)
        wire = self._head(None if more else len(body))
        if self._left is not None:
            self._left -= len(body)
        too_long = self._left is not None and self._left < 0
        if too_long:
            body = body[: self._left]
        if not self._is_bodiless:
            wire += b"%x\r\n%b\r\n" % (len(body), body) if self._chunked and body else body
        if self._chunked and not more:
            wire += b"0\r\n\r\n"
        if wire:
            closing.ask(self._conn, "write", wire)
        if too_long:
            self._end()
            raise RuntimeError("Response content longer than Content-Length")
        if not more:
            self._end()
            return
        try:
            await drain(self._conn)
        except ConnectionClosed as exc:
            raise ClientDisconnected(str(exc)) from None

    def finish(self) -> None:
        """End the response of an application that sends no more of it. The client sees if its body is cut."""
        if not self.over:
            closing.ask(self._conn, "write", self._head(0))
            self._end()

    @property
    def _is_bodiless(self) -> bool:
        return self.status in (204, 304)  # RFC 9110 section 6.4.1

    def _head(self, size: int | None) -> bytes:
        """Return the head, before the first body. ``size`` is that of a body in one piece."""
        if self._started:
            return b""
        self._started = True
        if self._left is None and not self._is_bodiless:
            if size is None:
                self._chunked = True
                self._headers.add("Transfer-Encoding", "chunked")
            else:
                self._headers.add("Content-Length", str(size))
        return Response(self.status)._status_line() + self._headers.serialize()

    def _end(self) -> None:
        self.over = True
        _finish(self._conn, True)


def _length(headers: Headers) -> int | None:
    """Return the ``Content-Length`` that the application gave, or ``None``."""
    values = headers.get_all("Content-Length")
    if not values:
        return None
    if len(values) > 1 or not (values[0].isascii() and values[0].isdecimal()):
        raise ValueError(f"invalid Content-Length header: {', '.join(values)}")
    return int(values[0])
