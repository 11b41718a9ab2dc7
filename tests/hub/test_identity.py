"""Who the members of a hub are: the connections of a user, the end of them, and presence on real connections."""

from __future__ import annotations

import json
import time

import jwt
import pytest

import plumews
from plumews import CloseCode, Hub, HubConfig, HubFull, RoomPresence, SimpleRoomAuth, UserInfo
from support.fakes import fake_conn, ticks
from support.members import crowd, joined
from support.raw_client import Wire, text

ANN, BOB = UserInfo("ann", "Ann"), UserInfo("bob", "Bob")


def member(hub: Hub, user: UserInfo | None, *rooms: str) -> plumews.Conn:
    conn, _ = fake_conn(ping_interval=None)
    conn.user_info = user
    for room in rooms:
        hub.join(room, conn)
    return conn


# --- connections ----------------------------------------------------------------------------------


async def test_the_connections_of_a_user_are_those_in_any_room_once_each():
    hub = Hub()
    one, two = member(hub, ANN, "chat", "news"), member(hub, ANN, "sport")
    member(hub, BOB, "chat")
    member(hub, None, "chat")
    assert hub.connections_of("ann") == [one, two]
    assert hub.connections_of("nobody") == []
    hub.leave("chat", one)
    assert hub.connections_of("ann") == [one, two]
    hub.leave("news", one)
    assert hub.connections_of("ann") == [two]
    two.abort()
    await ticks()
    assert hub.connections_of("ann") == []


async def test_who_never_joined_or_was_refused_is_not_found():
    hub = Hub(HubConfig(max_connections=1))
    member(hub, BOB, "chat")
    member(hub, ANN)
    with pytest.raises(HubFull):
        member(hub, ANN, "chat")
    assert hub.connections_of("ann") == []


async def test_a_user_that_is_known_later_is_found_after_joining_again():
    hub = Hub()
    conn = member(hub, None, "chat", "news")
    conn.user_info = ANN
    assert hub.connections_of("ann") == []
    hub.join("chat", conn)
    assert hub.connections_of("ann") == [conn]
    assert [user.id for user in hub.presence("news").users] == ["ann"]


@pytest.mark.parametrize(("user_id", "error"), [(None, TypeError), (7, TypeError), ("", ValueError)])
async def test_a_user_id_that_cannot_be_is_refused_and_nobody_is_disconnected(user_id, error):
    hub = Hub()
    conn = member(hub, None, "chat")
    for ask in (hub.connections_of, hub.disconnect_user, lambda user_id: hub.send_to_user(user_id, "x")):
        with pytest.raises(error, match="a user id must"):
            ask(user_id)
    assert not conn.closed
    assert hub.metrics().broadcasts_total == 0


# --- the end of them ------------------------------------------------------------------------------


async def test_disconnecting_a_user_closes_all_its_connections_and_nobody_elses(start):
    hub = Hub()
    async with crowd(start, 4) as (conns, wires):
        for conn, user in zip(conns, (ANN, ANN, BOB, None), strict=True):
            conn.user_info = user
            hub.join("chat", conn)
        conns[0].send_nowait("first")
        assert hub.disconnect_user("ann", 4001, "banned") == 2
        assert await wires[0].message() == "first"
        assert [await wire.closing() for wire in wires[:2]] == [(4001, "banned")] * 2
        for wire, conn in zip(wires[:2], conns[:2], strict=True):
            wire.writer.close()
            await conn.wait_closed()
        assert hub.members("chat") == conns[2:]
        assert hub.disconnect_user("ann") == 0
        hub.broadcast_room("chat", "still here")
        assert [await wire.message() for wire in wires[2:]] == ["still here"] * 2


async def test_the_code_is_1008_unless_another_is_given(start):
    hub = Hub()
    async with crowd(start, 1) as ((conn,), (wire,)):
        conn.user_info = ANN
        hub.join("chat", conn)
        assert hub.disconnect_user("ann") == 1
        assert await wire.closing() == (CloseCode.POLICY_VIOLATION, "")


async def test_what_was_broadcast_before_the_disconnection_arrives_before_it(start, sliced):
    hub = Hub()
    joined(hub, "chat", 300)
    async with crowd(start, 1) as ((conn,), (wire,)):
        conn.user_info = ANN
        hub.join("chat", conn)
        assert hub.broadcast_room("chat", "last words").pending
        assert hub.disconnect_user("ann") == 1
        assert await wire.message() == "last words"
        assert (await wire.closing())[0] == CloseCode.POLICY_VIOLATION


async def test_connections_that_are_closing_already_are_not_counted():
    hub = Hub()
    conns = [member(hub, ANN, "chat") for _ in range(3)]
    conns[1].close_nowait()
    assert hub.disconnect_user("ann") == 2
    assert hub.disconnect_user("ann") == 0


@pytest.mark.parametrize(("code", "reason"), [(1005, ""), (999, ""), (1008, "x" * 124)])
async def test_a_close_that_cannot_be_said_disconnects_nobody(code, reason):
    hub = Hub()
    conn = member(hub, ANN, "chat")
    with pytest.raises(ValueError, match="close"):
        hub.disconnect_user("ann", code, reason)
    assert not conn.closed


# --- presence -------------------------------------------------------------------------------------


async def test_the_room_server_knows_who_is_there_from_their_tokens(start):
    hub, secret, began = Hub(), b"s3cret" * 8, time.time()
    server = await start(plumews.serve_rooms(hub, SimpleRoomAuth(secret), "127.0.0.1", 0))

    async def enter(claims: dict[str, str]) -> Wire:
        bearer = f"Authorization: Bearer {jwt.encode(claims, secret, algorithm='HS256')}"
        wire = await Wire.open(server, "/ws?room=chat", *([bearer] if claims else []))
        wire.send(text("hello"))
        assert await wire.message() == "hello"
        return wire

    async with await enter({"sub": "u1", "name": "Ann"}) as one, await enter({"name": "no id"}):
        async with await enter({"sub": "u1", "name": "Ann"}):
            (user,) = hub.presence("chat").users
            assert (user.id, user.user.name, user.connections) == ("u1", "Ann", 2)
            assert began <= user.since <= time.time()
            assert hub.presence("chat").anonymous == 1
        assert hub.send_to_user("u1", json.dumps({"direct": True})).matched in (1, 2)
        while (message := await one.message()) == "hello":  # of those who came later
            pass
        assert json.loads(message) == {"direct": True}
    assert hub.presence("nowhere") == RoomPresence()
