"""ASGI applications on several servers: uvicorn with our protocol, uvicorn with its own, and hypercorn."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import hypercorn.asyncio
import hypercorn.config

from support.uvicorn_setup import App, running

#: Servers by name. ``plumews`` has our own connections, the others give events only.
OTHERS = ("uvicorn", "hypercorn")
SERVERS = ("plumews", *OTHERS)


@contextlib.asynccontextmanager
async def serving(kind: str, app: App, **options: Any) -> AsyncIterator[int]:
    """Run ``app`` on a server of ``kind`` until the block ends. Gives the port."""
    if kind == "hypercorn":
        async with _hypercorn(app, **options) as port:
            yield port
    else:
        own = {"ws": "websockets-sansio"} if kind == "uvicorn" else {}
        async with running(app, **own, **options) as server:
            yield server.port
            if "timeout_graceful_shutdown" in options:
                await server.stop()  # with its time-outs


@contextlib.asynccontextmanager
async def _hypercorn(app: App, root_path: str = "") -> AsyncIterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        config = hypercorn.config.Config()
        config.bind = [f"fd://{sock.fileno()}"]
        config.root_path = root_path
        config.graceful_timeout = 0.2
        config.errorlog = None
        stop = asyncio.Event()
        task = asyncio.ensure_future(
            hypercorn.asyncio.serve(app, config, shutdown_trigger=stop.wait)  # type: ignore[arg-type]
        )
        port: int = sock.getsockname()[1]
        try:
            await _listening(port)
            yield port
        finally:
            stop.set()
            await task
            sock.detach()  # hypercorn has closed it


async def _listening(port: int) -> None:
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.01)  # hypercorn does not announce that it listens
        else:
            writer.close()
            return


def url(port: int, path: str = "/") -> str:
    return f"ws://127.0.0.1:{port}{path}"


Serve = Callable[[App], Any]
