"""Parsing of arriving frames: headers are checked, payloads unmasked (RFC 6455 sections 5.2, 5.5.1 and 7.4).

Payloads are not processed byte by byte: masks are XORs of large ints. Invariant: the first violation ends all reading.
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

__all__ = ["FrameReader"]

# Plain ints: an event has one, and comparing them is what the parser does most.
_CONT: Final = int(Opcode.CONT)
_TEXT: Final = int(Opcode.TEXT)
_BINARY: Final = int(Opcode.BINARY)
_CLOSE: Final = int(Opcode.CLOSE)
_OPCODES: Final = frozenset(map(int, Opcode))


def _widened(limit: int) -> int:
    """Return the bound of a compressed message for ``limit`` bytes: in zlib's fixed codes a byte may take nine bits."""
    return min(limit + (limit >> 3) + 64, LENGTH_LIMIT)


class FrameReader:
    """Arriving frame, and the message that it belongs to.

    Attributes:
        message: the message that is assembled from the frames.
        max_size, max_frames: bounds of a message in bytes and in frames; ``None`` is no bound.
        ended: True after a violation or a close frame. Nothing is read any more.
        head: bytes of an incomplete header.
        in_frame: True if the header was read and payload is missing.
        opcode: opcode of the frame.
        remaining: bytes of payload that are missing.
        control: collected payload of a control frame.
        left: bytes that were not read for want of room.
    """

    __slots__ = (
        "_allow_rsv1",
        "_fin",
        "_key",
        "_mask_bit",
        "control",
        "ended",
        "head",
        "in_frame",
        "left",
        "max_frames",
        "max_size",
        "message",
        "opcode",
        "remaining",
    )

    def __init__(
        self, *, client: bool, max_size: int | None, max_frames: int | None, decode_text: bool, allow_rsv1: bool
    ) -> None:
        self.message = MessageAssembler(decode_text=decode_text)
        self.max_size = max_size
        self.max_frames = max_frames
        self.ended = False
        self.head = b""
        self.in_frame = False
        self.opcode = 0
        self.remaining = 0
        self.control = b""
        self.left = 0
        self._mask_bit = 0 if client else 0x80  # in the second byte of every frame
        self._allow_rsv1 = allow_rsv1
        self._fin = False
        self._key = b""  # for the next byte of payload; empty if frames are not masked

    def parse(self, data: bytes, events: list[tuple[int, Any]]) -> None:
        """Parse ``data`` to its end, or until there is no room for more events. Raise the first violation."""
        message = self.message
        self.head = b""
        mask_bit = self._mask_bit
        payload_at = 6 if mask_bit else 2
        short = 125 if self.max_size is None else min(125, self.max_size)
        pos, end = 0, len(data)
        from_bytes = int.from_bytes
        while pos < end:
            if message.room is not None and message.room <= 0:
                self.left = end - pos
                return
            if not self.in_frame:
                # Most frames are a short message of their own, all there. Those are read without a call.
                first = data[pos]
                if (first == 0x81 or first == 0x82) and pos + 1 < end and not message.opcode and not message.streaming:
                    size = data[pos + 1] ^ mask_bit
                    start = pos + payload_at
                    stop = start + size
                    if size <= short and stop <= end:
                        if message.room is not None:
                            message.room -= RECEIVED_OVERHEAD
                        payload = data[start:stop]
                        if mask_bit:
                            pad = (data[pos + 2 : start] * 32)[:size]
                            number = from_bytes(payload, "little") ^ from_bytes(pad, "little")
                            payload = number.to_bytes(size, "little")
                        if first == 0x82:
                            events.append((_BINARY, payload))
                        else:
                            events.append((_TEXT, message.text(payload)))
                        pos = stop
                        continue
                start = self._header(data, pos, end)
                if start == 0:
                    self.head = data[pos:]
                    return
                pos = start
                if message.room is not None:
                    message.room -= RECEIVED_OVERHEAD
                self._begin_frame(end - pos, events)
            stop = min(pos + self.remaining, end)
            self._payload(data, pos, stop, events)
            if self.ended:
                return
            pos = stop

    def _header(self, data: bytes, pos: int, end: int) -> int:
        """Parse the header at ``pos`` (section 5.2). Return the start of its payload, or 0 if it is incomplete."""
        message = self.message
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
        elif opcode == _CONT and not message.opcode:
            raise ProtocolError(violations.STRAY_CONTINUATION)
        elif opcode != _CONT and message.opcode:
            raise ProtocolError(violations.INTERLEAVED_MESSAGE)
        elif self.max_frames is not None and message.frames >= self.max_frames:
            raise TooManyFragments(violations.TOO_MANY_FRAMES.format(limit=self.max_frames))
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
            limit = LENGTH_LIMIT if self.max_size is None else self.max_size
            compressed = message.compressed if opcode == _CONT else first & 0x40
            if length > (_widened(limit) if compressed else limit) - message.size:
                raise PayloadTooBig(violations.TOO_BIG.format(length=length, have=message.size, limit=limit))

        if self._mask_bit:
            start += 4
            if start > end:
                return 0
            self._key = data[start - 4 : start]
        self.opcode = opcode
        self._fin = first >= 0x80
        message.compressed = message.compressed if opcode == _CONT or control else first & 0x40 != 0
        self.remaining = length
        return start

    def _begin_frame(self, available: int, events: list[tuple[int, Any]]) -> None:
        """Begin a frame after its header. A message that is a single frame and complete needs no state of its own."""
        self.in_frame = True
        if self.opcode >= _CLOSE:
            return
        message = self.message
        if self.opcode != _CONT and not (self._fin and self.remaining <= available and not message.streaming):
            message.begin(self.opcode, events)
        if message.opcode:
            message.frames += 1

    def _payload(self, data: bytes, pos: int, stop: int, events: list[tuple[int, Any]]) -> None:
        """Take ``data[pos:stop]`` as payload of the frame, and complete the frame if none is missing."""
        message = self.message
        if self._key:
            piece = xor(data, pos, stop, self._key)
            self._key = rotated(self._key, stop - pos)
        else:
            piece = data[pos:stop]
        self.remaining -= len(piece)
        if self.opcode >= _CLOSE:
            self.control += piece
        elif message.opcode:
            message.collect(piece, events)
        if self.remaining:
            return
        self.in_frame = False
        if self.opcode >= _CLOSE:
            self._end_control(events)
        elif not message.opcode:
            message.deliver(
                self.opcode, message.text(piece) if self.opcode == _TEXT and not message.compressed else piece, events
            )
        elif self._fin:
            message.end(events)

    def _end_control(self, events: list[tuple[int, Any]]) -> None:
        """Complete a control frame (section 5.5)."""
        payload, self.control = self.control, b""
        if self.opcode == _CLOSE:
            events.append((_CLOSE, _close_payload(payload)))
            self.end()
        else:
            events.append((self.opcode, payload))

    def end(self) -> None:
        """Read nothing any more, and give up everything that is held."""
        self.ended = True
        self.in_frame = False
        self.head = self.control = b""
        self.message.clear()


def _close_payload(payload: bytes) -> tuple[int, str]:
    """Return the code and the reason of a close frame (sections 5.5.1 and 7.4)."""
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
