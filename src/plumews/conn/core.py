"""Hot path of a connection: its fields, the delivery of messages, and the fast paths to send and to receive.

Compiled with Cython. The same source runs as plain Python. `_core` has the common case of it in C, as short ways. The
parser's messages go to a callback or into the receive queue. Replies leave in one write at the end of the read, or at
the end of the event loop iteration on compressed connections. `async for`, ``recv`` and ``send`` return the objects of
`awaitables`, which call back here.

Slow cases are functions that take the connection, in `opening`, `receive_backlog`, `receiver`, `sender`, `full_queue`
and `closing`. A call by the name of a class costs less than one by an instance, because no subclass can override it.

Invariants: messages before a close frame or a violation in the same read are delivered first. A read is handled in time
slices, so that a burst does not hold the loop. No view of the shared receive buffer is kept.
"""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Callable, Coroutine
from contextvars import Context
from time import monotonic
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from .. import limits
from .._compiled import BODY
from ..constants import Opcode, StreamEvent
from ..protocol.codec import build_frame
from ..protocol.message import Data, Pieces
from ..protocol.state import ProtocolState
from ..transport.loop_context import loop_context
from ..transport.read_waiter import ReadWaiter
from . import capi, closing, full_queue, receive_backlog, receiver, sender
from .awaitables import MessageChannel, NextMessage, SendMessage
from .config_values import values_of
from .keepalive import Keepalive
from .receive_queue import ReceiveQueue
from .stream import Stream, check_thread

if TYPE_CHECKING:
    from ..deflate.inbound import InboundDeflate
    from ..deflate.outbound import DeflateParams, OutboundDeflate
    from ..http11.headers import HeadersLike
    from ..http11.models import Address, Request, Response
    from ..transport.timers import Deadline
    from ..users import UserInfo
    from .config import ConnConfig
    from .full_queue import LossReporter

__all__ = ["ConnCore"]

T = TypeVar("T")

_get_ident = threading.get_ident
_get_running_loop = asyncio.get_running_loop
_NOTHING = (0, 0)
_TEXT, _BINARY, _CLOSE, _PING, _PONG = map(int, (Opcode.TEXT, Opcode.BINARY, Opcode.CLOSE, Opcode.PING, Opcode.PONG))
_BEGIN, _CHUNK, _END = map(int, (StreamEvent.BEGIN, StreamEvent.CHUNK, StreamEvent.END))
_NONE_AT_END = receiver.NONE_AT_END
#: Messages between two looks at the clock, once the first has shown that a callback does not take its time.
_STRIDE = 4
#: A read of this size announces a large message: the next ones go straight into its memory.
_LARGE_READ = 32 * 1024
#: Size of the longest message that is one frame in one buffer.
_SHORT = limits.COPY_SIZE
#: Bytes of a frame before its payload.
_LONGEST_HEADER = 14
#: Results of `InboundDeflate` for an event.
_GO_ON, _LATER = 0, 1


