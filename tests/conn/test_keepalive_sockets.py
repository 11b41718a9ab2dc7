"""Keepalive over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path
from typing import Any

import pytest
import websockets

import plumews
from plumews import ConnectionClosed, ConnectionClosedError, Opcode, State
from support.fakes import PATIENCE, linked, tls_contexts, until
from support.raw_client import SmallReads, masked, text

# --- real sockets ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tcp", "tls", "unix"])
async def test_a_steady_receiver_outlives_a_ping_behind_its_data(start: Any, tmp_path: Path, kind: str) -> None:
    total, pong_wait = 160, 0.2
    options: dict[str, Any] = {"ping_interval": pong_wait / 2, "ping_timeout": pong_wait / 2, "send_timeout": None}
    conns: list[plumews.Conn] = []
    client = None

    async def handler(conn: plumews.Conn) -> None:
        conns.append(conn)
        with contextlib.suppress(ConnectionClosed):
            for _ in range(total):
                await conn.send(bytes(4000))
        await conn.wait_closed()

    if kind == "unix":
        server = await start(plumews.unix_serve(handler, str(tmp_path / "socket"), **options))
    else:
        if kind == "tls":
            options["ssl"], client = tls_contexts()
        server = await start(plumews.serve(handler, "127.0.0.1", 0, **options))
    wire = await SmallReads.upgraded(server, client)
    async with wire:
        began = last = time.monotonic()
        silences, messages = [0.0], 0
        while messages < total:
            opcode, payload = await wire.event()
            if opcode == Opcode.PING:
                silences.append(time.monotonic() - last)
                last = time.monotonic()
                wire.send(masked(Opcode.PONG, payload))
            else:
                messages += 1
                # The pace of a slow reader, who makes up for a pause that the machine made.
                await asyncio.sleep(began + messages * 0.004 - time.monotonic())
        assert [conn.state for conn in conns] == [State.OPEN]
        assert max(*silences, time.monotonic() - last) > pong_wait  # longer than it would live without


async def test_a_close_frame_behind_a_long_queue_is_not_cut_off(start: Any) -> None:
    async def handler(conn: plumews.Conn) -> None:
        for _ in range(300):  # more than the kernel takes
            await conn.send(bytes(16_000))
        conn.close_nowait(1000, "all said")
        await conn.wait_closed()

    server = await start(
        plumews.serve(handler, "127.0.0.1", 0, ping_interval=0.1, ping_timeout=0.1, queue_size=300, queue_bytes=10**7)
    )
    async with await SmallReads.upgraded(server) as wire:
        opcode, payload = await wire.event()
        while opcode != Opcode.CLOSE:
            await asyncio.sleep(0.004)  # the pace of a slow reader
            opcode, payload = await wire.event()
        assert payload == (1000, "all said")


async def test_unread_peer_ends_though_the_kernel_accepts_bytes(start: Any) -> None:
    async with linked(start, rcvbuf=8192, ping_interval=0.05, ping_timeout=0.05, send_timeout=None) as (conn, _):
        began = time.monotonic()
        while not conn.closed:
            with contextlib.suppress(ConnectionClosed):
                await conn.send(bytes(100))
            await asyncio.sleep(0.001)  # the pace of the sender
        await conn.wait_closed()
        assert conn.close_code == 1006
        assert time.monotonic() - began < PATIENCE / 2


async def test_peer_that_answers_pings_stays_connected(start: Any) -> None:
    async with linked(start, ping_interval=0.02, ping_timeout=0.23) as (conn, wire):
        opened = conn.last_pong
        for _ in range(20):  # longer than it would live without
            kind, payload = await wire.event()
            assert kind == Opcode.PING
            wire.send(masked(Opcode.PONG, payload))
        await until(lambda: conn.latency > 0)
        assert conn.last_pong > opened
        assert not conn.closed


async def test_a_peer_that_falls_silent_is_cut_off(start: Any) -> None:
    async with linked(start, ping_interval=0.05, ping_timeout=0.05) as (conn, wire):
        began = asyncio.get_running_loop().time()
        await conn.wait_closed()
        assert 0.09 < asyncio.get_running_loop().time() - began < PATIENCE
        assert conn.close_code == 1006
        assert await wire.closing() == (1011, "keepalive ping timeout")
        await wire.eof()


async def test_row_31_stalled_loop_keeps_its_peer(start: Any) -> None:
    async with linked(start, ping_interval=0.05, ping_timeout=0.05) as (conn, wire):
        for _ in range(3):
            time.sleep(0.2)  # the loop stands still, twice as long as a silent peer lives
            kind, payload = await wire.event()
            assert kind == Opcode.PING
            wire.send(masked(Opcode.PONG, payload))
            await until(lambda: not conn._keepalive._outstanding)
        assert not conn.closed


async def test_row_31_unread_bytes_after_a_stall_save_the_peer(start: Any) -> None:
    async with linked(start, ping_interval=None) as (conn, wire):
        conn.pong_wait = 0.05
        for _ in range(3):
            wire.send(text("still here"))
            time.sleep(0.15)  # the loop stands still, three times as long as a silent peer lives
            assert await conn.recv() == "still here"
        assert not conn.closed


async def test_handler_that_does_not_read_ends_no_peer(start: Any) -> None:
    """The keepalive ends no peer while reading is paused."""
    async with linked(start, ping_interval=0.02, ping_timeout=0.02, max_queue=4) as (conn, wire):
        wire.send(*[text(str(index)) for index in range(8)])
        await until(lambda: conn._reading_paused)
        pings = 0
        while pings < 6:  # nobody answers them
            kind, _ = await wire.event()
            pings += kind == Opcode.PING
        assert not conn.closed
        assert [await conn.recv() for _ in range(8)] == [str(index) for index in range(8)]


async def test_pongs_are_seen_while_the_handler_is_busy(start: Any) -> None:
    async with linked(start, ping_interval=0.02, ping_timeout=0.23) as (conn, wire):
        opened = conn.last_pong
        for _ in range(20):  # longer than it would live without; the handler never reads
            kind, payload = await wire.event()
            assert kind == Opcode.PING
            wire.send(masked(Opcode.PONG, payload))
        assert not conn.closed
        assert conn.last_pong > opened


async def test_new_times_of_a_connection_are_effective_at_once(start: Any) -> None:
    async with linked(start) as (conn, wire):
        conn.ping_period = 0.01
        assert (await wire.event())[0] == Opcode.PING
        with pytest.raises(ValueError, match="ping_period"):
            conn.pong_wait = 0.005
        assert conn.pong_wait == 30
        conn.pong_wait = 0.05
        await conn.wait_closed()
        assert conn.close_code == 1006


class FreezingProxy:
    """Proxy that can freeze, like a network that drops every packet."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._writers: list[asyncio.StreamWriter] = []
        self._pumps: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> FreezingProxy:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers += [writer, server_writer]
        for source, target in ((reader, server_writer), (server_reader, writer)):
            self._pumps.append(asyncio.create_task(self._pump(source, target)))

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(4096):
            target.write(data)

    async def freeze(self) -> None:
        for pump in self._pumps:
            pump.cancel()
        await asyncio.wait(self._pumps)

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        for writer in self._writers:
            writer.close()


