"""Compressed messages: what they are on the wire, which of them refer to others, and what is held for it."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plumews.deflate import streams
from plumews.deflate.streams import EMPTY, Compressor, ContextCompressor
from support.compressed_messages import TAIL, unsqueezed

HELLO = bytes.fromhex("f248cdc9c90700")  # RFC 7692 section 7.2.3.1


def compressor() -> Compressor:
    return Compressor("zlib", 6, 12, 5)


def context() -> ContextCompressor:
    return ContextCompressor("zlib", 6, 12, 5)


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
    assert own.size == 38 * 1024
    own.reset()
    assert own.size == 0


class Failing:
    """A compressor that has no memory for what comes after ``good`` calls; what it was given before stays in it."""

    def __init__(self, made: Any, good: int, error: type[BaseException] = MemoryError) -> None:
        self._made = made
        self._good = good
        self._error = error

    def compress(self, payload: bytes) -> bytes:
        return self._answer(self._made.compress(payload))

    def flush(self, mode: int) -> bytes:
        return self._answer(self._made.flush(mode))

    def _answer(self, data: bytes) -> bytes:
        self._good -= 1
        if self._good < 0:
            raise self._error
        return data


@pytest.fixture
def failing(monkeypatch) -> Callable[..., None]:
    """The next compressor fails after so many calls, or cannot be made with -1; those behind it do not."""

    def fail_after(good: int, error: type[BaseException] = MemoryError) -> None:
        def make(*key: Any) -> Any:
            monkeypatch.undo()
            if good < 0:
                raise error
            return Failing(streams._compressor(*key), good, error)

        monkeypatch.setattr(streams, "_compressor", make)

    return fail_after


@pytest.mark.parametrize("good", [-1, 0, 1, 2, 3])
@pytest.mark.parametrize("make", [compressor, context])
@pytest.mark.parametrize("size", [0, 10, 65535, 65536, 200_000])
def test_a_library_that_fails_costs_no_message_and_nothing_of_it_gets_into_another(failing, good, make, size):
    failing(good)
    made, inflater = make(), zlib.decompressobj(-12)
    messages = [b"for one of us" * 9, bytes(size), b"for somebody else" * 9, b"for somebody else" * 9]
    for message in messages:
        data = made.compress(message)
        assert (unsqueezed(data) if make is compressor else inflater.decompress(data + TAIL)) == message


def test_pieces_that_a_library_fails_to_compress_come_as_they_are(failing):
    failing(3)
    own, inflater = context(), zlib.decompressobj(-12)
    for piece in (b"one" * 99, b"two" * 99, b"three" * 99):
        assert inflater.decompress(own.piece(piece)) == piece
    assert inflater.decompress(EMPTY + TAIL) == b""


async def test_a_library_that_fails_is_logged_without_the_message(failing, caplog):
    failing(0)
    compressor().compress(b"secret")
    (line,) = caplog.messages
    assert line.startswith("compressing failed (MemoryError): a message is sent uncompressed")
    assert "secret" not in caplog.text


@pytest.mark.parametrize("make", [compressor, context])
def test_who_interrupts_it_leaves_nothing_of_the_message_behind(failing, make):
    failing(1, KeyboardInterrupt)
    made = make()
    with pytest.raises(KeyboardInterrupt):
        made.compress(b"for one of us" * 9)
    assert unsqueezed(made.compress(b"for somebody else")) == b"for somebody else"


def test_messages_that_are_sent_in_the_midst_of_another_do_not_mix():
    shared = compressor()
    inner: list[bytes] = []

    class Interrupted(Failing):
        def compress(self, payload: bytes) -> bytes:
            data = super().compress(payload)
            inner.append(shared.compress(b"inner"))  # as by a finalizer, or by the handler of a signal
            return data

    shared._made = Interrupted(streams._compressor("zlib", 6, 12, 5), 2)
    assert unsqueezed(shared.compress(b"outer")) == b"outer"
    assert [unsqueezed(data) for data in inner] == [b"inner"]
