"""Which library compresses: zlib, or one that is faster, chosen by name (layer 1).

All of them write the same format and have the interface of Python's ``zlib``; what they make of the same bytes differs
in size and time only. What is received is always inflated by zlib, whose errors and bounds are known.
"""

from __future__ import annotations

import importlib
import zlib
from typing import Any, Final, NamedTuple

__all__ = ["BACKENDS", "Backend", "backend"]


class Backend(NamedTuple):
    """A library: its module, what to install for it, and the levels that it has."""

    module: str
    package: str
    levels: range
    default_level: int

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


BACKENDS: Final = {
    "zlib": Backend("zlib", "zlib", range(1, 10), 6),
    "zlib-ng": Backend("zlib_ng.zlib_ng", "zlib-ng", range(1, 10), 6),
    "isal": Backend("isal.isal_zlib", "isal", range(4), 2),
}


def backend(name: str) -> Backend:
    """The back end of that name. Raises ``ValueError`` that lists them."""
    try:
        return BACKENDS[name]
    except (KeyError, TypeError):
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, not {name!r}") from None
