"""Beginning of a connection: the bytes of the opening handshake, the addresses, and transports that fail at once."""

from __future__ import annotations

import asyncio
from typing import Any

import plumews
from plumews import State
from plumews.conn.opening import opened, use_deflate
from plumews.deflate.config import Agreement
from support.fakes import GONE, PATIENCE, FakeTransport, failing, failures, feed, linked, ticks
from support.raw_client import Wire, text


class Handshake:
    """Opening handshake that notes its calls."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def connected(self) -> None:
        self.calls.append("connected")

    def received(self, data: bytes) -> None:
        self.calls.append(data)

    def lost(self) -> None:
        self.calls.append("lost")


def connecting(make: type[FakeTransport] = FakeTransport, **config: Any) -> tuple[plumews.Conn, FakeTransport, Any]:
    """Return a connection that is not open, its transport and its opening handshake."""
    conn = plumews.Conn(plumews.ConnConfig(**config))
    conn._handshake = handshake = Handshake()
    return conn, make(conn), handshake


async def test_bytes_before_the_opening_go_to_the_handshake() -> None:
    conn, transport, handshake = connecting()
    conn.connection_made(transport)  # type: ignore[arg-type]
    feed(conn, b"GET ")
    opened(conn)
    feed(conn, text("hello"))
    assert handshake.calls == ["connected", b"GET "]
    assert (conn.state, await conn.recv()) == (State.OPEN, "hello")
    conn.abort()


async def test_handshake_is_told_of_the_end_before_the_opening() -> None:
    conn, transport, handshake = connecting()
    conn.connection_made(transport)  # type: ignore[arg-type]
    conn.connection_lost(None)
    assert handshake.calls == ["connected", "lost"]
    assert conn.state is State.CLOSED


async def test_connection_knows_the_addresses_of_its_socket() -> None:
    conn, transport, _ = connecting()
    conn.connection_made(transport)  # type: ignore[arg-type]
    assert (conn.remote_address, conn.local_address) == (("192.0.2.1", 4711), ("192.0.2.2", 80))
    conn.abort()


async def test_transport_that_fails_at_once_is_no_news() -> None:
    broken = failing(("get_extra_info",), GONE)
    conn, transport, _ = connecting(broken)
    transport.broken = True  # type: ignore[attr-defined]
    with failures() as told:
        conn.connection_made(transport)  # type: ignore[arg-type]
        await ticks()
    assert (transport.aborted, told) == (True, [])
    assert conn.state is State.CLOSED


async def test_takeover_makes_the_channel_compress() -> None:
    for takeover in (False, True):
        conn, transport, _ = connecting(compression="deflate")
        conn.connection_made(transport)  # type: ignore[arg-type]
        use_deflate(conn, Agreement(15, 15, takeover, False, ""))
        opened(conn)
        assert (conn._compressor is conn._deflate) is takeover
        assert (conn._shared is None) is takeover
        conn.abort()
        await asyncio.sleep(0)


async def test_accepted_connection_keeps_its_addresses(start: Any) -> None:
    """That of the peer comes with the accept, the local one from the descriptor or from the transport."""
    for tls in (False, True):
        async with linked(start, tls=tls) as (conn, wire):
            peer, local = conn.remote_address, conn.local_address
            assert peer == wire.writer.get_extra_info("sockname")
            assert local == wire.writer.get_extra_info("peername")
            assert (conn.get_extra_info("peername"), conn.get_extra_info("sockname")) == (peer, local)
            wire.writer.transport.abort()
            await asyncio.wait_for(conn.wait_closed(), PATIENCE)
            assert (conn.remote_address, conn.local_address) == (peer, local)


async def test_local_address_is_that_of_each_socket(start: Any) -> None:
    async def handler(conn: plumews.Conn) -> None:
        await conn.send(repr(conn.local_address))
        await conn.wait_closed()

    servers = [await start(plumews.serve(handler, "127.0.0.1", 0)) for _ in range(2)]
    for server in (*servers, *servers):
        async with await Wire.open(server) as wire:
            assert await wire.message() == repr(wire.writer.get_extra_info("peername"))
