"""Parsers of either side, and frames for them, for tests of the codec."""

from __future__ import annotations

from typing import Any

from plumews.constants import Opcode, StreamEvent
from plumews.errors import ProtocolError

KEY = bytes.fromhex("37fa213d")
CONT, TEXT, BINARY, CLOSE, PING, PONG = map(int, Opcode)
BEGIN, CHUNK, END = map(int, StreamEvent)
KiB = 1024


def server(codec: Any, **options: Any) -> Any:
    """A parser of what clients send: masked frames."""
    return codec.Parser(**{"client": False, "max_size": None, **options})


def client(codec: Any, **options: Any) -> Any:
    """A parser of what servers send: frames without a mask, which are easier to write down."""
    return codec.Parser(**{"client": True, "max_size": None, **options})


def masked(codec: Any, opcode: int, payload: bytes = b"", **options: Any) -> bytes:
    return codec.build_frame(opcode, payload, mask_key=KEY, **options)


def refused(parser: Any, data: bytes, kind: type[ProtocolError], text: str) -> None:
    """Check that the parser rejects ``data`` at its last byte, with the reason ``text``."""
    assert parser.feed(data[:-1]) == []
    assert parser.error is None, "refused too early"
    assert parser.feed(data[-1:]) == []
    assert type(parser.error) is kind
    assert text in str(parser.error)
    assert parser.feed(b"\x81\x00" + b"\x81\x80" + KEY) == []
    assert (parser.mid_message, parser.buffered) == (False, 0)
