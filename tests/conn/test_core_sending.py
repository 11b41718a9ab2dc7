"""Messages sent within a read: in order, whole, and at once where nothing else is sent."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

import plumews
from plumews import Opcode, limits
from plumews.conn.receiver import deliver_to
from plumews.constants import State
from plumews.protocol.codec import Parser
from plumews.protocol.message import encode
from plumews.transport.loop_context import loop_context
from support.fakes import SocketTransport, echo, echo_by_callback, failing, failures, fake_conn, feed, ticks
from support.raw_client import Wire, masked, text

KiB = 1024


def contents(size: int) -> bytes:
    return bytes(range(251)) * (size // 251) + bytes(size % 251)


def words(size: int) -> str:
    """Return text of ``size`` bytes with characters of each length across every border."""
    return ("aé€\U0001f600" * (size // 10 + 1)).encode()[:size].decode(errors="ignore")


# --- to a slow reader --------------------------------------------------------------------------------------


@pytest.mark.parametrize("fragment", [1000, 20 * KiB, 64 * KiB])
@pytest.mark.parametrize("form", ["callback", "handler"])
async def test_large_replies_to_a_slow_reader_leave_whole(start: Any, form: str, fragment: int) -> None:
    sizes = [1, 16 * KiB, 16 * KiB + 1, 20 * KiB, 64 * KiB, 64 * KiB + 1, 300 * KiB, 5, 1024 * KiB, 900 * KiB]
    messages: list[str | bytes] = []
    for size in sizes:
        messages += [contents(size), "a" * size, words(size)]
    options = {"fragment_size": fragment, "queue_bytes": 64 * 1024 * KiB, "queue_size": 1000}
    if form == "callback":

        def on_message(conn: plumews.Conn, message: str | bytes) -> None:
            conn.send_nowait(message)

        server = await start(plumews.serve(on_message=on_message, host="127.0.0.1", port=0, **options))
    else:
        server = await start(plumews.serve(echo, "127.0.0.1", 0, **options))
    async with await Wire.open(server, rcvbuf=16 * KiB) as wire:
        expected = b""
        for message in messages:
            kind, data = (Opcode.TEXT, message.encode()) if isinstance(message, str) else (Opcode.BINARY, message)
            wire.send(masked(kind, data))
            expected += b"".join(encode(kind, data, fragment_size=fragment).buffers)
        assert await wire.reader.readexactly(len(expected)) == expected


async def test_reply_between_short_ones_keeps_its_place(start: Any) -> None:
    def on_message(conn: plumews.Conn, message: str | bytes) -> None:
        for reply in ("before", message, "between", message, "behind"):
            conn.send_nowait(reply)

    server = await start(plumews.serve(on_message=on_message, host="127.0.0.1", port=0))
    async with await Wire.open(server) as wire:
        for size in (1, 20 * KiB, 300 * KiB):
            wire.send(masked(Opcode.BINARY, contents(size)))
            answers = [await wire.message() for _ in range(5)]
            assert answers == ["before", contents(size), "between", contents(size), "behind"]


@pytest.mark.parametrize("form", ["callback", "handler"])
async def test_messages_of_one_long_read_are_answered_in_order(start: Any, form: str) -> None:
    sizes = [1, 70 * KiB, 3, 70 * KiB, 20 * KiB, 20 * KiB, 7, 30 * KiB, 8]

    def on_message(conn: plumews.Conn, message: str | bytes) -> None:
        conn.send_nowait(message if len(message) < 10 else str(len(message)))

    async def handler(conn: plumews.Conn) -> None:
        async for message in conn:
            await conn.send(message if len(message) < 10 else str(len(message)))

    if form == "callback":
        server = await start(plumews.serve(on_message=on_message, host="127.0.0.1", port=0))
    else:
        server = await start(plumews.serve(handler, "127.0.0.1", 0))
    async with await Wire.open(server) as wire:
        for _ in range(3):
            wire.send(*(masked(Opcode.BINARY, contents(size)) for size in sizes), masked(Opcode.PING, b"end"))
            got = [await wire.event() for _ in range(len(sizes) + 1)]
            answers = [payload for kind, payload in got if kind != Opcode.PONG]
            assert answers == [contents(size) if size < 10 else str(size) for size in sizes]


async def test_many_replies_to_one_read_leave_whole(start: Any) -> None:
    def on_message(conn: plumews.Conn, message: str | bytes) -> None:
        for number in range(100):
            conn.send_nowait(f"{number} " + "x" * 4 * KiB)

    server = await start(
        plumews.serve(on_message=on_message, host="127.0.0.1", port=0, queue_bytes=64 * 1024 * KiB, queue_size=1000)
    )
    async with await Wire.open(server, rcvbuf=16 * KiB) as wire:
        wire.send(text("a"), text("b"))
        for _ in range(2):
            answers = [await wire.message() for _ in range(100)]
            assert answers == [f"{number} " + "x" * 4 * KiB for number in range(100)]


# --- failures ---


async def test_interrupted_write_ends_the_read() -> None:
    conn, transport = fake_conn(failing(("write",), KeyboardInterrupt()))  # type: ignore[arg-type]
    other, other_transport = fake_conn()
    echo_by_callback(conn)
    transport.broken = True  # type: ignore[attr-defined]
    with failures(), pytest.raises(KeyboardInterrupt):
        feed(conn, text("a"), text("b"))
    assert not loop_context(asyncio.get_running_loop()).in_batch
    other.send_nowait("at once")
    assert other_transport.events() == [(Opcode.TEXT, "at once")]
    other.abort()
    await ticks()


@pytest.mark.parametrize("failing_allocation", range(1, 9))
async def test_no_frame_follows_a_part_of_one(failing_allocation: int) -> None:
    _testcapi = pytest.importorskip("_testcapi")
    conn, transport = fake_conn(SocketTransport, ping_interval=None)
    assert isinstance(transport, SocketTransport)
    answer = "x" * 4080

    def respond(message: str | bytes) -> None:
        if message == "later":
            conn.send_nowait(message)
            return
        with contextlib.suppress(MemoryError):
            try:
                _testcapi.set_nomemory(failing_allocation, failing_allocation + 1)
                conn.send_nowait(answer)
            finally:
                _testcapi.remove_mem_hooks()

    conn.send_nowait("first")
    assert transport.events() == [(Opcode.TEXT, "first")]
    transport.writes.clear()
    with contextlib.suppress(BlockingIOError):
        while True:
            transport.socket.send(bytes(100))
    transport.peer.recv(100)  # there is room for a part of the answer
    deliver_to(conn, lambda conn, message: respond(message), lambda conn, exc: None)
    with failures():
        feed(conn, text("now"))
        feed(conn, text("later"))
        transport.drain()
        await ticks()
    wire = transport.wire
    parser = Parser(client=True, max_size=None)
    events = parser.feed(wire[wire.index(b"\x81") :] if b"\x81" in wire else b"")
    assert parser.error is None
    if conn.state is State.OPEN:
        assert [payload for _, payload in events] in ([answer, "later"], ["later"])
    else:
        assert [payload for _, payload in events] in ([answer], [])
    conn.abort()
    await ticks()
    transport.close_socket()


# --- the time of a write --------------------------------------------------------------------------


async def test_send_behind_an_answered_read_leaves_at_once() -> None:
    conn, transport = fake_conn(SocketTransport)
    assert isinstance(transport, SocketTransport)
    echo_by_callback(conn)
    conn.send_nowait("1")
    feed(conn, text("2"))
    conn.send_nowait("3")
    assert transport.events() == [(Opcode.TEXT, "1"), (Opcode.TEXT, "2"), (Opcode.TEXT, "3")]
    conn.abort()
    transport.close_socket()


# --- to a transport without a socket ------------------------------------------------------------


async def test_replies_to_one_read_are_one_write_to_tls() -> None:
    conn, transport = fake_conn()  # without a socket, as one with TLS
    echo_by_callback(conn)
    feed(conn, text("1"), text("2"), text("3"))
    feed(conn, text("4"))
    assert len(transport.writes) == 2
    assert transport.events() == [(Opcode.TEXT, str(number)) for number in range(1, 5)]
    assert conn._written == len(transport.wire)
    conn.abort()


async def test_reply_to_a_closing_transport_is_not_written() -> None:
    conn, transport = fake_conn()
    echo_by_callback(conn)
    transport.closing = True
    feed(conn, text("1"))
    assert (transport.writes, conn.state) == ([], State.OPEN)
    conn.abort()


async def test_failing_write_of_a_reply_ends_the_connection() -> None:
    conn, transport = fake_conn(failing(("write",), OSError("no route")))
    echo_by_callback(conn)
    transport.broken = True  # type: ignore[attr-defined]
    feed(conn, text("1"))
    await ticks()
    assert transport.aborted
    assert not transport.writes


async def test_replies_behind_a_full_transport_wait_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FAN_OUT_SLICE", 60.0)  # one time slice, even on a busy machine
    conn, transport = fake_conn()
    echo_by_callback(conn)
    transport.full_after = 1
    feed(conn, text("1"), text("2"))
    feed(conn, text("3"))
    assert len(transport.events()) == 2
    transport.drain()
    await ticks()
    assert transport.events() == [(Opcode.TEXT, str(number)) for number in range(1, 4)]
    conn.abort()
