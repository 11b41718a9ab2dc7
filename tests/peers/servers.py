"""Echo servers that share no code with plumews, for tests of our client.

Each is what its package is out of the box: it answers pings and close frames by itself. It compresses where the client
offers that, selects the subprotocol ``chat.v2``, and sends each message back. These texts are commands:

- ``!close CODE REASON``: the server begins the closing handshake;
- ``!ping``: the server pings with ``are you there?``, and sends ``pong are you there?`` after the pong;
- ``!fragments``: the server sends `FRAGMENTS` as one message of several frames.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp.web
import tornado.httpserver
import tornado.netutil
import tornado.web
import tornado.websocket
import websockets
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as websockets_serve
from websockets.typing import Subprotocol

from .clients import find_node

__all__ = ["FRAGMENTING", "FRAGMENTS", "LIBWEBSOCKETS_MISSING", "PINGING", "SERVERS", "build_libwebsockets"]

HERE = Path(__file__).parent
LIBWEBSOCKETS_MISSING: Final = "the server of libwebsockets needs a C compiler and Debian's libwebsockets-dev"
SUBPROTOCOL: Final = "chat.v2"
PING: Final = b"are you there?"
MAX_SIZE: Final = 4 * 1024 * 1024

#: Fragments that a server sends for ``!fragments``.
FRAGMENTS: Final = ("abc " * 1000, "", "\u20ac")


def close_of(message: object) -> tuple[int, str] | None:
    """Code and reason, if ``message`` is the command to close."""
    if not isinstance(message, str) or not message.startswith("!close "):
        return None
    _, code, reason = message.split(" ", 2)
    return int(code), reason


@asynccontextmanager
async def serve_websockets() -> AsyncIterator[int]:
    async def handler(conn: ServerConnection) -> None:
        try:
            async for message in conn:
                if close := close_of(message):
                    await conn.close(*close)
                elif message == "!ping":
                    answered = await conn.ping(PING)
                    answered.add_done_callback(
                        lambda _: tasks.append(asyncio.ensure_future(conn.send("pong " + PING.decode())))
                    )
                else:
                    await conn.send(FRAGMENTS if message == "!fragments" else message)
        except websockets.ConnectionClosed:
            pass

    def select(_: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
        # Not the option subprotocols: a client that offers none would be refused.
        return Subprotocol(SUBPROTOCOL) if SUBPROTOCOL in offered else None

    tasks: list[asyncio.Future[None]] = []
    options: Any = {"select_subprotocol": select, "max_size": MAX_SIZE}
    async with websockets_serve(handler, "127.0.0.1", 0, **options) as server:
        yield next(iter(server.sockets)).getsockname()[1]


@asynccontextmanager
async def serve_aiohttp() -> AsyncIterator[int]:
    async def handler(request: aiohttp.web.Request) -> aiohttp.web.WebSocketResponse:
        socket = aiohttp.web.WebSocketResponse(protocols=[SUBPROTOCOL], autoping=False, max_msg_size=MAX_SIZE)
        await socket.prepare(request)
        async for message in socket:
            if message.type is aiohttp.WSMsgType.PING:
                await socket.pong(message.data)
            elif message.type is aiohttp.WSMsgType.PONG:
                await socket.send_str("pong " + bytes(message.data).decode())
            elif message.type is aiohttp.WSMsgType.BINARY:
                await socket.send_bytes(message.data)
            elif close := close_of(message.data):
                await socket.close(code=close[0], message=close[1].encode())
            elif message.data == "!ping":
                await socket.ping(PING)
            else:
                await socket.send_str(message.data)
        return socket

    application = aiohttp.web.Application()
    application.router.add_get("/", handler)
    runner = aiohttp.web.AppRunner(application, access_log=None, shutdown_timeout=5)
    await runner.setup()
    try:
        await aiohttp.web.TCPSite(runner, "127.0.0.1", 0).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


class TornadoEcho(tornado.websocket.WebSocketHandler):
    def get_compression_options(self) -> dict[str, Any]:
        return {}

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        return SUBPROTOCOL if SUBPROTOCOL in subprotocols else None

    def on_message(self, message: str | bytes) -> None:
        if close := close_of(message):
            self.close(*close)
        elif message == "!ping":
            self.ping(PING)
        else:
            self.write_message(message, binary=isinstance(message, bytes))

    def on_pong(self, data: bytes) -> None:
        if data == PING:  # its keepalive pings, too
            self.write_message("pong " + data.decode())


@asynccontextmanager
async def serve_tornado() -> AsyncIterator[int]:
    application = tornado.web.Application(
        [("/", TornadoEcho)], websocket_max_message_size=MAX_SIZE, log_function=lambda _: None
    )
    server = tornado.httpserver.HTTPServer(application)
    sockets = tornado.netutil.bind_sockets(0, "127.0.0.1")
    server.add_sockets(sockets)
    try:
        yield sockets[0].getsockname()[1]
    finally:
        server.stop()
        await server.close_all_connections()


async def uvicorn_application(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    chosen = SUBPROTOCOL if SUBPROTOCOL in scope["subprotocols"] else None
    await send({"type": "websocket.accept", "subprotocol": chosen})
    while (event := await receive())["type"] != "websocket.disconnect":
        if close := close_of(event.get("text")):
            await send({"type": "websocket.close", "code": close[0], "reason": close[1]})
            return
        await send({**event, "type": "websocket.send"})


def serve_uvicorn(implementation: str) -> Callable[[], AbstractAsyncContextManager[int]]:
    """uvicorn with one of its WebSocket classes."""

    @asynccontextmanager
    async def serve() -> AsyncIterator[int]:
        from support.uvicorn_setup import running

        async with running(uvicorn_application, ws=implementation, ws_max_size=MAX_SIZE) as server:
            yield server.port

    return serve


@asynccontextmanager
async def running(*command: str) -> AsyncIterator[int]:
    """Start a server in a process of its own, which prints its port and ends with its stdin."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield int(await process.stdout.readline())
    finally:
        process.stdin.close()
        await process.communicate()


def serve_node() -> AbstractAsyncContextManager[int]:
    """Node's `ws` (``server.mjs``)."""
    node = find_node()
    assert node is not None
    return running(node, str(HERE / "server.mjs"))


@functools.cache
def build_libwebsockets() -> str | None:
    """Compile ``server.c`` once for this process. Return its path, or ``None`` without what that takes."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    folder = tempfile.mkdtemp(prefix="plumews-peer-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    program = f"{folder}/server"
    command = [compiler, "-o", program, str(HERE / "server.c"), "-lwebsockets", "-lpthread"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode == 0:
        return program
    assert "libwebsockets.h" in done.stderr, done.stderr
    return None


def serve_libwebsockets() -> AbstractAsyncContextManager[int]:
    """The server of libwebsockets, which is written in C (``server.c``)."""
    program = build_libwebsockets()
    assert program is not None
    return running(program)


SERVERS: Final[dict[str, Callable[[], AbstractAsyncContextManager[int]]]] = {
    "websockets": serve_websockets,
    "aiohttp": serve_aiohttp,
    "tornado": serve_tornado,
    "uvicorn-websockets": serve_uvicorn("websockets-sansio"),
    "uvicorn-wsproto": serve_uvicorn("wsproto"),
    "ws": serve_node,
    "libwebsockets": serve_libwebsockets,
}

#: Those with which an application can ping.
PINGING: Final = ["websockets", "aiohttp", "tornado", "ws", "libwebsockets"]

#: Those that can send a message in fragments.
FRAGMENTING: Final = ["websockets", "ws", "libwebsockets"]
