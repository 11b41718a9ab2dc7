"""The frame codec in plain Python: the body that runs where the compiled one was not built (layer 1).

This file has the parser; masks, UTF-8 and frames going out have one of their own each.

RFC 6455 section 5 (framing), sections 5.5.1 and 7.4 (close payloads), section 8.1 and RFC 3629 (UTF-8).
Bytes in, events and bytes out: no I/O, no clock. Payloads are never walked byte by byte: masks are XORs of
large ints, UTF-8 is checked by CPython's own decoder. Invariant: same names, same results, same texts as
``_codec.pyx``; tests/test_codec_agreement.py holds them together. Import :mod:`plumews.codec` instead.
"""

from __future__ import annotations

import io
from contextlib import suppress
from operator import index
from typing import Any, Final, final

from . import faults
from ._codec_py_frames import LENGTH_LIMIT, build_batch, build_frame, build_header, fragment
from ._codec_py_mask import as_bytes, mask, mask_inplace, new_mask, rotated, xor
from ._codec_py_utf8 import Utf8Validator
from .constants import COMPRESSED, Opcode, StreamEvent, is_valid_close_code
from .errors import InvalidData, PayloadTooBig, ProtocolError, TooManyFragments
from .limits import CONTROL_PAYLOAD

__all__ = [
    "Parser",
    "Utf8Validator",
    "build_batch",
    "build_frame",
    "build_header",
    "fragment",
    "mask",
    "mask_inplace",
    "new_mask",
]

# Plain ints: an event has one, and comparing them is what the parser does most.
_CONT: Final = int(Opcode.CONT)
_TEXT: Final = int(Opcode.TEXT)
_BINARY: Final = int(Opcode.BINARY)
_CLOSE: Final = int(Opcode.CLOSE)
_BEGIN: Final = int(StreamEvent.BEGIN)
_CHUNK: Final = int(StreamEvent.CHUNK)
_END: Final = int(StreamEvent.END)
_OPCODES: Final = frozenset(map(int, Opcode))

#: The least that receive_buffer() gives, if so much is missing.
_ROOM: Final = 64 * 1024

# What a parser does with the message that arrives, or is next to arrive.
_WHOLE, _ARMED, _STREAMING = range(3)


def _bound(name: str, value: int | None, least: int) -> int | None:
    """A limit as a caller gave it, checked."""
    if value is None:
        return None
    if not isinstance(value, int):
        raise TypeError(faults.BOUND_TYPE.format(name=name, type=type(value).__name__))
    if not least <= value <= LENGTH_LIMIT:
        raise ValueError(faults.BOUND.format(name=name, least=least, value=value))
    return int(value)


def _widened(limit: int) -> int:
    """What a message of ``limit`` bytes may have compressed: in zlib's fixed codes a byte may take nine bits."""
    return min(limit + (limit >> 3) + 64, LENGTH_LIMIT)


