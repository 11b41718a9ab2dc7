"""Which library compresses: zlib, or one that is faster, chosen by name (layer 1).

All of them write the same format and have the interface of Python's ``zlib``; what they make of the same bytes differs
in size and time only. What is received is always inflated by zlib, whose errors and bounds are known.
"""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from ..limits import KiB

__all__ = ["BACKENDS", "Backend", "backend"]


class Backend(NamedTuple):
    """A library: its module, what to install for it, the levels that it has, and the memory that it takes."""

    module: str
    package: str
    levels: range
    default_level: int
    #: Bytes that a compressor holds, about, by level, bits of the window and memory level.
    context_size: Callable[[int, int, int], int]

    def load(self) -> Any:
        """The module. Raises ``ImportError`` that says what to install."""
        try:
            return importlib.import_module(self.module)
        except ImportError as exc:
            raise ImportError(
                f"{self.package} is not installed: install plumews[{self.package}], or leave backend at 'zlib'"
            ) from exc

    def compressor(self, level: int, window_bits: int, mem_level: int) -> Any:
        """A compressor of raw DEFLATE; ``window_bits`` is 9 to 15."""
        return self.load().compressobj(level, zlib.DEFLATED, -window_bits, mem_level)


def _zlib_size(level: int, window_bits: int, mem_level: int) -> int:
    return (1 << (window_bits + 2)) + (1 << (mem_level + 9)) + 6 * KiB  # zconf.h


def _zlib_ng_size(level: int, window_bits: int, mem_level: int) -> int:
    """Its table of hashes has one size, whatever the memory level."""
    return (1 << (window_bits + 2)) + 128 * KiB + 5 * (1 << (mem_level + 6)) + 6 * KiB


def _isal_size(level: int, window_bits: int, mem_level: int) -> int:
    """Two windows of the largest size in any case, and buffers from level 1 on."""
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
    """The back end of that name. Raises ``ValueError`` that lists them."""
    try:
        return BACKENDS[name]
    except (KeyError, TypeError):
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, not {name!r}") from None
