"""UTF-8: validation alone, whole and in pieces, and masked frames turned into str (RFC 6455 section 8.1, RFC 3629).

CPython's decoder is the yardstick of both. It builds the text, which a validator does not; and fed in pieces it is
not fail-fast, which ours is.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable
from functools import partial
from typing import Any

from .contest import Contender, Contest, Job, gives
from .ours import BODIES, COMPILED, has_tier
from .peers import installed, readers
from .samples import KEY, SCRIPTS, KiB, MiB, cut, frame, text


def each(function: Callable[[bytes], Any], pieces: list[bytes]) -> Any:
    """``function`` on one after the other; what it says of the last."""
    result = None
    for piece in pieces:
        result = function(piece)
    return result


def incremental() -> Callable[[bytes], str]:
    """CPython's own decoder for bytes in pieces."""
    return codecs.getincrementaldecoder("utf-8")().decode


def piecewise(feed: Callable[[bytes], Any], pieces: list[bytes], expected: object) -> Contender:
    """``feed`` called with each piece, without a loop of Python's around it."""
    first, *others = (partial(feed, piece) for piece in pieces)
    return Contender(first, gives(expected), tuple(others))


def validation(script: str, tier: str | None = None) -> Contest:
    """16 KiB, at once and in four pieces; the empty calls say how much of that is calling."""
    data = text(script, 16 * KiB).encode()
    pieces = cut(data, 4 * KiB)
    nothing = [b""] * len(pieces)
    contenders = {}
    for name, body in BODIES.items():
        if tier is None or (name == COMPILED and has_tier(tier)):
            feed = body.Utf8Validator().feed
            contenders[name] = Contender(partial(feed, data), gives(True))
            contenders[f"{name}, 4 KiB pieces"] = piecewise(feed, pieces, True)
            if name == COMPILED:
                contenders["an empty call"] = Contender(partial(feed, b""), gives(True))
                contenders["four empty calls"] = piecewise(feed, nothing, True)
    contenders["decode"] = Contender(partial(data.decode), gives(data.decode()))
    contenders["decode, 4 KiB pieces"] = Contender(partial(each, incremental(), pieces))
    where = "" if tier is None else f" on {tier}"
    return Contest(f"UTF-8{where}, {script}, 16 KiB", len(data), "byte", contenders, tier)


def unmask_and_decode(unmask: Any) -> Callable[[bytes, bytes], str]:
    """The two steps that a caller of a mask function takes."""

    def to_str(data: bytes, key: bytes) -> str:
        decoded: str = unmask(data, key).decode()
        return decoded

    return to_str


def masked_to_str(script: str, size: str, length: int) -> Contest:
    """A frame with text: ours and the readers parse it, websockets' mask function is given the payload alone."""
    clear = text(script, length)
    data = clear.encode()
    message = frame(1, data, KEY)
    masked = message[-len(data) :]
    contenders = {}
    for name, reader in readers(text=True).items():
        if reader.decodes and name not in ("wsproto", "aiohttp Python"):

            def right(messages: Any, payload: Any = reader.payload) -> bool:
                return [payload(message) for message in messages] == [clear]

            contenders[name] = Contender(partial(reader.feed(), message), right)
    if installed("websockets"):
        from websockets.speedups import apply_mask

        contenders["websockets"] = Contender(partial(unmask_and_decode(apply_mask), masked, KEY), gives(clear))
    contenders["memcpy"] = Contender(partial(bytes, bytearray(data)))
    return Contest(f"masked frame to str, {script}, {size}", len(data), "byte", contenders)


#: Every script: validated with the best kernels and those that the bars speak of, and as the payload of a frame.
JOBS: tuple[Job, ...] = (
    *(partial(validation, script, tier) for tier in (None, "avx2") for script in SCRIPTS),
    *(
        partial(masked_to_str, script, size, length)
        for script in SCRIPTS
        for size, length in {"64 KiB": 64 * KiB, "1 MiB": MiB}.items()
    ),
)
