"""The mounted room server, and the dependency for tokens, in a real Chromium."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from fastapi import Depends, FastAPI, WebSocket
from starlette.applications import Starlette
from starlette.routing import Mount

import plumews
from plumews.asgi import RoomAccess, conn, rooms
from support import uvicorn_setup
from support.visitor import Visitor, served

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

SECRET = "0123456789abcdef0123456789abcdef"

#: The first message of a WebSocket, or its close code.
FIRST = """([path, protocols]) => new Promise((resolve) => {
  const socket = new WebSocket(new URL(path, location.href.replace("http", "ws")), protocols);
  socket.onmessage = ({ data }) => resolve(`${socket.protocol} ${data}`);
  socket.onclose = ({ code, reason }) => resolve(`${code} ${reason}`);
})"""


def application() -> FastAPI:
    auth = plumews.SimpleRoomAuth(SECRET, rounds=1)
    auth.set_room_password("chat", "open sesame")
    hub = plumews.Hub()
    app = FastAPI()
    admitted = Depends(RoomAccess(hub, auth, require_token=True))
    app.mount("/outer", Starlette(routes=[Mount("/inner", rooms(hub, auth, page=True))]))

    @app.websocket("/talk/{room}")
    async def talk(websocket: WebSocket, room: str, user: Any = admitted) -> None:
        await websocket.accept(subprotocol="chat")
        hub.join(room, conn(websocket))
        hub.broadcast_room(room, user.id)
        await websocket.receive()

    return app


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[uvicorn_setup.Uvicorn]:
    async with uvicorn_setup.running(application()) as server:
        yield server
        await server.stop()  # with uvicorn's pauses, in which the idle connections of the browser end


@pytest.fixture
def address() -> Iterator[str]:
    with served(serving) as address:
        yield f"http://{address}"


def test_the_mounted_page_talks(address: str, tab: Callable[..., Page]) -> None:
    ada = Visitor(tab(), f"{address}/outer/inner/").enter("chat", "open sesame").is_connected()
    bob = Visitor(tab(), f"{address}/outer/inner").enter("chat", "open sesame").is_connected()  # without the slash
    for visitor in (ada, bob):
        visitor.sees("#members", "2 members are here")
    ada.say("hello bob")
    bob.hears("hello bob")


def test_a_browser_sees_why_it_may_not_enter(address: str, tab: Callable[..., Page]) -> None:
    page = tab()
    page.goto(f"{address}/outer/inner/")
    token = jwt.encode({"sub": "ada"}, SECRET, algorithm="HS256")
    protocols = ["chat", f"bearer.{token}"]
    assert page.evaluate(FIRST, ["/talk/blue", protocols]) == "chat ada"
    assert page.evaluate(FIRST, ["/talk/blue", ["chat"]]) == "4401 websocket token required"
    assert page.evaluate(FIRST, ["/talk/chat", protocols]) == "4403 forbidden: bad room password: none was sent"
