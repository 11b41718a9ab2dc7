"""Tests of the choice between direct writes to the socket and writes to its transport."""

from __future__ import annotations

import asyncio
import socket
import sys
from asyncio import selector_events
from collections.abc import Callable
from typing import Any

import pytest

import plumews
from plumews.conn.opening import opened
from plumews.constants import Opcode
from plumews.protocol.codec import Parser
from plumews.protocol.message import encode
from plumews.transport import channel, sendmsg
from support.channel_setup import CLOSE, Setup, message, ping, pong
from support.fakes import FakeTransport, started, ticks, tls_contexts


def test_cve_2024_12254_row_11_writelines_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    affected = (3, 12) <= sys.version_info < (3, 12, 9) or (3, 13) <= sys.version_info < (3, 13, 2)
    assert affected is channel._WRITELINES_HAS_NO_BOUND
    monkeypatch.setattr(channel, "_WRITELINES_HAS_NO_BOUND", True)
    setup = Setup()
    setup.transport.writelines = None  # type: ignore[assignment,method-assign]
    setup.channel._try_queue(message("a"))
    setup.channel._try_queue(message("b"))
    setup.channel._flush()
    assert setup.messages == ["a", "b"]


# --- straight to the socket -----------------------------------------------------------------------


class SocketTransport(FakeTransport):
    """Transport of a socket that takes ``room`` bytes; it holds written bytes until :meth:`take`."""

    def __init__(self, protocol: Any) -> None:
        super().__init__(protocol)
        self.room = 0  # bytes that the socket takes
        self.held = bytearray()
        self.most_held = 0
        self.sends = 0
        self.paused = False

    def get_write_buffer_size(self) -> int:
        return len(self.held)

    def send(self, fd: int, buffers: list[Any]) -> int:
        """Replace :func:`plumews.transport.sendmsg.send`."""
        assert fd == 4711
        assert not self.closing, "a byte for a descriptor that may be another's"
        assert not self.held, "past a transport that holds something"
        self.sends += 1
        data = b"".join(buffers)
        taken = data[: self.room]
        self.room -= len(taken)
        if taken:
            self.writes.append(taken)
        return -1 if len(taken) == len(data) else len(taken)

    def write(self, data: bytes | memoryview) -> None:
        assert not self.closing, "a write to a transport that is closing"
        self.held += data
        self.most_held = max(self.most_held, len(self.held))
        if not self.paused:
            self.paused = True
            self.protocol.pause_writing()

    def take(self, count: int) -> None:
        """Let the socket take ``count`` bytes, those of the transport first."""
        self.room += count
        moved = self.held[: self.room]
        del self.held[: len(moved)]
        self.room -= len(moved)
        if moved:
            self.writes.append(bytes(moved))
        if not self.held and self.paused:
            self.paused = False
            self.protocol.resume_writing()


class Direct(Setup):
    """A channel past a :class:`SocketTransport`."""

    transport: SocketTransport

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: int, **bounds: int) -> None:
        super().__init__(**bounds)
        self.transport = SocketTransport(self)
        self.transport.room = room
        monkeypatch.setattr(sendmsg, "descriptor", lambda transport: 4711)
        monkeypatch.setattr(sendmsg, "send", self.transport.send)
        self.channel._attach(self.transport)  # type: ignore[arg-type]

    def whole(self) -> list[tuple[int, Any]]:
        """Let everything leave, and return it."""
        self.transport.take(10_000_000)
        return self.transport.events()


def test_direct_write_sends_the_whole_queue_in_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = Direct(monkeypatch, room=10_000, queue_size=64)
    for index in range(64):
        setup.channel._try_queue(message(str(index)))
    setup.channel._flush()
    assert setup.transport.sends == 1
    assert setup.transport.most_held == 0
    assert setup.messages == [str(index) for index in range(64)]


def test_transport_pauses_as_soon_as_it_holds_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = Direct(monkeypatch, room=0)
    setup.channel._try_queue(message("held"))
    setup.channel._flush()
    assert setup.transport.limits == [0]


SIZES = [5, 0, 130, 16 * 1024, 16 * 1024 - 3, 3, 16 * 1024 + 1, 70_000, 2]
"""Whole frames of every kind, one longer than any payload that is copied, and a message of two fragments."""


def queue_all(setup: Direct) -> list[bytes]:
    payloads = [bytes([index]) * size for index, size in enumerate(SIZES)]
    for payload in payloads:
        assert setup.channel._try_queue(encode(Opcode.BINARY, payload))
    setup.channel._queue_ping(ping(b"ours"))
    setup.channel._queue_pong(pong(b"theirs"))
    return payloads


