"""Behind the door of a room server: what a client that comes back gets, in which order, and who may ask for it."""

from __future__ import annotations

import json

import pytest

import plumews
from plumews.constants import Opcode
from wire import Wire, text, upgrade

HISTORY = plumews.HubConfig(history=plumews.HistoryLimits())


def auth():
    auth = plumews.SimpleRoomAuth(rounds=1)
    auth.set_room_password("vault", "open sesame")
    return auth


def rooms(hub, **options):
    """Rooms whose members are told how much they missed."""

    async def handler(conn):
        recovery = conn.metadata.get("recovery")
        if recovery is not None:
            await conn.send(f"complete: {recovery.complete}, missed: {recovery.messages}")
        async for message in conn:
            hub.broadcast_room(conn.metadata["room"], message)

    return plumews.serve_rooms(
        hub, auth(), "127.0.0.1", 0, handler=handler, recovery=True, allow_query_secrets=True, **options
    )


@pytest.fixture
async def hub():
    async with plumews.Hub(HISTORY) as hub:
        yield hub


async def said(wire, *messages):
    for message in messages:
        wire.send(text(message))
        assert await wire.message() == message


async def test_who_comes_back_through_the_door_gets_what_it_missed_before_anything_later(start, hub):
    server = await start(rooms(hub))
    target = "/ws?room=vault&room_password=open%20sesame"
    async with await Wire.open(server, target) as ada:
        await said(ada, "seen")
        since = hub.position("vault")
        await said(ada, "missed", "missed too")
        async with await Wire.open(server, f"{target}&since={since}") as bob:
            got = [await bob.message() for _ in range(3)]
            await said(ada, "later")
            got.append(await bob.message())
    assert got == ["missed", "missed too", "complete: True, missed: 2", "later"]


async def test_who_logs_in_by_message_is_told_that_it_is_in_before_what_it_missed(start, hub):
    server = await start(rooms(hub))
    hub.position("vault")
    hub.broadcast_room("vault", "missed")
    async with await Wire.open(server, "/ws?room=vault&auth=message&since=0.0") as wire:
        wire.send(text('{"type": "auth", "password": "open sesame"}'))
        assert json.loads(await wire.message()) == {"type": "joined", "room": "vault"}
        assert await wire.message() == "missed"
        assert await wire.message() == "complete: False, missed: 1", "the epoch is not that of the room"


async def test_what_was_missed_is_for_those_alone_who_may_enter(start, hub):
    server = await start(rooms(hub))
    hub.position("vault")
    hub.broadcast_room("vault", "missed")
    async with await Wire.connect(server) as wire:
        status, body = await wire.response(upgrade("/ws?room=vault&since=0.0"))
    assert (status, json.loads(body)["error"]["code"]) == (403, "WEBSOCKET_ROOM_FORBIDDEN")
    assert b"missed" not in body


async def test_a_full_room_has_no_place_for_those_who_come_back_either(start):
    async with plumews.Hub(plumews.HubConfig(history=plumews.HistoryLimits(), max_room_connections=1)) as hub:
        server = await start(rooms(hub))
        async with await Wire.open(server, "/ws"), await Wire.open(server, "/ws?auth=message&since=0.0") as wire:
            wire.send(text('{"type": "auth"}'))
            first = await wire.event()
            assert first == (Opcode.CLOSE, (1013, "websocket room at capacity: 1 connections")), "and not: joined"


async def test_a_position_that_is_given_twice_is_400(start, hub):
    server = await start(rooms(hub))
    async with await Wire.connect(server) as wire:
        status, body = await wire.response(upgrade("/ws?since=0.0&since=0.1"))
    error = json.loads(body)["error"]
    assert (status, error["code"], error["message"]) == (400, "WEBSOCKET_BAD_QUERY", "more than one since in the query")


@pytest.mark.parametrize("since", ["1", "yesterday", "a.b", "%0A.1"])
@pytest.mark.parametrize("login", ["", "&auth=message"])
async def test_a_position_that_is_none_is_400(start, hub, since, login):
    server = await start(rooms(hub))
    async with await Wire.connect(server) as wire:
        status, body = await wire.response(upgrade(f"/ws?since={since}{login}"))
    error = json.loads(body)["error"]
    assert (status, error["code"]) == (400, "WEBSOCKET_BAD_QUERY")
    assert error["message"].startswith("invalid since: a position must look like 1f0c9a5be27d4830.17")


async def test_without_recovery_since_means_nothing(start, hub):
    server = await start(plumews.serve_rooms(hub, auth(), "127.0.0.1", 0))
    hub.position("default")
    hub.broadcast_room("default", "missed")
    for since in ("0.0", "yesterday"):
        async with await Wire.open(server, f"/ws?since={since}") as wire:
            await said(wire, "the first thing that it hears")


def test_recovery_needs_a_hub_that_remembers_and_somebody_who_tells_positions():
    with pytest.raises(ValueError, match=r"recovery=True needs a hub that remembers: HubConfig\(history="):
        rooms(plumews.Hub())
    with pytest.raises(ValueError, match="recovery=True needs a handler or on_message"):
        plumews.serve_rooms(plumews.Hub(HISTORY), auth(), "127.0.0.1", 0, recovery=True)
