"""Each contender's echo server, the way its own documentation writes one that is to be fast.

No compression, no pings of their own, messages up to 16 MiB. Where the environment names a certificate, over TLS: ours,
picows, websockets, aiohttp, and the loop alone. ``ready`` is called when the server listens. Differences
that matter: ours, picows and tornado answer from a callback; websockets, aiohttp and ours in its second form from a
coroutine; socketify (uWebSockets) brings its own loop and knows no other.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from ..harness import certificate, listening
from ..harness.listening import BACKLOG, MAX_SIZE, Ready, for_ever
from ..harness.running import HOST

if TYPE_CHECKING:
    from aiohttp import web

    import plumews


async def plumews_callback(port: int, ready: Ready) -> None:
    import plumews

    def on_message(conn: plumews.Conn, message: str | bytes) -> None:
        conn.send_nowait(message)

    options: dict[str, Any] = {"max_size": MAX_SIZE, "ping_interval": None, "ssl": certificate.context()}
    await for_ever(ready, plumews.serve(on_message=on_message, host=HOST, port=port, **options))


async def plumews_async_for(port: int, ready: Ready) -> None:
    import plumews

    async def handler(conn: plumews.Conn) -> None:
        async for message in conn:
            await conn.send(message)

    options: dict[str, Any] = {"max_size": MAX_SIZE, "ping_interval": None, "ssl": certificate.context()}
    await for_ever(ready, plumews.serve(handler, HOST, port, **options))


async def raw(port: int, ready: Ready) -> None:
    """No WebSocket at all: what is possible on this loop."""

    class Echo(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            self.transport.write(data)

    options: dict[str, Any] = {"backlog": BACKLOG, "ssl": certificate.context()}
    await for_ever(ready, await asyncio.get_running_loop().create_server(Echo, HOST, port, **options))


async def picows(port: int, ready: Ready) -> None:
    from picows import ws_create_server

    from ..harness.picows_echo import Echo

    options: dict[str, Any] = {"max_frame_size": MAX_SIZE, "backlog": BACKLOG, "ssl": certificate.context()}
    await for_ever(ready, await ws_create_server(lambda request: Echo(), HOST, port, **options))


async def websockets(port: int, ready: Ready) -> None:
    from websockets.asyncio.server import ServerConnection, serve

    async def handler(connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    options: dict[str, Any] = {"compression": None, "ping_interval": None, "max_size": MAX_SIZE, "backlog": BACKLOG}
    options["ssl"] = certificate.context()
    await for_ever(ready, serve(handler, HOST, port, **options))


async def aiohttp(port: int, ready: Ready) -> None:
    from aiohttp import WSMsgType, web

    async def handler(request: web.Request) -> web.WebSocketResponse:
        response = web.WebSocketResponse(compress=False, max_msg_size=MAX_SIZE)
        await response.prepare(request)
        async for message in response:
            if message.type is WSMsgType.BINARY:
                await response.send_bytes(message.data)
            elif message.type is WSMsgType.TEXT:
                await response.send_str(message.data)
        return response

    await listening.aiohttp(port, ready, {"/": handler})


async def tornado(port: int, ready: Ready) -> None:
    from tornado.websocket import WebSocketHandler

    class Echo(WebSocketHandler):
        def open(self, *args: str, **kwargs: str) -> None:
            self.set_nodelay(True)

        def on_message(self, message: str | bytes) -> None:
            self.write_message(message, binary=isinstance(message, bytes))

    await listening.tornado(port, ready, [("/", Echo)], websocket_max_message_size=MAX_SIZE)


def socketify(port: int, ready: Ready) -> None:
    from socketify import CompressOptions

    echo = {
        "compression": CompressOptions.DISABLED,
        "max_payload_length": MAX_SIZE,
        "max_backpressure": 4 * MAX_SIZE,
        "idle_timeout": 0,
        "message": lambda ws, message, opcode: ws.send(message, opcode),
    }
    listening.socketify(port, ready, lambda app: {"/*": echo})
