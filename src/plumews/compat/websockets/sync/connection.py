"""Connection with the methods and attributes of ``websockets.sync.connection``, over a :class:`plumews.sync.Conn`.

It has a `plumews.sync.Conn`, and is none, as the connection on asyncio (``plumews.compat.websockets.asyncio``).
:attr:`Connection.plumews` is the native one.
"""

from __future__ import annotations

import codecs
import contextlib
import logging
import socket
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, cast, overload

from ....constants import CloseCode, Opcode, State
from ....protocol.codec import build_frame
from ....protocol.state import ProtocolState
from ....sync.connection import Conn
from ....sync.dialing import deadline_in
from ....sync.keepalive import PongWaiter
from ....sync.writer import SocketFailed
from ..asyncio.connection import attribute, control_payload, no_attribute
from ..client import ClientProtocol
from ..exceptions import ConcurrencyError, ConnectionClosed, ConnectionClosedOK, ProtocolError
from ..http11 import Request, Response, request_of, response_of
from ..typing import Data, DataLike, LoggerLike, Subprotocol

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["BlockingProtocol", "Connection"]

#: Options of a connection, which cannot change after its opening.
_SETTINGS: Final = ("ping_interval", "ping_timeout", "close_timeout", "max_queue")


class BlockingProtocol(ClientProtocol):
    """State of one blocking connection.

    Args:
        max_size: bytes of the largest message, ``None`` for no limit.
        settings: options of the connection.

    Attributes:
        native: connection, until its `Connection` has taken it.
    """

    __slots__ = ("native", "settings")

    def __init__(self, max_size: int | None, settings: Mapping[str, Any]) -> None:
        ProtocolState.__init__(self, client=True, max_size=max_size)
        self.late = True
        self._rcvd_first = False
        self.conn = None
        self.settings = settings
        self.native: Conn | None = None


