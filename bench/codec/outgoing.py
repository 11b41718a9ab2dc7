"""Frames out: a small one of a server, of a client under a fresh key, many at once, 1 MiB into fragments.

The product is bytes to send. picows and aiohttp hand them to a transport, here one that keeps the last.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

from .contest import Contender, Contest, Job, gives
from .ours import BODIES
from .peers import installed, senders
from .samples import KiB, MiB, cut, payload

SMALL = 16


def server_frame() -> Contest:
    """A header and 16 bytes."""
    data = payload(SMALL)
    right = gives(bytes([0x82, SMALL]) + data)
    contenders = {name: Contender(partial(body.build_frame, 2, data), right) for name, body in BODIES.items()}
    contenders |= {name: Contender(partial(send, data), right) for name, send in senders(client=False).items()}
    return Contest(f"server frame, {SMALL} B", 1, "call", contenders)


def keys() -> Contest:
    """Four bytes that nobody can foresee: ours out of a pool, by a system call each otherwise."""

    def right(key: bytes) -> bool:
        return len(key) == 4

    contenders = {name: Contender(partial(body.new_mask), right) for name, body in BODIES.items()}
    contenders["os.urandom"] = Contender(partial(os.urandom, 4), right)
    return Contest("a mask key", 1, "call", contenders)


def client_frame() -> Contest:
    """The same under a key of its own; picows has it from C's rand(), aiohttp from Python's random: no secrets."""
    data = payload(SMALL)

    def right(sent: bytes) -> bool:
        key = sent[2:6]
        clear = bytes(byte ^ key[index & 3] for index, byte in enumerate(sent[6:]))
        return sent[:2] == bytes([0x82, 0x80 | SMALL]) and clear == data

    contenders = {
        name: Contender(partial(body.build_frame, 2, data, masked=True), right) for name, body in BODIES.items()
    }
    contenders |= {name: Contender(partial(send, data), right) for name, send in senders(client=True).items()}
    return Contest(f"client frame, {SMALL} B, fresh key", 1, "call", contenders)


def batch() -> Contest:
    """64 small messages to send together. picows sends each by itself: it has no other way."""
    data = payload(32)
    messages = [(2, data)] * 64
    stream = (bytes([0x82, 32]) + data) * 64

    def right(buffers: Any) -> bool:
        return b"".join(buffers) == stream

    def one_by_one(send: Callable[[bytes], Any]) -> Callable[[], list[Any]]:
        return lambda: [send(message) for _, message in messages]

    contenders = {name: Contender(partial(body.build_batch, messages), right) for name, body in BODIES.items()}
    contenders |= {
        f"{name}, frame by frame": Contender(partial(one_by_one(partial(body.build_frame, 2))), right)
        for name, body in BODIES.items()
    }
    contenders |= {name: Contender(partial(one_by_one(send)), right) for name, send in senders(client=False).items()}
    return Contest("64 server frames of 32 B", 64, "frame", contenders)


def fragments() -> Contest:
    """1 MiB as frames of 64 KiB: ours and picows refer to the payload, websockets copies it."""
    data = payload(MiB)
    step = 64 * KiB

    def right(buffers: Any) -> bool:
        return len(b"".join(buffers)) == MiB + len(cut(data, step)) * 10

    contenders = {name: Contender(partial(body.fragment, 2, data, size=step), right) for name, body in BODIES.items()}
    if installed("picows"):
        contenders["picows"] = Contender(partial(picows_fragments(), data, step))
    if installed("websockets"):
        contenders["websockets"] = Contender(partial(websockets_fragments(), data, step), right)
    contenders["memcpy"] = Contender(partial(bytes, bytearray(data)))
    return Contest("1 MiB into fragments of 64 KiB", MiB, "byte", contenders)


def picows_fragments() -> Callable[[bytes, int], None]:
    import picows

    from .picows_peer import Picows

    send = Picows().send
    first, further = picows.WSMsgType.BINARY, picows.WSMsgType.CONTINUATION

    def fragment(data: bytes, step: int) -> None:
        view = memoryview(data)
        for start in range(0, len(data), step):
            send(further if start else first, view[start : start + step], start + step >= len(data))

    return fragment


def websockets_fragments() -> Callable[[bytes, int], list[bytes]]:
    from websockets.frames import Frame, Opcode

    def fragment(data: bytes, step: int) -> list[bytes]:
        view = memoryview(data)
        return [
            Frame(
                Opcode.CONT if start else Opcode.BINARY, view[start : start + step], fin=start + step >= len(data)
            ).serialize(mask=False)
            for start in range(0, len(data), step)
        ]

    return fragment


JOBS: tuple[Job, ...] = (server_frame, keys, client_frame, batch, fragments)
