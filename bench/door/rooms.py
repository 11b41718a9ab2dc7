"""The server of the reconnect storm: one room that is open, and one with a password, of the default work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..harness.running import HOST

if TYPE_CHECKING:
    from collections.abc import Callable

OPEN, LOCKED, PASSWORD = "open", "locked", "the password of the room"


async def plumews_rooms(port: int, ready: Callable[[], None]) -> None:
    """As it is without settings."""
    from plumews import Hub, SimpleRoomAuth, serve_rooms

    auth = SimpleRoomAuth()
    auth.set_room_password(LOCKED, PASSWORD)
    async with Hub() as hub, serve_rooms(hub, auth, HOST, port) as server:
        ready()
        await server.serve_forever()