class ConnCore(MessageChannel):
    """Fields and hot half of a connection, whose public API is :class:`plumews.Conn`.

    Callbacks, hooks and filters run in the connection's copy of the context in which its ``serve()`` was called. A
    handler's task starts with a copy of it. So one connection never sees the context variables of another. The context
    is entered once at a time. A call from inside it stays in it.
    """

    # fmt: off
    __slots__ = (
        "_accepted_with", "_answer_deadline", "_attempt", "_backlog", "_blocked", "_catch_up_hooks", "_close_callbacks",
        "_close_deadline", "_closed_future", "_config", "_context", "_deflate", "_discard_deadline",
        "_end_look", "_end_waiters", "_ended", "_evict_deadline", "_failed", "_filter", "_handshake",
        "_id", "_in_batch", "_in_context", "_in_place", "_incoming", "_inflate", "_keepalive",
        "_later", "_lent", "_logged_in", "_loop", "_loss_watchers", "_lost", "_metadata", "_on_failure",
        "_on_message", "_open", "_parser", "_peername", "_quick_size", "_read_most", "_reading_paused",
        "_reads_to_end", "_reporters", "_request",
        "_response", "_rest", "_rules", "_shared", "_slot", "_slow_hubs", "_sockname", "_stream",
        "_subprotocol", "_thread", "_transport", "_until", "_user_info",
    )
    # fmt: on

    def __init__(self, config: ConnConfig, *, client: bool = False) -> None:
        loop = _get_running_loop()
        values = values_of(config)
        state = loop_context(loop)
        self._prepare(state, values.queue_size, values.queue_bytes)
        self._loop = loop
        self._thread = _get_ident()
        self._config = config
        self._rules = rules = ProtocolState(client=client, max_size=values.max_size, max_frames=values.max_frames)
        self._parser = rules.parser
        self._inbox = values.inbox  # until there is something to receive
        self._keepalive = Keepalive(state.timers, self, ping_period=values.ping_period, pong_wait=values.pong_wait)
        if values.unanswered_limit is not None:
            self._limit_unanswered(values.unanswered_limit, self._keepalive)
        self._transport: asyncio.Transport | None = None
        #: Reader of the connection until it is open, an `OpeningHandshake`.
        self._handshake: Any = None
        #: Context of callbacks. ``None`` stays in the context of the caller.
        self._context: Context | None = None
        self._in_context = False
        self._on_message: Callable[[Any, str | bytes], object] | None = None
        self._on_failure: Callable[[Any, BaseException], object] | None = None
        #: Called with each whole message before the application; True takes it.
        self._filter: Any = None
        # --- compression
        #: permessage-deflate, where it was agreed on.
        self._deflate: OutboundDeflate | None = None
        self._inflate: InboundDeflate | None = None
        #: Parameters of compression. Connections with the same object can be sent the same bytes.
        self._shared: DeflateParams | None = None
        # --- sending
        #: A message up to this size leaves as one frame in one buffer, whatever characters it has.
        self._quick_size = values.quick_size
        #: Functions of hubs that `_catch_up` calls.
        self._catch_up_hooks: list[Callable[[Any], None]] | None = None
        #: Hubs with a loss report, which leaves before any other frame.
        self._reporters: list[LossReporter] | None = None
        #: Callbacks of hubs for displaced messages, and whether the hub reports them to the peer.
        self._loss_watchers: list[tuple[Callable[[Any, int, bool], None], bool]] | None = None
        #: Hubs that know it as slow, and the number of the last log line that counts it.
        self._slow_hubs = self._logged_in = 0
        #: Messages, and their bytes, that were queued when the queue was given up.
        self._lost = _NOTHING
        # --- reading
        self._backlog: list[Any] | None = None  # events of a read that are left over for later
        self._later: bytes | None = None  # that came while a read was handled
        self._rest: memoryview | None = None  # bytes behind them, not parsed yet
        self._blocked = False  # both wait until the handler has read more
        self._until = 0.0  # the end of the time slice in which events are handled
        self._read_most = values.read_most
        self._in_batch = False
        self._in_place = False  # a large message is arriving
        self._lent = False  # its memory is where the next bytes go
        self._reading_paused = False
        self._reads_to_end = False  # the peer's FIN has come: what is left is little, and is read without a pause
        self._incoming: Stream | None = None  # the parser feeds it
        self._stream: Stream | None = None  # the application reads it
        self._open = False  # as the state of `_rules`
        self._ended = False  # the peer's close frame, its fault or its FIN was seen
        # --- closing
        self._failed = False  # a failure has closed the connection; the next one cuts it
        self._closed_future: asyncio.Future[None] | None = None
        self._end_waiters = 0  # calls of wait_closed()
        #: Slot of the connection in a server. ``left(conn)`` is called before the close callbacks.
        self._slot: Any = None
        self._close_callbacks: list[Callable[[Any], object]] | None = None
        self._answer_deadline: Deadline | None = None
        self._close_deadline: Deadline | None = None
        self._discard_deadline: Deadline | None = None
        self._end_look: Deadline | None = None
        self._evict_deadline: Deadline | None = None
        # --- for the application
        self._peername: Address | None = None
        self._sockname: Address | str | bytes | None = None
        self._id: uuid.UUID | None = None
        self._metadata: dict[str, Any] | None = None
        self._request: Request | None = None
        self._response: Response | None = None
        self._accepted_with: HeadersLike | None = None  # the headers that were added to the answer
        self._subprotocol: str | None = None
        self._attempt: tuple[int, BaseException | None] | None = None  # of a client: its number, and the error before
        self._user_info: UserInfo | None = None

    def __setattr__(self, name: str, value: NoReturn) -> None:  # the type tells checkers that no attribute may be added
        capi.set_attribute(self, name, value)

    def _check_thread(self) -> None:
        check_thread(self._thread)

    # --- the context ------------------------------------------------------------------------------

    def _run_in_context(self, function: Callable[..., T], *args: Any) -> T:
        """Call ``function(*args)`` in the context of this connection, and return its result."""
        context = self._context
        if context is None or self._in_context:
            return function(*args)
        self._in_context = True
        try:
            return context.run(function, *args)
        finally:
            self._in_context = False

    def _dispatch_in_context(self, events: list[Any]) -> list[Any] | None:
        """Call :meth:`_dispatch` in the context of this connection, and return its result."""
        context = self._context
        if context is None or self._in_context:
            return ConnCore._dispatch(self, events)
        self._in_context = True
        try:
            if not capi.enter_context(context):
                return context.run(self._dispatch, events)
            try:
                return ConnCore._dispatch(self, events)
            finally:
                capi.leave_context(context)
        finally:
            self._in_context = False

    # --- the transport calls ----------------------------------------------------------------------

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return the memory of the next read: the buffer of the loop, or that of a large message that is arriving."""
        self._lent = False
        room: memoryview | None = None
        if self._in_place:
            try:
                room = self._parser.receive_buffer() if self._rest is None else None
                self._in_place = self._lent = room is not None
            except BaseException as exc:
                closing.fail(self, exc)
        if room is not None:
            return room
        if self._state.in_batch:
            self._state.replace_buffer()
        return self._state.view[: self._read_most] if self._read_most else self._state.view

    def buffer_updated(self, nbytes: int) -> None:
        """Handle the ``nbytes`` that the transport has read into the buffer."""
        try:
            ConnCore._read(self, nbytes)
        except BaseException as exc:
            closing.fail(self, exc)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the connection: its transport is gone."""
        closing.lost(self)

    def _read(self, nbytes: int) -> None:
        self._keepalive.last_received = self._loop.time()
        if self._lent:
            self._lent = False
            events = self._parser.buffer_updated(nbytes)
            if self._ended:
                return
            if self._parser.halted:
                receive_backlog.halted(self, self._state.view[:0])
            if events or self._rules.error is not None:
                ConnCore._take_up(self, events)
            elif self._on_message is None:
                self._update_reading()
        elif self._handshake is not None:
            self._run_in_context(self._handshake.received, bytes(self._state.view[:nbytes]))
        else:
            if self._in_batch or self._rest is not None:
                receive_backlog.keep(self, self._state.view[:nbytes])
            elif not self._ended:
                events = self._parser.feed_messages(self._state.buffer, nbytes)
                if self._parser.halted:
                    receive_backlog.halted(self, self._state.view[:nbytes])
                ConnCore._take_up(self, events)
            if nbytes >= _LARGE_READ:
                self._in_place = True

    # --- reading ----------------------------------------------------------------------------------

    def _take_up(self, events: list[Any]) -> None:
        """Handle ``events`` behind those that are left over, then a violation of the peer."""
        if self._backlog:
            self._backlog += events
        else:
            self._handle(events)

    def _handle(self, events: list[Any]) -> None:
        """Handle ``events`` for one time slice, and the rest in later iterations of the loop."""
        state = self._state
        self._in_batch = state.in_batch = True
        if not state.in_slice:
            state.awaits_left = state.awaits_per_check  # a read is a loop iteration
        if self._on_message is not None and (len(events) > 1 or self._rest is not None):
            self._until = monotonic() + limits.FAN_OUT_SLICE
        try:
            while True:
                if self._on_message is None and self._filter is None:
                    self._backlog = ConnCore._dispatch(self, events)
                else:
                    self._backlog = ConnCore._dispatch_in_context(self, events)
                if self._backlog is None and self._rest is None and self._rules.error is None:
                    self._inbox.wake_now()  # the reader's replies leave with this read
                    break
                more: list[Any] | None = receive_backlog.continue_read(self)
                if more is None:
                    break
                events = more
        finally:
            self._in_batch = state.in_batch = state.ends_read = False
            if state.slice_ends_with_batch:
                state.end_batch()
            if self._deflate is None:
                self._write_out()
            else:
                self._gather()
        held = self._backlog is not None or self._rest is not None or self._later is not None
        if held:
            receive_backlog.postpone(self)
        if held or self._on_message is None or self._reading_paused:
            ConnCore._update_reading(self)

    def _go_on(self) -> None:
        """Handle what an earlier read has left over, in a later iteration of the loop."""
        if self._ended:
            return  # the rest can still be read
        try:
            if self._transport is not None and (self._backlog is not None or self._rest is not None):
                self._handle(receive_backlog.next_events(self))
                if self._backlog is None and self._rest is None:
                    self._inbox.wake()  # a waiting read_stream() asks for the next message now
        except BaseException as exc:
            closing.fail(self, exc)

    def _dispatch(self, events: list[Any]) -> list[Any] | None:
        """Handle each event. Return those that a slow callback or a full receive queue leaves over.

        One read may hold tens of thousands of messages, and each may be broadcast to thousands.
        """
        look = 1
        outcome = _GO_ON
        over: list[Any] | None = None
        room = len(events)
        if self._on_message is None and self._open:
            room = self._inbox.room()
        if room < len(events):
            events, over = events[:room], events[room:]
            self._blocked = True
        for position, event in enumerate(events, 1):
            if isinstance(event, str):
                ConnCore._deliver(self, _TEXT, event)
            elif isinstance(event, bytes):
                ConnCore._deliver(self, _BINARY, event)
            else:
                outcome = self._tell(event)
                if outcome != _GO_ON:
                    if outcome != _LATER:
                        return None
                    self._blocked = False
                    return events[position - 1 :] + (over or [])
            if position >= look and position < len(events) and self._on_message is not None:
                if monotonic() >= self._until:
                    return events[position:]
                look = position + _STRIDE
        return over

    def _tell(self, event: tuple[int, Any]) -> int:
        """Handle an event that is no whole message. Return whether the events behind it go on, wait or are dropped."""
        kind, data = event
        if kind <= _BINARY:
            ConnCore._deliver(self, kind, data)
        elif kind == _PING:
            self._queue_pong(build_frame(_PONG, data))
        elif kind == _PONG:
            if self._ping_answered(self._keepalive.pong(data)):
                self._may_write()
        elif kind in (_BEGIN, _CHUNK, _END):
            return receiver.stream_event(self, kind, data)
        elif kind == _CLOSE:
            if self._open or self._rules.close_sent is not None:  # else a callback has cut the connection
                self._rules.peer_closed(data[0], data[1])
                closing.peer_ended(self)
        elif self._inflate is not None:
            return self._inflate.take(self, kind, data)
        return _GO_ON

    def _deliver(self, kind: int, data: str | bytes) -> None:
        """Hand a message to the filter, then to the callback or into the receive queue."""
        if not self._open:  # our close frame is on its way: `late` says whether later messages are delivered
            rules = self._rules
            rules.late = rules.late and not self._inbox.is_full(0)
            if not rules.late:
                return
        if self._filter is not None and self._filter(self, data):
            return
        if self._on_message is None:
            plain = type(data) is str if kind == _TEXT else type(data) is bytes
            self._own_inbox().put(data if plain else (kind, data))
            return
        try:
            self._on_message(self, data)
        except (Exception, asyncio.CancelledError) as exc:  # that of a future which the callback looked into
            if self._on_failure is not None:
                self._on_failure(self, exc)

    def _own_inbox(self) -> ReceiveQueue:
        """Return the receive queue of this connection, to add to it or to wait for it. Make it first."""
        inbox = self._inbox
        if inbox.shared:
            config = self._config
            inbox = self._inbox = ReceiveQueue(max_items=config.max_queue, max_bytes=config.max_queue_bytes)
        return inbox

    def _update_reading(self) -> None:
        """Pause reading while the handler has enough messages, and resume when it has caught up."""
        if self._inflate is not None and self._backlog:
            self._inflate.changed(self)
        held = self._backlog is not None or self._rest is not None
        if not self._reading_paused and not held and self._inbox.has_reader():
            return  # a waiting reader has read everything
        if self._blocked and receiver.has_caught_up(self):
            self._blocked = False
            self._loop.call_soon(self._go_on, context=Context())
        if held or not self._open or self._on_message is not None:
            pause = held
        else:
            inbox, stream = self._inbox, self._stream or self._incoming
            extra = self._parser.buffered
            if stream is not None:
                extra += stream.held
            if extra and (inbox.awaited or (stream is not None and stream.awaited)):
                extra = 0  # a message that a reader waits for must come in, of any size
            pause = not inbox.is_low(extra) if self._reading_paused else inbox.is_full(extra)
        if pause != self._reading_paused:
            receiver.pause_reading(self, pause)

    # --- receiving --------------------------------------------------------------------------------

    def recv(self, decode: bool | None = None) -> Coroutine[Any, Any, Any]:
        """Return an awaitable of the next message. See :meth:`plumews.Conn.recv`."""
        return self._next(False) if decode is None else receiver.recv(self, decode)

    def __anext__(self) -> Coroutine[Any, Any, str | bytes]:
        """Return an awaitable of the next message. The iteration ends after close codes 1000, 1001 and 1005."""
        return self._next(True)

    def _next_or_none(self) -> Coroutine[Any, Any, str | bytes | None]:
        """Return an awaitable of the next message, or of ``None`` where an iteration ends."""
        return self._next(_NONE_AT_END)

    def _next(self, iterating: int) -> NextMessage:
        following = NextMessage.__new__(NextMessage)
        following._begin(self, iterating)
        return following

    def _take_now(self, at_once: bool) -> str | bytes | ReadWaiter | None:
        inbox = self._inbox
        if not len(inbox) or self._on_message is not None or self._stream is not None:
            return None
        if inbox.has_reader() or _get_ident() != self._thread:
            return None
        message = inbox.first()
        if isinstance(message, tuple):
            return None
        if at_once:
            pause = self._state.count_await()
            if pause is not None:
                return pause
        inbox.drop()
        if self._reading_paused:
            self._update_reading()
        return message

    def _wait_now(self) -> ReadWaiter | None:
        if self._ended or len(self._inbox) or self._on_message is not None or self._stream is not None:
            return None
        if self._inbox.has_reader() or _get_ident() != self._thread or self._parser.streaming:
            return None
        waiting = self._own_inbox().start_waiting(self._loop)
        if not self._in_batch:  # else its replies leave with the read that is being handled
            self._write_out()
        if self._reading_paused:
            self._update_reading()
        return waiting

    def _is_read_to_end(self) -> bool:
        """Return True if an iteration ends now: the connection has ended well, and no message is left."""
        return (
            self._ended
            and self._rules.close_sent is not None
            and self._answer_deadline is None
            and not len(self._inbox)
            and self._backlog is None
            and self._rest is None
            and self._stream is None
            and self._on_message is None
            and not self._inbox.has_reader()
            and _get_ident() == self._thread
            and self._state.awaits_left > 1  # else other tasks run first
            and self._rules.ends_well()
        )

    # --- sending ----------------------------------------------------------------------------------

    def send(
        self, message: Data | Pieces, text: bool | None = None, *, compress: bool | None = None
    ) -> Coroutine[Any, Any, None]:
        """Return an awaitable that queues a message. See :meth:`plumews.Conn.send`."""
        if text is not None or compress is not None:
            return sender.send_slowly(self, message, text, compress)
        return self._sent(message)

    def _sent(self, message: Any) -> SendMessage:
        sent = SendMessage.__new__(SendMessage)
        sent._begin(self, message)
        return sent

    def send_nowait(self, message: str | bytes | bytearray | memoryview, *, compress: bool | None = None) -> None:
        """Queue a message without waiting: for callbacks.

        Args:
            message: ``str`` is sent as text, bytes-like as binary.
            compress: as in :meth:`send`.

        Raises:
            ConnectionClosed: the connection is closed or closing.
            SendQueueFull: the queue is full. Under ``SendBehavior.CLOSE`` the connection is closed, too.
            TypeError: as in :meth:`send`.
            ValueError: as in :meth:`send`.
            ConcurrencyError: called from another thread.
        """
        if compress is not None or not self._queue_now(message):
            sender.send_nowait(self, message, compress)

    def _queue_now(self, message: Any) -> bool:
        thread = _get_ident()
        if thread != self._thread:
            return False
        if isinstance(message, str):
            opcode, most = _TEXT, self._quick_size >> 2  # a character has up to four bytes
        elif isinstance(message, bytes):
            opcode, most = _BINARY, self._quick_size
        else:
            return False
        if not self._open or self._catch_up_hooks is not None:
            return False
        frame: bytes | None
        size = len(message)
        if size <= most:
            frame = build_frame(opcode, message)
        elif self._deflate is not None:
            if size > _SHORT or not self._can_queue((size << 2) + _LONGEST_HEADER):
                return False  # compressing takes its time, and is counted: not for what waits, or is refused
            frame = self._deflate.frame(opcode, message)
            if frame is None:
                return False
        else:
            return False
        if not self._try_queue(frame):
            return False
        if not self._in_batch:
            ConnCore._kick(self)
        return True

    def _kick(self) -> None:
        """Let queued messages leave, at the end of the read that is being handled, or now if there is none."""
        if not self._in_batch:
            self._kick_output(not self._state.in_batch and not len(self._inbox))

    def _kick_later(self) -> None:
        """Let queued messages leave at the end of this event loop iteration."""
        if not self._in_batch:
            self._kick_output(False)

    def _catch_up(self) -> None:
        """Queue all messages of hubs that a direct send must not overtake. That may close the connection.

        The rule is in :mod:`plumews.hub.broadcaster`.
        """
        hooks, self._catch_up_hooks = self._catch_up_hooks, None
        for hook in hooks or ():
            hook(self)

    # --- for its channel --------------------------------------------------------------------------

    def _output_failed(self, exc: BaseException | None) -> None:
        closing.transport_failed(self, exc)

    def _may_write(self) -> None:
        full_queue.may_write(self)

    # --- for its keepalive, as a `Peer` -----------------------------------------------------------

    def _send_ping(self, payload: bytes) -> None:
        self._queue_ping(build_frame(_PING, payload))
        self._kick()

    def _progress(self) -> tuple[int, int] | None:
        return closing.progress(self)

    def _give_up(self) -> None:
        closing.time_out(self)

    def _fail(self, exc: BaseException) -> None:
        closing.fail(self, exc)


if not TYPE_CHECKING and BODY == "pure":
    del ConnCore.__setattr__  # a call for each assignment: Python's own error is all that an unknown name gets
