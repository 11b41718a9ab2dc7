"""DEFLATE streams of messages in both directions (RFC 7692 sections 7.2.1 and 7.2.2), and the libraries behind them.

Compressing: without context takeover every message stands for itself, and one compressor serves all connections of a
thread. A full flush makes it forget the earlier messages, five times as fast as a new compressor at 15 bits. With
takeover a message refers to earlier ones, and the compressor belongs to one connection.

Inflating goes in steps: no call of zlib makes more than a step, and the limit of a message counts inflated bytes.
Without takeover our own final block closes a message, so that one which stops inside a block is an error. A peer may
end its message with a final block (section 7.2.3.4). Then nothing but one empty byte may follow, and the next message
refers to nothing before it.

Invariants: a message that was compressed with takeover is sent, in this order, or :meth:`ContextCompressor.reset` is
called. A library that fails, as without memory, costs no message: it is sent stored, and no part of it gets into
another message. Work and memory of inflating are linear in the received bytes and the limit.
"""

from __future__ import annotations

import importlib
import logging
import zlib
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from .. import limits, violations
from ..errors import InvalidCompression, PayloadTooBig
from ..limits import KiB

__all__ = [
    "BACKENDS",
    "EMPTY",
    "LEAST_WINDOW_BITS",
    "PIECE",
    "STEP",
    "Backend",
    "Compressor",
    "ContextCompressor",
    "Inflater",
    "backend",
    "inflate_context_size",
    "inflate_whole",
]

logger = logging.getLogger("plumews.server")

#: zlib has no raw DEFLATE with a window of 8 bits, which section 7.1.2 allows: it takes 9 without saying so.
LEAST_WINDOW_BITS: Final = 9

#: Payload of an empty compressed message: the first byte of an empty block (section 7.2.3.6).
EMPTY: Final = b"\x00"

#: Bytes that one step inflates at most: large enough to be fast, some tenths of a millisecond. `Deflate.max_ratio` does
#: not bound them.
STEP: Final = limits.RATIO_FREE

#: Bytes that go into an inflater at once. zlib copies what it leaves over.
PIECE: Final = 16 * KiB

#: The 4 bytes at the end of every flush, which are not sent: an empty block.
_TAIL: Final = b"\x00\x00\xff\xff"
#: The same with an empty final block.
_CLOSED_TAIL: Final = _TAIL + b"\x03\x00"
#: Allowed behind the final block of a peer: nothing, or the first byte of the empty block.
_AFTER: Final = (b"", b"\x00")
#: Z_MEM_ERROR in the text of ``zlib.error``.
_NO_MEMORY: Final = "Error -4 "
#: Most bytes of a stored block (RFC 1951 section 3.2.4).
_STORED: Final = 0xFFFF

_FULL_FLUSH, _SYNC_FLUSH = zlib.Z_FULL_FLUSH, zlib.Z_SYNC_FLUSH
_decompressobj = zlib.decompressobj


# --- libraries --------------------------------------------------------------------------------------


class Backend(NamedTuple):
    """Library that compresses, with the interface of Python's ``zlib``. Received messages are inflated by zlib."""

    module: str
    #: Name on PyPI, and of the extra.
    package: str
    levels: range
    default_level: int
    #: Approximate bytes of a compressor, by level, bits of the window and memory level.
    context_size: Callable[[int, int, int], int]

    def load(self) -> Any:
        """Import and return the module. Raises ``ImportError`` that names the extra to install."""
        try:
            return importlib.import_module(self.module)
        except ImportError as exc:
            raise ImportError(
                f"{self.package} is not installed: install plumews[{self.package}], or leave backend at 'zlib'"
            ) from exc

    def compressor(self, level: int, window_bits: int, mem_level: int) -> Any:
        """Return a compressor of raw DEFLATE. ``window_bits`` is 9 to 15."""
        return self.load().compressobj(level, zlib.DEFLATED, -window_bits, mem_level)


