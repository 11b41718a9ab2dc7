"""Applications of the frameworks on our connections: the same small program in each, over real sockets."""

import asyncio
import importlib
from collections.abc import Callable
from typing import Any, TypeAlias

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from support.fakes import until
from support.uvicorn_setup import errors

#: Codes that an application was told for the ends of its connections, ``None`` where its framework tells no code.
Ends: TypeAlias = list[int | None]

# The program: "/" echoes, and knows the messages "close" (with 4001 and a reason) and "fail". It takes the subprotocol
# "chat". "/denied" denies with 401, or by a close before accept if the framework has no response for that.


def fastapi(ends: Ends) -> Any:
    from fastapi import FastAPI, HTTPException, WebSocket, WebSocketDisconnect

    app = FastAPI()

    @app.websocket("/")
    async def echo(websocket: WebSocket) -> None:
        await websocket.accept("chat" if "chat" in websocket.scope["subprotocols"] else None)
        try:
            while True:
                event = await websocket.receive()
                websocket._raise_on_disconnect(event)
                if event.get("text") == "close":
                    await websocket.close(4001, "as you wish")
                    return
                if event.get("text") == "fail":
                    raise ValueError("a mistake")
                if "text" in event:
                    await websocket.send_text(event["text"])
                else:
                    await websocket.send_bytes(event["bytes"])
        except WebSocketDisconnect as exc:
            ends.append(exc.code)

    @app.websocket("/denied")
    async def denied(websocket: WebSocket) -> None:
        raise HTTPException(401, "no")

    return app


def starlette(ends: Ends) -> Any:
    from starlette.applications import Starlette
    from starlette.endpoints import WebSocketEndpoint
    from starlette.responses import PlainTextResponse
    from starlette.routing import WebSocketRoute
    from starlette.websockets import WebSocket

    class Echo(WebSocketEndpoint):
        async def on_connect(self, websocket: WebSocket) -> None:
            await websocket.accept("chat" if "chat" in websocket.scope["subprotocols"] else None)

        async def decode(self, websocket: WebSocket, message: Any) -> Any:
            return message["text"] if "text" in message else message["bytes"]

        async def on_receive(self, websocket: WebSocket, data: Any) -> None:
            if data == "close":
                await websocket.close(4001, "as you wish")
            elif data == "fail":
                raise ValueError("a mistake")
            elif isinstance(data, str):
                await websocket.send_text(data)
            else:
                await websocket.send_bytes(data)

        async def on_disconnect(self, websocket: WebSocket, close_code: int) -> None:
            ends.append(close_code)

    async def denied(websocket: WebSocket) -> None:
        await websocket.send_denial_response(PlainTextResponse("no", 401))

    return Starlette(routes=[WebSocketRoute("/", Echo), WebSocketRoute("/denied", denied)])


def litestar(ends: Ends) -> Any:
    from litestar import Litestar, WebSocket, websocket
    from litestar.exceptions import NotAuthorizedException

    @websocket("/")
    async def echo(socket: WebSocket[Any, Any, Any]) -> None:
        await socket.accept("chat" if "chat" in socket.scope["subprotocols"] else None)
        while True:
            event: Any = await socket.receive()
            if event["type"] == "websocket.disconnect":
                ends.append(event["code"])
                return
            if event.get("text") == "close":
                await socket.close(4001, "as you wish")
                return
            if event.get("text") == "fail":
                raise ValueError("a mistake")
            if "text" in event:
                await socket.send_text(event["text"])
            else:
                await socket.send_bytes(event["bytes"])

    @websocket("/denied")
    async def denied(socket: WebSocket[Any, Any, Any]) -> None:
        raise NotAuthorizedException("no")

    return Litestar([echo, denied], logging_config=None, openapi_config=None)


def channels(ends: Ends) -> Any:
    from django.conf import settings

    if not settings.configured:
        settings.configure()
    from channels.generic.websocket import AsyncWebsocketConsumer
    from channels.routing import URLRouter
    from django.urls import path

    class Echo(AsyncWebsocketConsumer):  # type: ignore[misc]
        async def connect(self) -> None:
            await self.accept("chat" if "chat" in self.scope["subprotocols"] else None)

        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            if text_data == "close":
                await self.close(4001, "as you wish")
            elif text_data == "fail":
                raise ValueError("a mistake")
            else:
                await self.send(text_data, bytes_data)

        async def disconnect(self, code: int) -> None:
            ends.append(code)

    class Denied(AsyncWebsocketConsumer):  # type: ignore[misc]
        async def connect(self) -> None:
            await self.close()

    return URLRouter([path("", Echo.as_asgi()), path("denied", Denied.as_asgi())])


