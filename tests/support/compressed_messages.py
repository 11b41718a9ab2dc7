"""Compressed messages as tests want them, right or wrong: made by Python's zlib, which is not asked what it thinks."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from typing import Any

from plumews.constants import COMPRESSED, Opcode
from plumews.protocol.codec import Parser, build_frame
from support.raw_client import Wire

TAIL = b"\x00\x00\xff\xff"
OFFER = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"


def squeezed(payload: bytes, *, bits: int = 12, level: int = 6) -> bytes:
    """``payload`` as a message that stands for itself."""
    compressor = zlib.compressobj(level, zlib.DEFLATED, -bits)
    return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


def unsqueezed(data: bytes, *, bits: int = 15) -> bytes:
    """Return the content of a compressed message that stands on its own."""
    return zlib.decompressobj(-bits).decompress(data + TAIL)


def frames(opcode: int, data: bytes, *, count: int = 1, masked: bool = True) -> Iterator[bytes]:
    """A compressed message whose payload is ``data``, in ``count`` frames."""
    size = max(-(-len(data) // count), 0)
    for index in range(count):
        piece = data[index * size : (index + 1) * size]
        yield build_frame(
            opcode if index == 0 else Opcode.CONT,
            piece,
            fin=index == count - 1,
            rsv1=index == 0,
            mask_key=os.urandom(4) if masked else None,
        )


def frame(opcode: int, payload: bytes, **how: Any) -> bytes:
    """``payload``, compressed, in one frame."""
    return b"".join(frames(opcode, squeezed(payload, **how)))


class Squeezing(Wire):
    """A raw connection that offers compression, and whose messages are told as they are on the wire."""

    @classmethod
    async def open(cls, server: Any, path: str = "/", *lines: str, **options: Any) -> Squeezing:
        wire = await super().open(server, path, *(lines or (OFFER,)), **options)
        assert isinstance(wire, cls)
        wire._parser = Parser(client=True, max_size=None, decode_text=False, allow_rsv1=True)
        return wire

    async def inflated(self) -> tuple[int, bytes]:
        """The opcode and the payload of the next message, which must be compressed."""
        kind, data = await self.event()
        assert kind & COMPRESSED, (kind, data)
        return kind ^ COMPRESSED, unsqueezed(data)
