"""Reading of one blocking connection: from the socket through the parser to the receive queue.

The owner of the reading lock reads the socket, parses, and fills the receive queue. It never waits for the writing
lock.

A signal handler that raises, as that of Ctrl-C does, runs behind any call. Behind one of ``recv_into`` the count would
be lost, and the data with it. A ``for`` loop stores the count before: no handler runs between an iterator in C and the
target of the loop. An exception that passes from there to the end of the handling cuts the connection.

Invariants: one owner of reading at any moment. No data is lost while the connection goes on.
"""

from __future__ import annotations

import itertools
import logging
import selectors
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Any, Final

from .. import limits
from ..client.reconnect import Resumption
from ..constants import COMPRESSED, Opcode, State, StreamEvent
from ..errors import ConcurrencyError, ProtocolError
from .channel import DONT_WAIT, LOOK, ForeignLock, SocketChannel
from .dialing import deadline_in, wait_for
from .keepalive import Keepalive, PongWaiter
from .stream import Stream
from .writer import FrameWriter

__all__ = ["MessageReader"]

logger = logging.getLogger("plumews.client")

_OPEN, _CLOSED = State.OPEN, State.CLOSED
_TEXT, _BINARY = int(Opcode.TEXT), int(Opcode.BINARY)
_CLOSE, _PING, _PONG = int(Opcode.CLOSE), int(Opcode.PING), int(Opcode.PONG)
_BEGIN, _CHUNK, _END = int(StreamEvent.BEGIN), int(StreamEvent.CHUNK), int(StreamEvent.END)

_READ_SIZE: Final = 64 * 1024


