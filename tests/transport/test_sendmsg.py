"""Tests of direct writes to sockets, in both bodies: the number of bytes taken is exact.

Each test has a real pair of sockets. The received bytes are compared with the offered ones.
"""

from __future__ import annotations

import gc
import importlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import plumews
from plumews import _compiled
from plumews.transport import sendmsg
from support.codec_bodies import PURE_ONLY
from support.fakes import linked

KiB = 1024

pytestmark = pytest.mark.skipif(not sendmsg.DIRECT, reason="sockets are no file descriptors here")

Send = Callable[[int, list[Any]], int]


def body(name: str) -> Send:
    return importlib.import_module(f"plumews.transport.{name}").send  # type: ignore[no-any-return]


BODIES = ["_sendmsg_py"] if PURE_ONLY else ["_sendmsg", "_sendmsg_py"]


@pytest.fixture(params=BODIES, ids=["py"] if PURE_ONLY else ["c", "py"])
def send(request: pytest.FixtureRequest) -> Send:
    return body(request.param)


class Pair:
    """Two connected sockets, of which ours does not block and takes little."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.ours.setblocking(False)
        self.theirs.setblocking(False)
        self.ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * KiB)

    @property
    def fd(self) -> int:
        return self.ours.fileno()

    def read(self) -> bytes:
        """Return all received bytes."""
        data = bytearray()
        while True:
            try:
                piece = self.theirs.recv(1024 * KiB)
            except BlockingIOError:
                return bytes(data)
            if not piece:
                return bytes(data)
            data += piece

    def fill(self) -> None:
        while True:
            try:
                self.ours.send(bytes(KiB))
            except BlockingIOError:
                return

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    pair = Pair()
    yield pair
    pair.close()


def roomy(pair: Pair) -> None:
    """Let the sockets take a few MiB at once."""
    pair.ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096 * KiB)


def send_all(send: Send, pair: Pair, buffers: list[Any]) -> bytes:
    """Offer ``buffers`` until all of them are taken. Return the received bytes."""
    arrived = bytearray()
    while buffers:
        sent = send(pair.fd, buffers)
        new = pair.read()
        total = sum(map(len, buffers))
        assert len(new) == (total if sent < 0 else sent)
        arrived += new
        if sent < 0:
            break
        assert 0 < sent < total
        while sent >= len(buffers[0]):
            sent -= len(buffers.pop(0))
        buffers[0] = memoryview(buffers[0])[sent:]
    return bytes(arrived)


def numbered(count: int, size: int) -> list[bytes]:
    """Return buffers that differ from each other."""
    return [(index.to_bytes(4, "big") * (size // 4 + 1))[:size] for index in range(count)]


# --- all of it ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "buffers",
    [
        [b"x"],
        [b"a", b"b", b"c"],
        [b""],
        [b"", b"x", b""],
        [bytes(16 * KiB)],
        [bytes(16 * KiB + 1)],
        [bytes(16 * KiB - 1), b"ab"],
        [b"head", bytes(64 * KiB), b"head", b"small"],
    ],
    ids=lambda buffers: "+".join(str(len(buffer)) for buffer in buffers),
)
def test_send_returns_minus_one_when_everything_was_taken(send: Send, pair: Pair, buffers: list[bytes]) -> None:
    roomy(pair)
    assert send(pair.fd, buffers) == -1
    assert pair.read() == b"".join(buffers)


def test_send_of_no_buffers_returns_minus_one(send: Send, pair: Pair) -> None:
    assert send(pair.fd, []) == -1
    assert pair.read() == b""


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview], ids=lambda kind: kind.__name__)
def test_send_accepts_any_bytes_like_object(send: Send, pair: Pair, kind: type) -> None:
    roomy(pair)
    buffers = [kind(buffer) for buffer in (b"small", bytes(20 * KiB), b"small again")]
    assert send(pair.fd, buffers) == -1
    assert pair.read() == b"small" + bytes(20 * KiB) + b"small again"


def test_send_of_a_partial_view_sends_that_part(send: Send, pair: Pair) -> None:
    view = memoryview(b"0123456789" * 10_000)
    roomy(pair)
    assert send(pair.fd, [view[3:7], view[15:50_015], b"end"]) == -1
    assert pair.read() == bytes(view[3:7]) + bytes(view[15:50_015]) + b"end"


def test_send_accepts_a_subclass_of_bytes(send: Send, pair: Pair) -> None:
    class Mine(bytes):
        pass

    assert send(pair.fd, [b"a", Mine(b"b"), b"c"]) == -1
    assert pair.read() == b"abc"


# --- many pieces ----------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [63, 64, 65, 157, 1000, 1023, 1024, 1025, 3000])
@pytest.mark.parametrize("kind", [bytes, memoryview], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("size", [1, 10, 500])
def test_each_of_many_small_buffers_arrives_once(send: Send, pair: Pair, count: int, kind: type, size: int) -> None:
    roomy(pair)
    buffers = [kind(buffer) for buffer in numbered(count, size)]
    assert send_all(send, pair, list(buffers)) == b"".join(buffers)


@pytest.mark.parametrize("count", [31, 32, 33, 63, 64, 65, 130, 1025])
def test_each_of_many_large_buffers_arrives_once(send: Send, pair: Pair, count: int) -> None:
    roomy(pair)
    buffers = numbered(count, 16 * KiB + 1)
    assert send_all(send, pair, list(buffers)) == b"".join(buffers)


@pytest.mark.parametrize("count", [32, 33, 64, 200])
def test_headers_and_large_payloads_arrive_in_order(send: Send, pair: Pair, count: int) -> None:
    roomy(pair)
    buffers: list[Any] = []
    for head, payload in zip(numbered(count, 10), numbered(count, 20 * KiB), strict=True):
        buffers += head, memoryview(payload)
    assert send_all(send, pair, list(buffers)) == b"".join(buffers)


def test_small_buffers_behind_gathered_ones_arrive_in_order(send: Send, pair: Pair) -> None:
    roomy(pair)
    buffers = [*numbered(1, 16 * KiB), *numbered(200, 100), *numbered(3, 17 * KiB), *numbered(200, 1)]
    assert send_all(send, pair, list(buffers)) == b"".join(buffers)


PIECE = st.tuples(
    st.sampled_from([0, 1, 2, 10, 100, 1000, 4 * KiB, 16 * KiB - 1, 16 * KiB, 16 * KiB + 1, 40 * KiB]),
    st.sampled_from([bytes, memoryview, bytearray]),
    st.integers(1, 90),
)


@pytest.mark.parametrize("name", BODIES)
@given(pieces=st.lists(PIECE, min_size=1, max_size=8))
def test_mixed_buffers_arrive_as_they_were_offered(name: str, pieces: list[tuple[int, type, int]]) -> None:
    pair = Pair()
    try:
        buffers: list[Any] = []
        for size, kind, count in pieces:
            buffers += [kind(bytes([len(buffers) % 251]) * size) for _ in range(count if size < 16 * KiB else 1)]
        expected = b"".join(buffers)
        arrived = bytearray()
        while buffers:
            sent = body(name)(pair.fd, buffers)
            arrived += pair.read()
            if sent < 0:
                break
            while buffers and sent >= len(buffers[0]):
                sent -= len(buffers.pop(0))
            if buffers:
                buffers[0] = memoryview(buffers[0])[sent:]
        assert arrived == expected
    finally:
        pair.close()


# --- a part of it ---------------------------------------------------------------------------------


def test_send_returns_the_number_of_bytes_that_arrive(send: Send, pair: Pair) -> None:
    buffers = numbered(100, 10 * KiB)
    sent = send(pair.fd, buffers)
    assert 0 < sent < 1000 * KiB
    assert pair.read() == b"".join(buffers)[:sent]


def test_send_to_a_full_socket_returns_zero(send: Send, pair: Pair) -> None:
    pair.fill()
    assert send(pair.fd, [b"x"]) == 0
    assert send(pair.fd, [b"x", bytes(100 * KiB), memoryview(b"y")]) == 0
    pair.read()
    assert send(pair.fd, [b"x"]) == -1
    assert pair.read() == b"x"


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("buffers", [[b"x"], [b"x", bytes(100 * KiB)]], ids=["one", "two"])
def test_send_to_a_closed_peer_returns_zero(send: Send, pair: Pair, buffers: list[bytes]) -> None:
    pair.theirs.close()
    assert send(pair.fd, buffers) == 0
    assert send(pair.fd, buffers) == 0


@pytest.mark.skipif(PURE_ONLY or sys.platform != "linux", reason="only the compiled body asks for it, where it can")
def test_send_raises_no_sigpipe_under_the_default_handler() -> None:
    code = """
