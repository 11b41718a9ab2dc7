"""Rooms of `serve_rooms`: the fan-out, handlers and callbacks, the member count, arguments and warnings."""

from __future__ import annotations

import asyncio
import contextlib
import json

import jwt
import pytest

import plumews
from plumews.hub.events import WATCH_INTERVAL
from plumews.transport.loop_context import loop_context
from support.raw_client import Wire, close, masked, text, upgrade

SECRET = b"s3cret" * 8
AUTH = plumews.SimpleRoomAuth(SECRET, rounds=1)
AUTH.set_room_password("vault", "open sesame")


def rooms(hub, **options):
    return plumews.serve_rooms(hub, AUTH, "127.0.0.1", 0, **options)


async def member(server, room="a", path="/ws"):
    return await Wire.open(server, f"{path}?room={room}")


async def until_joined(hub, room, count):
    while hub.room_count(room) != count:
        await asyncio.sleep(0)


async def count_of(wire, room="a"):
    said = json.loads(await wire.message())
    assert (said["type"], said["room"]) == ("members", room)
    return said["members"]


def plain(path):
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


# --- fan-out --------------------------------------------------------------------------------------


async def test_message_reaches_all_members_of_the_room_only(start):
    hub = plumews.Hub(4, 1024)
    server = await start(rooms(hub, queue_size=64, send_timeout=0.05, send_behavior=plumews.SendBehavior.BLOCK))
    async with await member(server) as one, await member(server) as two, await member(server, "b") as other:
        await until_joined(hub, "a", 2)
        one.send(text("hello"), masked(2, b"\x00\xff"))
        for wire in (one, two):
            assert await wire.event() == (1, "hello")
            assert await wire.event() == (2, b"\x00\xff")
        other.send(text("apart"))
        assert await other.event() == (1, "apart")
        two.send(text("bye"))
        assert await one.event() == await two.event() == (1, "bye")


async def test_without_echo_the_sender_gets_no_copy(start):
    hub = plumews.Hub()
    server = await start(rooms(hub, echo=False))
    async with await member(server) as one, await member(server) as two:
        await until_joined(hub, "a", 2)
        one.send(text("from one"))
        assert await two.message() == "from one"
        two.send(text("from two"))
        assert await one.message() == "from two"


async def test_connection_that_ends_in_any_way_leaves_the_room(start):
    hub = plumews.Hub()
    server = await start(rooms(hub))
    wires = [await member(server) for _ in range(3)]
    await until_joined(hub, "a", 3)
    wires[0].send(close())
    await until_joined(hub, "a", 2)
    wires[1].reset()
    await until_joined(hub, "a", 1)
    wires[2].writer.close()
    await until_joined(hub, "a", 0)
    assert (hub.rooms(), hub.connection_count()) == ([], 0)
    for wire in wires:
        wire.writer.close()


async def test_hub_outlives_its_server_and_serves_the_next():
    async with plumews.Hub() as hub:
        for _ in range(2):
            async with rooms(hub, close_timeout=0.2) as server, await member(server) as wire:
                wire.send(text("x"))
                assert await wire.message() == "x"
            assert hub.connection_count() == 0


async def test_stopped_hub_closes_members_and_leaves_the_server(start):
    hub = plumews.Hub()
    server = await start(rooms(hub))
    async with await member(server) as wire:
        stopping = asyncio.ensure_future(hub.stop())
        assert (await wire.closing())[0] == 1001
        wire.send(close())
        await stopping
    assert server.is_serving()


async def test_section_8_point_3_101_comes_first_under_broadcast_load(start):
    hub = plumews.Hub()
    server = await start(rooms(hub))
    loading = True

    async def load():
        while loading:
            for _ in range(20):
                hub.broadcast_room("a", "x" * 100)
            await asyncio.sleep(0)

    task = asyncio.ensure_future(load())
    try:
        async with await member(server):
            for number in range(300):
                wire = await Wire.connect(server)
                query = "&auth=message" if number % 3 == 0 else ""
                wire.writer.write(
                    upgrade(f"/ws?room=a{query}") + (text('{"type": "auth"}') if query else b"") + text("me")
                )
                assert (await wire.reader.readexactly(13)) == b"HTTP/1.1 101 "
                await wire.reader.readuntil(b"\r\n\r\n")
                first = await wire.message()
                assert first in ("x" * 100, "me") or json.loads(first)["type"] == "joined"
                wire.reset()
    finally:
        loading = False
        await task


# --- handlers and callbacks -----------------------------------------------------------------------