@final
class Parser:
    """Turns the bytes that a peer sent into messages and control frames.

    ``client`` says which side we are: a client takes unmasked frames, a server masked ones (section 5.1).
    ``max_size`` bounds the payload bytes of one message, ``max_frames`` its frames; ``None`` is no bound. A compressed
    message may have more, an eighth and 64 bytes: whoever inflates it has ``max_size`` to keep.
    With ``decode_text`` a text message is a str, otherwise checked bytes. ``allow_rsv1`` takes compressed
    messages (RFC 7692): their kind is ``opcode | COMPRESSED``, their payload bytes that nobody checked.

    Raises:
        ValueError, TypeError: ``max_size`` is not ``None`` or 0 or more, ``max_frames`` not ``None`` or 1 or more.
    """

    __slots__ = (
        "_allow_rsv1",
        "_buffer",
        "_compressed",
        "_control",
        "_decode_text",
        "_ended",
        "_error",
        "_fin",
        "_frames",
        "_head",
        "_in_frame",
        "_key",
        "_mask_bit",
        "_max_frames",
        "_max_size",
        "_message",
        "_opcode",
        "_remaining",
        "_room",
        "_size",
        "_streaming",
        "_utf8",
        "_view",
    )

    def __init__(
        self,
        *,
        client: bool,
        max_size: int | None,
        max_frames: int | None = None,
        decode_text: bool = True,
        allow_rsv1: bool = False,
    ) -> None:
        self._mask_bit = 0 if client else 0x80  # what the second byte of a frame must have
        self._max_size = _bound("max_size", max_size, 0)
        self._max_frames = _bound("max_frames", max_frames, 1)
        self._decode_text = bool(decode_text)
        self._allow_rsv1 = bool(allow_rsv1)
        self._error: ProtocolError | None = None
        self._ended = False  # after a fault or a close frame: nothing is read any more
        # The frame that is arriving.
        self._head = b""  # a header that is not all there
        self._in_frame = False  # the header was read, payload is missing
        self._opcode = 0
        self._fin = False
        self._remaining = 0
        self._key = b""  # for the next byte of payload; empty if frames are not masked
        self._control = b""  # the payload of a control frame
        # The message that is arriving.
        self._message = 0  # its opcode, 0 between messages
        self._compressed = False
        self._frames = 0
        self._size = 0  # bytes of payload received
        self._buffer: io.BytesIO | None = None  # those that were not delivered
        self._utf8: Utf8Validator | None = None  # None if the message is not checked
        self._streaming = _WHOLE
        # What receive_buffer() gave away, until it is taken back.
        self._room = bytearray()
        self._view: memoryview | None = None

    # --- what a caller sees -----------------------------------------------------------------------

    def feed(self, data: Any, /) -> list[tuple[int, Any]]:
        """The events that ``data``, the next bytes of the connection, completes, in order.

        ``(TEXT, str | bytes)``, ``(BINARY, bytes)``, ``(PING, bytes)``, ``(PONG, bytes)`` and
        ``(CLOSE, (code, reason))``, with 1005 and ``""`` for a close frame without payload; a streamed
        message comes as in :meth:`start_streaming`. No reference to ``data`` is kept.

        A fault of the peer never raises: the events before it are returned and :attr:`error` is set.
        After that, or after a close frame, the rest is ignored and every feed returns ``[]``. A fault is
        found when the bytes that show it are there: the first byte of a header (reserved bits, opcode,
        FIN of a control frame, place in the message, number of frames), the second (mask, size of a control
        frame), the length (shortest form, top bit, limit), each byte of a text, the end of a frame.

        Raises:
            TypeError, BufferError: ``data`` is no buffer, or not a contiguous one.
        """
        return self._fed(data, None)

    def _fed(self, data: Any, most: int | None) -> list[tuple[int, Any]]:
        events: list[tuple[int, Any]] = []
        if not self._ended:
            try:
                data = as_bytes(data)[:most]
                self._take_back()
                if data:  # nothing new: a header that is not all there is not judged again
                    self._parse(self._head + data, events)
            except ProtocolError as exc:
                self._end()
                self._message = 0
                self._error = exc.with_traceback(None)  # whose frames would keep ``data`` alive
        return events

    def feed_messages(self, data: Any, size: int | None = None, /) -> list[Any]:
        """The same as :meth:`feed` with the first ``size`` bytes, and less around the messages: what most reads hold.

        A whole message stands for itself: a str is a text, bytes are binary. Everything else is a tuple as in
        :meth:`feed`: control frames, what is streamed or compressed, and texts with ``decode_text`` off.
        """
        most = None if size is None else max(index(size), 0)
        text = _TEXT if self._decode_text else _BINARY
        return [event[1] if event[0] == _BINARY or event[0] == text else event for event in self._fed(data, most)]

    def receive_buffer(self, least: int = 65536) -> memoryview | None:
        """The memory in which the rest of the frame that is arriving is wanted; ``None`` if that is not much.

        For large payloads: what is written there need not be copied. The view has at least ``least`` bytes and at most
        as many as the frame still has; with less than ``least`` missing, for control frames, between frames and while
        streaming there is none. It holds until the next call of this, :meth:`buffer_updated`, :meth:`feed` or
        :meth:`start_streaming`, which release it; what is written to slices of it that somebody keeps reaches no
        message that was delivered. A loop whose views outlast the message costs it a copy, once: from then on the
        last byte of a frame is left to :meth:`feed`.

        Raises:
            TypeError: ``least`` is no int.
        """
        least = max(index(least), 1)
        self._take_back()
        missing = self._remaining
        if not self._in_frame or self._opcode >= _CLOSE or self._streaming or missing < least:
            return None
        # An int has no memory to receive into: this is a buffer beside the message, no larger than what has come of it.
        self._room = bytearray(min(missing, max(least, self._size, _ROOM)))
        self._view = memoryview(self._room)
        return self._view

    def buffer_updated(self, nbytes: int) -> list[tuple[int, Any]]:
        """The events that ``nbytes`` more bytes in the memory of the last :meth:`receive_buffer` complete.

        Raises:
            ValueError: there is no such memory any more, or not so much of it.
        """
        nbytes = index(nbytes)
        if self._view is None:
            raise ValueError(faults.NOTHING_LENT)
        if not 0 <= nbytes <= len(self._room):
            raise ValueError(faults.NBYTES.format(size=len(self._room), nbytes=nbytes))
        return self.feed(self._room[:nbytes])

    def start_streaming(self) -> list[tuple[int, Any]]:
        """Deliver the message that is arriving, or the next one, while it arrives.

        It comes as ``(BEGIN, opcode)``, ``(CHUNK, bytes)`` for each piece, never empty, and ``(END, None)``,
        with control frames in between; then messages are whole again. Text is checked, but a chunk may end
        inside a character. Returned are the events for what has arrived already: none, if nothing has.

        Raises:
            ValueError: the message of an earlier call has not ended.
        """
        if self._streaming != _WHOLE:
            raise ValueError(faults.STREAMING_ALREADY)
        if not self._message or self._ended:
            self._streaming = _ARMED
            return []
        self._take_back()
        events: list[tuple[int, Any]] = [self._begin_event()]
        collected = self._take_buffer()
        if collected:
            events.append((_CHUNK, collected))
        return events

    def stop_streaming(self) -> bool:
        """Take :meth:`start_streaming` back. False if it is too late: BEGIN was delivered, END was not."""
        if self._streaming == _STREAMING:
            return False
        self._streaming = _WHOLE
        return True

    @property
    def error(self) -> ProtocolError | None:
        """What the peer did wrong; its ``close_code`` is the one to close with."""
        return self._error

    @property
    def max_size(self) -> int | None:
        """The most bytes of payload in one message; ``None`` is no bound. A change holds from the next header on."""
        return self._max_size

    @max_size.setter
    def max_size(self, value: int | None) -> None:
        self._max_size = _bound("max_size", value, 0)

    @property
    def max_frames(self) -> int | None:
        """The most frames in one message; ``None`` is no bound. A change holds from the next header on."""
        return self._max_frames

    @max_frames.setter
    def max_frames(self, value: int | None) -> None:
        self._max_frames = _bound("max_frames", value, 1)

    @property
    def buffered(self) -> int:
        """Bytes held: of an unfinished header, control frame and message."""
        return len(self._head) + len(self._control) + (self._buffer.tell() if self._buffer is not None else 0)

    @property
    def mid_message(self) -> bool:
        """Whether a frame or a message is unfinished: at the end of the connection, that it was cut.

        Stays as it is after a close frame; False after a fault.
        """
        return bool(self._head) or self._in_frame or self._message != 0

    @property
    def streaming(self) -> bool:
        """Whether the message that is arriving, or the next one, is streamed."""
        return self._streaming != _WHOLE

    # --- frames -----------------------------------------------------------------------------------

    def _parse(self, data: bytes, events: list[tuple[int, Any]]) -> None:
        """Take ``data`` apart. Raises the first fault."""
        self._head = b""
        mask_bit = self._mask_bit
        payload_at = 6 if mask_bit else 2
        short = 125 if self._max_size is None else min(125, self._max_size)
        pos, end = 0, len(data)
        from_bytes = int.from_bytes
        while pos < end:
            if not self._in_frame:
                # Most frames are a short message of their own, all there. Those are read without a call.
                first = data[pos]
                if (first == 0x81 or first == 0x82) and pos + 1 < end and not self._message and not self._streaming:
                    size = data[pos + 1] ^ mask_bit
                    start = pos + payload_at
                    stop = start + size
                    if size <= short and stop <= end:
                        payload = data[start:stop]
                        if mask_bit:
                            pad = (data[pos + 2 : start] * 32)[:size]
                            number = from_bytes(payload, "little") ^ from_bytes(pad, "little")
                            payload = number.to_bytes(size, "little")
                        if first == 0x82:
                            events.append((_BINARY, payload))
                        else:
                            events.append((_TEXT, self._text(payload)))
                        pos = stop
                        continue
                start = self._header(data, pos, end)
                if start == 0:
                    self._head = data[pos:]
                    return
                pos = start
                self._begin_frame(end - pos, events)
            stop = min(pos + self._remaining, end)
            self._payload(data, pos, stop, events)
            if self._ended:
                return
            pos = stop

    def _header(self, data: bytes, pos: int, end: int) -> int:
        """Read and judge the header at ``pos``: where its payload begins, 0 if it is not all there (section 5.2)."""
        first = data[pos]
        opcode = first & 0x0F
        if first & 0x70:
            if first & 0x30 or not self._allow_rsv1:
                raise ProtocolError(faults.RESERVED_BITS)
            if opcode not in (_TEXT, _BINARY):
                raise ProtocolError(faults.RSV1_MISPLACED)
        if opcode not in _OPCODES:
            raise ProtocolError(faults.RESERVED_OPCODE.format(opcode=opcode))
        control = opcode >= _CLOSE
        if control:
            if not first & 0x80:
                raise ProtocolError(faults.FRAGMENTED_CONTROL)
        elif opcode == _CONT and not self._message:
            raise ProtocolError(faults.STRAY_CONTINUATION)
        elif opcode != _CONT and self._message:
            raise ProtocolError(faults.INTERLEAVED_MESSAGE)
        elif self._max_frames is not None and self._frames >= self._max_frames:
            raise TooManyFragments(faults.TOO_MANY_FRAMES.format(limit=self._max_frames))
        if end - pos < 2:
            return 0

        second = data[pos + 1]
        if second & 0x80 != self._mask_bit:
            raise ProtocolError(faults.MASKED if second & 0x80 else faults.UNMASKED)
        length = second & 0x7F
        if control and length > CONTROL_PAYLOAD:
            raise ProtocolError(faults.CONTROL_TOO_LARGE)
        start = pos + 2
        if length > 125:
            start = pos + (4 if length == 126 else 10)
            if start > end:
                return 0
            shortest = 126 if length == 126 else 0x10000
            length = int.from_bytes(data[pos + 2 : start], "big")
            if length < shortest:
                raise ProtocolError(faults.LENGTH_NOT_MINIMAL)
            if length > LENGTH_LIMIT:
                raise ProtocolError(faults.LENGTH_TOP_BIT)
        if not control:
            limit = LENGTH_LIMIT if self._max_size is None else self._max_size
            compressed = self._compressed if opcode == _CONT else first & 0x40
            if length > (_widened(limit) if compressed else limit) - self._size:
                raise PayloadTooBig(faults.TOO_BIG.format(length=length, have=self._size, limit=limit))

        if self._mask_bit:
            start += 4
            if start > end:
                return 0
            self._key = data[start - 4 : start]
        self._opcode = opcode
        self._fin = first >= 0x80
        self._compressed = self._compressed if opcode == _CONT or control else first & 0x40 != 0
        self._remaining = length
        return start

    def _begin_frame(self, available: int, events: list[tuple[int, Any]]) -> None:
        """A header was read. A message in one frame that is all there needs no state of its own."""
        self._in_frame = True
        if self._opcode >= _CLOSE:
            return
        if self._opcode != _CONT and not (self._fin and self._remaining <= available and not self._streaming):
            self._message = self._opcode
            self._utf8 = Utf8Validator() if self._opcode == _TEXT and not self._compressed else None
            if self._streaming:
                events.append(self._begin_event())
        if self._message:
            self._frames += 1

    def _payload(self, data: bytes, pos: int, stop: int, events: list[tuple[int, Any]]) -> None:
        """``data[pos:stop]`` is payload of the frame that is arriving, maybe its last."""
        if self._key:
            piece = xor(data, pos, stop, self._key)
            self._key = rotated(self._key, stop - pos)
        else:
            piece = data[pos:stop]
        self._remaining -= len(piece)
        if self._opcode >= _CLOSE:
            self._control += piece
        elif self._message:
            self._collect(piece, events)
        if self._remaining:
            return
        self._in_frame = False
        if self._opcode >= _CLOSE:
            self._end_control(events)
        elif not self._message:
            self._deliver(
                self._opcode, self._text(piece) if self._opcode == _TEXT and not self._compressed else piece, events
            )
        elif self._fin:
            self._end_message(events)

    def _end_control(self, events: list[tuple[int, Any]]) -> None:
        """A control frame is complete (section 5.5)."""
        payload, self._control = self._control, b""
        if self._opcode == _CLOSE:
            events.append((_CLOSE, _close_payload(payload)))
            self._end()
        else:
            events.append((self._opcode, payload))

    # --- messages ---------------------------------------------------------------------------------

    def _collect(self, piece: bytes, events: list[tuple[int, Any]]) -> None:
        """``piece`` belongs to the message that is arriving."""
        self._size += len(piece)
        good = len(piece) if self._utf8 is None else self._utf8._scan(piece)
        if self._streaming:
            if good:
                events.append((_CHUNK, piece if good == len(piece) else piece[:good]))
        elif good:
            if self._buffer is None:
                self._buffer = io.BytesIO()
            self._buffer.write(piece)
        if good < len(piece):
            raise InvalidData(faults.TEXT_NOT_UTF8)

    def _end_message(self, events: list[tuple[int, Any]]) -> None:
        """The last frame of a message is complete."""
        if self._utf8 is not None and not self._utf8.complete:
            raise InvalidData(faults.TEXT_CUT)
        if self._streaming:
            events.append((_END, None))
            self._streaming = _WHOLE
        else:
            payload: Any = self._take_buffer()
            if self._utf8 is not None and self._decode_text:
                payload = str(payload, "utf-8")
            self._deliver(self._message, payload, events)
        self._message = self._frames = self._size = 0
        self._utf8 = None

    def _deliver(self, opcode: int, payload: Any, events: list[tuple[int, Any]]) -> None:
        events.append((opcode | COMPRESSED if self._compressed else opcode, payload))

    def _begin_event(self) -> tuple[int, int]:
        self._streaming = _STREAMING
        return _BEGIN, self._message | COMPRESSED if self._compressed else self._message

    def _take_buffer(self) -> bytes:
        """What was collected of the message. It is the parser's no longer."""
        buffer, self._buffer = self._buffer, None
        return b"" if buffer is None else buffer.getvalue()

    def _take_back(self) -> None:
        """End the loan of receive_buffer()."""
        if self._view is not None:
            with suppress(BufferError):  # an event loop may hold it until buffer_updated() returns: uvloop does
                self._view.release()
            self._view, self._room = None, bytearray()

    def _text(self, payload: bytes) -> Any:
        """A text that came in one piece."""
        if self._decode_text:
            try:
                return str(payload, "utf-8")
            except UnicodeDecodeError:
                pass  # a validator says more exactly what is wrong
        validator = Utf8Validator()
        if not validator.feed(payload):
            raise InvalidData(faults.TEXT_NOT_UTF8)
        if not validator.complete:
            raise InvalidData(faults.TEXT_CUT)
        return payload

    def _end(self) -> None:
        """Nothing is read after this; nothing is held for it."""
        self._ended = True
        self._in_frame = False
        self._head = self._control = b""
        self._buffer = self._utf8 = None
        self._take_back()


def _close_payload(payload: bytes) -> tuple[int, str]:
    """The code and the reason in a close frame (sections 5.5.1 and 7.4)."""
    if not payload:
        return 1005, ""
    if len(payload) == 1:
        raise ProtocolError(faults.CLOSE_ONE_BYTE)
    code = int.from_bytes(payload[:2], "big")
    if not is_valid_close_code(code):
        raise ProtocolError(faults.CLOSE_CODE.format(code=code))
    try:
        return code, str(payload[2:], "utf-8")
    except UnicodeDecodeError:
        pass
    raise InvalidData(faults.CLOSE_REASON_NOT_UTF8)
