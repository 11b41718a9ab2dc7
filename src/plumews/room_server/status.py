"""Status of a room server over HTTP: the health check, and the list of rooms for the page.

Load balancers use the status of ``/healthz``. Many browsers poll the list of rooms, so it is made at most once a second
and has a bounded number of rooms. Room names may be private: a client that may not see them gets 204.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable
from typing import Any, Final, Literal, TypeAlias, get_args

from ..http11.models import Request, Response
from ..hub.hub import Hub
from ..server.routes import is_local

__all__ = ["RoomsTable", "check_rooms_table", "health_route", "room_list_route"]

#: Seconds between two lists, however many clients ask.
_LIST_INTERVAL: Final = 1.0

#: Rooms in the list, the largest first: a longer table is not readable.
_LIST_SIZE: Final = 100

#: Clients that see the list of rooms. ``local`` is a direct request from this machine.
RoomsTable: TypeAlias = Literal["nobody", "local", "everybody"]


def check_rooms_table(audience: str) -> None:
    """Raise ``ValueError`` unless ``audience`` is one of :data:`RoomsTable`."""
    if audience not in get_args(RoomsTable):
        raise ValueError(f"rooms_table must be one of {', '.join(get_args(RoomsTable))}, not {audience!r}")


def health_route(hub: Hub, *, broadcast_enabled: bool) -> Callable[[Request], Response]:
    """Return the route of ``/healthz``: 200 with ``"status": "ok"``, 503 with ``"stopping"`` once ``hub`` stops."""

    def answer(request: Request) -> Response:
        status, word = (503, "stopping") if hub._members.stopped else (200, "ok")
        health = {"status": word, "component": "websocket", "broadcast_enabled": broadcast_enabled}
        return Response.json(status, health, [("Cache-Control", "no-store")])

    return answer


def room_list_route(hub: Hub, audience: RoomsTable) -> Callable[[Request], Response]:
    """Return the route with the largest rooms of ``hub``. Clients outside of ``audience`` get 204."""
    room_list = _RoomList(hub)

    def answer(request: Request) -> Response:
        if audience == "nobody" or (audience == "local" and not is_local(request)):
            return Response(204, [("Cache-Control", "no-store")])
        return Response.json(200, room_list.latest(), [("Cache-Control", "no-store")])

    return answer


class _RoomList:
    """List of the largest rooms, at most one second old."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._latest: dict[str, Any] = {}
        self._due = 0.0

    def latest(self) -> dict[str, Any]:
        now = time.monotonic()
        if now >= self._due:
            self._latest = _rooms_of(self._hub)
            self._due = now + _LIST_INTERVAL
        return self._latest


def _rooms_of(hub: Hub) -> dict[str, Any]:
    names = hub.rooms()
    shown = [hub.inspect_room(name) for name in heapq.nlargest(_LIST_SIZE, names, key=hub.room_count)]
    return {
        "connections": hub.connection_count(),
        "rooms_total": len(names),
        "rooms": [
            {
                "name": room.name,
                "members": room.members,
                "backlogged": room.backlogged,
                "queued_messages": room.queued_messages,
                "queued_bytes": room.queued_bytes,
                "oldest_queued_age": round(room.oldest_queued_age, 1),
            }
            for room in shown
        ],
    }
