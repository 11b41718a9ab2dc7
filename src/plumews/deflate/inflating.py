"""A compressed message as it was (layer 1; RFC 7692 section 7.2.2).

In steps: no call of zlib makes more than was asked for, whatever it was given, and the limit of a message is that of
what comes out. Without context takeover a message is closed with a final block of our own, so that one which stops in
the middle of a block is an error. A peer may have ended its message with a final block (section 7.2.3.4): then nothing
but one empty byte may follow, and the next message refers to nothing before it.

Invariant: work and memory follow what was received and the limit; never the square of either.
"""

from __future__ import annotations

import zlib
from typing import Any, Final

from .. import limits, violations
from ..errors import InvalidCompression, PayloadTooBig
from .config import LEAST_WINDOW_BITS, inflate_context_size

__all__ = ["PIECE", "STEP", "Inflater", "inflate_whole"]

#: Bytes that one step makes at most: large enough to be fast, and some tenths of a millisecond. No `Deflate.max_ratio`
#: bounds so few.
STEP: Final = limits.RATIO_FREE

#: Bytes that go into an inflater at once. zlib copies what it leaves over.
PIECE: Final = 16 * limits.KiB

#: What every message ends with, and leaves out on the wire.
_TAIL: Final = b"\x00\x00\xff\xff"
#: An empty final block behind it.
_CLOSED_TAIL: Final = _TAIL + b"\x03\x00"
#: How zlib says Z_MEM_ERROR.
_NO_MEMORY: Final = "Error -4 "
_decompressobj = zlib.decompressobj
#: What may follow the final block of a peer: nothing, or the first byte of the empty block.
_AFTER: Final = (b"", b"\x00")


