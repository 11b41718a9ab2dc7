"""Servers, clients and checks of leftovers, for tests of the opening handshake."""

from __future__ import annotations

import json

from support.raw_client import Wire, text


def error(body):
    said = json.loads(body)["error"]
    return {key: said[key] for key in ("code", "message", "status")}


async def answer(server, request):
    """Status, error and headers of the answer to ``request``; the server has ended the connection behind it."""
    async with await Wire.connect(server) as wire:
        status, body = await wire.response(request)
        return status, error(body), wire


async def assert_serves(server, path="/"):
    async with await Wire.open(server, path) as wire:
        wire.send(text("alive"))
        assert await wire.message() == "alive"


class Recorder:
    """An endpoint whose ``admit`` and ``opened`` are what a test wants."""

    def __init__(self, admit=lambda conn, request: None, opened=lambda conn, deadline: None):
        self.admit = admit
        self.opened = opened


def failing(*args):
    raise RuntimeError("broken hook")
