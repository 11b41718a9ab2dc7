"""Sessions of members that come back: the messages that they missed, their order, and errors of `?since=`."""

from __future__ import annotations

import json

import pytest

import plumews
from plumews.constants import Opcode
from support.raw_client import Wire, text, upgrade

HISTORY = plumews.HubConfig(history=plumews.HistoryLimits())


def auth():
    auth = plumews.SimpleRoomAuth(rounds=1)
    auth.set_room_password("vault", "open sesame")
    return auth


def rooms(hub, **options):
    """Return a server whose handler tells each member how much it missed."""

    async def handler(conn):
        recovery = conn.metadata.get("recovery")
        if recovery is not None:
            await conn.send(f"complete: {recovery.complete}, missed: {recovery.messages}")
        async for message in conn:
            hub.broadcast_room(conn.metadata["room"], message)

    return plumews.serve_rooms(
        hub, auth(), "127.0.0.1", 0, handler=handler, recovery=True, allow_query_secrets=True, **options
    )


def recovered(complete, missed, position):
    event = {"type": "recovered", "complete": complete, "missed": missed, "position": position and str(position)}
    return json.dumps(event)


@pytest.fixture
async def hub():
    async with plumews.Hub(HISTORY) as hub:
        yield hub


async def said(wire, *messages):
    for message in messages:
        wire.send(text(message))
        assert await wire.message() == message


async def test_missed_messages_come_before_later_ones(start, hub):
    server = await start(rooms(hub))
    target = "/ws?room=vault&room_password=open%20sesame"
    async with await Wire.open(server, target) as ada:
        await said(ada, "seen")
        since = hub.position("vault")
        await said(ada, "missed", "missed too")
        async with await Wire.open(server, f"{target}&since={since}") as bob:
            got = [await bob.message() for _ in range(4)]
            await said(ada, "later")
            got.append(await bob.message())
    event = recovered(True, 2, plumews.Position(since.epoch, 3))
    assert got == [event, "missed", "missed too", "complete: True, missed: 2", "later"]


@pytest.mark.parametrize("since", ["start", "", ".0"])
@pytest.mark.parametrize("login", ["", "&auth=message"])
async def test_newcomer_from_the_start_gets_the_history(start, hub, since, login):
    server = await start(rooms(hub))
    for number in range(3):
        result = hub.broadcast_room("default", str(number))
    async with await Wire.open(server, f"/ws?since={since}{login}") as wire:
        if login:
            wire.send(text('{"type": "auth"}'))
            assert json.loads(await wire.message())["type"] == "joined"
        got = [await wire.message() for _ in range(5)]
    assert got == [recovered(True, 3, result.position), "0", "1", "2", "complete: True, missed: 3"]


async def test_newcomer_to_an_empty_history_gets_the_event_alone(start, hub):
    server = await start(rooms(hub))
    async with await Wire.open(server, "/ws?since=start") as wire:
        assert await wire.message() == recovered(True, 0, hub.position("default"))


async def test_recovery_of_a_room_without_history_is_incomplete(start):
    async with plumews.Hub(plumews.HubConfig(history=lambda room: None)) as hub:
        server = await start(rooms(hub))
        async with await Wire.open(server, "/ws?since=start") as wire:
            assert await wire.message() == recovered(False, 0, None)


async def test_recovery_works_with_the_fan_out_and_callbacks(start, hub):
    for options in ({}, {"on_message": lambda conn, message: hub.broadcast_room("default", message)}):
        server = await start(plumews.serve_rooms(hub, auth(), "127.0.0.1", 0, recovery=True, **options))
        async with await Wire.open(server, "/ws") as ada, await Wire.open(server, "/ws?room=x&since=start") as eve:
            await said(ada, "missed")
            since = hub.position("default")
            async with await Wire.open(server, f"/ws?since={since.epoch}.{since.offset - 1}") as bob:
                assert [await bob.message(), await bob.message()] == [recovered(True, 1, since), "missed"]
                await said(ada, "live")
                assert await bob.message() == "live"
            assert await eve.message() == recovered(True, 0, hub.position("x"))


async def test_encode_recovered_sets_the_text_of_the_event(start, hub):
    server = await start(rooms(hub, encode_recovered=lambda recovery: f"{recovery.messages} of old".encode()))
    hub.broadcast_room("default", "missed")
    async with await Wire.open(server, "/ws?since=start") as wire:
        assert [await wire.message(), await wire.message()] == [b"1 of old", "missed"]


@pytest.mark.parametrize("encode", [None, lambda recovery: None])
async def test_encode_recovered_of_none_sends_no_event(start, hub, encode):
    server = await start(rooms(hub, encode_recovered=encode))
    hub.broadcast_room("default", "missed")
    async with await Wire.open(server, "/ws?since=start") as wire:
        assert await wire.message() == "missed"


