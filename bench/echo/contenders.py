"""Contenders of the echo benchmark; ``servers.py`` has their servers."""

from __future__ import annotations

from typing import ClassVar

from ..harness import contender

CALLBACK = "plumews callback, uvloop"
ASYNC_FOR = "plumews async for, uvloop"
CALLBACK_ASYNCIO = "plumews callback, asyncio"
PICOWS = "picows, uvloop"
PICOWS_ASYNCIO = "picows, asyncio"
RAW = "raw TCP, uvloop"


class Contender(contender.Contender):
    """A server that sends back what it gets."""

    servers: ClassVar[str] = "bench.echo.servers"


CONTENDERS: tuple[Contender, ...] = (
    Contender("plumews_callback", "uvloop", "plumews", tls=True, counted=True),
    Contender("plumews_async_for", "uvloop", "plumews", tls=True, counted=True),
    Contender("raw", "uvloop", "asyncio", tls=True, counted=True),
    Contender("picows", "uvloop", "picows", tls=True, counted=True),
    Contender("websockets", "uvloop", "websockets", tls=True),
    Contender("aiohttp", "uvloop", "aiohttp", tls=True),
    Contender("tornado", "uvloop", "tornado"),
    Contender("socketify", None, "socketify", counted=True),
    Contender("plumews_callback", "asyncio", "plumews", quick=False, counted=True),
    Contender("plumews_async_for", "asyncio", "plumews", quick=False, counted=True),
    Contender("raw", "asyncio", "asyncio", quick=False),
    Contender("picows", "asyncio", "picows", quick=False, counted=True),
)
