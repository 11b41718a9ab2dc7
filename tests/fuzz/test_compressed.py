"""A short dose of compressed messages that chance makes, always the same; `scripts/fuzz compressed` gives more."""

from __future__ import annotations

from fuzz.compressed import expected, one_connection
from plumews import Opcode
from support.compressed_messages import squeezed

#: Connections whose messages have found something before, and others.
SEEDS = [29, 47, 50, 86, 110, *range(6)]


async def test_what_zlib_makes_of_a_message_a_server_does_too() -> None:
    came_back = {seed: await one_connection(seed) for seed in SEEDS}
    assert sum(came_back.values()) > 2 * len(SEEDS)


def test_the_reference_knows_right_from_wrong() -> None:
    assert expected(Opcode.TEXT, squeezed(b"Hello")) == (b"Hello", set())
    assert expected(Opcode.TEXT, squeezed(b"\xff")) == (None, {1007})
    assert expected(Opcode.BINARY, b"") == (None, {1007})
    assert expected(Opcode.BINARY, b"\xff") == (None, {1007, 1009})
    assert expected(Opcode.BINARY, squeezed(bytes(300_000))) == (None, {1009})
