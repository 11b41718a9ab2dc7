"""Contenders of the broadcast benchmark; ``servers.py`` has their servers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..harness import contender
from .scenarios import MEMORY, ONE, ROWS, SILENT, SIXTEEN

PLUMEWS = "plumews, uvloop"
DROP = "plumews drop, uvloop"
CLOSE = "plumews close, uvloop"
DROP_OLDEST = "plumews drop oldest, uvloop"
CONFLATE = "plumews conflate, uvloop"
ASYNC_FOR = "plumews async for, uvloop"
ASYNC_FOR_DROP = "plumews async for drop, uvloop"
ASYNC_FOR_CLOSE = "plumews async for close, uvloop"
ASYNC_FOR_DROP_OLDEST = "plumews async for drop oldest, uvloop"
ASYNC_FOR_CONFLATE = "plumews async for conflate, uvloop"
PICOWS = "picows, uvloop"
SOCKETIFY = "socketify"
RAW = "raw TCP, uvloop"
BARE = "bare C"


@dataclass(frozen=True)
class Contender(contender.Contender):
    """A server that broadcasts what the publisher sends."""

    servers: ClassVar[str] = "bench.broadcast.servers"

    rows: tuple[str, ...] = ()  # takes part in these only, if there are any
    long: bool = False  # takes part in what takes long

    @property
    def name(self) -> str:
        return BARE if self.kind == "bare" else super().name

    @property
    def raw(self) -> bool:
        """Knows no frames: it is sent those that the members are to get."""
        return self.kind in ("raw", "bare")

    def takes(self, scenario: str) -> bool:
        """Return True if it is measured in ``scenario``."""
        return not self.rows or scenario in self.rows


#: Where the send behavior of a member matters, and what that is compared with.
COST_ROWS = tuple(row.name for row in (ONE, SIXTEEN, *SILENT))
POLICY_ROWS = (*COST_ROWS, MEMORY)
#: Where members are coroutines that wait in ``async for``.
ASYNC_FOR_ROWS = tuple(row.name for row in ROWS)

CONTENDERS: tuple[Contender, ...] = (
    Contender("plumews", "uvloop", "plumews", long=True, counted=True),
    Contender("plumews_async_for", "uvloop", "plumews", rows=ASYNC_FOR_ROWS, counted=True),
    Contender("plumews_drop", "uvloop", "plumews", long=True, rows=POLICY_ROWS),
    Contender("plumews_close", "uvloop", "plumews", quick=False, long=True, rows=POLICY_ROWS),
    Contender("plumews_drop_oldest", "uvloop", "plumews", quick=False, rows=COST_ROWS),
    Contender("plumews_conflate", "uvloop", "plumews", quick=False, rows=COST_ROWS),
    Contender("plumews_async_for_drop", "uvloop", "plumews", quick=False, rows=ASYNC_FOR_ROWS),
    Contender("plumews_async_for_close", "uvloop", "plumews", quick=False, rows=ASYNC_FOR_ROWS),
    Contender("plumews_async_for_drop_oldest", "uvloop", "plumews", quick=False, rows=COST_ROWS),
    Contender("plumews_async_for_conflate", "uvloop", "plumews", quick=False, rows=COST_ROWS),
    Contender("bare", None, "asyncio", counted=True),
    Contender("raw", "uvloop", "asyncio", counted=True),
    Contender("picows", "uvloop", "picows", long=True, counted=True),
    Contender("socketify", None, "socketify", long=True, counted=True),
    Contender("websockets", "uvloop", "websockets", quick=False, long=True),
    Contender("aiohttp", "uvloop", "aiohttp", quick=False),
    Contender("tornado", "uvloop", "tornado", quick=False),
)
