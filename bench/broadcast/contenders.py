"""Contenders of the broadcast benchmark; ``servers.py`` has their servers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..harness import contender
from .scenarios import MEMORY, ONE, SILENT, SIXTEEN

PLUMEWS = "plumews, uvloop"
DROP = "plumews drop, uvloop"
CLOSE = "plumews close, uvloop"
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
POLICY_ROWS = (*(row.name for row in (ONE, SIXTEEN, *SILENT)), MEMORY)

CONTENDERS: tuple[Contender, ...] = (
    Contender("plumews", "uvloop", "plumews", long=True),
    Contender("plumews_drop", "uvloop", "plumews", long=True, rows=POLICY_ROWS),
    Contender("plumews_close", "uvloop", "plumews", quick=False, long=True, rows=POLICY_ROWS),
    Contender("bare", None, "asyncio"),
    Contender("raw", "uvloop", "asyncio"),
    Contender("picows", "uvloop", "picows", long=True),
    Contender("socketify", None, "socketify", long=True),
    Contender("websockets", "uvloop", "websockets", quick=False, long=True),
    Contender("aiohttp", "uvloop", "aiohttp", quick=False),
    Contender("tornado", "uvloop", "tornado", quick=False),
)