async def test_row_31_peer_behind_a_dead_network_ends_in_time(
    start: Any,
) -> None:
    interval, pong_wait = 0.2, 0.4
    ends: list[tuple[float, int | None]] = []
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def handler(conn: plumews.Conn) -> None:
        try:
            async for message in conn:
                await conn.send(message)
        except ConnectionClosedError:
            ends.append((loop.time(), conn.close_code))
            ended.set()

    server = await start(
        plumews.serve(handler, "127.0.0.1", 0, ping_interval=interval, ping_timeout=pong_wait - interval)
    )
    async with (
        FreezingProxy(server.port) as proxy,
        websockets.connect(f"ws://127.0.0.1:{proxy.port}/", ping_interval=None, proxy=None, close_timeout=0) as frozen,
        websockets.connect(f"ws://127.0.0.1:{server.port}/", ping_interval=None, proxy=None) as healthy,
    ):
        await frozen.send("through the proxy")
        assert await frozen.recv() == "through the proxy"
        await proxy.freeze()
        frozen_at = loop.time()
        await frozen.send("lost")
        await asyncio.wait_for(ended.wait(), PATIENCE)
        ((at, code),) = ends
        assert code == 1006
        assert pong_wait - interval < at - frozen_at < PATIENCE
        assert len(server.connections) == 1
        await healthy.send("alive")
        assert await healthy.recv() == "alive"
        frozen.transport.abort()
