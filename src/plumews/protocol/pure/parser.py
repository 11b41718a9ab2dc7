"""Frame codec in plain Python: the parser, and the API of the codec (RFC 6455 sections 5, 7.4 and 8.1).

Bytes in, events and bytes out, without I/O or clocks. Payloads are not processed byte by byte: masks are XORs of large
ints, and CPython's own decoder checks UTF-8. Invariant: names, results and texts are those of ``_codec.pyx``.
"""

from __future__ import annotations

from contextlib import suppress
from operator import index
from typing import Any, Final, final

from ... import violations
from ...constants import Opcode, StreamEvent
from ...errors import ProtocolError
from .frame_builder import LENGTH_LIMIT, build_batch, build_frame, build_header, fragment, mask_frames
from .frame_reader import FrameReader
from .masking import as_bytes, mask, mask_inplace, new_mask
from .message_assembler import ARMED, STREAMING, WHOLE
from .utf8 import Utf8Validator

__all__ = [
    "Parser",
    "Utf8Validator",
    "build_batch",
    "build_frame",
    "build_header",
    "fragment",
    "mask",
    "mask_frames",
    "mask_inplace",
    "new_mask",
]

# Plain ints: an event has one, and comparing them is what the parser does most.
_TEXT: Final = int(Opcode.TEXT)
_BINARY: Final = int(Opcode.BINARY)
_CLOSE: Final = int(Opcode.CLOSE)
_CHUNK: Final = int(StreamEvent.CHUNK)

#: The least that receive_buffer() gives, if so much is missing.
_ROOM: Final = 64 * 1024


def _bound(name: str, value: int | None, least: int) -> int | None:
    """Return the limit that a caller gave, checked."""
    if value is None:
        return None
    if not isinstance(value, int):
        raise TypeError(violations.BOUND_TYPE.format(name=name, type=type(value).__name__))
    if not least <= value <= LENGTH_LIMIT:
        raise ValueError(violations.BOUND.format(name=name, least=least, value=value))
    return int(value)


