"""Memory, tasks and timers after the end of a connection."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import socket
import tracemalloc
import weakref
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

import plumews
from plumews import ConnectionClosed, ConnectionClosedError, ConnectionClosedOK, Opcode, limits
from plumews.conn.handlers import cancel
from plumews.conn.opening import use_deflate
from plumews.conn.receiver import start_streaming
from plumews.deflate.config import Agreement
from plumews.protocol.codec import build_frame
from support.compressed_messages import frame as squeezed_frame
from support.fakes import (
    clog,
    deadlines,
    echo_by_iteration,
    fake_conn,
    feed,
    linked,
    started,
    ticks,
    until,
)
from support.raw_client import Wire, close, masked, text

KiB = 1024


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Handle each read in one time slice, even on a busy machine."""
    monkeypatch.setattr(limits, "FAN_OUT_SLICE", 60.0)


# --- nothing remains ------------------------------------------------------------------------------


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Turn the garbage collector off."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def freed(gone: Callable[[], Any]) -> bool:
    """Return whether the object is freed within a second, without the garbage collector."""
    for _ in range(1000):
        if gone() is None:
            return True
        await asyncio.sleep(0.001)  # no event tells that an object is freed
    return False


def referrers(gone: Callable[[], Any]) -> str:
    """Return the types of the objects that refer to one that should be gone."""
    return ", ".join({type(referrer).__name__ for referrer in gc.get_referrers(gone())})


async def _closes(conn: plumews.Conn, wire: Wire) -> None:
    closing = started(conn.close())
    await wire.closing()
    wire.send(close(1000))
    await closing


async def _is_closed(conn: plumews.Conn, wire: Wire) -> None:
    wire.send(close(1000))
    with pytest.raises(ConnectionClosedOK):
        await conn.recv()
    await conn.wait_closed()


async def _aborts(conn: plumews.Conn, wire: Wire) -> None:
    conn.abort()
    await conn.wait_closed()


async def _is_reset(conn: plumews.Conn, wire: Wire) -> None:
    wire.reset()
    await conn.wait_closed()


async def _sees_the_end(conn: plumews.Conn, wire: Wire) -> None:
    wire.writer.write_eof()
    await conn.wait_closed()


async def _is_broken(conn: plumews.Conn, wire: Wire) -> None:
    wire.send(b"\xff\xff")
    await wire.closing()
    wire.writer.close()
    await conn.wait_closed()


async def _dies(conn: plumews.Conn, wire: Wire) -> None:
    conn.ping_period = 0.01
    conn.pong_wait = 0.02
    await conn.wait_closed()


async def _times_out(conn: plumews.Conn, wire: Wire) -> None:
    conn.close_nowait()
    await conn.wait_closed()


async def _is_cut_in_a_stream(conn: plumews.Conn, wire: Wire) -> None:
    wire.send(masked(Opcode.BINARY, b"part", fin=False))
    stream = await conn.read_stream()
    assert await stream.read() == b"part"
    wire.reset()
    with pytest.raises(ConnectionClosedError):
        await stream.read()
    await conn.wait_closed()


async def _leaves_a_stream_unread(conn: plumews.Conn, wire: Wire) -> None:
    wire.send(text("whole"), text("more"))
    await conn.read_stream()
    await _aborts(conn, wire)


async def _leaves_a_stream_in_the_queue(conn: plumews.Conn, wire: Wire) -> None:
    reader = started(conn.read_stream())
    await ticks()
    feed(conn, masked(Opcode.BINARY, b"part", fin=False))
    reader.cancel()  # before it can take it
    await ticks()
    wire.send(masked(Opcode.CONT, b"rest"), text("more"))
    await until(lambda: len(conn._inbox) == 2)
    await _aborts(conn, wire)


async def _closes_while_clogged(conn: plumews.Conn, wire: Wire) -> None:
    clog(conn)
    senders = [started(conn.send(bytes(10_000))) for _ in range(100)]
    await ticks()
    await conn.close()
    outcomes = await asyncio.gather(*senders, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} <= {type(None), ConnectionClosedError, plumews.SendTimeout}


async def _waits_for_a_pong(conn: plumews.Conn, wire: Wire) -> None:
    pong = await conn.ping()
    conn.abort()
    await conn.wait_closed()
    assert isinstance(pong, asyncio.Future)
    assert isinstance(pong.exception(), ConnectionClosed)


