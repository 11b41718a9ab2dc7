"""Each contender's room: what its documentation says of broadcasting, in its fastest form.

Who asks for ``/`` is a member, ``/publish`` a publisher: each of its messages goes to all members. ``/echo`` sends
back. No compression, no pings of their own. Differences that matter: ours, websockets (``broadcast``) and socketify
(uWebSockets' ``publish``) have a function for it and never wait for a member; so do the loops over picows and tornado,
whose transports keep what a member does not take; aiohttp's loop waits for a member that is full.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from typing import TYPE_CHECKING, Any

from ..harness.running import HOST, cores

if TYPE_CHECKING:
    from collections.abc import Callable

    import plumews as ours

    Ready = Callable[[], None]

MAX_SIZE = 16 * 1024 * 1024
BACKLOG = 1024

#: What answers the load's request: it always sends the same key, so that no server of bytes needs a SHA-1.
UPGRADED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)


async def plumews(port: int, ready: Ready, *, threads: int = 0, **options: Any) -> None:
    """As it is without settings: under BLOCK."""
    from plumews import Hub, HubConfig, serve

    hub = Hub(HubConfig(sending_threads=threads))

    def on_open(conn: ours.Conn) -> None:
        if conn.request.path == "/":
            hub.join("room", conn)

    def on_message(conn: ours.Conn, message: str | bytes) -> None:
        if conn.request.path == "/publish":
            hub.broadcast_room("room", message)
        else:
            conn.send_nowait(message)

    serving = serve(on_open=on_open, on_message=on_message, host=HOST, port=port, ping_interval=None, **options)
    async with hub, serving as server:
        ready()
        await server.serve_forever()


async def plumews_drop(port: int, ready: Ready) -> None:
    from plumews import SendBehavior

    await plumews(port, ready, send_behavior=SendBehavior.DROP)


async def plumews_close(port: int, ready: Ready) -> None:
    from plumews import SendBehavior

    await plumews(port, ready, send_behavior=SendBehavior.CLOSE)


async def plumews_threads(port: int, ready: Ready) -> None:
    """With a thread that helps to send on each core that neither the event loop nor the load is on; at least one."""
    free = os.sched_getaffinity(0) - {cores()[1]} or os.sched_getaffinity(0)

    def ready_everywhere() -> None:
        ready()
        os.sched_setaffinity(0, free)

    await plumews(port, ready_everywhere, threads=min(16, max(1, len(free) - 1)))


async def raw(port: int, ready: Ready) -> None:
    """No WebSocket but its first answer: what is possible on this loop."""
    room: set[Any] = set()

    class Connection(asyncio.Protocol):
        path: bytes | None = None

        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            if self.path == b"/publish":
                for member in room:
                    member.write(data)
            elif self.path is None:
                self.path = data.split(b" ", 2)[1]
                self.transport.write(UPGRADED)
                if self.path == b"/":
                    room.add(self.transport)

        def connection_lost(self, exc: Exception | None) -> None:
            room.discard(self.transport)

    server = await asyncio.get_running_loop().create_server(Connection, HOST, port, backlog=BACKLOG)
    ready()
    await server.serve_forever()


def bare(port: int, ready: Ready) -> None:
    """A loop in C, which is part of the load generator: the limit of the machine. It becomes this process."""
    listener = socket.create_server((HOST, port), backlog=BACKLOG)
    listener.set_inheritable(True)
    ready()
    load = os.environ["BENCH_LOAD"]
    os.execv(load, [load, "bare", "--listener", str(listener.fileno())])


async def picows(port: int, ready: Ready) -> None:
    from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

    room: set[WSTransport] = set()

    class Connection(WSListener):
        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            if frame.msg_type == WSMsgType.CLOSE:
                transport.send_close(frame.get_close_code(), frame.get_close_message())
                transport.disconnect()
            else:
                self.on_message(transport, frame)

        def on_message(self, transport: WSTransport, frame: WSFrame) -> None:
            transport.send(frame.msg_type, frame.get_payload_as_memoryview())

    class Member(Connection):
        def on_ws_connected(self, transport: WSTransport) -> None:
            room.add(transport)

        def on_ws_disconnected(self, transport: WSTransport) -> None:
            room.discard(transport)

    class Publisher(Connection):
        def on_message(self, transport: WSTransport, frame: WSFrame) -> None:
            message_type, message = frame.msg_type, frame.get_payload_as_bytes()
            for member in room:
                member.send(message_type, message)

    kinds = {b"/": Member, b"/publish": Publisher}

    def listen(request: WSUpgradeRequest) -> WSListener:
        return kinds.get(request.path, Connection)()

    server = await ws_create_server(listen, HOST, port, max_frame_size=MAX_SIZE, backlog=BACKLOG)
    ready()
    await server.serve_forever()


async def websockets(port: int, ready: Ready) -> None:
    from websockets.asyncio.server import ServerConnection, broadcast, serve

    room: set[ServerConnection] = set()

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
        handler, HOST, port, compression=None, ping_interval=None, max_size=MAX_SIZE, backlog=BACKLOG
    ) as server:
        ready()
        await server.serve_forever()


async def aiohttp(port: int, ready: Ready) -> None:
    from aiohttp import WSMsgType, web

    room: set[web.WebSocketResponse] = set()

    async def opened(request: web.Request) -> web.WebSocketResponse:
        response = web.WebSocketResponse(compress=False, max_msg_size=MAX_SIZE)
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
            if message.type is WSMsgType.BINARY:
                for one in list(room):
                    with contextlib.suppress(ConnectionResetError):
                        await one.send_bytes(message.data)
        return response

    application = web.Application()
    application.router.add_get("/", member)
    application.router.add_get("/publish", publisher)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, HOST, port, backlog=BACKLOG).start()
    ready()
    await asyncio.Event().wait()


async def tornado(port: int, ready: Ready) -> None:
    from tornado.web import Application
    from tornado.websocket import WebSocketHandler

    room: set[WebSocketHandler] = set()

    class Member(WebSocketHandler):
        def open(self, *args: str, **kwargs: str) -> None:
            self.set_nodelay(True)
            room.add(self)

        def on_message(self, message: str | bytes) -> None:
            pass

        def on_close(self) -> None:
            room.discard(self)

    class Publisher(WebSocketHandler):
        def on_message(self, message: str | bytes) -> None:
            for member in room:
                member.write_message(message, binary=isinstance(message, bytes))

    application = Application(
        [("/", Member), ("/publish", Publisher)],
        websocket_max_message_size=MAX_SIZE,
        log_function=lambda handler: None,
        compiled_template_cache=True,
    )
    application.listen(port, HOST, backlog=BACKLOG)
    ready()
    await asyncio.Event().wait()


def socketify(port: int, ready: Ready) -> None:
    from socketify import App, AppListenOptions, CompressOptions

    app = App()
    usual = {"compression": CompressOptions.DISABLED, "max_payload_length": MAX_SIZE, "idle_timeout": 0}
    app.ws("/publish", {**usual, "message": lambda ws, message, opcode: app.publish("room", message, opcode)})
    app.ws("/echo", {**usual, "message": lambda ws, message, opcode: ws.send(message, opcode)})
    app.ws("/", {**usual, "open": lambda ws: ws.subscribe("room"), "message": lambda ws, message, opcode: None})
    app.listen(AppListenOptions(port=port, host=HOST), lambda config: ready())
    app.run()
