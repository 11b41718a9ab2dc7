"""The health check of a room server."""

from __future__ import annotations

import json

import plumews
from support.raw_client import Wire

SECRET = "0123456789abcdef0123456789abcdef"


async def health(server, method="GET"):
    async with await Wire.connect(server) as wire:
        status, body = await wire.response(f"{method} /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert wire.header("Cache-Control") == "no-store"
        return status, json.loads(body) if body else None


async def test_it_is_well_and_says_whether_broadcasts_may_come(start):
    plain = await start(plumews.serve_rooms(plumews.Hub(), plumews.SimpleRoomAuth(), "127.0.0.1", 0))
    assert await health(plain) == (200, {"status": "ok", "component": "websocket", "broadcast_enabled": False})
    admin = await start(
        plumews.serve_rooms(plumews.Hub(), plumews.SimpleRoomAuth(), "127.0.0.1", 0, broadcast_secret=SECRET)
    )
    assert await health(admin) == (200, {"status": "ok", "component": "websocket", "broadcast_enabled": True})
    assert await health(admin, "HEAD") == (200, None)


async def test_it_is_503_once_the_hub_stops(start):
    hub = plumews.Hub()
    server = await start(plumews.serve_rooms(hub, plumews.SimpleRoomAuth(), "127.0.0.1", 0))
    await hub.stop()
    assert await health(server) == (503, {"status": "stopping", "component": "websocket", "broadcast_enabled": False})
    assert await health(server, "HEAD") == (503, None)
