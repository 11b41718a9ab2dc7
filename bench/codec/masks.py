"""Masks: copies and in place, 16 bytes to 1 MiB, beside memcpy and one XOR of two large ints (RFC 6455 section 5.3)."""

from __future__ import annotations

from functools import partial
from typing import Any

from .contest import Contender, Contest, Job, gives
from .ours import BODIES
from .peers import installed
from .samples import KEY, KiB, MiB, payload

SIZES = {
    "16 B": 16,
    "125 B": 125,
    "1 KiB": KiB,
    "16 KiB": 16 * KiB,
    "64 KiB": 64 * KiB,
    "256 KiB": 256 * KiB,
    "1 MiB": MiB,
}


def one_int_xor(data: bytes, key: bytes) -> bytes:
    """All of it as one int; the plainest that Python can do without a loop."""
    size = len(data)
    pad = (key * ((size + 3) >> 2))[:size]
    return (int.from_bytes(data, "little") ^ int.from_bytes(pad, "little")).to_bytes(size, "little")


def copying() -> dict[str, Any]:
    """Contenders that mask into a new object, by ``f(data, key)``."""
    found = {name: body.mask for name, body in BODIES.items()}
    if installed("websockets"):
        from websockets import speedups, utils

        found |= {"websockets": speedups.apply_mask, "websockets Python": utils.apply_mask}
    if installed("aiohttp"):
        from aiohttp._websocket.helpers import websocket_mask

        def aiohttp_mask(data: bytes, key: bytes) -> bytearray:
            copy = bytearray(data)  # its kernel works in place
            websocket_mask(key, copy)
            return copy

        found["aiohttp"] = aiohttp_mask
    if installed("wsproto"):
        from wsproto.frame_protocol import XorMaskerSimple

        def wsproto_mask(data: Any, key: bytes) -> bytearray:
            return XorMaskerSimple(key).process(data)

        found["wsproto"] = wsproto_mask
    return found | {"one int XOR": one_int_xor}


def copies(size: str) -> Contest:
    """Masking into a new object."""
    data = payload(SIZES[size])
    right = gives(one_int_xor(data, KEY))
    contenders = {name: Contender(partial(mask, data, KEY), right) for name, mask in copying().items()}
    contenders["memcpy"] = Contender(partial(bytes, bytearray(data)))
    return Contest(f"mask, copy, {size}", SIZES[size], "byte", contenders)


def in_place(size: str) -> Contest:
    """Masking what is already in a buffer. Each call turns it over, so there is no result to compare."""
    data = payload(SIZES[size])
    contenders = {name: Contender(partial(body.mask_inplace, bytearray(data), KEY)) for name, body in BODIES.items()}
    if installed("aiohttp"):
        from aiohttp._websocket.helpers import websocket_mask

        contenders["aiohttp"] = Contender(partial(websocket_mask, KEY, bytearray(data)))
    contenders["memcpy"] = Contender(partial(bytes, bytearray(data)))
    return Contest(f"mask, in place, {size}", SIZES[size], "byte", contenders)


#: Every size, copied and in place.
JOBS: tuple[Job, ...] = tuple(partial(kind, size) for kind in (copies, in_place) for size in SIZES)
