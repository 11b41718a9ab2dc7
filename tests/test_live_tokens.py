"""A token's life on a live connection: it ends, it is refreshed, it is revoked."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time

import jwt
import pytest

import plumews
from plumews.loopstate import loop_state
from plumews.revocation import Revocations
from wire import Wire, close, masked, text, upgrade

SECRET = b"s3cret" * 8
#: Seconds that no test takes.
MORE = 3600


def token(sub="u1", key=SECRET, **claims):
    return jwt.encode({"sub": sub, **claims}, key, algorithm="HS256")


def ends_in(seconds, **claims):
    return token(exp=time.time() + seconds, **claims)


def refresh(token):
    return text(json.dumps({"type": "auth", "token": token}))


class Auth(plumews.SimpleRoomAuth):
    """Has revocations, whatever its base has."""

    def __init__(self, **options):
        super().__init__(SECRET, rounds=1, **options)
        self.revocations = Revocations()


async def relay(conn):
    async for message in conn:
        await conn.send(message)


def serve(way, auth=None, hub=None):
    auth = auth or Auth()
    if way == "rooms":
        return plumews.serve_rooms(hub or plumews.Hub(), auth, "127.0.0.1", 0)
    if way == "callbacks":
        answer = plumews.Conn.send_nowait
        return plumews.serve(host="127.0.0.1", port=0, on_message=lambda c, m: answer(c, m), authenticator=auth)
    return plumews.serve(relay, "127.0.0.1", 0, authenticator=auth)


WAYS = pytest.mark.parametrize("way", ["rooms", "callbacks", "handler"])


async def come(server, token, by="header"):
    if by == "header":
        return await Wire.open(server, "/ws", f"Authorization: Bearer {token}")
    wire = await Wire.open(server, "/ws?auth=message")
    wire.send(refresh(token))
    return wire


async def is_in(wire):
    wire.send(text("hi"))
    while await wire.message() != "hi":
        pass


def nothing_is_left():
    assert len(loop_state(asyncio.get_running_loop()).timers) == 0


# --- exp ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["header", "message"])
@WAYS
async def test_row_34_exp_ends_the_live_connection_within_a_second(start, way, by):
    server = await start(serve(way))
    exp = time.time() + 0.3
    async with await come(server, token(exp=exp), by) as wire:
        await is_in(wire)
        assert await wire.closing() == (4401, "jwt expired")
        assert exp <= time.time() < exp + 1
        wire.send(close(4401))
        await wire.eof()
    server.close()
    await server.wait_closed()
    nothing_is_left()


async def test_the_leeway_and_the_clock_of_the_authenticator_count(start):
    now = [1000.0]
    server = await start(serve("handler", Auth(leeway=10, clock=lambda: now[0])))
    async with await come(server, token(exp=990.3)) as wire:
        await is_in(wire)
        now[0] = 1000.31
        assert await wire.closing() == (4401, "jwt expired")
    async with await come(server, token(exp=1000)) as wire:
        await is_in(wire)


async def test_a_token_without_exp_does_not_end_and_costs_no_deadline(start):
    server = await start(serve("handler"))
    before = len(loop_state(asyncio.get_running_loop()).timers)
    async with await come(server, token()) as wire, await come(server, ends_in(MORE)) as other:
        await is_in(wire)
        await is_in(other)
        keepalives = 2
        assert len(loop_state(asyncio.get_running_loop()).timers) == before + keepalives + 1


async def test_a_token_that_ends_while_something_else_is_asked_does_not_come_in(start):
    now = [1000.0]

    class Slow(Auth):
        async def check_room_password(self, room, password):
            now[0] = 2000.0
            await asyncio.sleep(0.05)  # longer than the deadline of 0.03 s that stands
            return True

    auth = Slow(clock=lambda: now[0])
    auth.set_room_password("default", "x")
    hub = plumews.Hub()
    server = await start(serve("rooms", auth, hub))
    soon = token(exp=1000.02)
    lines = (f"Authorization: Bearer {soon}", "X-WebSocket-Room-Password: x")
    async with await Wire.open(server, "/ws", *lines) as wire:
        assert await wire.closing() == (4401, "jwt expired")
    assert hub.metrics().accepted_total == 0


# --- refresh --------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["header", "message"])
@WAYS
async def test_row_34_a_refresh_extends_and_reaches_nobody_else(start, way, by):
    server = await start(serve(way))
    first = time.time() + 0.4
    async with await come(server, token(exp=first), by) as wire:
        await is_in(wire)
        later = int(time.time()) + MORE
        # Order of the fields and blanks are the client's affair; so is what it says in the same read.
        said = f' {{"token": "{token(exp=later)}", "type" : "auth"}}'
        wire.send(text("before"), text(said), text("after"))
        got = [await wire.message() for _ in range(3)]
        assert [m for m in got if m[0] != "{"] == ["before", "after"]
        assert [json.loads(m) for m in got if m[0] == "{"] == [{"type": "auth", "ok": True, "exp": later}]
        while time.time() < first + 0.1:
            await is_in(wire)
            await asyncio.sleep(0.02)
        wire.send(refresh(ends_in(0.2)))  # it may be shortened, too
        assert json.loads(await wire.message())["ok"]
        assert await wire.closing() == (4401, "jwt expired")


BAD = {
    "garbage": ({"token": "garbage"}, "forbidden: invalid token (invalid jwt"),
    "another_key": ({"token": token(key=b"another" * 8)}, "forbidden: invalid token (invalid jwt"),
    "expired": ({"token": token(exp=1)}, "forbidden: invalid token (jwt expired"),
    "another_user": ({"token": token("u2")}, "forbidden: the token is of another user"),
    "nobody": ({"token": jwt.encode({}, SECRET, algorithm="HS256")}, "forbidden: the token is of another user"),
    "none": ({}, "a new token must come as"),
    "number": ({"token": 1}, "a new token must come as"),
}


@pytest.mark.parametrize("bad", BAD)
async def test_row_34_a_bad_refresh_is_4403_and_reaches_nobody_else(start, bad):
    fields, why = BAD[bad]
    hub = plumews.Hub()
    server = await start(serve("rooms", hub=hub))
    async with await come(server, token()) as wire, await come(server, token("other")) as other:
        await is_in(wire)
        await is_in(other)
        wire.send(text(json.dumps({"type": "auth", **fields})), text("too late"))
        code, reason = await wire.closing()
        assert code == 4403
        assert reason.startswith(why)
        await is_in(other)  # and "hi" is the first thing it hears
    assert sum(hub._requests.refused.snapshot().values()) == 1


async def test_a_refresh_where_there_is_no_token_is_4403_if_the_client_logs_in_by_message(start):
    server = await start(serve("rooms"))
    async with await Wire.open(server, "/ws?auth=message") as wire:
        wire.send(text('{"type": "auth"}'), refresh(token()))
        assert await wire.closing() == (4403, "there is no token here that a new one could follow")


async def test_without_a_token_such_a_message_is_one_like_any_other(start):
    server = await start(serve("rooms"))
    async with await Wire.open(server, "/ws") as wire:
        wire.send(refresh("x"))
        assert json.loads(await wire.message()) == {"type": "auth", "token": "x"}
        assert all(conn._screen is None for conn in server.connections)


@pytest.mark.parametrize(
    "said", ['"auth"', '{"type": "authors"}', '{"auth": 1}', '{"type": ["auth"]}', '{"auth"', "{}"]
)
async def test_other_messages_pass_whatever_they_look_like(start, said):
    server = await start(serve("rooms"))
    async with await come(server, token()) as wire:
        wire.send(text(said), masked(2, said.encode()))
        assert [await wire.message(), await wire.message()] == [said, said.encode()]


async def test_a_refresh_changes_what_the_hub_knows_of_the_user_and_the_index_stays_right(start):
    hub = plumews.Hub()
    server = await start(serve("rooms", hub=hub))
    async with await come(server, token(name="Ada")) as wire:
        await is_in(wire)
        (conn,) = hub.connections_of("u1")
        wire.send(refresh(token(name="Ada L.", roles=["admin"])))
        await wire.message()
        assert hub.connections_of("u1") == [conn]
        assert conn.user_info.roles == ("admin",)
        (user,) = hub.presence("default").users
        assert (user.user.name, user.connections, hub.total_count()) == ("Ada L.", 1, 1)
        # Who the application has made somebody else stays that.
        conn.user_info = plumews.UserInfo("root")
        hub.join("default", conn)
        wire.send(refresh(token(name="Ada")))
        await wire.message()
        assert (hub.connections_of("root"), hub.connections_of("u1")) == ([conn], [])
    while hub.total_count():
        await asyncio.sleep(0)
    assert hub.connections_of("root") == []


class Slow(Auth):
    """Verifies as a coroutine that waits for ``go`` from the second time on."""

    def __init__(self):
        super().__init__()
        self.go = asyncio.Event()
        self.asked = asyncio.Semaphore(0)
        self.first = True

    async def verify_jwt(self, token):
        claims = super().verify_jwt(token)
        if not self.first:
            self.asked.release()
            await self.go.wait()
        self.first = False
        return claims


async def test_a_slow_authenticator_looks_at_one_refresh_at_a_time(start):
    auth = Slow()
    server = await start(serve("handler", auth))
    async with await come(server, token()) as wire:
        await is_in(wire)
        wire.send(refresh(token(exp=time.time() + MORE)))
        await auth.asked.acquire()
        await is_in(wire)  # who waits for nobody
        auth.go.set()
        assert json.loads(await wire.message())["ok"]
        auth.go.clear()
        wire.send(refresh(token()), refresh(token()))
        assert await wire.closing() == (4403, "one new token at a time")


async def test_who_leaves_while_its_refresh_is_looked_at_leaves_nothing(start):
    auth = Slow()
    server = await start(serve("handler", auth))
    async with await come(server, token()) as wire:
        await is_in(wire)
        wire.send(refresh(token()))
        await auth.asked.acquire()
        (conn,) = server.connections
        login = server._site.endpoint("/")._login
        wire.reset()
        await conn.wait_closed()
        while login._refresh._tasks:
            await asyncio.sleep(0)
    server.close()
    await server.wait_closed()
    nothing_is_left()


@pytest.mark.parametrize("stubborn", [False, True])
async def test_an_authenticator_that_gives_up_or_never_ends_closes_the_connection_of_a_refresh(
    start, monkeypatch, stubborn
):
    monkeypatch.setattr("plumews.limits.OPEN_TIMEOUT", 0.05)
    over = asyncio.Event()

    class Odd(Slow):
        async def verify_jwt(self, token):
            if self.first:
                return await super().verify_jwt(token)
            while stubborn and not over.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await over.wait()
            raise asyncio.CancelledError

    server = await start(serve("handler", Odd()))
    async with await come(server, token()) as wire:
        await is_in(wire)
        wire.send(refresh(token()))
        expected = (4408, "authentication took too long") if stubborn else (1011, "authentication failed")
        assert await asyncio.wait_for(wire.closing(), 5) == expected
    over.set()


@pytest.mark.parametrize("by", ["header", "message"])
@pytest.mark.parametrize("seconds_left", [lambda claims: float(claims["exp"]), lambda claims: "soon"])
async def test_a_seconds_left_that_fails_is_the_failure_of_the_authenticator_and_leaves_nothing(
    start, caplog, seconds_left, by
):
    auth = Auth()
    auth.verify_jwt = lambda token: {"sub": "u1", "exp": "tomorrow"}
    auth.seconds_left = seconds_left
    server = await start(serve("handler", auth))
    if by == "header":
        async with await Wire.connect(server) as wire:
            status, _ = await wire.response(upgrade("/ws", "Authorization: Bearer t0k3n"))
            assert status == 500
    else:
        async with await come(server, "t0k3n", by) as wire:
            assert await wire.closing() == (1011, "authentication failed")
    assert len(server._site.endpoint("/")._login._live) == 0
    assert [record.getMessage().startswith("the authenticator failed") for record in caplog.records] == [True]
    assert "t0k3n" not in caplog.text


# --- revocation -----------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["header", "message"])
async def test_a_token_that_is_revoked_while_its_authenticator_answers_does_not_come_in(start, by):
    auth = Slow()
    auth.first = False
    server = await start(serve("handler", auth))
    async with await Wire.connect(server) as wire:
        if by == "header":
            wire.send(upgrade("/ws", f"Authorization: Bearer {token()}"))
        else:
            wire.send(upgrade("/ws?auth=message"), refresh(token()))
        await auth.asked.acquire()
        auth.revocations.revoke_user("u1")
        auth.go.set()
        await wire.read_head()
        assert await wire.closing() == (4401, "token revoked")


async def test_a_new_token_that_is_revoked_while_its_authenticator_answers_ends_the_connection(start):
    auth = Slow()
    server = await start(serve("handler", auth))
    async with await come(server, token(jti="old")) as wire:
        await is_in(wire)
        wire.send(refresh(token(jti="new")))
        await auth.asked.acquire()
        auth.revocations.revoke_token("new")
        auth.go.set()
        assert await wire.closing() == (4401, "token revoked")


@pytest.mark.parametrize("by", ["user", "jti"])
@WAYS
async def test_a_revocation_in_any_thread_ends_the_connections_that_live_by_the_token(start, way, by):
    auth = Auth()
    server = await start(serve(way, auth))
    one, other = token("u1", jti="j1", iat=1), token("u2", jti="j2", iat=1)
    async with (
        await come(server, one) as wire,
        await come(server, one, "message") as too,
        await come(server, other) as stays,
    ):
        for client in (wire, too, stays):
            await is_in(client)
        revoke = (
            (lambda: auth.revocations.revoke_user("u1"))
            if by == "user"
            else (lambda: auth.revocations.revoke_token("j1"))
        )
        began = time.monotonic()
        thread = threading.Thread(target=revoke)
        thread.start()
        assert await wire.closing() == (4401, "token revoked")
        assert await too.closing() == (4401, "token revoked")
        assert time.monotonic() - began < 1
        await is_in(stays)
        thread.join()


async def test_a_refresh_takes_the_place_of_a_token_that_is_revoked_later(start):
    auth = Auth()
    server = await start(serve("handler", auth))
    async with await come(server, token(jti="old")) as wire:
        await is_in(wire)
        wire.send(refresh(token(jti="new")))
        await wire.message()
        assert list(server._site.endpoint("/")._login._live._by_jti) == ["new"]
        auth.revocations.revoke_token("old")
        await is_in(wire)
        auth.revocations.revoke_token("new")
        assert await wire.closing() == (4401, "token revoked")


async def test_what_is_kept_follows_the_connections(start):
    auth = Auth()
    server = await start(serve("handler", auth))
    live = server._site.endpoint("/")._login._live
    for _ in range(2):
        async with await come(server, token(jti="j")) as wire, await come(server, token(jti="j")) as too:
            await is_in(wire)
            await is_in(too)
            assert (len(live), len(live._by_user), len(live._by_jti)) == (2, 1, 1)
            assert len(auth.revocations._subscribers) == 1
            conns = server.connections
        for conn in conns:
            await conn.wait_closed()
        assert (len(live), live._by_user, live._by_jti) == (0, {}, {})
        assert len(auth.revocations._subscribers) == 0
    async with await come(server, token()) as wire:
        await is_in(wire)
        server.close()
        wire.send(close(1001))
        await server.wait_closed()
    assert len(auth.revocations._subscribers) == 0
