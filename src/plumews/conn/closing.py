"""Transport side of a connection: its beginning, its failures and its closing handshake.

The connection is a `BufferedProtocol`. Until it is open its bytes go to an :class:`OpeningHandshake`, then to the
parser. The hot path is in ``core``, the public API in ``connection``. The time limits of the closing handshake (RFC
6455 section 7) are here.

Invariants: our close frame waits for a handler with earlier messages, for a second at most. The transport is closed at
most one ``close_timeout`` after the closing began.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, cast

from .. import limits
from ..constants import CloseCode, Opcode, State
from ..deflate.config import Agreement
from ..deflate.inbound import InboundDeflate
from ..deflate.outbound import OutboundDeflate
from ..errors import ConnectionClosed
from ..http11.models import Address
from ..protocol.codec import Parser, build_frame
from ..transport import send_buffer, sendmsg
from ..transport.flow_control import FlowControl
from ..transport.timers import Deadline
from .awaitables import AwaitableCore
from .config import ConnConfig
from .keepalive import Keepalive
from .logs import log_extra

__all__ = ["ClosingCore", "OpeningHandshake", "guarded"]

logger = logging.getLogger("plumews.server")

F = TypeVar("F", bound=Callable[..., Any])

#: Seconds to wait for the FIN of the peer, so that it reads our close frame or response before a reset.
_FIN_WAIT = 1.0

#: Seconds between two checks if the peer of a paused connection has closed it.
_END_LOOK = 1.0


class OpeningHandshake(Protocol):
    """Reader of a connection until it is open."""

    def connected(self) -> None: ...

    def received(self, data: bytes) -> None: ...

    def lost(self) -> None: ...


def guarded(method: F) -> F:
    """Decorate a method that the event loop calls: its failure ends the connection."""

    @functools.wraps(method)
    def call(self: ClosingCore, *args: Any) -> Any:
        return self._guard(method, self, *args)

    return cast("F", call)


class ClosingCore(AwaitableCore, asyncio.BufferedProtocol):
    """Transport side of a connection, whose public API is :class:`plumews.Conn`."""

    __slots__ = (
        "_answer_deadline",
        "_close_callbacks",
        "_close_deadline",
        "_closed_future",
        "_config",
        "_discard_deadline",
        "_end_look",
        "_end_waiters",
        "_failed",
        "_lost",
        "_peername",
        "_sockname",
    )

    def __init__(self, config: ConnConfig, *, client: bool = False) -> None:
        super().__init__(config, client)
        self._config = config
        self._keepalive = Keepalive(
            self._state.timers, self, ping_period=config.ping_interval, pong_wait=config.pong_wait
        )
        if isinstance(self._writer, FlowControl):
            self._writer.steer(self._keepalive, self._may_write)
        self._peername: Address | None = None
        self._sockname: Address | str | bytes | None = None
        self._answer_deadline: Deadline | None = None
        self._close_deadline: Deadline | None = None
        self._discard_deadline: Deadline | None = None
        self._end_look: Deadline | None = None
        self._closed_future: asyncio.Future[None] | None = None
        self._end_waiters = 0  # calls of wait_closed()
        self._failed = False
        self._close_callbacks: list[Callable[[Any], object]] = []
        #: Messages, and their bytes, that were queued when the queue was given up.
        self._lost = (0, 0)

    # --- the transport calls ----------------------------------------------------------------------

    @guarded
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name
        self._transport = transport
        peername = self._ask_transport("get_extra_info", "peername")
        self._peername = peername if isinstance(peername, tuple) else None  # else a Unix socket's, which has no host
        self._sockname = self._ask_transport("get_extra_info", "sockname")
        try:
            self._writer.attach(transport, self._transport_failed)
            if (unsent := self._config.unsent_limit) is not None:
                self._writer.bound(unsent)
        except Exception as exc:
            self._transport_failed(exc)
        if self._handshake is not None:
            self._handshake.connected()

    @guarded
    def eof_received(self) -> bool:
        """Handle the peer's FIN. With False the transport closes itself after it has written its buffer."""
        if self._reads_to_end:
            self._look_ahead()  # a close frame may stand behind what the handler has not read
        if self._ended and not self._writer.finished and self._transport is not None:
            return bool(self._ask_transport("can_write_eof"))  # TLS cannot
        if self._deflate is not None:
            self._writer.flush()  # what a read in this tick has brought is not to be lost by the end of reading
        self._ended = True
        self._rules.losing()
        self._fail_stream()
        self._discard()
        if self._close_deadline is None:  # a peer that does not read could delay the end for ever
            self._close_deadline = self._state.timers.after(self._config.close_timeout, self._abort)
        self._inbox.wake()
        return False

    @guarded
    def pause_writing(self) -> None:
        self._writer.pause()

    @guarded
    def resume_writing(self) -> None:
        if self._writer.drained():
            self._may_write()

    def _may_write(self) -> None:
        self._writer.resume()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._rules.state is State.CLOSED:
            return  # of a transport that failed it was told before
        self._ask_transport("close")  # Python 3.10 takes one over TLS for unclosed that the peer has ended
        self._transport = None
        self._rules.lost()
        self._ended = True
        for deadline in (self._answer_deadline, self._close_deadline, self._discard_deadline, self._end_look):
            if deadline is not None:
                deadline.cancel()
        self._answer_deadline = self._close_deadline = self._discard_deadline = self._end_look = None
        for part in (self._stop_pings, self._count_lost, self._writer.detach, self._fail_stream, self._inbox.wake):
            self._guard(part)
        if self._closed_future is not None and not self._closed_future.done():
            self._closed_future.set_result(None)
        handshake, self._handshake = self._handshake, None
        if handshake is not None:
            self._guard(handshake.lost)
        callbacks, self._close_callbacks = self._close_callbacks, []
        if callbacks:
            self._run_in_context(self._call_all, callbacks)
        self._guard(self._forget)

    def _stop_pings(self) -> None:
        self._keepalive.stop(self._rules.closed)

    def _forget(self) -> None:
        """Free all but the messages that can still be read: a handler may hold the connection for long."""
        if self._on_message is not None or self._filter is not None:
            self._backlog = self._rest = None
            self._rules.parser.stop()
        self._on_message = self._on_failure = self._filter = self._behind = None
        if self._stream is not None and self._stream.done:
            self._stream = None
        if self._inbox.stream is not None:
            self._inbox.stream.give_up()
        if self._deflate is not None:
            self._deflate.end()
        if self._inflate is not None:
            self._inflate.end()

    def _ask_transport(self, name: str, *args: Any) -> Any:
        """Call the method ``name`` of the transport. If that fails, end the connection and return None."""
        transport = self._transport
        if transport is None:
            return None
        try:
            # In this connection's context, because asyncio keeps that of whoever lets it read or close.
            return self._run_in_context(getattr(transport, name), *args)
        except NotImplementedError:
            return None  # a transport that has no such method
        except Exception as exc:
            self._transport_failed(exc)
            return None

    def _transport_failed(self, exc: BaseException | None) -> None:
        """Cut the connection, and report ``exc``. An ``OSError`` is a peer that has gone, and no news."""
        transport = self._transport
        if transport is None:
            return
        try:
            self._transport = None  # it is not called again
            self._ended = True
            if exc is not None and not isinstance(exc, OSError):
                self._report("a transport failed", exc)
        finally:  # whatever fails: without memory even an assignment may
            try:
                self._abort_transport(transport)
            finally:
                self._writer.detach()
                self._inbox.wake()

    def _abort_transport(self, transport: asyncio.Transport) -> None:
        """Abort ``transport``. If that fails, too, call :meth:`connection_lost`."""
        try:
            self._rules.losing()
            self._discard()
        finally:
            try:
                transport.abort()
            except Exception as exc:
                self._loop.call_soon(self.connection_lost, exc)

    def _guard(self, function: Callable[..., Any], *args: Any) -> Any:
        """Return ``function(*args)``, called for the event loop. If it fails, end the connection and return None."""
        try:
            return function(*args)
        except BaseException as exc:
            self._fail(exc)
            return None

    def _fail(self, exc: BaseException) -> None:
        """Log ``exc`` and end the connection with 1011. A second failure cuts it."""
        if isinstance(exc, (KeyboardInterrupt, SystemExit)):
            raise exc
        again, self._failed = self._failed, True
        self._backlog = self._rest = None
        try:
            if not again:
                logger.error("a connection failed", exc_info=exc, extra=log_extra(self))
        finally:
            if self._rules.state is State.OPEN and not again:
                self._begin_close(CloseCode.INTERNAL_ERROR, "the connection failed")
            elif self._rules.state is not State.CLOSED:
                self._abort()

    def _report(self, what: str, exc: BaseException) -> None:
        try:
            self._loop.call_exception_handler({"message": what, "exception": exc, "protocol": self})
        except Exception:  # noqa: S110 - as without memory, which no log entry would help
            pass  # what stands behind this ends the connection

    # --- opening ----------------------------------------------------------------------------------

    def _open(self) -> None:
        """Open the connection: from here on received bytes are frames."""
        self._handshake = None
        self._rules.state = State.OPEN
        self._keepalive.start(self._loop.time())

    def _compress(self, agreement: Agreement, *, client: bool = False) -> None:
        """Set up permessage-deflate, before the connection is open."""
        settings = self._config.deflate
        assert settings is not None
        deflate = OutboundDeflate(agreement, settings, self._config.fragment_size, self._state.timers, client=client)
        inflate = InboundDeflate(agreement, settings, self._state, client=client)
        self._use_deflate(deflate, inflate, client=client)
        if deflate.shared_params is None:
            self._writer.context = deflate

    # --- writing ----------------------------------------------------------------------------------

    def _fall_behind(self, bring_up: Callable[[Any], None]) -> None:
        """Call ``bring_up(conn)`` before the next direct send: a hub has earlier messages for this connection."""
        if self._behind is None:
            self._behind = []
        if bring_up not in self._behind:
            self._behind.append(bring_up)

    def _catch_up(self) -> None:
        """Queue the broadcasts that were called before now and that a hub has not delivered yet."""
        behind, self._behind = self._behind, None
        for bring_up in behind or ():
            bring_up(self)

    def _send_ping(self, payload: bytes) -> None:
        self._writer.control(build_frame(Opcode.PING, payload))
        self._kick()

    def _below_queue(self, ask: Callable[[Any], int | None]) -> int | None:
        """Return the bytes in the transport and those in the kernel by ``ask(socket)``, or ``None``."""
        transport = self._transport
        if transport is None:
            return None
        held = ask(transport.get_extra_info("socket"))
        return None if held is None else held + transport.get_write_buffer_size()

    def _progress(self) -> tuple[int, int] | None:
        """Return the bytes that the peer has acknowledged, and those below the send queue that it has not."""
        sock = self._ask_transport("get_extra_info", "socket")
        buffered = self._ask_transport("get_write_buffer_size")
        if sock is None or buffered is None:
            return None
        acknowledged = send_buffer.acknowledged(sock, self._writer.written - buffered)
        if acknowledged is None:
            return None
        return acknowledged, buffered + (send_buffer.unacknowledged(sock) or 0)

    # --- streams ----------------------------------------------------------------------------------

    def _stream_changed(self) -> None:
        """React to a stream that was read, awaited or closed by the application."""
        stream = self._stream or self._incoming
        if stream is not None and stream is self._stream and stream.done:
            self._stream = None
            if stream.discarding:
                # The rest of a discarded message must come in time, too.
                timers = self._state.timers
                self._discard_deadline = timers.after(self._config.close_timeout, self._discarding_failed)
        elif stream is not None and stream.awaited:
            self._writer.flush()
        self._update_reading()

    def _discarding_failed(self) -> None:
        self._begin_close(CloseCode.POLICY_VIOLATION, "the rest of a discarded message did not come")

    def _finish_stream(self) -> None:
        if self._incoming is not None:
            self._incoming.finish()
            self._incoming = None
        if self._stream is not None and self._stream.done:
            self._stream = None
        self._stop_discarding()
        self._inbox.wake()  # a waiting read_stream() asks for the next message now

    def _fail_stream(self) -> None:
        """End the streams of a message that stays incomplete."""
        if self._incoming is None and self._stream is None and self._discard_deadline is None and not len(self._inbox):
            return
        failure = self._rules.closed if self._transport is None else self._past_the_end
        for stream in (self._incoming, self._stream, self._inbox.stream):
            if stream is not None:
                stream.end(failure)
        self._incoming = None
        self._stop_discarding()

    def _stop_discarding(self) -> None:
        if self._discard_deadline is not None:
            self._discard_deadline.cancel()
            self._discard_deadline = None

    # --- closing ----------------------------------------------------------------------------------

    def _end(self) -> None:
        """Handle the end of the peer's side: a close frame or a violation."""
        self._ended = True
        self._fail_stream()
        if self._rules.state is State.CLOSING:
            self._hang_up()
        elif self._unread:
            self._answer_after(0.0 if self._only_waits else limits.END_GRACE)
        else:
            self._answer()
        self._inbox.wake()

    def _is_full(self) -> None:
        if self._closed_future is not None:
            self._look_ahead()

    def _look_ahead(self) -> bool:
        """Find a close frame behind unread messages, and handle it as the end. Return whether there is one."""
        if self._ended or self._rules.state is not State.OPEN:
            return False
        found = None
        for event in self._backlog or ():
            if isinstance(event, tuple) and event[0] == Opcode.CLOSE:
                found = event[1]
                break
        if found is None and self._rest is not None:
            found = _close_in(self._rest)
        if found is None:
            return False
        self._rules.peer_closed(*found)
        self._end()
        return True

    def _look_for_end(self) -> None:
        """Look once a second whether the peer has gone, while reading is paused: a paused transport does not tell.

        If it has, and sent no more than may wait, read all of that without a pause: its messages can still be read
        after the end. Callbacks and filters see no message after the end, so for them nothing is read early.
        """
        if self._end_look is None and not self._reads_to_end and self._on_message is None and self._filter is None:
            self._end_look = self._state.timers.after(_END_LOOK, lambda: self._guard(self._seek_end))

    def _seek_end(self) -> None:
        self._end_look = None
        if not self._reading_paused or self._transport is None:
            return
        unread = sendmsg.unread_before_end(self._ask_transport("get_extra_info", "socket"))
        if unread is None or unread > self._config.max_queue_bytes:
            self._look_for_end()
            return
        self._reads_to_end, self._reading_paused = True, False
        self._keepalive.heard_again(self._loop.time())
        self._ask_transport("resume_reading")

    @property
    def _unread(self) -> bool:
        """True if the handler has unread messages."""
        return len(self._inbox) > 0 or (self._stream is not None and not self._stream.done)

    @property
    def _only_waits(self) -> bool:
        """True if the handler only waits for the end, and no task reads."""
        open_stream = self._stream is not None and not self._stream.done
        return self._end_waiters > 0 and not (self._inbox.touched or self._inbox.awaited or open_stream)

    def _answer_after(self, seconds: float) -> None:
        if self._answer_deadline is not None:
            self._answer_deadline.cancel()
        self._answer_deadline = self._state.timers.after(seconds, lambda: self._guard(self._answer))

    def _answer(self) -> None:
        """Send the close frame that answers the end of the peer's side."""
        if self._answer_deadline is not None:
            self._answer_deadline.cancel()
            self._answer_deadline = None
        if self._rules.state is State.OPEN:
            self._writer.refuse_waiters()
            self._report_last_losses(delivered=True)
        if self._rules.state is State.OPEN:
            self._send_close(self._rules.reply_frame())

    def _begin_close(self, code: int, reason: str, *, discard: bool = False) -> None:
        """Start the closing handshake, unless it has begun. If that fails, cut the connection."""
        try:
            self._start_closing(code, reason, discard)
        except Exception as exc:
            self._report("closing a connection failed", exc)
            self._abort()

    def _start_closing(self, code: int, reason: str, discard: bool) -> None:
        if self._rules.state is not State.OPEN:
            return
        if self._ended:
            self._answer()
            return
        if not discard:
            if self._behind is not None:
                self._catch_up()
            self._writer.refuse_waiters()
            self._report_last_losses(delivered=True)
            if self._rules.state is not State.OPEN:
                return  # catching up overflowed its queue, or the application ended it meanwhile
        if discard:
            self._discard()
        self._send_close(self._rules.close_frame(code, reason))
        if discard:
            self._writer.last_words()

    def _send_close(self, frame: bytes) -> None:
        self._close_deadline = self._state.timers.after(self._config.close_timeout, self._abort)
        self._fail_stream()
        self._writer.finish(frame, self._close_frame_left)
        self._update_reading()

    def _close_frame_left(self) -> None:
        if self._ended:
            self._hang_up()

    def _hang_up(self) -> None:
        """End the TCP connection after both close frames, once ours has left."""
        if not self._writer.finished:
            return
        if self._rules.error is None:
            self._ask_transport("close")
        else:
            self._close_gently()

    def _close_gently(self, *, peer_is_done: bool = False) -> None:
        """End the TCP connection so that a peer that is still sending can read our close frame or response.

        A socket that is closed with unread bytes resets the connection, and a reset discards what the peer has not
        read. So we send our FIN, discard received bytes, and cut after ``_FIN_WAIT``, or up to the close timeout while
        bytes still leave. TLS cannot end one direction alone: there we close after that time, or at once if
        ``peer_is_done``.
        """
        if self._transport is None:
            return
        if self._close_deadline is not None:
            self._close_deadline.cancel()
        if self._reading_paused:
            self._reading_paused = False
            self._ask_transport("resume_reading")
        half = bool(self._ask_transport("can_write_eof"))
        self._linger(self._state.timers.time() + self._config.close_timeout, half)
        if half:
            self._ask_transport("write_eof")
        elif peer_is_done:
            self._ask_transport("close")

    def _linger(self, last: float, half: bool) -> None:
        timers = self._state.timers
        before = self._progress()

        def over() -> None:
            if self._transport is None:
                return
            after = self._progress()
            # What the peer's kernel has is as good as read; what waits for it needs time while it goes on.
            moving = before is not None and after is not None and after[1] > 0 and after[0] > before[0]
            if (moving or self._ask_transport("get_write_buffer_size")) and timers.time() < last:
                self._linger(last, half)
            elif half or self._ask_transport("is_closing"):
                self._abort()
            else:
                self._ask_transport("close")
                self._linger(last, half)

        self._close_deadline = timers.at(min(timers.time() + _FIN_WAIT, last), lambda: self._guard(over))

    def _abort(self) -> None:
        """End the TCP connection now. Queued messages are lost."""
        if self._transport is not None:
            self._abort_transport(self._transport)
        else:
            self._rules.losing()
            self._discard()

    def _discard(self) -> None:
        """Give up the queued messages."""
        self._count_lost()
        self._writer.discard()
        self._report_last_losses(delivered=False)

    def _report_last_losses(self, *, delivered: bool) -> None:
        """Let hubs report losses before the close frame. Without ``delivered`` no frame leaves any more."""

    def _count_lost(self) -> None:
        run = self._writer.run_messages
        if self._writer.queued_messages or run:
            messages, size = self._lost
            more = self._writer.waiting_data()
            self._lost = (messages + more[0] + run, size + more[1])

    def _call_all(self, callbacks: list[Callable[[Any], object]]) -> None:
        for callback in callbacks:
            self._call_back(callback)

    def _call_back(self, callback: Callable[[Any], object]) -> None:
        try:
            callback(self)
        except (Exception, asyncio.CancelledError) as exc:
            self._report("a close callback failed", exc)

    # --- the end, as an exception -----------------------------------------------------------------

    def _closed_error(self) -> ConnectionClosed:
        return self._rules.closed()

    def _past_the_end(self) -> ConnectionClosed:
        """Answer the peer's close frame after the last message is read. Return the exception for the reader."""
        if self._ended:
            self._answer()
        return self._rules.closed()


def _close_in(data: memoryview) -> tuple[int, str] | None:
    """Return the code and the reason of the first close frame in ``data``, which begins with a frame."""
    at = 0
    while at + 1 < len(data):
        second = data[at + 1]
        if data[at] & 0x0F == Opcode.CLOSE:
            for kind, payload in Parser(client=second < 0x80, max_size=None).feed(data[at:]):
                return payload if kind == Opcode.CLOSE else None
            return None
        size = second & 0x7F
        extended = {126: 2, 127: 8}.get(size, 0)
        if extended:
            size = int.from_bytes(data[at + 2 : at + 2 + extended], "big")
        at += 2 + extended + (4 if second >= 0x80 else 0) + size
    return None