@pytest.mark.parametrize("behavior", list(plumews.SendBehavior), ids=str)
async def test_recovery_is_complete_and_precedes_live_messages(start, hub, behavior):
    # However small the queue is, and although a message is broadcast at the moment of the join.
    server = await start(rooms(hub, send_behavior=behavior, queue_size=4))
    for number in range(100):
        hub.broadcast_room("default", f"{number} {'x' * 3000}")
    hub.on_join(lambda room, conn: hub.broadcast_room(room, "live"))
    async with await Wire.open(server, "/ws?since=start") as wire:
        got = [await wire.message() for _ in range(102)]
    assert json.loads(got[0])["missed"] == 100
    assert [message.partition(" ")[0] for message in got[1:]] == [*map(str, range(100)), "live"]


async def test_joined_comes_before_the_missed_messages(start, hub):
    server = await start(rooms(hub))
    hub.position("vault")
    hub.broadcast_room("vault", "missed")
    async with await Wire.open(server, "/ws?room=vault&auth=message&since=0.0") as wire:
        wire.send(text('{"type": "auth", "password": "open sesame"}'))
        assert json.loads(await wire.message()) == {"type": "joined", "room": "vault"}
        assert await wire.message() == recovered(False, 1, hub.position("vault"))
        assert await wire.message() == "missed"
        assert await wire.message() == "complete: False, missed: 1", "the epoch is not that of the room"


async def test_missed_messages_require_the_password_of_the_room(start, hub):
    server = await start(rooms(hub))
    hub.position("vault")
    hub.broadcast_room("vault", "missed")
    async with await Wire.connect(server) as wire:
        status, body = await wire.response(upgrade("/ws?room=vault&since=0.0"))
    assert (status, json.loads(body)["error"]["code"]) == (403, "WEBSOCKET_ROOM_FORBIDDEN")
    assert b"missed" not in body


async def test_full_room_refuses_a_client_that_comes_back(start):
    async with plumews.Hub(plumews.HubConfig(history=plumews.HistoryLimits(), max_room_connections=1)) as hub:
        server = await start(rooms(hub))
        async with await Wire.open(server, "/ws"), await Wire.open(server, "/ws?auth=message&since=0.0") as wire:
            wire.send(text('{"type": "auth"}'))
            first = await wire.event()
            assert first == (Opcode.CLOSE, (1013, "websocket room at capacity: 1 connections")), "and not: joined"


async def test_since_given_twice_is_400(start, hub):
    server = await start(rooms(hub))
    async with await Wire.connect(server) as wire:
        status, body = await wire.response(upgrade("/ws?since=0.0&since=0.1"))
    error = json.loads(body)["error"]
    assert (status, error["code"], error["message"]) == (400, "WEBSOCKET_BAD_QUERY", "more than one since in the query")


@pytest.mark.parametrize("since", ["1", "yesterday", "a.b", "%0A.1"])
@pytest.mark.parametrize("login", ["", "&auth=message"])
async def test_malformed_since_is_400(start, hub, since, login):
    server = await start(rooms(hub))
    async with await Wire.connect(server) as wire:
        status, body = await wire.response(upgrade(f"/ws?since={since}{login}"))
    error = json.loads(body)["error"]
    assert (status, error["code"]) == (400, "WEBSOCKET_BAD_QUERY")
    assert error["message"].startswith("invalid since: a position must look like 1f0c9a5be27d4830.17")


async def test_since_is_ignored_without_recovery(start, hub):
    server = await start(plumews.serve_rooms(hub, auth(), "127.0.0.1", 0))
    hub.position("default")
    hub.broadcast_room("default", "missed")
    for since in ("0.0", "yesterday"):
        async with await Wire.open(server, f"/ws?since={since}") as wire:
            await said(wire, "the first thing that it hears")


def test_recovery_without_a_history_raises():
    with pytest.raises(ValueError, match=r"recovery=True needs a hub that remembers: HubConfig\(history="):
        rooms(plumews.Hub())


async def _asks(recovery):
    return ""


@pytest.mark.parametrize(
    ("encode", "words"),
    [
        ("text", "encode_recovered must be a plain function, which takes a plumews.Recovery and returns"),
        (_asks, "encode_recovered must be a plain function, which takes a plumews.Recovery and returns"),
        (lambda: "", r"encode_recovered is called with \(recovery\), but takes \(\)"),
    ],
)
def test_encode_recovered_that_cannot_be_called_raises(encode, words):
    with pytest.raises(TypeError, match=words):
        rooms(plumews.Hub(HISTORY), encode_recovered=encode)


def test_encode_recovered_without_recovery_raises():
    with pytest.raises(ValueError, match="encode_recovered is for recovery=True"):
        plumews.serve_rooms(plumews.Hub(), auth(), "127.0.0.1", 0, encode_recovered=lambda recovery: "")
