"""Encodings of a message for many connections: one for each set of parameters, made once and cached."""

from __future__ import annotations

import random
import zlib
from typing import Any

import pytest

import plumews
from plumews import Opcode, limits
from plumews.conn.opening import use_deflate
from plumews.constants import COMPRESSED
from plumews.deflate.config import Agreement
from plumews.deflate.encodings import EncodingCache, encoding_for, make_encoding
from plumews.protocol.codec import Parser
from plumews.protocol.message import EncodedMessage, encode
from support.compressed_messages import unsqueezed
from support.fakes import FakeTransport, fake_conn

JSON = b'{"id": 1, "name": "somebody", "text": "hello, hello"}' * 20
NOISE = random.Random(1).randbytes(1000)


def conn_with(bits: int | None = 12, *, takeover: bool = False, **config: Any) -> plumews.Conn:
    """Return a connection that agreed on a window of ``bits``, or without compression for ``None``."""
    conn, _ = fake_conn(FakeTransport, **{"ping_interval": None, "compression": "deflate", **config})
    if bits is not None:
        use_deflate(conn, Agreement(bits, 12, takeover, False, "permessage-deflate"))
    return conn


def encoded_for(shared: EncodedMessage, conn: plumews.Conn) -> EncodedMessage:
    return encoding_for(shared, conn._shared)


def chosen_for(forms: EncodingCache, messages: list[EncodedMessage], conn: plumews.Conn) -> list[EncodedMessage]:
    return forms.choose(messages, conn._shared, conn._deflate is not None)


def message(payload: bytes = JSON, *, compress: bool | None = None) -> EncodedMessage:
    return encode(Opcode.BINARY, payload, compress=compress)


def read(form: EncodedMessage) -> tuple[int, bytes]:
    """Return the opcode of a message with the bit of compression, and its inflated payload."""
    parser = Parser(client=True, max_size=None, allow_rsv1=True)
    [(kind, data)] = parser.feed(b"".join(form.buffers))
    return kind, unsqueezed(data) if kind & COMPRESSED else data


async def test_equal_parameters_share_one_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    conns = [conn_with(bits) for bits in (12, 9, 12, 15, 9, 12)]
    made = []
    monkeypatch.setattr(
        plumews.deflate.encodings, "encode", lambda *args, **how: made.append(encode(*args, **how)) or made[-1]
    )
    shared = message()
    forms = [encoded_for(shared, conn) for conn in conns]
    assert len(made) == 3
    assert forms[0] is forms[2] is forms[5]
    assert forms[1] is forms[4]
    assert len({id(form) for form in forms}) == 3
    for form, bits in zip(forms, (12, 9, 12, 15, 9, 12), strict=True):
        assert read(form) == (Opcode.BINARY | COMPRESSED, JSON)
        [(_, data)] = Parser(client=True, max_size=None, allow_rsv1=True).feed(b"".join(form.buffers))
        assert zlib.decompressobj(-bits).decompress(data + b"\x00\x00\xff\xff") == JSON
        assert form.size == sum(map(len, form.buffers)) < len(JSON) / 4


async def test_no_encoding_without_shared_parameters() -> None:
    shared = message()
    assert encoded_for(shared, conn_with(None)) is shared
    assert encoded_for(shared, conn_with(takeover=True)) is shared
    assert shared.encodings is None


@pytest.mark.parametrize(
    ("payload", "compress", "compressed"),
    [
        (b"x" * 127, None, False),
        (b"x" * 128, None, True),
        (b"x" * 500, False, False),
        (b"x", True, True),
        (b"", True, True),
        (NOISE, None, False),
        (NOISE, True, True),
    ],
    ids=["short", "long enough", "never", "always", "empty", "no smaller", "no smaller but always"],
)
async def test_size_and_request_decide_about_compression(
    payload: bytes, compress: bool | None, compressed: bool
) -> None:
    shared = message(payload, compress=compress)
    form = encoded_for(shared, conn_with())
    assert (form is not shared) is compressed
    assert read(form) == (Opcode.BINARY | COMPRESSED * compressed, payload)
    assert encoded_for(shared, conn_with()) is form


