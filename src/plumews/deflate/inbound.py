"""Compressed messages on their way to the application: inflated, checked, and not at the cost of others (layer 3).

Most are inflated while the read is handled that brought them. A connection that has used its share of time stands in
line (see `turns`), and one whose application does not read waits for it; meanwhile its socket is not read. So a message
of any allowed size arrives, and nobody else's waits for it.

Invariants: what is held for an application that does not read is what the receive queue takes, and one step; for one
that reads it is one message. After a fault nothing is delivered.
"""

from __future__ import annotations

import io
import logging
from time import monotonic
from typing import Any

from .. import limits, violations
from ..constants import COMPRESSED, Opcode, State
from ..errors import InvalidData, ProtocolError
from ..protocol.codec import Utf8Validator
from .config import Agreement, Deflate
from .inflating import Inflater, inflate_whole
from .pacing import GO_ON, ROOM, STOP, TURN, Pacing
from .turns import Turns

__all__ = ["InboundDeflate"]

logger = logging.getLogger("plumews.server")

_OPEN = State.OPEN
_TEXT, _BINARY = int(Opcode.TEXT), int(Opcode.BINARY)
_COMPRESSED_TEXT = COMPRESSED | _TEXT
_GO_ON, _STOP, _TURN, _ROOM = GO_ON, STOP, TURN, ROOM
_PIECE, _STEP, _SHORT = limits.INFLATE_PIECE, limits.INFLATE_STEP, limits.INFLATE_SHORT


