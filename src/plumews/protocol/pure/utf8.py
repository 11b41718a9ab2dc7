"""Validation of UTF-8 that arrives in pieces (RFC 6455 section 8.1, RFC 3629).

CPython's own decoder does most of the work. It waits for more after some bytes that no continuation can make valid.
Those are rejected here. Invariant: no byte is accepted after the first invalid one.
"""

from __future__ import annotations

import codecs
from typing import Any, Final, final

from .masking import as_bytes


def _lead_bytes() -> dict[int, tuple[int, int, int]]:
    """Return, for each first byte of a longer character, its length and the range of its second byte (RFC 3629)."""
    leads = dict.fromkeys(range(0xC2, 0xE0), (2, 0x80, 0xBF))
    leads |= dict.fromkeys(range(0xE0, 0xF0), (3, 0x80, 0xBF))
    leads |= dict.fromkeys(range(0xF0, 0xF5), (4, 0x80, 0xBF))
    leads[0xE0] = (3, 0xA0, 0xBF)  # not what two bytes can say
    leads[0xED] = (3, 0x80, 0x9F)  # no surrogates
    leads[0xF0] = (4, 0x90, 0xBF)  # not what three bytes can say
    leads[0xF4] = (4, 0x80, 0x8F)  # nothing above U+10FFFF
    return leads


_LEADS: Final = _lead_bytes()


def _begun(rest: bytes) -> int:
    """Return how many first bytes of ``rest``, which holds no whole character, can begin one."""
    if not rest or rest[0] not in _LEADS:
        return 0
    length, low, high = _LEADS[rest[0]]
    good = 1
    while good < min(length, len(rest)) and low <= rest[good] <= high:
        good += 1
        low, high = 0x80, 0xBF
    return good


@final
class Utf8Validator:
    """Validator of UTF-8 that arrives in pieces (RFC 3629)."""

    __slots__ = ("_failed", "_tail")

    def __init__(self) -> None:
        self.reset()

    def feed(self, data: Any, /) -> bool:
        """Return False from the first byte on that no continuation could make valid, until :meth:`reset`."""
        data = as_bytes(data)
        return not self._failed and self._scan(data) == len(data)

    @property
    def complete(self) -> bool:
        """True if the fed bytes are valid UTF-8 and end at the end of a character."""
        return not self._failed and not self._tail

    def reset(self) -> None:
        """Forget all fed bytes."""
        self._failed = False
        self._tail = b""  # of a character that is still arriving: at most 3 bytes

    def _scan(self, data: bytes) -> int:
        """Return the number of bytes of ``data`` before the first invalid one."""
        known = len(self._tail)
        if known:
            data = self._tail + data
        try:
            done = codecs.utf_8_decode(data, "strict", False)[1]
        except UnicodeDecodeError as exc:
            done = exc.start
        # CPython takes the first two bytes of a surrogate for the beginning of a character; RFC 3629 does not.
        rest = data[done : done + 4]
        good = done + _begun(rest)
        self._tail = rest
        self._failed = good < len(data)
        return good - known
