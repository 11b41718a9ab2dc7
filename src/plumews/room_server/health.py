"""`/healthz`: whether a room server takes newcomers (layer 5).

For load balancers, which look at the status, and for people, who read the rest. It says nothing about who is there.
"""

from __future__ import annotations

from collections.abc import Callable

from ..http11.models import Request, Response
from ..hub.hub import Hub

__all__ = ["health_route"]


def health_route(hub: Hub, *, broadcast_enabled: bool) -> Callable[[Request], Response]:
    """A route that answers 200 with ``"status": "ok"``, and 503 with ``"stopping"`` once ``hub`` stops."""

    def answer(request: Request) -> Response:
        status, word = (503, "stopping") if hub._members.stopped else (200, "ok")
        health = {"status": word, "component": "websocket", "broadcast_enabled": broadcast_enabled}
        return Response.json(status, health, [("Cache-Control", "no-store")])

    return answer
