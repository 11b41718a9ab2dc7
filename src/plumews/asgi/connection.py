"""Connection of a WebSocket that an ASGI application has accepted: `conn()`, on any server.

Under `PlumeProtocol` it is the connection of the server itself. Any other server, and the test client of a framework,
gives events. There a `Conn` is made over an `EventTransport`, and ``receive`` and ``send`` of the framework's WebSocket
are replaced by those of :class:`EventChannel`, which read from that connection and write to it. So an event and a
broadcast that are sent one after the other arrive in that order.

Invariant: a WebSocket has one connection. It is kept in the scope, and made when it is first asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import Mapping, MutableMapping
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final, overload
from urllib.parse import quote

from ..conn.config import ConnConfig
from ..conn.connection import Conn
from ..conn.full_queue import drain
from ..conn.opening import opened
from ..errors import ConnectionClosed, SendQueueFull, SendTimeout
from ..http11.request import HeadLines, received_request
from .event_transport import EventTransport, Receive, Send
from .events import ClientDisconnected, Event, checked_payload, close_of, disconnect_event
from .scope import Extension, note_client

if TYPE_CHECKING:
    from ..http11.request import Request
    from .scope import Scope

__all__ = ["EventChannel", "check_open", "conn", "extension_of", "opening", "opening_events", "request_of"]

logger = logging.getLogger("plumews.server")

#: Options of a connection on another server, which itself limits messages, sends pings and compresses.
_OPTIONS: Final = ("close_timeout", "max_queue", "max_queue_bytes", "queue_bytes", "queue_size")
_SEND_OPTIONS: Final = ("send_behavior", "send_timeout")

#: Last events of a WebSocket that is denied.
_DENIALS: Final = ("websocket.close", "websocket.http.response.body")

_NOT_OPEN: Final = "the WebSocket is not open yet: await accept() before you use its connection"


@overload
def conn(websocket: Any, /, **options: Any) -> Conn: ...


@overload
def conn(scope: Any, receive: Receive, send: Send, /, **options: Any) -> Conn: ...


def conn(websocket: Any, receive: Receive | None = None, send: Send | None = None, /, **options: Any) -> Conn:
    """Return the connection of a WebSocket, for :meth:`plumews.Hub.join` and the methods of :class:`plumews.Conn`.

    Under :class:`PlumeProtocol` it is the connection of the server. On another server it takes the events over: the
    methods of ``websocket`` go on to work, and what they send keeps its place between the messages of a hub. In the
    form with ``scope, receive, send`` the application uses the connection alone from then on, and the connection ends
    with the task that has called.

    Args:
        websocket: WebSocket of FastAPI, Starlette or Litestar, accepted. Or the scope, with the next two.
        receive: second argument of an ASGI application.
        send: third argument of an ASGI application.
        options: on another server, ``queue_size``, ``queue_bytes``, ``send_behavior``, ``send_timeout`` (default
            ``None``), ``max_queue``, ``max_queue_bytes`` and ``close_timeout`` of :class:`plumews.ConnConfig`. Only the
            first call takes them. :meth:`PlumeProtocol.with_options` has those of our server.

    Raises:
        RuntimeError: the WebSocket is not accepted yet, or there is no running event loop. On another server also: its
            client has left before the first call.
        TypeError, ValueError: an argument is of another kind, or an option is unknown or wrong.
    """
    scope = _scope_of(websocket, receive, send)
    config = _config(**options)
    extension = extension_of(scope)
    if extension is None:
        check_open(websocket)
        if receive is not None and send is not None:
            channel = EventChannel(scope, receive, send, config)
            task = asyncio.current_task()
            if task is not None:
                task.add_done_callback(lambda task: channel.end())
        else:
            channel = EventChannel.of(websocket, config)
        channel.open()
        extension = channel.extension
    found: Conn = extension["conn"]
    return found


def opening(websocket: Any) -> Extension:
    """Return the extension of a framework's ``websocket`` that is not accepted yet: its connection has a request."""
    scope = _scope_of(websocket, None, None)
    extension = extension_of(scope)
    if extension is None:
        return EventChannel.of(websocket, _config()).extension
    note_client(extension.opening.request, scope)
    return extension


