"""Blocking WebSocket connection: each call reads and writes the socket in the thread of its caller.

Two locks divide the work. The owner of the reading lock reads the socket, parses, and fills the receive queue. The
owner of the writing lock writes whole frames. The owner of reading never waits for the writing lock: a reply that
finds it taken is left to its owner. Any number of threads may receive and send.

Invariants: one owner of reading at any moment. A frame is written whole, or the connection is cut. At most one close
frame is sent.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Final, Literal, NoReturn, overload

from .. import limits
from ..client.handshake import Accepted
from ..conn.config import ConnConfig
from ..constants import COMPRESSED, CloseCode, Opcode, State, StreamEvent
from ..deflate.outbound import CompressionInfo
from ..deflate.streams import EMPTY, ContextCompressor
from ..errors import ConcurrencyError, ConnectionClosedOK, ProtocolError
from ..http11.models import Address, Request, Response
from ..protocol.codec import Utf8Validator, build_frame, fragment, mask_frames, new_mask
from ..protocol.message import Data, checked_compress, encode_json, opcode_of, payload_of
from ..protocol.state import ProtocolState, check_close
from ..transport.forks import detach_on_fork
from ..validation import check_read_limit
from .compression import ConnDeflate
from .dialing import Wire, wait_for
from .stream import Stream
from .watcher import watcher

__all__ = ["Conn"]

_OPEN, _CLOSED = State.OPEN, State.CLOSED
_TEXT, _BINARY, _CONT = int(Opcode.TEXT), int(Opcode.BINARY), int(Opcode.CONT)
_CLOSE, _PING, _PONG = int(Opcode.CLOSE), int(Opcode.PING), int(Opcode.PONG)
_BEGIN, _CHUNK, _END = int(StreamEvent.BEGIN), int(StreamEvent.CHUNK), int(StreamEvent.END)

_READ_SIZE: Final = 64 * 1024

#: Windows has no such flag: there a call is made when the socket is ready.
_DONT_WAIT: Final = getattr(socket, "MSG_DONTWAIT", 0)

#: Most characters, or bytes, of a message that is always a copied frame.
_SHORT: Final = 4 * 1024

#: Seconds after which a thread that waits for another reader looks whether there still is one.
_LOOK: Final = 0.05

#: Bytes of replies that wait for a peer that reads nothing. Further pongs are left out.
_UNSENT: Final = 64 * 1024


class _Waiter(threading.Event):
    """Wait for a pong."""

    latency = 0.0


class Conn:
    """Blocking WebSocket connection, as :func:`plumews.sync.connect` returns it. Any thread may call any method."""

    __slots__ = (
        "__weakref__",
        "_accepted",
        "_attempt",
        "_buffer",
        "_config",
        "_deflate",
        "_end_by",
        "_feed",
        "_foreign",
        "_id",
        "_in_pieces",
        "_keepalive_at",
        "_last_pong",
        "_latency",
        "_left",
        "_mid",
        "_must_reply",
        "_parser",
        "_peername",
        "_piece_lock",
        "_piece_thread",
        "_ping_at",
        "_pings",
        "_plain",
        "_pong",
        "_queue",
        "_queued_bytes",
        "_reading",
        "_reads",
        "_reads_at_ping",
        "_receive_into",
        "_request",
        "_rules",
        "_send_bytes",
        "_short",
        "_sock",
        "_sockname",
        "_stream",
        "_tail",
        "_tls",
        "_writing",
    )

    def __init__(
        self,
        wire: Wire,
        config: ConnConfig,
        request: Request,
        accepted: Accepted,
        attempt: tuple[int, BaseException | None],
    ) -> None:
        wire.sock.settimeout(None)
        self._sock = wire.sock
        self._tls = wire.tls
        self._config = config
        self._request = request
        self._accepted = accepted
        self._attempt = attempt
        self._rules = ProtocolState(client=True, max_size=config.max_size)
        self._deflate: ConnDeflate | None = None
        if accepted.agreement is not None:
            assert config.deflate is not None
            self._deflate = ConnDeflate(accepted.agreement, config.deflate, config.fragment_size)
            self._rules.allow_compressed(client=True)
        self._rules.state = _OPEN
        self._parser = self._rules.parser
        self._feed = self._parser.feed_messages
        self._receive_into = self._sock.recv_into
        self._send_bytes = self._sock.send
        self._short = min(_SHORT, config.fragment_size // 4)  # a character takes up to 4 bytes
        self._reading = threading.Lock()
        self._writing = threading.Lock()
        self._piece_lock = threading.Lock()
        self._piece_thread = 0
        self._in_pieces = False
        self._foreign = False
        # Of the owner of reading:
        self._buffer = bytearray(_READ_SIZE)
        self._left = accepted.rest
        self._mid = False
        #: True if a read can only be the next message: nothing was received before it.
        self._plain = False
        self._queue: deque[str | bytes] = deque()
        self._queued_bytes = 0
        self._stream: Stream | None = None
        self._reads = 0
        # Of the owner of writing:
        self._tail = b""
        self._pong: bytes | None = None
        self._must_reply = False
        self._pings: dict[bytes, tuple[float, _Waiter | None]] = {}
        # Keepalive and deadlines:
        self._latency = 0.0
        self._last_pong = time.time()
        self._ping_at = 0.0
        self._reads_at_ping = 0
        interval = config.ping_interval
        self._keepalive_at = None if interval is None else time.monotonic() + interval
        self._end_by: float | None = None
        self._id: uuid.UUID | None = None
        peername = self._sock.getpeername()
        self._peername: Address | None = peername if isinstance(peername, tuple) else None
        self._sockname = self._sock.getsockname()
        if hasattr(os, "register_at_fork"):
            detach_on_fork(self)
        watcher.add(self)

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
        if timeout is None:
            with self._reading:
                if self._plain:
                    # What happens for most messages: one system call, one message.
                    try:
                        count = self._receive_into(self._buffer)
                    except OSError:
                        count = 0
                    messages = self._feed(self._buffer, count)
                    self._reads += 1
                    if len(messages) == 1 and type(messages[0]) is not tuple and not self._parser.halted:
                        message: str | bytes = messages[0]
                    else:
                        self._received(messages, count)
                        message = self._wait_for_message(None)
                else:
                    message = self._wait_for_message(None)
        else:
            message = self._next_within(timeout)
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
        deadline = None if timeout is None else time.monotonic() + timeout
        self._own_reading(deadline)
        try:
            self._plain = False
            self._check_stream()
            while self._stream is not None and not self._queue:  # the rest of one that was closed early
                self._check_end()
                self._read(deadline)
                self._check_stream()
            if self._queue:
                message = self._pop()
                stream = Stream(self, _TEXT if isinstance(message, str) else _BINARY)
                stream.feed(message.encode() if isinstance(message, str) else message)
                stream.finish()
                return stream
            self._take(self._parser.start_streaming())
            try:
                while self._stream is None:
                    self._check_end()
                    self._read(deadline)
                return self._stream
            except BaseException:
                if self._stream is None:
                    self._parser.stop_streaming()
                raise
        finally:
            self._reading.release()

    def __iter__(self) -> Iterator[str | bytes]:
        """Yield messages until the connection has ended well. Raise ``ConnectionClosedError`` if it has not."""
        while True:
            try:
                message = self.recv()
            except ConnectionClosedOK:
                return
            yield message

    def _next_within(self, timeout: float) -> str | bytes:
        deadline = time.monotonic() + timeout
        self._own_reading(deadline)
        try:
            return self._wait_for_message(deadline)
        except TimeoutError:
            raise TimeoutError(f"no message within {timeout:g} s") from None
        finally:
            self._reading.release()

    def _wait_for_message(self, deadline: float | None) -> str | bytes:
        while not self._queue:
            self._check_stream()
            self._check_end()
            self._read(deadline)
        message = self._pop()
        self._plain = not (self._queue or self._left or self._mid or self._stream is not None or self._tls is not None)
        return message

    def _fill_stream(self, stream: Stream, timeout: float | None) -> None:
        """Read until ``stream`` has a chunk or its end."""
        deadline = None if timeout is None else time.monotonic() + timeout
        self._own_reading(deadline)
        try:
            while not stream._chunks and not stream._finished:
                self._check_end()
                self._read(deadline)
        finally:
            self._reading.release()

    def _pop(self) -> str | bytes:
        message = self._queue.popleft()
        self._queued_bytes -= len(message) + limits.RECEIVED_OVERHEAD
        return message

    def _check_stream(self) -> None:
        stream = self._stream
        if stream is not None and not stream.done:
            raise ConcurrencyError("a stream of this connection is still open: read or close it first")
        if stream is not None and stream._finished:
            self._stream = None

    def _check_end(self) -> None:
        if self._rules.state is _CLOSED and not self._left:
            raise self._rules.closed()

    def _own_reading(self, deadline: float | None) -> None:
        """Take the reading lock.

        Raises:
            TimeoutError: Another thread has kept it to the deadline.
        """
        if deadline is None:
            self._reading.acquire()
        elif not self._reading.acquire(timeout=max(deadline - time.monotonic(), 0)):
            raise TimeoutError

    @property
    def _full(self) -> bool:
        """True if the receive queue takes no more from the watcher."""
        held = self._queued_bytes + (0 if self._stream is None else self._stream.buffered)
        return len(self._queue) >= self._config.max_queue or held >= self._config.max_queue_bytes

    # --- reading the socket: by the owner of reading ----------------------------------------------

    def _read(self, deadline: float | None) -> None:
        """Read once, and handle what came. At the end of the connection it is closed.

        Raises:
            TimeoutError: Nothing came before ``deadline``.
        """
        self._plain = False
        if self._left:
            data, self._left = self._left, b""
            self._handle(data)
            return
        if self._end_by is not None and (deadline is None or self._end_by <= deadline):
            try:
                count, lent = self._receive(self._end_by)
            except TimeoutError:
                count, lent = 0, False
        else:
            count, lent = self._receive(deadline)
        self._reads += 1
        if lent:
            self._take(self._parser.buffer_updated(count))
            self._after_read(count)
        elif self._tls is None or not count:
            self._received(self._feed(self._buffer, count), count)
        else:
            data = self._tls.decrypt(memoryview(self._buffer)[:count])
            self._handle(data)
            if self._tls.ended:
                self._lose()

    def _receive(self, deadline: float | None) -> tuple[int, bool]:
        """Return the count of received bytes, 0 at the end, and True if they are in the memory of the parser."""
        buffer: Any = self._buffer
        lent = None
        if self._mid and self._tls is None:
            lent = self._parser.receive_buffer()
            if lent is not None:
                buffer = lent
        try:
            if deadline is None:
                return self._receive_into(buffer), lent is not None
            while True:
                if _DONT_WAIT:
                    with contextlib.suppress(BlockingIOError, InterruptedError):
                        return self._receive_into(buffer, 0, _DONT_WAIT), lent is not None
                if not wait_for(self._sock, selectors.EVENT_READ, max(deadline - time.monotonic(), 0)):
                    raise TimeoutError
                if not _DONT_WAIT:
                    return self._receive_into(buffer), lent is not None
        except TimeoutError:
            if lent is not None:
                self._take(self._parser.buffer_updated(0))
            raise
        except OSError:
            return 0, lent is not None

    def _handle(self, data: bytes) -> None:
        messages = self._feed(data)
        left = self._parser.left
        if left:
            self._left = data[len(data) - left :]
        self._take(messages)
        self._after_read(len(data) or 1)

    def _received(self, messages: list[Any], count: int) -> None:
        self._plain = False
        left = self._parser.left
        if left:
            self._left = bytes(self._buffer[count - left : count])
        self._take(messages)
        self._after_read(count)

    def _after_read(self, count: int) -> None:
        parser = self._parser
        self._mid = parser.mid_message
        if parser.error is not None:
            self._fail(parser.error)
        if not count:
            self._lose()

    def _take(self, events: list[Any]) -> None:
        """Handle what was parsed."""
        for event in events:
            if type(event) is not tuple:
                self._keep(event)
                continue
            kind, data = event
            if kind == _PING:
                self._pong = data
                self._reply()
            elif kind == _PONG:
                self._answered(data)
            elif kind == _CLOSE:
                self._rules.peer_closed(*data)
                self._end_soon()
                self._must_reply = True
                self._reply()
            else:
                self._take_data(kind, data)
            if self._rules.error is not None:
                return

    def _take_data(self, kind: int, data: Any) -> None:
        deflate = self._deflate
        try:
            if kind in (_TEXT, _BINARY):
                self._keep(data)
            elif kind == _BEGIN:
                opcode = data & ~COMPRESSED
                self._stream = Stream(self, opcode)
                if data & COMPRESSED and deflate is not None:
                    deflate.begin_stream(opcode, self._parser.max_size)
            elif kind in (_CHUNK, _END):
                self._take_chunk(kind, data)
            elif deflate is not None:
                self._keep(deflate.inflate(kind & ~COMPRESSED, data, self._parser.max_size))
        except ProtocolError as exc:
            self._parser.stop()
            self._fail(exc.with_traceback(None))

    def _take_chunk(self, kind: int, data: bytes | None) -> None:
        stream = self._stream
        assert stream is not None
        deflate = self._deflate
        if deflate is not None and deflate.streaming:
            for part in deflate.chunks(data):
                stream.feed(part)
        elif data is not None:
            stream.feed(data)
        if kind == _END:
            stream.finish()
            if stream.done:
                self._stream = None

    def _keep(self, message: str | bytes) -> None:
        if self._rules.state is _OPEN:  # else the application has closed
            self._queue.append(message)
            self._queued_bytes += len(message) + limits.RECEIVED_OVERHEAD

    def _answered(self, payload: bytes) -> None:
        """Take a pong. It answers all pings before its own, too (RFC 6455 section 5.5.3)."""
        now = time.monotonic()
        if payload not in self._pings:
            return
        for key in list(self._pings):
            sent, waiter = self._pings.pop(key)
            if waiter is not None:
                waiter.latency = now - sent
                waiter.set()
            if key == payload:
                self._latency = now - sent
                self._last_pong = time.time()
                return

    # --- the end ----------------------------------------------------------------------------------

    def _fail(self, error: ProtocolError) -> None:
        """Close after a violation by the peer, with its code."""
        if self._rules.error is None:
            self._rules.error = error
            self._end_soon()
            self._must_reply = True
            self._reply()

    def _end_soon(self) -> None:
        """Let the peer close TCP, within a second."""
        self._end_by = time.monotonic() + min(self._config.close_timeout, limits.END_GRACE)

    def _lose(self) -> None:
        """Close the socket. The caller owns reading."""
        if self._rules.state is _CLOSED:
            return
        self._rules.lost()
        for _, waiter in list(self._pings.values()):
            if waiter is not None:
                waiter.set()
        self._pings.clear()
        self._shut()
        # A sender must not meet another socket with the number of this one. It does not wait any more.
        if self._writing.acquire(timeout=limits.END_GRACE):
            self._sock.close()
            self._writing.release()
        watcher.remove(self)

    def _shut(self) -> None:
        """End TCP in both directions, which wakes the threads that wait for the socket."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

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
        if text is None and compress is None and self._deflate is None:
            kind = type(message)
            if kind is str and len(message) <= self._short:  # type: ignore[arg-type]
                frame = build_frame(_TEXT, message.encode(), masked=True)  # type: ignore[union-attr]
            elif kind is bytes and len(message) <= self._short:  # type: ignore[arg-type]
                frame = build_frame(_BINARY, message, masked=True)
            else:
                frame = None
            if frame is not None:
                self._write_short(frame)
                return
        if isinstance(message, Iterator):
            self._send_pieces(message, text, checked_compress(compress))
            return
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
        size, deflate = self._config.fragment_size, self._deflate
        if deflate is None:
            frames: list[Any] = []
            for opcode, payload in messages:
                frames += fragment(opcode, payload, size=size, mask=new_mask)
            self._write(b"".join(frames))
            return
        self._own_writing()  # a compressed message may refer to the one that is sent before it
        try:
            for opcode, payload in messages:
                data, rsv1 = deflate.compress(payload, compress)
                self._output(b"".join(fragment(opcode, data, size=size, mask=new_mask, rsv1=rsv1)))
        except OSError:
            self._writing.release()
            self._cannot_send()
        except BaseException:
            self._writing.release()
            raise
        else:
            self._writing.release()
            self._flush_replies()

    def _write(self, frames: bytes) -> None:
        """Write whole messages."""
        failed = False
        with self._writing:
            busy = self._in_pieces
            if not busy:
                if self._rules.state is not _OPEN:
                    raise self._rules.closed()
                try:
                    self._output(frames)
                except OSError:
                    failed = True
        if failed:
            self._cannot_send()
        if busy:
            self._own_writing()
            self._writing.release()
            self._write(frames)
        elif self._pong is not None or self._must_reply:
            self._flush_replies()

    def _write_short(self, frame: bytes) -> None:
        """Write one short message, in the usual case by one system call."""
        with self._writing:
            sent = 0
            if self._rules.state is _OPEN and self._tls is None and not self._tail and not self._in_pieces:
                try:
                    sent = self._send_bytes(frame)
                except OSError:
                    pass  # it fails again below
                except BaseException:
                    self._shut()
                    raise
                if 0 < sent < len(frame):
                    self._tail = frame[sent:]
        if not sent:
            self._write(frame)
        elif self._tail:
            self._write(b"")
        elif self._pong is not None or self._must_reply:
            self._flush_replies()

    def _own_writing(self) -> None:
        """Take the writing lock between two messages of an open connection.

        Raises:
            ConnectionClosed: The connection is not open.
            ConcurrencyError: This thread sends a message in pieces.
        """
        while True:
            if self._piece_thread == threading.get_ident():
                raise ConcurrencyError("this thread is sending a message in pieces: send behind its end")
            self._writing.acquire()
            if self._rules.state is not _OPEN:
                self._writing.release()
                raise self._rules.closed()
            if not self._in_pieces:
                return
            self._writing.release()
            with self._piece_lock:
                pass

    def _output(self, data: bytes, *, wait: bool = True) -> None:
        """Write ``data`` to the socket. The caller owns writing. Without ``wait`` a rest is kept for the next write.

        Raises:
            OSError: The socket has failed.
        """
        if self._tls is not None:
            data = self._tls.encrypt(data)
        if self._tail:
            data, self._tail = self._tail + data, b""
        sent = 0
        try:
            if wait:
                sent = self._send_bytes(data)
                size = len(data)
                while sent < size:
                    sent += self._send_bytes(memoryview(data)[sent:])
            elif data:
                if not _DONT_WAIT and not wait_for(self._sock, selectors.EVENT_WRITE, 0):
                    raise BlockingIOError
                sent = self._send_bytes(data, _DONT_WAIT)
        except BlockingIOError:
            pass
        except OSError:
            raise
        except BaseException:
            self._shut()  # the peer has half a frame, perhaps
            raise
        if sent < len(data):
            self._tail = data[sent:]

    def _cannot_send(self) -> NoReturn:
        """Raise the error of the connection, whose socket has failed: a close frame may have come before."""
        if self._reading.acquire(timeout=limits.END_GRACE):
            try:
                deadline = time.monotonic() + limits.END_GRACE
                with contextlib.suppress(TimeoutError):
                    while self._rules.state is not _CLOSED:
                        self._read(deadline)
                self._lose()
            finally:
                self._reading.release()
        raise self._rules.closed() from None

    # --- replies ----------------------------------------------------------------------------------

    def _reply(self) -> None:
        """Send what must be answered, unless another thread is writing: then it does that."""
        with contextlib.suppress(OSError):  # the next read tells
            self._flush_replies()

    def _flush_replies(self) -> None:
        while (self._pong is not None or self._must_reply) and self._writing.acquire(blocking=False):
            try:
                pong, self._pong = self._pong, None
                is_open = self._rules.state is _OPEN
                if pong is not None and is_open and len(self._tail) < _UNSENT:
                    self._output(build_frame(_PONG, pong, masked=True), wait=False)
                if self._must_reply:
                    self._must_reply = False
                    if is_open:
                        self._output(mask_frames(self._rules.reply_frame()), wait=False)
            finally:
                self._writing.release()

    # --- one message in pieces --------------------------------------------------------------------

    def _send_pieces(self, pieces: Iterator[Data], text: bool | None, compress: bool | None) -> None:
        """Send one message of many frames, each built when the one before has left (RFC 6455 section 5.4)."""
        kind: int | None = None
        opcode: int | None = None
        compressor: ContextCompressor | None = None
        utf8 = Utf8Validator() if text else None
        try:
            for piece in pieces:
                if opcode is None:
                    kind = opcode_of(piece)
                    self._begin_pieces()
                    opcode = kind if text is None else _TEXT if text else _BINARY
                    if self._deflate is not None:
                        compressor = self._deflate.begin(len(piece), compress)
                elif opcode_of(piece) != kind:
                    raise TypeError("the pieces of a message must all be str, or all bytes-like")
                payload = piece.encode() if isinstance(piece, str) else bytes(piece)
                if utf8 is not None and not utf8.feed(payload):
                    raise ValueError("text must be valid UTF-8")
                size = self._config.fragment_size
                for at in range(0, len(payload), size):
                    part = payload[at : at + size]
                    if compressor is not None:
                        part = compressor.piece(part)
                    first, opcode = opcode, _CONT
                    self._write_piece(first, part, rsv1=compressor is not None and first != _CONT)
            if utf8 is not None and not utf8.complete:
                raise ValueError("text must be valid UTF-8, which does not end inside a character")
            if opcode is not None:
                rsv1 = compressor is not None and opcode != _CONT
                self._write_piece(opcode, b"" if compressor is None else EMPTY, fin=True, rsv1=rsv1)
        except BaseException:
            if opcode == _CONT:
                self._send_close(CloseCode.INTERNAL_ERROR, "a message was not completed")
            raise
        finally:
            if self._piece_thread == threading.get_ident():
                self._in_pieces = False
                self._piece_thread = 0
                self._piece_lock.release()

    def _begin_pieces(self) -> None:
        self._own_writing()
        try:
            self._piece_lock.acquire()
            self._piece_thread = threading.get_ident()
            self._in_pieces = True
        finally:
            self._writing.release()

    def _write_piece(self, opcode: int, payload: bytes, *, fin: bool = False, rsv1: bool = False) -> None:
        frame = build_frame(opcode, payload, fin=fin, rsv1=rsv1, masked=True)
        failed = False
        with self._writing:
            if self._rules.state is not _OPEN:
                raise self._rules.closed()
            try:
                self._output(frame)
            except OSError:
                failed = True
        if failed:
            self._cannot_send()
        self._flush_replies()

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
        """
        payload = None if data is None else payload_of(_BINARY, data)
        if payload is not None and len(payload) > limits.CONTROL_PAYLOAD:
            raise ValueError(f"a ping may carry {limits.CONTROL_PAYLOAD} bytes, not {len(payload)}")
        waiter = _Waiter()
        deadline = None if timeout is None else time.monotonic() + timeout
        failed = False
        with self._writing:
            if self._rules.state is not _OPEN:
                raise self._rules.closed()
            try:
                self._send_ping(payload, waiter, wait=True)
            except OSError:
                failed = True
        if failed:
            self._cannot_send()
        try:
            self._wait_for_pong(waiter, deadline)
        except TimeoutError:
            raise TimeoutError(f"no pong within {timeout:g} s") from None
        if not waiter.latency:
            raise self._rules.closed()
        return waiter.latency

    def _send_ping(self, payload: bytes | None, waiter: _Waiter | None, *, wait: bool) -> None:
        if payload is None:
            payload = os.urandom(4)
            while payload in self._pings:
                payload = os.urandom(4)
        elif payload in self._pings:
            raise ValueError("an unanswered ping has the same data")
        self._pings[payload] = time.monotonic(), waiter
        self._output(build_frame(_PING, payload, masked=True), wait=wait)

    def _wait_for_pong(self, waiter: _Waiter, deadline: float | None) -> None:
        while not waiter.is_set() and self._rules.state is not _CLOSED:
            if self._reading.acquire(blocking=False):
                try:
                    while not waiter.is_set() and self._rules.state is not _CLOSED:
                        self._read(deadline)
                finally:
                    self._reading.release()
            else:
                left = _LOOK if deadline is None else min(deadline - time.monotonic(), _LOOK)
                if left <= 0:
                    raise TimeoutError
                waiter.wait(left)

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
        """
        check_close(code, reason)
        self._check_owner()
        if self._rules.state is _CLOSED:
            return
        deadline = time.monotonic() + self._config.close_timeout
        self._send_close(code, reason)
        self._wait_for_end(deadline)

    def abort(self) -> None:
        """Cut the TCP connection now. The close code is 1006."""
        self._check_owner()
        self._shut()
        self._wait_for_end(time.monotonic() + limits.END_GRACE)

    def _send_close(self, code: int, reason: str) -> None:
        """Send a close frame. Cut the connection if a sender is stuck."""
        if not self._writing.acquire(timeout=self._config.close_timeout):
            self._shut()
            return
        try:
            if self._rules.state is _OPEN:
                frame = mask_frames(self._rules.close_frame(code, reason))
                self._end_by = time.monotonic() + self._config.close_timeout
                with contextlib.suppress(OSError):  # the next read tells
                    self._output(frame, wait=False)
        finally:
            self._writing.release()

    def _wait_for_end(self, deadline: float) -> None:
        for _ in range(2):
            if self._reading.acquire(timeout=max(deadline - time.monotonic(), 0)):
                try:
                    self._read_to_end(deadline)
                finally:
                    self._reading.release()
                return
            self._shut()  # the reader finds the end
            deadline = time.monotonic() + limits.END_GRACE

    def _read_to_end(self, deadline: float) -> None:
        """Read, and discard messages, until the connection is gone. At ``deadline`` it is cut."""
        while self._rules.state is not _CLOSED:
            if self._tail and self._writing.acquire(blocking=False):
                try:
                    self._output(b"", wait=False)
                except OSError:
                    self._tail = b""
                finally:
                    self._writing.release()
            until = min(deadline, time.monotonic() + _LOOK) if self._tail else deadline
            try:
                self._read(until)
            except TimeoutError:
                if time.monotonic() >= deadline:
                    self._lose()

    def __enter__(self) -> Conn:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if not self._foreign:  # else it goes on in the parent process
            self.close(CloseCode.NORMAL_CLOSURE if exc_type is None else CloseCode.INTERNAL_ERROR)

    # --- called by the watcher --------------------------------------------------------------------

    def fileno(self) -> int:
        """Return the descriptor of the socket, -1 once it is closed."""
        return self._sock.fileno()

    def _watch(self, now: float, resumed: bool) -> bool:
        """Do what is due. Return True to be called again when data arrives."""
        if self._end_by is not None and now >= self._end_by:
            self._shut()
        if self._tail or self._pong is not None or self._must_reply:
            self._write_on()
        if self._keepalive_at is not None and self._rules.state is _OPEN:
            self._keep_alive(now, resumed)
        if self._full or not self._reading.acquire(blocking=False):
            return False
        try:
            while self._rules.state is not _CLOSED:
                if self._full:
                    return False
                self._read(now)
        except TimeoutError:
            return True
        finally:
            self._reading.release()
        return False

    def _write_on(self) -> None:
        self._reply()
        if self._tail and self._writing.acquire(blocking=False):
            try:
                self._output(b"", wait=False)
            except OSError:
                self._shut()
            finally:
                self._writing.release()

    def _keep_alive(self, now: float, resumed: bool) -> None:
        assert self._keepalive_at is not None
        if self._ping_at and (self._reads != self._reads_at_ping or self._full):
            self._ping_at = 0.0  # a sign of life, or nobody would see one
        timeout = self._config.ping_timeout
        if self._ping_at and timeout is not None and now >= self._ping_at + timeout:
            self._send_close(CloseCode.INTERNAL_ERROR, "keepalive ping timeout")
            self._shut()
        elif (now >= self._keepalive_at or resumed) and self._writing.acquire(blocking=False):
            try:
                self._keepalive_at = now + (self._config.ping_interval or 0.0)
                if not self._ping_at:
                    self._ping_at, self._reads_at_ping = now, self._reads
                if len(self._tail) < _UNSENT:
                    self._send_ping(None, None, wait=False)
            except OSError:
                self._shut()
            finally:
                self._writing.release()

    def _leave(self) -> None:
        """Tell the peer that the process ends, and close. A thread that waits here is left alone."""
        if not self._reading.acquire(blocking=False):
            return
        if self._writing.acquire(blocking=False):
            with contextlib.suppress(OSError):
                if self._rules.state is _OPEN:
                    self._output(mask_frames(self._rules.close_frame(CloseCode.GOING_AWAY)), wait=False)
            self._rules.lost()
            self._sock.close()

    def __del__(self) -> None:
        if getattr(self, "_sock", None) is not None:
            self._sock.close()

    # --- forks ------------------------------------------------------------------------------------

    def _forked(self) -> Iterable[int]:
        """Refuse calls from now on, in a child of the process. Return the descriptors of the parent."""
        self._foreign = True
        self._reading = self._writing = self._piece_lock = _ForeignLock()  # type: ignore[assignment]
        return [self._sock.fileno()]

    def _check_owner(self) -> None:
        if self._foreign:
            raise _foreign_error()

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
        return None if self._deflate is None else self._deflate.info()

    @property
    def state(self) -> State:
        """State of the connection (RFC 6455 section 4.1 and 7.1)."""
        return self._rules.state

    @property
    def closed(self) -> bool:
        """True once no message can be sent any more: the connection is closing or gone."""
        return self._rules.state is not _OPEN

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
        return self._latency

    @property
    def last_pong(self) -> float:
        """Time of the last pong, in seconds since the epoch; before the first pong, the time of the opening."""
        return self._last_pong

    @property
    def read_limit(self) -> int | None:
        """Bytes of the largest message accepted (default 16 MiB), or ``None``. Effective from the next frame on."""
        return self._parser.max_size

    @read_limit.setter
    def read_limit(self, value: int | None) -> None:
        self._parser.max_size = check_read_limit(value)
        self._parser.max_frames = limits.max_frames(value)

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


def _foreign_error() -> ConcurrencyError:
    return ConcurrencyError(
        "this connection belongs to the process that has forked this one, and goes on there: connect in the child"
    )


class _ForeignLock:
    """Lock of a connection of the parent, in a child: nobody gets it."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> NoReturn:
        """Raise `ConcurrencyError`."""
        raise _foreign_error()

    def release(self) -> None:
        """Do nothing."""

    def __enter__(self) -> NoReturn:
        raise _foreign_error()

    def __exit__(self, *_: object) -> None:
        """Do nothing."""