def _zlib_size(level: int, window_bits: int, mem_level: int) -> int:
    return (1 << (window_bits + 2)) + (1 << (mem_level + 9)) + 6 * KiB  # zconf.h


def _zlib_ng_size(level: int, window_bits: int, mem_level: int) -> int:
    # The hash table has one size for all memory levels.
    return (1 << (window_bits + 2)) + 128 * KiB + 5 * (1 << (mem_level + 6)) + 6 * KiB


def _isal_size(level: int, window_bits: int, mem_level: int) -> int:
    # Two windows of the largest size, and buffers from level 1 on.
    if not level:
        return 80 * KiB
    buffers = 24 if mem_level == 1 else 84 if mem_level <= 3 else 148 if mem_level <= 6 else 276
    if mem_level == 9:
        buffers = 532
    return (80 + buffers + (0, 48, 64)[level - 1]) * KiB


BACKENDS: Final = {
    "zlib": Backend("zlib", "zlib", range(1, 10), 6, _zlib_size),
    "zlib-ng": Backend("zlib_ng.zlib_ng", "zlib-ng", range(1, 10), 6, _zlib_ng_size),
    "isal": Backend("isal.isal_zlib", "isal", range(4), 2, _isal_size),
}


def backend(name: str) -> Backend:
    """Return the back end called ``name``. Raises ``ValueError`` that lists all of them."""
    try:
        return BACKENDS[name]
    except (KeyError, TypeError):
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, not {name!r}") from None


# --- compressing ------------------------------------------------------------------------------------


class Compressor:
    """Compressor of messages that stand for themselves, for one thread and any number of connections."""

    __slots__ = ("_key", "_made")

    def __init__(self, library: str, level: int, window_bits: int, mem_level: int) -> None:
        self._key = (library, level, window_bits, mem_level)
        #: ``None`` while it compresses: an interruption or a call in between leaves nothing behind.
        self._made: Any = None

    def compress(self, payload: bytes) -> bytes:
        """Return ``payload`` as the payload of a compressed message."""
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
        return data[:-4] or EMPTY


class ContextCompressor:
    """Compressor of the messages of one connection, each of which may refer to earlier ones."""

    __slots__ = ("_compressor", "_key", "used")

    def __init__(self, library: str, level: int, window_bits: int, mem_level: int) -> None:
        self._key = (library, level, window_bits, mem_level)
        self._compressor: Any = None
        #: True after every use. The owner sets it to False.
        self.used = False

    @property
    def size(self) -> int:
        """Approximate bytes held. 0 before the first message and after :meth:`reset`."""
        if self._compressor is None:
            return 0
        library, *key = self._key
        return backend(library).context_size(*key)

    def compress(self, payload: bytes) -> bytes:
        """Return ``payload`` as the payload of a compressed message, which must be sent."""
        return self.piece(payload)[:-4] or EMPTY

    def piece(self, payload: bytes) -> bytes:
        """Return ``payload`` as a piece of a message. The peer can inflate all of it when it has this piece."""
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
        """Free the memory. The next message refers to none before it, which the peer need not agree to."""
        self._compressor = None


def _compressor(library: str, level: int, window_bits: int, mem_level: int) -> Any:
    return backend(library).compressor(level, window_bits, mem_level)


def _log_failure(exc: Exception) -> None:
    try:
        logger.warning("compressing failed (%s): a message is sent uncompressed", type(exc).__name__)
    except MemoryError:
        pass


def _stored(payload: bytes) -> bytes:
    """Return ``payload`` in stored blocks, and the end of a flush. That needs no library."""
    blocks = [payload[at : at + _STORED] for at in range(0, len(payload), _STORED)]
    blocks.append(b"")
    return b"".join(
        b"\x00" + len(block).to_bytes(2, "little") + (len(block) ^ _STORED).to_bytes(2, "little") + block
        for block in blocks
    )


# --- inflating --------------------------------------------------------------------------------------


def inflate_context_size(window_bits: int) -> int:
    """Return the approximate bytes that zlib holds for an inflater (its zconf.h)."""
    return (1 << window_bits) + 7 * KiB


