"""Programs of people who come from the `websockets` package: what they have written runs with the import renamed.

Each program is written once and gets its library as an argument: first `websockets`, to show that it is one of
theirs, then `plumews`. The client is that of `websockets` for both. Beyond the names that the programs use, the last
tests hold what users of `websockets` rely on without naming it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from types import ModuleType
from typing import Any, TypeAlias

import aiohttp
import pytest
import websockets
from websockets.asyncio.client import connect

import plumews
from plumews import limits

pytestmark = pytest.mark.peer

Program: TypeAlias = "Callable[[ModuleType, asyncio.Future[Any]], Awaitable[None]]"


@pytest.fixture(params=[websockets, plumews], ids=["websockets", "plumews"])
def library(request: pytest.FixtureRequest) -> ModuleType:
    """Return the names that the program imports."""
    module: ModuleType = request.param
    return module


def address_of(server: Any) -> str:
    host, port = server.sockets[0].getsockname()
    return f"{host}:{port}"


class Running:
    """A program that runs in the background; it tells its server, and is cancelled at the end as by Ctrl-C."""

    def __init__(self, program: Program, library: ModuleType) -> None:
        self.started: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.task = asyncio.ensure_future(program(library, self.started))

    async def __aenter__(self) -> str:
        await asyncio.wait([self.started, self.task], return_when=asyncio.FIRST_COMPLETED)
        if self.task.done():
            await self.task
        return address_of(self.started.result())

    async def __aexit__(self, *exc: object) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])
        assert self.task.cancelled()


# --- echo -----------------------------------------------------------------------------------------


async def echo_program(library: ModuleType, started: asyncio.Future[Any]) -> None:
    async def echo(websocket: Any) -> None:
        async for message in websocket:
            await websocket.send(message)

    async with library.serve(echo, "127.0.0.1", 0) as server:
        started.set_result(server)
        await server.serve_forever()


async def test_the_echo_server(library: ModuleType) -> None:
    async with Running(echo_program, library) as address, connect(f"ws://{address}/", proxy=None) as client:
        for message in ("Hello world!", b"\x00\xff", ""):
            await client.send(message)
            assert await client.recv() == message


async def test_cancelled_echo_server_closes_with_going_away(library: ModuleType) -> None:
    async with Running(echo_program, library) as address:
        client = await connect(f"ws://{address}/", proxy=None)
        await client.send("still there?")
        await client.recv()
    await client.wait_closed()
    assert client.close_code == 1001


# --- chat -----------------------------------------------------------------------------------------


async def chat_program(library: ModuleType, started: asyncio.Future[Any]) -> None:
    connections: set[Any] = set()

    async def say(**event: object) -> None:
        for websocket in connections.copy():
            with contextlib.suppress(library.ConnectionClosed):  # its own handler will notice
                await websocket.send(json.dumps(event))

    async def chat(websocket: Any) -> None:
        name = json.loads(await websocket.recv())["name"]
        connections.add(websocket)
        try:
            await say(joined=name, members=len(connections))
            async for message in websocket:
                await say(name=name, text=json.loads(message)["text"])
        finally:
            connections.remove(websocket)
            await say(left=name, members=len(connections))

    async with library.serve(chat, "127.0.0.1", 0, ping_interval=20, ping_timeout=20, max_size=2**16) as server:
        started.set_result(server)
        await server.serve_forever()


async def test_a_chat_with_a_set_of_connections(library: ModuleType) -> None:
    async def join(name: str) -> Any:
        client = await connect(f"ws://{address}/", proxy=None)
        await client.send(json.dumps({"name": name}))
        return client

    async def hears(*clients: Any, **event: object) -> None:
        for client in clients:
            assert json.loads(await client.recv()) == event

    async with Running(chat_program, library) as address:
        ada = await join("ada")
        await hears(ada, joined="ada", members=1)
        bob = await join("bob")
        await hears(ada, bob, joined="bob", members=2)
        await ada.send(json.dumps({"text": "good morning"}))
        await hears(ada, bob, name="ada", text="good morning")
        await ada.close()
        await hears(bob, left="ada", members=1)
        bob.transport.abort()  # nobody is left to be told, and the server lives
        carl = await join("carl")
        await carl.close()


# --- health check ---------------------------------------------------------------------------------


async def health_program(library: ModuleType, started: asyncio.Future[Any]) -> None:
    def respond(connection: Any, status: HTTPStatus, text: str) -> Any:
        # The one line that changes: the answer is made by its class, not by the connection.
        return connection.respond(status, text) if library is websockets else library.Response.text(status, text)

    async def health_check(connection: Any, request: Any) -> Any:
        if request.path == "/healthz":
            return respond(connection, HTTPStatus.OK, "OK\n")
        if request.headers.get("x-version") == "1":
            return respond(connection, HTTPStatus.GONE, "this version is not spoken any more\n")
        return None

    async def greet(websocket: Any) -> None:
        await websocket.send(f"you are at {websocket.request.path}")

    async with library.serve(greet, "127.0.0.1", 0, process_request=health_check) as server:
        started.set_result(server)
        await server.serve_forever()


async def test_a_health_check_in_process_request(library: ModuleType) -> None:
    async with Running(health_program, library) as address:
        async with aiohttp.ClientSession() as session, session.get(f"http://{address}/healthz") as response:
            assert (response.status, await response.text()) == (200, "OK\n")
        async with connect(f"ws://{address}/chat", proxy=None) as client:
            assert await client.recv() == "you are at /chat"
        with pytest.raises(websockets.InvalidStatus) as refused:
            await connect(f"ws://{address}/chat", proxy=None, additional_headers={"X-Version": "1"})
        assert refused.value.response.status_code == HTTPStatus.GONE


# --- hooks of the handshake -----------------------------------------------------------------------


async def hooks_program(library: ModuleType, started: asyncio.Future[Any]) -> None:
    def select_subprotocol(connection: Any, subprotocols: Any) -> Any:
        for subprotocol in subprotocols:
            if subprotocol.startswith("chat."):
                return subprotocol
        raise library.InvalidHandshake("no chat was offered")

    async def process_response(connection: Any, request: Any, response: Any) -> None:
        response.headers["X-Path"] = request.path

    async def greet(websocket: Any) -> None:
        await websocket.send(f"{websocket.subprotocol}, {websocket.response.headers['X-Path']}")

    async with library.serve(
        greet, "127.0.0.1", 0, select_subprotocol=select_subprotocol, process_response=process_response
    ) as server:
        started.set_result(server)
        await server.serve_forever()


async def test_process_response_and_select_subprotocol(library: ModuleType) -> None:
    async with Running(hooks_program, library) as address:
        async with connect(f"ws://{address}/a", proxy=None, subprotocols=["x", "chat.v1"]) as client:  # type: ignore[list-item]
            assert await client.recv() == "chat.v1, /a"
            assert client.response is not None
            assert client.response.headers["X-Path"] == "/a"
        with pytest.raises(websockets.InvalidStatus) as refused:
            await connect(f"ws://{address}/b", proxy=None)
        assert refused.value.response.status_code == HTTPStatus.BAD_REQUEST
        assert refused.value.response.headers["X-Path"] == "/b"


# --- habits ---------------------------------------------------------------------------------------


class Handled:
    """Serves one connection with ``handler(websocket)``: a client of it, and what the handler returned."""

    def __init__(self, library: ModuleType, handler: Callable[[Any], Awaitable[Any]], **options: Any) -> None:
        self.result: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        async def handle(websocket: Any) -> None:
            try:
                self.result.set_result(await handler(websocket))
            except Exception as exc:
                self.result.set_exception(exc)

        self.serving = library.serve(handle, "127.0.0.1", 0, **options)

    async def __aenter__(self) -> Any:
        server = await self.serving.__aenter__()
        self.client = await connect(f"ws://{address_of(server)}/", proxy=None)
        return self.client

    async def __aexit__(self, *exc: Any) -> None:
        await self.client.close()
        await self.serving.__aexit__(*exc)


async def everything(websocket: Any) -> list[str | bytes]:
    return [message async for message in websocket]


@pytest.mark.parametrize("code", [1000, 1001])
async def test_the_iteration_ends_when_the_client_leaves(library: ModuleType, code: int) -> None:
    handled = Handled(library, everything)
    async with handled as client:
        await client.send("first")
        await client.send(b"last")
        await client.close(code)
        assert await handled.result == ["first", b"last"]


async def test_iteration_raises_when_the_client_closes_with_an_error(library: ModuleType) -> None:
    handled = Handled(library, everything)
    async with handled as client:
        await client.close(4001, "confused")
        with pytest.raises(library.ConnectionClosedError) as closed:
            await handled.result
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4001, "confused")
        assert isinstance(closed.value, library.ConnectionClosed)


async def test_a_close_is_told_by_its_code_and_reason(library: ModuleType) -> None:
    async def leave(websocket: Any) -> Any:
        await websocket.wait_closed()
        return websocket.close_code, websocket.close_reason, websocket.state.name

    handled = Handled(library, leave)
    async with handled as client:
        await client.close(1000, "bye")
        assert await handled.result == (1000, "bye", "CLOSED")


async def test_what_arrived_before_the_close_is_readable_after_it(
    library: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "END_GRACE", 0.01)  # how long plumews waits for the handler to read them first

    async def late(websocket: Any) -> Any:
        await websocket.wait_closed()
        received = [await websocket.recv(), await websocket.recv()]
        with pytest.raises(library.ConnectionClosedOK):
            await websocket.recv()
        return received

    handled = Handled(library, late)
    async with handled as client:
        await client.send("one")
        await client.send("two")
        await client.close()
        assert await handled.result == ["one", "two"]


async def test_a_recv_that_is_cancelled_loses_nothing(library: ModuleType) -> None:
    async def impatient(websocket: Any) -> Any:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(websocket.recv(), 0.01)
        await websocket.send("now")
        return await websocket.recv()

    handled = Handled(library, impatient)
    async with handled as client:
        assert await client.recv() == "now"
        await client.send("here it is")
        assert await handled.result == "here it is"


async def test_two_recv_at_once_are_refused(library: ModuleType) -> None:
    async def hurried(websocket: Any) -> Any:
        first = asyncio.ensure_future(websocket.recv())
        await (await websocket.ping())  # by now it waits
        with pytest.raises(library.ConcurrencyError):
            await websocket.recv()
        await websocket.send("go")
        return await first

    handled = Handled(library, hurried)
    async with handled as client:
        assert await client.recv() == "go"
        await client.send("message")
        assert await handled.result == "message"


async def test_sending_to_who_has_left_raises(library: ModuleType) -> None:
    async def talkative(websocket: Any) -> Any:
        await websocket.wait_closed()
        with pytest.raises(library.ConnectionClosed):
            await websocket.send("are you there?")
        return True

    handled = Handled(library, talkative)
    async with handled as client:
        await client.close()
        assert await handled.result


async def test_bytes_can_be_sent_as_text_and_text_be_received_as_bytes(library: ModuleType) -> None:
    async def convert(websocket: Any) -> Any:
        await websocket.send(b"text", text=True)
        await websocket.send("binary", text=False)
        return [await websocket.recv(decode=False), await websocket.recv(decode=True)]

    handled = Handled(library, convert)
    async with handled as client:
        assert [await client.recv(), await client.recv()] == ["text", b"binary"]
        await client.send("as bytes")
        await client.send(b"as text")
        assert await handled.result == [b"as bytes", "as text"]


async def test_a_ping_tells_its_latency(library: ModuleType) -> None:
    async def measure(websocket: Any) -> Any:
        latency = await (await websocket.ping())
        return latency, websocket.latency

    handled = Handled(library, measure)
    async with handled:
        latency, property_of_connection = await handled.result
        assert 0 <= latency == property_of_connection < 60


async def test_the_connection_knows_its_request_and_its_addresses(library: ModuleType) -> None:
    async def look(websocket: Any) -> Any:
        return websocket.request.headers["Host"], websocket.local_address, websocket.remote_address, websocket.id.hex

    handled = Handled(library, look)
    async with handled as client:
        host, local, remote, _ = await handled.result
        assert host == f"{local[0]}:{local[1]}"
        assert (local, remote) == (client.remote_address, client.local_address)


async def test_a_handler_that_fails_closes_with_1011(library: ModuleType, caplog: pytest.LogCaptureFixture) -> None:
    async def broken(websocket: Any) -> None:
        raise ValueError("not what I expected")

    async with library.serve(broken, "127.0.0.1", 0) as server:
        client = await connect(f"ws://{address_of(server)}/", proxy=None)
        await client.wait_closed()
    assert client.close_code == 1011
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [ValueError]


async def test_a_page_of_another_origin_is_refused_with_403(library: ModuleType) -> None:
    async with library.serve(everything, "127.0.0.1", 0, origins=["https://example.com"]) as server:
        url = f"ws://{address_of(server)}/"
        await (await connect(url, proxy=None, origin="https://example.com")).close()
        with pytest.raises(websockets.InvalidStatus) as refused:
            await connect(url, proxy=None, origin="https://example.net")
        assert refused.value.response.status_code == HTTPStatus.FORBIDDEN
