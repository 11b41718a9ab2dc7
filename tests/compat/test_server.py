"""Servers of `plumews.compat.websockets`: starting, listening and broadcasting, observed on both libraries."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from websockets.asyncio.client import connect

from plumews.compat import websockets as ours
from support.both_libraries import LIBRARIES, Observations, at, both, running, unix_connect
from support.fakes import tls_contexts, until

pytestmark = pytest.mark.peer

SERVER_TLS, CLIENT_TLS = tls_contexts()


async def echo(websocket: Any) -> None:
    async for message in websocket:
        await websocket.send(message)


async def stay(websocket: Any) -> None:
    await websocket.wait_closed()


@contextlib.asynccontextmanager
async def unread(**options: Any) -> AsyncIterator[Any]:
    """Give the connection of a client that does not read."""
    async with running(ours, stay, compression=None, **options) as server:
        client = await at(server)
        client.transport.pause_reading()
        while not server.connections:
            await asyncio.sleep(0)
        (connection,) = server.connections
        yield connection
        client.transport.abort()


# --- starting -------------------------------------------------------------------------------------


async def test_a_server_is_awaited_or_entered() -> None:
    async def program(library: Any, seen: Observations) -> None:
        server = await running(library, echo)
        seen.append((server.is_serving(), type(server).__name__, server.get_loop() is asyncio.get_running_loop()))
        async with at(server) as client:
            await client.send("a")
            seen.append(await client.recv())
        server.close()
        await server.wait_closed()
        seen.append((server.is_serving(), len(server.sockets)))
        async with running(library, echo) as entered:
            seen.append((entered.is_serving(), len(entered.sockets), len(entered.server.sockets)))
            again = await entered
            seen.append(again is entered)

    await both(program)


@pytest.mark.parametrize("port", [None, 0, "0"])
async def test_no_port_is_a_free_one(port: Any) -> None:
    async def program(library: Any, seen: Observations) -> None:
        async with library.asyncio.server.serve(echo, "127.0.0.1", port) as server:
            seen.append(server.sockets[0].getsockname()[1] > 0)

    assert await both(program) == [True]


async def test_a_server_listens_on_given_sockets() -> None:
    async def program(library: Any, seen: Observations) -> None:
        sock = socket.create_server(("127.0.0.1", 0))
        async with library.asyncio.server.serve(echo, sock=sock) as server, at(server) as client:
            await client.send("a")
            seen.append(await client.recv())

    assert await both(program) == ["a"]


async def test_start_serving_false_begins_later() -> None:
    async def program(library: Any, seen: Observations) -> None:
        server = await running(library, echo, start_serving=False)
        seen += [server.is_serving(), len(server.sockets)]
        await server.start_serving()
        seen.append(server.is_serving())
        async with at(server) as client:
            await client.send("a")
            seen.append(await client.recv())
        server.close()
        await server.wait_closed()

    assert await both(program) == [False, 1, True, "a"]


async def test_a_server_that_has_not_begun_can_be_closed() -> None:
    async def program(library: Any, seen: Observations) -> None:
        server = await running(library, echo, start_serving=False)
        address = server.sockets[0].getsockname()
        server.close()
        server.close()
        await server.wait_closed()
        socket.create_server(address).close()  # the address is free
        seen += [server.is_serving(), len(server.sockets)]

    assert await both(program) == [False, 0]


async def test_serve_forever_is_cancelled_or_closed() -> None:
    async def program(library: Any, seen: Observations) -> None:
        for cancels in (True, False):
            server = await running(library, echo)
            client = await at(server)
            await (await client.ping())
            serving = asyncio.ensure_future(server.serve_forever())
            await asyncio.sleep(0)
            if cancels:
                serving.cancel()
            else:
                server.close()
            with contextlib.suppress(asyncio.CancelledError):
                await serving
            await client.wait_closed()
            seen.append((client.close_code, server.is_serving(), serving.cancelled()))

    assert await both(program) == [(1001, False, True), (1001, False, False)]


async def test_a_server_that_failed_to_start_can_start_later() -> None:
    async with running(ours, echo) as first:
        server = ours.serve(echo, *first.sockets[0].getsockname())
        for _ in range(2):
            with pytest.raises(OSError, match=r"."):
                await server
        first.close()
        await first.wait_closed()
        async with server, at(server) as client:
            await client.send("a")
            assert await client.recv() == "a"


async def test_an_address_in_use_raises() -> None:
    async def program(library: Any, seen: Observations) -> None:
        async with running(library, echo) as server:
            with pytest.raises(OSError, match=r"."):
                await library.asyncio.server.serve(echo, *server.sockets[0].getsockname())
            seen.append("raised")

    await both(program)


def test_attributes_of_a_server_that_has_not_started() -> None:
    server = ours.serve(echo, "127.0.0.1", 0)
    for name in ("server", "sockets"):
        with pytest.raises(AttributeError, match="has not started"):
            getattr(server, name)
    assert not server.is_serving()
    with pytest.raises(AttributeError, match="has not started"):
        server.get_loop()
    del server
    with pytest.warns(RuntimeWarning, match="never awaited"):
        gc.collect()


async def test_a_unix_socket_is_served(tmp_path: Any) -> None:
    async def program(library: Any, seen: Observations) -> None:
        async def tell(websocket: Any) -> None:
            seen.append((websocket.remote_address, websocket.request.path))
            await echo(websocket)

        path = str(tmp_path / library.__name__)
        serving = library.asyncio.server.unix_serve(tell, path)
        async with serving, unix_connect(path, "ws://localhost/here") as client:
            await client.send("a")
            seen.append(await client.recv())

    assert await both(program) == [("", "/here"), "a"]


async def test_tls_shows_the_transport_to_the_handler() -> None:
    async def program(library: Any, seen: Observations) -> None:
        async def tell(websocket: Any) -> None:
            seen.append(websocket.transport.get_extra_info("ssl_object") is not None)
            await echo(websocket)

        async with running(library, tell, ssl=SERVER_TLS) as server:
            port = server.sockets[0].getsockname()[1]
            client = await connect(f"wss://localhost:{port}/", ssl=CLIENT_TLS, proxy=None)
            await client.send("a" * 100_000)
            seen.append(len(await client.recv()))
            await client.close()

    assert await both(program) == [True, 100_000]


async def test_connections_are_those_that_are_open() -> None:
    async def program(library: Any, seen: Observations) -> None:
        async def leave(websocket: Any) -> None:
            seen.append(websocket in server.connections)
            await websocket.close()
            seen.append(websocket in server.connections)

        async with running(library, leave) as server:
            client = await at(server)
            await client.wait_closed()

    assert await both(program) == [True, False]


# --- broadcast ------------------------------------------------------------------------------------


async def test_broadcast_reaches_all_open_connections() -> None:
    async def program(library: Any, seen: Observations) -> None:
        closed: list[Any] = []

        async def stay(websocket: Any) -> None:
            await websocket.wait_closed()
            closed.append(websocket)

        async with running(library, stay) as server:
            gone = await at(server)
            await gone.close()
            await until(lambda: closed)
            clients = [await at(server) for _ in range(3)]
            await until(lambda: len(server.connections) == 3)
            everybody = [*server.connections, *closed]
            for message, options in (
                ("text", {}),
                (b"bytes", {}),
                ("ü" * 100_000, {}),
                (b"as text", {"text": True}),
                ("as bytes", {"text": False}),
                (bytearray(b"mutable"), {"raise_exceptions": sys.version_info >= (3, 11)}),
            ):
                library.asyncio.server.broadcast(everybody, message, **options)
                seen += [await client.recv() for client in clients]
            for wrong in (5, ["a"], None):
                with pytest.raises(TypeError) as refused:
                    library.asyncio.server.broadcast(everybody, wrong)
                seen.append(str(refused.value))
            for client in clients:
                await client.close()

    await both(program)


async def test_broadcast_passes_over_a_message_in_fragments(caplog: Any) -> None:
    async def program(library: Any, seen: Observations) -> None:
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def pieces() -> Any:
            yield "a"
            begun.set()
            await go_on.wait()
            yield "b"

        async def send(websocket: Any) -> None:
            await websocket.send(pieces())

        async with running(library, send) as server, at(server) as client:
            await begun.wait()
            library.asyncio.server.broadcast(server.connections, "all")
            seen += [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
            caplog.clear()
            if sys.version_info >= (3, 11):
                try:
                    library.asyncio.server.broadcast(server.connections, "all", raise_exceptions=True)
                except Exception as exc:
                    seen += [type(exc).__name__, str(exc), [str(each) for each in exc.exceptions]]  # type: ignore[attr-defined]
            go_on.set()
            seen.append(await client.recv())

    seen = await both(program)
    assert seen[0] == "skipped broadcast: sending a fragmented message"


async def test_broadcasts_to_a_slow_client_are_not_lost() -> None:
    async def program(library: Any, seen: Observations) -> None:
        async with running(library, stay, compression=None) as server, at(server) as client:
            client.transport.pause_reading()
            await until(lambda: server.connections)
            for number in range(500):
                library.asyncio.server.broadcast(server.connections, str(number).ljust(20_000))
            client.transport.resume_reading()
            seen.append([int(await client.recv()) for _ in range(500)] == [*range(500)])

    assert await both(program) == [True]


async def test_broadcast_closes_a_client_beyond_queue_bytes(caplog: Any) -> None:
    async with unread(queue_bytes=100_000) as connection:
        while connection.open:
            ours.broadcast([connection], b"x" * 50_000)
        assert connection.protocol.close_sent.code == 1013
        assert any("skipped broadcast: send queue full" in record.getMessage() for record in caplog.records)
        ours.broadcast([connection], b"x")


async def test_broadcast_takes_native_connections_too() -> None:
    async with running(ours, stay) as server, at(server) as client:
        while not server.connections:
            await asyncio.sleep(0)
        ours.broadcast([connection.plumews for connection in server.connections], "all")
        assert await client.recv() == "all"


async def test_broadcast_raises_an_exception_group() -> None:
    if sys.version_info < (3, 11):
        with pytest.raises(ValueError, match=r"requires at least Python 3\.11"):
            ours.broadcast([], "x", raise_exceptions=True)
        return

    async with unread(queue_bytes=100_000) as connection:
        with pytest.raises(Exception, match="skipped broadcast") as group:  # noqa: PT012 - one of them raises
            while connection.open:
                ours.broadcast([connection], b"x" * 50_000, raise_exceptions=True)
        assert [type(each) for each in group.value.exceptions] == [RuntimeError]  # type: ignore[attr-defined]


def test_libraries_are_two() -> None:
    assert [library.__name__ for library in LIBRARIES] == ["websockets", "plumews.compat.websockets"]
