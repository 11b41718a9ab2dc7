"""Lifetime of a token on a live connection: expiry, revocation, and what is kept of it."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

import plumews
from plumews.auth.revocation import Revocations
from plumews.transport.loop_context import loop_context
from support.fakes import pass_time, ticks
from support.raw_client import Wire, close, upgrade
from support.token_lifetime_setup import (
    MORE,
    SECRET,
    WAYS,
    Auth,
    Clock,
    Slow,
    assert_no_deadlines,
    connect,
    ends_in,
    refresh,
    serve,
    token,
    wait_admitted,
)

# --- exp ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["header", "message"])
@WAYS
async def test_row_34_exp_ends_the_connection_whatever_the_source(start, way, by):
    clock = Clock()
    server = await start(serve(way, Auth(clock=clock)))
    async with await connect(server, token(exp=clock.now + 1), by) as wire:
        await wait_admitted(wire)
        clock.let_pass(0.9)
        await wait_admitted(wire)
        clock.let_pass(0.2)
        assert await wire.closing() == (4401, "jwt expired")
        wire.send(close(4401))
        await wire.eof()
    server.close()
    await server.wait_closed()
    assert_no_deadlines()


async def test_row_34_exp_ends_the_connection_within_a_second(start):
    server = await start(serve("rooms"))
    exp = time.time() + 0.3
    async with await connect(server, token(exp=exp)) as wire:
        await wait_admitted(wire)
        assert await wire.closing() == (4401, "jwt expired")
        assert exp <= time.time() < exp + 1


async def test_leeway_and_clock_of_the_authenticator_count(start):
    now = [1000.0]
    server = await start(serve("handler", Auth(leeway=10, clock=lambda: now[0])))
    async with await connect(server, token(exp=990.3)) as wire:
        await wait_admitted(wire)
        now[0] = 1000.31
        assert await wire.closing() == (4401, "jwt expired")
    async with await connect(server, token(exp=1000)) as wire:
        await wait_admitted(wire)


async def test_token_without_exp_does_not_end_and_has_no_deadline(start):
    server = await start(serve("handler"))
    before = len(loop_context(asyncio.get_running_loop()).timers)
    async with await connect(server, token()) as wire, await connect(server, ends_in(MORE)) as other:
        await wait_admitted(wire)
        await wait_admitted(other)
        keepalives = 2
        assert len(loop_context(asyncio.get_running_loop()).timers) == before + keepalives + 1


async def test_token_that_ends_during_another_check_is_closed(start):
    now = [1000.0]

    class Slow(Auth):
        async def check_room_password(self, room, password):
            now[0] = 2000.0
            pass_time(1)  # the deadline that stands is over before it is asked for
            await ticks()
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


@pytest.mark.parametrize("by", ["header", "message"])
@pytest.mark.parametrize("seconds_left", [lambda claims: float(claims["exp"]), lambda claims: "soon"])
async def test_failing_seconds_left_is_500_or_1011_and_leaves_nothing(start, caplog, seconds_left, by):
    auth = Auth()
    auth.verify_jwt = lambda token: {"sub": "u1", "exp": "tomorrow"}
    auth.seconds_left = seconds_left
    server = await start(serve("handler", auth))
    if by == "header":
        async with await Wire.connect(server) as wire:
            status, _ = await wire.response(upgrade("/ws", "Authorization: Bearer t0k3n"))
            assert status == 500
    else:
        async with await connect(server, "t0k3n", by) as wire:
            assert await wire.closing() == (1011, "authentication failed")
    assert len(server._context.endpoint("/")._authentication._tokens) == 0
    assert [record.getMessage().startswith("the authenticator failed") for record in caplog.records] == [True]
    assert "t0k3n" not in caplog.text


# --- revocation -----------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["header", "message"])
async def test_token_revoked_during_its_verification_is_closed(start, by):
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


async def test_renewal_revoked_during_its_verification_is_closed(start):
    auth = Slow()
    server = await start(serve("handler", auth))
    async with await connect(server, token(jti="old")) as wire:
        await wait_admitted(wire)
        wire.send(refresh(token(jti="new")))
        await auth.asked.acquire()
        auth.revocations.revoke_token("new")
        auth.go.set()
        assert await wire.closing() == (4401, "token revoked")


@pytest.mark.parametrize("by", ["user", "jti"])
@WAYS
async def test_revocation_in_another_thread_ends_the_connections(start, way, by):
    auth = Auth()
    server = await start(serve(way, auth))
    one, other = token("u1", jti="j1", iat=1), token("u2", jti="j2", iat=1)
    async with (
        await connect(server, one) as wire,
        await connect(server, one, "message") as too,
        await connect(server, other) as stays,
    ):
        for client in (wire, too, stays):
            await wait_admitted(client)
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
        await wait_admitted(stays)
        thread.join()


@pytest.mark.parametrize(("leeway", "ended"), [(30, True), (0, False), ("30 s", False)])
async def test_leeway_of_an_authenticator_counts_for_revocations(start, leeway, ended):
    class Own:
        def __init__(self):
            self.revocations, self.leeway = Revocations(), leeway

        def verify_jwt(self, token):
            return {"sub": token, "iat": time.time() + 20}

    auth = Own()
    server = await start(serve("handler", auth))
    async with await connect(server, "u1") as wire:
        await wait_admitted(wire)
        auth.revocations.revoke_user("u1")
        if ended:
            assert await wire.closing() == (4401, "token revoked")
        else:
            await wait_admitted(wire)


@pytest.mark.parametrize("by", ["header", "message", "refresh"])
@WAYS
async def test_revoke_user_ends_connections_with_iat_ahead(start, way, by):
    auth = plumews.SimpleRoomAuth(SECRET, leeway=30)
    server = await start(serve(way, auth))
    early = token(iat=time.time() + 20)
    async with (
        await connect(server, token() if by == "refresh" else early, "header" if by == "refresh" else by) as wire,
        await connect(server, token("u2", iat=time.time() + 20)) as stays,
    ):
        await wait_admitted(wire)
        if by == "refresh":
            wire.send(refresh(early))
            while await wire.message() != '{"type": "auth", "ok": true, "exp": null}':
                pass
        auth.revoke_user("u1")
        assert await wire.closing() == (4401, "token revoked")
        await wait_admitted(stays)
    async with await Wire.connect(server) as wire:
        status, body = await wire.response(upgrade("/ws", f"Authorization: Bearer {early}"))
        assert (status, b"it was revoked" in body) == (403, True)


async def test_renewed_connection_survives_revocation_of_its_old_token(start):
    auth = Auth()
    server = await start(serve("handler", auth))
    async with await connect(server, token(jti="old")) as wire:
        await wait_admitted(wire)
        wire.send(refresh(token(jti="new")))
        await wire.message()
        assert list(server._context.endpoint("/")._authentication._tokens._by_jti) == ["new"]
        auth.revocations.revoke_token("old")
        await wait_admitted(wire)
        auth.revocations.revoke_token("new")
        assert await wire.closing() == (4401, "token revoked")


async def test_registry_and_subscription_follow_the_connections(start):
    auth = Auth()
    server = await start(serve("handler", auth))
    live = server._context.endpoint("/")._authentication._tokens
    for _ in range(2):
        async with await connect(server, token(jti="j")) as wire, await connect(server, token(jti="j")) as too:
            await wait_admitted(wire)
            await wait_admitted(too)
            assert (len(live), len(live._by_user), len(live._by_jti)) == (2, 1, 1)
            assert len(auth.revocations._subscribers) == 1
            conns = server.connections
        for conn in conns:
            await conn.wait_closed()
        assert (len(live), live._by_user, live._by_jti) == (0, {}, {})
        assert len(auth.revocations._subscribers) == 0
    async with await connect(server, token()) as wire:
        await wait_admitted(wire)
        server.close()
        wire.send(close(1001))
        await server.wait_closed()
    assert len(auth.revocations._subscribers) == 0
