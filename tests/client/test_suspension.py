"""Tests of the probe after a suspension of the machine, with a clock that the test moves."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

import plumews
from plumews.client import reconnect, suspension
from support.fakes import PATIENCE
from support.hostile_server import Peer, hostile

PING = b"\x89\x84"  # the first bytes of a masked ping with the payload of the keepalive


class Suspension:
    """Clock of the time since boot, which a suspension moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 0.0
        monkeypatch.setattr(reconnect, "_boot_clock", lambda: time.monotonic() + self.seconds)
        monkeypatch.setattr(suspension, "_TICK", 0.02)


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> Suspension:
    return Suspension(monkeypatch)


async def test_clients_are_probed_after_a_suspension(slept: Suspension) -> None:
    pinged = asyncio.Queue[bytes]()

    async def play(peer: Peer) -> None:
        peer.accept()
        while head := await peer.reader.readexactly(2):
            pinged.put_nowait(head)
            payload = await peer.reader.readexactly(8)
            peer.send(b"\x8a\x04" + bytes(payload[i % 4] ^ payload[4 + i] for i in range(4)))

    async with hostile(play) as uri:
        conns = [await plumews.connect(uri, ping_interval=3600, ping_timeout=0.2) for _ in range(2)]
        slept.seconds += 60
        assert [await asyncio.wait_for(pinged.get(), PATIENCE) for _ in conns] == [PING, PING]
        slept.seconds += 60
        assert [await asyncio.wait_for(pinged.get(), PATIENCE) for _ in conns] == [PING, PING]
        assert all(conn.state is plumews.State.OPEN and conn.latency for conn in conns)
        for conn in conns:
            conn.abort()
        assert pinged.empty()


async def test_server_that_is_gone_after_a_suspension_is_given_up(slept: Suspension) -> None:
    async def play(peer: Peer) -> None:
        peer.accept()
        await peer.gone()

    async with hostile(play) as uri:
        conn = await plumews.connect(uri, ping_interval=3600, ping_timeout=0.1, close_timeout=0.1)
        slept.seconds += 60
        with pytest.raises(plumews.ConnectionClosedError, match="keepalive ping timeout"):
            await asyncio.wait_for(conn.recv(), PATIENCE)


async def test_client_without_a_keepalive_is_not_watched(slept: Suspension) -> None:
    async def play(peer: Peer) -> None:
        peer.accept()
        assert await peer.gone() == b""

    async with hostile(play) as uri:
        conn = await plumews.connect(uri, ping_interval=None)
        assert conn._state.suspension_watch is None
        conn.abort()


async def test_watch_ends_with_the_last_client(slept: Suspension) -> None:
    async def play(peer: Peer) -> None:
        peer.accept()
        await peer.gone()

    async with hostile(play) as uri:
        for _ in range(2):
            conn = await plumews.connect(uri)
            watch: Any = conn._state.suspension_watch
            assert watch._deadline is not None
            conn.abort()
            waited = time.monotonic() + PATIENCE
            while watch._deadline is not None:
                assert time.monotonic() < waited
                await asyncio.sleep(0.01)  # nothing tells of a deadline that is not set