class MessageReader:
    """Receiving half of a connection. Any thread may call it.

    Args:
        channel: Socket and state.
        writer: Sender of replies.
        keepalive: Receiver of pongs.
        rest: Bytes that came behind the response.
        resumption: Observer of the messages that the application gets.

    Attributes:
        lock: Reading lock.
        plain: True if a read can only be the next message: nothing was received before it.
        broken: True if received data is lost: what follows it is not read.
        parser: Parser of frames.
        reads: Reads of the socket until now.
        buffer: Memory that the socket is read into.
        feed: Function that parses the first bytes of the buffer.
        arrivals: Iterator that receives into the buffer, and returns the count of bytes.
    """

    __slots__ = (
        "_channel",
        "_count",
        "_keepalive",
        "_left",
        "_mid",
        "_polls",
        "_queue",
        "_queued_bytes",
        "_resumption",
        "_rules",
        "_stream",
        "_tls",
        "_writer",
        "arrivals",
        "broken",
        "buffer",
        "feed",
        "lock",
        "parser",
        "plain",
        "reads",
    )

    def __init__(
        self, channel: SocketChannel, writer: FrameWriter, keepalive: Keepalive, rest: bytes, resumption: Resumption
    ) -> None:
        self._channel = channel
        self._writer = writer
        self._keepalive = keepalive
        self._rules = channel.rules
        self._tls = channel.tls
        self.parser = channel.rules.parser
        self.feed = self.parser.feed_messages
        self.lock = threading.Lock()
        self.plain = False
        self.broken = False
        self.reads = 0
        self.buffer = bytearray(_READ_SIZE)
        self.arrivals, self._polls = self._iterators(self.buffer)
        self._count = -1
        self._left = rest
        self._mid = False
        self._queue: deque[str | bytes] = deque()
        self._queued_bytes = 0
        self._stream: Stream | None = None
        self._resumption = resumption if resumption.observes else None

    def forked(self) -> None:
        """Refuse calls from now on, in a child of the process."""
        self.lock = ForeignLock()  # type: ignore[assignment]

    @property
    def full(self) -> bool:
        """True if the receive queue takes no more from the watcher."""
        held = self._queued_bytes + (0 if self._stream is None else self._stream.buffered)
        config = self._channel.config
        return len(self._queue) >= config.max_queue or held >= config.max_queue_bytes

    # --- messages ---------------------------------------------------------------------------------

    def next(self, deadline: float | None, popped: list[str | bytes]) -> str | bytes:
        """Return the next message, and append it to ``popped`` before. The caller owns reading.

        Raises:
            TimeoutError: None came before ``deadline``.
            ConnectionClosed: The connection is closed and no message is left.
            ConcurrencyError: A stream is still open.
        """
        if self.broken:
            self._queue.clear()
        while not self._queue:
            self._check_stream()
            self._check_end()
            self.read(deadline)
        message = self._pop(popped)
        self.plain = not (
            self._queue
            or self._left
            or self._mid
            or self._stream is not None
            or self._tls is not None
            or self._resumption is not None
        )
        return message

    def next_within(self, timeout: float, popped: list[str | bytes]) -> str | bytes:
        """Return the next message. Raise ``TimeoutError`` after ``timeout`` seconds, and else as `next`."""
        deadline = deadline_in(timeout)
        try:
            self._own(deadline)
            try:
                return self.next(deadline, popped)
            finally:
                self.lock.release()
        except TimeoutError:
            raise TimeoutError(f"no message within {timeout:g} s") from None

    def next_stream(self, timeout: float | None) -> Stream:
        """Return the next message as a stream. Raise as `next_within`."""
        deadline = deadline_in(timeout)
        self._own(deadline)
        try:
            self.plain = False
            if self.broken:
                self._queue.clear()
            self._check_stream()
            while self._stream is not None and not self._queue:  # the rest of one that was closed early
                self._check_end()
                self.read(deadline)
                self._check_stream()
            if self._queue:
                message = self._pop([])
                stream = Stream(self, _TEXT if isinstance(message, str) else _BINARY)
                stream.feed(message.encode() if isinstance(message, str) else message)
                stream.finish()
                return stream
            self._take(self.parser.start_streaming())
            try:
                while self._stream is None:
                    self._check_end()
                    self.read(deadline)
                return self._stream
            except BaseException:
                if self._stream is None:
                    self.parser.stop_streaming()
                raise
        finally:
            self.lock.release()

    def fill(self, stream: Stream, timeout: float | None) -> None:
        """Read until ``stream`` has a chunk or its end. Raise as `next_within`."""
        deadline = deadline_in(timeout)
        self._own(deadline)
        try:
            while not stream.ready:
                self._check_end()
                self.read(deadline)
        finally:
            self.lock.release()

    def wait_for_pong(self, waiter: PongWaiter, deadline: float | None) -> None:
        """Read until ``waiter`` is set, or the connection is closed. Raise ``TimeoutError`` at ``deadline``."""
        while not waiter.is_set() and self._rules.state is not _CLOSED:
            if self.lock.acquire(blocking=False):
                try:
                    while not waiter.is_set() and self._rules.state is not _CLOSED:
                        self.read(deadline)
                finally:
                    self.lock.release()
            else:
                left = LOOK if deadline is None else min(deadline - time.monotonic(), LOOK)
                if left <= 0:
                    raise TimeoutError
                waiter.wait(left)

    def read_idle(self, now: float) -> bool:
        """Read what has arrived while no caller does, up to the limits of the queue.

        Returns:
            True if all was read: more may arrive.
        """
        if self.full or not self.lock.acquire(blocking=False):
            return False
        try:
            while self._rules.state is not _CLOSED:
                if self.full:
                    return False
                self.read(now)
        except TimeoutError:
            return True
        finally:
            self.lock.release()
        return False

    def _own(self, deadline: float | None) -> None:
        """Take the reading lock. Raise ``TimeoutError`` if another thread has kept it to the deadline."""
        seconds = -1 if deadline is None else max(deadline - time.monotonic(), 0)
        owned = False
        try:
            for owned in map(self.lock.acquire, (True,), (seconds,)):  # noqa: B007
                break
            if not owned:
                raise TimeoutError
        except BaseException:
            if owned:
                self.lock.release()
            raise

    def _pop(self, popped: list[str | bytes]) -> str | bytes:
        try:
            message = self._queue.popleft()
            popped.append(message)
            self._queued_bytes -= len(message) + limits.RECEIVED_OVERHEAD
            if self._resumption is not None:
                self._observe(self._resumption, message)
        except BaseException:
            self.broken = True
            self._channel.shut()
            raise
        return message

    def _observe(self, resumption: Resumption, message: str | bytes) -> None:
        """Note the position of a message, before the application gets it."""
        try:
            resumption.observe(message)
            if not resumption.observes:
                self._resumption = None
        except Exception:
            self._resumption = None
            logger.exception("position_of failed")

    def _check_stream(self) -> None:
        stream = self._stream
        if stream is not None and not stream.done:
            raise ConcurrencyError("a stream of this connection is still open: read or close it first")
        if stream is not None and stream.complete:
            self._stream = None

    def _check_end(self) -> None:
        if self._rules.state is _CLOSED and not self._left:
            raise self._rules.closed()

    # --- the socket: by the owner of reading ------------------------------------------------------

    def read(self, deadline: float | None) -> None:
        """Read once, and handle what came. At the end of the connection it is closed.

        Raises:
            TimeoutError: Nothing came before ``deadline``.
        """
        self.plain = False
        self._count = -1
        if self.broken:
            self._left = b""
            self.lose()
            return
        try:
            if self._left:
                self._count = 0
                data, self._left = self._left, b""
                self._handle(data)
                return
            lent = self._receive(deadline)
            count = self._count
            self.reads += 1
            if lent:
                self._take(self.parser.buffer_updated(count))
                self._after_read(count)
            elif self._tls is None or not count:
                self.received(self.feed(self.buffer, count), count)
            else:
                data = self._tls.decrypt(memoryview(self.buffer)[:count])
                self._handle(data)
                if self._tls.ended:
                    self.lose()
        except BaseException:
            if self._count >= 0:
                self.broken = True
                self._channel.shut()
            raise

    def _receive(self, deadline: float | None) -> bool:
        """Set the count of received bytes, 0 at the end. Return True if they are in the memory of the parser."""
        arrivals, polls = self.arrivals, self._polls
        lent = None
        if self._mid and self._tls is None:
            lent = self.parser.receive_buffer()
            if lent is not None:
                arrivals, polls = self._iterators(lent)
        end_by = self._channel.end_by
        ends = end_by is not None and (deadline is None or end_by <= deadline)
        if ends:
            deadline = end_by
        try:
            while deadline is None:
                for self._count in arrivals:
                    return lent is not None
            while True:
                if DONT_WAIT:
                    try:
                        for self._count in polls:
                            return lent is not None
                    except (BlockingIOError, InterruptedError):  # suppress() is slow
                        pass
                if not wait_for(self._channel.sock, selectors.EVENT_READ, max(deadline - time.monotonic(), 0)):
                    raise TimeoutError
                if not DONT_WAIT:
                    for self._count in arrivals:
                        return lent is not None
        except BaseException as exc:
            if self._count >= 0:
                raise
            if isinstance(exc, OSError) and (exc.errno is not None or ends):  # the system, or we have given up
                self._count = 0
                return lent is not None
            if lent is not None:
                self._take(self.parser.buffer_updated(0))
            raise

    def _iterators(self, buffer: bytearray | memoryview) -> tuple[Iterator[int], Iterator[int]]:
        """Return two iterators that receive into ``buffer`` and return the count of bytes. The second does not wait."""
        buffers = itertools.repeat(buffer)
        receive_into = self._channel.sock.recv_into
        return map(receive_into, buffers), map(receive_into, buffers, itertools.repeat(0), itertools.repeat(DONT_WAIT))

    def _handle(self, data: bytes) -> None:
        messages = self.feed(data)
        left = self.parser.left
        if left:
            self._left = data[len(data) - left :]
        self._take(messages)
        self._after_read(len(data) or 1)

    def received(self, messages: list[Any], count: int) -> None:
        """Handle what the first ``count`` bytes of the buffer were parsed to."""
        self.plain = False
        left = self.parser.left
        if left:
            self._left = bytes(self.buffer[count - left : count])
        self._take(messages)
        self._after_read(count)

    def _after_read(self, count: int) -> None:
        parser = self.parser
        self._mid = parser.mid_message
        if parser.error is not None:
            self._fail(parser.error)
        if not count:
            self.lose()

    def _take(self, events: list[Any]) -> None:
        """Handle what was parsed."""
        for event in events:
            if type(event) is not tuple:
                self._keep(event)
                continue
            kind, data = event
            if kind == _PING:
                self._writer.pong = data
                self._writer.reply()
            elif kind == _PONG:
                self._keepalive.answered(data)
            elif kind == _CLOSE:
                self._rules.peer_closed(*data)
                self._end_soon()
            else:
                self._take_data(kind, data)
            if self._rules.error is not None:
                return

    def _take_data(self, kind: int, data: Any) -> None:
        deflate = self._channel.deflate
        try:
            if kind in (_TEXT, _BINARY):
                self._keep(data)
            elif kind == _BEGIN:
                opcode = data & ~COMPRESSED
                self._stream = Stream(self, opcode)
                if data & COMPRESSED and deflate is not None:
                    deflate.begin_stream(opcode, self.parser.max_size)
            elif kind in (_CHUNK, _END):
                self._take_chunk(kind, data)
            elif deflate is not None:
                self._keep(deflate.inflate(kind & ~COMPRESSED, data, self.parser.max_size))
        except ProtocolError as exc:
            self.parser.stop()
            self._fail(exc.with_traceback(None))

    def _take_chunk(self, kind: int, data: bytes | None) -> None:
        stream = self._stream
        assert stream is not None
        deflate = self._channel.deflate
        if deflate is not None and deflate.streaming:
            for part in deflate.chunks(data):
                stream.feed(part)
        elif data is not None:
            stream.feed(data)
        if kind == _END:
            stream.finish()

    def _keep(self, message: str | bytes) -> None:
        if self._rules.state is not _OPEN and (not self._rules.late or self.full):  # the application has closed
            self._rules.late = False
            return
        self._queue.append(message)
        self._queued_bytes += len(message) + limits.RECEIVED_OVERHEAD

    # --- the end ----------------------------------------------------------------------------------

    def _fail(self, error: ProtocolError) -> None:
        """Close after a violation by the peer, with its code."""
        if self._rules.error is None:
            self._rules.error = error
            self._end_soon()

    def _end_soon(self) -> None:
        """Answer with a close frame, and let the peer close TCP."""
        self._channel.end_soon()
        self._writer.must_reply = True
        self._writer.reply()

    def lose(self) -> None:
        """Close the socket. The caller owns reading."""
        if self._rules.state is _CLOSED:
            return
        self._rules.lost()
        self._keepalive.end()
        self._channel.shut()
        # A sender must not meet another socket with the number of this one. It does not wait any more.
        if self._writer.lock.acquire(timeout=limits.END_GRACE):
            self._channel.sock.close()
            self._writer.lock.release()
        self._channel.ended.set()
