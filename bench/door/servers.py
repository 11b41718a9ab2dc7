"""Echo servers of each library whose opening handshake does more: hooks of the application, or compression.

The environment says which (``BENCH_CONNECTS``). Hooks are what an application has for authorization and for headers of
its own: one function that sees each request and lets it pass, and one that adds a header to the answer. Compression is
permessage-deflate as a library agrees to it without settings. No pings of their own.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ..harness import listening
from ..harness.listening import BACKLOG, Ready, for_ever
from ..harness.running import HOST

if TYPE_CHECKING:
    from aiohttp import web

    import plumews as ours

VARIABLE = "BENCH_CONNECTS"
HOOKS, COMPRESSION = "hooks", "compression"
HEADER, VALUE = "X-Served-By", "bench"


def with_hooks() -> bool:
    return os.environ[VARIABLE] == HOOKS


def _options() -> dict[str, Any]:
    """Those of a server of ours."""
    if not with_hooks():
        return {"compression": "deflate", "ping_interval": None}

    async def process_request(conn: ours.Conn, request: ours.Request) -> None:
        request.headers.get("Authorization")

    def process_response(conn: ours.Conn, request: ours.Request, response: ours.Response) -> None:
        response.headers[HEADER] = VALUE

    return {"process_request": process_request, "process_response": process_response, "ping_interval": None}


async def plumews_callback(port: int, ready: Ready) -> None:
    from plumews import serve

    def on_message(conn: ours.Conn, message: str | bytes) -> None:
        conn.send_nowait(message)

    await for_ever(ready, serve(on_message=on_message, host=HOST, port=port, **_options()))


async def plumews_async_for(port: int, ready: Ready) -> None:
    from plumews import serve

    async def handler(conn: ours.Conn) -> None:
        async for message in conn:
            await conn.send(message)

    await for_ever(ready, serve(handler, HOST, port, **_options()))


async def picows(port: int, ready: Ready) -> None:
    """A hook is the factory of listeners. Its own interface does not compress, that for users of websockets does."""
    if not with_hooks():
        from picows.websockets.asyncio.server import serve

        await for_ever(ready, serve(_echo, HOST, port, ping_interval=None, backlog=BACKLOG, compression="deflate"))
        return
    from picows import WSUpgradeRequest, WSUpgradeResponse, WSUpgradeResponseWithListener, ws_create_server

    from ..harness.picows_echo import Echo

    def listen(request: WSUpgradeRequest) -> WSUpgradeResponseWithListener:
        request.headers.get("Authorization")
        response = WSUpgradeResponse.create_101_response({HEADER: VALUE})
        return WSUpgradeResponseWithListener(response, Echo())

    await for_ever(ready, await ws_create_server(listen, HOST, port, backlog=BACKLOG))


async def _echo(connection: Any) -> None:
    async for message in connection:
        await connection.send(message)


async def websockets(port: int, ready: Ready) -> None:
    from websockets.asyncio.server import serve

    def process_request(connection: Any, request: Any) -> None:
        request.headers.get("Authorization")

    def process_response(connection: Any, request: Any, response: Any) -> None:
        response.headers[HEADER] = VALUE

    options: dict[str, Any] = {"compression": "deflate", "ping_interval": None, "backlog": BACKLOG}
    if with_hooks():
        options |= {"compression": None, "process_request": process_request, "process_response": process_response}
    await for_ever(ready, serve(_echo, HOST, port, **options))


async def aiohttp(port: int, ready: Ready) -> None:
    """The handler sees the request and has the response before it is sent: that is its hook."""
    from aiohttp import web

    async def handler(request: web.Request) -> web.WebSocketResponse:
        response = web.WebSocketResponse(compress=not with_hooks())
        if with_hooks():
            request.headers.get("Authorization")
            response.headers[HEADER] = VALUE
        await response.prepare(request)
        async for message in response:
            await response.send_str(message.data)
        return response

    await listening.aiohttp(port, ready, {"/": handler})