async def _cancels_everything(conn: plumews.Conn, wire: Wire) -> None:
    tasks = [started(conn.recv()), started(conn.wait_closed()), started(conn.close())]
    await ticks()
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    await conn.wait_closed()


WAYS = [
    _closes,
    _is_closed,
    _aborts,
    _is_reset,
    _sees_the_end,
    _is_broken,
    _dies,
    _times_out,
    _is_cut_in_a_stream,
    _leaves_a_stream_unread,
    _leaves_a_stream_in_the_queue,
    _closes_while_clogged,
    _waits_for_a_pong,
    _cancels_everything,
]


def name_of(way: Callable[..., Any]) -> str:
    return way.__name__.strip("_").replace("_", " ")


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("way", [_closes, _is_closed, _aborts, _is_reset, _times_out], ids=name_of)
async def test_row_28_tls_connection_is_freed_when_it_is_gone(
    start: Any, way: Callable[[plumews.Conn, Wire], Awaitable[None]]
) -> None:
    async with linked(start, tls=True, close_timeout=0.1) as (conn, wire):
        gone = weakref.ref(conn)
        await way(conn, wire)
        del conn
        await until(lambda: gone() is None)


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("way", WAYS, ids=name_of)
async def test_row_28_connection_is_freed_when_it_is_gone(
    start: Any, way: Callable[[plumews.Conn, Wire], Awaitable[None]]
) -> None:
    opened: list[plumews.Conn] = []

    async def handler(conn: plumews.Conn) -> None:
        opened.append(conn)
        await conn.wait_closed()

    server = await start(plumews.serve(handler, "127.0.0.1", 0, close_timeout=0.1))
    before = deadlines()
    tasks = len(asyncio.all_tasks())
    async with await Wire.open(server, rcvbuf=4096 if way is _closes_while_clogged else None) as wire:
        await until(lambda: opened)
        conn = opened.pop()
        gone = weakref.ref(conn)
        await way(conn, wire)
        del conn
        assert await freed(gone), referrers(gone)
    assert deadlines() == before
    assert len(asyncio.all_tasks()) == tasks


@pytest.mark.usefixtures("no_collector")
async def test_row_28_connection_is_freed_after_a_cancelled_handler(start: Any) -> None:
    async def receives(conn: plumews.Conn) -> None:
        await conn.recv()

    async def iterates(conn: plumews.Conn) -> None:
        async for _ in conn:
            pass

    async def streams(conn: plumews.Conn) -> None:
        async with await conn.read_stream() as stream:
            await stream.read_all()

    async def sends(conn: plumews.Conn) -> None:
        conn.pause_writing()
        while True:
            await conn.send(bytes(1000))

    async def pings(conn: plumews.Conn) -> None:
        await (await conn.ping())

    async def closes(conn: plumews.Conn) -> None:
        await conn.close()

    async def waits(conn: plumews.Conn) -> None:
        await conn.wait_closed()

    running: list[Any] = []

    async def handler(conn: plumews.Conn) -> None:
        running.append((asyncio.current_task(), weakref.ref(conn)))
        await work(conn)

    server = await start(plumews.serve(handler, "127.0.0.1", 0, send_timeout=None))
    before = deadlines()
    for work in (receives, iterates, streams, sends, pings, closes, waits):
        async with await Wire.open(server) as wire:
            if work is streams:
                wire.send(masked(Opcode.BINARY, b"part", fin=False))
            await until(lambda: running)
            await ticks(10)
            task, gone = running.pop()
            cancel(task)  # as a server that stops does
            with contextlib.suppress(asyncio.CancelledError):
                await task
            del task
            assert await freed(gone), work.__name__
            await wire.eof()
    assert deadlines() == before


@pytest.mark.usefixtures("no_collector")
async def test_row_28_a_connection_of_callbacks_is_freed(start: Any) -> None:
    gone: list[Any] = []
    server = await start(
        plumews.serve(
            host="127.0.0.1",
            port=0,
            on_open=lambda conn: gone.append(weakref.ref(conn)),
            on_message=lambda conn, message: conn.send_nowait(message),
            on_close=lambda conn: conn.metadata,
        )
    )
    for end in ("close", "eof", "reset"):
        async with await Wire.open(server) as wire:
            wire.send(text("echo"))
            assert await wire.message() == "echo"
            if end == "close":
                wire.send(close())
                await wire.closing()
            elif end == "eof":
                wire.writer.write_eof()
            else:
                wire.reset()
            await until(lambda: gone[-1]() is None)
    assert len(gone) == 3


