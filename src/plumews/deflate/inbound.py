"""Inflate received messages in steps of 64 KiB, without holding the event loop, and deliver them.

A message is inflated while its read is handled, as long as that takes no more than half of the loop's time. Beyond that
the connection waits in the loop's `InflateQueue` with the rest of its backlog, and its socket is not read. A connection
whose application does not read waits for that, and its messages stay compressed.

Invariants: a message in progress holds what the receive queue takes and one step, or one message for an application
that reads. After an error nothing is delivered.
"""

from __future__ import annotations

import asyncio
import io
import logging
from collections import deque
from contextvars import Context
from time import monotonic
from typing import Any, Final

from .. import limits, violations
from ..constants import COMPRESSED, Opcode, State
from ..errors import InvalidData, ProtocolError
from ..protocol.codec import Utf8Validator
from ..transport.loop_context import LoopContext
from .config import Agreement, Deflate
from .streams import PIECE, STEP, Inflater, inflate_whole

__all__ = ["GO_ON", "LATER", "ROOM", "STOP", "TURN", "InboundDeflate", "InflateQueue", "inflate_queue"]

logger = logging.getLogger("plumews.server")

#: The fate of the events behind this one: they are handled now, later with this one, or never.
GO_ON: Final = 0
LATER: Final = 1
STOP: Final = 2

#: Values of `InboundDeflate.waits_for`: nothing, the connection's place in the queue, or an application that reads.
NOTHING: Final = 0
TURN: Final = 1
ROOM: Final = 2

#: A message of at most 4 KiB, on the wire and inflated, takes microseconds. It does not wait for other connections.
SHORT: Final = 4 * limits.KiB

# C integers in the compiled module.
_GO_ON, _LATER, _STOP, _NOTHING, _TURN, _ROOM = GO_ON, LATER, STOP, NOTHING, TURN, ROOM
_TEXT, _BINARY = int(Opcode.TEXT), int(Opcode.BINARY)
_COMPRESSED_TEXT = COMPRESSED | _TEXT
_PIECE, _STEP, _SHORT = PIECE, STEP, SHORT
_OPEN = State.OPEN


class InflateQueue:
    """Connections of one event loop that wait to inflate.

    Each of them gets one time slice in its turn. The next turn comes after as much time for everything else.
    """

    __slots__ = ("_loop", "_scheduled", "_turn_until", "_waiting", "free_at", "held", "slice", "used_until")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[tuple[Any, int]] = deque()
        self._scheduled = False
        self._turn_until = 0.0  # 0 outside a turn
        #: Earliest time of the next turn.
        self.free_at = 0.0
        #: Bytes of messages of waiting connections that are inflated in part.
        self.held = 0
        #: Seconds that one turn takes, and that may be used ahead.
        self.slice = limits.FAN_OUT_SLICE
        #: End of the time that inflating outside turns has used.
        self.used_until = 0.0

    def is_free(self, now: float, holds: bool) -> bool:
        """Return whether a connection may inflate a step at ``now``. ``holds``: the result may be part of a message."""
        if self._turn_until:
            return now < self._turn_until
        return self.used_until - now <= self.slice and not (holds and self.held > limits.INFLATED_PARTS)

    def charge(self, began: float, seconds: float) -> None:
        """Use up ``seconds`` of the time from ``began`` on."""
        if not self._turn_until:
            self.used_until = max(self.used_until, began) + seconds

    def end_turn(self) -> None:
        """End the current turn before its time: a message of several steps is complete."""
        self._turn_until = 0.0

    def wait(self, conn: Any, held: int) -> None:
        """Resume ``conn`` in its turn. ``held`` bytes of its message are inflated.

        Beyond 64 MiB of such bytes, messages in progress are completed before others begin.
        """
        if held and self.held + held > limits.INFLATED_PARTS:
            self._waiting.appendleft((conn, held))
        else:
            self._waiting.append((conn, held))
        self.held += held
        self._schedule()

    def _schedule(self) -> None:
        if self._scheduled or not self._waiting:
            return
        delay = self.free_at - monotonic()
        if delay > 0:
            self._loop.call_later(delay, self._next, context=Context())
        else:
            self._loop.call_soon(self._next, context=Context())
        self._scheduled = True

    def _next(self) -> None:
        conn, held = self._waiting.popleft()
        self.held -= held
        began = monotonic()
        self._turn_until = began + self.slice
        try:
            conn._inflate.resume(conn)
        finally:
            ended = monotonic()
            self.free_at = ended + (ended - began)
            self._turn_until = 0.0
            self._scheduled = False
            self._schedule()


def inflate_queue(context: LoopContext) -> InflateQueue:
    """Return the queue of the loop of ``context``, which is made on the first call."""
    queue = context.inflate_queue
    if queue is None:
        queue = context.inflate_queue = InflateQueue(asyncio.get_running_loop())
    assert isinstance(queue, InflateQueue)
    return queue


