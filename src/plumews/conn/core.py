"""Hot path of a connection: parse each read, deliver messages, queue replies. Compiled with Cython.

The parser's messages go to a callback or into the receive queue. Replies leave in one write at the end of the read, or
at the end of the event loop iteration on compressed connections. The rest of the transport side is in
:class:`plumews.conn.closing.ClosingCore`. The same source runs as plain Python. A call by the name of a class costs
less than one by an instance, because no subclass can override it.

Invariants: messages before a close frame or a violation in the same read are delivered first. A read is handled in time
slices, so that a burst does not hold the loop. No view of the shared receive buffer is kept.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextvars import Context
from time import monotonic
from typing import TYPE_CHECKING, Any

from .. import limits
from ..constants import COMPRESSED, Opcode, State, StreamEvent
from ..protocol.codec import build_frame
from ..protocol.state import ProtocolState
from ..transport import send_buffer
from ..transport.flow_control import FlowControl
from ..transport.forks import FOREIGN
from ..transport.loop_context import LoopContext, loop_context
from ..transport.writer import Writer
from .context import ContextRunner
from .keepalive import Keepalive
from .receive_queue import ReceiveQueue
from .stream import Stream

if TYPE_CHECKING:
    from ..deflate.inbound import InboundDeflate
    from ..deflate.outbound import DeflateParams, OutboundDeflate
    from .config import ConnConfig

__all__ = ["ConnCore"]

_OPEN = State.OPEN
_get_ident = threading.get_ident
_TEXT, _BINARY, _CLOSE, _PING, _PONG = map(int, (Opcode.TEXT, Opcode.BINARY, Opcode.CLOSE, Opcode.PING, Opcode.PONG))
_BEGIN, _CHUNK, _END = map(int, (StreamEvent.BEGIN, StreamEvent.CHUNK, StreamEvent.END))
#: Messages between two looks at the clock, once the first has shown that a callback does not take its time.
_STRIDE = 4
#: A read of this size announces a large message: the next ones go straight into its memory.
_LARGE_READ = 32 * 1024
_COMPRESSED = COMPRESSED
#: Size of the longest message that is one frame in one buffer.
_SHORT = limits.COPY_SIZE
#: Bytes of a frame before its payload.
_LONGEST_HEADER = 14
#: Results of `InboundDeflate` for an event.
_GO_ON, _LATER = 0, 1


class ConnCore(ContextRunner):
    """Hot half of a connection's transport side. Its subclasses define the methods that stand empty here."""

    __slots__ = (
        "_backlog",
        "_behind",
        "_blocked",
        "_deflate",
        "_ended",
        "_feed",
        "_filter",
        "_handshake",
        "_in_batch",
        "_in_place",
        "_inbox",
        "_incoming",
        "_inflate",
        "_keepalive",
        "_lent",
        "_loop",
        "_on_failure",
        "_on_message",
        "_quick_size",
        "_read_most",
        "_reading_paused",
        "_reads_to_end",
        "_rest",
        "_rules",
        "_shared",
        "_state",
        "_stream",
        "_thread",
        "_transport",
        "_until",
        "_writer",
    )

    def __init__(self, config: ConnConfig, client: bool) -> None:
        loop = asyncio.get_running_loop()
        self._context = None
        self._in_context = False
        self._loop = loop
        self._thread = _get_ident()
        self._state: LoopContext = loop_context(loop)
        self._rules = ProtocolState(client=client, max_size=config.max_size)
        self._feed = self._rules.parser.feed_messages
        self._writer = _writer_for(config, self._state)
        self._inbox = ReceiveQueue(max_items=config.max_queue, max_bytes=config.max_queue_bytes)
        self._keepalive: Keepalive
        #: permessage-deflate, where it was agreed on.
        self._deflate: OutboundDeflate | None = None
        self._inflate: InboundDeflate | None = None
        #: Parameters of compression. Connections with the same object can be sent the same bytes.
        self._shared: DeflateParams | None = None
        self._transport: asyncio.Transport | None = None
        #: Reader of the connection until it is open.
        self._handshake: Any = None
        self._on_message: Callable[[Any, str | bytes], object] | None = None
        self._on_failure: Callable[[Any, BaseException], object] | None = None
        #: Called with each whole message before the application; True takes it.
        self._filter: Any = None
        #: Hubs that have broadcasts for this connection which it was not given yet: they come first.
        self._behind: list[Callable[[Any], None]] | None = None
        #: A message up to this size leaves as one frame in one buffer, whatever characters it has.
        self._quick_size = min(config.fragment_size, limits.COPY_SIZE)
        # --- read state
        self._backlog: list[Any] | None = None  # events that were left over
        self._rest: memoryview | None = None  # bytes behind them that were not parsed
        self._blocked = False  # both wait until the handler has read more
        self._until = 0.0  # the end of the slice of time in which events are handled
        most = max(config.max_queue_bytes, limits.READ_LEAST)
        self._read_most = most if most < limits.READ_BUFFER else 0  # 0: the whole receive buffer
        self._in_batch = False
        self._in_place = False  # a large message is arriving
        self._lent = False  # its memory is where the next bytes go
        self._reading_paused = False
        self._reads_to_end = False  # the peer's FIN has come: what is left is little, and is read without a pause
        self._incoming: Stream | None = None  # the parser feeds it
        self._stream: Stream | None = None  # the application reads it
        self._ended = False  # the peer's close frame, its fault or its FIN was seen

    def _disown(self) -> None:
        """Refuse all calls in a child process: the connection is its parent's (see `forks`)."""
        self._thread = FOREIGN

    def _use_deflate(self, deflate: OutboundDeflate, inflate: InboundDeflate, *, client: bool) -> None:
        """Use permessage-deflate, before anything is received."""
        self._deflate = deflate
        self._inflate = inflate
        self._shared = deflate.shared_params
        self._rules.allow_compressed(client=client)
        self._feed = self._rules.parser.feed_messages
        self._quick_size = min(self._quick_size, deflate.params.never_compressed())

    # --- the transport calls ----------------------------------------------------------------------

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return the memory of the next read: the buffer of the loop, or that of a large message that is arriving."""
        self._lent = False
        room: memoryview | None = None
        if self._in_place:
            try:
                room = self._rules.parser.receive_buffer() if self._rest is None else None
                self._in_place = self._lent = room is not None
            except BaseException as exc:
                self._fail(exc)
        if room is not None:
            return room
        return self._state.view[: self._read_most] if self._read_most else self._state.view

    def buffer_updated(self, nbytes: int) -> None:
        """Handle the ``nbytes`` that the transport has read into the buffer."""
        try:
            ConnCore._read(self, nbytes)
        except BaseException as exc:
            self._fail(exc)

    def _read(self, nbytes: int) -> None:
        self._keepalive.last_received = self._loop.time()
        if self._lent:
            self._lent = False
            events = self._rules.parser.buffer_updated(nbytes)
            if self._ended:
                return
            if self._rules.parser.halted:
                self._halted(self._state.view[:0])
            if events or self._rules.error is not None:
                self._take_up(events)
            elif self._on_message is None:
                self._update_reading()
        elif self._handshake is not None:
            self._run_in_context(self._handshake.received, bytes(self._state.view[:nbytes]))
        else:
            if not self._ended:
                if self._rest is not None:  # the transport could not be paused
                    self._rest = memoryview(bytes(self._rest) + bytes(self._state.view[:nbytes]))
                else:
                    events = self._feed(self._state.buffer, nbytes)
                    if self._rules.parser.halted:
                        self._halted(self._state.view[:nbytes])
                    self._take_up(events)
            if nbytes >= _LARGE_READ:
                self._in_place = True

    # --- reading ----------------------------------------------------------------------------------

    def _deliver_to(
        self, on_message: Callable[[Any, str | bytes], object], on_failure: Callable[[Any, BaseException], object]
    ) -> None:
        """Call ``on_message(conn, message)`` for the messages in the receive queue and for each later one."""
        self._on_message = on_message
        self._on_failure = on_failure
        if len(self._inbox):
            self._run_in_context(self._deliver_waiting)
        if self._ended:
            self._answer()
        self._update_reading()

    def _deliver_waiting(self) -> None:
        while len(self._inbox) and self._on_message is not None:
            kind, data = self._inbox.take()
            self._deliver(kind, data)

    def _receive(self, data: bytes) -> None:
        """Handle bytes that the transport did not read into the buffer, as one read."""
        try:
            if not self._ended:
                events = self._feed(data)
                if self._rules.parser.halted:
                    self._halted(memoryview(data))
                self._take_up(events)
        except BaseException as exc:
            self._fail(exc)

    def _halted(self, data: memoryview) -> None:
        """Keep the rest of ``data``, where the parser stopped at a violation or at too many events."""
        self._rules.error = self._rules.parser.error
        left = self._rules.parser.left
        if left:
            self._rest = memoryview(bytes(data[len(data) - left :]))

    def _next_events(self) -> list[Any]:
        """Return the events that were left over, or those in the next part of the unparsed bytes."""
        backlog, self._backlog = self._backlog, None
        if backlog:
            return backlog
        rest, self._rest = self._rest, None
        if rest is None:
            return []
        events: list[Any] = self._feed(rest)
        self._rules.error = self._rules.parser.error
        left = self._rules.parser.left
        if left:
            self._rest = rest[len(rest) - left :]
        return events

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
                    self._backlog = ContextRunner._dispatch_in_context(self, events)
                if self._backlog is None and self._rest is None and self._rules.error is not None and not self._ended:
                    self._end()
                self._inbox.wake_now()  # the reader's replies leave with this read
                if (self._backlog is None and self._rest is None) or not self._goes_on():
                    break
                self._writer.flush()
                events = ConnCore._next_events(self)
        finally:
            self._in_batch = state.in_batch = False
            if state.slice_ends_with_batch:
                state.end_batch()
            if self._deflate is None:
                self._writer.flush()
            else:
                self._writer.gather()
        held = self._backlog is not None or self._rest is not None
        if held and not self._blocked and (self._inflate is None or not self._inflate.waits_for):
            self._loop.call_soon(self._go_on, context=Context())
        if held or self._on_message is None or self._reading_paused:
            ConnCore._update_reading(self)

    def _goes_on(self) -> bool:
        """Return whether events that are left over can be handled in this iteration of the loop."""
        if self._on_message is not None:
            return self._backlog is None and monotonic() < self._until
        if self._backlog is not None and not self._blocked:
            return False  # it waits to be inflated
        self._blocked = self._has_enough()
        if self._blocked:
            self._is_full()
        return not self._blocked

    def _has_enough(self) -> bool:
        """Return whether the handler has to read before it gets more messages."""
        if self._on_message is not None or self._rules.state is not _OPEN:
            return False
        stream = self._stream or self._incoming
        held = 0 if stream is None or stream.awaited else stream.held
        return self._inbox.is_full(held)

    def _go_on(self) -> None:
        if self._ended:
            return  # the rest can still be read
        try:
            if self._transport is not None and (self._backlog is not None or self._rest is not None):
                self._handle(ConnCore._next_events(self))
                if self._backlog is None and self._rest is None:
                    self._inbox.wake()  # a waiting read_stream() asks for the next message now
        except BaseException as exc:
            self._fail(exc)

    def _dispatch(self, events: list[Any]) -> list[Any] | None:
        """Handle each event. Return those that a slow callback or a full receive queue leaves over.

        One read may hold tens of thousands of messages, and each may be broadcast to thousands.
        """
        look = 1
        outcome = _GO_ON
        over: list[Any] | None = None
        room = len(events)
        if room > 1 and self._on_message is None and self._rules.state is _OPEN:
            room = self._inbox.room()
        if room < len(events):
            events, over = events[:room], events[room:]
            self._blocked = True
        for position, event in enumerate(events, 1):
            if isinstance(event, str):
                self._deliver(_TEXT, event)
            elif isinstance(event, bytes):
                self._deliver(_BINARY, event)
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
            self._deliver(kind, data)
        elif kind == _PING:
            self._writer.pong(build_frame(_PONG, data))
        elif kind == _PONG:
            if self._writer.answered(self._keepalive.pong(data)):
                self._may_write()
        elif kind == _CHUNK:
            if self._inflate is not None and self._inflate.streaming:
                return self._inflate.chunk(self, data)
            if self._incoming is not None:
                self._incoming.feed(data)
        elif kind == _BEGIN:
            if data & _COMPRESSED and self._inflate is not None:
                data ^= _COMPRESSED
                self._inflate.begin(self, data)
            if self._rules.state is _OPEN:
                self._incoming = Stream(data, self._stream_changed)
                self._inbox.put((StreamEvent.BEGIN, self._incoming))
        elif kind == _END:
            if self._inflate is not None and self._inflate.streaming:
                outcome = self._inflate.end_of_stream(self)
                if outcome != _GO_ON:
                    return outcome
            self._finish_stream()
        elif kind == _CLOSE:
            self._rules.peer_closed(*data)
            self._end()
        elif self._inflate is not None:
            return self._inflate.take(self, kind, data)
        return _GO_ON

    def _hand_on(self, kind: int, data: str | bytes) -> None:
        """Deliver an inflated message."""
        self._deliver(kind, data)

    def _start_streaming(self) -> None:
        """Let the parser tell the next message, or the one that is arriving, in pieces."""
        try:
            self._take_up(self._rules.parser.start_streaming())
        except MemoryError as exc:
            self._fail(exc)  # a part of the message is lost

    def _deliver(self, kind: int, data: str | bytes) -> None:
        if self._rules.state is not _OPEN:
            return  # our close frame is on its way: later messages are dropped
        if self._filter is not None and self._filter(self, data):
            return
        if self._on_message is None:
            self._inbox.put((kind, data))
            return
        try:
            self._on_message(self, data)
        except (Exception, asyncio.CancelledError) as exc:  # that of a future which the callback looked into
            if self._on_failure is not None:
                self._on_failure(self, exc)

    def _update_reading(self) -> None:
        """Pause reading while the handler has enough messages, and resume when it has caught up."""
        if self._inflate is not None and self._backlog:
            self._inflate.changed(self)
        held = self._backlog is not None or self._rest is not None
        if not self._reading_paused and not held and self._inbox.has_reader():
            return  # a waiting reader has read everything
        if self._blocked and self._wants_more():
            self._blocked = False
            self._loop.call_soon(self._go_on, context=Context())
        if held or self._rules.state is not _OPEN or self._on_message is not None:
            pause = held
        else:
            inbox, stream = self._inbox, self._stream or self._incoming
            extra = self._rules.parser.buffered
            if stream is not None:
                extra += stream.held
            if extra and (inbox.awaited or (stream is not None and stream.awaited)):
                extra = 0  # a message that a reader waits for must come in, of any size
            pause = not inbox.is_low(extra) if self._reading_paused else inbox.is_full(extra)
        if pause == self._reading_paused or self._reads_to_end:
            return
        if self._transport is None or self._ask_transport("is_closing"):
            return
        self._reading_paused = pause
        if pause:
            self._keepalive.listening = False
            self._ask_transport("pause_reading")
            self._look_for_end()
        else:
            self._keepalive.heard_again(self._loop.time())
            self._ask_transport("resume_reading")

    def _wants_more(self) -> bool:
        """Return whether the handler has caught up, or none reads any more."""
        if self._on_message is not None or self._rules.state is not _OPEN:
            return True
        stream = self._stream or self._incoming
        if self._inbox.awaited or (stream is not None and stream.awaited):
            return True
        return self._inbox.is_low(0 if stream is None else stream.held)

    def _salvage(self) -> bool:
        """Queue the next messages that arrived before the end of the connection. Return whether there are any."""
        while not len(self._inbox) and (self._backlog is not None or self._rest is not None):
            events = ConnCore._next_events(self)
            for position, event in enumerate(events, 1):
                if not isinstance(event, tuple):
                    event = (_TEXT if isinstance(event, str) else _BINARY, event)
                if event[0] == _TEXT or event[0] == _BINARY:
                    self._inbox.put(event)
                    if self._inbox.is_full(0):
                        self._backlog = events[position:] or None
                        break
                elif event[0] != _PING and event[0] != _PONG:
                    self._backlog = self._rest = None
                    break
        if self._rest is None:
            self._rules.parser.stop()
        return len(self._inbox) > 0

    # --- writing ----------------------------------------------------------------------------------

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
            self._send_nowait_slowly(message, compress)

    def _send_now(self, message: Any) -> bool:
        """Queue a short, plain message if there is space. Return False if the caller has to use a coroutine."""
        return self._queue_now(message)

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
        if self._rules.state is not _OPEN or self._behind is not None:
            return False
        frame: bytes | None
        size = len(message)
        if size <= most:
            frame = build_frame(opcode, message)
        elif self._deflate is not None:
            if size > _SHORT or not self._writer.has_space((size << 2) + _LONGEST_HEADER):
                return False  # compressing takes its time, and is counted: not for what waits, or is refused
            frame = self._deflate.frame(opcode, message)
            if frame is None:
                return False
        else:
            return False
        if not self._writer.offer_frame(frame):
            return False
        if not self._in_batch:
            ConnCore._kick(self)
        return True

    def _kick(self) -> None:
        """Let queued messages leave, at the end of the read that is being handled, or now if there is none."""
        if not self._in_batch:
            self._writer.kick(not self._state.in_batch and not len(self._inbox))

    def _kick_later(self) -> None:
        """Let queued messages leave at the end of this event loop iteration."""
        if not self._in_batch:
            self._writer.kick(False)

    # --- in ClosingCore and its subclasses --------------------------------------------------------

    def _fail(self, exc: BaseException) -> None:
        """End the connection with 1011 after ``exc`` in a call of the event loop."""

    def _ask_transport(self, name: str, *args: Any) -> Any:
        """Call the method ``name`` of the transport. If that fails, end the connection and return None."""

    def _end(self) -> None:
        """Handle the end of the peer's side: a close frame or a violation."""

    def _answer(self) -> None:
        """Send the close frame that answers the end of the peer's side."""

    def _may_write(self) -> None:
        """Let the writer send held messages."""

    def _is_full(self) -> None:
        """Note that the handler has to read before more events are handled."""

    def _look_for_end(self) -> None:
        """Look once a second whether the peer has gone, while reading is paused."""

    def _finish_stream(self) -> None:
        """End the stream of a message that is complete."""

    def _stream_changed(self) -> None:
        """React to a stream that was read, awaited or closed by the application."""

    def _send_nowait_slowly(self, message: Any, compress: bool | None) -> None:
        """Queue a message that is long, needs checks, or finds no space. Raise as :meth:`send_nowait`."""


def _writer_for(config: ConnConfig, state: LoopContext) -> Writer:
    unanswered = config.unanswered_limit
    waits_for_event = send_buffer.WAITS_FOR_EVENT and config.unsent_limit is not None
    bounds: dict[str, Any] = {"queue_size": config.queue_size, "queue_bytes": config.queue_bytes}
    if unanswered is None and not waits_for_event:
        return Writer(state, **bounds)
    return FlowControl(state, **bounds, unanswered=unanswered, waits_for_event=waits_for_event)
