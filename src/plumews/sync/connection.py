"""Blocking WebSocket connection: each call reads and writes the socket in the thread of its caller.

Two locks divide the work: one of reading (:mod:`plumews.sync.reader`), one of writing (:mod:`plumews.sync.writer`).
Any number of threads may receive and send.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, overload

from .. import limits
from ..client.handshake import Accepted
from ..client.reconnect import Resumption
from ..conn.attribute_hints import missing_blocking
from ..conn.config import ConnConfig
from ..constants import CloseCode, Opcode, State
from ..deflate.outbound import CompressionInfo
from ..errors import ConnectionClosedOK
from ..http11.models import Address, Request, Response
from ..protocol.codec import build_frame
from ..protocol.message import Data, checked_compress, encode_json, opcode_of, payload_of
from ..protocol.state import ProtocolState, check_close
from ..transport.forks import detach_on_fork
from ..validation import check_read_limit
from .channel import SocketChannel
from .closing import leave, raise_end, wait_for_end
from .dialing import Wire, deadline_in
from .keepalive import Keepalive, PongWaiter
from .reader import MessageReader
from .stream import Stream
from .watcher import watcher
from .writer import FrameWriter, SocketFailed

__all__ = ["Conn"]

_TEXT, _BINARY = int(Opcode.TEXT), int(Opcode.BINARY)


class Conn:
    """Blocking WebSocket connection, as :func:`plumews.sync.connect` returns it. Any thread may call any method."""

    __slots__ = (
        "__weakref__",
        "_accepted",
        "_attempt",
        "_channel",
        "_id",
        "_keepalive",
        "_peername",
        "_reader",
        "_request",
        "_rules",
        "_sockname",
        "_writer",
    )

    def __init__(
        self,
        wire: Wire,
        config: ConnConfig,
        request: Request,
        accepted: Accepted,
        attempt: tuple[int, BaseException | None],
        resumption: Resumption,
        rules: ProtocolState,
    ) -> None:
        self._channel = channel = SocketChannel(wire, config, accepted, rules)
        self._rules = channel.rules
        self._writer = FrameWriter(channel)
        self._keepalive = Keepalive(channel)
        self._reader = MessageReader(channel, self._writer, self._keepalive, accepted.rest, resumption)
        self._request = request
        self._accepted = accepted
        self._attempt = attempt
        self._id: uuid.UUID | None = None
        peername = channel.sock.getpeername()
        self._peername: Address | None = peername if isinstance(peername, tuple) else None
        self._sockname = channel.sock.getsockname()
        if hasattr(os, "register_at_fork"):
            detach_on_fork(self)
        watcher.add(self)

    if not TYPE_CHECKING:  # type checkers report an attribute that does not exist themselves

        def __getattr__(self, name: str) -> Any:
            raise missing_blocking(self, name)

    # --- receiving --------------------------------------------------------------------------------

    @overload
    def recv(self, timeout: float | None = None, decode: None = None) -> str | bytes: ...

    @overload
    def recv(self, timeout: float | None = None, *, decode: Literal[True]) -> str: ...

    @overload
    def recv(self, timeout: float | None = None, *, decode: Literal[False]) -> bytes: ...

    def recv(self, timeout: float | None = None, decode: bool | None = None) -> str | bytes:
        """Return the next message: ``str`` for text, ``bytes`` for binary.

        Several threads may wait. Each message goes to one of them.

        Args:
            timeout: Seconds to wait (default ``None``: no limit). 0 returns a message that has arrived.
            decode: True returns ``str`` for both kinds (binary must be UTF-8), False returns ``bytes`` for both.

        Raises:
            TimeoutError: No message came in time. Nothing is lost.
            ConnectionClosed: The connection is closed and no message is left. It is ``ConnectionClosedOK`` after a
                normal end.
            ConcurrencyError: A stream is still open, or this is a child of the process that has connected.
        """
        reader = self._reader
        count = -1
        popped: Any = ()
        try:
            if timeout is not None:
                popped = []
                message = reader.next_within(timeout, popped)
            else:
                with reader.lock:
                    if reader.plain:
                        # What happens for most messages: one system call, one message.
                        try:
                            for count in reader.arrivals:  # noqa: B007 - see `MessageReader`
                                break
                        except OSError as exc:
                            if exc.errno is None:  # of a signal handler
                                raise
                            count = 0
                        messages = reader.feed(reader.buffer, count)
                        reader.reads += 1
                        if len(messages) == 1 and type(messages[0]) is not tuple and not reader.parser.halted:
                            message = messages[0]
                        else:
                            reader.received(messages, count)
                            count = -1
                            popped = []
                            message = reader.next(None, popped)
                    else:
                        popped = []
                        message = reader.next(None, popped)
        except BaseException:
            if count >= 0 or popped:
                reader.broken, reader.plain = True, False
                self._channel.shut()
            raise
        if decode is None:
            return message
        if decode:
            return message if isinstance(message, str) else message.decode()
        return message.encode() if isinstance(message, str) else message

    def read_message(self, timeout: float | None = None) -> tuple[Opcode, bytes]:
        """Return the next message as ``(opcode, data)``, with ``bytes`` for both kinds.

        Args:
            timeout: As in :meth:`recv`.

        Raises:
            TimeoutError, ConnectionClosed, ConcurrencyError: As :meth:`recv`.
        """
        message = self.recv(timeout)
        return (Opcode.TEXT, message.encode()) if isinstance(message, str) else (Opcode.BINARY, message)

    def read_stream(self, timeout: float | None = None) -> Stream:
        """Return the next message as a stream of chunks, as soon as it begins.

        Set ``read_limit`` first for messages above it (default 16 MiB). For example::

            with conn.read_stream() as stream:
                for chunk in stream:
                    ...

        Args:
            timeout: Seconds to the beginning of the message, as in :meth:`recv`.

        Raises:
            TimeoutError, ConnectionClosed, ConcurrencyError: As :meth:`recv`.
        """
        return self._reader.next_stream(timeout).owned_by(self)

    def __iter__(self) -> Iterator[str | bytes]:
        """Yield messages until the connection has ended well. Raise ``ConnectionClosedError`` if it has not."""
        while True:
            try:
                message = self.recv()
            except ConnectionClosedOK:
                return
            yield message

    # --- sending ----------------------------------------------------------------------------------

    def send(self, message: Data | Iterator[Data], text: bool | None = None, *, compress: bool | None = None) -> None:
        """Send a message: ``str`` as text, bytes-like as binary. Return once the kernel has taken it.

        An iterator of these is one message, sent in pieces while they come. Until its end all other senders wait. If
        it fails after its first piece, the connection is closed with 1011, because the peer has half a message.

        Args:
            message: The message.
            text: True sends bytes (which must be UTF-8) as text, False sends ``str`` as binary (default: by type).
            compress: True compresses, False does not. ``None`` (default) compresses large messages that get smaller.
                Without permessage-deflate no message is compressed.

        Raises:
            ConnectionClosed: The connection is closed or closing.
            TypeError: The message has another type, or ``compress`` is not a bool or ``None``.
            ValueError: Text is not valid UTF-8.
            ConcurrencyError: Called by the iterator of a message in pieces, or in a child of the process that has
                connected.
        """
        writer = self._writer
        try:
            if text is None and compress is None:
                kind = type(message)
                if kind is str and len(message) <= writer.short:  # type: ignore[arg-type]
                    writer.write_short(build_frame(_TEXT, message.encode(), masked=True))  # type: ignore[union-attr]
                    return
                if kind is bytes and len(message) <= writer.short:  # type: ignore[arg-type]
                    writer.write_short(build_frame(_BINARY, message, masked=True))
                    return
            if isinstance(message, Iterator):
                writer.write_pieces(message, text, checked_compress(compress))
                return
        except SocketFailed:
            raise_end(self._channel, self._reader)
        opcode = opcode_of(message)
        if text is not None:
            opcode = _TEXT if text else _BINARY
        self.write_message(opcode, message, compress=compress)

    def write_message(self, opcode: int, data: Data, *, compress: bool | None = None) -> None:
        """Send a message of the given opcode. Raise as :meth:`send`.

        Args:
            opcode: ``Opcode.TEXT`` or ``Opcode.BINARY``.
            data: The payload; text must be valid UTF-8.
            compress: As in :meth:`send`.
        """
        self._write_messages([(opcode, payload_of(opcode, data))], checked_compress(compress))

    def write_text(self, text: str, *, compress: bool | None = None) -> None:
        """Send a text message. Raise as :meth:`send`.

        Args:
            text: The message, a ``str``.
            compress: As in :meth:`send`.
        """
        if not isinstance(text, str):
            raise TypeError(f"write_text takes a str, not {type(text).__name__}")
        self.write_message(_TEXT, text, compress=compress)

    def write_binary(self, data: bytes | bytearray | memoryview, *, compress: bool | None = None) -> None:
        """Send a binary message. Raise as :meth:`send`.

        Args:
            data: The message, bytes-like.
            compress: As in :meth:`send`.
        """
        if isinstance(data, str):
            raise TypeError("write_binary takes bytes, not str")
        self.write_message(_BINARY, data, compress=compress)

    def write_json(self, obj: Any, *, compress: bool | None = None) -> None:
        """Send an object as compact JSON in a text message. Raise as :meth:`send`.

        Args:
            obj: The object. If JSON cannot express it, ``TypeError`` or ``ValueError`` is raised and nothing sent.
            compress: As in :meth:`send`.
        """
        self.write_message(_TEXT, encode_json(obj), compress=compress)

    def write_many(self, messages: Iterable[Data], *, compress: bool | None = None) -> None:
        """Send several messages in one write. Raise as :meth:`send`. If one of them is wrong, none is sent.

        Args:
            messages: The messages, ``str`` for text and bytes-like for binary; not a single message.
            compress: As in :meth:`send`.
        """
        if isinstance(messages, (str, bytes, bytearray, memoryview)):
            raise TypeError(
                f"write_many takes several messages, such as a list, not {type(messages).__name__}: use send"
            )
        pairs = [(opcode, payload_of(opcode, data)) for data in messages for opcode in (opcode_of(data),)]
        self._write_messages(pairs, checked_compress(compress))

    def _write_messages(self, messages: list[tuple[int, bytes]], compress: bool | None) -> None:
        try:
            self._writer.write_messages(messages, compress)
        except SocketFailed:
            raise_end(self._channel, self._reader)

    # --- keepalive --------------------------------------------------------------------------------

    def ping(self, data: Data | None = None, *, timeout: float | None = None) -> float:
        """Send a ping, wait for its pong, and return the latency in seconds. Messages that come meanwhile are kept.

        Args:
            data: Payload of up to 125 bytes that no unanswered ping has (default four random bytes).
            timeout: Seconds to wait (default ``None``: until the keepalive ends the connection).

        Raises:
            TimeoutError: No pong came in time.
            ConnectionClosed: The connection is closed or closing, or ended before the pong.
            ValueError: ``data`` is too long, or an unanswered ping has it.
            TypeError: ``data`` is neither ``str`` nor bytes-like.
            ConcurrencyError: This is a child of the process that has connected.
        """
        payload = None if data is None else payload_of(_BINARY, data)
        deadline = deadline_in(timeout)
        waiter = PongWaiter()
        try:
            self._keepalive.ping(self._writer, payload, waiter)
        except SocketFailed:
            raise_end(self._channel, self._reader)
        try:
            self._reader.wait_for_pong(waiter, deadline)
        except TimeoutError:
            raise TimeoutError(f"no pong within {timeout:g} s") from None
        if not waiter.latency:
            raise self._rules.closed()
        return waiter.latency

    # --- closing ----------------------------------------------------------------------------------

    def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Send a close frame, and wait until the connection is gone. A ``recv()`` that waits in another thread ends.

        If the peer does not answer within ``close_timeout`` (default 10 s), the TCP connection is cut. Closing a second
        time has no effect.

        Args:
            code: Close code for the peer (default 1000).
            reason: Text for the peer, up to 123 bytes of UTF-8 (default empty).

        Raises:
            ValueError: Close frames cannot have this ``code``, or ``reason`` is longer than 123 bytes.
            ConcurrencyError: This is a child of the process that has connected.
        """
        check_close(code, reason)
        channel = self._channel
        channel.check_owner()
        if self._rules.state is State.CLOSED:
            return
        deadline = time.monotonic() + channel.config.close_timeout
        self._writer.close(code, reason)
        wait_for_end(channel, self._reader, self._writer, deadline)

    def abort(self) -> None:
        """Cut the TCP connection now. The close code is 1006. Raise ``ConcurrencyError`` in a child of a fork."""
        channel = self._channel
        channel.check_owner()
        channel.shut()
        wait_for_end(channel, self._reader, self._writer, time.monotonic() + limits.END_GRACE)

    def wait_closed(self, timeout: float | None = None) -> bool:
        """Wait until the connection is gone. Messages that arrive meanwhile are kept, up to ``max_queue``.

        Args:
            timeout: Seconds to wait (default ``None``: no limit).

        Returns:
            False if the connection is still there after ``timeout``.

        Raises:
            ConcurrencyError: This is a child of the process that has connected.
        """
        self._channel.check_owner()
        return self._channel.ended.wait(None if deadline_in(timeout) is None else timeout)

    def __enter__(self) -> Conn:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if not self._channel.foreign:  # else it goes on in the parent process
            self.close(CloseCode.NORMAL_CLOSURE if exc_type is None else CloseCode.INTERNAL_ERROR)

    # --- called by the watcher and at a fork ------------------------------------------------------

    def fileno(self) -> int:
        """Return the descriptor of the socket, -1 once it is closed."""
        return self._channel.sock.fileno()

    def _watch(self, now: float, resumed: bool) -> bool:
        """Do what is due. Return True to be called again when data arrives."""
        channel, writer, reader = self._channel, self._writer, self._reader
        if channel.end_by is not None and now >= channel.end_by:
            channel.shut()
        writer.reply()
        try:
            writer.write_tail()
            if self._rules.state is State.OPEN:
                self._keepalive.run(writer, now, reads=reader.reads, full=reader.full, resumed=resumed)
        except OSError:
            channel.shut()
        return reader.read_idle(now)

    def _leave(self) -> None:
        """Close at the end of the process."""
        leave(self._channel, self._reader, self._writer)

    def _forked(self) -> Iterable[int]:
        """Refuse calls from now on, in a child of the process. Return the descriptors of the parent."""
        self._channel.foreign = True
        self._reader.forked()
        self._writer.forked()
        return [self._channel.sock.fileno()]

    def __del__(self) -> None:
        if getattr(self, "_channel", None) is not None:
            self._channel.sock.close()

    # --- properties -------------------------------------------------------------------------------

    @property
    def request(self) -> Request:
        """Request that opened the connection."""
        return self._request

    @property
    def response(self) -> Response:
        """Response that opened the connection."""
        return self._accepted.response

    @property
    def subprotocol(self) -> str | None:
        """Negotiated subprotocol, or ``None``."""
        return self._accepted.subprotocol

    @property
    def attempt(self) -> int:
        """Number of the attempt that opened this connection, from 1 on."""
        return self._attempt[0]

    @property
    def last_error(self) -> BaseException | None:
        """Error that ended the attempt or the connection before this one, or ``None``."""
        return self._attempt[1]

    @property
    def id(self) -> uuid.UUID:
        """Random identity of the connection, for logs."""
        if self._id is None:
            self._id = uuid.uuid4()
        return self._id

    @property
    def compression(self) -> CompressionInfo | None:
        """Parameters and results of permessage-deflate; ``None`` on a connection without compression."""
        return None if self._channel.deflate is None else self._channel.deflate.info()

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
    def latency(self) -> float:
        """Seconds from the newest answered ping to its pong; 0.0 before the first pong."""
        return self._keepalive.latency

    @property
    def last_pong(self) -> float:
        """Time of the last pong, in seconds since the epoch; before the first pong, the time of the opening."""
        return self._keepalive.last_pong

    @property
    def read_limit(self) -> int | None:
        """Bytes of the largest message accepted (default 16 MiB), or ``None``. Effective from the next frame on."""
        return self._rules.parser.max_size

    @read_limit.setter
    def read_limit(self, value: int | None) -> None:
        self._rules.parser.max_size = check_read_limit(value)
        self._rules.parser.max_frames = limits.max_frames(value)

    @property
    def remote_address(self) -> Address | None:
        """Address of the peer of the socket, ``(host, port, ...)``; ``None`` on a Unix socket."""
        return self._peername

    @property
    def local_address(self) -> Any:
        """Local address of the socket."""
        return self._sockname

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a connection cannot be copied or pickled")

    def __repr__(self) -> str:
        return f"<plumews.sync.Conn {self.id} {self._rules.state.name} remote={self._peername!r}>"