def cuts() -> list[int]:
    """Return positions to cut at: beside each border between buffers, and in the middle of each."""
    at, points = 0, {0}
    buffers = [ping(b"ours"), pong(b"theirs")]
    for index, size in enumerate(SIZES):
        buffers += encode(Opcode.BINARY, bytes([index]) * size).buffers  # type: ignore[arg-type]
    for buffer in [*buffers, CLOSE]:
        points |= {at + 1, at + len(buffer) // 2, at + len(buffer) - 1, at + len(buffer)}
        at += len(buffer)
    return sorted(points)


def frame_ends(data: bytes) -> list[int]:
    """Return the ends of the frames in ``data``, the last of which may be cut."""
    ends, at = [], 0
    while at < len(data):
        length = data[at + 1] & 0x7F if at + 1 < len(data) else 0
        extended = {126: 2, 127: 8}.get(length, 0)
        if extended:
            length = int.from_bytes(data[at + 2 : at + 2 + extended], "big")
        at += 2 + extended + length
        ends.append(at)
    return ends


def frames_in(data: bytes) -> int:
    """Return the number of complete frames."""
    return sum(end <= len(data) for end in frame_ends(data))


def whole_frames(data: bytes) -> bool:
    """Return True if ``data`` ends with the end of a frame."""
    return not data or frame_ends(data)[-1] == len(data)


@pytest.mark.parametrize("closing", [False, True], ids=["open", "closing"])
@pytest.mark.parametrize("cut", cuts())
def test_cut_frame_waits_in_the_transport_and_order_is_kept(
    monkeypatch: pytest.MonkeyPatch, cut: int, closing: bool
) -> None:
    setup = Direct(monkeypatch, room=cut, queue_size=100, queue_bytes=10_000_000)
    payloads = queue_all(setup)
    if closing:
        setup.channel._finish_output(CLOSE, setup.on_finished)
    else:
        setup.channel._flush()
    gone = setup.transport.wire + bytes(setup.transport.held)
    parser = Parser(client=True, max_size=None)
    given = [payload for kind, payload in parser.feed(gone) if kind == Opcode.BINARY]
    assert parser.error is None
    assert frames_in(gone) - frames_in(setup.transport.wire) in (0, 1), "more than the rest of one frame"
    assert whole_frames(gone)
    begun = len(given) + (1 if parser.mid_message else 0)
    assert setup.channel.queued_messages == len(payloads) - begun
    waiting = payloads[begun:]
    assert setup.channel.queued_bytes == sum(encode(Opcode.BINARY, payload).size for payload in waiting)
    setup.channel._queue_pong(pong(b"old"))
    setup.channel._queue_pong(pong(b"new"))
    late = ([] if closing else [b"old", b"new"]) if not setup.channel._paused else [] if closing else [b"new"]
    setup.channel._flush()
    setup.transport.take(10_000_000)
    events = setup.transport.events()
    assert [payload for kind, payload in events if kind == Opcode.BINARY] == payloads
    pongs = [payload for kind, payload in events if kind == Opcode.PONG]
    assert pongs[-1:] == (late or [b"theirs"])[-1:]
    assert [payload for kind, payload in events if kind == Opcode.PING] == [b"ours"]
    assert (setup.channel.queued_messages, setup.channel.queued_bytes) == (0, 0)
    assert (events[-1][0] == Opcode.CLOSE) is closing
    assert setup.finished == closing


def test_long_frame_behind_a_cut_frame_stays_in_the_queue(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    setup = Direct(monkeypatch, room=3, queue_bytes=100_000)
    for payload in (b"cut here", bytes(16 * 1024)):
        setup.channel._try_queue(encode(Opcode.BINARY, payload))
    setup.channel._flush()
    assert len(setup.transport.held) == 2 + 8 - 3
    assert setup.channel.queued_messages == 1
    assert setup.channel.queued_bytes == 4 + 16 * 1024


def test_payload_like_a_header_takes_no_frame_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = Direct(monkeypatch, room=0, queue_bytes=100_000)
    fragment_size = 4
    payload = b"\x82\x7e\x82\x7e" * (17 * 1024 // 4)
    setup.channel._try_queue(encode(Opcode.BINARY, payload, fragment_size=fragment_size))
    for cut in range(200):
        setup.channel._flush()
        held = len(setup.transport.held)
        assert held <= 2 + fragment_size
        assert (len(setup.transport.wire) + held) % (2 + fragment_size) == 0
        setup.transport.take(held + cut % 7)
    assert setup.whole() == [(Opcode.BINARY, payload)]


def test_queue_is_bounded_while_a_frame_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = Direct(monkeypatch, room=1)
    assert setup.channel._try_queue(message("cut"))
    setup.channel._flush()
    assert setup.channel._paused
    assert [setup.channel._try_queue(message(text)) for text in "abcdef"] == [True] * 4 + [False] * 2
    assert setup.channel.queued_messages == 4
    assert len(setup.transport.held) == len(message("cut").buffers[0]) - 1
    assert setup.whole() == [(Opcode.TEXT, text) for text in ("cut", *"abcd")]


@pytest.mark.parametrize("cut", [1, 4, 9, 10, 11, 30_000, 60_000])
def test_discard_keeps_a_cut_frame_and_the_close_frame(monkeypatch: pytest.MonkeyPatch, cut: int) -> None:
    setup = Direct(monkeypatch, room=cut, queue_bytes=10_000_000)
    setup.channel._try_queue(encode(Opcode.BINARY, bytes(60_001)))
    setup.channel._try_queue(message("never"))
    setup.channel._flush()
    setup.channel._drop_output()
    assert (setup.channel.queued_messages, setup.channel.queued_bytes) == (0, 0)
    setup.channel._finish_output(CLOSE, setup.on_finished)
    setup.channel._write_last()
    assert setup.finished == 1
    assert setup.whole() == [(Opcode.BINARY, bytes(60_001)), (Opcode.CLOSE, (1000, ""))]


def test_nothing_leaves_after_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = Direct(monkeypatch, room=1)
    setup.channel._try_queue(message("cut"))
    setup.channel._flush()
    setup.channel._finish_output(CLOSE, setup.on_finished)
    setup.channel._drop_output()
    setup.channel._write_last()
    setup.channel._queue_pong(pong(b"late"))
    setup.channel._queue_ping(ping(b"late"))
    setup.channel._flush()
    assert setup.whole() == [(Opcode.TEXT, "cut"), (Opcode.CLOSE, (1000, ""))]


def test_transport_that_holds_bytes_gets_later_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = Direct(monkeypatch, room=1000)
    setup.transport.held += b"HTTP/1.1 101 ..."  # but does not ask to wait
    setup.channel._try_queue(message("a"))
    setup.channel._flush()
    assert setup.transport.sends == 0
    setup.transport.take(0)
    assert setup.transport.wire == b"HTTP/1.1 101 ..." + b"".join(message("a").buffers)


def test_closing_transport_gets_no_direct_write(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = Direct(monkeypatch, room=1000)
    setup.transport.closing = True
    setup.channel._try_queue(message("a"))
    setup.channel._flush()
    setup.channel._detach()
    setup.channel._try_queue(message("b"))
    setup.channel._queue_ping(ping(b"p"))
    setup.channel._kick_output(at_once=True)
    setup.channel._output_drained()
    setup.channel._resume_output()
    setup.state.end_of_tick()
    assert setup.transport.sends == 0
    assert setup.transport.wire == b""


def test_pongs_collapse_only_while_the_socket_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = Direct(monkeypatch, room=3)
    for index in range(3):
        setup.channel._queue_pong(pong(bytes([index])))
    setup.channel._flush()  # one is gone, the second is cut at its beginning, the third waits
    for index in range(3, 100):
        setup.channel._queue_pong(pong(bytes([index])))
    assert [payload[0] for _, payload in setup.whole()] == [0, 1, 99]
    setup.channel._queue_pong(pong(b"a"))
    setup.channel._queue_pong(pong(b"b"))
    setup.channel._flush()
    assert [payload for _, payload in setup.transport.events()][3:] == [b"a", b"b"]


# --- direct or not --------------------------------------------------------------------------------


class Scrambling(asyncio.Transport):
    """A transport above another one, which changes each byte and shows the socket below."""

    def __init__(self, below: asyncio.Transport) -> None:
        super().__init__()
        self.below = below

    def write(self, data: Any) -> None:
        self.below.write(bytes(byte ^ 0x80 for byte in bytes(data)))

    def writelines(self, buffers: Any) -> None:
        self.write(b"".join(buffers))

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.below.get_extra_info(name, default)

    def get_write_buffer_size(self) -> int:
        return self.below.get_write_buffer_size()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.below.set_write_buffer_limits(high=high, low=low)

    def is_closing(self) -> bool:
        return self.below.is_closing()

    def close(self) -> None:
        self.below.close()

    def abort(self) -> None:
        self.below.abort()


class Counting(selector_events._SelectorSocketTransport):  # type: ignore[misc,name-defined]
    """A transport of a loop that wants to see each byte."""

    counted = 0

    def write(self, data: Any) -> None:
        self.counted += len(data)
        super().write(data)


class Above(asyncio.Protocol):
    """The protocol of the transport below: ``conn`` gets what ``make`` makes of that."""

    def __init__(self, conn: plumews.Conn, make: Callable[[asyncio.Transport], asyncio.Transport]) -> None:
        self.conn = conn
        self.make = make

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.conn.connection_made(self.make(transport))  # type: ignore[arg-type]
        opened(self.conn)

    def connection_lost(self, exc: Exception | None) -> None:
        self.conn.connection_lost(exc)

    def pause_writing(self) -> None:
        self.conn.pause_writing()

    def resume_writing(self) -> None:
        self.conn.resume_writing()


def new_conn() -> plumews.Conn:
    return plumews.Conn(plumews.ConnConfig(ping_interval=None))


def pair(kind: str) -> tuple[socket.socket, socket.socket]:
    """Two ends of a connection; both do not block."""
    if kind == "unix":
        ours, theirs = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            theirs = socket.create_connection(listening.getsockname())
            ours, _ = listening.accept()
    ours.setblocking(False)
    theirs.setblocking(False)
    return ours, theirs


@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_wrapped_transport_gets_every_byte(kind: str) -> None:
    loop = asyncio.get_running_loop()
    conn = new_conn()
    ours, theirs = pair(kind)
    await loop.connect_accepted_socket(lambda: Above(conn, Scrambling), ours)
    with theirs:
        conn.send_nowait("secret")
        conn.send_nowait("more")  # which leaves at the end of the tick
        got = await loop.sock_recv(theirs, 1024)
        while len(got) < 14:
            got += await loop.sock_recv(theirs, 1024)
        assert bytes(byte ^ 0x80 for byte in got) == b"\x81\x06secret\x81\x04more"
        conn.abort()
        await conn.wait_closed()


def test_subclass_of_asyncios_transport_gets_every_byte() -> None:
    async def send() -> tuple[int, bytes]:
        loop = asyncio.get_running_loop()
        conn = new_conn()
        ours, theirs = pair("tcp")
        with theirs:
            transport = Counting(loop, ours, conn)
            await ticks()
            opened(conn)
            conn.send_nowait("hello")
            got = await loop.sock_recv(theirs, 1024)
            conn.abort()
            await conn.wait_closed()
            return transport.counted, got

    loop = asyncio.SelectorEventLoop()  # uvloop has transports of its own alone
    try:
        assert loop.run_until_complete(send()) == (7, b"\x81\x05hello")
    finally:
        loop.close()


@pytest.mark.parametrize("before", [False, True], ids=["from the start", "after it was plain"])
async def test_connection_that_becomes_tls_sends_nothing_in_clear(before: bool) -> None:
    loop = asyncio.get_running_loop()
    server_tls, client_tls = tls_contexts()
    conn = new_conn()
    ours, theirs = pair("tcp")

    def protocol() -> asyncio.BaseProtocol:
        return conn if before else asyncio.Protocol()

    plain, _ = await loop.connect_accepted_socket(protocol, ours)
    starting = started(loop.start_tls(plain, conn, server_tls, server_side=True))  # type: ignore[arg-type]
    reader, writer = await asyncio.open_connection(sock=theirs, ssl=client_tls, server_hostname="localhost")
    encrypted = await starting
    assert encrypted is not None
    conn.connection_made(encrypted)
    opened(conn)
    conn.send_nowait("secret")
    assert await reader.readexactly(8) == b"\x81\x06secret"
    conn.abort()
    await conn.wait_closed()
    writer.transport.abort()


@pytest.mark.skipif(not sendmsg.DIRECT, reason="sockets are no file descriptors here")
@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_plain_transport_of_the_loop_lends_its_descriptor(kind: str) -> None:
    ours, theirs = pair(kind)
    with theirs:
        transport, _ = await asyncio.get_running_loop().connect_accepted_socket(asyncio.Protocol, ours)
        assert sendmsg.descriptor(transport) == transport.get_extra_info("socket").fileno()  # type: ignore[arg-type]
        assert sendmsg.descriptor(Scrambling(transport)) == -1  # type: ignore[arg-type]
        transport.abort()
