"""Contenders of the client benchmark; ``clients.py`` has them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..harness import contender
from .scenarios import BESIDE_UWS, CONNECTS, CROWDS, ROWS

TLS_ROWS = tuple(row.name for row in ROWS if row.tls)
ASYNC_ROWS = tuple(row.name for row in ROWS if not row.blocking)
BLOCKING_ROWS = tuple(row.name for row in ROWS if row.blocking)


@dataclass(frozen=True)
class Contender(contender.Contender):
    """A client. ``rows`` are those that it takes part in."""

    servers: ClassVar[str] = "bench.client.clients"

    rows: tuple[str, ...] = ASYNC_ROWS

    def takes(self, scenario: str) -> bool:
        return scenario in self.rows


CALLBACK, CALLBACK_ASYNCIO = "plumews callback, uvloop", "plumews callback, asyncio"
RECV, RECV_ASYNCIO = "plumews recv, uvloop", "plumews recv, asyncio"
PICOWS, PICOWS_WEBSOCKETS = "picows, uvloop", "picows websockets, uvloop"
#: Over the event loop's own TLS; :data:`PICOWS` takes aiofastnet where that is installed.
PICOWS_LOOP_TLS = "picows without aiofastnet, uvloop"
WEBSOCKETS, WEBSOCKETS_ASYNCIO = "websockets, uvloop", "websockets, asyncio"
SYNC, WEBSOCKETS_SYNC, WEBSOCKET_CLIENT = "plumews sync", "websockets sync", "websocket client"

ALL_ROWS = (*ASYNC_ROWS, *CROWDS)
#: On asyncio's loop, where that is a bar or might surprise.
ASYNCIO_ROWS = (*(row.name for row in BESIDE_UWS if not row.blocking), CONNECTS)

CONTENDERS: tuple[Contender, ...] = (
    Contender("plumews_callback", "uvloop", "plumews", counted=True, rows=ALL_ROWS),
    Contender("plumews_recv", "uvloop", "plumews", counted=True, rows=ALL_ROWS),
    Contender("plumews_async_for", "uvloop", "plumews"),
    Contender("raw", "uvloop", "asyncio", counted=True),
    Contender("picows", "uvloop", "picows", counted=True, rows=ALL_ROWS),
    Contender("picows_without_aiofastnet", "uvloop", "picows", rows=TLS_ROWS),
    Contender("picows_websockets", "uvloop", "picows", counted=True),
    Contender("websockets", "uvloop", "websockets", counted=True, rows=ALL_ROWS),
    Contender("aiohttp", "uvloop", "aiohttp"),
    Contender("plumews_callback", "asyncio", "plumews", quick=False, rows=ASYNCIO_ROWS),
    Contender("plumews_recv", "asyncio", "plumews", quick=False, rows=ASYNCIO_ROWS),
    Contender("plumews_async_for", "asyncio", "plumews", quick=False, rows=ASYNCIO_ROWS[:-1]),
    Contender("websockets", "asyncio", "websockets", quick=False, rows=ASYNCIO_ROWS),
    Contender("plumews_sync", None, "plumews", counted=True, rows=BLOCKING_ROWS),
    Contender("websockets_sync", None, "websockets", rows=BLOCKING_ROWS),
    Contender("websocket_client", None, "websocket", counted=True, rows=BLOCKING_ROWS),
    Contender("raw_blocking", None, "socket", rows=BLOCKING_ROWS),
)
