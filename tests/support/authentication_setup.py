"""Servers that tell each client its user, and clients that ask, for tests of authentication."""

from __future__ import annotations

import json

import jwt

import plumews
from support.raw_client import Wire, text, upgrade

SECRET = b"s3cret" * 8
AUTH = plumews.SimpleRoomAuth(SECRET, rounds=1, clock=lambda: 1000.0)
ORIGIN = "Origin: http://localhost"


def token(**claims):
    return jwt.encode({"sub": "u1", **claims}, SECRET, algorithm="HS256")


async def whoami(conn):
    async for message in conn:
        await conn.send(f"{conn.user_info.id if conn.user_info else '-'}: {message}")


def serve(kind, **options):
    """Return a server that tells each client its user id."""
    if kind == "rooms":
        return plumews.serve_rooms(plumews.Hub(), AUTH, "127.0.0.1", 0, handler=whoami, **options)
    return plumews.serve(whoami, "127.0.0.1", 0, authenticator=AUTH, **options)


async def known_as(server, target="/ws", *lines, message=None):
    async with await Wire.open(server, target, *lines) as wire:
        if message is not None:
            wire.send(text(json.dumps({"type": "auth", **message})))
        wire.send(text("hi"))
        said = await wire.message()
        return said if said.endswith(": hi") else await wire.message()


async def refused(server, target="/ws", *lines):
    async with await Wire.connect(server) as wire:
        status, body = await wire.response(upgrade(target, *lines))
        return status, json.loads(body)["error"]["code"]


WAYS = {
    "header": ("/ws", [f"Authorization: Bearer {token()}"], None),
    "subprotocol": ("/ws", [f"Sec-WebSocket-Protocol: plumews, bearer.{token()}"], None),
    "cookie": ("/ws", [f"Cookie: a=b; login={token()}", ORIGIN], None),
    "message": ("/ws?auth=message", [], {"token": token()}),
    "query": (f"/ws?token={token()}", [], None),
}
