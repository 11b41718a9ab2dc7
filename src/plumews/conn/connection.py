"""`Conn`: one WebSocket connection, as applications see it (layer 3).

Reading is in `receiving`, writing in `sending`, the wire in `link`; here are the closing, the keepalive,
and what is to be known about a connection. Names are those of the `websockets` package and of the seed. A
connection belongs to the thread of its event loop.
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
    """A WebSocket connection. ``serve`` makes them; handlers and callbacks get them."""

    __slots__ = {
        **dict.fromkeys(("__weakref__", "_accepted_with", "_id", "_metadata", "_request", "_response"), ""),
        "_user_info": "",
        "subprotocol": "The subprotocol that was agreed on, or ``None``.",
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
        """Close the connection: what was queued leaves first, then the close frame; wait for the peer's.

        Ends within the close timeout (default 10 s), then the TCP connection is cut. Closing twice is harmless;
        the first code counts.

        Raises:
            ValueError: ``code`` may not stand in a close frame, or ``reason`` is longer than 123 bytes.
        """
        self.close_nowait(code, reason)
        await self.wait_closed()

    def close_nowait(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Begin what :meth:`close` does, without waiting for its end: for callbacks."""
        check_close(code, reason)
        self._check_thread()
        self._begin_close(code, reason)

    def abort(self) -> None:
        """Cut the TCP connection now. What is queued is lost, the peer sees 1006."""
        self._check_thread()
        self._abort()

    async def wait_closed(self) -> None:
        """Wait until the connection is gone.

        A task that waits here reads no more: unless another one does, the peer's close is answered at once, although
        messages are left. One behind more than the receive queue takes may not be seen before these are read.
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
        """Call ``callback(conn)`` when the connection is gone; at once if it is."""
        self._check_thread()
        if self._rules.state is State.CLOSED:
            self._run_in_context(self._call_back, callback)
        else:
            self._close_callbacks.append(callback)

    def remove_close_callback(self, callback: Callable[[Conn], object]) -> None:
        """Take back what :meth:`add_close_callback` was given; harmless if it is not there."""
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
        """A plain HTTP answer for ``process_request`` to return, as in the `websockets` package."""
        return Response.text(status, text)

    # --- keepalive --------------------------------------------------------------------------------

    async def ping(self, data: Data | None = None) -> Awaitable[float]:
        """Send a ping; the awaitable that this returns gives its latency in seconds.

        Args:
            data: up to 125 bytes that are not on their way in another ping; by default four random ones.

        Raises:
            ConnectionClosed: the connection is closed, or closing; from the awaitable, if it ends before the pong.
            ValueError: ``data`` is too long or in use. TypeError: it is neither ``str`` nor bytes-like.
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
        """Seconds that the newest answered ping took; 0.0 before there was one."""
        return self._keepalive.latency

    @property
    def last_pong(self) -> float:
        """When the last pong arrived, in seconds since the epoch; the opening before the first (the seed)."""
        return self._keepalive.last_pong

    @property
    def ping_period(self) -> float | None:
        """Seconds between two pings (default 20), ``None`` for no pings. Setting it is effective at once.

        Raises ``ValueError`` unless it is more than 0 and less than ``pong_wait``.
        """
        return self._keepalive.ping_period

    @ping_period.setter
    def ping_period(self, value: float | None) -> None:
        self._check_thread()
        self._keepalive.configure(self._loop.time(), ping_period=value, pong_wait=self.pong_wait)

    @property
    def pong_wait(self) -> float | None:
        """Seconds of silence at which the connection is dead (default 30), ``None`` for never.

        Any received byte counts as a sign of life, and so do bytes that the peer acknowledges: without limit until its
        kernel has the ping, then for 4 times this time. Setting it is effective at once; raises ``ValueError``
        unless it is more than ``ping_period``.
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
        """Largest message accepted, in bytes (default 16 MiB), ``None`` for no limit. Effective at the next header."""
        return self._rules.parser.max_size

    @read_limit.setter
    def read_limit(self, value: int | None) -> None:
        self._check_thread()
        self._rules.parser.max_size = check_read_limit(value)
        self._rules.parser.max_frames = limits.max_frames(value)

    # --- what is to be known ----------------------------------------------------------------------

    @property
    def request(self) -> Request:
        """The request that opened the connection: ``path``, ``query``, ``headers``.

        Raises ``RuntimeError`` before it was read, which handlers and callbacks never see.
        """
        if self._request is None:
            raise RuntimeError("this connection has no request yet")
        return self._request

    @property
    def response(self) -> Response | None:
        """The answer that opened the connection; ``None`` before it was given."""
        if self._response is None and self._accepted_with is not None:
            extensions = None if self._deflate is None else self._deflate.agreement.answer
            self._response = accept(
                self.request, subprotocol=self.subprotocol, extensions=extensions, headers=self._accepted_with
            )
        return self._response

    @property
    def id(self) -> uuid.UUID:
        """A random identity, for logs."""
        if self._id is None:
            self._id = uuid.uuid4()
        return self._id

    @property
    def metadata(self) -> dict[str, Any]:
        """The application's own data about this connection (the seed's ``Metadata``)."""
        if self._metadata is None:
            self._metadata = {}
        return self._metadata

    @property
    def user_info(self) -> UserInfo | None:
        """User at the other end, from a verified token or set by the application; ``None`` without one.

        Raises ``TypeError`` if it is set to anything else.
        """
        return self._user_info

    @user_info.setter
    def user_info(self, user: UserInfo | None) -> None:
        if user is not None and not isinstance(user, UserInfo):
            raise TypeError(f"user_info must be a plumews.UserInfo or None, not {type(user).__name__}")
        self._user_info = user

    @property
    def compression(self) -> CompressionInfo | None:
        """What was agreed on about permessage-deflate, and what came of it; ``None`` where nothing is compressed."""
        if self._deflate is None or self._inflow is None:
            return None
        return self._deflate.info(self._inflow)

    @property
    def state(self) -> State:
        """State of the connection, as RFC 6455 has it."""
        return self._rules.state

    @property
    def closed(self) -> bool:
        """Whether nothing can be sent any more: the closing has begun, or the connection is gone."""
        return self._rules.state is not State.OPEN

    @property
    def close_code(self) -> int | None:
        """The peer's close code, 1005 if its close frame had none, 1006 if there was no frame; ``None`` while open."""
        return self._rules.end_code

    @property
    def close_reason(self) -> str | None:
        """The peer's close reason; ``None`` while open."""
        return self._rules.end_reason

    @property
    def remote_address(self) -> Address | None:
        """Address of the peer as the socket tells it: ``(host, port, ...)``; ``None`` on a Unix socket.

        :attr:`client_address` is a ``str`` on every kind of socket.
        """
        return self._peername

    @property
    def client_address(self) -> str:
        """The client's address without port, as the outermost of the ``trusted_proxies`` saw it.

        Without such a proxy it is that of :attr:`remote_address`; empty on a Unix socket.
        """
        return address_of(self._peername) if self._request is None else self._request.client_address

    @property
    def local_address(self) -> Address | str | bytes | None:
        """Our address as the socket tells it."""
        return self._sockname

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what the transport knows under ``name``, as :meth:`asyncio.BaseTransport.get_extra_info` does.

        Such as ``"peercert"``, ``"cipher"`` and ``"ssl_object"`` of a connection over TLS, and ``"socket"``, which is
        for options of the socket alone.

        Args:
            name: which of them.
            default: returned where there is none, and for all but the addresses once the connection is gone.
        """
        if self._transport is not None:
            return self._transport.get_extra_info(name, default)
        known = {"peername": self._peername, "sockname": self._sockname}.get(name)
        return default if known is None else known

    @property
    def logger(self) -> ConnLogger:
        """Logger whose records say which connection they are about, as those of plumews do.

        Its name is ``plumews.conn``. Records have the fields ``connection``, ``client``, ``room`` and ``user``.
        """
        return ConnLogger(_logger, {"about": self})

    @property
    def send_behavior(self) -> SendBehavior:
        """What a full send queue does."""
        return self._config.send_behavior

    @property
    def queued_messages(self) -> int:
        """Messages that wait in the send queue."""
        return self._writer.queued_messages

    @property
    def queued_age(self) -> float:
        """Seconds that the oldest message in the send queue has waited; 0.0 while the peer keeps up."""
        return self._writer.queued_age

    @property
    def queued_bytes(self) -> int:
        """Bytes that wait in the send queue."""
        return self._writer.queued_bytes

    @property
    def unsent_bytes(self) -> int | None:
        """Bytes below the send queue that are not on the network yet: in the transport and in the kernel.

        On a Unix socket they are what the peer has not read. ``None`` where the kernel cannot be asked, which takes a
        system call.
        """
        return self._below_queue(send_buffer.unsent)

    @property
    def unacknowledged_bytes(self) -> int | None:
        """The same and the bytes on the network that the peer's kernel has not acknowledged."""
        return self._below_queue(send_buffer.unacknowledged)

    @property
    def unanswered_bytes(self) -> int | None:
        """Bytes of messages that were sent since the last ping that was answered; ``None`` if they are not bounded."""
        return self._writer.unanswered

    @property
    def dropped_messages(self) -> int:
        """Messages that a full send queue refused, or dropped for others, in all."""
        return self._writer.dropped

    @property
    def evicted_messages(self) -> int:
        """Those of the dropped messages that had been queued before, and gave way to newer ones."""
        return self._writer.evicted

    @property
    def replaced_messages(self) -> int:
        """Queued messages in whose stead a newer one with their key was sent (``SendBehavior.CONFLATE``), in all."""
        return self._writer.replaced

    def __dir__(self) -> list[str]:
        own = getattr(self, "__dict__", {})  # of a subclass
        names = super().__dir__()
        return [
            name for name in names if name in own or not isinstance(getattr(type(self), name, None), MissingAttribute)
        ]

    def _forked(self) -> Iterable[int]:
        """This process is a child of the one that has the connection. Return its descriptor."""
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
    """How :meth:`Conn.send` is called."""


async def recv(self: Conn, decode: bool | None = None) -> str | bytes:
    """How :meth:`Conn.recv` is called."""
    raise NotImplementedError


add_hints(Conn)
for _like in (send, recv):
    setattr(Conn, _like.__name__, AwaitedMethod(getattr(Conn, _like.__name__), _like))
