"""What the tests of our own accept share: who answers inside, and what is told to those who stay outside."""

from __future__ import annotations

import json


def code_of(body: bytes) -> str:
    code: str = json.loads(body)["error"]["code"]
    return code


def refused(server):
    return server._site.requests.refused.snapshot()


async def answer(wire):
    """What the server says to a client that has said nothing."""
    await wire.read_head()
    return wire.status, code_of(await wire.reader.read())
