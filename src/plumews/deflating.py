"""Messages made smaller: the payload of a compressed message (layer 1; RFC 7692 section 7.2.1).

Without context takeover each message stands for itself. One compressor makes them all: a full flush forgets what came
before it, which is faster than a compressor for each message (at 15 bits five times). With takeover a message refers
to the ones before it, and one compressor belongs to one connection.

Invariant: what was compressed with takeover is sent, in this order; who drops a message calls :meth:`Context.reset`.
"""

from __future__ import annotations

import zlib
from typing import Any, Final

from .backends import backend
from .deflate import deflate_context_size

__all__ = ["EMPTY", "Compressor", "Context"]

#: Every flush ends with these four bytes of an empty block, which are not sent.
_TAIL: Final = 4

_FULL_FLUSH, _SYNC_FLUSH = zlib.Z_FULL_FLUSH, zlib.Z_SYNC_FLUSH

#: What stands for nothing: the first byte of an empty block (section 7.2.3.6).
EMPTY: Final = b"\x00"


class Compressor:
    """Compresses messages that stand for themselves. Belongs to one thread, and to any number of connections."""

    __slots__ = ("_compress", "_flush")

    def __init__(self, library: str, level: int, window_bits: int, mem_level: int) -> None:
        made = backend(library).compressor(level, window_bits, mem_level)
        self._compress = made.compress
        self._flush = made.flush

    def compress(self, payload: bytes) -> bytes:
        """``payload`` as the payload of a compressed message."""
        data: bytes = self._compress(payload) + self._flush(_FULL_FLUSH)
        return data[:-_TAIL] or EMPTY


class Context:
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
        return 0 if self._compressor is None else deflate_context_size(self._key[2], self._key[3])

    def compress(self, payload: bytes) -> bytes:
        """``payload`` as the payload of a compressed message: it must be sent."""
        return self.piece(payload)[:-_TAIL] or EMPTY

    def piece(self, payload: bytes) -> bytes:
        """``payload`` as a part of a message, all of which the peer can inflate when it has this part."""
        if self._compressor is None:
            library, level, window_bits, mem_level = self._key
            self._compressor = backend(library).compressor(level, window_bits, mem_level)
        self.used = True
        data: bytes = self._compressor.compress(payload) + self._compressor.flush(_SYNC_FLUSH)
        return data

    def reset(self) -> None:
        """Forget all messages: the next one refers to none, which needs nobody's agreement; and hold no memory."""
        self._compressor = None