class Inflater:
    """Inflater of the messages of one connection, one after the other.

    ``start`` begins a message, ``feed`` passes bytes, ``finish`` ends them. After ``feed`` and ``finish``, ``step`` is
    called until ``pending`` is False. After `InvalidCompression` (1007) or `PayloadTooBig` (1009) the inflater must not
    be used.
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
        # The zlib of a peer that agreed on 8 bits may take 9.
        self._window_bits = max(window_bits, LEAST_WINDOW_BITS)
        self._takeover = takeover
        self._max_ratio = max_ratio
        self._earlier = earlier and not takeover  # an earlier message exists, and none may refer to it
        self._inflater: Any = None
        self._limit: int | None = None
        self._have = self._wire = 0
        self._data = b""
        self._at = 0
        self._rest = b""  # of a piece, not yet consumed by zlib
        self._full = False  # zlib may have more output without any input
        self._tail = b""  # to be passed to zlib behind the message
        self._closing = False  # the tail was passed
        self._after: bytes | None = None  # bytes behind the final block of the peer
        #: True if :meth:`step` has work.
        self.pending = False

    @property
    def size(self) -> int:
        """Approximate bytes that zlib holds. 0 between messages without takeover."""
        return 0 if self._inflater is None else inflate_context_size(self._window_bits)

    def start(self, limit: int | None) -> None:
        """Begin a message of at most ``limit`` inflated bytes.

        Without takeover, the message before it may have been abandoned at any point.
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
        """Pass more of the message. All earlier bytes are inflated."""
        self._wire += len(data)
        if self._after is not None:
            self._ended(self._after + data[:2])
        elif data:
            self._data, self._at = data, 0
            self.pending = True

    def finish(self) -> None:
        """End the message."""
        if not self._wire:
            raise InvalidCompression(violations.NOT_DEFLATE)  # an empty message has one byte (section 7.2.3.6)
        if self._after is None:
            self._tail = _TAIL if self._takeover else _CLOSED_TAIL
            self.pending = True
        else:
            self._inflater = None

    def step(self, most: int = STEP) -> bytes:
        """Return the next inflated bytes, ``most`` at most and possibly none. As many bytes are consumed at most."""
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
            if str(exc).startswith(_NO_MEMORY):  # no error of the peer
                raise MemoryError(str(exc)) from None
            # The reference of a kept context is one beyond the beginning of this message.
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

    def _check_size(self) -> None:
        if self._limit is not None and self._have > self._limit:
            raise PayloadTooBig(violations.INFLATED_TOO_BIG.format(limit=self._limit))
        ratio = self._max_ratio
        if ratio is not None and self._have > limits.RATIO_FREE and self._have > ratio * self._wire:
            raise PayloadTooBig(violations.INFLATED_TOO_MUCH.format(ratio=ratio, size=self._wire))

    def _met_final_block(self, unused: bytes) -> None:
        """Handle a final block: the peer's, or ours."""
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
        """Check ``after``: the bytes found so far behind the final block of the peer."""
        if after not in _AFTER:
            raise InvalidCompression(violations.AFTER_THE_LAST_BLOCK)
        self._after = after
        self._data, self._at = b"", 0
        self.pending = False
        if self._tail:
            self._complete(closed=True)

    def _complete(self, *, closed: bool) -> None:
        """Complete the message. ``closed``: zlib has seen a final block."""
        if not closed and not self._takeover:
            raise InvalidCompression(violations.NOT_DEFLATE)  # it stopped in the middle of a block
        self._tail = self._rest = b""
        self._closing = self._full = self.pending = False
        self._data, self._at = b"", 0
        if closed:
            self._inflater = None


def inflate_whole(data: bytes, window_bits: int, limit: int | None, most: int = STEP) -> bytes | None:
    """Inflate a message that stands for itself. Return ``None`` if that takes an `Inflater`.

    Most messages are shorter than ``most``. A longer or invalid one costs no more than that many inflated bytes.
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