def opening_events(scope: Scope, receive: Receive, send: Send) -> tuple[Extension, Receive, Send]:
    """Return the extension of a WebSocket that is not accepted yet, and its ``receive`` and ``send`` from now on."""
    extension = extension_of(scope)
    if extension is not None:
        note_client(extension.opening.request, scope)
        return extension, receive, send
    channel = EventChannel(scope, receive, send, _config())
    return channel.extension, channel.receive, channel.send


def check_open(websocket: Any) -> None:
    """Raise ``RuntimeError`` unless ``websocket`` is open, as far as it tells."""
    ours, theirs = (
        getattr(getattr(websocket, name, None), "name", "")  # of Starlette
        for name in ("application_state", "client_state")
    )
    state = getattr(websocket, "connection_state", "")  # of Litestar
    if ours == "CONNECTING" or state == "init":
        raise RuntimeError(_NOT_OPEN)
    if "DISCONNECTED" in (ours, theirs) or state == "disconnect":  # its server gives no further event
        raise RuntimeError("the WebSocket is closed, or was denied")


# --- another server -------------------------------------------------------------------------------


class EventChannel:
    """The ``receive`` and ``send`` of a WebSocket whose connection is made over the events of its server.

    The connection ends when nothing refers to this object any more, because the application has returned.
    """

    __slots__ = ("_conn", "_receive", "_send", "_told", "_transport", "extension")

    def __init__(self, scope: Scope, receive: Receive, send: Send, config: ConnConfig) -> None:
        self._receive = receive
        self._send = send
        self._told = False  # websocket.disconnect is received
        try:
            self._conn = Conn(config)
        except RuntimeError:
            raise RuntimeError("no running event loop: call conn() in a coroutine, not in a thread") from None
        self._transport = EventTransport(self._conn, scope, receive, send)
        self._conn._context = copy_context()
        self._conn._handshake = _Opening()
        self._conn.connection_made(self._transport)
        self._conn._request = request_of(scope)
        self.extension = Extension()
        self.extension.opening = self._conn
        self.extension.on_open = None
        scope["extensions"] = {**(scope.get("extensions") or {}), "plumews": self.extension}

    @classmethod
    def of(cls, websocket: Any, config: ConnConfig) -> EventChannel:
        """Take over the events of a framework's ``websocket``."""
        names = ("_receive", "_send") if hasattr(websocket, "_send") else ("receive", "send")
        receive, send = (getattr(websocket, name) for name in names)
        channel = cls(websocket.scope, receive, send, config)
        setattr(websocket, names[0], channel.receive)
        setattr(websocket, names[1], channel.send)
        return channel

    def open(self) -> None:
        """Open the connection: the server has sent the 101."""
        conn = self._conn
        if "conn" not in self.extension and conn._transport is not None:
            conn._end_waiters += 1  # without a reader the peer's close is answered at once
            opened(conn)
            if self.extension.on_open is not None:
                self.extension.on_open(conn)
            self._transport.start()
        self.extension["conn"] = conn

    def end(self) -> None:
        """End the connection, because the application has returned."""
        self._transport.abort()

    def __del__(self) -> None:
        transport = getattr(self, "_transport", None)
        if transport is not None and not transport.is_closing():
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._conn._loop.call_soon_threadsafe(transport.abort)  # the collector runs in any thread

    async def receive(self) -> Event:
        """Return the next event."""
        if "conn" not in self.extension:
            event: Event = await self._receive()
            if event["type"] == "websocket.disconnect":
                self.end()
            return event
        try:
            message = await self._conn.recv()
        except ConnectionClosed as exc:
            if self._told:
                raise ClientDisconnected(str(exc)) from None
            self._told = True
            return disconnect_event(self._conn)
        return {"type": "websocket.receive", "text" if type(message) is str else "bytes": message}

    async def send(self, event: Event) -> None:
        """Send an event of the application. Raise :class:`ClientDisconnected` if the client has gone."""
        if "conn" not in self.extension:
            await self._send(event)
            if event["type"] == "websocket.accept":
                self._conn._subprotocol = event.get("subprotocol")
                self.open()
                if self._conn.closed:  # by on_open: its code leaves before the application can return
                    await self._conn.wait_closed()
            elif event["type"] in _DENIALS and not event.get("more_body", False):
                self.end()
        elif event["type"] == "websocket.send":
            await self._send_message(event)
        elif event["type"] == "websocket.close":
            if self._conn.closed:
                raise ClientDisconnected(str(self._conn._rules.closed()))
            await self._conn.close(*close_of(event, logger))  # the server closes when the application returns
        else:
            await self._send(event)

    async def _send_message(self, event: Event) -> None:
        try:
            await self._conn.send(checked_payload(event))
            if self._conn._config.send_timeout is None:
                await drain(self._conn)  # also behind a broadcast: at the return of the application its server ends it
        except ConnectionClosed as exc:
            raise ClientDisconnected(str(exc)) from None
        except SendTimeout as exc:  # an OSError, which frameworks would take for the end of the connection
            raise SendQueueFull(str(exc)) from None


