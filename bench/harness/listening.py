"""Start of each library's server in a benchmark, as its documentation shows.

What it does with messages is the benchmark's affair. ``ready`` is called when the server listens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

from . import certificate
from .running import HOST

if TYPE_CHECKING:
    from aiohttp import web

Ready = Callable[[], None]

MAX_SIZE = 16 * 1024 * 1024
BACKLOG = 1024


async def for_ever(ready: Ready, serving: AbstractAsyncContextManager[Any]) -> None:
    """A server of ours, of websockets, of asyncio or of picows."""
    async with serving as server:
        ready()
        await server.serve_forever()


async def aiohttp(
    port: int, ready: Ready, routes: Mapping[str, Callable[[web.Request], Awaitable[web.WebSocketResponse]]]
) -> None:
    from aiohttp import web

    application = web.Application()
    for path, handler in routes.items():
        application.router.add_get(path, handler)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, HOST, port, backlog=BACKLOG, ssl_context=certificate.context()).start()
    ready()
    await asyncio.Event().wait()


async def tornado(port: int, ready: Ready, handlers: Sequence[tuple[str, Any]], **settings: Any) -> None:
    from tornado.web import Application

    quiet = {"log_function": lambda handler: None, "compiled_template_cache": True}
    Application(list(handlers), **quiet, **settings).listen(port, HOST, backlog=BACKLOG)
    ready()
    await asyncio.Event().wait()


def socketify(port: int, ready: Ready, routes: Callable[[Any], Mapping[str, dict[str, Any]]]) -> None:
    """``routes`` are made of the application; it brings its own loop (uWebSockets) and knows no other."""
    from socketify import App, AppListenOptions

    app = App()
    for path, behavior in routes(app).items():
        app.ws(path, behavior)
    app.listen(AppListenOptions(port=port, host=HOST), lambda config: ready())
    app.run()


async def uvicorn(port: int, ready: Ready, app: Any, ws: str) -> None:
    """``ws`` is the class for WebSockets, as ``--ws`` takes it. Nothing of a connection is logged."""
    from uvicorn import Config, Server

    class Ready(Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            ready()

    quiet: dict[str, Any] = {"log_level": "warning", "lifespan": "off", "timeout_graceful_shutdown": 1}
    options: dict[str, Any] = {"ws_max_size": MAX_SIZE, "ws_ping_interval": None, "ws_per_message_deflate": False}
    await Ready(
        Config(app, HOST, port, loop="none", http="httptools", ws=ws, backlog=BACKLOG, **quiet, **options)
    ).serve()
