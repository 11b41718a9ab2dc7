"""Connection with the methods and attributes of ``websockets.asyncio.connection``, over a :class:`plumews.Conn`.

A `Connection` is an object of its own that has a `Conn`, and no subclass. Programs keep attributes of their own on a
connection, under any name: on a `Conn` they would hide or overwrite its methods, its properties, and the private
fields that its compiled core reads. Signatures and results differ, too, so it is no `Conn` to a type checker. What a
`Conn` does at full speed is handed on: ``async for``, ``recv()`` and a ``send()`` of a whole message are the awaitables
of the `Conn` itself. Its state is a :class:`plumews.compat.websockets.server.ConnProtocol`, so that they raise the
exceptions of this tree. :attr:`Connection.plumews` is the `Conn`, for a :class:`plumews.Hub` and all that is native.

Attributes that are plain ones in `websockets` can be assigned here, too (:class:`attribute`).
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import logging
import uuid
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, NoReturn, TypeVar, cast, overload

from .... import limits
from ....conn.connection import Conn
from ....constants import CloseCode, Opcode, State
from ....protocol.codec import build_frame
from ....transport.awaitable import AwaitedMethod
from ..exceptions import ConcurrencyError, ConnectionClosed, ConnectionClosedOK, ProtocolError
from ..http11 import Request, Response, request_of, response_of
from ..server import ConnProtocol
from ..typing import Data, DataLike, LoggerLike, Subprotocol
from .broadcaster import broadcast

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Connection", "attribute", "broadcast", "control_payload", "no_attribute"]

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

_CONNECTING, _OPEN, _CLOSING, _CLOSED = State.CONNECTING, State.OPEN, State.CLOSING, State.CLOSED

#: Methods of the transport's side, which a subclass may override in `websockets`; here nothing calls them.
_INSIDE: Final = (
    *("connection_made", "connection_lost", "data_received", "eof_received", "pause_writing", "resume_writing"),
    *("drain", "handshake", "keepalive", "process_event", "send_context", "send_data", "start_keepalive"),
)

#: Names of `websockets`, of both APIs, that a connection does not have, by what to use instead.
_REPLACEMENTS: Final = {
    "the connection is driven by plumews: override recv, send and close, or wrap them": " ".join(_INSIDE),
    "use recv()": "recv_messages recv_events recv_events_thread recv_flow_control messages read_message reader",
    "use send() and recv(), which build and read the frames": "read_frame read_data_frame write_frame write_frame_sync",
    "use close(code, reason), or plumews.abort() to cut the connection": (
        "fail_connection close_connection close_transport write_close_frame"
    ),
    "use wait_closed()": "connection_lost_waiter wait_for_connection_lost",
    "use ping(), and latency": "acknowledge_pings keepalive_task keepalive_thread pings pending_pings keepalive_ping",
    "use protocol.close_exc": "close_exc connection_closed_exc connection_exc",
    "use plumews.queued_bytes": "paused drain_waiters send_in_progress",
    "use plumews.compression": "extensions available_extensions",
    "it is an option of serve()": (
        "available_subprotocols origins max_size max_queue max_queue_high max_queue_low write_limit_high"
    ),
    "use state; send() and recv() raise ConnectionClosed": "ensure_open",
    "basic_auth() sets it, or process_request of the program": "username",
}
_HINTS: Final = {name: hint for hint, names in _REPLACEMENTS.items() for name in names.split()}


class attribute(Generic[T]):  # noqa: N801 - a decorator, as property is
    """Property that a program may hide by an attribute of its own, as it may with a plain one."""

    def __init__(self, getter: Callable[[Any], T]) -> None:
        self._getter = getter
        self.__doc__ = getter.__doc__

    @overload
    def __get__(self, instance: None, owner: type) -> attribute[T]: ...

    @overload
    def __get__(self, instance: object, owner: type) -> T: ...

    def __get__(self, instance: object | None, owner: type) -> attribute[T] | T:
        return self if instance is None else self._getter(instance)


def _awaited(function: Callable[..., Any]) -> Callable[[F], F]:
    """Return a decorator that puts ``function`` in the place of a coroutine function of the same signature."""

    def decorate(like: F) -> F:
        method = AwaitedMethod(function, like)
        method.__qualname__, method.__doc__ = like.__qualname__, like.__doc__
        return cast("F", method)

    return decorate


def _recv(connection: Connection, decode: bool | None = None) -> Awaitable[Data]:
    return connection._Connection__conn.recv(decode)  # type: ignore[attr-defined,no-any-return]


def _send(connection: Connection, message: Any, *, text: bool | None = None) -> Awaitable[None]:
    conn: Conn = connection._Connection__conn  # type: ignore[attr-defined]
    if (
        text is None
        and (type(message) is str or type(message) is bytes)
        and conn._open
        and conn.queued_bytes <= connection._Connection__write_limit  # type: ignore[attr-defined]
    ):
        return conn.send(message)
    return _send_slowly(connection, conn, message, text)


async def _send_slowly(connection: Connection, conn: Conn, message: Any, text: bool | None) -> None:
    if isinstance(message, Mapping):
        raise TypeError("data is a dict-like object")
    if not isinstance(message, (str, bytes, bytearray, memoryview, AsyncIterable)):
        if not isinstance(message, Iterable):
            raise TypeError("data must be str, bytes, iterable, or async iterable")
        message = iter(message)
    async with connection._told():
        await conn.send(message, text)
        if conn.queued_bytes > connection._Connection__write_limit:  # type: ignore[attr-defined]
            await conn.drain()


class Connection:
    """WebSocket connection, as handlers get it."""

    __slots__ = (
        "__conn",
        "__dict__",
        "__ping_timeout",
        "__request",
        "__response",
        "__server",
        "__transport",
        "__weakref__",
        "__write_limit",
        "protocol",
    )

    def __init__(
        self,
        protocol: ConnProtocol,
        server: Any = None,
        *,
        ping_interval: float | None = 20,
        ping_timeout: float | None = 20,
        close_timeout: float | None = 10,
        max_queue: int | tuple[int | None, int | None] | None = 16,
        write_limit: int | tuple[int, int | None] = 2**15,
    ) -> None:
        conn, protocol.conn = protocol.conn, None  # else a cycle
        if conn is None:
            raise TypeError("serve() and connect() make the connections; create_connection may call this once for each")
        #: State of the connection.
        self.protocol = protocol
        self.__conn = conn
        self.__server = server
        self.__transport = conn._transport
        self.__request: Request | None = None
        self.__response: Response | None = None
        self.__ping_timeout = ping_timeout
        if (ping_interval, ping_timeout) != (conn._config.ping_interval, conn._config.ping_timeout):
            self.__keep_alive(ping_interval, ping_timeout)
        self.__write_limit = write_limit if isinstance(write_limit, int) else write_limit[0]

    @property
    def plumews(self) -> Conn:
        """The :class:`plumews.Conn`, for ``hub.join(room, websocket.plumews)`` and all other native names."""
        return self.__conn

    # --- receiving --------------------------------------------------------------------------------

    def __aiter__(self) -> AsyncIterator[Data]:
        """Iterate over the messages. The iteration ends after close codes 1000, 1001 and 1005."""
        if self._replaces("recv"):
            return self.__received()
        return self.__conn.__aiter__()

    async def __received(self) -> AsyncIterator[Data]:
        with contextlib.suppress(ConnectionClosedOK):
            while True:
                yield await self.recv()

    @overload
    async def recv(self, decode: Literal[True]) -> str: ...

    @overload
    async def recv(self, decode: Literal[False]) -> bytes: ...

    @overload
    async def recv(self, decode: bool | None = None) -> Data: ...

    @_awaited(_recv)
    async def recv(self, decode: bool | None = None) -> Data:
        """Return the next message: ``str`` for text, ``bytes`` for binary.

        Args:
            decode: True returns ``str`` for both kinds, False returns ``bytes`` for both.

        Raises:
            ConnectionClosed: the connection is closed and no message is left.
            ConcurrencyError: another task is receiving.
        """
        raise NotImplementedError  # never called: the decorator puts `_recv` in its place

    async def recv_streaming(self, decode: bool | None = None) -> AsyncIterator[Data]:
        """Yield the next message in pieces, as they arrive. They are not always its fragments.

        Args:
            decode: True yields ``str`` for both kinds, False yields ``bytes`` for both.

        Raises:
            ConnectionClosed: the connection is closed, or ends inside the message.
            ConcurrencyError: another task is receiving.
        """
        stream = await self.__conn.read_stream()
        if decode is None:
            decode = stream.opcode is Opcode.TEXT
        decoder = codecs.getincrementaldecoder("utf-8")()
        empty = True
        async for chunk in stream:
            piece: Data = decoder.decode(chunk) if decode else chunk
            if piece:
                empty = False
                yield piece
        if decode:
            decoder.decode(b"", True)
        if empty:
            yield "" if decode else b""

    # --- sending ----------------------------------------------------------------------------------

    @_awaited(_send)
    async def send(
        self, message: DataLike | Iterable[DataLike] | AsyncIterable[DataLike], *, text: bool | None = None
    ) -> None:
        """Send a message: ``str`` as text, bytes-like as binary. Wait while more than ``write_limit`` is queued.

        Args:
            message: the message; an iterable or asynchronous iterable is one message, with a fragment for each item.
            text: True sends bytes as text, False sends ``str`` as binary (default: by type).

        Raises:
            ConnectionClosed: the connection is closed.
            TypeError: the message has another type.
            ValueError: bytes that are sent as text are not valid UTF-8.
        """

    async def ping(self, data: DataLike | None = None) -> Awaitable[float]:
        """Send a ping, and return an awaitable of its latency in seconds.

        Args:
            data: payload of up to 125 bytes (default four random bytes).

        Raises:
            ConnectionClosed: the connection is closed.
            ConcurrencyError: an unanswered ping has the same payload.
            ProtocolError: the payload is too long.
        """
        payload = None if data is None else control_payload(data)
        async with self._told():
            if payload is not None and payload in (self.__conn._keepalive._outstanding or ()):
                raise ConcurrencyError("already waiting for a pong with the same data")
            return await self.__conn.ping(payload)

    async def pong(self, data: DataLike = b"") -> None:
        """Send a pong that answers no ping.

        Args:
            data: payload of up to 125 bytes.

        Raises:
            ConnectionClosed: the connection is closed.
            ProtocolError: the payload is too long.
        """
        frame = build_frame(Opcode.PONG, control_payload(data))
        conn = self.__conn
        async with self._told():
            conn._check_thread()
            if conn._rules.state is not _OPEN:
                raise conn._rules.closed()
            conn._queue_pong(frame)
            conn._kick()

    # --- closing ----------------------------------------------------------------------------------

    async def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Send a close frame behind the queued messages, and wait until the connection is gone.

        Args:
            code: close code.
            reason: close reason, up to 123 bytes of UTF-8.

        Raises:
            ProtocolError: close frames cannot have this code or this reason.
        """
        conn = self.__conn
        if conn._rules.state is _CONNECTING:
            conn.abort()  # a hook closes it
        elif conn._rules.state is _OPEN:
            try:
                conn.close_nowait(code, reason)
            except ValueError as exc:
                raise ProtocolError(str(exc)) from None
        await conn.wait_closed()

    def _replaces(self, name: str) -> bool:
        """Return True if a subclass or the program has replaced a method, which is then called in place of ours."""
        return name in self.__dict__ or getattr(type(self), name) is not getattr(Connection, name)

    async def wait_closed(self) -> None:
        """Wait until the connection is gone."""
        await self.__conn.wait_closed()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.close(CloseCode.NORMAL_CLOSURE if exc_type is None else CloseCode.INTERNAL_ERROR)

    @contextlib.asynccontextmanager
    async def _told(self) -> AsyncIterator[None]:
        """Raise ``ConnectionClosed`` only when the connection is gone, with both close frames."""
        try:
            yield
        except ConnectionClosed:
            await self.__conn.wait_closed()
            raise self.protocol.closed() from self.protocol.error

    # --- properties -------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """State of the connection."""
        state = self.protocol.state
        # The closing handshake is over, and only the end of the TCP connection is left.
        return _CLOSED if state is _CLOSING and self.__conn._ended else state

    @property
    def close_code(self) -> int | None:
        """Close code of the peer, 1006 without a close frame; ``None`` until the connection is closed."""
        if self.state is not _CLOSED:
            return None
        rcvd = self.protocol.close_rcvd
        return CloseCode.ABNORMAL_CLOSURE if rcvd is None else rcvd.code

    @property
    def close_reason(self) -> str | None:
        """Close reason of the peer; ``None`` until the connection is closed."""
        if self.state is not _CLOSED:
            return None
        rcvd = self.protocol.close_rcvd
        return "" if rcvd is None else rcvd.reason

    @property
    def subprotocol(self) -> Subprotocol | None:
        """Negotiated subprotocol, or ``None``."""
        return cast("Subprotocol | None", self.__conn.subprotocol)

    @property
    def local_address(self) -> Any:
        """Local address of the socket."""
        return self.__conn.local_address

    @property
    def remote_address(self) -> Any:
        """Address of the peer of the socket, empty on a Unix socket."""
        return self.__conn.remote_address or ""

    @attribute
    def request(self) -> Request | None:
        """Request that opened the connection."""
        if self.__request is None and self.__conn._request is not None:
            self.__request = request_of(self.__conn._request)
        return self.__request

    @attribute
    def response(self) -> Response | None:
        """Response that opened the connection, ``None`` before that."""
        if self.__response is None and (native := self.__conn.response) is not None:
            self.__response = response_of(native)
        return self.__response

    def _answered(self, response: Response) -> None:
        """Note the response to the request."""
        self.__response = response

    @attribute
    def id(self) -> uuid.UUID:
        """Random identity of the connection, for logs."""
        return self.__conn.id

    @attribute
    def logger(self) -> LoggerLike:
        """Logger of the server; its records have the connection as ``websocket``."""
        logger = getattr(self.__server, "logger", None) or logging.getLogger("websockets.server")
        return logging.LoggerAdapter(logger, {"websocket": self})  # not kept: it would be a cycle

    @attribute
    def debug(self) -> bool:
        """Return True if the logger takes debug lines."""
        return self.logger.isEnabledFor(logging.DEBUG)

    @attribute
    def loop(self) -> asyncio.AbstractEventLoop:
        """Event loop of the connection."""
        return self.__conn._loop

    @attribute
    def transport(self) -> asyncio.Transport:
        """Transport of the connection, for its socket and the certificate of its peer. Write by :meth:`send` only."""
        return cast("asyncio.Transport", self.__transport)

    @attribute
    def server(self) -> Any:
        """Server of the connection."""
        return self.__server

    @attribute
    def latency(self) -> float:
        """Seconds from the newest answered ping to its pong; 0.0 before the first pong."""
        return self.__conn.latency

    @property
    def ping_interval(self) -> float | None:
        """Seconds between two pings, or ``None``. A new value is effective at once."""
        return self.__conn.ping_period

    @ping_interval.setter
    def ping_interval(self, seconds: float | None) -> None:
        self.__keep_alive(seconds, self.__ping_timeout)

    @property
    def ping_timeout(self) -> float | None:
        """Seconds for a sign of life after a ping, or ``None``. A new value is effective at once."""
        return self.__ping_timeout

    @ping_timeout.setter
    def ping_timeout(self, seconds: float | None) -> None:
        self.__keep_alive(self.ping_interval, seconds)

    def __keep_alive(self, interval: float | None, timeout: float | None) -> None:
        conn = self.__conn
        wait = None if interval is None or timeout is None else interval + timeout
        conn._keepalive.configure(conn._loop.time(), ping_period=interval, pong_wait=wait)
        self.__ping_timeout = timeout

    @attribute
    def close_timeout(self) -> float | None:
        """Seconds for the closing handshake, or ``None``."""
        timeout = self.__conn._config.close_timeout
        return None if timeout >= FOREVER else timeout

    # --- legacy API -------------------------------------------------------------------------------

    @attribute
    def path(self) -> str:
        """Path of the request with its query (legacy)."""
        return "" if self.request is None else self.request.path

    @attribute
    def request_headers(self) -> Any:
        """Headers of the request (legacy)."""
        return None if self.request is None else self.request.headers

    @attribute
    def response_headers(self) -> Any:
        """Headers of the response (legacy)."""
        return None if self.response is None else self.response.headers

    @attribute
    def origin(self) -> Any:
        """Origin of the page that connects, or ``None`` (legacy)."""
        return None if self.request is None else self.request.headers.get("Origin")

    @attribute
    def open(self) -> bool:
        """Return True while messages can be sent (legacy)."""
        return self.state is _OPEN

    @attribute
    def closed(self) -> bool:
        """Return True after the end of the connection (legacy)."""
        return self.state is _CLOSED

    @attribute
    def host(self) -> Any:
        """Local address without the port (legacy)."""
        address = self.local_address
        return address[0] if isinstance(address, tuple) else None

    @attribute
    def port(self) -> Any:
        """Local port (legacy)."""
        address = self.local_address
        return address[1] if isinstance(address, tuple) else None

    @attribute
    def secure(self) -> bool:
        """Return True over TLS (legacy)."""
        return self.__transport is not None and self.__transport.get_extra_info("sslcontext") is not None

    if not TYPE_CHECKING:  # checkers would take it for a sign that there is any attribute

        def __getattr__(self, name: str) -> NoReturn:
            raise no_attribute(self, name)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.__conn.id} {self.state.name} remote={self.remote_address!r}>"


#: Seconds that stand for no timeout.
FOREVER: Final = 10 * 365 * 86_400.0


def no_attribute(connection: object, name: str) -> AttributeError:
    """Return the error for a name that a connection does not have, with what to use instead."""
    hint = f": {_HINTS[name]}" if name in _HINTS else ""
    return AttributeError(f"{type(connection).__name__!r} object has no attribute {name!r}{hint}")


def control_payload(data: DataLike) -> bytes:
    """Return the payload of a ping or a pong. Raise ``TypeError`` or `ProtocolError` if it cannot be one."""
    if not isinstance(data, (str, bytes, bytearray, memoryview)):
        raise TypeError("data must be str or bytes-like")
    payload = data.encode() if isinstance(data, str) else bytes(data)
    if len(payload) > limits.CONTROL_PAYLOAD:
        raise ProtocolError("control frame too long")
    return payload


def overridden(kind: type[Connection]) -> list[str]:
    """Return the methods of a subclass that nothing calls here."""
    return [name for name in _INSIDE if hasattr(kind, name)]
