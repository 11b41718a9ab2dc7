"""The bytes that the contenders get: keys, payloads, texts in four scripts, frames as a client sends them.

Random where it could matter, from a fixed seed, so that runs can be compared. Invariant: frames are built by the
plain body, which the tests hold to the RFC, whatever is being measured.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from plumews import _codec_py

KiB = 1024
MiB = 1024 * KiB

_random = random.Random(6455)

KEY = bytes.fromhex("37fa213d")
#: Masks with this key leave a payload as it is.
ZERO_KEY = bytes(4)


def payload(size: int) -> bytes:
    """``size`` bytes of anything."""
    return _random.randbytes(size)


# The letter in front makes cuts at a multiple of four fall inside a character.
_SCRIPTS: dict[str, Callable[[], str]] = {
    "ASCII": lambda: chr(_random.randrange(0x20, 0x7F)),
    "Cyrillic": lambda: chr(_random.randrange(0x410, 0x450)),
    "CJK": lambda: chr(_random.randrange(0x4E00, 0x9FD0)),
    "emoji": lambda: chr(_random.randrange(0x1F600, 0x1F650)),
}
SCRIPTS = tuple(_SCRIPTS)
_WIDTHS = {"ASCII": 1, "Cyrillic": 2, "CJK": 3, "emoji": 4}


def text(script: str, size: int) -> str:
    """A text in one script whose UTF-8 has ``size`` bytes, up to three less."""
    letter, width = _SCRIPTS[script], _WIDTHS[script]
    few = [letter() for _ in range(4096)]  # a text this long repeats: the processor cannot know it by heart
    count = (size - 1) // width
    return "a" + "".join((few * (count // 4096 + 1))[:count])


def cut(data: bytes, size: int) -> list[bytes]:
    """``data`` in pieces of ``size`` bytes."""
    return [data[start : start + size] for start in range(0, len(data), size)]


def frame(opcode: int, data: bytes, key: bytes | None = None) -> bytes:
    """A masked frame that is a whole message."""
    return _codec_py.build_frame(opcode, data, mask_key=_random.randbytes(4) if key is None else key)


def frames(opcode: int, data: bytes, count: int) -> bytes:
    """``count`` of them, each with a key of its own."""
    return b"".join(frame(opcode, data) for _ in range(count))
