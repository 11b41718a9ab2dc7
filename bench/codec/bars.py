"""The bars that the codec has to clear, as data: nothing is decided here, and nothing is measured.

A bar compares two contenders of one contest (see ``contest.py``) by the time that they take. Where the issue names
a size or a script, each has a line of its own. A contender may be written with what is taken off its time:
``("a", "b")`` is a without b. An aside is a figure that explains a bar beside it and is not counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .ours import COMPILED, PURE

Cost = str | tuple[str, ...]


@dataclass(frozen=True)
class Bar:
    """``ours`` at least so many times as fast as ``peer``, or at most so many times its time."""

    area: str
    text: str
    contest: str
    ours: Cost
    peer: Cost
    kind: Literal["speed", "time"]
    limit: float
    aside: bool = False

    @property
    def wanted(self) -> str:
        """The condition, to be read after the text."""
        return f"≥ {self.limit:g}x" if self.kind == "speed" else f"≤ {self.limit:g}x"


def faster(area: str, text: str, contest: str, peer: Cost, limit: float, ours: Cost = COMPILED) -> Bar:
    """At least ``limit`` times the speed of ``peer``."""
    return Bar(area, text, contest, ours, peer, "speed", limit)


def cheaper(area: str, text: str, contest: str, peer: Cost, limit: float, ours: Cost = COMPILED) -> Bar:
    """At most ``limit`` times the time of ``peer``."""
    return Bar(area, text, contest, ours, peer, "time", limit)


def aside(area: str, text: str, contest: str, peer: Cost, limit: float, ours: Cost = COMPILED) -> Bar:
    """As :func:`faster`, for the reader only."""
    return Bar(area, text, contest, ours, peer, "speed", limit, aside=True)


NON_ASCII = ("Cyrillic", "CJK", "emoji")
PIECES = f"{COMPILED}, 4 KiB pieces"
FRAMES = "1,000 frames of 32 B, binary"
ALONE = f"{COMPILED}, messages alone"
READS = "1 MiB in reads of 64 KiB"
IN_PLACE = f"{COMPILED}, in place"
RECEIVED = "1 MiB received into buffers, 64 KiB a time"


def on_avx2(script: str) -> str:
    """The contest in which the kernels are those that the bar speaks of."""
    return f"UTF-8 on avx2, {script}, 16 KiB"


BARS: tuple[Bar, ...] = (
    *(
        faster("mask", f"copy, {size}, beside memcpy", f"mask, copy, {size}", "memcpy", 0.9)
        for size in ("16 KiB", "64 KiB", "1 MiB")
    ),
    *(
        faster("mask", f"in place, {size}, beside memcpy", f"mask, in place, {size}", "memcpy", 1.2)
        for size in ("64 KiB", "256 KiB", "1 MiB")
    ),
    cheaper("mask", "a 16-byte call, beside websockets.speedups", "mask, copy, 16 B", "websockets", 0.65),
    *(
        bar
        for script, limit in (("ASCII", 4), *((script, 9) for script in NON_ASCII))
        for bar in (
            faster("UTF-8", f"validate {script}, 16 KiB, on AVX2, beside decode", on_avx2(script), "decode", limit),
            aside("UTF-8", "the same with the best kernels of this CPU", f"UTF-8, {script}, 16 KiB", "decode", limit),
        )
    ),
    *(
        bar
        for script, limit in (("ASCII", 0.70), *((script, 0.85) for script in NON_ASCII))
        for bar in (
            faster("UTF-8", f"{script} in 4 KiB pieces, beside whole", on_avx2(script), COMPILED, limit, PIECES),
            aside(
                "UTF-8",
                "the same, the calls themselves taken off",
                on_avx2(script),
                (COMPILED, "an empty call"),
                limit,
                (PIECES, "four empty calls"),
            ),
        )
    ),
    faster(
        "text", "ASCII, 64 KiB, beside apply_mask + decode", "masked frame to str, ASCII, 64 KiB", "websockets", 2.5
    ),
    faster("text", "ASCII, 1 MiB, beside memcpy", "masked frame to str, ASCII, 1 MiB", "memcpy", 0.85),
    *(
        faster(
            "text",
            f"{script}, 64 KiB, beside apply_mask + decode",
            f"masked frame to str, {script}, 64 KiB",
            "websockets",
            1,
        )
        for script in NON_ASCII
    ),
    *(
        faster(
            "text",
            f"{script}, 64 KiB, second step",
            f"masked frame to str, {script}, 64 KiB",
            "websockets",
            2.5,
        )
        for script in NON_ASCII
    ),
    faster("frames in", "1,000 x 32 B to a list of bytes, beside aiohttp's C reader", FRAMES, "aiohttp", 8, ALONE),
    faster("frames in", "1,000 x 32 B to a list of bytes, beside picows with as_bytes", FRAMES, "picows", 5, ALONE),
    faster("frames in", "1,000 x 32 B to (opcode, payload), beside picows with as_bytes", FRAMES, "picows", 4),
    cheaper("frames in", "1 MiB in 64 KiB reads, beside join of the reads", READS, "join", 1.2),
    # picows takes bytes only in its own buffer: the copy into it is part of feeding it.
    faster("frames in", "1 MiB in 64 KiB reads, beside picows", READS, "picows", 5),
    aside("frames in", "the same, picows without the copy into its buffer", READS, "picows, not copied in", 5),
    aside("frames in", "the same, both with such a copy, ours into a shared buffer", RECEIVED, "picows", 5),
    aside("frames in", "the same, both with such a copy, ours in place", RECEIVED, "picows", 5, IN_PLACE),
    cheaper("frames out", "a small server frame, beside picows", "server frame, 16 B", "picows", 0.4),
    cheaper("frames out", "1 MiB into fragments, beside memcpy", "1 MiB into fragments of 64 KiB", "memcpy", 0.25),
    faster("pure", "1,000 x 32 B, beside aiohttp's Python reader", FRAMES, "aiohttp Python", 2.5, PURE),
    *(
        faster("pure", f"mask, {size}, beside one int.from_bytes XOR", f"mask, copy, {size}", "one int XOR", 0.9, PURE)
        for size in ("16 B", "125 B", "1 KiB", "16 KiB", "64 KiB", "1 MiB")
    ),
)