async def test_incompressible_message_is_compressed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    shared, conn = message(NOISE), conn_with()
    assert encoded_for(shared, conn) is shared
    monkeypatch.setattr(plumews.deflate.encodings, "make_encoding", None)
    assert encoded_for(shared, conn) is shared
    assert shared not in (shared.encodings or {}).values()  # or it would go only when the collector finds it


async def test_min_size_and_fragment_size_are_parameters() -> None:
    shared = message()
    assert encoded_for(shared, conn_with(compression=plumews.Deflate(min_size=5000))) is shared
    pieces = encoded_for(shared, conn_with(fragment_size=7))
    assert pieces.buffers[0][0] == Opcode.BINARY | 0x40  # the first of several
    assert read(pieces) == (Opcode.BINARY | COMPRESSED, JSON)


# --- long messages ----------------------------------------------------------------------------------

LONG = b"".join(b"line %d of many; " % number for number in range(20_000))


async def test_long_message_is_compressed_on_request() -> None:
    assert len(LONG) > 4 * limits.COMPRESS_PIECE
    shared = message(LONG)
    assert encoded_for(shared, conn_with()) is shared
    must = message(LONG, compress=True)
    assert read(encoded_for(must, conn_with())) == (Opcode.BINARY | COMPRESSED, LONG)


@pytest.mark.parametrize("compress", [None, True])
async def test_long_message_with_takeover_is_compressed_on_request(compress: bool | None) -> None:
    shared, conn = message(LONG, compress=compress), conn_with(takeover=True)
    assert encoded_for(shared, conn) is shared
    assert conn._deflate is not None
    entered = conn._deflate.enter(shared)
    assert (entered is shared) is (compress is None)
    assert read(entered) == (Opcode.BINARY | COMPRESSED * bool(compress), LONG)


# --- cache ------------------------------------------------------------------------------------------


async def test_cache_compresses_each_message_once(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = [message(JSON + b"%d" % number) for number in range(5)]
    forms = EncodingCache(1 << 20)
    first = chosen_for(forms, kept, conn_with())
    assert [read(form)[1] for form in first] == [JSON + b"%d" % number for number in range(5)]
    assert all(read(form)[0] & COMPRESSED for form in first)
    monkeypatch.setattr(plumews.deflate.encodings, "make_encoding", None)
    assert chosen_for(forms, kept, conn_with()) == first
    assert chosen_for(forms, kept, conn_with(None)) == kept
    assert chosen_for(forms, kept, conn_with(takeover=True)) == kept


async def test_cache_forgets_the_least_recently_used_first() -> None:
    kept = [message(JSON + b"%d" % number) for number in range(6)]
    one = kept[0].size + make_encoding(message(JSON + b"0"), conn_with()._shared).size + 2 * limits.HISTORY_OVERHEAD
    forms = EncodingCache(3 * one)
    chosen_for(forms, kept[:3], conn_with())
    chosen_for(forms, kept[:1], conn_with())
    chosen_for(forms, kept[3:4], conn_with())
    assert [each.encodings is not None for each in kept] == [True, False, True, True, False, False]
    chosen_for(forms, kept[:1], conn_with(9))
    assert forms.bytes <= 3 * one
    assert len(forms) == 2
    for each in kept:
        chosen_for(forms, [each], conn_with(11))
        assert forms.bytes <= 3 * one
    forms.clear()
    assert (forms.bytes, len(forms)) == (0, 0)
    assert all(each.encodings is None for each in kept)


@pytest.mark.parametrize("takeover", [False, True], ids=["shared", "takeover"])
async def test_cache_compresses_64_kib_in_one_call(takeover: bool) -> None:
    size = limits.COMPRESS_PIECE // 4
    kept = [message(LONG[:size] + b"%d" % number) for number in range(6)]
    chosen = chosen_for(EncodingCache(1 << 30), kept, conn_with(takeover=takeover))
    compressed = [form.compress is not False for form in chosen]
    assert compressed == [True] * 3 + [False] * 3
    assert [read(form)[1] for form in chosen] == [each.message()[1] for each in kept]
