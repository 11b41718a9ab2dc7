"""Assembly of a message from its frames: collected bytes, checked text, events (RFC 6455 sections 5.4 and 8.1)."""

from __future__ import annotations

import io
from typing import Any, Final

from ... import violations
from ...constants import COMPRESSED, Opcode, StreamEvent
from ...errors import InvalidData
from .utf8 import Utf8Validator

__all__ = ["ARMED", "STREAMING", "WHOLE", "MessageAssembler"]

# Plain ints: an event has one, and comparing them is what the parser does most.
_TEXT: Final = int(Opcode.TEXT)
_BEGIN: Final = int(StreamEvent.BEGIN)
_CHUNK: Final = int(StreamEvent.CHUNK)
_END: Final = int(StreamEvent.END)

# Delivery of the arriving message, or of the next one: as a whole, streamed from its begin, or being streamed.
WHOLE, ARMED, STREAMING = range(3)


class MessageAssembler:
    """Received part of a message that is not delivered yet.

    Attributes:
        opcode: the message's opcode, 0 between messages.
        compressed: True if the arriving frame belongs to a compressed message (RFC 7692).
        frames: frames of the message so far.
        size: bytes of payload received so far.
        buffer: received bytes that were not delivered, or ``None``.
        utf8: validator of a text, or ``None`` if the message is not checked.
        streaming: ``WHOLE``, ``ARMED`` or ``STREAMING``.
        room: memory that the events of this call may still take beyond their bytes; ``None`` is no bound.
    """

    __slots__ = (
        "_decode_text",
        "buffer",
        "compressed",
        "frames",
        "opcode",
        "room",
        "size",
        "streaming",
        "utf8",
    )

    def __init__(self, *, decode_text: bool) -> None:
        self._decode_text = decode_text
        self.opcode = 0
        self.compressed = False
        self.frames = 0
        self.size = 0
        self.buffer: io.BytesIO | None = None
        self.utf8: Utf8Validator | None = None
        self.streaming = WHOLE
        self.room: int | None = None

    def begin(self, opcode: int, events: list[tuple[int, Any]]) -> None:
        """Begin a message that is not delivered from a single frame at once."""
        self.opcode = opcode
        self.utf8 = Utf8Validator() if opcode == _TEXT and not self.compressed else None
        if self.streaming:
            events.append(self.begin_event())

    def collect(self, piece: bytes, events: list[tuple[int, Any]]) -> None:
        """Add a piece of payload to the message: collect it, or deliver it if the message is streamed."""
        self.size += len(piece)
        good = len(piece) if self.utf8 is None else self.utf8._scan(piece)
        if self.streaming:
            if good:
                events.append((_CHUNK, piece if good == len(piece) else piece[:good]))
        elif good:
            if self.buffer is None:
                self.buffer = io.BytesIO()
            self.buffer.write(piece)
        if good < len(piece):
            raise InvalidData(violations.TEXT_NOT_UTF8)

    def end(self, events: list[tuple[int, Any]]) -> None:
        """Complete the message after its last frame."""
        if self.utf8 is not None and not self.utf8.complete:
            raise InvalidData(violations.TEXT_CUT)
        if self.streaming:
            events.append((_END, None))
            self.streaming = WHOLE
        else:
            payload: Any = self.take_buffer()
            if self.utf8 is not None and self._decode_text:
                payload = self._counted(str(payload, "utf-8"))
            self.deliver(self.opcode, payload, events)
        self.opcode = self.frames = self.size = 0
        self.utf8 = None

    def deliver(self, opcode: int, payload: Any, events: list[tuple[int, Any]]) -> None:
        """Append the event of a whole message."""
        events.append((opcode | COMPRESSED if self.compressed else opcode, payload))

    def begin_event(self) -> tuple[int, int]:
        """Return the event with which a streamed message begins."""
        self.streaming = STREAMING
        return _BEGIN, self.opcode | COMPRESSED if self.compressed else self.opcode

    def take_buffer(self) -> bytes:
        """Return the collected bytes of the message, and forget them."""
        buffer, self.buffer = self.buffer, None
        return b"" if buffer is None else buffer.getvalue()

    def _counted(self, text: str) -> str:
        """Return ``text``, and take its memory beyond one byte for each character off the room."""
        if self.room is not None and not text.isascii():
            highest = max(text)
            self.room -= len(text) * (3 if highest > "\uffff" else 1 if highest > "\xff" else 0)
        return text

    def text(self, payload: bytes) -> Any:
        """Return the text of a whole message, checked."""
        if self._decode_text:
            try:
                return self._counted(str(payload, "utf-8"))
            except UnicodeDecodeError:
                pass  # a validator says more exactly what is wrong
        validator = Utf8Validator()
        if not validator.feed(payload):
            raise InvalidData(violations.TEXT_NOT_UTF8)
        if not validator.complete:
            raise InvalidData(violations.TEXT_CUT)
        return payload

    def clear(self) -> None:
        """Give up the collected bytes."""
        self.buffer = self.utf8 = None