async def test_handler_runs_after_authentication_and_joining(start):
    hub = plumews.Hub()

    async def handler(conn):
        room = conn.metadata["room"]
        assert hub.members(room) == [conn]
        await conn.write_json({"room": room, "user": conn.user_info.id})
        async for message in conn:
            hub.broadcast_room(room, f"{conn.user_info.id}: {message}")

    server = await start(rooms(hub, handler=handler))
    token = jwt.encode({"sub": "ada"}, SECRET, algorithm="HS256")
    async with await Wire.open(
        server, "/ws?room=vault", f"Authorization: Bearer {token}", "X-WebSocket-Room-Password: open sesame"
    ) as wire:
        assert json.loads(await wire.message()) == {"room": "vault", "user": "ada"}
        wire.send(text("hi"))
        assert await wire.message() == "ada: hi"
        wire.send(close())
        assert await wire.closing() == (1000, "")


async def test_handler_after_a_first_message_runs_after_joined(start):
    async def handler(conn):
        await conn.send(await conn.recv())

    server = await start(rooms(plumews.Hub(), handler=handler))
    async with await Wire.open(server, "/ws?room=a&auth=message") as wire:
        wire.send(text('{"type": "auth"}'), text("first"))
        assert json.loads(await wire.message()) == {"type": "joined", "room": "a"}
        assert await wire.message() == "first"
        assert await wire.closing() == (1000, "")


async def test_handler_that_raises_leaves_the_room(start, caplog):
    hub = plumews.Hub()

    async def handler(conn):
        await conn.recv()
        raise RuntimeError("on purpose")

    server = await start(rooms(hub, handler=handler))
    async with await member(server) as wire:
        wire.send(text("x"), close())
        assert (await wire.closing())[0] in (1000, 1011)
    await until_joined(hub, "a", 0)
    assert len(caplog.records) == 1


async def test_stop_cancels_a_handler_that_ignores_the_end():
    cancelled = []

    async def handler(conn):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(conn.metadata["room"])
            raise

    hub = plumews.Hub()
    async with contextlib.AsyncExitStack() as stack:
        server = await rooms(hub, handler=handler, close_timeout=0.1)
        await stack.enter_async_context(await member(server, "direct"))
        wire = await stack.enter_async_context(await Wire.open(server, "/ws?room=message&auth=message"))
        wire.send(text('{"type": "auth"}'))
        await wire.message()
        server.close()
        await server.wait_closed()
    assert sorted(cancelled) == ["direct", "message"]
    assert (server._context.tasks, server._context.connections, hub.rooms()) == (set(), set(), [])
    assert len(loop_context(asyncio.get_running_loop()).timers) == 0


async def test_callbacks_replace_or_accompany_the_fan_out(start):
    calls = []
    closed = asyncio.Queue()
    hub = plumews.Hub()
    beside = {
        "on_open": lambda conn: calls.append(("open", conn.metadata["room"], hub.members(conn.metadata["room"]))),
        "on_close": closed.put_nowait,
    }
    for instead in ({}, {"on_message": lambda conn, message: conn.send_nowait(message.upper())}):
        server = await start(rooms(hub, **beside, **instead))
        async with await member(server) as wire:
            wire.send(text("x"))
            assert await wire.message() == ("X" if instead else "x")
            wire.send(close())
            await wire.eof()
        conn = await closed.get()
        assert calls.pop() == ("open", "a", [conn])
        assert hub.members("a") == []


async def test_on_open_that_raises_is_1011_and_leaves_the_room(start, caplog):
    hub = plumews.Hub()
    server = await start(rooms(hub, on_open=lambda conn: 1 / 0))
    async with await member(server) as wire:
        assert await wire.closing() == (1011, "the handler failed")
    await until_joined(hub, "a", 0)
    assert len(caplog.records) == 1


class Rebellious(plumews.Hub):
    def join(self, room, conn):
        raise RuntimeError("no more rooms on this disk")


async def test_unexpected_error_of_the_hub_is_1011_and_logged_once(start, caplog):
    server = await start(rooms(Rebellious()))
    for query in ("", "?auth=message"):
        async with await Wire.open(server, f"/ws{query}") as wire:
            wire.send(text('{"type": "auth"}'))
            assert await wire.closing() == (1011, "the handler failed")
            wire.send(close())
    assert [record.exc_info[1].args for record in caplog.records] == [("no more rooms on this disk",)] * 2


# --- member count ---------------------------------------------------------------------------------


async def test_members_sends_the_count_at_once_and_after_changes(start):
    hub = plumews.Hub()
    server = await start(rooms(hub))
    async with await member(server, path="/members") as watcher:
        assert await count_of(watcher) == 0
        async with await member(server) as one:
            assert await count_of(watcher) == 1
            one.send(text("not for watchers"))
            assert await one.message() == "not for watchers"
            async with await member(server, "b"):
                pass
        assert await count_of(watcher) == 0
        assert hub.metrics().active_connections == 0


