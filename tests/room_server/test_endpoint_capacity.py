"""Entry into a full room, a full or stopped hub, and beyond the accept rate."""

from __future__ import annotations

import asyncio

import plumews
from support.raw_client import Wire, text, upgrade
from support.room_endpoint_setup import SlowAuth, checked_together, joined, refused, rooms, say, token


async def test_section_8_point_26_full_room_is_429_and_full_hub_503(start):
    hub = plumews.Hub(plumews.HubConfig(max_connections=2, max_room_connections=1))
    server = await start(rooms(hub))
    async with await joined(server, "/ws?room=a"):
        *answer, wire = await refused(server, "/ws?room=a")
        assert answer == [429, "WEBSOCKET_JOIN_DENIED", "websocket room at capacity: 1 connections"]
        assert wire.header("Retry-After") == "5"
        async with await joined(server, "/ws?room=b"):
            *answer, wire = await refused(server, "/ws?room=c")
            assert answer == [503, "WEBSOCKET_JOIN_DENIED", "websocket hub at capacity: 2 connections"]
            assert wire.header("Retry-After") == "5"
        assert hub.metrics().rejected_total == 2


async def test_full_room_after_a_first_message_is_1013(start):
    server = await start(rooms(plumews.Hub(plumews.HubConfig(max_room_connections=1))))
    async with await joined(server, "/ws?room=a"), await Wire.open(server, "/ws?room=a&auth=message") as wire:
        wire.send(text('{"type": "auth"}'))
        assert await wire.closing() == (1013, "websocket room at capacity: 1 connections")


async def test_section_8_point_26_accept_rate_is_429_with_retry_after(start):
    hub = plumews.Hub(plumews.HubConfig(accept_rate=0.05, accept_burst=2))
    server = await start(rooms(hub))
    async with await joined(server, "/ws?room=a"), await joined(server, "/ws?room=b"):
        *answer, wire = await refused(server, "/ws?room=a")
        assert answer == [
            429,
            "WEBSOCKET_JOIN_DENIED",
            "websocket join rate exceeded: 0.05 new connections a second",
        ]
        assert 10 < int(wire.header("Retry-After")) <= 20
        async with await Wire.open(server, "/ws?room=a&auth=message") as wire:
            wire.send(say())
            assert await wire.closing() == (1013, "websocket join rate exceeded: 0.05 new connections a second")
        assert hub.metrics().rejected_total == 2
        assert hub.connection_count() == 2


async def test_retry_after_is_at_least_one_second(start):
    hub = plumews.Hub(plumews.HubConfig(accept_rate=2, accept_burst=1))
    hub._members._bucket.take(asyncio.get_running_loop().time() + 0.2)
    *_, wire = await refused(await start(rooms(hub)), "/ws")
    assert wire.header("Retry-After") == "1"


async def test_accept_rate_after_concurrent_checks_is_1013(start):
    auth = SlowAuth()
    hub = plumews.Hub(plumews.HubConfig(accept_rate=0.001, accept_burst=1))
    server = await start(rooms(hub, auth))
    async with await Wire.connect(server) as first, await Wire.connect(server) as second:
        for wire in (first, second):
            wire.writer.write(upgrade("/ws?room_password=right"))
        await checked_together(server, auth, 2)
        ends = []
        for wire in (first, second):
            await wire.read_head()
            wire.send(text("in?"))
            ends.append(await wire.event())
    assert sorted(ends) == [(1, "in?"), (8, (1013, "websocket join rate exceeded: 0.001 new connections a second"))]


async def test_stopped_hub_is_503(start):
    hub = plumews.Hub()
    server = await start(rooms(hub))
    await hub.stop()
    *answer, _ = await refused(server, "/ws")
    assert answer == [503, "WEBSOCKET_JOIN_DENIED", "the hub is stopped"]


async def test_last_place_goes_to_one_of_two_checked_concurrently(start):
    auth = SlowAuth()
    hub = plumews.Hub(plumews.HubConfig(max_room_connections=1))
    server = await start(rooms(hub, auth))
    first, second = await Wire.connect(server), await Wire.connect(server)
    for wire in (first, second):
        wire.writer.write(upgrade("/ws?room_password=right"))
    await checked_together(server, auth, 2)
    ends = []
    for wire in (first, second):
        await wire.read_head()
        assert wire.status == 101
        wire.send(text("in?"))
        ends.append(await wire.event())
    for wire in (first, second):
        wire.writer.close()
    assert sorted(ends) == [(1, "in?"), (8, (1013, "websocket room at capacity: 1 connections"))]


async def test_client_without_a_token_does_not_learn_of_a_full_room(start):
    hub = plumews.Hub(plumews.HubConfig(max_room_connections=1))
    server = await start(rooms(hub, require_token=True))
    async with await joined(server, "/ws", f"Authorization: Bearer {token()}"):
        assert (await refused(server, "/ws"))[0] == 401
        assert (await refused(server, "/ws", f"Authorization: Bearer {token()}"))[0] == 429