class InboundDeflate(Pacing):
    """The receiving half of permessage-deflate on one connection."""

    __slots__ = (
        "_at_once",
        "_busy",
        "_collected",
        "_inflater",
        "_max_ratio",
        "_takeover",
        "_utf8",
        "_window_bits",
        "messages",
        "payload_bytes",
        "streaming",
        "wire_bytes",
    )

    def __init__(self, agreement: Agreement, settings: Deflate, turns: Turns, *, client: bool) -> None:
        super().__init__(settings.inflate_share, turns)
        # A peer that agreed on no takeover may keep its context all the same, as Safari of iOS 15 does: where takeover
        # is allowed, its context is kept here, too. That reads a peer that keeps none as well.
        self._window_bits = agreement.client_window_bits
        self._takeover = agreement.client_takeover or settings.client_takeover
        if client:
            self._window_bits = agreement.server_window_bits
            self._takeover = agreement.server_takeover or settings.server_takeover
        self._max_ratio = settings.max_ratio
        #: Made when there is something for it to do that it cannot do in one go.
        self._inflater: Inflater | None = None
        # One step makes no more than what no ratio bounds.
        self._at_once = not self._takeover and limits.INFLATE_STEP <= limits.RATIO_FREE
        self._busy = False  # the event that comes next had begun before
        self._collected: io.BytesIO | None = None
        self._utf8: Utf8Validator | None = None
        #: Whether the message that arrives is compressed, and read as a stream.
        self.streaming = False
        self.messages = self.payload_bytes = self.wire_bytes = 0

    @property
    def context_size(self) -> int:
        """Bytes that zlib holds, about."""
        return 0 if self._inflater is None else self._inflater.size

    # --- a whole message --------------------------------------------------------------------------

    def take(self, conn: Any, kind: int, data: bytes) -> int:
        """A compressed message has arrived; after `LATER` it is to be told again."""
        rules = conn._rules
        if rules.state is not _OPEN:
            self.end()
            return _GO_ON
        short = False
        if not self._busy:
            if not self._has_room(conn):
                return self._wait_for(_ROOM)
            size = len(data)
            if self._at_once and size <= _PIECE:
                now = monotonic()
                most = _STEP if self._turns.is_free(now) else _SHORT
                if self._has_time(now) and size <= most:
                    whole = inflate_whole(data, self._window_bits, rules.parser.max_size, most)
                    if whole is not None:
                        return self._hand_on(conn, kind, whole, size, now)
                    self._count(now)
            self.messages += 1
            self.wire_bytes += size
            self._start(conn)
            short = self._takeover  # it may be one: the others were tried
        elif self._collected is not None and not self._held:
            self._hold(self._collected.tell())
        return self._take_in_steps(conn, kind, data, short)

    def _take_in_steps(self, conn: Any, kind: int, data: bytes, short: bool) -> int:
        inflater = self._inflater
        assert inflater is not None
        message = b""
        fault: ProtocolError | None = None
        try:
            if not self._busy:
                self._busy = True
                inflater.feed(data)
                inflater.finish()
            while inflater.pending:
                now = monotonic()  # keeping a part takes as long as inflating it, and counts
                most = _STEP
                if message:
                    self._collect(message)
                    message = b""
                    if not self._has_room(conn):
                        self._let_go()
                        return self._wait_for(_ROOM)
                if not self._may_work(now):
                    if not (short and self._has_time(now)):
                        return self._wait_for(_TURN)
                    most = _SHORT
                short = False
                message = inflater.step(most)
                self._count(now)
            now = monotonic()
            if self._collected is not None:
                self._collected.write(message)
                message = self._collected.getvalue()
            text = _decoded(message) if kind == _COMPRESSED_TEXT else None
            self._count(now)
        except ProtocolError as exc:
            fault = exc
        if fault is not None:
            return self._fail(conn, fault)
        self._collected = None
        self._let_go()
        self._busy = False
        if not self._takeover:
            self._inflater = None
        self.payload_bytes += len(message)
        if text is not None:
            conn._hand_on(_TEXT, text)
        else:
            conn._hand_on(_BINARY, message)
        return _GO_ON

    def _hand_on(self, conn: Any, kind: int, message: bytes, size: int, began: float) -> int:
        """``message`` came in one step, which began then, out of ``size`` bytes."""
        self.messages += 1
        self.wire_bytes += size
        self.payload_bytes += len(message)
        if kind != _COMPRESSED_TEXT:
            self._count(began)
            conn._hand_on(_BINARY, message)
            return _GO_ON
        text: str | None = None
        try:
            text = str(message, "utf-8")
        except UnicodeDecodeError:
            pass
        if text is None:
            return self._fail(conn, _not_text(message))
        self._count(began)
        conn._hand_on(_TEXT, text)
        return _GO_ON

    def _collect(self, part: bytes) -> None:
        if self._collected is None:
            self._collected = io.BytesIO()
        self._collected.write(part)
        self._hold(len(part))

    # --- a stream ---------------------------------------------------------------------------------

    def begin(self, conn: Any, opcode: int) -> None:
        """A compressed message begins to arrive as a stream."""
        self.streaming = True
        self.messages += 1
        self._utf8 = Utf8Validator() if opcode == _TEXT else None
        self._start(conn)

    def _start(self, conn: Any) -> None:
        if self._inflater is None:
            self._inflater = Inflater(
                self._window_bits, takeover=self._takeover, max_ratio=self._max_ratio, earlier=self.messages > 1
            )
        self._inflater.start(conn._rules.parser.max_size)

    def chunk(self, conn: Any, data: bytes) -> int:
        """More of it; after `LATER` it is to be told again."""
        if not self._busy:
            self._busy = True
            self.wire_bytes += len(data)
            fault: ProtocolError | None = None
            if not self._unwanted(conn):
                try:
                    self._inflater.feed(data)  # type: ignore[union-attr]
                except ProtocolError as exc:
                    fault = exc
            if fault is not None:
                return self._fail(conn, fault)
        return self._pass_on(conn)

    def end_of_stream(self, conn: Any) -> int:
        """That was all of it; after `LATER` it is to be told again."""
        if not self._busy:
            self._busy = True
            fault: ProtocolError | None = None
            if not self._unwanted(conn):
                try:
                    self._inflater.finish()  # type: ignore[union-attr]
                except ProtocolError as exc:
                    fault = exc
            if fault is not None:
                return self._fail(conn, fault)
        outcome = self._pass_on(conn)
        if outcome == _GO_ON:
            self.streaming = False
            if self._utf8 is not None and not self._utf8.complete and not self._unwanted(conn):
                return self._fail(conn, InvalidData(violations.TEXT_CUT))
            self._utf8 = None
            if not self._takeover:
                self._inflater = None
        return outcome

    def _pass_on(self, conn: Any) -> int:
        inflater = self._inflater
        assert inflater is not None
        fault: ProtocolError | None = None
        try:
            while inflater.pending and not self._unwanted(conn):
                if not self._has_room(conn):
                    return self._wait_for(_ROOM)
                now = monotonic()
                if not self._may_work(now):
                    return self._wait_for(_TURN)
                part = inflater.step()
                self.payload_bytes += len(part)
                if self._utf8 is not None and not self._utf8.feed(part):
                    raise InvalidData(violations.TEXT_NOT_UTF8)
                if part and conn._incoming is not None:
                    conn._incoming.feed(part)
                self._count(now)
        except ProtocolError as exc:
            fault = exc
        if fault is not None:
            return self._fail(conn, fault)
        self._busy = False
        return _GO_ON

    def _unwanted(self, conn: Any) -> bool:
        """Whether nobody will see what comes, nor anything that refers to it."""
        stream = conn._incoming
        if stream is None or conn._rules.state is not _OPEN:
            return True
        return stream.discarding and not self._takeover

    # --- what is wanted ---------------------------------------------------------------------------

    def _has_room(self, conn: Any) -> bool:
        """Whether the application has asked for more, or may be given more without that."""
        if conn._on_message is not None or conn._rules.state is not _OPEN:
            return True
        stream = conn._incoming if self.streaming else None
        if stream is None:
            size = 0 if self._collected is None else self._collected.tell()
            if not conn._inbox.is_full(size):
                return True
            return size > 0 and not len(conn._inbox) and bool(conn._inbox.has_reader())
        return stream.hungry or stream.discarding or not conn._inbox.is_full(stream.held)

    # --- the end ----------------------------------------------------------------------------------

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
        """Nothing is inflated any more."""
        self._collected = self._utf8 = None
        self._let_go()
        self._inflater = None
        self.streaming = self._busy = False


def _decoded(message: bytes) -> str:
    """``message`` as text. Raises `InvalidData` that says what is wrong."""
    try:
        return str(message, "utf-8")
    except UnicodeDecodeError:
        pass  # whose frames would keep the message alive
    raise _not_text(message)


def _not_text(message: bytes) -> InvalidData:
    """What is wrong with ``message``: a validator says it more exactly."""
    return InvalidData(violations.TEXT_CUT if Utf8Validator().feed(message) else violations.TEXT_NOT_UTF8)