class _Opening:
    """Opening handshake that another server does: no byte of it comes here."""

    __slots__ = ()

    def connected(self) -> None:
        """Do nothing."""

    def received(self, data: bytes) -> None:
        """Do nothing."""

    def lost(self) -> None:
        """Do nothing."""


@functools.lru_cache(maxsize=16)
def _config(**options: Any) -> ConnConfig:
    """Return the configuration of connections on other servers."""
    unknown = options.keys() - {*_OPTIONS, *_SEND_OPTIONS}
    if unknown:
        known = ", ".join(sorted((*_OPTIONS, *_SEND_OPTIONS)))
        raise TypeError(f"unknown option {', '.join(sorted(unknown))}: there are {known}; the server has the others")
    given: dict[str, Any] = {"send_timeout": None, **options}
    return ConnConfig(**given, max_size=None, ping_interval=None, ping_timeout=None)


# --- scopes ---------------------------------------------------------------------------------------


def _scope_of(websocket: Any, receive: Receive | None, send: Send | None) -> Scope:
    plain = isinstance(websocket, dict)
    scope = websocket if plain else getattr(websocket, "scope", None)
    if not isinstance(scope, MutableMapping) or plain != (receive is not None and send is not None):
        raise TypeError(
            "conn() takes the WebSocket of FastAPI, Starlette or Litestar, or the scope, receive and send of an ASGI "
            f"application, not {type(websocket).__name__}"
        )
    if scope.get("type") != "websocket":
        raise TypeError(f"conn() takes a WebSocket, not a request of type {scope.get('type')!r}")
    return scope  # type: ignore[return-value]


def extension_of(scope: Mapping[str, Any]) -> Extension | None:
    """Return our extension of ``scope``, ``None`` if another server has made it and nobody asked for a connection."""
    found = (scope.get("extensions") or {}).get("plumews")
    return found if isinstance(found, Extension) else None


def request_of(scope: Mapping[str, Any], path: str | None = None) -> Request:
    """Return the request that ``scope`` describes.

    ``path`` is its path without the mounts, as requests spell it (default: the path that the client has sent).
    """
    raw_path = scope.get("raw_path")
    if path is None:
        path = quote(scope["path"]) if raw_path is None else bytes(raw_path).partition(b"?")[0].decode("latin-1")
    query = bytes(scope.get("query_string") or b"").decode("latin-1")
    target = quote(f"{path}?{query}" if query else path, safe=_VISIBLE)
    fields = HeadLines()
    for name, value in scope["headers"]:
        fields.on_header(bytes(name), bytes(value))
    request = received_request(scope.get("method", "GET"), target, fields, "1.1", any_target=True)
    client = scope.get("client")
    if client is not None and client[1] is not None:
        request.remote_address = str(client[0]), int(client[1])
    note_client(request, scope)
    return request


#: Visible ASCII, which stands in a target as it is.
_VISIBLE: Final = "".join(map(chr, range(0x21, 0x7F)))
