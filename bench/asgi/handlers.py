"""Applications of FastAPI, with handlers as its documentation writes them. The load sends binary messages."""

from __future__ import annotations

from fastapi import FastAPI, WebSocket

from plumews import Hub
from plumews.asgi import conn


def echo() -> FastAPI:
    """Send back what comes."""
    app = FastAPI()

    @app.websocket("/")
    async def handle(websocket: WebSocket) -> None:
        await websocket.accept()
        async for message in websocket.iter_bytes():
            await websocket.send_bytes(message)

    return app


def hub_room(hub: Hub) -> FastAPI:
    """A room of a hub: no event is made for a delivery."""
    app = FastAPI()

    @app.websocket("/")
    async def member(websocket: WebSocket) -> None:
        await websocket.accept()
        hub.join("room", conn(websocket))
        async for _ in websocket.iter_bytes():
            pass

    @app.websocket("/publish")
    async def publisher(websocket: WebSocket) -> None:
        await websocket.accept()
        async for message in websocket.iter_bytes():
            hub.broadcast_room("room", message)

    return app


def loop_room() -> FastAPI:
    """A room of a set, over which the publisher loops."""
    app = FastAPI()
    room: set[WebSocket] = set()

    @app.websocket("/")
    async def member(websocket: WebSocket) -> None:
        await websocket.accept()
        room.add(websocket)
        try:
            async for _ in websocket.iter_bytes():
                pass
        finally:
            room.discard(websocket)

    @app.websocket("/publish")
    async def publisher(websocket: WebSocket) -> None:
        await websocket.accept()
        async for message in websocket.iter_bytes():
            for one in list(room):
                await one.send_bytes(message)

    return app
