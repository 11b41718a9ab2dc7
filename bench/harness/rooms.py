"""Each library's room: what its documentation says of broadcasting, in its fastest form.

Who asks for ``/`` is a member, ``/publish`` a publisher: each of its messages goes to all members. ``/echo`` sends
back. No pings of their own; options say whether there is compression.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from . import listening
from .listening import Ready, for_ever
from .running import HOST

if TYPE_CHECKING:
    from aiohttp import web

    import plumews as ours


async def plumews(port: int, ready: Ready, **options: Any) -> None:
    """The callback door, and a hub."""
    from plumews import Hub, serve

    hub = Hub()

    def on_open(conn: ours.Conn) -> None:
        if conn.request.path == "/":
            hub.join("room", conn)

    def on_message(conn: ours.Conn, message: str | bytes) -> None:
        if conn.request.path == "/publish":
            hub.broadcast_room("room", message)
        else:
            conn.send_nowait(message)

    async with hub:
        serving = serve(on_open=on_open, on_message=on_message, host=HOST, port=port, ping_interval=None, **options)
        await for_ever(ready, serving)


async def plumews_async_for(port: int, ready: Ready, **options: Any) -> None:
    """Coroutines, and a hub: members wait in ``async for``, and so does the publisher."""
    from plumews import Hub, serve

    hub = Hub()

    async def handle(conn: ours.Conn) -> None:
        path = conn.request.path
        if path == "/":
            hub.join("room", conn)
        async for message in conn:
            if path == "/publish":
                hub.broadcast_room("room", message)
            else:
                await conn.send(message)

    async with hub:
        await for_ever(ready, serve(handle, HOST, port, ping_interval=None, **options))


def handler(broadcast: Callable[[Any, Any], object]) -> Callable[[Any], Awaitable[None]]:
    """For a server of websockets, or of picows where it looks like that; ``broadcast`` is its function."""
    room: set[Any] = set()

    async def handle(connection: Any) -> None:
        path = connection.request.path if connection.request else "/"
        if path == "/":
            room.add(connection)
            try:
                await connection.wait_closed()
            finally:
                room.discard(connection)
            return
        async for message in connection:
            if path == "/publish":
                broadcast(room, message)
            else:
                await connection.send(message)

    return handle


async def aiohttp(port: int, ready: Ready, **options: Any) -> None:
    """``options`` are those of its response."""
    from aiohttp import WSMsgType, web

    room: set[web.WebSocketResponse] = set()
    sends = {WSMsgType.BINARY: web.WebSocketResponse.send_bytes, WSMsgType.TEXT: web.WebSocketResponse.send_str}

    async def opened(request: web.Request) -> web.WebSocketResponse:
        response = web.WebSocketResponse(**options)
        await response.prepare(request)
        return response

    async def member(request: web.Request) -> web.WebSocketResponse:
        response = await opened(request)
        room.add(response)
        try:
            async for _ in response:
                pass
        finally:
            room.discard(response)
        return response

    async def publisher(request: web.Request) -> web.WebSocketResponse:
        response = await opened(request)
        async for message in response:
            send = sends[message.type]
            for one in list(room):
                with contextlib.suppress(ConnectionResetError):
                    await send(one, message.data)
        return response

    async def echo(request: web.Request) -> web.WebSocketResponse:
        response = await opened(request)
        async for message in response:
            await sends[message.type](response, message.data)
        return response

    await listening.aiohttp(port, ready, {"/": member, "/publish": publisher, "/echo": echo})


async def tornado(port: int, ready: Ready, base: Any = None, **settings: Any) -> None:
    """``base`` is a kind of WebSocketHandler, ``settings`` are the application's."""
    from tornado.websocket import WebSocketHandler

    room: set[Any] = set()

    class Connection(base or WebSocketHandler):  # type: ignore[misc]
        def open(self, *args: str, **kwargs: str) -> None:
            self.set_nodelay(True)

    class Echo(Connection):
        def on_message(self, message: str | bytes) -> None:
            self.write_message(message, binary=isinstance(message, bytes))

    class Member(Connection):
        def open(self, *args: str, **kwargs: str) -> None:
            super().open()
            room.add(self)

        def on_message(self, message: str | bytes) -> None:
            pass

        def on_close(self) -> None:
            room.discard(self)

    class Publisher(Connection):
        def on_message(self, message: str | bytes) -> None:
            for one in room:
                one.write_message(message, binary=isinstance(message, bytes))

    await listening.tornado(port, ready, [("/", Member), ("/publish", Publisher), ("/echo", Echo)], **settings)


def socketify(port: int, ready: Ready, *, compress: bool = False, **options: Any) -> None:
    """``options`` are those of each of its routes."""

    def routes(app: Any) -> dict[str, dict[str, Any]]:
        return {
            "/publish": {**options, "message": lambda ws, message, code: app.publish("room", message, code, compress)},
            "/echo": {**options, "message": lambda ws, message, code: ws.send(message, code, compress)},
            "/": {**options, "open": lambda ws: ws.subscribe("room"), "message": lambda ws, message, code: None},
        }

    listening.socketify(port, ready, routes)
