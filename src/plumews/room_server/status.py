"""The rooms of a hub as JSON, for the table on the page (layer 5).

Browsers ask again and again, as many as there are: the list is made once a second at most, and has a bounded number of
rooms. Names of rooms are nobody's business unless somebody decided so: who may not see them is told that there is
nothing to see, with 204, so that a page need not complain.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable
from typing import Any, Literal, TypeAlias, get_args

from .. import limits
from ..http11.models import Request, Response
from ..hub.hub import Hub
from ..server.routes import is_local

__all__ = ["RoomsTable", "check_rooms_table", "room_list_route"]

#: Who sees the table of rooms; ``local`` is who asks straight from this machine.
RoomsTable: TypeAlias = Literal["nobody", "local", "everybody"]


def check_rooms_table(audience: str) -> None:
    """Raise ``ValueError`` unless ``audience`` is one of :data:`RoomsTable`."""
    if audience not in get_args(RoomsTable):
        raise ValueError(f"rooms_table must be one of {', '.join(get_args(RoomsTable))}, not {audience!r}")


def room_list_route(hub: Hub, audience: RoomsTable) -> Callable[[Request], Response]:
    """A route that answers with the largest rooms of ``hub``, or with 204 who is not of the ``audience``."""
    room_list = _RoomList(hub)

    def answer(request: Request) -> Response:
        if audience == "nobody" or (audience == "local" and not is_local(request)):
            return Response(204, [("Cache-Control", "no-store")])
        return Response.json(200, room_list.latest(), [("Cache-Control", "no-store")])

    return answer


class _RoomList:
    """The list, as old as a second."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._latest: dict[str, Any] = {}
        self._due = 0.0

    def latest(self) -> dict[str, Any]:
        now = time.monotonic()
        if now >= self._due:
            self._latest = _rooms_of(self._hub)
            self._due = now + limits.ROOMS_EVERY
        return self._latest


def _rooms_of(hub: Hub) -> dict[str, Any]:
    names = hub.rooms()
    shown = [hub.inspect_room(name) for name in heapq.nlargest(limits.ROOMS_SHOWN, names, key=hub.room_count)]
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
