"""Rooms and broadcasts in one process: members, presence, history, slow members, shutdown.

May import the root vocabulary and the packages up to ``conn``. Imports neither ``auth`` nor ``server``. Public names:
`Hub` with `HubConfig` and `Member`, `HistoryLimits`, `Position` and `Recovery`, and the types of its results.

A member is a connection in a room, a user the owner of connections, and a fan-out one broadcast on its way to its
members. Broadcasts are carried by cooperative workers on the event loop.

`broadcaster` has the rule that no direct send overtakes a broadcast. `fanout` counts each delivery as queued, dropped
or skipped. `slow_members` delivers to a member whose queue is full.
"""

from __future__ import annotations

from ..position import Position
from .config import HubConfig
from .history import HistoryLimits, Recovery
from .hub import Hub
from .member import Member
from .metrics import HubMetrics
from .presence import RoomPresence, UserPresence
from .results import BroadcastResult, Gap, MemberInfo, RoomInfo
from .rooms import validate_room_name

__all__ = [
    "BroadcastResult",
    "Gap",
    "HistoryLimits",
    "Hub",
    "HubConfig",
    "HubMetrics",
    "Member",
    "MemberInfo",
    "Position",
    "Recovery",
    "RoomInfo",
    "RoomPresence",
    "UserPresence",
    "validate_room_name",
]
