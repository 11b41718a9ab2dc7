"""Handlers by path: ``route()`` with ``werkzeug``, observed on both libraries."""

from __future__ import annotations

import asyncio
import importlib
import sys
from typing import Any

import pytest

from plumews.compat import websockets as ours
from support.both_libraries import Observations, at, both, refused, unix_connect

pytest.importorskip("werkzeug")
pytestmark = pytest.mark.peer


def url_map() -> Any:
    from werkzeug.routing import Map, Rule

    async def channel(websocket: Any, channel_id: int) -> None:
        await websocket.send(f"channel {channel_id}")

    async def home(websocket: Any) -> None:
        await websocket.send("home")

    return Map(
        [
            Rule("/", endpoint=home),
            Rule("/channel/<int:channel_id>", endpoint=channel),
            Rule("/old/<int:channel_id>", redirect_to="/channel/<channel_id>"),
        ]
    )


async def test_a_route_finds_its_handler() -> None:
    async def program(library: Any, seen: Observations) -> None:
        async with library.asyncio.router.route(url_map(), "127.0.0.1", 0) as server:
            for path in ("/", "/channel/5", "/channel/5?query=1"):
                async with at(server, path) as client:
                    seen.append(await client.recv())
            for path in ("/none", "/channel/x"):
                seen.append(await refused(server, path))

    assert (await both(program))[:3] == ["home", "channel 5", "channel 5"]


async def test_a_redirect_names_the_server() -> None:
    async def program(library: Any, seen: Observations) -> None:
        for options in ({"server_name": "example.com"}, {}, {"server_name": "example.com", "ssl": True}):
            async with library.asyncio.router.route(url_map(), "127.0.0.1", 0, **options) as server:
                reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
                writer.write(b"GET /old/7 HTTP/1.1\r\nHost: a\r\n\r\n")
                head = (await reader.read()).decode().splitlines()
                seen += [head[0], next(line for line in head if line.startswith("Location"))]
                writer.close()

    assert (await both(program))[:2] == ["HTTP/1.1 302 Found", "Location: ws://example.com/channel/7"]


async def test_process_request_comes_before_the_route() -> None:
    async def program(library: Any, seen: Observations) -> None:
        async def gate(connection: Any, request: Any) -> Any:
            return connection.respond(401, "no\n") if request.path == "/" else None

        def plain(connection: Any, request: Any) -> Any:
            return connection.respond(401, "no\n") if request.path == "/" else None

        for hook in (gate, plain):
            async with library.asyncio.router.route(url_map(), "127.0.0.1", 0, process_request=hook) as server:
                seen.append(await refused(server, "/"))
                async with at(server, "/channel/5") as client:
                    seen.append(await client.recv())

    await both(program)


async def test_a_route_on_a_unix_socket(tmp_path: Any) -> None:
    async def program(library: Any, seen: Observations) -> None:
        path = str(tmp_path / library.__name__)
        serving = library.asyncio.router.unix_route(url_map(), path)
        async with serving, unix_connect(path, "ws://localhost/channel/5") as client:
            seen.append(await client.recv())

    assert await both(program) == ["channel 5"]


def test_a_route_without_werkzeug_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    found = url_map()
    monkeypatch.setitem(sys.modules, "werkzeug.routing", None)
    importlib.invalidate_caches()
    with pytest.raises(ImportError, match="requires werkzeug"):
        ours.route(found, "127.0.0.1", 0)
