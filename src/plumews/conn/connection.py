"""Public API of a connection: closing, keepalive, and properties.

Reading is in ``receiver``, sending in ``fragmented``, the transport side in ``closing`` and ``core``. Attributes of the
`websockets` package have the same names here. A connection belongs to the thread of its event loop.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, Iterable
from types import TracebackType
from typing import Any, NoReturn

from .. import limits
from ..constants import CloseCode, Opcode, SendBehavior, State
from ..deflate.outbound import CompressionInfo
from ..http11.handshake import accept
from ..http11.headers import HeadersLike
from ..http11.models import Address, Request, Response
from ..http11.proxies import address_of
from ..protocol.message import Data, Pieces, payload_of
from ..protocol.state import check_close
from ..transport import send_buffer
from ..transport.awaitable import AwaitedMethod
from ..transport.forks import FOREIGN
from ..users import UserInfo
from ..validation import check_read_limit
from .attribute_hints import MissingAttribute, add_hints
from .config import ConnConfig
from .fragmented import Sending
from .logs import ConnLogger

__all__ = ["Conn"]


_logger = logging.getLogger("plumews.conn")


class Conn(Sending):
    """WebSocket connection, as handlers and callbacks get it."""

    __slots__ = {
        **dict.fromkeys(("__weakref__", "_accepted_with", "_id", "_metadata", "_request", "_response"), ""),
        "_user_info": "",
        "subprotocol": "Negotiated subprotocol, or ``None``.",
    }

    def __init__(self, config: ConnConfig, *, client: bool = False) -> None:
        super().__init__(config, client=client)
        self._id: uuid.UUID | None = None
        self._metadata: dict[str, Any] | None = None
        self._request: Request | None = None
        self._response: Response | None = None
        self._accepted_with: HeadersLike | None = None  # the headers that were added to the answer
        self.subprotocol: str | None = None
        self._user_info: UserInfo | None = None

    # --- closing ----------------------------------------------------------------------------------

    async def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Send the queued messages and a close frame, and wait until the connection is gone.

        If the peer does not answer within ``close_timeout`` (default 10 s), the TCP connection is cut. Closing a second
        time has no effect.

        Args:
            code: close code for the peer (default 1000).
            reason: text for the peer, up to 123 bytes of UTF-8 (default empty).

        Raises:
            ValueError: close frames cannot have this ``code``, or ``reason`` is longer than 123 bytes.
            ConcurrencyError: called from another thread.
        """
        self.close_nowait(code, reason)
        await self.wait_closed()

    def close_nowait(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Start :meth:`close` without waiting for its end: for callbacks. Takes and raises the same."""
        check_close(code, reason)
        self._check_thread()
        self._begin_close(code, reason)

    def abort(self) -> None:
        """Cut the TCP connection now. Queued messages are lost, and the close code is 1006."""
        self._check_thread()
        self._abort()

    async def wait_closed(self) -> None:
        """Wait until the connection is gone.

        The peer's close frame is answered at once while no task reads, even if received messages are left. A close
        frame behind more messages than the receive queue takes may not be seen until they are read.

        Raises:
            ConcurrencyError: called from another thread.
        """
        self._check_thread()
        if self._rules.state is State.CLOSED:
            await self._give_way()
            return
        if self._closed_future is None:
            self._closed_future = self._loop.create_future()
        self._inbox.touched = False
        self._end_waiters += 1
        try:
            if self._answer_deadline is not None and self._only_waits:
                self._answer_after(0.0)
            self._look_ahead()
            await asyncio.shield(self._closed_future)
        finally:
            self._end_waiters -= 1

    def add_close_callback(self, callback: Callable[[Conn], object]) -> None:
        """Call ``callback(conn)`` when the connection is gone, at once if it is already.

        Args:
            callback: plain function that gets this connection. Its exceptions go to the loop's exception handler.

        Raises:
            ConcurrencyError: called from another thread.
        """
        self._check_thread()
        if self._rules.state is State.CLOSED:
            self._run_in_context(self._call_back, callback)
        else:
            self._close_callbacks.append(callback)

    def remove_close_callback(self, callback: Callable[[Conn], object]) -> None:
        """Remove a callback of :meth:`add_close_callback`. An unknown one is ignored.

        Args:
            callback: the function that was added.

        Raises:
            ConcurrencyError: called from another thread.
        """
        self._check_thread()
        if callback in self._close_callbacks:
            self._close_callbacks.remove(callback)

    async def __aenter__(self) -> Conn:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._thread != FOREIGN:  # else it goes on in the parent process
            await self.close(CloseCode.NORMAL_CLOSURE if exc_type is None else CloseCode.INTERNAL_ERROR)

    def respond(self, status: int, text: str) -> Response:
        """Return a plain HTTP response for ``process_request``, as in the `websockets` package.

        Args:
            status: HTTP status code.
            text: body of the response.
        """
        return Response.text(status, text)

    # --- keepalive --------------------------------------------------------------------------------

    async def ping(self, data: Data | None = None) -> Awaitable[float]:
        """Send a ping, and return an awaitable of its latency in seconds.

        Args:
            data: payload of up to 125 bytes that no unanswered ping has (default four random bytes).

        Raises:
            ConnectionClosed: the connection is closed or closing. The awaitable raises it if the connection ends
                before the pong.
            ValueError: ``data`` is too long, or an unanswered ping has it.
            TypeError: ``data`` is neither ``str`` nor bytes-like.
            ConcurrencyError: called from another thread.
        """
        self._check_thread()
        if self._rules.state is not State.OPEN:
            await self._give_way()
            raise self._closed_error()
        payload = None if data is None else payload_of(Opcode.BINARY, data)
        if payload is not None and len(payload) > limits.CONTROL_PAYLOAD:
            raise ValueError(f"a ping may carry {limits.CONTROL_PAYLOAD} bytes, not {len(payload)}")
        waiter: asyncio.Future[float] = self._loop.create_future()
        self._keepalive.ping(payload, waiter)
        pause = self._state.count_await()
        if pause is not None:
            await pause
        return waiter

    @property
    def latency(self) -> float:
        """Seconds from the newest answered ping to its pong; 0.0 before the first pong."""
        return self._keepalive.latency

    @property
    def last_pong(self) -> float:
        """Time of the last pong, in seconds since the epoch; before the first pong, the time of the opening."""
        return self._keepalive.last_pong

    @property
    def ping_period(self) -> float | None:
        """Seconds between two pings (default 20), or ``None`` for no pings.

        A new value is effective at once. Setting it raises ``ValueError`` unless it is more than 0 and less than
        ``pong_wait``.
        """
        return self._keepalive.ping_period

    @ping_period.setter
    def ping_period(self, value: float | None) -> None:
        self._check_thread()
        self._keepalive.configure(self._loop.time(), ping_period=value, pong_wait=self.pong_wait)

    @property
    def pong_wait(self) -> float | None:
        """Seconds of silence after which the connection is dead (default 30), or ``None`` for never.

        Each received byte is a sign of life. Bytes that the peer acknowledges are one, too: without limit until its
        kernel has the ping, then for 4 times this time. A new value is effective at once. Setting it raises
        ``ValueError`` unless it is more than ``ping_period``.
        """
        return self._keepalive.pong_wait

    @pong_wait.setter
    def pong_wait(self, value: float | None) -> None:
        self._check_thread()
        self._keepalive.configure(self._loop.time(), ping_period=self.ping_period, pong_wait=value)
        if value is None and self._writer.answered(self._writer.written):  # nothing ends a peer that never answers
            self._may_write()

    @property
    def read_limit(self) -> int | None:
        """Bytes of the largest message accepted (default 16 MiB), or ``None``. Effective from the next frame on."""
        return self._rules.parser.max_size

    @read_limit.setter
    def read_limit(self, value: int | None) -> None:
        self._check_thread()
        self._rules.parser.max_size = check_read_limit(value)
        self._rules.parser.max_frames = limits.max_frames(value)

    # --- properties -------------------------------------------------------------------------------

    @property
    def request(self) -> Request:
        """Request that opened the connection, with ``path``, ``query`` and ``headers``.

        Reading it raises ``RuntimeError`` before the request is received. Handlers and callbacks run after that.
        """
        if self._request is None:
            raise RuntimeError("this connection has no request yet")
        return self._request

    @property
    def response(self) -> Response | None:
        """Response that opened the connection; ``None`` before that."""
        if self._response is None and self._accepted_with is not None:
            extensions = None if self._deflate is None else self._deflate.agreement.answer
            self._response = accept(
                self.request, subprotocol=self.subprotocol, extensions=extensions, headers=self._accepted_with
            )
        return self._response

    @property
    def id(self) -> uuid.UUID:
        """Random identity of the connection, for logs."""
        if self._id is None:
            self._id = uuid.uuid4()
        return self._id

    @property
    def metadata(self) -> dict[str, Any]:
        """Data of the application about this connection, empty at first."""
        if self._metadata is None:
            self._metadata = {}
        return self._metadata

    @property
    def user_info(self) -> UserInfo | None:
        """User of the connection, from a verified token or set by the application, or ``None``.

        Setting it to anything else raises ``TypeError``.
        """
        return self._user_info

    @user_info.setter
    def user_info(self, user: UserInfo | None) -> None:
        if user is not None and not isinstance(user, UserInfo):
            raise TypeError(f"user_info must be a plumews.UserInfo or None, not {type(user).__name__}")
        self._user_info = user

    @property
    def compression(self) -> CompressionInfo | None:
        """Parameters and results of permessage-deflate; ``None`` on a connection without compression."""
        if self._deflate is None or self._inflate is None:
            return None
        return self._deflate.info(self._inflate)

    @property
    def state(self) -> State:
        """State of the connection (RFC 6455 section 4.1 and 7.1)."""
        return self._rules.state

    @property
    def closed(self) -> bool:
        """True once no message can be sent any more: the connection is closing or gone."""
        return self._rules.state is not State.OPEN

    @property
    def close_code(self) -> int | None:
        """Close code of the peer: 1005 for a close frame without one, 1006 without a frame; ``None`` while open."""
        return self._rules.end_code

    @property
    def close_reason(self) -> str | None:
        """Close reason of the peer; ``None`` while open."""
        return self._rules.end_reason

    @property
    def remote_address(self) -> Address | None:
        """Address of the peer of the socket, ``(host, port, ...)``; ``None`` on a Unix socket.

        :attr:`client_address` is a ``str`` on every kind of socket.
        """
        return self._peername

    @property
    def client_address(self) -> str:
        """Address of the client without port, from the outermost of the ``trusted_proxies``.

        Without such a proxy it is the host of :attr:`remote_address`, empty on a Unix socket.
        """
        return address_of(self._peername) if self._request is None else self._request.client_address

    @property
    def local_address(self) -> Address | str | bytes | None:
        """Local address of the socket."""
        return self._sockname

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return information about the transport, as :meth:`asyncio.BaseTransport.get_extra_info` does.

        Args:
            name: name of the information: ``"peercert"``, ``"cipher"`` or ``"ssl_object"`` over TLS, ``"socket"`` for
                socket options, ``"peername"``, ``"sockname"``.
            default: result if there is none; once the connection is gone, for all names but the addresses.
        """
        if self._transport is not None:
            return self._transport.get_extra_info(name, default)
        known = {"peername": self._peername, "sockname": self._sockname}.get(name)
        return default if known is None else known

    @property
    def logger(self) -> ConnLogger:
        """Logger named ``plumews.conn`` whose records name this connection.

        Records have the attributes ``connection``, ``client``, ``room`` and ``user``. Their number is not bounded.
        """
        return ConnLogger(_logger, {"about": self})

    @property
    def send_behavior(self) -> SendBehavior:
        """Effect of a full send queue."""
        return self._config.send_behavior

    @property
    def queued_messages(self) -> int:
        """Messages in the send queue."""
        return self._writer.queued_messages

    @property
    def queued_age(self) -> float:
        """Seconds for which the oldest message of the send queue has waited; 0.0 while the peer keeps up."""
        return self._writer.queued_age

    @property
    def queued_bytes(self) -> int:
        """Bytes in the send queue."""
        return self._writer.queued_bytes

    @property
    def unsent_bytes(self) -> int | None:
        """Bytes in the transport and in the kernel that are not on the network yet. Reading it is a system call.

        On a Unix socket it counts the bytes that the peer has not read. ``None`` where the kernel does not tell.
        """
        return self._below_queue(send_buffer.unsent)

    @property
    def unacknowledged_bytes(self) -> int | None:
        """Bytes of :attr:`unsent_bytes` and those on the network that the peer's kernel has not acknowledged."""
        return self._below_queue(send_buffer.unacknowledged)

    @property
    def unanswered_bytes(self) -> int | None:
        """Bytes of messages sent since the last answered ping; ``None`` without ``unanswered_bytes``."""
        return self._writer.unanswered

    @property
    def dropped_messages(self) -> int:
        """Total messages that a full send queue refused, or dropped for newer ones."""
        return self._writer.dropped

    @property
    def evicted_messages(self) -> int:
        """Total queued messages that were dropped for newer ones, part of :attr:`dropped_messages`."""
        return self._writer.evicted

    @property
    def replaced_messages(self) -> int:
        """Total queued messages that were replaced by a newer one with the same key (``SendBehavior.CONFLATE``)."""
        return self._writer.replaced

    def __dir__(self) -> list[str]:
        own = getattr(self, "__dict__", {})  # of a subclass
        names = super().__dir__()
        return [
            name for name in names if name in own or not isinstance(getattr(type(self), name, None), MissingAttribute)
        ]

    def _forked(self) -> Iterable[int]:
        """Refuse calls in a child process. Return the descriptor of the parent's connection."""
        self._disown()
        self._close_callbacks.clear()  # it does not end here
        sock = None if self._transport is None else self._transport.get_extra_info("socket")
        return () if sock is None else (sock.fileno(),)

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        # Without the compiled modules copy.copy() would make a second connection of the first one's parts.
        raise TypeError("a connection cannot be copied or pickled")

    def __repr__(self) -> str:
        return f"<plumews.Conn {self.id} {self._rules.state.name} remote={self._peername!r}>"


async def send(self: Conn, message: Data | Pieces, text: bool | None = None, *, compress: bool | None = None) -> None:
    """Signature of :meth:`Conn.send`."""


async def recv(self: Conn, decode: bool | None = None) -> str | bytes:
    """Signature of :meth:`Conn.recv`."""
    raise NotImplementedError  # only its signature is read: AwaitedMethod shows it for the compiled method


add_hints(Conn)
for _like in (send, recv):
    setattr(Conn, _like.__name__, AwaitedMethod(getattr(Conn, _like.__name__), _like))
