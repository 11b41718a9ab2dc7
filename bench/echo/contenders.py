"""Contenders of the echo benchmark; ``servers.py`` has their servers."""

from __future__ import annotations

from typing import ClassVar

from ..harness import contender

CALLBACK = "plumews callback, uvloop"
ASYNC_FOR = "plumews async for, uvloop"
PICOWS = "picows, uvloop"
RAW = "raw TCP, uvloop"


class Contender(contender.Contender):
    """A server that sends back what it gets."""

    servers: ClassVar[str] = "bench.echo.servers"


CONTENDERS: tuple[Contender, ...] = (
    Contender("plumews_callback", "uvloop", "plumews"),
    Contender("plumews_async_for", "uvloop", "plumews"),
    Contender("raw", "uvloop", "asyncio"),
    Contender("picows", "uvloop", "picows"),
    Contender("websockets", "uvloop", "websockets"),
    Contender("aiohttp", "uvloop", "aiohttp"),
    Contender("tornado", "uvloop", "tornado"),
    Contender("socketify", None, "socketify"),
    Contender("plumews_callback", "asyncio", "plumews", quick=False),
    Contender("plumews_async_for", "asyncio", "plumews", quick=False),
    Contender("raw", "asyncio", "asyncio", quick=False),
    Contender("picows", "asyncio", "picows", quick=False),
)
