"""A room with a password, clients that ask to enter, and an authorizer that waits, for tests of room endpoints."""

from __future__ import annotations

import asyncio
import json
import threading

import jwt

import plumews
from support.raw_client import Wire, text, upgrade

SECRET = b"s3cret" * 8
AUTH = plumews.SimpleRoomAuth(SECRET, rounds=1, clock=lambda: 1000.0)
AUTH.set_room_password("vault", "open sesame")


def token(**claims):
    return jwt.encode({"sub": "u1", **claims}, SECRET, algorithm="HS256")


def rooms(hub=None, auth=AUTH, **options):
    options.setdefault("allow_query_secrets", True)
    return plumews.serve_rooms(hub or plumews.Hub(), auth, "127.0.0.1", 0, **options)


def say(password=None, token=None):
    return text(json.dumps({"type": "auth", "password": password, "token": token}))


async def refused(server, target, *lines):
    """Return status, code, message and response of a refusal."""
    async with await Wire.connect(server) as wire:
        status, body = await wire.response(upgrade(target, *lines))
        error = json.loads(body)["error"]
        assert error["status"] == status
        return status, error["code"], error["message"], wire


async def joined(server, target, *lines):
    wire = await Wire.open(server, target, *lines)
    if "auth=message" not in target:
        wire.send(text("hello"))
        assert await wire.message() == "hello"
    return wire


async def checked_together(server, auth, count):
    """Let ``auth`` answer once ``count`` clients with the same password share one check."""
    await auth.until(1)
    while len(server._context.tasks) < count:
        await asyncio.sleep(0)
    auth.release.set()


class SlowAuth(plumews.SimpleRoomAuth):
    """Authorizer whose checks wait for ``release``. ``until(n)`` waits until n of them have begun."""

    def __init__(self):
        super().__init__()
        self.loop = asyncio.get_running_loop()
        self.release = threading.Event()
        self.begun = asyncio.Semaphore(0)
        self.checked = []
        self.now = self.most = 0
        self.lock = threading.Lock()

    def has_room_password(self, room):
        return room != "open"

    def check_room_password(self, room, password):
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
            self.checked.append(password)
        self.loop.call_soon_threadsafe(self.begun.release)
        self.release.wait(30)
        with self.lock:
            self.now -= 1
        return password == "right"

    async def until(self, count):
        for _ in range(count):
            await self.begun.acquire()
