"""The bytes that the contenders get: keys, payloads, texts in four scripts, frames as a client sends them.

Random where it could matter, and the same in every run: each function has a seed of its own. Invariant: frames are
built by the plain body, which the tests hold to the RFC, whatever is being measured.
"""

from __future__ import annotations

import random

from plumews.protocol.pure import parser as pure

KiB = 1024
MiB = 1024 * KiB

KEY = bytes.fromhex("37fa213d")
#: Masks with this key leave a payload as it is.
ZERO_KEY = bytes(4)


def payload(size: int) -> bytes:
    """``size`` bytes of anything."""
    return random.Random(size).randbytes(size)


#: First and last letter, and how many bytes each takes.
_LETTERS = {
    "ASCII": (0x20, 0x7E, 1),
    "Cyrillic": (0x410, 0x44F, 2),
    "CJK": (0x4E00, 0x9FCF, 3),
    "emoji": (0x1F600, 0x1F64F, 4),
}
SCRIPTS = tuple(_LETTERS)


def text(script: str, size: int) -> str:
    """A text in one script whose UTF-8 has ``size`` bytes, up to three less.

    The letter in front makes cuts at a multiple of four fall inside a character.
    """
    first, last, width = _LETTERS[script]
    choose = random.Random(script)
    few = [chr(choose.randint(first, last)) for _ in range(4096)]  # too many for the processor to know by heart
    count = (size - 1) // width
    return "a" + "".join((few * (count // 4096 + 1))[:count])


def cut(data: bytes, size: int) -> list[bytes]:
    """``data`` in pieces of ``size`` bytes."""
    return [data[start : start + size] for start in range(0, len(data), size)]


def frame(opcode: int, data: bytes, key: bytes) -> bytes:
    """A masked frame that is a whole message."""
    return pure.build_frame(opcode, data, mask_key=key)


def frames(opcode: int, data: bytes, count: int) -> bytes:
    """``count`` of them, each with a key of its own."""
    keys = random.Random(count)
    return b"".join(frame(opcode, data, keys.randbytes(4)) for _ in range(count))