@final
class Parser:
    """Parser of the bytes that a peer sent, into messages and control frames.

    A ``client`` accepts unmasked frames, a server masked ones (section 5.1). ``max_size`` bounds the payload bytes of a
    message, ``max_frames`` its frames. ``None`` is no bound. A compressed message may have an eighth and 64 bytes more.
    ``slack`` bounds the memory of the events of one :meth:`feed_messages` beyond the bytes in which they came. With
    ``decode_text`` a text message is a str, otherwise checked bytes. ``allow_rsv1`` accepts compressed messages (RFC
    7692): their kind is ``opcode | COMPRESSED``, and their payload is not checked.
    """

    __slots__ = ("_decode_text", "_error", "_frame", "_lent", "_message", "_slack", "_view")

    def __init__(
        self,
        *,
        client: bool,
        max_size: int | None,
        max_frames: int | None = None,
        decode_text: bool = True,
        allow_rsv1: bool = False,
        slack: int | None = None,
    ) -> None:
        self._frame = FrameReader(
            client=client,
            max_size=_bound("max_size", max_size, 0),
            max_frames=_bound("max_frames", max_frames, 1),
            decode_text=bool(decode_text),
            allow_rsv1=bool(allow_rsv1),
        )
        self._message = self._frame.message
        self._decode_text = bool(decode_text)
        self._error: ProtocolError | None = None
        # What receive_buffer() gave away, until it is taken back.
        self._lent = bytearray()
        self._view: memoryview | None = None
        self._slack = _bound("slack", slack, 1)

    # --- what a caller sees -----------------------------------------------------------------------

    def feed(self, data: Any, /) -> list[tuple[int, Any]]:
        """Return the events that ``data``, the next bytes of the connection, completes, in order.

        ``(TEXT, str | bytes)``, ``(BINARY, bytes)``, ``(PING, bytes)``, ``(PONG, bytes)`` and
        ``(CLOSE, (code, reason))``, with 1005 and ``""`` for a close frame without payload; a streamed
        message comes as in :meth:`start_streaming`. No reference to ``data`` is kept.

        A violation by the peer never raises: the events before it are returned and :attr:`error` is set. It is found
        in the first byte that shows it. After that, after a close frame and after a ``MemoryError`` of any method, the
        rest is ignored and every feed returns ``[]``.
        """
        return self._fed(data, None, None)

    def _fed(self, data: Any, most: int | None, room: int | None) -> list[tuple[int, Any]]:
        events: list[tuple[int, Any]] = []
        self._message.room = room
        self._frame.left = 0
        if not self._frame.ended:
            try:
                data = as_bytes(data)[:most]
                self._take_back()
                if data:  # nothing new: a header that is not all there is not judged again
                    self._frame.parse(self._frame.head + data, events)
            except ProtocolError as exc:
                self._end()
                self._message.opcode = 0
                self._error = exc.with_traceback(None)  # whose frames would keep ``data`` alive
            except MemoryError:
                self._end()
                raise
        return events

    def feed_messages(self, data: Any, size: int | None = None, /) -> list[Any]:
        """Parse the first ``size`` bytes as :meth:`feed` does, with plain messages for the events of most reads.

        A whole message is a str for text and bytes for binary. Control frames, streamed and compressed messages, and
        texts with ``decode_text`` off are tuples as in :meth:`feed`. Parsing stops behind the event with which all of
        them take more memory than ``slack`` allows. :attr:`left` is the number of bytes that were not read then.
        """
        most = None if size is None else max(index(size), 0)
        text = _TEXT if self._decode_text else _BINARY
        try:
            return [
                event[1] if event[0] == _BINARY or event[0] == text else event
                for event in self._fed(data, most, self._slack)
            ]
        except MemoryError:
            self._end()
            raise

    @property
    def halted(self) -> bool:
        """True if there are such bytes, or a violation."""
        return self._frame.left > 0 or self._error is not None

    @property
    def left(self) -> int:
        """Bytes that the last feed did not read, because its events would have taken more than ``slack``."""
        return self._frame.left

    def receive_buffer(self, least: int = 65536) -> memoryview | None:
        """Return memory for the rest of the arriving frame, or ``None`` if little is missing.

        For large payloads: bytes written there need not be copied. The view has at least ``least`` bytes and at most
        as many as the frame still has. With less than ``least`` missing, for control frames, between frames and while
        streaming there is none. The next call of this, :meth:`buffer_updated`, :meth:`feed` or :meth:`start_streaming`
        releases it. Bytes written to slices of it that are kept reach no delivered message. If a view outlasts a
        message, that costs one copy: from then on the last byte of a frame is left to :meth:`feed`.
        """
        least = max(index(least), 1)
        self._take_back()
        missing = self._frame.remaining
        if not self._frame.in_frame or self._frame.opcode >= _CLOSE or self._message.streaming or missing < least:
            return None
        # An int has no memory to receive into: this is a buffer beside the message, no larger than what has come of it.
        try:
            self._lent = bytearray(min(missing, max(least, self._message.size, _ROOM)))
            self._view = memoryview(self._lent)
        except MemoryError:
            self._end()
            raise
        return self._view

    def buffer_updated(self, nbytes: int) -> list[tuple[int, Any]]:
        """Return the events that ``nbytes`` more bytes in the memory of the last :meth:`receive_buffer` complete."""
        nbytes = index(nbytes)
        if self._view is None:
            raise ValueError(violations.NOTHING_LENT)
        if not 0 <= nbytes <= len(self._lent):
            raise ValueError(violations.NBYTES.format(size=len(self._lent), nbytes=nbytes))
        try:
            return self.feed(self._lent[:nbytes])
        except MemoryError:
            self._end()
            raise

    def start_streaming(self) -> list[tuple[int, Any]]:
        """Deliver the arriving message, or the next one, while it arrives.

        It comes as ``(BEGIN, opcode)``, ``(CHUNK, bytes)`` for each piece, never empty, and ``(END, None)``,
        with control frames in between; then messages are whole again. Text is checked, but a chunk may end
        inside a character. Returned are the events for what has arrived already: none, if nothing has.
        """
        if self._message.streaming != WHOLE:
            raise ValueError(violations.STREAMING_ALREADY)
        if not self._message.opcode or self._frame.ended:
            self._message.streaming = ARMED
            return []
        self._take_back()
        try:
            events: list[tuple[int, Any]] = [self._message.begin_event()]
            collected = self._message.take_buffer()
            if collected:
                events.append((_CHUNK, collected))
        except MemoryError:
            self._end()
            raise
        return events

    def stop_streaming(self) -> bool:
        """Undo :meth:`start_streaming`. Return False if it is too late: BEGIN was delivered, END was not."""
        if self._message.streaming == STREAMING:
            return False
        self._message.streaming = WHOLE
        return True

    def stop(self) -> None:
        """Read nothing any more, and give up the received part of a message."""
        self._end()

    @property
    def error(self) -> ProtocolError | None:
        """Violation by the peer, or ``None``. Its ``close_code`` is the code to close with."""
        return self._error

    @property
    def max_size(self) -> int | None:
        """Limit of payload bytes in one message; ``None`` is no limit. A change holds from the next header on."""
        return self._frame.max_size

    @max_size.setter
    def max_size(self, value: int | None) -> None:
        self._frame.max_size = _bound("max_size", value, 0)

    @property
    def max_frames(self) -> int | None:
        """Limit of frames in one message; ``None`` is no limit. A change holds from the next header on."""
        return self._frame.max_frames

    @max_frames.setter
    def max_frames(self, value: int | None) -> None:
        self._frame.max_frames = _bound("max_frames", value, 1)

    @property
    def buffered(self) -> int:
        """Bytes held: of an unfinished header, control frame and message."""
        return (
            len(self._frame.head)
            + len(self._frame.control)
            + (self._message.buffer.tell() if self._message.buffer is not None else 0)
        )

    @property
    def mid_message(self) -> bool:
        """True if a frame or a message is unfinished. At the end of the connection it was cut then.

        Stays as it is after a close frame; False after a fault.
        """
        return bool(self._frame.head) or self._frame.in_frame or self._message.opcode != 0

    @property
    def streaming(self) -> bool:
        """True if the arriving message, or the next one, is streamed."""
        return self._message.streaming != WHOLE

    def _take_back(self) -> None:
        """Release the view that receive_buffer() returned."""
        if self._view is not None:
            with suppress(BufferError):  # an event loop may hold it until buffer_updated() returns: uvloop does
                self._view.release()
            self._view, self._lent = None, bytearray()

    def _end(self) -> None:
        self._frame.end()
        self._take_back()