class _PongEvent(threading.Event):
    """Event of one pong. A thread that waits for it reads the socket, if no other thread does."""

    def __init__(self, conn: Conn, ack_on_close: bool) -> None:
        super().__init__()
        self.waiter = PongWaiter()
        self._conn = conn
        self._ack_on_close = ack_on_close

    def is_set(self) -> bool:
        """Return True once the pong has come, or with ``ack_on_close`` the end of the connection."""
        return self.waiter.is_set() and (self.waiter.latency > 0 or self._ack_on_close)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the pong has come. Return False after ``timeout`` seconds, or at the end without one."""
        deadline = deadline_in(timeout)
        with contextlib.suppress(TimeoutError):
            self._conn._reader.wait_for_pong(self.waiter, deadline)
        return self.is_set()


def _setting(name: str) -> Any:
    def get(self: Connection) -> Any:
        return self._settings[name]

    def refuse(self: Connection, value: object) -> NoReturn:
        raise AttributeError(f"{name} cannot be changed: it is an option of connect()")

    return property(get, refuse, doc=f"Option ``{name}`` of ``connect()``.")


class Connection:
    """Blocking WebSocket connection. Any thread may call any method."""

    is_client = True

    def __init__(self, sock: socket.socket, protocol: BlockingProtocol, **settings: Any) -> None:
        conn, protocol.native = protocol.native, None  # else a cycle
        if conn is None:
            raise TypeError("connect() makes the connections; create_connection may call this once for each")
        for name in settings.keys() - set(_SETTINGS):
            raise TypeError(f"unknown option {name}: there are {', '.join(_SETTINGS)}")
        self._settings = protocol.settings
        for name, value in settings.items():
            if value != self._settings[name]:
                raise TypeError(f"{name} cannot be changed by create_connection: give it to connect()")
        #: Socket of the connection. Write by :meth:`send` only.
        self.socket = sock
        #: State of the connection.
        self.protocol = protocol
        self.__conn = conn
        self.__peername: Any = conn.remote_address or sock.getpeername()
        self.__request: Request | None = None
        self.__response: Response | None = None

    ping_interval = _setting("ping_interval")
    ping_timeout = _setting("ping_timeout")
    close_timeout = _setting("close_timeout")

    @property
    def plumews(self) -> Conn:
        """The :class:`plumews.sync.Conn`, for all native names."""
        return self.__conn

    # --- receiving --------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Data]:
        """Iterate over the messages. The iteration ends after close codes 1000, 1001 and 1005."""
        with contextlib.suppress(ConnectionClosedOK):
            while True:
                yield self.recv()

    @overload
    def recv(self, timeout: float | None, decode: Literal[True]) -> str: ...

    @overload
    def recv(self, timeout: float | None, decode: Literal[False]) -> bytes: ...

    @overload
    def recv(self, timeout: float | None = None, *, decode: Literal[True]) -> str: ...

    @overload
    def recv(self, timeout: float | None = None, *, decode: Literal[False]) -> bytes: ...

    @overload
    def recv(self, timeout: float | None = None, decode: bool | None = None) -> Data: ...

    def recv(self, timeout: float | None = None, decode: bool | None = None) -> Data:
        """Return the next message: ``str`` for text, ``bytes`` for binary. Several threads may wait.

        Args:
            timeout: seconds to wait, ``None`` for no limit. 0 returns a message that has arrived.
            decode: True returns ``str`` for both kinds, False returns ``bytes`` for both.

        Raises:
            TimeoutError: no message came in time. Nothing is lost.
            ConnectionClosed: the connection is closed and no message is left.
            ConcurrencyError: a message is being received by :meth:`recv_streaming`.
        """
        return self.__conn.recv(timeout, decode)  # type: ignore[arg-type]  # of the overloads

    @overload
    def recv_streaming(self, decode: Literal[True]) -> Iterator[str]: ...

    @overload
    def recv_streaming(self, decode: Literal[False]) -> Iterator[bytes]: ...

    @overload
    def recv_streaming(self, decode: bool | None = None) -> Iterator[Data]: ...

    def recv_streaming(self, decode: bool | None = None) -> Iterator[Data]:
        """Yield the next message in pieces, as they arrive. They are not always its fragments.

        Args:
            decode: True yields ``str`` for both kinds, False yields ``bytes`` for both.

        Raises:
            ConnectionClosed: the connection is closed, or ends inside the message.
            ConcurrencyError: another message is being received in pieces.
        """
        with self.__conn.read_stream() as stream:
            if decode is None:
                decode = stream.opcode is Opcode.TEXT
            decoder = codecs.getincrementaldecoder("utf-8")()
            empty = True
            for chunk in stream:
                piece: Data = decoder.decode(chunk) if decode else chunk
                if piece:
                    empty = False
                    yield piece
            if decode:
                decoder.decode(b"", True)
            if empty:
                yield "" if decode else b""

    # --- sending ----------------------------------------------------------------------------------

    def send(self, message: DataLike | Iterable[DataLike], *, text: bool | None = None) -> None:
        """Send a message: ``str`` as text, bytes-like as binary. Return once the kernel has taken it.

        Args:
            message: the message; an iterable is one message, with a fragment for each item.
            text: True sends bytes as text, False sends ``str`` as binary (default: by type).

        Raises:
            ConnectionClosed: the connection is closed.
            TypeError: the message has another type.
            ValueError: bytes that are sent as text are not valid UTF-8.
        """
        if not isinstance(message, (str, bytes, bytearray, memoryview)):
            if isinstance(message, Mapping):
                raise TypeError("data is a dict-like object")
            if not isinstance(message, Iterable):
                raise TypeError("data must be str, bytes, or iterable")
            message = iter(message)
        try:
            self.__conn.send(message, text)
        except ConnectionClosed:
            raise self.__end() from self.protocol.error

    def ping(self, data: DataLike | None = None, *, ack_on_close: bool = False) -> threading.Event:
        """Send a ping. Return an event that is set when its pong has come.

        Args:
            data: payload of up to 125 bytes (default four random bytes).
            ack_on_close: True sets the event at the end of the connection, too.

        Raises:
            ConnectionClosed: the connection is closed.
            ConcurrencyError: an unanswered ping has the same payload.
            ProtocolError: the payload is too long.
        """
        conn = self.__conn
        payload = None if data is None else control_payload(data)
        pong = _PongEvent(conn, ack_on_close)
        try:
            conn._keepalive.ping(conn._writer, payload, pong.waiter)
        except (ConnectionClosed, SocketFailed):
            raise self.__end() from self.protocol.error
        except ValueError:
            raise ConcurrencyError("already waiting for a pong with the same data") from None
        return pong

    def pong(self, data: DataLike = b"") -> None:
        """Send a pong that answers no ping.

        Args:
            data: payload of up to 125 bytes.

        Raises:
            ConnectionClosed: the connection is closed.
            ProtocolError: the payload is too long.
        """
        frame = build_frame(Opcode.PONG, control_payload(data), masked=True)
        try:
            self.__conn._writer.write_frame(frame)
        except (ConnectionClosed, SocketFailed):
            raise self.__end() from self.protocol.error

    # --- closing ----------------------------------------------------------------------------------

    def close(self, code: CloseCode | int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Send a close frame, and wait until the connection is gone. Closing a second time has no effect.

        Args:
            code: close code.
            reason: close reason, up to 123 bytes of UTF-8.

        Raises:
            ProtocolError: close frames cannot have this code or this reason.
        """
        try:
            self.__conn.close(code, reason)
        except ValueError as exc:
            if self.state is State.OPEN:
                raise ProtocolError(str(exc)) from None

    def wait_closed(self, timeout: float | None = None) -> bool:
        """Wait until the connection is gone. Return False after ``timeout`` seconds."""
        return self.__conn.wait_closed(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close(CloseCode.NORMAL_CLOSURE if exc_type is None else CloseCode.INTERNAL_ERROR)

    def __end(self) -> ConnectionClosed:
        """Wait for the end that has begun. Return the exception that tells it, with both close frames."""
        self.__conn.close()
        return self.protocol.closed()

    # --- properties -------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """State of the connection."""
        return self.protocol.state

    @property
    def close_code(self) -> int | None:
        """Close code of the peer, 1006 without a close frame; ``None`` until the connection is closed."""
        return self.protocol.end_code if self.state is State.CLOSED else None

    @property
    def close_reason(self) -> str | None:
        """Close reason of the peer; ``None`` until the connection is closed."""
        return self.protocol.end_reason if self.state is State.CLOSED else None

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
        """Address of the peer of the socket."""
        return self.__peername

    @attribute
    def request(self) -> Request:
        """Request that opened the connection."""
        if self.__request is None:
            self.__request = request_of(self.__conn.request)
        return self.__request

    @attribute
    def response(self) -> Response:
        """Response that opened the connection."""
        if self.__response is None:
            self.__response = response_of(self.__conn.response)
        return self.__response

    @attribute
    def id(self) -> uuid.UUID:
        """Random identity of the connection, for logs."""
        return self.__conn.id

    @attribute
    def logger(self) -> LoggerLike:
        """Logger of the client; its records have the connection as ``websocket``."""
        logger = self._settings.get("logger") or logging.getLogger("websockets.client")
        return logging.LoggerAdapter(logger, {"websocket": self})  # not kept: it would be a cycle

    @attribute
    def debug(self) -> bool:
        """Return True if the logger takes debug lines."""
        return self.logger.isEnabledFor(logging.DEBUG)

    @attribute
    def latency(self) -> float:
        """Seconds from the newest answered ping to its pong; 0.0 before the first pong."""
        return self.__conn.latency

    if not TYPE_CHECKING:  # checkers would take it for a sign that there is any attribute

        def __getattr__(self, name: str) -> NoReturn:
            raise no_attribute(self, name)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.__conn.id} {self.state.name} remote={self.remote_address!r}>"
