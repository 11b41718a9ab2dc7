"""What an application sends, as frames ready to leave (layer 2).

Checks the opcode, copies what could still change, makes sure that text is UTF-8, and cuts messages above
the fragment size (RFC 6455 sections 5.4 and 5.6). The same encoded message may be queued on any number of
connections: nothing in it is ever changed, and what is known of its other forms only grows or is forgotten.
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
#: A message that is not all there yet.
Pieces: TypeAlias = "AsyncIterable[Data] | Iterator[Data]"


class EncodedMessage:
    """One message as buffers to write in order, and their bytes in all.

    ``compress`` is what the application asked for, where that was not decided before: True, False, or ``None`` for what
    its size says. ``forms`` are others in which the same message is sent, see `forms`.
    """

    __slots__ = ("buffers", "compress", "forms", "size")

    def __init__(self, buffers: list[bytes | memoryview], size: int, compress: bool | None = None) -> None:
        self.buffers = buffers
        self.size = size
        self.compress = compress
        self.forms: dict[Any, EncodedMessage | None] | None = None

    def message(self) -> tuple[int, bytes]:
        """The opcode and the payload, read out of the frames of a server: for those who need them in another form."""
        parser = codec.Parser(client=True, max_size=None, decode_text=False)
        events: list[tuple[int, Any]] = []
        for buffer in self.buffers:
            events += parser.feed(buffer)
        opcode, payload = events[0]
        return opcode, payload


def opcode_of(data: Data) -> int:
    """The opcode that ``data`` asks for: ``str`` is text, bytes-like is binary."""
    if isinstance(data, str):
        return Opcode.TEXT
    if isinstance(data, (bytes, bytearray, memoryview)):
        return Opcode.BINARY
    hint = " (use write_json, or json.dumps, for objects)" if isinstance(data, (dict, list, tuple)) else ""
    raise TypeError(f"a message must be str or bytes-like, not {type(data).__name__}{hint}")


def payload_of(opcode: int, data: Data) -> bytes:
    """``data`` as the immutable payload of a message of ``opcode``.

    Raises:
        ValueError: ``opcode`` is neither TEXT nor BINARY, or text is not valid UTF-8.
        TypeError: ``data`` is neither ``str`` nor bytes-like.
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
    """``compress``, if it is a choice; raises ``TypeError`` otherwise."""
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
    """The frames of a message whose payload was checked by :func:`payload_of`; ``rsv1`` says that it is compressed.

    ``compress`` is for those who will compress it, if anybody does.
    """
    buffers = codec.fragment(opcode, payload, size=fragment_size, mask=mask, rsv1=rsv1)
    return EncodedMessage(buffers, sum(map(len, buffers)), compress)


def encode_json(obj: Any) -> bytes:
    """``obj`` as compact JSON in UTF-8. NaN and infinities, which JSON has not, are a ``ValueError``."""
    return json.dumps(obj, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
