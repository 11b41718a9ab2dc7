"""Options of ``serve()``: what `websockets` accepts means the same, or raises at once and says what to use."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Any

import pytest
from websockets.asyncio.client import connect

import plumews
from plumews.compat import websockets as ours
from plumews.compat.websockets.asyncio.options import conn_options, listening_options, takes_path
from support.both_libraries import Observations, at, both, refused, running, served

pytestmark = pytest.mark.peer


async def echo(websocket: Any) -> None:
    async for message in websocket:
        await websocket.send(message)


#: Values that are legal in `websockets`.
LEGAL: list[dict[str, Any]] = [
    {"open_timeout": None, "close_timeout": None, "ping_interval": None, "ping_timeout": None},
    {"ping_timeout": None},
    {"close_timeout": 0},
    {"max_size": None},
    {"max_size": (2**20, None)},
    {"max_size": (None, None)},
    {"max_queue": None},
    {"max_queue": 0},
    {"max_queue": (32, 8)},
    {"max_queue": (None, 4)},
    {"max_queue": (None, None)},
    {"write_limit": 0},
    {"write_limit": (2**16, 2**14)},
    {"write_limit": (2**16, None)},
    {"compression": None},
    {"origins": None, "subprotocols": None, "extensions": None},
    {"logger": None, "create_connection": None, "server_header": None},
    {"reuse_address": True, "backlog": 10},
    {"reuse_port": True},
    {"start_serving": True},
    {"ssl": None},
]


@pytest.mark.parametrize("options", LEGAL, ids=str)
async def test_legal_values_are_accepted(options: dict[str, Any]) -> None:
    async def program(library: Any, seen: Observations) -> None:
        async with running(library, echo, **options) as server, at(server) as client:
            await client.send("x" * 100_000)
            seen.append(len(await client.recv()))

    assert await both(program) == [100_000]


#: Values that cannot mean the same, the exception, and what it says.
REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"max_size": (None, 1000)}, ValueError, "use max_size=None"),
    ({"max_size": (1000, 10)}, ValueError, "use max_size=1000"),
    ({"extensions": [object()]}, TypeError, "use compression"),
    ({"compression": "gzip"}, ValueError, "unsupported compression: gzip"),
    ({"create_protocol": object}, TypeError, "create_connection"),
    ({"klass": object}, TypeError, "create_connection"),
    ({"extra_headers": {"A": "b"}}, TypeError, "legacy.server"),
    ({"read_limit": 2**16}, TypeError, "leave it out"),
    ({"timeout": 5}, TypeError, "close_timeout"),
    ({"family": 2}, TypeError, "0.0.0.0"),
    ({"reuse_address": False}, TypeError, "reuse_address=False"),
    ({"ssl_handshake_timeout": 5}, TypeError, "open_timeout"),
    ({"ssl_shutdown_timeout": 5}, TypeError, "close_timeout"),
    ({"ssl": ssl.create_default_context()}, ValueError, "context for servers"),
    ({"max_sise": 5}, TypeError, "do you mean max_size"),
    ({"routes": {"/": print}}, TypeError, "process_request"),
    ({"path": "/tmp/socket"}, TypeError, "unix_serve"),
    ({"sock": socket.socket()}, TypeError, "either host, port and reuse_port or sock"),
    ({"write_limit": (1, 2)}, ValueError, "high >= low"),
    ({"max_queue": (1, 2)}, ValueError, "high >= low"),
    ({"ping_interval": -1}, ValueError, "ping_interval"),
    ({"subprotocols": "chat"}, TypeError, "list of str"),
    ({"subprotocols": ["a b"]}, ValueError, "invalid subprotocol"),
    ({"process_request": lambda path, headers: None}, TypeError, "legacy.server"),
    ({"process_request": lambda request: None}, TypeError, "called with"),
    ({"process_response": "text"}, TypeError, "must be a function"),
    ({"select_subprotocol": lambda: None}, TypeError, "called with"),
]


@pytest.mark.parametrize(
    ("options", "kind", "words"), REFUSED, ids=lambda value: str(value).partition(" at 0x")[0][:40]
)
async def test_values_that_cannot_mean_the_same_raise(options: Any, kind: Any, words: str) -> None:
    with pytest.raises(kind, match=words):
        running(ours, echo, **options)


async def test_a_subclass_that_overrides_the_inside_is_refused() -> None:
    class Own(ours.ServerConnection):
        async def handshake(self, *args: Any) -> None: ...

    with pytest.raises(TypeError, match=r"Own overrides handshake.*process_request"):
        running(ours, echo, create_connection=Own)


async def test_create_connection_may_be_a_function() -> None:
    async def program(library: Any, seen: Observations) -> None:
        def create(*args: Any, **kwargs: Any) -> Any:
            seen.append(sorted(kwargs))
            made = library.asyncio.server.ServerConnection(*args, **kwargs)
            made.mine = "yes"
            return made

        async def tell(websocket: Any) -> Any:
            return websocket.mine

        async with served(library, tell, create_connection=create) as (_, result):
            seen.append(await result)

    await both(program)


async def test_a_client_that_keeps_its_window_is_read() -> None:
    """Safari of iOS 15 does so, whatever was agreed on."""
    async with running(ours, echo) as server, at(server, compression="deflate") as client:
        client.protocol.extensions[0].local_no_context_takeover = False  # type: ignore[attr-defined]
        for _ in range(3):
            await client.send("the same text, again and again " * 10)
            assert len(await client.recv()) == 310


async def test_keepalive_of_one_connection_can_be_changed() -> None:
    async def program(library: Any, seen: Observations) -> None:
        def create(*args: Any, **kwargs: Any) -> Any:
            return library.asyncio.server.ServerConnection(*args, **{**kwargs, "ping_interval": 0.05})

        async def handler(websocket: Any) -> None:
            seen.append((websocket.ping_interval, websocket.ping_timeout))
            while not websocket.latency:
                await asyncio.sleep(0.01)  # no event tells of the pong to a ping of the keepalive
            websocket.ping_interval, websocket.ping_timeout = 9, None
            seen.append((websocket.ping_interval, websocket.ping_timeout))

        async with running(library, handler, create_connection=create, ping_timeout=7) as server:
            client = await at(server)
            await client.wait_closed()

    assert await both(program) == [(0.05, 7), (9, None)]


async def test_native_options_are_passed_on() -> None:
    async def tell(websocket: Any) -> None:
        await websocket.send(websocket.plumews.client_address)
        await websocket.wait_closed()

    options = {"trusted_proxies": ["127.0.0.1"], "allowed_hosts": ["localhost"]}
    headers = {"X-Forwarded-For": "203.0.113.9"}
    async with running(ours, tell, **options) as server:
        assert (await refused(server))[0] == 403
        port = server.sockets[0].getsockname()[1]
        async with connect(f"ws://localhost:{port}/", additional_headers=headers, proxy=None) as client:
            assert await client.recv() == "203.0.113.9"


async def test_compression_may_be_native() -> None:
    async with running(ours, echo, compression=plumews.Deflate(level=1)) as server, at(server) as client:
        await client.send("x" * 1000)
        assert await client.recv() == "x" * 1000
        (connection,) = server.connections
        assert connection.plumews.compression.sent_messages == 1


def test_defaults_are_those_of_websockets() -> None:
    import inspect

    import websockets.asyncio.server

    theirs = inspect.signature(websockets.asyncio.server.serve).parameters
    mine = inspect.signature(ours.serve).parameters
    assert list(mine) == list(theirs)
    for name, parameter in theirs.items():
        assert mine[name].kind == parameter.kind
        if name != "server_header":
            assert mine[name].default == parameter.default, name


def test_options_become_native_ones() -> None:
    options = conn_options(
        compression="deflate",
        open_timeout=None,
        ping_interval=20,
        ping_timeout=20,
        close_timeout=10,
        max_size=(5, None),
        max_queue=(None, 4),
        write_limit=1,
    )
    assert (options["max_size"], options["close_timeout"], "max_queue" in options) == (5, 10, False)
    assert options["open_timeout"] > 86_400
    assert listening_options({"family": None, "reuse_address": True})["allowed_hosts"] == ["*"]


def test_a_handler_may_take_the_path() -> None:
    async def new(websocket: Any) -> None: ...
    async def old(websocket: Any, path: str) -> None: ...
    async def either(websocket: Any, path: str = "") -> None: ...

    assert [takes_path(handler) for handler in (new, old, either)] == [False, True, False]
    with pytest.raises(TypeError, match="is called with"):
        takes_path(lambda: None)
    with pytest.raises(TypeError, match="must be an `async def`"):
        takes_path(None)  # type: ignore[arg-type]


async def test_a_silent_client_is_cut_by_the_keepalive() -> None:
    async def program(library: Any, seen: Observations) -> None:
        async def read(websocket: Any) -> Any:
            with pytest.raises(library.exceptions.ConnectionClosedError) as closed:
                await websocket.recv()
            return str(closed.value), websocket.close_code

        async with served(library, read, ping_interval=0.1, ping_timeout=0.1, close_timeout=0.1) as (client, result):
            client.transport.pause_reading()
            seen.append(await asyncio.wait_for(result, 5))
            client.transport.abort()  # its closing handshake would wait for what it does not read

    assert await both(program) == [("sent 1011 (internal error) keepalive ping timeout; no close frame received", 1006)]
