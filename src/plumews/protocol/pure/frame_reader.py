"""The frames that come in, for the parser in plain Python: headers judged, payloads unmasked (layer 1).

RFC 6455 section 5.2, and sections 5.5.1 and 7.4 (close payloads). Payloads are never walked byte by byte: masks are
XORs of large ints. Invariant: the first fault ends all reading. Import :mod:`plumews.protocol.codec` instead.
"""

from __future__ import annotations

from typing import Any, Final

from ... import violations
from ...constants import Opcode, is_valid_close_code
from ...errors import InvalidData, PayloadTooBig, ProtocolError, TooManyFragments
from ...limits import CONTROL_PAYLOAD, RECEIVED_OVERHEAD
from .frame_builder import LENGTH_LIMIT
from .masking import rotated, xor
from .message_assembler import MessageAssembler
from .utf8 import Utf8Validator

__all__ = ["FrameReader"]

# Plain ints: an event has one, and comparing them is what the parser does most.
_CONT: Final = int(Opcode.CONT)
_TEXT: Final = int(Opcode.TEXT)
_BINARY: Final = int(Opcode.BINARY)
_CLOSE: Final = int(Opcode.CLOSE)
_OPCODES: Final = frozenset(map(int, Opcode))


def _widened(limit: int) -> int:
    """What a message of ``limit`` bytes may have compressed: in zlib's fixed codes a byte may take nine bits."""
    return min(limit + (limit >> 3) + 64, LENGTH_LIMIT)


class FrameReader(MessageAssembler):
    """The frame that is arriving, and the message of which it is a part."""

    __slots__ = (
        "_allow_rsv1",
        "_control",
        "_ended",
        "_fin",
        "_head",
        "_in_frame",
        "_key",
        "_left",
        "_mask_bit",
        "_max_frames",
        "_max_size",
        "_opcode",
        "_remaining",
    )

    def __init__(
        self, *, client: bool, max_size: int | None, max_frames: int | None, decode_text: bool, allow_rsv1: bool
    ) -> None:
        super().__init__(decode_text=decode_text)
        self._mask_bit = 0 if client else 0x80  # what the second byte of a frame must have
        self._max_size = max_size
        self._max_frames = max_frames
        self._allow_rsv1 = allow_rsv1
        self._ended = False  # after a fault or a close frame: nothing is read any more
        self._head = b""  # a header that is not all there
        self._in_frame = False  # the header was read, payload is missing
        self._opcode = 0
        self._fin = False
        self._remaining = 0
        self._key = b""  # for the next byte of payload; empty if frames are not masked
        self._control = b""  # the payload of a control frame
        self._left = 0  # bytes that were not read for want of it

    def _parse(self, data: bytes, events: list[tuple[int, Any]]) -> None:
        """Take ``data`` apart, until its end or until there is no room for more events. Raises the first fault."""
        self._head = b""
        mask_bit = self._mask_bit
        payload_at = 6 if mask_bit else 2
        short = 125 if self._max_size is None else min(125, self._max_size)
        pos, end = 0, len(data)
        from_bytes = int.from_bytes
        while pos < end:
            if self._room is not None and self._room <= 0:
                self._left = end - pos
                return
            if not self._in_frame:
                # Most frames are a short message of their own, all there. Those are read without a call.
                first = data[pos]
                if (first == 0x81 or first == 0x82) and pos + 1 < end and not self._message and not self._streaming:
                    size = data[pos + 1] ^ mask_bit
                    start = pos + payload_at
                    stop = start + size
                    if size <= short and stop <= end:
                        if self._room is not None:
                            self._room -= RECEIVED_OVERHEAD
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
                if self._room is not None:
                    self._room -= RECEIVED_OVERHEAD
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
                raise ProtocolError(violations.RESERVED_BITS)
            if opcode not in (_TEXT, _BINARY):
                raise ProtocolError(violations.RSV1_MISPLACED)
        if opcode not in _OPCODES:
            raise ProtocolError(violations.RESERVED_OPCODE.format(opcode=opcode))
        control = opcode >= _CLOSE
        if control:
            if not first & 0x80:
                raise ProtocolError(violations.FRAGMENTED_CONTROL)
        elif opcode == _CONT and not self._message:
            raise ProtocolError(violations.STRAY_CONTINUATION)
        elif opcode != _CONT and self._message:
            raise ProtocolError(violations.INTERLEAVED_MESSAGE)
        elif self._max_frames is not None and self._frames >= self._max_frames:
            raise TooManyFragments(violations.TOO_MANY_FRAMES.format(limit=self._max_frames))
        if end - pos < 2:
            return 0

        second = data[pos + 1]
        if second & 0x80 != self._mask_bit:
            raise ProtocolError(violations.MASKED if second & 0x80 else violations.UNMASKED)
        length = second & 0x7F
        if control and length > CONTROL_PAYLOAD:
            raise ProtocolError(violations.CONTROL_TOO_LARGE)
        start = pos + 2
        if length > 125:
            start = pos + (4 if length == 126 else 10)
            if start > end:
                return 0
            shortest = 126 if length == 126 else 0x10000
            length = int.from_bytes(data[pos + 2 : start], "big")
            if length < shortest:
                raise ProtocolError(violations.LENGTH_NOT_MINIMAL)
            if length > LENGTH_LIMIT:
                raise ProtocolError(violations.LENGTH_TOP_BIT)
        if not control:
            limit = LENGTH_LIMIT if self._max_size is None else self._max_size
            compressed = self._compressed if opcode == _CONT else first & 0x40
            if length > (_widened(limit) if compressed else limit) - self._size:
                raise PayloadTooBig(violations.TOO_BIG.format(length=length, have=self._size, limit=limit))

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
        raise ProtocolError(violations.CLOSE_ONE_BYTE)
    code = int.from_bytes(payload[:2], "big")
    if not is_valid_close_code(code):
        raise ProtocolError(violations.CLOSE_CODE.format(code=code))
    try:
        return code, str(payload[2:], "utf-8")
    except UnicodeDecodeError:
        pass
    raise InvalidData(violations.CLOSE_REASON_NOT_UTF8)
