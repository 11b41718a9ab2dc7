"""Parts of fuzz targets: bytes read as decisions, buffers of every kind, comparison of the bodies.

A target is a plain function of bytes that returns nothing and raises :class:`Disagreement` when the bodies of the
codec tell different things, or something that cannot be right. Every decision comes from the input, so that an
input is a finding that can be kept; what is missing at its end reads as zeros.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Any

from support.codec_bodies import TIERS, Body

#: Text that is whole, text that is cut, and bytes that are no text (RFC 3629): what most faults are made of.
TEXTS = [
    b"a",
    b"plain text ",
    "é".encode(),
    "€".encode(),
    "😀".encode(),
    "aé€😀\U0010ffff".encode(),
    b"\xe2\x82",  # cut
    b"\x80",  # an orphan continuation
    b"\xc0\xaf",  # overlong
    b"\xe0\x9f\xbf",
    b"\xed\xa0\x80",  # a surrogate
    b"\xf4\x90\x80\x80",  # beyond U+10FFFF
    b"\xff",
    bytes(range(256)),
    "ÿĀ".encode(),  # the last character that takes a byte in a str, the first that takes two
    "\uffff\U00010000".encode(),  # and so on
]

#: Sizes around which something changes: headers, blocks of the kernels, what is copied, what is much.
EDGES = [125, 126, 127, 128, 255, 256, 4095, 4096, 4097, 16_383, 16_384, 16_385, 65_535, 65_536, 65_537, 70_000]


class Disagreement(AssertionError):
    """The bodies tell different things, or one tells what cannot be right."""


class Input:
    """Decisions, read from the front of some bytes."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def __bool__(self) -> bool:
        """Return True if bytes are left."""
        return self.at < len(self.data)

    def take(self, size: int) -> bytes:
        """The next ``size`` bytes, or as many as are left."""
        taken = self.data[self.at : self.at + size]
        self.at += size
        return taken

    def number(self, size: int = 1) -> int:
        """The next ``size`` bytes as a big-endian int."""
        return int.from_bytes(self.take(size).ljust(size, b"\0"), "big")

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self.data))

    def payload(self) -> bytes:
        """A payload: as it stands in the input, or large from a few bytes of it."""
        form = self.number()
        if form < 0x80:
            return self.take(form)
        if form >= 0xF0:
            size, text = EDGES[form & 15], TEXTS[self.number() % len(TEXTS)]
            return (text * (size // len(text) + 1))[:size]
        text = TEXTS[form % len(TEXTS)]
        count = self.number(2)  # as a float would be: mostly small, since what is large takes its time
        count = (count & 0xFFF) << (count >> 12) >> 11
        return b"x" * (form >> 4 & 7) + text * min(count, 70_000 // len(text)) + self.take(form & 3)


def lend(kind: int, data: bytes) -> Any:
    """``data`` in a buffer of one of four kinds; the last two end where their memory ends, which a sanitizer sees."""
    if kind == 0:
        return data
    if kind == 1:
        return bytearray(data)
    box = array("B", [0]) * (len(data) + kind - 2)
    view = memoryview(box)[kind - 2 :]  # the last kind begins at an odd address
    view[:] = data
    return view


def spoil(buffer: Any) -> None:
    """Overwrite a buffer that was lent, if that can be done: a codec that still looks at it gives itself away."""
    if type(buffer) is not bytes:
        buffer[:] = b"\xee" * len(buffer)


def agreed(call: Callable[[Any], Any], bodies: list[Body] = TIERS) -> Any:
    """Return or raise the result of ``call`` that all ``bodies`` agree on, else raise :class:`Disagreement`."""
    told = []
    for codec in bodies:
        try:
            told.append(call(codec))
        except Exception as exc:
            told.append((type(exc), str(exc)))
    words = [repr(each) for each in told]  # which tells b"" from bytearray() and 1 from True, as == does not
    for codec, each in zip(bodies, words, strict=True):
        if each != words[0]:
            same = next((at for at, (a, b) in enumerate(zip(each, words[0], strict=False)) if a != b), 0)
            shown = slice(max(same - 300, 0), same + 600)
            raise Disagreement(f"{codec.name}: ...{each[shown]}\n{bodies[0].name}: ...{words[0][shown]}")
    return told[0]


def require(holds: bool, claim: str) -> None:
    """``claim`` must hold."""
    if not holds:
        raise Disagreement(claim)
