"""Each contender's server, the way its own documentation writes one that is to be fast, with permessage-deflate.

Who asks for ``/`` is a member, ``/publish`` a publisher: each of its messages goes to all members. ``/echo`` sends
back. A window of 12 bits, memory level 5, level 6, no context takeover on either side; which of these a library fixes
is in ``contenders.py``. No pings of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from ..harness.running import HOST
from .messages import LEVEL, MEM_LEVEL, WINDOW_BITS
from .scenarios import OFFER

if TYPE_CHECKING:
    from collections.abc import Callable

    import plumews as ours

    Ready = Callable[[], None]

BACKLOG = 1024


def _deflate(level: int = LEVEL, mem_level: int = MEM_LEVEL) -> ours.Deflate:
    from plumews import Deflate

    return Deflate(
        level=level,
        server_window_bits=WINDOW_BITS,
        client_window_bits=WINDOW_BITS,
        server_takeover=False,
        client_takeover=False,
        mem_level=mem_level,
    )


async def _plumews(port: int, ready: Ready, compression: ours.Deflate | None) -> None:
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

    how: dict[str, Any] = {"ping_interval": None} | ({"compression": compression} if compression else {})
    async with hub, serve(on_open=on_open, on_message=on_message, host=HOST, port=port, **how) as server:
        ready()
        await server.serve_forever()


async def plumews(port: int, ready: Ready) -> None:
    await _plumews(port, ready, _deflate())


async def plumews_level_1(port: int, ready: Ready) -> None:
    await _plumews(port, ready, _deflate(level=1, mem_level=8))


async def plumews_plain(port: int, ready: Ready) -> None:
    await _plumews(port, ready, None)


async def plumews_async_for(port: int, ready: Ready) -> None:
    from plumews import serve

    async def handler(conn: ours.Conn) -> None:
        async for message in conn:
            await conn.send(message)

    async with serve(handler, HOST, port, ping_interval=None, compression=_deflate()) as server:
        ready()
        await server.serve_forever()


async def websockets(port: int, ready: Ready) -> None:
    from websockets.asyncio.server import ServerConnection, broadcast, serve
    from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory

    room: set[ServerConnection] = set()
    factory = ServerPerMessageDeflateFactory(
        server_no_context_takeover=True,
        client_no_context_takeover=True,
        server_max_window_bits=WINDOW_BITS,
        client_max_window_bits=WINDOW_BITS,
        compress_settings={"level": LEVEL, "memLevel": MEM_LEVEL},
    )

    async def handler(connection: ServerConnection) -> None:
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

    async with serve(
        handler, HOST, port, compression=None, extensions=[factory], ping_interval=None, backlog=BACKLOG
    ) as server:
        ready()
        await server.serve_forever()


async def aiohttp(port: int, ready: Ready) -> None:
    """Window and context takeover are those of the offer; the level is 1, the memory level zlib's."""
    from aiohttp import WSMsgType, web

    room: set[web.WebSocketResponse] = set()

    async def opened(request: web.Request) -> web.WebSocketResponse:
        response = web.WebSocketResponse(compress=True)
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
            if message.type is WSMsgType.TEXT:
                for one in list(room):
                    with contextlib.suppress(ConnectionResetError):
                        await one.send_str(message.data)
        return response

    async def echo(request: web.Request) -> web.WebSocketResponse:
        response = await opened(request)
        async for message in response:
            if message.type is WSMsgType.TEXT:
                await response.send_str(message.data)
        return response

    application = web.Application()
    application.router.add_get("/", member)
    application.router.add_get("/publish", publisher)
    application.router.add_get("/echo", echo)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, HOST, port, backlog=BACKLOG).start()
    ready()
    await asyncio.Event().wait()


async def aiohttp_level_6(port: int, ready: Ready) -> None:
    """The same with a back end that is zlib, but for the two parameters that it does not let be set."""
    import types
    import zlib

    from aiohttp import set_zlib_backend

    def compressobj(**how: Any) -> Any:
        return zlib.compressobj(**{**how, "level": LEVEL, "memLevel": MEM_LEVEL})

    backend: Any = types.SimpleNamespace(**{**vars(zlib), "compressobj": compressobj})
    set_zlib_backend(backend)
    await aiohttp(port, ready)


async def tornado(port: int, ready: Ready) -> None:
    """As the offer says; but it overlooks parameters without a value, until they are given an empty one."""
    from tornado.web import Application
    from tornado.websocket import WebSocketHandler

    room: set[WebSocketHandler] = set()

    class Compressed(WebSocketHandler):
        def get_compression_options(self) -> dict[str, Any]:
            return {"compression_level": LEVEL, "mem_level": MEM_LEVEL}

        def prepare(self) -> None:
            offer = self.request.headers.get("Sec-WebSocket-Extensions", "")
            self.request.headers["Sec-WebSocket-Extensions"] = offer.replace("takeover", "takeover=")

        def set_header(self, name: str, value: Any) -> None:
            super().set_header(name, value.replace("takeover=", "takeover") if isinstance(value, str) else value)

        def open(self, *args: str, **kwargs: str) -> None:
            self.set_nodelay(True)

        def on_message(self, message: str | bytes) -> None:
            pass

    class Echo(Compressed):
        def on_message(self, message: str | bytes) -> None:
            self.write_message(message, binary=isinstance(message, bytes))

    class Member(Compressed):
        def open(self, *args: str, **kwargs: str) -> None:
            super().open()
            room.add(self)

        def on_close(self) -> None:
            room.discard(self)

    class Publisher(Compressed):
        def on_message(self, message: str | bytes) -> None:
            for member in room:
                member.write_message(message, binary=isinstance(message, bytes))

    application = Application(
        [("/", Member), ("/publish", Publisher), ("/echo", Echo)],
        log_function=lambda handler: None,
        compiled_template_cache=True,
    )
    application.listen(port, HOST, backlog=BACKLOG)
    ready()
    await asyncio.Event().wait()


async def picows(port: int, ready: Ready) -> None:
    """Its own interface does not compress, that for users of websockets does: with what the answer says, put there."""
    from picows.websockets.asyncio.server import ServerConnection, broadcast, serve

    room: set[ServerConnection] = set()

    def agree(connection: Any, request: Any, response: Any) -> Any:
        response.headers["Sec-WebSocket-Extensions"] = OFFER
        return response

    async def handler(connection: ServerConnection) -> None:
        path = connection.request.path
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

    async with serve(handler, HOST, port, process_response=agree, ping_interval=None, backlog=BACKLOG) as server:
        ready()
        await server.serve_forever()


def socketify(port: int, ready: Ready) -> None:
    from socketify import App, AppListenOptions, CompressOptions

    app = App()
    usual = {
        "compression": CompressOptions.SHARED_COMPRESSOR | CompressOptions.SHARED_DECOMPRESSOR,
        "max_backpressure": 16 * 1024 * 1024,
        "idle_timeout": 0,
    }
    app.ws("/publish", {**usual, "message": lambda ws, message, opcode: app.publish("room", message, opcode, True)})
    app.ws("/echo", {**usual, "message": lambda ws, message, opcode: ws.send(message, opcode, True)})
    app.ws("/", {**usual, "open": lambda ws: ws.subscribe("room"), "message": lambda ws, message, opcode: None})
    app.listen(AppListenOptions(port=port, host=HOST), lambda config: ready())
    app.run()
