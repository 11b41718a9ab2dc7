"""One program on two libraries: `websockets`, and `plumews.compat.websockets`. Both must give the same observations.

A program gets its library as an argument and notes what it sees. The client is that of `websockets` for both.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any, TypeAlias

import pytest
import websockets
import websockets.asyncio.router
import websockets.asyncio.server
import websockets.exceptions
import websockets.frames
from websockets.asyncio.client import ClientConnection, connect, unix_connect

from plumews.compat import websockets as ours

__all__ = ["LIBRARIES", "Observations", "at", "both", "refused", "running", "served", "unix_connect"]

Observations: TypeAlias = "list[Any]"
Program: TypeAlias = "Callable[[Any, Observations], Awaitable[None]]"

if int(websockets.__version__.partition(".")[0]) < int(ours.__version__.partition(".")[0]):
    pytest.skip(f"compared with websockets {ours.__version__}, which Python 3.10 has not", allow_module_level=True)

LIBRARIES: tuple[ModuleType, ...] = (websockets, ours)


async def both(program: Program) -> Observations:
    """Run ``program(library, seen)`` on both libraries. Return the observations, which must be equal."""
    seen: list[Observations] = []
    for library in LIBRARIES:
        observations: Observations = []
        await asyncio.wait_for(program(library, observations), 20)
        seen.append(observations)
    theirs, mine = seen
    assert mine == theirs, f"on websockets: {theirs!r:.2000}\nhere: {mine!r:.2000}"
    return mine


def at(server: Any, path: str = "/", **options: Any) -> connect:
    """Return a client of ``server``, to be awaited or entered."""
    host, port = server.sockets[0].getsockname()[:2]
    options.setdefault("proxy", None)
    return connect(f"ws://{host}:{port}{path}", **options)


async def refused(server: Any, path: str = "/", **options: Any) -> tuple[int, str]:
    """Return the status and the body of the response that refuses a client."""
    try:
        client = await at(server, path, **options)
    except websockets.exceptions.InvalidStatus as exc:
        body = exc.response.body
        return exc.response.status_code, bytes(body or b"").decode()
    await client.close()
    return 101, ""


def running(library: Any, handler: Any, **options: Any) -> Any:
    """Return a server of ``library`` on a free port."""
    return library.asyncio.server.serve(handler, "127.0.0.1", 0, **options)


class served:  # noqa: N801 - entered like a function
    """Client and result of one connection: ``async with served(library, handler) as (client, result)``."""

    def __init__(self, library: Any, handler: Callable[[Any], Awaitable[Any]], path: str = "/", **options: Any) -> None:
        self.result: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._path = path
        self._client_options = options.pop("client", {})

        async def handle(websocket: Any) -> None:
            try:
                self.result.set_result(await handler(websocket))
            except Exception as exc:
                self.result.set_exception(exc)
                raise

        self._serving = running(library, handle, logger=logging.getLogger("quiet"), **options)

    async def __aenter__(self) -> tuple[ClientConnection, asyncio.Future[Any]]:
        self.server = await self._serving.__aenter__()
        self.client = await at(self.server, self._path, **self._client_options)
        return self.client, self.result

    async def __aexit__(self, *exc: Any) -> None:
        await self.client.close()
        await self._serving.__aexit__(*exc)
        if self.result.done() and not self.result.cancelled():
            self.result.exception()
