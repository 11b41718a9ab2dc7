"""Servers with their own accept loop, and the answers to rejected clients, for tests of the listener."""

from __future__ import annotations

import json


def code_of(body: bytes) -> str:
    code: str = json.loads(body)["error"]["code"]
    return code


def refused(server):
    return server._context.requests.refused.snapshot()


async def answer(wire):
    """Return the server's answer to a client that has sent nothing."""
    await wire.read_head()
    return wire.status, code_of(await wire.reader.read())
