"""Renewal of a token on a live connection: good ones extend, bad ones close, and no other client sees them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time

import jwt
import pytest

import plumews
from plumews import limits
from plumews.auth.token_lifetime import refuse
from plumews.counters import RequestCounters
from support.fakes import fake_conn
from support.raw_client import Wire, masked, text
from support.room_endpoint_setup import joined, rooms, say
from support.token_lifetime_setup import (
    MORE,
    SECRET,
    WAYS,
    Auth,
    Clock,
    Slow,
    assert_no_deadlines,
    connect,
    refresh,
    serve,
    token,
    wait_admitted,
)


@pytest.mark.parametrize("by", ["header", "message"])
@WAYS
async def test_row_34_renewal_extends_and_reaches_no_other_client(start, way, by):
    clock = Clock()
    server = await start(serve(way, Auth(clock=clock)))
    async with await connect(server, token(exp=clock.now + 1), by) as wire:
        await wait_admitted(wire)
        later = int(clock.now) + MORE
        # Order of the fields and blanks are the client's affair; so is what it says in the same read.
        said = f' {{"token": "{token(exp=later)}", "type" : "auth"}}'
        wire.send(text("before"), text(said), text("after"))
        got = [await wire.message() for _ in range(3)]
        assert [m for m in got if m[0] != "{"] == ["before", "after"]
        assert [json.loads(m) for m in got if m[0] == "{"] == [{"type": "auth", "ok": True, "exp": later}]
        clock.let_pass(2)
        await wait_admitted(wire)
        wire.send(refresh(token(exp=clock.now + 1)))  # it may be shortened, too
        assert json.loads(await wire.message())["ok"]
        clock.let_pass(1.1)
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
async def test_row_34_bad_renewal_is_4403_and_reaches_no_other_client(start, bad):
    fields, why = BAD[bad]
    hub = plumews.Hub()
    server = await start(serve("rooms", hub=hub))
    async with await connect(server, token()) as wire, await connect(server, token("other")) as other:
        await wait_admitted(wire)
        await wait_admitted(other)
        wire.send(text(json.dumps({"type": "auth", **fields})), text("too late"))
        code, reason = await wire.closing()
        assert code == 4403
        assert reason.startswith(why)
        await wait_admitted(other)  # and "hi" is the first thing it hears
    assert sum(hub._requests.refused.snapshot().values()) == 1


@pytest.mark.parametrize("by", ["header", "message"])
@pytest.mark.parametrize(
    ("first", "then"), [({}, {}), ({}, {"sub": "u1"}), ({"sub": ""}, {"sub": ""}), ({"jti": "a"}, {})]
)
async def test_token_without_a_sub_cannot_be_renewed(start, by, first, then):
    server = await start(serve("handler"))
    first, then = (jwt.encode(claims, SECRET, algorithm="HS256") for claims in (first, then))
    async with await connect(server, first, by) as wire:
        await wait_admitted(wire)
        wire.send(refresh(then))
        assert await wire.closing() == (4403, "forbidden: a token without a sub cannot be renewed")


async def test_ambiguous_renewal_is_4403_and_reaches_no_client(start):
    server = await start(serve("rooms"))
    for said in (f'{{"type": "auth", "token": "x", "token": "{token()}"}}', r'{"type": "auth", "token": "\ud800"}'):
        async with await connect(server, token()) as wire, await connect(server, token("other")) as other:
            await wait_admitted(other)
            wire.send(text(said))
            assert (await wire.closing())[0] == 4403
            await wait_admitted(other)


async def test_renewal_without_a_token_is_4403_after_auth_message(start):
    server = await start(serve("rooms"))
    async with await Wire.open(server, "/ws?auth=message") as wire:
        wire.send(text('{"type": "auth"}'), refresh(token()))
        assert await wire.closing() == (4403, "there is no token here that a new one could follow")


async def test_renewal_without_a_token_is_a_message_otherwise(start):
    server = await start(serve("rooms"))
    async with await Wire.open(server, "/ws") as wire:
        wire.send(refresh("x"))
        assert json.loads(await wire.message()) == {"type": "auth", "token": "x"}
        assert all(conn._filter is None for conn in server.connections)


@pytest.mark.parametrize(
    "said", ['"auth"', '{"type": "authors"}', '{"auth": 1}', '{"type": ["auth"]}', '{"auth"', "{}"]
)
async def test_messages_similar_to_a_renewal_pass(start, said):
    server = await start(serve("rooms"))
    async with await connect(server, token()) as wire:
        wire.send(text(said), masked(2, said.encode()))
        assert [await wire.message(), await wire.message()] == [said, said.encode()]


async def test_renewal_updates_the_presence_of_the_user(start):
    hub = plumews.Hub()
    server = await start(serve("rooms", hub=hub))
    async with await connect(server, token(name="Ada")) as wire:
        await wait_admitted(wire)
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


async def test_second_renewal_during_a_verification_is_4403(start):
    auth = Slow()
    server = await start(serve("handler", auth))
    async with await connect(server, token()) as wire:
        await wait_admitted(wire)
        wire.send(refresh(token(exp=time.time() + MORE)))
        await auth.asked.acquire()
        await wait_admitted(wire)  # who waits for nobody
        auth.go.set()
        assert json.loads(await wire.message())["ok"]
        auth.go.clear()
        wire.send(refresh(token()), refresh(token()))
        assert await wire.closing() == (4403, "one new token at a time")


async def test_renewal_that_takes_too_long_is_4408_and_logged(start, monkeypatch, caplog):
    caplog.set_level("INFO", "plumews.server")
    auth = Slow()
    server = await start(serve("handler", auth))
    async with await connect(server, token()) as wire:
        await wait_admitted(wire)
        monkeypatch.setattr(limits, "OPEN_TIMEOUT", 0.05)
        wire.send(refresh(token()))
        assert await wire.closing() == (4408, "authentication took too long")
    assert "refused by close code 4408 WEBSOCKET_HANDSHAKE_TIMEOUT [" in caplog.text


async def test_renewal_beyond_16_kib_is_an_ordinary_message(start):
    server = await start(serve("rooms"))
    longest = refresh("x" * (limits.HEAD_SIZE - len(json.dumps({"type": "auth", "token": ""}))))
    longer = {"type": "auth", "token": "x" * limits.HEAD_SIZE}
    async with await connect(server, token()) as wire:
        wire.send(text(json.dumps(longer)), longest)
        assert json.loads(await wire.message()) == longer
        assert (await wire.closing())[0] == 4403


@pytest.mark.parametrize("stubborn", [False, True])
async def test_renewal_is_closed_if_the_authenticator_cancels_or_hangs(start, monkeypatch, stubborn):
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
    async with await connect(server, token()) as wire:
        await wait_admitted(wire)
        wire.send(refresh(token()))
        expected = (4408, "authentication took too long") if stubborn else (1011, "authentication failed")
        assert await asyncio.wait_for(wire.closing(), 5) == expected
    over.set()


async def test_client_that_leaves_during_its_renewal_leaves_nothing(start):
    auth = Slow()
    server = await start(serve("handler", auth))
    async with await connect(server, token()) as wire:
        await wait_admitted(wire)
        wire.send(refresh(token()))
        await auth.asked.acquire()
        (conn,) = server.connections
        login = server._context.endpoint("/")._authentication
        wire.reset()
        await conn.wait_closed()
        while login._refresh._tasks:
            await asyncio.sleep(0)
    server.close()
    await server.wait_closed()
    assert_no_deadlines()


# --- close codes and reasons ----------------------------------------------------------------------


class Wordy(plumews.SimpleRoomAuth):
    """Authenticator whose error is longer than a close frame can carry."""

    def verify_jwt(self, token):
        raise plumews.InvalidToken("\u00e9" * 200)


async def test_reason_beyond_a_close_frame_is_cut_on_a_character(start):
    server = await start(rooms(auth=Wordy()))
    async with await joined(server, "/ws?auth=message") as wire:
        wire.send(say(token="x"))
        code, reason = await wire.closing()
        assert code == 4403
        assert reason.startswith("forbidden: invalid token (invalid jwt: \u00e9\u00e9")
        assert 122 <= len(reason.encode()) <= 123


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (401, 4401, "why"),
        (403, 4403, "why"),
        (400, 4403, "why"),
        (408, 4408, "why"),
        (429, 1013, "why"),
        (503, 1013, "why"),
        (500, 1011, "authentication failed"),  # a failure of ours is not explained
    ],
)
async def test_status_of_a_refusal_becomes_a_close_code_and_is_counted(status, code, said):
    conn, transport = fake_conn()
    counters = RequestCounters()
    refuse(conn, plumews.Refused("why", status=status, code="A_WORD"), counters)
    assert transport.events() == [(plumews.Opcode.CLOSE, (code, said))]
    assert counters.refused.snapshot() == {"A_WORD": 1}
    conn.abort()
