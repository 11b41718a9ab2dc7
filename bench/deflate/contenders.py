"""Contenders of the deflate benchmark, with their parameters; ``servers.py`` has their servers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..harness import contender
from .messages import LEVEL, MEM_LEVEL, WINDOW_BITS
from .scenarios import BROADCASTS, ECHOES, IDLE, OFFER

PLUMEWS = "plumews, uvloop"
ASYNC_FOR = "plumews async for, uvloop"
LEVEL_1 = "plumews level 1, uvloop"
PLAIN = "plumews plain, uvloop"
WEBSOCKETS = "websockets, uvloop"
AIOHTTP = "aiohttp, uvloop"
AIOHTTP_LEVEL_6 = "aiohttp level 6, uvloop"
TORNADO = "tornado, uvloop"
PICOWS = "picows, uvloop"


@dataclass(frozen=True)
class Contender(contender.Contender):
    """A server that compresses, and how: where a parameter is not the one that is wanted, the library fixes another."""

    servers: ClassVar[str] = "bench.deflate.servers"

    level: int = LEVEL
    mem_level: int = MEM_LEVEL
    window_bits: int = WINDOW_BITS  # of what it compresses; what it agrees to has to say the same
    plain: bool = False  # does not compress, and is offered nothing
    remark: str = ""
    rows: tuple[str, ...] = ()  # takes part in these only, if there are any

    def takes(self, scenario: str) -> bool:
        """Return True if it is measured in ``scenario``."""
        return not self.rows or scenario in self.rows

    @property
    def differs(self) -> str:
        """Return the difference of its parameters from the wanted ones; empty if there is none."""
        words = [
            f"{name} {value}"
            for name, value, wanted in (
                ("level", self.level, LEVEL),
                ("memory level", self.mem_level, MEM_LEVEL),
                ("window bits", self.window_bits, WINDOW_BITS),
            )
            if value != wanted and not self.plain
        ]
        return ", ".join([*words, self.remark] if self.remark else words)

    def refuses(self, agreed: str) -> str | None:
        """Return an error in its negotiated parameters, or ``None``."""
        if self.plain:
            return f"agreed to {agreed} without an offer" if agreed else None
        name, *parameters = (word.strip() for word in agreed.split(";"))
        bits = next((word.partition("=")[2] for word in parameters if word.startswith("server_max_window_bits=")), "15")
        if name != "permessage-deflate" or "server_no_context_takeover" not in parameters:
            return f"agreed to {agreed or 'nothing'}, where {OFFER} was offered"
        if bits != str(self.window_bits):
            return f"agreed to a window of {bits} bits, where {self.window_bits} were expected"
        return None


_ECHOES = tuple(row.name for row in ECHOES)

CONTENDERS: tuple[Contender, ...] = (
    Contender("plumews", "uvloop", "plumews"),
    Contender("plumews_async_for", "uvloop", "plumews", rows=(*_ECHOES, IDLE)),
    Contender(
        "plumews_level_1", "uvloop", "plumews", level=1, mem_level=8, rows=_ECHOES, remark="to stand beside aiohttp"
    ),
    Contender("plumews_plain", "uvloop", "plumews", plain=True, rows=(IDLE,), remark="not compressed"),
    Contender("websockets", "uvloop", "websockets"),
    Contender("aiohttp", "uvloop", "aiohttp", level=1, mem_level=8),
    Contender("aiohttp_level_6", "uvloop", "aiohttp", remark="through another back end"),
    Contender("tornado", "uvloop", "tornado", remark="helped to see that no context is kept"),
    Contender("picows", "uvloop", "picows", mem_level=8, remark="its server for users of websockets"),
    Contender("socketify", None, "socketify", mem_level=8, window_bits=15),
)

#: Python libraries, level 6 as we do; the cheapest is the best peer of the echo.
EQUALS = (WEBSOCKETS, AIOHTTP_LEVEL_6, TORNADO, PICOWS)
#: Python libraries, whatever they do; the cheapest is the best peer of the broadcast.
PEERS = (*EQUALS, AIOHTTP)

assert set(PEERS) <= {one.name for one in CONTENDERS}
assert all(one.takes(row.name) for one in CONTENDERS if one.name in PEERS for row in (*ECHOES, *BROADCASTS))
