"""Hubs with a history, and members without sockets, for tests of positions and recovery."""

from __future__ import annotations

from typing import Any

import plumews
from plumews import HistoryLimits, Hub, HubConfig, Position
from support.fakes import FakeTransport, fake_conn

#: Position of the start of any history.
START = Position("", 0)


def remembering(**config: Any) -> Hub:
    """Return a hub that keeps a history of each room."""
    return Hub(HubConfig(**{"history": HistoryLimits(), **config}))


def position(hub: Hub, room: str = "chat") -> Position:
    """Return the position of ``room``, which has a history."""
    found = hub.position(room)
    assert found is not None
    return found


def newcomer(**config: Any) -> tuple[plumews.Conn, FakeTransport]:
    """Return a connection in no room, and its transport."""
    return fake_conn(**{"ping_interval": None, **config})
