"""Programs of the legacy API: handlers with a path, tuples as responses, and its attributes of a connection."""

from __future__ import annotations

import asyncio
import importlib
import warnings
from typing import Any

import pytest

from plumews.compat import websockets as ours
from plumews.compat.websockets.legacy import server as mine
from support.both_libraries import Observations, at, refused

pytestmark = pytest.mark.peer


def theirs() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("websockets.legacy.server")


async def both(program: Any) -> Observations:
    """Run ``program(legacy, seen)`` on both legacy modules. Return the observations, which must be equal."""
    seen: list[Observations] = []
    for legacy in (theirs(), mine):
        observations: Observations = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            await asyncio.wait_for(program(legacy, observations), 20)
        seen.append(observations)
    assert seen[1] == seen[0]
    return seen[1]


async def test_a_handler_gets_the_path() -> None:
    async def program(legacy: Any, seen: Observations) -> None:
        async def handler(websocket: Any, path: str) -> None:
            await websocket.send(f"{path} {websocket.path}")

        async with legacy.serve(handler, "127.0.0.1", 0) as server, at(server, "/a?b=c") as client:
            seen.append(await client.recv())

    assert await both(program) == ["/a?b=c /a?b=c"]


async def test_a_handler_with_a_path_works_in_the_new_api_here() -> None:
    async def handler(websocket: Any, path: str) -> None:
        await websocket.send(path)

    async with ours.serve(handler, "127.0.0.1", 0) as server, at(server, "/a?b=c") as client:
        assert await client.recv() == "/a?b=c"


async def test_attributes_of_the_legacy_api() -> None:
    async def program(legacy: Any, seen: Observations) -> None:
        async def look(websocket: Any) -> None:
            seen.append(
                [
                    websocket.open,
                    websocket.closed,
                    websocket.request_headers["User-Agent"].startswith("Python"),
                    websocket.response_headers["Upgrade"],
                    websocket.secure,
                    websocket.origin,
                    websocket.is_client,
                    websocket.side,
                    isinstance(websocket, legacy.WebSocketServerProtocol),
                    websocket.subprotocol,
                ]
            )
            websocket.path = "/mine"
            seen.append(websocket.path)
            await websocket.wait_closed()
            seen.append((websocket.open, websocket.closed, websocket.close_code))

        async with legacy.serve(look, "127.0.0.1", 0) as server:
            async with at(server, "/", origin="https://example.com"):
                pass
            server.close()
            await server.wait_closed()

    await both(program)


@pytest.mark.parametrize("awaited", [False, True], ids=["function", "coroutine"])
async def test_process_request_returns_a_tuple(awaited: bool) -> None:
    async def program(legacy: Any, seen: Observations) -> None:
        def decide(path: str, headers: Any) -> Any:
            if path == "/healthz":
                return 200, [("X-Why", "fine")], b"OK\n"
            if path == "/none":
                return 404, {}, b""
            seen.append((path, headers["Upgrade"]))
            return None

        async def decide_later(path: str, headers: Any) -> Any:
            return decide(path, headers)

        async def tell(websocket: Any) -> None:
            await websocket.send(websocket.path)

        hook = decide_later if awaited else decide
        async with legacy.serve(tell, "127.0.0.1", 0, process_request=hook) as server:
            seen += [await refused(server, "/healthz"), await refused(server, "/none")]
            async with at(server, "/chat?x") as client:
                seen.append(await client.recv())

    await both(program)


@pytest.mark.parametrize("offered", [None, ["x"], ["b", "x", "a"], ["c", "b"]])
async def test_subprotocols_are_chosen_as_in_the_legacy_api(offered: Any) -> None:
    async def program(legacy: Any, seen: Observations) -> None:
        async def tell(websocket: Any) -> None:
            await websocket.send(str(websocket.subprotocol))

        def select(client: Any, server: Any) -> Any:
            seen.append((list(client), list(server)))
            return client[-1] if client[-1] in server else None

        for hook in (None, select):
            options: Any = {"subprotocols": ["a", "b"], "select_subprotocol": hook}
            serving = legacy.serve(tell, "127.0.0.1", 0, **options)
            async with serving as server, at(server, subprotocols=offered) as client:
                seen += [await client.recv(), client.subprotocol]

    await both(program)


async def test_extra_headers_are_added() -> None:
    async def program(legacy: Any, seen: Observations) -> None:
        async def tell(websocket: Any) -> None:
            await websocket.send(websocket.response_headers["X-Extra"])

        for extra in (
            {"X-Extra": "1"},
            [("X-Extra", "2"), ("Server", "mine")],
            lambda path, headers: {"X-Extra": path},
        ):
            async with legacy.serve(tell, "127.0.0.1", 0, extra_headers=extra) as server, at(server, "/p") as client:
                assert client.response is not None
                seen += [await client.recv(), client.response.headers["X-Extra"]]
                seen.append(client.response.headers["Server"] == "mine")

    assert await both(program) == ["1", "1", False, "2", "2", True, "/p", "/p", False]


async def test_a_list_is_sent_in_fragments_and_websockets_are_told() -> None:
    async def program(legacy: Any, seen: Observations) -> None:
        async def feed(websocket: Any) -> None:
            await websocket.send([b"header", b"payload"])
            seen.append(server.websockets == {websocket})
            legacy.broadcast(server.websockets, "all")
            await websocket.wait_closed()

        server = await legacy.serve(feed, "127.0.0.1", 0, timeout=5)
        client = await at(server)
        seen += [await client.recv(), await client.recv()]
        await client.close()
        server.close()
        await server.wait_closed()

    assert await both(program) == [True, b"headerpayload", "all"]


async def test_a_subclass_overrides_the_hooks() -> None:
    async def program(legacy: Any, seen: Observations) -> None:
        class Protocol(legacy.WebSocketServerProtocol):  # type: ignore[misc,name-defined]
            user = ""

            async def process_request(self, path: str, headers: Any) -> Any:
                if "token=" not in path:
                    return 401, [("X-Why", "token")], b"Missing token\n"
                self.user = path.partition("token=")[2]
                return await super().process_request(path, headers)

            def select_subprotocol(self, client: Any, server: Any) -> Any:
                seen.append((list(client), list(server)))
                return super().select_subprotocol(client, server)

        async def tell(websocket: Any) -> None:
            await websocket.send(f"{websocket.user} {websocket.subprotocol} {type(websocket).__name__}")

        for name in ("create_protocol", "klass"):
            options: Any = {name: Protocol, "subprotocols": ["a", "b"]}
            async with legacy.serve(tell, "127.0.0.1", 0, **options) as server:
                seen.append(await refused(server))
                async with at(server, "/?token=ada", subprotocols=["b"]) as client:
                    seen.append(await client.recv())

    assert (await both(program))[-1] == "ada b Protocol"


async def test_old_options_are_accepted() -> None:
    async with mine.serve(lambda websocket: websocket.wait_closed(), "127.0.0.1", 0, read_limit=5, loop=None):
        pass
