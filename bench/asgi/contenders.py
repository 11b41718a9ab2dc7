"""Contenders of the ASGI benchmark; ``servers.py`` has their servers. All of them run on uvloop."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import ClassVar

from ..broadcast import contenders as broadcast
from .scenarios import CONNECTS, ECHOES, IDLE, ROOM

ECHO_ROWS = (*(row.name for row in ECHOES), CONNECTS, IDLE)
ROOM_ROWS = (ROOM.name,)


@dataclass(frozen=True)
class Contender(broadcast.Contender):
    """An application on a WebSocket class. ``needs`` names packages beside that of the class."""

    servers: ClassVar[str] = "bench.asgi.servers"

    needs: tuple[str, ...] = ("uvicorn", "httptools")

    @property
    def name(self) -> str:
        """As it stands in bars and tables: the loop is the same for all."""
        return self.kind.replace("_", " ")

    @property
    def installed(self) -> bool:
        return super().installed and all(importlib.util.find_spec(package) is not None for package in self.needs)


FASTAPI_NEEDS = ("fastapi", "uvicorn", "httptools")


def contender(kind: str, package: str, rows: tuple[str, ...] = ECHO_ROWS, needs: tuple[str, ...] = ()) -> Contender:
    ours = package == "plumews"
    return Contender(kind, "uvloop", package, rows=rows, counted=ours, **({"needs": needs} if needs else {}))


BARE = "bare on plumews"
#: Bare applications on uvicorn's own classes, of which the cheapest is the peer.
OWN_CLASSES = ("bare on websockets sansio", "bare on wsproto", "bare on websockets")
FASTAPI, FASTAPI_SANSIO = "fastapi on plumews", "fastapi on websockets sansio"
SERVER = "plumews server"
HUB, LOOP, SERVER_ROOM = "fastapi room on plumews", "fastapi loop on websockets sansio", "plumews server room"

CONTENDERS: tuple[Contender, ...] = (
    contender("bare_on_plumews", "plumews"),
    contender("bare_on_websockets_sansio", "websockets"),
    contender("bare_on_wsproto", "wsproto"),
    contender("bare_on_websockets", "websockets"),
    contender("fastapi_on_plumews", "plumews", needs=FASTAPI_NEEDS),
    contender("fastapi_on_websockets_sansio", "websockets", needs=FASTAPI_NEEDS),
    contender("plumews_server", "plumews", needs=("plumews",)),
    contender("fastapi_room_on_plumews", "plumews", ROOM_ROWS, needs=FASTAPI_NEEDS),
    contender("fastapi_loop_on_websockets_sansio", "websockets", ROOM_ROWS, needs=FASTAPI_NEEDS),
    contender("plumews_server_room", "plumews", ROOM_ROWS, needs=("plumews",)),
)
