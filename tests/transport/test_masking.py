"""Tests of the output of a client: masked frames on the socket, through the transport, or both."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from typing import Any

import pytest

from plumews import Opcode
from plumews.protocol.codec import Parser, build_frame, fragment
from plumews.transport import masking, sendmsg
from plumews.transport.masking import MaskingTransport
from support.fakes import PATIENCE, FakeTransport


def messages(wire: bytes) -> list[Any]:
    """Return the messages that a server parses from ``wire``."""
    parser = Parser(client=False, max_size=None)
    events = parser.feed(wire)
    assert parser.error is None, parser.error
    return events


async def pair() -> tuple[asyncio.Transport, socket.socket]:
    """Return a transport of the loop, and the other end of its socket."""
    ours, theirs = socket.socketpair()
    for sock in (ours, theirs):
        sock.setblocking(False)
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=ours)
    return transport, theirs


async def received(sock: socket.socket, count: int) -> list[Any]:
    """Return the first ``count`` messages that arrive."""
    loop, wire = asyncio.get_running_loop(), b""
    while len(found := messages(wire)) < count:
        wire += await asyncio.wait_for(loop.sock_recv(sock, 1 << 20), PATIENCE)
    return found


async def test_frames_are_masked_and_go_to_the_socket() -> None:
    transport, other = await pair()
    masked = MaskingTransport(transport)
    await asyncio.sleep(0)
    masked.write(build_frame(Opcode.TEXT, "one") + build_frame(Opcode.PING, b"two"))
    masked.writelines([build_frame(Opcode.BINARY, b"x" * 10_000), memoryview(build_frame(Opcode.TEXT, "four"))])
    assert await received(other, 4) == [(1, "one"), (9, b"two"), (2, b"x" * 10_000), (1, "four")]
    assert transport.get_write_buffer_size() == 0
    transport.abort()
    other.close()


@pytest.mark.parametrize("size", [3000, 300_000])
async def test_what_the_socket_does_not_take_goes_to_the_transport(size: int) -> None:
    transport, other = await pair()
    masked = MaskingTransport(transport)
    sent = 0
    while not masked.get_write_buffer_size():
        masked.write(build_frame(Opcode.BINARY, sent.to_bytes(4, "big") * (size // 4)))
        sent += 1
    for _ in range(3):  # behind that
        masked.write(build_frame(Opcode.BINARY, sent.to_bytes(4, "big") * (size // 4)))
        sent += 1
    found = await received(other, sent)
    assert [int.from_bytes(data[:4], "big") for _, data in found] == list(range(sent))
    assert {len(data) for _, data in found} == {size}
    transport.abort()
    other.close()


#: Messages of all sizes, as a send queue holds them: headers and payloads apart, short ones together, empty ones.
BUFFERS: list[bytes | memoryview] = [
    build_frame(Opcode.TEXT, "") * 700 + build_frame(Opcode.PING, b"ping"),
    *fragment(Opcode.BINARY, bytes(range(256)) * 4096, size=64 * 1024),
    build_frame(Opcode.BINARY, b""),
    *fragment(Opcode.BINARY, bytes(range(255)) * 4096, size=700_000),
    memoryview(build_frame(Opcode.TEXT, "y" * 70_000)),
    *fragment(Opcode.BINARY, b"z" * 17_000, size=1 << 20),
    build_frame(Opcode.CLOSE, b""),
]
FOUND: list[Any] = [
    *[(1, "")] * 700,
    (9, b"ping"),
    (2, bytes(range(256)) * 4096),
    (2, b""),
    (2, bytes(range(255)) * 4096),
    (1, "y" * 70_000),
    (2, b"z" * 17_000),
    (8, (1005, "")),
]


def test_buffers_of_headers_and_payloads_are_masked_together() -> None:
    inner = FakeTransport()
    MaskingTransport(inner).writelines(BUFFERS)  # type: ignore[arg-type]
    assert messages(inner.wire) == FOUND
    assert len(inner.wire) == sum(map(len, BUFFERS)) + 4 * (700 + 1 + 16 + 1 + 2 + 1 + 1 + 1)
    assert len(inner.writes) == 1


@pytest.mark.parametrize("room", [4096, 1 << 22])
async def test_buffers_reach_the_socket_in_order(room: int) -> None:
    transport, other = await pair()
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, room)
    masked = MaskingTransport(transport)
    masked.writelines(BUFFERS)
    if room == 4096:
        assert transport.get_write_buffer_size() > 0  # the socket has taken a part
    assert await received(other, len(FOUND)) == FOUND
    transport.abort()
    other.close()


def test_buffers_that_end_within_a_frame_are_refused() -> None:
    inner = FakeTransport()
    with pytest.raises(ValueError, match="only whole unmasked frames"):
        MaskingTransport(inner).writelines([*BUFFERS[:-1], b"\x82\x7e\x40\x00", b"x" * 100])  # type: ignore[arg-type]
    assert inner.writes == []


def test_transport_without_a_descriptor_gets_masked_frames() -> None:
    inner = FakeTransport()
    masked = MaskingTransport(inner)  # type: ignore[arg-type]
    masked.write(build_frame(Opcode.TEXT, "one"))
    masked.write(build_frame(Opcode.BINARY, b"x" * 10_000))
    assert messages(inner.wire) == [(1, "one"), (2, b"x" * 10_000)]
    assert len(inner.writes) == 2


def test_questions_go_to_the_transport() -> None:
    inner = FakeTransport()
    inner.held = 5
    masked = MaskingTransport(inner)  # type: ignore[arg-type]
    assert (masked.get_write_buffer_size(), masked.is_closing()) == (5, False)
    assert masked.get_extra_info("peername") == ("192.0.2.1", 4711)
    assert masked.get_extra_info("nothing", 7) == 7
    assert sendmsg.descriptor(masked) == -1  # a channel must not write past it


def test_parts_of_frames_are_refused() -> None:
    inner = FakeTransport()
    with pytest.raises(ValueError, match="only whole unmasked frames"):
        MaskingTransport(inner).write(b"\x81\x05he")  # type: ignore[arg-type]
    assert inner.writes == []


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_child_process_uses_other_keys() -> None:
    def keys() -> bytes:
        inner = FakeTransport()
        MaskingTransport(inner).write(build_frame(Opcode.TEXT, "") * 8)  # type: ignore[arg-type]
        return inner.wire

    keys()  # the pool is filled
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, keys())
        os._exit(0)
    ours = keys()
    os.waitpid(child, 0)
    theirs = os.read(reading, 1000)
    os.close(reading)
    os.close(writing)
    assert len(theirs) == len(ours) == 48
    assert theirs != ours


def test_compiled_body_is_used_if_there_is_one() -> None:
    compiled = masking._short_ways is not None
    assert (MaskingTransport.__module__ == "plumews.transport._masking") is compiled
