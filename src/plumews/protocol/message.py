"""Messages of the application, encoded as frames (RFC 6455 sections 5.4 and 5.6).

Checks the opcode, copies mutable payloads, checks that text is UTF-8, and fragments long messages. An encoded
message may be queued on any number of connections: its frames never change.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, Callable, Iterator
from typing import Any, TypeAlias

from .. import limits
from ..constants import Opcode
from . import codec

__all__ = ["Data", "EncodedMessage", "Pieces", "checked_compress", "encode", "encode_json", "opcode_of", "payload_of"]

Data: TypeAlias = "str | bytes | bytearray | memoryview"
#: A message that is sent in pieces.
Pieces: TypeAlias = "AsyncIterable[Data] | Iterator[Data]"


class EncodedMessage:
    """One message as buffers to write in order, and their bytes in all.

    ``compress`` is the application's request to compress it later: True, False, or ``None`` for the choice by its size.
    ``encodings`` are the compressed ones, see :mod:`plumews.deflate.encodings`.
    """

    __slots__ = ("buffers", "compress", "encodings", "size")

    def __init__(self, buffers: list[bytes | memoryview], size: int, compress: bool | None = None) -> None:
        self.buffers = buffers
        self.size = size
        self.compress = compress
        self.encodings: dict[Any, EncodedMessage | None] | None = None

    def message(self) -> tuple[int, bytes]:
        """Return the opcode and the payload, parsed from the frames."""
        parser = codec.Parser(client=True, max_size=None, decode_text=False)
        events: list[tuple[int, Any]] = []
        for buffer in self.buffers:
            events += parser.feed(buffer)
        opcode, payload = events[0]
        return opcode, payload


def opcode_of(data: Data) -> int:
    """Return the opcode for ``data``: ``str`` is text, bytes-like is binary."""
    if isinstance(data, str):
        return Opcode.TEXT
    if isinstance(data, (bytes, bytearray, memoryview)):
        return Opcode.BINARY
    hint = (
        " (use write_json, or json.dumps, for objects, write_many for several messages)"
        if isinstance(data, (dict, list, tuple))
        else ""
    )
    raise TypeError(f"a message must be str or bytes-like, not {type(data).__name__}{hint}")


def payload_of(opcode: int, data: Data) -> bytes:
    """Return ``data`` as the immutable payload of a message of ``opcode``.

    Raise ``ValueError`` for another opcode than TEXT and BINARY, and for bytes of a text that are not UTF-8.
    """
    if opcode != Opcode.TEXT and opcode != Opcode.BINARY:
        raise ValueError(f"the opcode of a message must be TEXT (1) or BINARY (2), not {opcode!r}")
    if isinstance(data, str):
        return data.encode()
    opcode_of(data)
    payload = bytes(data)
    if opcode == Opcode.TEXT:
        payload.decode()  # raises UnicodeDecodeError, a ValueError that says where
    return payload


def checked_compress(compress: object) -> bool | None:
    """Return ``compress`` if it is True, False or None. Raise ``TypeError`` otherwise."""
    if compress is not None and not isinstance(compress, bool):
        raise TypeError(f"compress must be True, False or None, not {type(compress).__name__}")
    return compress


def encode(
    opcode: int,
    payload: bytes,
    *,
    fragment_size: int = limits.FRAGMENT_SIZE,
    mask: Callable[[], bytes] | None = None,
    rsv1: bool = False,
    compress: bool | None = None,
) -> EncodedMessage:
    """Encode a message whose payload :func:`payload_of` has checked. ``rsv1`` marks a compressed payload.

    ``compress`` is the application's choice for connections that may compress the message.
    """
    buffers = codec.fragment(opcode, payload, size=fragment_size, mask=mask, rsv1=rsv1)
    return EncodedMessage(buffers, sum(map(len, buffers)), compress)


def encode_json(obj: Any) -> bytes:
    """Return ``obj`` as compact JSON in UTF-8. Raise ``ValueError`` for NaN and infinities, which JSON has not."""
    return json.dumps(obj, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