class Inflater:
    """Inflates the messages of one connection, one after the other.

    ``start`` begins a message, ``feed`` gives it bytes, ``finish`` says that these were all. Then ``step`` is called
    until ``pending`` is False. What is wrong raises `InvalidCompression` (1007), what is too large `PayloadTooBig`
    (1009); after that the inflater is of no use any more.
    """

    __slots__ = (
        "_after",
        "_at",
        "_closing",
        "_data",
        "_earlier",
        "_full",
        "_have",
        "_inflater",
        "_limit",
        "_max_ratio",
        "_rest",
        "_tail",
        "_takeover",
        "_window_bits",
        "_wire",
        "pending",
    )

    def __init__(
        self, window_bits: int, *, takeover: bool, max_ratio: int | None = None, earlier: bool = False
    ) -> None:
        # A peer that agreed on 8 may have a zlib that makes 9 of it.
        self._window_bits = max(window_bits, LEAST_WINDOW_BITS)
        self._takeover = takeover
        self._max_ratio = max_ratio
        self._earlier = earlier and not takeover  # there was a message to which none may refer
        self._inflater: Any = None
        self._limit: int | None = None
        self._have = self._wire = 0
        self._data = b""
        self._at = 0
        self._rest = b""  # of a piece of it, that zlib has not taken yet
        self._full = False  # zlib may have more for us without any input
        self._tail = b""  # what is still to be given to it at the end
        self._closing = False  # it was given that
        self._after: bytes | None = None  # what followed the final block of the peer
        #: Whether there is something to do for :meth:`step`.
        self.pending = False

    @property
    def size(self) -> int:
        """Bytes that zlib holds, about; 0 between messages without takeover."""
        return 0 if self._inflater is None else inflate_context_size(self._window_bits)

    def start(self, limit: int | None) -> None:
        """A message begins, of which no more than ``limit`` bytes may come out.

        Without takeover the one before it may have been given up at any point.
        """
        if self._inflater is None or not self._takeover:
            self._inflater = _decompressobj(-self._window_bits)
            self._data = self._rest = self._tail = b""
            self._at = 0
            self._full = self._closing = self.pending = False
        self._limit = limit
        self._have = self._wire = 0
        self._after = None

    def feed(self, data: bytes) -> None:
        """More of it; what was fed before is done."""
        self._wire += len(data)
        if self._after is not None:
            self._ended(self._after + data[:2])
        elif data:
            self._data, self._at = data, 0
            self.pending = True

    def finish(self) -> None:
        """That was all of it."""
        if not self._wire:
            raise InvalidCompression(violations.NOT_DEFLATE)  # an empty message has one byte (section 7.2.3.6)
        if self._after is None:
            self._tail = _TAIL if self._takeover else _CLOSED_TAIL
            self.pending = True
        else:
            self._inflater = None

    def step(self, most: int = STEP) -> bytes:
        """The next bytes that come out, ``most`` at most; they may be none. Nor does it take more in."""
        piece = min(most, PIECE)
        if self._limit is not None:
            most = min(most, self._limit - self._have + 1)
        data = self._rest
        if not data and not self._full:
            data = self._data[self._at : self._at + piece]
            self._at += len(data)
        if self._tail and self._at == len(self._data) and not self._rest and not self._full:
            data, self._tail, self._closing = data + self._tail, b"", True
        try:
            out: bytes = self._inflater.decompress(data, most)
        except zlib.error as exc:
            if str(exc).startswith(_NO_MEMORY):  # which is not the peer's fault
                raise MemoryError(str(exc)) from None
            # Nothing but the window says where a reference ends, so that this is what a kept context looks like.
            kept = self._earlier and "too far back" in str(exc)
            raise InvalidCompression(violations.KEPT_CONTEXT if kept else violations.NOT_DEFLATE) from None
        self._have += len(out)
        self._check_size()
        if self._inflater.eof:
            self._met_final_block(self._inflater.unused_data)
            return out
        self._rest = self._inflater.unconsumed_tail
        self._full = len(out) == most
        if not self._rest and not self._full and self._at == len(self._data) and not self._tail:
            self._data, self._at = b"", 0
            if self._closing:
                self._complete(closed=False)
            self.pending = False
        return out

    # --- the end ----------------------------------------------------------------------------------

    def _check_size(self) -> None:
        if self._limit is not None and self._have > self._limit:
            raise PayloadTooBig(violations.INFLATED_TOO_BIG.format(limit=self._limit))
        ratio = self._max_ratio
        if ratio is not None and self._have > limits.RATIO_FREE and self._have > ratio * self._wire:
            raise PayloadTooBig(violations.INFLATED_TOO_MUCH.format(ratio=ratio, size=self._wire))

    def _met_final_block(self, unused: bytes) -> None:
        """zlib has seen a final block: the peer's, or ours."""
        if not self._closing:
            self._ended(unused[:2] + self._data[self._at : self._at + 2])
            return
        tail = _TAIL if self._takeover else _CLOSED_TAIL
        if unused.endswith(tail):
            self._ended(unused[: -len(tail)][:2])
        elif unused:
            raise InvalidCompression(violations.NOT_DEFLATE)
        self._complete(closed=True)

    def _ended(self, after: bytes) -> None:
        """``after`` is what was found, so far, behind the final block of the peer."""
        if after not in _AFTER:
            raise InvalidCompression(violations.AFTER_THE_LAST_BLOCK)
        self._after = after
        self._data, self._at = b"", 0
        self.pending = False
        if self._tail:
            self._complete(closed=True)

    def _complete(self, *, closed: bool) -> None:
        """The message is over; ``closed`` says that zlib saw a final block."""
        if not closed and not self._takeover:
            raise InvalidCompression(violations.NOT_DEFLATE)  # it stopped in the middle of a block
        self._tail = self._rest = b""
        self._closing = self._full = self.pending = False
        self._data, self._at = b"", 0
        if closed:
            self._inflater = None


def inflate_whole(data: bytes, window_bits: int, limit: int | None, most: int = STEP) -> bytes | None:
    """A message that stands for itself, if it is shorter than ``most``; else ``None``: ask an `Inflater`.

    For most messages; what was tried in vain costs no more than that many bytes.
    """
    if limit is not None and limit < most:
        most = limit + 1
    bits = max(LEAST_WINDOW_BITS, window_bits)
    inflater = _decompressobj(-bits)
    out: bytes | None = None
    try:
        out = inflater.decompress(data + _CLOSED_TAIL, most)
    except zlib.error:
        pass
    if out is None:
        return None
    return out if inflater.eof and len(out) < most and not inflater.unused_data and data else None
