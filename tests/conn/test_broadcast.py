"""``plumews.broadcast``: one message to many connections without a hub."""

from __future__ import annotations

import asyncio
import importlib
from typing import Any

import pytest

import plumews
from plumews.protocol.message import encode
from support.raw_client import Wire


class Crowd:
    """A server whose handler keeps its connections in a set, as programs for the websockets package do."""

    def __init__(self, **options: Any) -> None:
        self.connections: set[plumews.Conn] = set()
        self.serving = plumews.serve(self.handler, "127.0.0.1", 0, **options)

    async def handler(self, conn: plumews.Conn) -> None:
        self.connections.add(conn)
        await conn.send("welcome")
        await conn.wait_closed()

    async def join(self, server: plumews.Server, **options: Any) -> Wire:
        wire = await Wire.open(server, **options)
        assert await wire.message() == "welcome"
        return wire


async def test_broadcast_reaches_all_and_is_encoded_once(start, monkeypatch) -> None:
    crowd = Crowd()
    server = await start(crowd.serving)
    async with await crowd.join(server) as one, await crowd.join(server) as two:
        made = []
        module = importlib.import_module("plumews.conn.broadcast")
        monkeypatch.setattr(module, "encode", lambda *args, **how: made.append(encode(*args, **how)) or made[-1])
        plumews.broadcast(crowd.connections, "hello")
        assert len(made) == 1
        plumews.broadcast(crowd.connections, b"\x00")
        assert len(made) == 2
        for wire in (one, two):
            assert await wire.message() == "hello"
            assert await wire.message() == b"\x00"


async def test_broadcast_skips_closed_connections(start) -> None:
    crowd = Crowd()
    server = await start(crowd.serving)
    async with await crowd.join(server) as one, await crowd.join(server):
        (first, *_) = [conn for conn in crowd.connections if conn.remote_address == _address(one)]
        first.abort()
        await first.wait_closed()
        plumews.broadcast(crowd.connections, "hello")  # raises nothing


@pytest.mark.parametrize("behavior", [plumews.SendBehavior.DROP, plumews.SendBehavior.BLOCK])
async def test_broadcast_to_a_full_queue_is_dropped_and_counted(start, behavior) -> None:
    crowd = Crowd(queue_size=2, send_behavior=behavior)
    server = await start(crowd.serving)
    async with await crowd.join(server, rcvbuf=4096), await crowd.join(server) as reader:
        slow, quick = sorted(crowd.connections, key=lambda conn: conn.remote_address == _address(reader))
        message = "x" * 1_000_000
        while not slow.dropped_messages:
            plumews.broadcast([slow], message)
        plumews.broadcast(crowd.connections, "after")
        assert await reader.message() == "after"
        assert quick.dropped_messages == 0


async def test_under_close_a_full_queue_ends_the_connection(start) -> None:
    crowd = Crowd(queue_size=2, send_behavior=plumews.SendBehavior.CLOSE, close_timeout=0.2)
    server = await start(crowd.serving)
    async with await crowd.join(server, rcvbuf=4096):
        (slow,) = crowd.connections
        while not slow.closed:
            plumews.broadcast([slow], "x" * 1_000_000)
        await slow.wait_closed()


async def test_broadcast_keeps_the_order_of_direct_sends(start) -> None:
    crowd = Crowd()
    server = await start(crowd.serving)
    async with await crowd.join(server) as wire:
        (conn,) = crowd.connections
        for number in range(100):
            plumews.broadcast([conn], f"all {number}")
            await conn.send(f"one {number}")
        assert [await wire.message() for _ in range(200)] == [
            f"{kind} {number}" for number in range(100) for kind in ("all", "one")
        ]


async def test_wrong_message_or_connection_raises_a_clear_error(start) -> None:
    with pytest.raises(TypeError, match="str or bytes-like, not dict"):
        plumews.broadcast([], {"a": 1})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="Conn objects, not to str"):
        plumews.broadcast(["me"], "hello")  # type: ignore[list-item]


async def test_another_thread_gets_a_clear_error(start) -> None:
    crowd = Crowd()
    server = await start(crowd.serving)
    async with await crowd.join(server):
        with pytest.raises(plumews.ConcurrencyError, match="thread"):
            await asyncio.to_thread(plumews.broadcast, crowd.connections, "hello")


def _address(wire: Wire) -> Any:
    return wire.writer.get_extra_info("sockname")
