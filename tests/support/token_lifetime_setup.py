"""Servers that know a token, and clients that bring one and a new one, for tests of token lifetimes."""

from __future__ import annotations

import asyncio
import json
import time

import jwt
import pytest

import plumews
from plumews.auth.revocation import Revocations
from plumews.transport.loop_context import loop_context
from support.fakes import pass_time
from support.raw_client import Wire, text

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
    """Authenticator with revocations of its own."""

    def __init__(self, **options):
        super().__init__(SECRET, rounds=1, **options)
        self.revocations = Revocations()


class Slow(Auth):
    """Authenticator that verifies as a coroutine. From the second token on it waits for ``go``."""

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


class Clock:
    """Clock of an authenticator that a test moves."""

    def __init__(self):
        self.now = time.time()

    def __call__(self):
        return self.now

    def let_pass(self, seconds):
        """Move this clock and the loop's timer wheel by ``seconds``."""
        self.now += seconds
        pass_time(seconds)


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


async def connect(server, token, by="header"):
    if by == "header":
        return await Wire.open(server, "/ws", f"Authorization: Bearer {token}")
    wire = await Wire.open(server, "/ws?auth=message")
    wire.send(refresh(token))
    return wire


async def wait_admitted(wire):
    wire.send(text("hi"))
    while await wire.message() != "hi":
        pass


def assert_no_deadlines():
    assert len(loop_context(asyncio.get_running_loop()).timers) == 0
