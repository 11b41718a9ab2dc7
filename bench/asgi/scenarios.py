"""Scenarios of the ASGI benchmark: rows of the echo and of the broadcast benchmark."""

from __future__ import annotations

from ..broadcast.scenarios import SIXTEEN as ROOM
from ..echo.scenarios import ALONE, CONNECTS, IDLE, LARGE, MANY_SMALL

__all__ = ["ALONE", "CONNECTS", "ECHOES", "IDLE", "LARGE", "MANY_SMALL", "NAMES", "ROOM"]

ECHOES = (ALONE, MANY_SMALL, LARGE)

#: All of them, by name, in the order of the report.
NAMES: tuple[str, ...] = (*(row.name for row in ECHOES), CONNECTS, IDLE, ROOM.name)
