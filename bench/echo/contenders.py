"""Who takes part: names and what has to be installed; how each one serves is in ``servers.py``."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

CALLBACK = "plumews callback, uvloop"
ASYNC_FOR = "plumews async for, uvloop"
PICOWS = "picows, uvloop"
RAW = "raw TCP, uvloop"


@dataclass(frozen=True)
class Contender:
    """One server: ``kind`` is its function in ``servers.py``, ``loop`` what it runs on."""

    kind: str
    loop: str | None
    package: str
    quick: bool = True  # takes part in a quick look

    @property
    def name(self) -> str:
        """As it stands in bars and tables."""
        words = self.kind.replace("_", " ").replace("raw", "raw TCP")
        return f"{words}, {self.loop}" if self.loop else words

    @property
    def raw(self) -> bool:
        """Sends back what it gets and knows nothing of WebSockets: the limit of the loop."""
        return self.kind == "raw"

    @property
    def ours(self) -> bool:
        return self.package == "plumews"

    @property
    def installed(self) -> bool:
        needed = {self.package, self.loop or "asyncio"}
        return all(importlib.util.find_spec(package) is not None for package in needed)


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