def quart(ends: Ends) -> Any:
    from quart import Quart, websocket

    app = Quart(__name__)

    @app.websocket("/")
    async def echo() -> None:
        await websocket.accept(subprotocol="chat" if "chat" in websocket.requested_subprotocols else None)
        try:
            while True:
                message = await websocket.receive()
                if message == "close":
                    await websocket.close(4001, "as you wish")
                    return
                if message == "fail":
                    raise ValueError("a mistake")
                await websocket.send(message)
        except asyncio.CancelledError:
            ends.append(None)
            raise

    @app.websocket("/denied")
    async def denied() -> tuple[str, int]:
        return "no", 401

    return app


#: Packages of the programs.
PROGRAMS: dict[str, Callable[[Ends], Any]] = {
    "fastapi": fastapi,
    "starlette": starlette,
    "litestar": litestar,
    "channels": channels,
    "quart": quart,
}


#: Frameworks that deny by a close before accept.
BY_CLOSE = {"channels", "litestar"}

#: Close codes of the frameworks that close the connection of a failed application themselves.
OWN_CODES = {"litestar": 4500, "quart": 1000}


@pytest.fixture(params=PROGRAMS)
def framework(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        pytest.skip(f"{name} is not installed")
    return name


@pytest.fixture
def ends() -> Ends:
    return []


@pytest.fixture
async def server(run: Any, framework: str, ends: Ends) -> Any:
    return await run(PROGRAMS[framework](ends))


def url(server: Any, path: str = "/") -> str:
    return f"ws://127.0.0.1:{server.port}{path}"


async def ended(server: Any) -> None:
    await until(lambda: not server.state.connections and not server.state.tasks)


async def test_messages_of_both_kinds_are_echoed(server, caplog):
    async with connect(url(server), proxy=None, subprotocols=["other", "chat"]) as client:
        assert client.subprotocol == "chat"
        for message in ("text", "", b"binary", "ä" * 100_000, b"x" * 100_000):
            await client.send(message)
            assert await client.recv() == message
    await ended(server)
    assert errors(caplog) == []


async def test_close_of_the_client_is_told_once(server, framework, ends, caplog):
    async with connect(url(server), proxy=None) as client:
        await client.close(4002, "enough")
        assert client.close_code == 4002
    await ended(server)
    assert ends == [None if framework == "quart" else 4002]
    assert errors(caplog) == []


async def test_close_of_the_application_reaches_the_client(server, ends, caplog):
    async with connect(url(server), proxy=None) as client:
        assert client.subprotocol is None
        await client.send("close")
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert (client.close_code, client.close_reason) == (4001, "as you wish")
    await ended(server)
    assert len(ends) <= 1
    assert errors(caplog) == []


async def test_lost_client_is_told_once(server, ends, caplog):
    async with connect(url(server), proxy=None) as client:
        await client.send("one")
        assert await client.recv() == "one"
        client.transport.abort()
    await ended(server)
    assert ends in ([1006], [None])
    assert errors(caplog) == []


async def test_denial_reaches_the_client(server, framework, caplog):
    with pytest.raises(InvalidStatus) as caught:
        await connect(url(server, "/denied"), proxy=None)
    response = caught.value.response
    if framework in BY_CLOSE:
        assert response.status_code == 403
    else:
        assert response.status_code == 401
        assert b"no" in response.body
    await ended(server)
    assert errors(caplog) == []


async def test_failure_of_the_application_is_1011(server, framework, caplog):
    async with connect(url(server), proxy=None) as client:
        await client.send("fail")
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert client.close_code == OWN_CODES.get(framework, 1011)
    await ended(server)
    assert len(errors(caplog)) == (0 if framework == "litestar" else 1)  # without a logger of its own


async def test_stop_of_the_server_is_1012(server, framework, ends, caplog):
    async with connect(url(server), proxy=None) as client:
        await client.send("one")
        assert await client.recv() == "one"
        stopping = asyncio.ensure_future(server.stop())
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert client.close_code == 1012
        await stopping
    assert ends == [None if framework == "quart" else 1012]
    assert errors(caplog) == []