async def test_members_merges_rapid_changes(start):
    hub = plumews.Hub()
    server = await start(rooms(hub))
    clock = asyncio.get_running_loop().time
    async with await member(server, path="/members") as watcher, contextlib.AsyncExitStack() as stack:
        assert await count_of(watcher) == 0
        began = clock()
        for _ in range(100):
            await stack.enter_async_context(await member(server))
        told = 0
        while await count_of(watcher) < 100:
            told += 1
        # A word for each tenth of a second that it took, which is three or four, not one for each of the hundred.
        assert told <= 2 + (clock() - began) / WATCH_INTERVAL


async def test_members_requires_the_same_credentials(start):
    server = await start(rooms(plumews.Hub(), require_token=True))
    token = jwt.encode({"sub": "ada"}, SECRET, algorithm="HS256")
    bearer, password = f"Authorization: Bearer {token}", "X-WebSocket-Room-Password: open sesame"
    for lines, status in (([], 401), ([password], 401), ([bearer], 403), ([bearer, password], 101)):
        async with await Wire.connect(server) as wire:
            wire.writer.write(upgrade("/members?room=vault", *lines))
            await wire.read_head()
            assert wire.status == status, lines
    async with await Wire.open(server, "/members?room=vault&auth=message") as wire:
        wire.send(text(json.dumps({"type": "auth", "token": token, "password": "open sesame"})))
        assert await count_of(wire, "vault") == 0


async def test_members_of_a_full_room_are_counted_for_watchers(start):
    hub = plumews.Hub(plumews.HubConfig(max_room_connections=1))
    server = await start(rooms(hub))
    async with await member(server), await member(server, path="/members") as watcher:
        assert await count_of(watcher) == 1
    assert hub.metrics().rejected_total == 0


async def test_watchers_are_bounded_like_connections(start):
    hub = plumews.Hub(plumews.HubConfig(max_connections=1))
    server = await start(rooms(hub))
    async with await member(server, path="/members") as watcher:
        await count_of(watcher)
        async with await Wire.connect(server) as wire:
            status, body = await wire.response(upgrade("/members"))
            assert (status, json.loads(body)["error"]["code"]) == (503, "WEBSOCKET_JOIN_DENIED")
        (conn,) = server.connections
        watcher.send(close())
        await conn.wait_closed()
    async with await member(server, path="/members") as watcher:
        await count_of(watcher)


async def test_messages_of_a_watcher_are_ignored_and_its_end_is_not(start):
    hub = plumews.Hub()
    server = await start(rooms(hub))
    async with await member(server, path="/members") as watcher:
        await count_of(watcher)
        watcher.send(*[text("x" * 1000)] * 1000, masked(9, b"there?"))
        assert await watcher.event() == (10, b"there?")
        (conn,) = server.connections
        watcher.reset()
        await conn.wait_closed()
    assert hub._counts._watchers == {}


async def test_stopped_hub_refuses_watchers(start):
    hub = plumews.Hub()
    server = await start(rooms(hub))
    await hub.stop()
    async with await Wire.connect(server) as wire:
        assert (await wire.response(upgrade("/members")))[0] == 503


# --- routes, page and subprotocols ----------------------------------------------------------------


async def test_healthz_is_ok_and_other_paths_are_404(start):
    server = await start(rooms(plumews.Hub(), members_path=None))
    async with await Wire.connect(server) as wire:
        status, body = await wire.response(plain("/healthz"))
        assert (status, json.loads(body)["status"]) == (200, "ok")
    for request in (plain("/"), upgrade("/"), upgrade("/members"), upgrade("/ws/")):
        async with await Wire.connect(server) as wire:
            assert (await wire.response(request))[0] == 404


async def test_page_and_routes_of_the_application_are_both_served(start):
    server = await start(
        rooms(
            plumews.Hub(),
            page=True,
            path="/chat",
            members_path="/who",
            routes={"/version": lambda request: plumews.Response.text(200, "1")},
        )
    )
    async with await Wire.connect(server) as wire:
        status, body = await wire.response(plain("/"))
        assert (status, b"<html" in body) == (200, True)
    async with await Wire.connect(server) as wire:
        assert await wire.response(plain("/version")) == (200, b"1")
    async with await member(server, path="/chat"), await member(server, path="/who") as watcher:
        assert await count_of(watcher) == 1