async def test_an_open_connection_has_one_deadline(start: Any) -> None:
    before = deadlines()
    async with linked(start) as (conn, wire):
        assert deadlines() == before + 1
        for _ in range(10):
            wire.send(text("a"))
            await conn.recv()
            await conn.send("b")
            await wire.message()
        assert deadlines() == before + 1


async def test_an_idle_connection_without_keepalive_has_no_deadline(start: Any) -> None:
    before = deadlines()
    async with linked(start, ping_interval=None):
        assert deadlines() == before


async def test_no_end_of_a_connection_logs_a_warning(start: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    for way in (_closes, _is_closed, _aborts, _is_reset, _sees_the_end, _is_broken):
        async with linked(start) as (conn, wire):
            await way(conn, wire)
    assert caplog.records == []


async def test_a_unix_socket_has_the_same_ends(start: Any, tmp_path: Any) -> None:
    opened: asyncio.Future[plumews.Conn] = asyncio.get_running_loop().create_future()

    async def handler(conn: plumews.Conn) -> None:
        opened.set_result(conn)
        await echo_by_iteration(conn)

    server = await start(plumews.unix_serve(handler, str(tmp_path / "socket")))
    assert server.sockets[0].family == socket.AF_UNIX
    async with await Wire.open(server) as wire:
        conn = await opened
        wire.send(text("a"), close(1000))
        assert await wire.message() == "a"
        assert await wire.closing() == (1000, "")
        await conn.wait_closed()


# --- memory after the end -------------------------------------------------------------------------


PART = 3_000_000


def feed_in_reads(conn: plumews.Conn, data: bytes) -> None:
    """Feed data as a socket does: as much as fits the buffer of the connection."""
    while data and conn._transport is not None:
        room = conn.get_buffer(-1)
        size = min(len(room), len(data))
        room[:size] = data[:size]
        del room
        conn.buffer_updated(size)
        data = data[size:]


def compressed(conn: plumews.Conn, takeover: bool = False) -> None:
    use_deflate(conn, Agreement(15, 15, takeover, takeover, "permessage-deflate"))


def cut_frame(conn: plumews.Conn) -> bytes:
    return masked(Opcode.BINARY, bytes(PART + 1))[:-1]


def open_fragments(conn: plumews.Conn) -> bytes:
    return b"".join(masked(Opcode.CONT if n else Opcode.BINARY, bytes(PART // 10), fin=False) for n in range(10))


def open_text(conn: plumews.Conn) -> bytes:
    return masked(Opcode.TEXT, "é" * (PART // 2), fin=False)


def cut_compressed(conn: plumews.Conn) -> bytes:
    compressed(conn)
    return build_frame(Opcode.BINARY, os.urandom(PART), rsv1=True, mask_key=b"1234")[:-1]


def half_inflated(conn: plumews.Conn) -> bytes:
    compressed(conn)
    return squeezed_frame(Opcode.BINARY, bytes(PART), bits=15)


def window_of_the_peer(conn: plumews.Conn) -> bytes:
    compressed(conn, takeover=True)
    return squeezed_frame(Opcode.BINARY, os.urandom(1000), bits=15)


def not_wanted_in_pieces_any_more(conn: plumews.Conn) -> bytes:
    start_streaming(conn)
    return masked(Opcode.BINARY, bytes(PART + 1))[:-1]


@pytest.mark.parametrize("end", ["lost", "eof", "abort"])
@pytest.mark.parametrize(
    "arrive",
    [
        cut_frame,
        open_fragments,
        open_text,
        cut_compressed,
        half_inflated,
        window_of_the_peer,
        not_wanted_in_pieces_any_more,
    ],
)
async def test_lost_connection_holds_no_part_of_a_message(
    arrive: Callable[[plumews.Conn], bytes], end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "FAN_OUT_SLICE", 0.0)  # inflate one step at a time
    conn, transport = fake_conn(ping_interval=None, max_queue_bytes=4 * PART, compression="deflate")
    data = arrive(conn)
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        feed_in_reads(conn, data)
        await ticks(1)
        held = tracemalloc.get_traced_memory()[0] - before
        if end == "lost":
            conn.connection_lost(None)
        elif end == "eof":
            conn.eof_received()
            transport.close()
        else:
            conn.abort()
        await conn.wait_closed()
        with contextlib.suppress(ConnectionClosed):
            while True:
                await conn.recv()
        after = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert held > 8 * KiB
    assert after < 8 * KiB, (held, after)
    assert conn.closed
