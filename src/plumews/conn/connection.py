"""Public API of a connection. Each method is a short call of a function of ``core`` or of one beside it.

Receiving in general is in `receiver`, sending in `sender` and `full_queue`, the end in `closing`, the beginning in
`opening`, all hot parts in `core`. The transport drives a connection as an :class:`asyncio.BufferedProtocol`.
Attributes of the `websockets` package have the same names here. A connection belongs to the thread of its event loop.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, Iterable
from inspect import Parameter, Signature
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar, cast, overload

from .. import _compiled, limits
from ..constants import CloseCode, Opcode, SendBehavior, State
from ..deflate.outbound import CompressionInfo
from ..http11.handshake import accept
from ..http11.models import Address, Request, Response
from ..http11.proxies import address_of
from ..protocol.message import Data, Pieces, encode_json, payload_of
from ..protocol.state import check_close
from ..transport import send_buffer
from ..transport.awaitable import AwaitedMethod
from ..transport.forks import FOREIGN
from ..users import UserInfo
from ..validation import check_read_limit
from . import closing, full_queue, opening, receiver, sender
from .attribute_hints import MissingAttribute, add_hints
from .config import ConnConfig
from .core import ConnCore
from .logs import ConnLogger
from .stream import Stream

__all__ = ["Conn"]

_logger = logging.getLogger("plumews.conn")

F = TypeVar("F", bound=Callable[..., Any])


def _awaited(like: F) -> F:
    """Return the method of `ConnCore` with the name, the signature and the docstring of ``like``."""
    method = AwaitedMethod(getattr(ConnCore, like.__name__), like)
    method.__doc__ = like.__doc__
    return cast("F", method)


if TYPE_CHECKING:
    _Base = ConnCore
else:
    _short_ways = _compiled.short_ways("conn._core")
    _Base = ConnCore if _short_ways is None else _short_ways.ShortWays


class Conn(_Base, asyncio.BufferedProtocol):
    """WebSocket connection, as handlers and callbacks get it."""

    __slots__ = ("__weakref__",)

    #: That of the inherited ``__init__``, which has none where it is compiled. One in Python costs 2,000 instructions.
    __signature__ = Signature(
        [
            Parameter("config", Parameter.POSITIONAL_OR_KEYWORD, annotation=ConnConfig),
            Parameter("client", Parameter.KEYWORD_ONLY, default=False, annotation=bool),
        ]
    )

    if TYPE_CHECKING:  # to checkers no attribute may be added
        __setattr__: Callable[[str, NoReturn], None]  # type: ignore[assignment,misc]

    # --- the calls of the transport ---------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        opening.made(self, transport)

    def pause_writing(self) -> None:
        closing.guard(self, self._pause_output)

    def resume_writing(self) -> None:
        if closing.guard(self, self._output_drained):
            full_queue.may_write(self)

    def data_received(self, data: bytes) -> None:
        """Take ``data`` from a transport that does not ask for buffers.

        uvloop looks this method up for each connection: it would cost some 3,000 instructions if it were missing.
        """
        left = memoryview(data)
        while left:
            room = self.get_buffer(len(left))
            size = min(len(room), len(left))
            room[:size] = left[:size]
            self.buffer_updated(size)
            left = left[size:]

    def eof_received(self) -> bool | None:
        return closing.guard(self, closing.eof, self)  # type: ignore[no-any-return]

    # --- receiving --------------------------------------------------------------------------------

    @overload
    async def recv(self, decode: Literal[True]) -> str: ...

    @overload
    async def recv(self, decode: Literal[False]) -> bytes: ...

    @overload
    async def recv(self, decode: bool | None = None) -> str | bytes: ...

    @_awaited
    async def recv(self, decode: bool | None = None) -> str | bytes:
        """Return an awaitable of the next message: ``str`` for text, ``bytes`` for binary.

        Args:
            decode: True returns ``str`` for both kinds (binary must be UTF-8), False returns ``bytes`` for both.

        Raises:
            ConnectionClosed: the connection is closed and no message is left. It is ``ConnectionClosedOK`` after a
                normal end.
            ConcurrencyError: another task is receiving, a stream is still open, or this is another thread.
        """
        raise NotImplementedError  # never called: the decorator puts the method of the core in its place

    async def read_message(self) -> tuple[Opcode, bytes]:
        """Return the next message as ``(opcode, data)``.

        ``opcode`` is ``Opcode.TEXT`` or ``Opcode.BINARY``. ``data`` is ``bytes`` for both, and valid UTF-8 for text.

        Raises:
            ConnectionClosed: as :meth:`recv`.
            ConcurrencyError: as :meth:`recv`.
        """
        kind, payload = await receiver.read_message(self)
        return Opcode(kind), payload if isinstance(payload, bytes) else payload.encode()

    async def read_stream(self) -> Stream:
        """Return the next message as a stream of chunks, as soon as it begins.

        Raise ``read_limit`` first for messages above it (default 16 MiB). For example::

            async with await conn.read_stream() as stream:
                async for chunk in stream:
                    ...

        The stream raises ``ConnectionClosed`` if the connection ends inside the message.

        Raises:
            ConnectionClosed: as :meth:`recv`.
            ConcurrencyError: as :meth:`recv`.
        """
        return await receiver.read_stream(self)

    def __aiter__(self) -> Conn:
        return self

    # --- sending ----------------------------------------------------------------------------------

    @_awaited
    async def send(self, message: Data | Pieces, text: bool | None = None, *, compress: bool | None = None) -> None:
        """Return an awaitable that queues a message: ``str`` as text, bytes-like as binary.

        An iterator or asynchronous iterable of these is one message, sent in pieces while they come. Only one piece is
        in memory. Until its end all other senders wait as for a full queue. If it fails after its first piece, the
        connection is closed with 1011, because the peer has half a message.

        Args:
            message: the message; mutable bytes-like objects are copied.
            text: True sends bytes (which must be UTF-8) as text, False sends ``str`` as binary (default: by type).
            compress: True compresses, False does not. ``None`` (default) compresses large messages that get smaller.
                Without permessage-deflate no message is compressed.

        Raises:
            ConnectionClosed: the connection is closed or closing.
            SendTimeout: under ``SendBehavior.BLOCK``, the queue had no space within ``send_timeout``, or a message in
                pieces was not complete.
            SendQueueFull: the queue is full (``DROP``), or was full and the connection is closed (``CLOSE``). Under
                ``DROP_OLDEST`` and ``CONFLATE``, another message is being sent in pieces.
            TypeError: the message has another type, or ``compress`` is not a bool or ``None``.
            ValueError: text is not valid UTF-8.
            ConcurrencyError: called from another thread.
        """

    async def write_message(self, opcode: int, data: Data, *, compress: bool | None = None) -> None:
        """Queue a message of the given opcode. Raise as :meth:`send`.

        Args:
            opcode: ``Opcode.TEXT`` or ``Opcode.BINARY``.
            data: the payload; text must be valid UTF-8.
            compress: as in :meth:`send`.
        """
        await sender.write_message(self, opcode, data, compress)

    async def write_text(self, text: str, *, compress: bool | None = None) -> None:
        """Queue a text message. Raise as :meth:`send`.

        Args:
            text: the message, a ``str``.
            compress: as in :meth:`send`.
        """
        if not isinstance(text, str):
            raise TypeError(f"write_text takes a str, not {type(text).__name__}")
        await sender.write_message(self, Opcode.TEXT, text, compress)

    async def write_binary(self, data: bytes | bytearray | memoryview, *, compress: bool | None = None) -> None:
        """Queue a binary message. Raise as :meth:`send`.

        Args:
            data: the message, bytes-like.
            compress: as in :meth:`send`.
        """
        if isinstance(data, str):
            raise TypeError("write_binary takes bytes, not str")
        await sender.write_message(self, Opcode.BINARY, data, compress)

    async def write_json(self, obj: Any, *, compress: bool | None = None) -> None:
        """Queue an object as compact JSON in a text message. Raise as :meth:`send`.

        Args:
            obj: the object. If JSON cannot express it, ``TypeError`` or ``ValueError`` is raised and no message queued.
            compress: as in :meth:`send`.
        """
        await sender.write_message(self, Opcode.TEXT, encode_json(obj), compress)

    async def write_many(self, messages: Iterable[Data], *, compress: bool | None = None) -> None:
        """Queue several messages that leave together, in fewer writes than a :meth:`send` for each.

        Raise as :meth:`send`. Messages before the one that raised are queued, the later ones are not.

        Args:
            messages: the messages, ``str`` for text and bytes-like for binary; not a single message.
            compress: as in :meth:`send`.
        """
        await sender.write_many(self, messages, compress)

    async def drain(self) -> None:
        """Wait until all queued messages have left for the peer.

        Raises:
            ConnectionClosed: the connection ends before that.
            ConcurrencyError: called from another thread.
        """
        self._check_thread()
        await full_queue.drain(self)

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
        closing.begin_close(self, code, reason)

    def abort(self) -> None:
        """Cut the TCP connection now. Queued messages are lost, and the close code is 1006."""
        self._check_thread()
        closing.abort(self)

    async def wait_closed(self) -> None:
        """Wait until the connection is gone.

        The peer's close frame is answered at once while no task reads, even if received messages are left. A close
        frame behind more messages than the receive queue takes may not be seen until they are read.

        Raises:
            ConcurrencyError: called from another thread.
        """
        self._check_thread()
        await closing.wait_closed(self)

    def add_close_callback(self, callback: Callable[[Conn], object]) -> None:
        """Call ``callback(conn)`` when the connection is gone, at once if it is already.

        Args:
            callback: plain function that gets this connection. Its exceptions go to the loop's exception handler.

        Raises:
            ConcurrencyError: called from another thread.
        """
        self._check_thread()
        closing.add_callback(self, callback)

    def remove_close_callback(self, callback: Callable[[Conn], object]) -> None:
        """Remove a callback of :meth:`add_close_callback`. An unknown one is ignored.

        Args:
            callback: the function that was added.

        Raises:
            ConcurrencyError: called from another thread.
        """
        self._check_thread()
        if self._close_callbacks is not None and callback in self._close_callbacks:
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
            await full_queue.give_way(self)
            raise self._rules.closed()
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
        if value is None and self._ping_answered(self._written):  # nothing ends a peer that never answers
            full_queue.may_write(self)

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
    def subprotocol(self) -> str | None:
        """Negotiated subprotocol, or ``None``."""
        return self._subprotocol

    @subprotocol.setter
    def subprotocol(self, value: str | None) -> None:
        self._subprotocol = value

    @property
    def attempt(self) -> int:
        """Number of the attempt of a client that opened this connection, from 1 on; 0 on a server."""
        return 0 if self._attempt is None else self._attempt[0]

    @property
    def last_error(self) -> BaseException | None:
        """Error that ended the attempt or the connection of this client before this one, or ``None``."""
        return None if self._attempt is None else self._attempt[1]

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
    def unsent_bytes(self) -> int | None:
        """Bytes in the transport and in the kernel that are not on the network yet. Reading it is a system call.

        On a Unix socket it counts the bytes that the peer has not read. ``None`` where the kernel does not tell.
        """
        return closing.below_queue(self, send_buffer.unsent)

    @property
    def unacknowledged_bytes(self) -> int | None:
        """Bytes of :attr:`unsent_bytes` and those on the network that the peer's kernel has not acknowledged."""
        return closing.below_queue(self, send_buffer.unacknowledged)

    @property
    def dropped_messages(self) -> int:
        """Total messages that a full send queue refused, or dropped for newer ones."""
        return self._dropped

    @property
    def evicted_messages(self) -> int:
        """Total queued messages that were dropped for newer ones, part of :attr:`dropped_messages`."""
        return self._evicted

    @property
    def replaced_messages(self) -> int:
        """Total queued messages that were replaced by a newer one with the same key (``SendBehavior.CONFLATE``)."""
        return self._replaced

    def __dir__(self) -> list[str]:
        own = getattr(self, "__dict__", {})  # of a subclass
        hints = {name for name in dir(type(self)) if isinstance(getattr(type(self), name, None), MissingAttribute)}
        return [name for name in super().__dir__() if name in own or name not in hints]

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        # Without the compiled modules copy.copy() would make a second connection of the first one's parts.
        raise TypeError("a connection cannot be copied or pickled")

    def __repr__(self) -> str:
        return f"<plumews.Conn {self.id} {self._rules.state.name} remote={self._peername!r}>"


add_hints(Conn)
