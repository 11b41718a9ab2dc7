"""Closing handshake, violations and backpressure over TLS."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from typing import Any

import pytest

import plumews
from plumews import ConnectionClosedError, Opcode, limits
from support.fakes import (
    PATIENCE,
    clog,
    echo_by_iteration,
    linked,
    started,
    ticks,
    tls_contexts,
    until,
)
from support.raw_client import Wire, close, masked, text, upgrade

KiB = 1024


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Handle each read in one time slice, even on a busy machine."""
    monkeypatch.setattr(limits, "FAN_OUT_SLICE", 60.0)


# --- over TLS -------------------------------------------------------------------------------------


async def test_tls_closing_handshake_from_both_sides(start: Any) -> None:
    async with linked(start, tls=True) as (conn, wire):
        wire.send(text("one"), text("two"), close(4000, "theirs"))
        await until(lambda: conn.close_code)
        await conn.send(await conn.recv())
        await conn.send(await conn.recv())
        with pytest.raises(ConnectionClosedError, match="theirs"):
            await conn.recv()
        assert [await wire.message(), await wire.message()] == ["one", "two"]
        assert await wire.closing() == (4000, "")
        await wire.eof()
        await conn.wait_closed()
    async with linked(start, tls=True) as (conn, wire):
        closing = started(conn.close(4001, "ours"))
        assert await wire.closing() == (4001, "ours")
        wire.send(close(4001))
        await closing


async def test_tls_violation_gets_a_close_frame(start: Any) -> None:
    async with linked(start, tls=True, max_size=1000) as (conn, wire):
        wire.send(text("x" * 1001))
        assert (await wire.closing())[0] == 1009
        await wire.eof()
        await conn.wait_closed()


@pytest.mark.parametrize("how", ["end", "reset", "our abort"])
async def test_tls_lost_connection_raises_for_a_cut_message(start: Any, how: str) -> None:
    async with linked(start, tls=True) as (conn, wire):
        wire.send(text("whole"), masked(Opcode.BINARY, b"part", fin=False))
        assert await conn.recv() == "whole"
        await until(lambda: conn._rules.parser.mid_message)
        if how == "end":
            wire.writer.close()
        elif how == "reset":
            wire.writer.transport.abort()
        else:
            conn.abort()
        with pytest.raises(ConnectionClosedError, match="a message was cut"):
            await conn.recv()
        await conn.wait_closed()
        assert conn.close_code == 1006


@pytest.mark.parametrize("who", ["we", "the peer", "a fault", "abort"])
async def test_row_32_tls_a_peer_that_does_not_read_is_cut_off_in_time(start: Any, who: str) -> None:
    async with linked(start, tls=True, rcvbuf=4096, close_timeout=0.15) as (conn, wire):
        clog(conn)
        if who == "we":
            conn.close_nowait()
        elif who == "the peer":
            wire.send(close(1000))
        elif who == "a fault":
            wire.send(b"\xff\xff")
        else:
            conn.abort()
        await asyncio.wait_for(conn.wait_closed(), PATIENCE)


async def test_tls_queue_of_a_slow_peer_is_bounded_and_arrives(start: Any) -> None:
    async with linked(start, tls=True, rcvbuf=4096, send_timeout=None) as (conn, wire):
        clog(conn)
        while conn.queued_bytes < 990 * KiB:
            conn.send_nowait(bytes(32 * KiB))
        with pytest.raises(plumews.SendQueueFull):
            conn.send_nowait(bytes(64 * KiB))
        assert conn.queued_bytes <= 1024 * KiB
        sender = started(conn.send("the last"))
        closing = None
        received = 0
        while True:
            kind, payload = await wire.event()
            if kind == Opcode.CLOSE:
                break
            received += 1
            if payload == "the last":
                await sender
                closing = started(conn.close())
        assert received > 30
        wire.send(close(1000))
        assert closing is not None
        await closing


async def test_tls_backpressure_loses_nothing(start: Any) -> None:
    async with linked(start, tls=True, max_queue_bytes=100 * KiB) as (conn, wire):

        async def send() -> None:
            for index in range(200):
                wire.send(masked(Opcode.BINARY, index.to_bytes(2, "big") + bytes(50 * KiB)))
                await wire.writer.drain()

        sender = started(send())
        await until(lambda: conn._reading_paused)
        await ticks(20)
        assert conn._inbox.bytes < 1024 * KiB
        for index in range(200):
            message = await conn.recv(decode=False)
            assert message[:2] == index.to_bytes(2, "big")
        await sender


# --- close frames and responses over TLS ----------------------------------------------------------


def sends_on_and_reads(port: int, context: ssl.SSLContext, first: bytes, more: bytes) -> bytes:
    """Return the bytes that a TLS client reads after it has gone on sending for a while."""
    got = b""
    with (
        socket.create_connection(("localhost", port)) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as client,
    ):
        client.sendall(first)
        with contextlib.suppress(OSError):
            for _ in range(20):
                client.sendall(more)
                time.sleep(0.01)  # the pace of a client that keeps sending
            client.settimeout(PATIENCE)
            while data := client.recv(65536):
                got += data
    return got


@pytest.mark.parametrize("what", ["1009", "1002", "431"])
async def test_tls_peer_that_is_still_sending_reads_the_answer(
    start: Any, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plumews.conn.closing._FIN_WAIT", 0.5)
    server_tls, client_tls = tls_contexts()
    server = await start(plumews.serve(echo_by_iteration, "localhost", 0, ssl=server_tls, max_size=1000))
    first, said = {
        "1009": (upgrade() + masked(Opcode.BINARY, bytes(2000)), b"\x03\xf1"),
        "1002": (upgrade() + masked(3), b"\x03\xea"),
        "431": (b"GET / HTTP/1.1\r\nHost: localhost\r\n", b"HTTP/1.1 431 "),
    }[what]
    got = await asyncio.to_thread(sends_on_and_reads, server.port, client_tls, first, b"x: y\r\n" * 2000)
    assert said in got


async def test_tls_client_gets_its_response_without_delay(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plumews.conn.closing._FIN_WAIT", 60.0)
    server_tls, client_tls = tls_contexts()
    routes = {"/healthz": lambda request: plumews.Response.text(200, "ok")}
    server = await start(plumews.serve(echo_by_iteration, "localhost", 0, ssl=server_tls, routes=routes))
    for path, status in (("/healthz", 200), ("/", 426)):
        async with await Wire.connect(server, ssl=client_tls, server_hostname="localhost") as wire:
            request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
            assert (await asyncio.wait_for(wire.response(request), PATIENCE))[0] == status