async def test_subprotocols_of_the_application_replace_ours(start):
    server = await start(rooms(plumews.Hub(), subprotocols=["chat.v2"]))
    async with await Wire.open(server, "/ws", "Sec-WebSocket-Protocol: plumews, chat.v2") as wire:
        assert wire.header("Sec-WebSocket-Protocol") == "chat.v2"


async def test_page_of_another_site_is_403(start):
    server = await start(rooms(plumews.Hub()))
    for path in ("/ws", "/ws?auth=message", "/members"):
        async with await Wire.connect(server) as wire:
            assert (await wire.response(upgrade(path, "Origin: http://evil.com")))[0] == 403


# --- arguments ------------------------------------------------------------------------------------


def test_hub_and_authorizer_are_required():
    with pytest.raises(TypeError, match=r"hub must be a plumews.Hub, not SimpleRoomAuth"):
        plumews.serve_rooms(AUTH, plumews.Hub(), "127.0.0.1", 0)
    with pytest.raises(TypeError, match=r"auth must be a plumews.SimpleRoomAuth\(...\), or have its method verify_jwt"):
        plumews.serve_rooms(plumews.Hub(), None, "127.0.0.1", 0)


def test_section_8_point_31_wrong_arguments_raise_at_once():
    hub = plumews.Hub()
    with pytest.raises(ValueError, match="path and members_path must differ"):
        rooms(hub, path="/x", members_path="/x")
    with pytest.raises(ValueError, match="a path begins with a slash"):
        rooms(hub, path="ws")
    with pytest.raises(TypeError, match="not both"):
        rooms(hub, handler=print, on_message=print)
    with pytest.raises(TypeError, match="send_behavior must be"):
        rooms(hub, send_behavior="drop")
    with pytest.raises(ValueError, match="queue_size must be at least 1"):
        rooms(hub, queue_size=-1)
    with pytest.raises(TypeError, match="give a port"):
        plumews.serve_rooms(hub, AUTH)


async def test_section_8_point_11_any_text_is_a_message_by_default(start):
    async with plumews.Hub() as hub:
        server = await start(plumews.serve_rooms(hub, plumews.SimpleRoomAuth(), "127.0.0.1", 0))
        async with await Wire.open(server, "/ws") as wire:
            for message in ("two\nlines\tand a tab", "", "\x1b[2J", "x" * (2 * 1024 * 1024)):
                wire.send(text(message))
                assert await wire.message() == message


# --- warnings about servers that no client can enter ----------------------------------------------


class Asked(plumews.SimpleRoomAuth):
    """Authorizer that decides about each room."""

    def authorize_room(self, authorization):
        return True


def with_tokens():
    return plumews.SimpleRoomAuth("k" * 32)


class Known(plumews.SimpleRoomAuth):
    """Authorizer with rooms of its own."""

    def has_room_password(self, room):
        return True


@pytest.mark.parametrize(
    ("auth", "options", "said"),
    [
        (
            plumews.SimpleRoomAuth,
            {"allow_unknown_rooms": False},
            "allow_unknown_rooms=False, and no room has a password",
        ),
        (plumews.SimpleRoomAuth, {}, None),
        (Asked, {"allow_unknown_rooms": False}, None),
        (Known, {"allow_unknown_rooms": False}, None),
        (
            lambda: plumews.SimpleRoomAuth("k" * 32),
            {"require_token": True, "token_sources": ()},
            "no place for a token",
        ),
        (lambda: plumews.SimpleRoomAuth("k" * 32), {"require_token": True, "token_sources": ["message"]}, None),
    ],
    ids=["no room", "open", "asked", "known", "no source", "a source"],
)
async def test_server_that_no_client_can_enter_warns_at_the_start(start, caplog, auth, options, said):
    await start(plumews.serve_rooms(plumews.Hub(), auth(), "127.0.0.1", 0, **options))
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(told) == (said is not None)
    assert all(line.startswith("nobody can come in: ") and said in line for line in told)


async def test_password_set_before_the_start_prevents_the_warning(start, caplog):
    auth = plumews.SimpleRoomAuth(rounds=1)
    serving = plumews.serve_rooms(plumews.Hub(), auth, "127.0.0.1", 0, allow_unknown_rooms=False)
    auth.set_room_password("chat", "pw")
    await start(serving)
    assert caplog.records == []


async def test_stopped_hub_warns_at_the_start(start, caplog):
    hub = plumews.Hub()
    await hub.stop()
    await start(plumews.serve_rooms(hub, plumews.SimpleRoomAuth(), "127.0.0.1", 0))
    assert [record.getMessage() for record in caplog.records] == ["nobody can come in: the hub has been stopped"]
