"""What a side wants of permessage-deflate, and what both agreed on (layer 1).

RFC 7692 section 7.1 names the parameters; how they are negotiated is in `negotiation`. Invariant: a `Deflate` that
exists can be kept: its values are in range and its back end is installed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from .. import limits
from ..validation import check_count, removed_options
from .backends import backend

__all__ = ["Agreement", "Deflate", "inflate_context_size"]

#: zlib cannot compress raw DEFLATE with a window of 8 bits, which section 7.1.2 has: it takes 9 and does not say so.
LEAST_WINDOW_BITS: Final = 9
MOST_WINDOW_BITS: Final = 15


@removed_options(inflate_share="inflating takes at most half of the time of an event loop")
@dataclass(frozen=True)
class Deflate:
    """How to compress: ``serve(compression=Deflate(...))``. ``compression="deflate"`` takes the defaults.

    Args:
        level: how hard to try, 1 (fast) to 9 (small); 0 to 3 with ``isal``. Default: 6, or 2 with ``isal``.
        server_window_bits: the server compresses with a window of this many bits at most, 9 to 15 (default 12).
        client_window_bits: the same for the client (default 12). A server can ask for less than 15 only where the
            client offers it, as Chromium does.
        server_takeover: what the server sends may refer to its earlier messages (default False). Smaller, for the
            memory of one compressor for each connection; and what is broadcast must be compressed for each.
        client_takeover: the same for what the client sends (default False), for the memory of an inflater. With False
            the client is asked not to (``client_no_context_takeover``); some clients agree and do it all the same, such
            as Safari of iOS 15, and are closed with 1007. True reads these, too.
        mem_level: memory of a compressor, 1 to 9 (default 5).
        min_size: messages of fewer bytes leave as they are (default 128).
        backend: which library compresses: ``"zlib"`` (default), ``"zlib-ng"`` or ``"isal"``, which are extras.
        max_ratio: how many bytes one received byte may become at most, 1 or more; a message beyond it is too large,
            and closes with 1009. Default ``None``: no bound but that of ``max_size``. DEFLATE itself reaches 1032.

    Raises:
        TypeError, ValueError: a value is of the wrong type, or out of range.
        ImportError: the back end is not installed.
    """

    level: int | None = None
    server_window_bits: int = limits.WINDOW_BITS
    client_window_bits: int = limits.WINDOW_BITS
    server_takeover: bool = False
    client_takeover: bool = False
    mem_level: int = limits.MEM_LEVEL
    min_size: int = limits.COMPRESS_LEAST
    backend: str = "zlib"
    max_ratio: int | None = None

    def __post_init__(self) -> None:
        library = backend(self.backend)
        if self.level is None:
            object.__setattr__(self, "level", library.default_level)
        check_count("level", self.level, least=library.levels[0], most=library.levels[-1])
        for name in ("server_window_bits", "client_window_bits"):
            check_count(name, getattr(self, name), least=LEAST_WINDOW_BITS, most=MOST_WINDOW_BITS)
        for name in ("server_takeover", "client_takeover"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name} must be True or False, not {getattr(self, name)!r}")
        check_count("mem_level", self.mem_level, most=9)
        check_count("min_size", self.min_size, least=0)
        if self.max_ratio is not None:
            check_count("max_ratio", self.max_ratio)
        library.load()


class Agreement(NamedTuple):
    """What client and server agreed on: the windows, and who may refer to earlier messages."""

    server_window_bits: int
    client_window_bits: int
    server_takeover: bool
    client_takeover: bool
    #: The value of ``Sec-WebSocket-Extensions`` in the server's answer.
    answer: str


def inflate_context_size(window_bits: int) -> int:
    """Bytes that zlib holds for an inflater, about (its zconf.h)."""
    return (1 << window_bits) + 7 * limits.KiB
