"""Transports that fail, and peers that are gone while the socket accepts bytes again."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

import pytest

import plumews
from plumews import ConnectionClosed, State, limits
from plumews.transport import sendmsg as wire_module
from support.fakes import (
    CALLS,
    GONE,
    FakeTransport,
    clog,
    failing,
    failures,
    fake_conn,
    feed,
    ticks,
    until,
)
from support.raw_client import Wire, close, masked, text, upgrade

KiB = 1024


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Handle each read in one time slice, even on a busy machine."""
    monkeypatch.setattr(limits, "FAN_OUT_SLICE", 60.0)


# --- asyncio's transports -------------------------------------------------------------------------


async def test_peer_gone_when_writing_resumes_is_reported_once(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # Then it is the next write that fails, and from within resume_writing() asyncio would report the loss twice.
    loop, conns, lost, told = asyncio.get_running_loop(), [], [], []
    loop.set_exception_handler(lambda loop, context: told.append(context))

    async def handler(conn: plumews.Conn) -> None:
        conns.append(conn)
        conn.add_close_callback(lambda conn: lost.append(conn))
        await conn.wait_closed()

    server = await start(plumews.serve(handler, "127.0.0.1", 0, max_queue=1))
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await loop.sock_connect(sock, server.sockets[0].getsockname())
    await loop.sock_sendall(sock, upgrade())
    await until(lambda: conns)
    sock.send(text("unread"))
    await until(lambda: conns[0]._reading_paused)  # or the reading would be the first to see that the peer is gone
    clog(conns[0])
    assert conns[0].queued_messages > 1

    def vanish(fd: int, buffers: list[Any]) -> int:
        if sock.fileno() >= 0:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01" + bytes(3) + bytes(4))
            sock.close()
        return send(fd, buffers)

    send = wire_module.send
    monkeypatch.setattr(wire_module, "send", vanish)

    def take() -> bool:
        with contextlib.suppress(BlockingIOError):
            while sock.fileno() >= 0:
                sock.recv(64 * KiB)
        return sock.fileno() < 0

    await until(take)
    await until(lambda: lost)
    await ticks()
    loop.set_exception_handler(None)
    assert lost == conns
    assert told == []


async def test_close_answered_when_writing_resumes_is_reported_once(start: Any) -> None:
    # From within resume_writing() asyncio would report the loss twice, and say so to the loop's exception handler.
    full, told = asyncio.Event(), []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))

    async def handler(conn: plumews.Conn) -> None:
        with contextlib.suppress(plumews.SendTimeout):
            while True:
                await conn.send(b"x" * 50_000)
        full.set()
        async for _ in conn:
            pass

    server = await start(plumews.serve(handler, "127.0.0.1", 0, send_timeout=0.01))
    async with await Wire.open(server, limit=1024) as wire:  # which the kernel reads for, in large pieces
        await full.wait()
        wire.send(close(1000))
        assert await wire.closing() == (1000, "")
        await wire.eof()
    server.close()
    await server.wait_closed()
    asyncio.get_running_loop().set_exception_handler(None)
    assert told == []


# --- transports that fail -------------------------------------------------------------------------


async def use_all(conn: plumews.Conn, transport: FakeTransport) -> None:
    """Use a connection in all ways, and end it by a violation of the peer."""
    with contextlib.suppress(ConnectionClosed):
        conn.send_nowait("a")
        conn.send_nowait("b")
        await ticks()
        await conn.ping()
        feed(conn, *[text("x")] * 4)
        for _ in range(4):
            await conn.recv()
        await conn.drain()
    if conn._transport is not None:
        feed(conn, text("last"), masked(3))
    with contextlib.suppress(ConnectionClosed):
        while True:
            await conn.recv()


@pytest.mark.parametrize(
    "exc", [GONE, RuntimeError("the handler is closed"), ValueError("?")], ids=lambda e: type(e).__name__
)
@pytest.mark.parametrize("calls", [*((call,) for call in CALLS), CALLS], ids=lambda calls: "+".join(calls)[:30])
async def test_failing_transport_ends_its_connection_quietly(calls: tuple[str, ...], exc: Exception) -> None:
    with failures() as told:
        for end in ("fault", "close_nowait", "abort", "eof", "none"):
            conn, transport = fake_conn(failing(calls, exc), max_queue=2, close_timeout=0.05)
            transport.broken = True  # type: ignore[attr-defined]
            await use_all(conn, transport)
            if end == "close_nowait":
                conn.close_nowait()
            elif end == "abort":
                conn.abort()
            elif end == "eof":
                conn.eof_received()
            await asyncio.wait_for(conn.close(), 5)
            assert conn.state is State.CLOSED
            with pytest.raises(ConnectionClosed):
                await conn.send("late")
        if exc is GONE:
            assert told == []
        assert {context["message"] for context in told} <= {"a transport failed"}


async def test_transport_that_fails_at_once_is_a_lost_connection() -> None:
    for calls in CALLS, ("get_extra_info",), ("set_write_buffer_limits",):
        conn = plumews.Conn(plumews.ConnConfig())
        transport = failing(calls, GONE)(conn)
        transport.broken = True  # type: ignore[attr-defined]
        conn.connection_made(transport)  # type: ignore[arg-type]
        await conn.wait_closed()
        assert conn.close_code == 1006
