"""The frame codec in plain Python: the body that runs where the compiled one was not built (layer 1).

RFC 6455 section 5 (framing), sections 5.5.1 and 7.4 (close payloads), section 8.1 and RFC 3629 (UTF-8).
Bytes in, events and bytes out: no I/O, no clock. Payloads are never walked byte by byte: masks are XORs of
large ints, UTF-8 is checked by CPython's own decoder. Invariant: same names, same results, same texts as
``_codec.pyx``; tests/test_codec_agreement.py holds them together. Import :mod:`plumews.codec` instead.
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Callable
from operator import index
from typing import Any, Final, final

from . import faults
from .constants import COMPRESSED, Opcode, StreamEvent, is_valid_close_code
from .errors import InvalidData, PayloadTooBig, ProtocolError, TooManyFragments
from .limits import CONTROL_PAYLOAD, COPY_SIZE, FRAGMENT_SIZE

__all__ = ["Parser", "Utf8Validator", "build_frame", "build_header", "fragment", "mask", "mask_inplace"]

# Plain ints: an event has one, and comparing them is what the parser does most.
_CONT: Final = int(Opcode.CONT)
_TEXT: Final = int(Opcode.TEXT)
_BINARY: Final = int(Opcode.BINARY)
_CLOSE: Final = int(Opcode.CLOSE)
_BEGIN: Final = int(StreamEvent.BEGIN)
_CHUNK: Final = int(StreamEvent.CHUNK)
_END: Final = int(StreamEvent.END)
_OPCODES: Final = frozenset(map(int, Opcode))

_LENGTH_LIMIT: Final = 2**63 - 1

#: How much is XORed at once: beyond it the ints fall out of the processor's cache.
_PIECE: Final = 16 * 1024

# What a parser does with the message that arrives, or is next to arrive.
_WHOLE, _ARMED, _STREAMING = range(3)


# --- buffers and masks (section 5.3) --------------------------------------------------------------


def _as_bytes(data: Any) -> bytes:
    """``data`` as bytes; copied unless it is exactly that."""
    if type(data) is bytes:
        return data
    try:
        view = memoryview(data)
    except TypeError:
        raise TypeError(faults.NOT_A_BUFFER.format(type=type(data).__name__)) from None
    with view:
        if not view.c_contiguous:
            raise BufferError(faults.NOT_CONTIGUOUS)
        return view.tobytes()


def _check_key(key: bytes) -> bytes:
    if type(key) is not bytes:
        raise TypeError(faults.KEY_TYPE.format(type=type(key).__name__))
    if len(key) != 4:
        raise ValueError(faults.KEY_LENGTH.format(length=len(key)))
    return key


def _rotate(key: bytes, offset: int) -> bytes:
    """The key for what begins ``offset`` bytes into a payload."""
    offset &= 3
    return key[offset:] + key[:offset]


def _xor(data: bytes, start: int, stop: int, key: bytes) -> bytes:
    """``data[start:stop]`` under ``key``."""
    size = stop - start
    if size <= _PIECE:
        pad = (key * ((size + 3) >> 2))[:size]
        return (int.from_bytes(data[start:stop], "little") ^ int.from_bytes(pad, "little")).to_bytes(size, "little")
    out = io.BytesIO()  # its bytes are handed over without a copy, which b"".join cannot
    for piece in range(start, stop, _PIECE):
        out.write(_xor(data, piece, min(piece + _PIECE, stop), key))
    return out.getvalue()


def mask(data: Any, key: bytes, offset: int = 0) -> bytes:
    """``data`` (any contiguous buffer) masked or unmasked with the 4 bytes of ``key`` (section 5.3).

    ``offset`` is the position in the payload at which ``data`` begins.

    Raises:
        ValueError: the key is not exactly 4 bytes.
        TypeError, BufferError: ``data`` is no buffer, or not a contiguous one.
    """
    key = _rotate(_check_key(key), index(offset))
    data = _as_bytes(data)
    return _xor(data, 0, len(data), key)


def mask_inplace(data: Any, key: bytes, offset: int = 0) -> None:
    """The same as :func:`mask`, written back into ``data``, a writable contiguous buffer."""
    key = _rotate(_check_key(key), index(offset))
    try:
        whole = memoryview(data)
    except TypeError:
        raise TypeError(faults.NOT_A_BUFFER.format(type=type(data).__name__)) from None
    with whole:
        if not whole.c_contiguous:
            raise BufferError(faults.NOT_CONTIGUOUS)
        if whole.readonly:
            raise BufferError(faults.READ_ONLY)
        if whole.nbytes == 0:
            return
        with whole.cast("B") as view:
            for start in range(0, len(view), _PIECE):
                piece = bytes(view[start : start + _PIECE])
                view[start : start + _PIECE] = _xor(piece, 0, len(piece), key)


# --- UTF-8 (section 8.1) --------------------------------------------------------------------------


def _lead_bytes() -> dict[int, tuple[int, int, int]]:
    """For each first byte of a longer character: its length, and the range of its second byte (RFC 3629)."""
    leads = dict.fromkeys(range(0xC2, 0xE0), (2, 0x80, 0xBF))
    leads |= dict.fromkeys(range(0xE0, 0xF0), (3, 0x80, 0xBF))
    leads |= dict.fromkeys(range(0xF0, 0xF5), (4, 0x80, 0xBF))
    leads[0xE0] = (3, 0xA0, 0xBF)  # not what two bytes can say
    leads[0xED] = (3, 0x80, 0x9F)  # no surrogates
    leads[0xF0] = (4, 0x90, 0xBF)  # not what three bytes can say
    leads[0xF4] = (4, 0x80, 0x8F)  # nothing above U+10FFFF
    return leads


_LEADS: Final = _lead_bytes()


def _begun(rest: bytes) -> int:
    """How many of the first bytes of ``rest``, which holds no whole character, can begin one."""
    if not rest or rest[0] not in _LEADS:
        return 0
    length, low, high = _LEADS[rest[0]]
    good = 1
    while good < min(length, len(rest)) and low <= rest[good] <= high:
        good += 1
        low, high = 0x80, 0xBF
    return good


@final
class Utf8Validator:
    """Says of bytes that arrive in pieces whether they can still become valid UTF-8 (RFC 3629)."""

    __slots__ = ("_failed", "_tail")

    def __init__(self) -> None:
        self.reset()

    def feed(self, data: Any) -> bool:
        """False from the first byte on that no continuation could make valid, until :meth:`reset`."""
        data = _as_bytes(data)
        return not self._failed and self._scan(data) == len(data)

    @property
    def complete(self) -> bool:
        """Whether what was fed is valid as it stands: not inside a character, and never false."""
        return not self._failed and not self._tail

    def reset(self) -> None:
        """Begin again."""
        self._failed = False
        self._tail = b""  # of a character that is still arriving: at most 3 bytes

    def _scan(self, data: bytes) -> int:
        """How many bytes of ``data`` come before the first impossible one."""
        known = len(self._tail)
        if known:
            data = self._tail + data
        try:
            done = codecs.utf_8_decode(data, "strict", False)[1]
        except UnicodeDecodeError as exc:
            done = exc.start
        # CPython takes the first two bytes of a surrogate for the beginning of a character; RFC 3629 does not.
        rest = data[done : done + 4]
        good = done + _begun(rest)
        self._tail = rest
        self._failed = good < len(data)
        return good - known


# --- building (section 5.2) -----------------------------------------------------------------------


def build_header(
    opcode: int, length: int, *, fin: bool = True, rsv1: bool = False, mask_key: bytes | None = None
) -> bytes:
    """The header of a frame with ``length`` bytes of payload; with the key, if one is given.

    The fields are written as given. Whether such a frame may be sent is the caller's to know: tests and
    proxies build frames that may not.

    Raises:
        ValueError: ``opcode`` or ``length`` does not fit its field, or the key is not exactly 4 bytes.
    """
    opcode = index(opcode)
    if not 0 <= opcode <= 15:
        raise ValueError(faults.OPCODE.format(opcode=opcode))
    length = index(length)
    if not 0 <= length <= _LENGTH_LIMIT:
        raise ValueError(faults.LENGTH.format(length=length))
    first = opcode | (0x80 if fin else 0) | (0x40 if rsv1 else 0)
    if mask_key is None:
        masked, key = 0, b""
    else:
        masked, key = 0x80, _check_key(mask_key)
    if length <= 125:
        return bytes((first, masked | length)) + key
    if length <= 0xFFFF:
        return bytes((first, masked | 126)) + length.to_bytes(2, "big") + key
    return bytes((first, masked | 127)) + length.to_bytes(8, "big") + key


def build_frame(
    opcode: int, payload: Any, *, fin: bool = True, rsv1: bool = False, mask_key: bytes | None = None
) -> bytes:
    """A frame with ``payload``: any contiguous buffer, or a str, which is encoded as UTF-8.

    Raises:
        UnicodeEncodeError: the str has a lone surrogate.
        ValueError, TypeError, BufferError: as :func:`build_header` and :func:`mask`.
    """
    data = payload.encode() if isinstance(payload, str) else _as_bytes(payload)
    header = build_header(opcode, len(data), fin=fin, rsv1=rsv1, mask_key=mask_key)
    return header + (data if mask_key is None else _xor(data, 0, len(data), mask_key))


def fragment(
    opcode: int,
    payload: Any,
    *,
    size: int = FRAGMENT_SIZE,
    mask: Callable[[], bytes] | None = None,
    rsv1: bool = False,
) -> list[bytes | memoryview]:
    """The frames of one message, as buffers to write in this order (section 5.4).

    At most ``size`` bytes of payload go into a frame. The first has the opcode and ``rsv1``, the last FIN.
    Up to 16 KiB of payload come as one bytes object; more as headers and slices of ``payload``, not copied.
    ``mask``, where given, is called for the key of each frame, which then is a masked copy.

    Raises:
        ValueError: ``opcode`` is neither text nor binary, ``size`` is below 1, a key is not 4 bytes.
        TypeError, BufferError, UnicodeEncodeError: as :func:`build_frame`.
    """
    opcode, size = index(opcode), index(size)
    if opcode not in (_TEXT, _BINARY):
        raise ValueError(faults.DATA_OPCODE.format(opcode=opcode))
    if size < 1:
        raise ValueError(faults.SIZE.format(size=size))
    data = payload.encode() if isinstance(payload, str) else _as_bytes(payload)
    copied = len(data) <= COPY_SIZE
    buffers: list[bytes | memoryview] = []
    for start in range(0, len(data) or 1, size):
        piece = data if len(data) <= size else memoryview(data)[start : start + size]
        fin = start + size >= len(data)
        if mask is not None:
            buffers.append(build_frame(opcode, piece, fin=fin, rsv1=rsv1, mask_key=_check_key(mask())))
        else:
            buffers += (build_header(opcode, len(piece), fin=fin, rsv1=rsv1), piece)
        opcode, rsv1 = _CONT, False
    return [b"".join(buffers)] if copied else buffers


# --- parsing (sections 5.2 to 5.5) ----------------------------------------------------------------


def _bound(name: str, value: int | None, least: int) -> int | None:
    """A limit as a caller gave it, checked."""
    if value is None:
        return None
    if not isinstance(value, int):
        raise TypeError(faults.BOUND_TYPE.format(name=name, type=type(value).__name__))
    if not least <= value <= _LENGTH_LIMIT:
        raise ValueError(faults.BOUND.format(name=name, least=least, value=value))
    return int(value)


@final
class Parser:
    """Turns the bytes that a peer sent into messages and control frames.

    ``client`` says which side we are: a client takes unmasked frames, a server masked ones (section 5.1).
    ``max_size`` bounds the payload bytes of one message, ``max_frames`` its frames; ``None`` is no bound.
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
        "_size",
        "_streaming",
        "_utf8",
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

    # --- what a caller sees -----------------------------------------------------------------------

    def feed(self, data: Any) -> list[tuple[int, Any]]:
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
        events: list[tuple[int, Any]] = []
        if not self._ended:
            try:
                self._parse(self._head + _as_bytes(data), events)
            except ProtocolError as exc:
                self._end()
                self._message = 0
                self._error = exc.with_traceback(None)  # whose frames would keep ``data`` alive
        return events

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
            if length > _LENGTH_LIMIT:
                raise ProtocolError(faults.LENGTH_TOP_BIT)
        if not control:
            limit = _LENGTH_LIMIT if self._max_size is None else self._max_size
            if length > limit - self._size:
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
            piece = _xor(data, pos, stop, self._key)
            self._key = _rotate(self._key, stop - pos)
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
