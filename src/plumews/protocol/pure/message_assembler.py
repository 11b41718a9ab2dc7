"""The message that arrives, for the parser in plain Python: its pieces, its text, what is told of it (layer 1).

RFC 6455 sections 5.4 and 8.1. `_codec_py_incoming` feeds it; import :mod:`plumews.protocol.codec` instead.
"""

from __future__ import annotations

import io
from typing import Any, Final

from ... import violations
from ...constants import COMPRESSED, StreamEvent
from ...errors import InvalidData
from .utf8 import Utf8Validator

__all__ = ["ARMED", "STREAMING", "WHOLE", "MessageAssembler"]

# Plain ints: an event has one, and comparing them is what the parser does most.
_BEGIN: Final = int(StreamEvent.BEGIN)
_CHUNK: Final = int(StreamEvent.CHUNK)
_END: Final = int(StreamEvent.END)

# What is done with the message that arrives, or is next to arrive.
WHOLE, ARMED, STREAMING = range(3)


class MessageAssembler:
    """What was received of a message, and is not delivered yet."""

    __slots__ = (
        "_buffer",
        "_compressed",
        "_decode_text",
        "_frames",
        "_message",
        "_room",
        "_size",
        "_streaming",
        "_utf8",
    )

    def __init__(self, *, decode_text: bool) -> None:
        self._decode_text = decode_text
        self._message = 0  # its opcode, 0 between messages
        self._compressed = False
        self._frames = 0
        self._size = 0  # bytes of payload received
        self._buffer: io.BytesIO | None = None  # those that were not delivered
        self._utf8: Utf8Validator | None = None  # None if the message is not checked
        self._streaming = WHOLE
        self._room: int | None = None  # what the events of this call may still take beyond their bytes

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
            raise InvalidData(violations.TEXT_NOT_UTF8)

    def _end_message(self, events: list[tuple[int, Any]]) -> None:
        """The last frame of a message is complete."""
        if self._utf8 is not None and not self._utf8.complete:
            raise InvalidData(violations.TEXT_CUT)
        if self._streaming:
            events.append((_END, None))
            self._streaming = WHOLE
        else:
            payload: Any = self._take_buffer()
            if self._utf8 is not None and self._decode_text:
                payload = self._counted(str(payload, "utf-8"))
            self._deliver(self._message, payload, events)
        self._message = self._frames = self._size = 0
        self._utf8 = None

    def _deliver(self, opcode: int, payload: Any, events: list[tuple[int, Any]]) -> None:
        events.append((opcode | COMPRESSED if self._compressed else opcode, payload))

    def _begin_event(self) -> tuple[int, int]:
        self._streaming = STREAMING
        return _BEGIN, self._message | COMPRESSED if self._compressed else self._message

    def _take_buffer(self) -> bytes:
        """What was collected of the message. It is the parser's no longer."""
        buffer, self._buffer = self._buffer, None
        return b"" if buffer is None else buffer.getvalue()

    def _counted(self, text: str) -> str:
        """``text``, and what it takes beyond one byte for each character."""
        if self._room is not None and not text.isascii():
            highest = max(text)
            self._room -= len(text) * (3 if highest > "\uffff" else 1 if highest > "\xff" else 0)
        return text

    def _text(self, payload: bytes) -> Any:
        """A text that came in one piece."""
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