import signal, socket
from plumews.transport._sendmsg import send
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
ours, theirs = socket.socketpair()
ours.setblocking(False)
theirs.close()
print(send(ours.fileno(), [b"x"]), send(ours.fileno(), [b"x", bytes(100_000)]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "0"]


def test_send_to_an_invalid_descriptor_returns_zero(send: Send, pair: Pair) -> None:
    fd = os.dup(pair.fd)
    os.close(fd)
    assert send(fd, [b"x"]) == 0
    assert send(-1, [b"x", b"y"]) == 0


def test_send_of_a_non_buffer_raises_and_holds_nothing(send: Send, pair: Pair) -> None:
    held = bytearray(10)
    with pytest.raises(TypeError):
        send(pair.fd, [held, None])
    held.append(1)  # it is not exported any more
    assert pair.read() == b""


def test_send_holds_no_buffer_after_the_call(send: Send, pair: Pair) -> None:
    buffers = [bytearray(10) for _ in range(200)] + [bytearray(20 * KiB) for _ in range(100)]
    before = [sys.getrefcount(buffer) for buffer in buffers]
    send(pair.fd, buffers)
    pair.fill()
    send(pair.fd, buffers)
    pair.theirs.close()
    send(pair.fd, buffers)
    gc.collect()
    assert [sys.getrefcount(buffer) for buffer in buffers] == before
    for buffer in buffers:
        buffer.append(1)


# --- which body -----------------------------------------------------------------------------------


def test_send_is_that_of_the_body_of_the_package() -> None:
    compiled = _compiled.short_ways("transport._sendmsg")
    assert (compiled is None) == (plumews.BODY == "pure" or os.environ.get("PLUMEWS_SHORT_WAYS") == "0")
    assert sendmsg.send is body("_sendmsg_py" if compiled is None else "_sendmsg")


# --- on the wire ----------------------------------------------------------------------------------


@pytest.mark.parametrize("fragment", [1, 100, 1000, 16 * KiB])
async def test_message_in_many_small_fragments_arrives_whole(start: Any, fragment: int) -> None:
    size = min(200 * fragment + 16 * KiB + 1, 200 * KiB)
    payload = bytes(index % 251 for index in range(size))
    async with linked(start, fragment_size=fragment) as (conn, wire_):
        await conn.send(payload)
        await conn.send("behind it")
        assert await wire_.message() == payload
        assert await wire_.message() == "behind it"
