"""A real uvicorn server on the loop of a test, and small ASGI applications for it."""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

import uvicorn

from plumews.asgi import PlumeProtocol
from plumews.conn.connection import Conn
from support.fakes import until

Event: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Event]]
Send: TypeAlias = Callable[[Event], Awaitable[None]]
App: TypeAlias = Callable[[Any, Receive, Send], Awaitable[Any]]

ACCEPT: Event = {"type": "websocket.accept"}
CLOSE: Event = {"type": "websocket.close"}


def text(message: str) -> Event:
    return {"type": "websocket.send", "text": message}


def flooding(failed: list[BaseException]) -> App:
    """Return an application that sends until that fails, and adds the exception to ``failed``."""

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send(ACCEPT)
        try:
            while True:
                await send(text("x" * 100_000))
        except Exception as exc:
            failed.append(exc)

    return app


class Uvicorn:
    """Running server of uvicorn. ``sockets`` is what `Wire` connects to."""

    def __init__(self, server: uvicorn.Server) -> None:
        self.server = server
        self.state = server.server_state
        self.sockets: list[socket.socket] = [sock for each in server.servers for sock in each.sockets]

    @property
    def port(self) -> int:
        port: int = self.sockets[0].getsockname()[1]
        return port

    @property
    def conns(self) -> list[Conn]:
        """Connections of the server."""
        return [each._conn for each in self.state.connections if isinstance(each, PlumeProtocol)]

    async def stop(self) -> None:
        """Stop the server, as at SIGTERM."""
        if self.server.started:
            self.server.started = False
            await self.server.shutdown()

    async def __aenter__(self) -> Uvicorn:
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Stop the server as :meth:`stop` does, without the pauses of uvicorn."""
        if self.server.started:
            self.server.started = False
            for listener in self.server.servers:
                listener.close()
            for connection in list(self.state.connections):
                connection.shutdown()
            await until(lambda: not self.state.connections and not self.state.tasks)
            for listener in self.server.servers:
                await listener.wait_closed()
            await self.server.lifespan.shutdown()


@contextlib.asynccontextmanager
async def running(app: App, tls: ssl.SSLContext | None = None, **options: Any) -> AsyncIterator[Uvicorn]:
    """Run ``app`` on a server with ``options`` of ``uvicorn.Config``, until the block ends."""
    where = {} if "uds" in options else {"host": "127.0.0.1", "port": 0}
    defaults = {"ws": PlumeProtocol, "http": "httptools", "lifespan": "off", "log_config": None}
    config = uvicorn.Config(app, **{**defaults, **where, **options})
    config.load()
    config.ssl = tls
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.on_tick(0)
    await server.startup()
    async with Uvicorn(server) as started:
        yield started


async def echo(scope: Any, receive: Receive, send: Send) -> None:
    """Echo each message, without a ``try``: the shortest application."""
    await receive()
    await send(ACCEPT)
    while True:
        event = await receive()
        if event["type"] == "websocket.disconnect":
            return
        del event["type"]
        await send({"type": "websocket.send", **event})


def errors(caplog: Any) -> list[str]:
    """Log entries at ERROR and above."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
