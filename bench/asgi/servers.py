"""Each contender's server: an application that its documentation would show, under uvicorn or on our own server.

uvicorn has its parser httptools, no compression, no pings, messages up to 16 MiB, and a log level that logs nothing
of a connection. The load sends binary messages. ``ready`` is called when the server listens.
"""

from __future__ import annotations

from typing import Any

from ..broadcast.servers import plumews_async_for as plumews_server_room
from ..echo.servers import plumews_async_for as plumews_server
from ..harness.listening import Ready, uvicorn

__all__ = [
    "bare_on_plumews",
    "bare_on_websockets",
    "bare_on_websockets_sansio",
    "bare_on_wsproto",
    "fastapi_loop_on_websockets_sansio",
    "fastapi_on_plumews",
    "fastapi_on_websockets_sansio",
    "fastapi_room_on_plumews",
    "plumews_server",
    "plumews_server_room",
]

PLUMEWS = "plumews.asgi:PlumeProtocol"


async def bare(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Send back what comes, with nothing between the application and the server."""
    await receive()  # websocket.connect
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "bytes": event["bytes"]})


async def bare_on_plumews(port: int, ready: Ready) -> None:
    await uvicorn(port, ready, bare, PLUMEWS)


async def bare_on_websockets_sansio(port: int, ready: Ready) -> None:
    await uvicorn(port, ready, bare, "websockets-sansio")


async def bare_on_wsproto(port: int, ready: Ready) -> None:
    await uvicorn(port, ready, bare, "wsproto")


async def bare_on_websockets(port: int, ready: Ready) -> None:
    await uvicorn(port, ready, bare, "websockets")


async def fastapi_on_plumews(port: int, ready: Ready) -> None:
    from .handlers import echo

    await uvicorn(port, ready, echo(), PLUMEWS)


async def fastapi_on_websockets_sansio(port: int, ready: Ready) -> None:
    from .handlers import echo

    await uvicorn(port, ready, echo(), "websockets-sansio")


async def fastapi_room_on_plumews(port: int, ready: Ready) -> None:
    from plumews import Hub

    from .handlers import hub_room

    async with Hub() as hub:
        await uvicorn(port, ready, hub_room(hub), PLUMEWS)


async def fastapi_loop_on_websockets_sansio(port: int, ready: Ready) -> None:
    from .handlers import loop_room

    await uvicorn(port, ready, loop_room(), "websockets-sansio")
