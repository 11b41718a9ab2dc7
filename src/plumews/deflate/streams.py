"""Messages made smaller: the payload of a compressed message (layer 1; RFC 7692 section 7.2.1).

Without context takeover each message stands for itself. One compressor makes them all: a full flush forgets what came
before it, which is faster than a compressor for each message (at 15 bits five times). With takeover a message refers
to the ones before it, and one compressor belongs to one connection.

Invariants: what was compressed with takeover is sent, in this order; who drops a message calls :meth:`Context.reset`. A
library that fails, as it does without memory, costs nobody a message, which is stored then; and nothing of a message
that was not compressed to its end gets into another one.
"""

from __future__ import annotations

import logging
import zlib
from typing import Any, Final

from .backends import backend

__all__ = ["EMPTY", "Compressor", "ContextCompressor"]

logger = logging.getLogger("plumews.server")

#: Every flush ends with these four bytes of an empty block, which are not sent.
_TAIL: Final = 4

_FULL_FLUSH, _SYNC_FLUSH = zlib.Z_FULL_FLUSH, zlib.Z_SYNC_FLUSH

#: What stands for nothing: the first byte of an empty block (section 7.2.3.6).
EMPTY: Final = b"\x00"

#: The most that one stored block holds (RFC 1951 section 3.2.4).
_STORED: Final = 0xFFFF


class Compressor:
    """Compresses messages that stand for themselves. Belongs to one thread, and to any number of connections."""

    __slots__ = ("_key", "_made")

    def __init__(self, library: str, level: int, window_bits: int, mem_level: int) -> None:
        self._key = (library, level, window_bits, mem_level)
        #: Not there while it compresses: whoever interrupts that, or calls in the midst of it, leaves nothing behind.
        self._made: Any = None

    def compress(self, payload: bytes) -> bytes:
        """``payload`` as the payload of a compressed message."""
        made, self._made = self._made, None
        data: bytes | None = None
        try:
            if made is None:
                made = _compressor(*self._key)
            data = made.compress(payload) + made.flush(_FULL_FLUSH)
        except Exception as exc:
            _log_failure(exc)
        if data is None:
            data = _stored(payload)
        else:
            self._made = made
        return data[:-_TAIL] or EMPTY


class ContextCompressor:
    """Compresses the messages of one connection, each with those before it in mind."""

    __slots__ = ("_compressor", "_key", "used")

    def __init__(self, library: str, level: int, window_bits: int, mem_level: int) -> None:
        self._key = (library, level, window_bits, mem_level)
        self._compressor: Any = None
        #: Whether anything was compressed since somebody last set this to False.
        self.used = False

    @property
    def size(self) -> int:
        """Bytes held, about; 0 before the first message and after :meth:`reset`."""
        if self._compressor is None:
            return 0
        library, *key = self._key
        return backend(library).context_size(*key)

    def compress(self, payload: bytes) -> bytes:
        """``payload`` as the payload of a compressed message: it must be sent."""
        return self.piece(payload)[:-_TAIL] or EMPTY

    def piece(self, payload: bytes) -> bytes:
        """``payload`` as a part of a message, all of which the peer can inflate when it has this part."""
        compressor, self._compressor = self._compressor, None
        self.used = True
        data: bytes | None = None
        try:
            if compressor is None:
                compressor = _compressor(*self._key)
            data = compressor.compress(payload) + compressor.flush(_SYNC_FLUSH)
        except Exception as exc:
            _log_failure(exc)
        if data is None:
            return _stored(payload)
        self._compressor = compressor
        return data

    def reset(self) -> None:
        """Forget all messages: the next one refers to none, which needs nobody's agreement; and hold no memory."""
        self._compressor = None


def _compressor(library: str, level: int, window_bits: int, mem_level: int) -> Any:
    return backend(library).compressor(level, window_bits, mem_level)


def _log_failure(exc: Exception) -> None:
    try:
        logger.warning("compressing failed (%s): a message is sent uncompressed", type(exc).__name__)
    except MemoryError:
        pass


def _stored(payload: bytes) -> bytes:
    """``payload`` in blocks that are not compressed, and the end of a flush: what needs no library."""
    blocks = [payload[at : at + _STORED] for at in range(0, len(payload), _STORED)]
    blocks.append(b"")
    return b"".join(
        b"\x00" + len(block).to_bytes(2, "little") + (len(block) ^ _STORED).to_bytes(2, "little") + block
        for block in blocks
    )