class InboundDeflate:
    """The receiving half of permessage-deflate on one connection."""

    __slots__ = (
        "_busy",
        "_collected",
        "_inflater",
        "_max_ratio",
        "_over",
        "_queue",
        "_takeover",
        "_used_until",
        "_utf8",
        "_window_bits",
        "messages",
        "payload_bytes",
        "streaming",
        "waits_for",
        "wire_bytes",
    )

    def __init__(self, agreement: Agreement, settings: Deflate, context: LoopContext, *, client: bool) -> None:
        # A peer that agreed on no takeover may keep its context all the same, as Safari of iOS 15 does. Where takeover
        # is allowed, its context is kept here, too. That also reads a peer that keeps none.
        self._window_bits = agreement.client_window_bits
        self._takeover = agreement.client_takeover or settings.client_takeover
        if client:
            self._window_bits = agreement.server_window_bits
            self._takeover = agreement.server_takeover or settings.server_takeover
        self._max_ratio = settings.max_ratio
        self._queue = inflate_queue(context)
        self._used_until = 0.0  # as in the queue, for this connection alone
        #: Made for the first message that needs it: with takeover, in several steps, or as a stream.
        self._inflater: Inflater | None = None
        self._busy = False  # the next event has begun before
        self._over = False  # the connection is gone, and a reader takes what came before
        self._collected: io.BytesIO | None = None
        self._utf8: Utf8Validator | None = None
        #: Reason why the next event waits.
        self.waits_for = _NOTHING
        #: True while a compressed message arrives as a stream.
        self.streaming = False
        self.messages = self.payload_bytes = self.wire_bytes = 0

    @property
    def context_size(self) -> int:
        """Approximate bytes that zlib holds."""
        return 0 if self._inflater is None else self._inflater.size

    # --- whole messages ---------------------------------------------------------------------------

    def take(self, conn: Any, kind: int, data: bytes) -> int:
        """Inflate and deliver a compressed message. After `LATER` the same event comes again."""
        rules = conn._rules
        if rules.state is not _OPEN and not rules.late:
            self.end()
            return _GO_ON
        first = False
        if not self._busy:
            if not self._has_room(conn):
                return self._wait(conn, _ROOM)
            size = len(data)
            if not self._takeover and size <= _PIECE:
                now = monotonic()
                most = self._allowed(now, True, False)
                if 0 < size <= most:
                    whole = inflate_whole(data, self._window_bits, rules.parser.max_size, most)
                    if whole is not None:
                        self.messages += 1
                        self.wire_bytes += size
                        return self._deliver(conn, kind, whole, now)
                    self._charge(now)
            self.messages += 1
            self.wire_bytes += size
            self._start(conn)
            first = self._takeover  # without takeover a short message was tried above
        return self._take_in_steps(conn, kind, data, first)

    def take_after_end(self, conn: Any, kind: int, data: bytes) -> int:
        """Inflate a compressed message that arrived before the end of the connection, and put it into its queue.

        After `LATER` the same event comes again, in a later iteration of the loop.
        """
        self._over = True
        if not self._busy:
            self.messages += 1
            self.wire_bytes += len(data)
            self._start(conn)
        return self._take_in_steps(conn, kind, data, False)

    def _take_in_steps(self, conn: Any, kind: int, data: bytes, first: bool) -> int:
        inflater = self._inflater
        assert inflater is not None
        message = b""
        now = 0.0
        fault: ProtocolError | None = None
        try:
            if not self._busy:
                self._busy = True
                inflater.feed(data)
                inflater.finish()
            while inflater.pending:
                now = monotonic()  # collecting a part takes as long as inflating it, and counts
                if message:
                    if self._collected is None:
                        self._collected = io.BytesIO()
                    self._collected.write(message)
                    message = b""
                    if not self._has_room(conn):
                        return self._wait(conn, _ROOM)
                most = self._allowed(now, first, True)
                if not most:
                    return _LATER if self._over else self._wait(conn, _TURN)
                first = False
                message = inflater.step(most)
                self._charge(now)
            now = monotonic()
            if self._collected is not None:
                self._collected.write(message)
                message = self._collected.getvalue()
                self._queue.end_turn()
        except ProtocolError as exc:
            fault = exc
        if fault is not None:
            return self._fail(conn, fault)
        self._collected = None
        self._busy = False
        if not self._takeover:
            self._inflater = None
        return self._deliver(conn, kind, message, now)

    def _deliver(self, conn: Any, kind: int, message: bytes, began: float) -> int:
        text: str | None = None
        if kind == _COMPRESSED_TEXT:
            try:
                text = str(message, "utf-8")
            except UnicodeDecodeError:
                pass
            if text is None:
                cut = Utf8Validator().feed(message)
                return self._fail(conn, InvalidData(violations.TEXT_CUT if cut else violations.TEXT_NOT_UTF8))
        self._charge(began)
        self.payload_bytes += len(message)
        whole: str | bytes = message if text is None else text
        if self._over:
            conn._inbox.put(whole)
        else:
            conn._deliver(_BINARY if text is None else _TEXT, whole)
        return _GO_ON

    # --- streams ----------------------------------------------------------------------------------

    def begin(self, conn: Any, opcode: int) -> None:
        """Begin a compressed message that is read as a stream."""
        self.streaming = True
        self.messages += 1
        self._utf8 = Utf8Validator() if opcode == _TEXT else None
        self._start(conn)

    def chunk(self, conn: Any, data: bytes) -> int:
        """Inflate more of the stream. After `LATER` the same event comes again."""
        return self._advance(conn, data)

    def end_of_stream(self, conn: Any) -> int:
        """Inflate the rest of the stream. After `LATER` the same event comes again."""
        outcome = self._advance(conn, None)
        if outcome == _GO_ON:
            self.streaming = False
            self._utf8 = None
            if not self._takeover:
                self._inflater = None
        return outcome

    def _advance(self, conn: Any, data: bytes | None) -> int:
        inflater = self._inflater
        assert inflater is not None
        fault: ProtocolError | None = None
        try:
            if not self._busy:
                self._busy = True
                if data is not None:
                    self.wire_bytes += len(data)
                if not self._is_unwanted(conn):
                    if data is None:
                        inflater.finish()
                    else:
                        inflater.feed(data)
            while inflater.pending and not self._is_unwanted(conn):
                if not self._has_room(conn):
                    return self._wait(conn, _ROOM)
                now = monotonic()
                if not self._allowed(now, False, True):
                    return self._wait(conn, _TURN)
                part = inflater.step()
                self.payload_bytes += len(part)
                if self._utf8 is not None and not self._utf8.feed(part):
                    raise InvalidData(violations.TEXT_NOT_UTF8)
                if part and conn._incoming is not None:
                    conn._incoming.feed(part)
                self._charge(now)
            if data is None and self._utf8 is not None and not self._utf8.complete and not self._is_unwanted(conn):
                raise InvalidData(violations.TEXT_CUT)
        except ProtocolError as exc:
            fault = exc
        if fault is not None:
            return self._fail(conn, fault)
        self._busy = False
        return _GO_ON

    def _is_unwanted(self, conn: Any) -> bool:
        """Return whether the rest of the stream is discarded, and no later message refers to it."""
        stream = conn._incoming
        if stream is None or conn._rules.state is not _OPEN:
            return True
        return stream.discarding and not self._takeover

    # --- waiting ----------------------------------------------------------------------------------

    def _allowed(self, now: float, first: bool, holds: bool) -> int:
        """Return how many bytes may be inflated at ``now``. 0: wait for a turn.

        The ``first`` step of a message may be short while others have used up the loop's time.
        """
        if self._queue.is_free(now, holds):
            return _STEP
        return _SHORT if first and self._used_until - now <= self._queue.slice else 0

    def _charge(self, began: float) -> None:
        """Count the time since ``began`` twice, so that inflating at once takes at most half of the loop's time."""
        used = 2 * (monotonic() - began)
        self._used_until = max(self._used_until, began) + used
        self._queue.charge(began, used)

    def _wait(self, conn: Any, what: int) -> int:
        if what == _TURN and self.waits_for != _TURN:
            self._queue.wait(conn, 0 if self._collected is None else self._collected.tell())
        self.waits_for = what
        return _LATER

    def resume(self, conn: Any) -> None:
        """Handle the backlog of ``conn``, whose turn has come."""
        self.waits_for = _NOTHING
        conn._go_on()

    def changed(self, conn: Any) -> None:
        """Resume later if the application of ``conn`` reads again, or if ``conn`` is closing and needs no turn."""
        closing = conn._rules.state is not _OPEN and not conn._rules.late
        if (self.waits_for == _ROOM and self._has_room(conn)) or (self.waits_for == _TURN and closing):
            self.waits_for = _NOTHING
            conn._loop.call_soon(conn._go_on, context=Context())

    def _has_room(self, conn: Any) -> bool:
        """Return whether the application has asked for more, or the receive queue takes more."""
        if conn._on_message is not None or conn._rules.state is not _OPEN:
            return True
        stream = conn._incoming if self.streaming else None
        if stream is None:
            size = 0 if self._collected is None else self._collected.tell()
            if not conn._inbox.is_full(size):
                return True
            return size > 0 and not len(conn._inbox) and bool(conn._inbox.has_reader())
        return stream.hungry or stream.discarding or not conn._inbox.is_full(stream.held)

    # --- begin and end ----------------------------------------------------------------------------

    def _start(self, conn: Any) -> None:
        if self._inflater is None:
            self._inflater = Inflater(
                self._window_bits, takeover=self._takeover, max_ratio=self._max_ratio, earlier=self.messages > 1
            )
        self._inflater.start(conn._rules.parser.max_size)

    def _fail(self, conn: Any, exc: ProtocolError) -> int:
        conn._rules.error = exc.with_traceback(None)
        if exc.detail == violations.KEPT_CONTEXT:
            logger.warning(
                "a client kept its compression context, against client_no_context_takeover, as Safari of iOS 15 does: "
                "compression=Deflate(client_takeover=True) reads it",
                extra={"about": conn},
            )
        self.end()
        return _STOP

    def end(self) -> None:
        """Inflate nothing any more, and free all memory."""
        self._collected = self._utf8 = None
        self._inflater = None
        self.streaming = self._busy = False
