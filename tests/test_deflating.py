"""Compressed messages: what they are on the wire, which of them refer to others, and what is held for it."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plumews.deflate import deflate_context_size
from plumews.deflating import EMPTY, Compressor, Context
from squeezed import TAIL, unsqueezed

HELLO = bytes.fromhex("f248cdc9c90700")  # RFC 7692 section 7.2.3.1


def compressor() -> Compressor:
    return Compressor("zlib", 6, 12, 5)


def context() -> Context:
    return Context("zlib", 6, 12, 5)


def test_hello_is_what_the_rfc_makes_of_it():
    assert compressor().compress(b"Hello") == HELLO
    assert context().compress(b"Hello") == HELLO


def test_with_takeover_the_second_hello_refers_to_the_first():
    hello = context()
    assert hello.compress(b"Hello") == HELLO
    assert hello.compress(b"Hello") == bytes.fromhex("f200110000")  # RFC 7692 section 7.2.3.2


def test_without_takeover_every_hello_is_the_same():
    hello = compressor()
    assert {hello.compress(b"Hello") for _ in range(5)} == {HELLO}


def test_nothing_is_one_empty_byte():
    for made in (compressor(), context()):
        assert [made.compress(b"") for _ in range(3)] == [b"\x00"] * 3
        assert made.compress(b"Hello") == HELLO
        assert made.compress(b"") == b"\x00"


@given(st.lists(st.binary(max_size=300) | st.integers(1, 9000).map(lambda n: b"ab" * n), max_size=6))
def test_any_messages_come_back_alone_and_in_a_context(messages):
    shared, own = compressor(), context()
    inflater = zlib.decompressobj(-12)
    for message in messages:
        assert unsqueezed(shared.compress(message), bits=12) == message
        assert inflater.decompress(own.compress(message) + TAIL) == message


def test_pieces_can_be_inflated_as_they_come():
    own, inflater = context(), zlib.decompressobj(-12)
    for piece in (b"one", b"", b"one, two", b""):
        assert inflater.decompress(own.piece(piece)) == piece
    assert inflater.decompress(EMPTY + TAIL) == b""
    assert inflater.decompress(own.compress(b"one, two") + TAIL) == b"one, two"


def test_after_a_reset_nothing_refers_to_what_was_before():
    own = context()
    inflater = zlib.decompressobj(-12)
    inflater.decompress(own.compress(b"Hello") + TAIL)
    own.compress(b"Hello, lost")
    own.reset()
    data = own.compress(b"Hello, lost")
    assert inflater.decompress(data + TAIL) == b"Hello, lost"  # the peer's context goes on
    assert unsqueezed(data) == b"Hello, lost"  # and is not needed


def test_a_context_holds_memory_only_while_it_has_something_to_remember():
    own = context()
    assert own.size == 0
    own.compress(b"Hello")
    assert own.size == deflate_context_size(12, 5)
    own.reset()
    assert own.size == 0


@pytest.mark.parametrize("bits", range(9, 16))
def test_nothing_refers_further_back_than_the_window(bits):
    far = bytes(range(256)) * 300
    noise = zlib.compress(far, 9) * 50
    message = noise + far + noise
    assert unsqueezed(Compressor("zlib", 9, bits, 9).compress(message), bits=bits) == message
