"""Clients written for `websockets`: the same program on it and on the compatible names, against a server of it."""

from __future__ import annotations

import asyncio
import contextlib
import http
import logging
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import serve, unix_serve

from plumews.compat import websockets as ours
from plumews.compat.websockets.asyncio.client import connect
from support.both_libraries import Observations, both
from support.fakes import tls_contexts
from support.proxies import listening

SERVER_TLS, CLIENT_TLS = tls_contexts()
QUIET = logging.getLogger("quiet")


async def echo(websocket: Any) -> None:
    async for message in websocket:
        await websocket.send(message)


@contextlib.asynccontextmanager
async def serving(handler: Any = echo, **options: Any) -> AsyncIterator[str]:
    """Yield the URI of a server of `websockets`."""
    async with serve(handler, "127.0.0.1", 0, logger=QUIET, **options) as server:
        scheme = "wss" if "ssl" in options else "ws"
        yield f"{scheme}://localhost:{server.sockets[0].getsockname()[1]}/"


def seen_of(exc: BaseException) -> tuple[str, str, str]:
    return type(exc).__name__, str(exc), type(exc.__cause__).__name__


async def failure(client: Any) -> BaseException:
    """Return the exception of a client that cannot connect."""
    try:
        connection = await client
    except Exception as exc:
        return exc
    await connection.close()
    raise AssertionError("it connected")


async def test_the_quick_start_runs_as_on_websockets() -> None:
    async def program(websockets: Any, seen: Observations) -> None:
        async def hello(uri: str) -> None:
            async with websockets.connect(uri) as websocket:
                await websocket.send("Bob")
                seen.append(await websocket.recv())
                seen.append((websocket.state.name, websocket.subprotocol, websocket.response.status_code))
                seen.append((websocket.request.path, websocket.local_address[0], websocket.remote_address[1] > 0))
                pong = await websocket.ping()
                seen.append((await pong) >= 0)
                await websocket.send([b"a", b"b"])
                seen.append(b"".join([piece async for piece in websocket.recv_streaming()]))
                await websocket.send("text")
                seen.append(await websocket.recv(decode=False))
            seen.append((websocket.state.name, websocket.close_code, websocket.close_reason))
            try:
                await websocket.send("late")
            except websockets.ConnectionClosed as exc:
                seen.append(seen_of(exc))

        async with serving() as uri:
            await hello(uri)

    await both(program)


async def test_a_reconnecting_consumer_sees_the_same_ends() -> None:
    async def program(websockets: Any, seen: Observations) -> None:
        turns = iter((1000, 1011, 4000, 1001))

        async def handler(websocket: Any) -> None:
            code = next(turns)
            await websocket.send(str(code))
            await websocket.close(code, "bye")

        async with serving(handler) as uri:
            async for websocket in websockets.connect(uri):
                try:
                    async for message in websocket:
                        seen.append(message)
                except websockets.ConnectionClosed as exc:
                    seen.append(seen_of(exc))
                    if "4000" in str(exc):
                        break
                    continue

    assert len(await both(program)) == 5


async def test_failures_are_waited_for_and_given_to_the_hook() -> None:
    async def program(websockets: Any, seen: Observations) -> None:
        answers = iter((503, 502, 403))

        def refuse(connection: Any, request: Any) -> Any:
            return connection.respond(next(answers), "no\n")

        def hook(exc: Exception) -> Exception | None:
            seen.append((seen_of(exc), isinstance(exc, websockets.InvalidStatus)))
            return websockets.asyncio.client.process_exception(exc)  # type: ignore[no-any-return]

        async with serving(process_request=refuse) as uri:
            client = websockets.connect(uri, process_exception=hook, reconnect_delays=lambda: iter((0.01, 0.02)))
            try:
                async for _ in client:
                    raise AssertionError("it connected")
            except websockets.InvalidStatus as exc:
                seen.append((exc.response.status_code, exc.response.body, exc.response.reason_phrase))

    assert (await both(program))[-1] == (403, b"no\n", "Forbidden")


async def test_producer_and_consumer_share_a_connection() -> None:
    async def program(websockets: Any, seen: Observations) -> None:
        async with serving() as uri, websockets.connect(uri, max_size=None, compression=None) as websocket:

            async def consumer() -> None:
                async for message in websocket:
                    seen.append(message)
                    if message == "19":
                        return

            async def producer() -> None:
                for number in range(20):
                    await websocket.send(str(number))

            await asyncio.gather(consumer(), producer())

    await both(program)


async def test_tls_checks_the_certificate_of_the_server() -> None:
    async def program(websockets: Any, seen: Observations) -> None:
        async with serving(ssl=SERVER_TLS) as uri:
            async with websockets.connect(uri, ssl=CLIENT_TLS) as websocket:
                await websocket.send("x")
                seen.append(await websocket.recv())
                seen.append(websocket.transport.get_extra_info("ssl_object") is not None)
            for options in ({}, {"ssl": True}):
                seen.append(type(await failure(websockets.connect(uri, **options))))
            assert seen[-1] is ssl.SSLCertVerificationError
            with pytest.raises(ValueError, match="ssl=None is incompatible with a wss:// URI"):
                await websockets.connect(uri, ssl=None)
            with pytest.raises(ValueError, match="ssl argument is incompatible with a ws:// URI"):
                await websockets.connect("ws://localhost/", ssl=True)

    await both(program)


async def test_errors_of_the_system_keep_their_types() -> None:
    async def program(websockets: Any, seen: Observations) -> None:
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            refused = await failure(websockets.connect(f"ws://127.0.0.1:{bound.getsockname()[1]}"))
        assert isinstance(refused, ConnectionRefusedError)
        seen.append((type(refused), refused.errno))
        seen.append(type(await failure(websockets.connect("ws://nonsense.invalid"))))
        assert seen[-1] is socket.gaierror

    await both(program)


async def test_a_server_that_does_not_answer_or_hangs_up() -> None:
    async def program(websockets: Any, seen: Observations) -> None:
        async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readline()

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()

        async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"nonsense\r\n\r\n")
            await reader.read()

        for handle in (hang_up, silent, nonsense):
            async with listening(handle) as port:
                exc = await failure(websockets.connect(f"ws://127.0.0.1:{port}", open_timeout=0.2))
                seen.append(seen_of(exc)[:2])
                seen.append(isinstance(exc.__cause__, EOFError))

    await both(program)


async def test_subprotocols_are_agreed_on_or_refused() -> None:
    async def program(websockets: Any, seen: Observations) -> None:
        async with serving(subprotocols=["ocpp1.6"]) as uri:
            async with websockets.connect(uri, subprotocols=["ocpp2.0", "ocpp1.6"]) as websocket:
                seen.append(websocket.subprotocol)
            seen.append(seen_of(await failure(websockets.connect(uri, subprotocols=["other"])))[:2])
        async with serving(select_subprotocol=lambda *_: "foreign") as uri:
            seen.append(seen_of(await failure(websockets.connect(uri, subprotocols=["mine"])))[:2])

    await both(program)


async def test_headers_reach_the_server_in_every_form() -> None:
    async def program(websockets: Any, seen: Observations) -> None:
        def answer(connection: Any, request: Any) -> Any:
            names = ("X-A", "User-Agent", "Origin", "Authorization")
            seen.append([request.headers.get(name) for name in names])
            return connection.respond(http.HTTPStatus.TEAPOT, "")

        async with serving(process_request=answer) as uri:
            for headers in (None, {"X-A": "1"}, [("X-A", "2")], websockets.Headers({"X-A": "3"})):
                await failure(websockets.connect(uri, additional_headers=headers, user_agent_header="me/1"))
            await failure(websockets.connect(uri, user_agent_header=None, origin="https://example.com"))
            await failure(websockets.connect(uri, additional_headers={"User-Agent": "own"}))
            with_user = uri.replace("//", "//user:pass@")
            await failure(websockets.connect(with_user, user_agent_header=None))

    await both(program)


async def test_host_and_port_replace_those_of_the_uri() -> None:
    async def program(websockets: Any, seen: Observations) -> None:
        for scheme, options in (("ws", {}), ("wss", {"ssl": CLIENT_TLS})):
            async with serving(**({"ssl": SERVER_TLS} if options else {})) as uri:
                port = int(uri.rpartition(":")[2].strip("/"))
                async with websockets.connect(f"{scheme}://localhost:1/", host="127.0.0.1", port=port, **options) as ws:
                    seen.append(ws.request.headers["Host"])

    assert await both(program) == ["localhost:1"] * 2


async def test_a_permanent_redirect_is_not_kept() -> None:
    def redirect(connection: Any, request: Any) -> Any:
        targets.append(request.path)
        if request.path == "/end":
            return None
        response = connection.respond(301, "")
        response.headers["Location"] = "/end"
        return response

    targets: list[str] = []
    async with serving(process_request=redirect) as uri:
        client = connect(uri)
        for _ in range(2):
            async with client:
                pass
    assert targets == ["/", "/end"] * 2


async def test_a_redirect_is_followed() -> None:
    async def program(websockets: Any, seen: Observations) -> None:
        def redirect(connection: Any, request: Any) -> Any:
            if request.path == "/end":
                return None
            response = connection.respond(302, "")
            response.headers["Location"] = "/end"
            return response

        async with serving(process_request=redirect) as uri, websockets.connect(uri) as websocket:
            seen.append(websocket.request.path)

    assert await both(program) == ["/end"]


async def test_a_proxy_that_refuses_is_an_invalid_proxy_status() -> None:
    async def program(websockets: Any, seen: Observations) -> None:
        async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
            await reader.read()

        async with listening(refuse) as port:
            exc: Any = await failure(websockets.connect("ws://localhost:1/", proxy=f"http://127.0.0.1:{port}"))
        seen.append((seen_of(exc)[:2], exc.response.status_code, isinstance(exc, websockets.ProxyError)))

    await both(program)


async def test_a_malformed_proxy_is_an_invalid_proxy() -> None:
    async def program(websockets: Any, seen: Observations) -> None:
        async def dial(proxy: str) -> Any:
            return await websockets.connect("ws://localhost:1/", proxy=proxy)

        for proxy in (
            "nonsense",
            "",
            "ftp://a:1",
            "http://",
            "http://u@localhost:1",
            "http://a:1/path",
            "http://a:1?q",
        ):
            seen.append(type(await failure(dial(proxy))).__name__)
        for proxy in ("nonsense", "http://u@localhost:1"):
            exc: Any = await failure(dial(proxy))
            seen.append((exc.proxy, exc.msg))

    await both(program)


async def test_a_user_without_a_password_is_an_invalid_uri() -> None:
    async def program(websockets: Any, seen: Observations) -> None:
        async def dial() -> Any:
            return await websockets.connect("ws://user@localhost:1/")

        exc: Any = await failure(dial())
        seen.append((type(exc).__name__, exc.uri, exc.msg))

    await both(program)


@pytest.mark.parametrize("options", [{}, {"proxy": "http://user:secret@proxy/path"}])
def test_errors_of_uris_do_not_quote_passwords(options: dict[str, Any]) -> None:
    with pytest.raises((ours.InvalidURI, ours.InvalidProxy)) as wrong:
        connect("ws://localhost/" if options else "ws://user:secret@localhost:port/", **options)
    assert "secret" not in str(wrong.value)
    assert "//***@" in str(wrong.value)


def test_the_environment_sets_delays_and_names() -> None:
    names = ("BACKOFF_INITIAL_DELAY", "BACKOFF_MIN_DELAY", "BACKOFF_MAX_DELAY", "BACKOFF_FACTOR")
    given = {
        **{f"WEBSOCKETS_{name}": "2.5" for name in names},
        "WEBSOCKETS_USER_AGENT": "a/1",
        "WEBSOCKETS_SERVER": "b/2",
    }
    program = (
        "import itertools; from {tree} import client, http11;"
        "print(client.backoff.__defaults__, list(itertools.islice(client.backoff(), 1, 4)));"
        "print(http11.USER_AGENT, http11.SERVER)"
    )
    told = [
        subprocess.check_output(
            [sys.executable, "-c", program.format(tree=tree)], env={**os.environ, **given}, text=True
        )
        for tree in ("websockets", "plumews.compat.websockets")
    ]
    assert told == ["(2.5, 2.5, 2.5, 2.5) [2.5, 2.5, 2.5]\na/1 b/2\n"] * 2


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="there are no Unix sockets")
async def test_unix_connect_reaches_a_unix_socket(tmp_path: Path) -> None:
    async def program(websockets: Any, seen: Observations) -> None:
        path = tmp_path / "socket"
        path.unlink(missing_ok=True)
        async with unix_serve(echo, str(path)), websockets.unix_connect(str(path)) as websocket:
            await websocket.send("x")
            seen.append(await websocket.recv())

    await both(program)


def test_connect_is_made_outside_a_loop_and_checks_its_uri() -> None:
    with pytest.raises(ours.InvalidURI, match="isn't a valid URI"):
        connect("http://example.com")
    with pytest.raises(TypeError, match="nonsense"):
        connect("ws://localhost", nonsense=1)
    connect("ws://localhost", happy_eyeballs_delay=0.1)


async def test_connect_is_awaited_by_wait_for_and_not_reentrant() -> None:
    async with serving() as uri:
        websocket = await asyncio.wait_for(connect(uri), 5)
        await websocket.close()
        client = connect(uri)
        async with client:
            with pytest.raises(RuntimeError, match="reentrant"):
                await client.__aenter__()
        async with client:
            pass


async def test_a_subclass_replaces_recv_and_close() -> None:
    async def program(websockets: Any, seen: Observations) -> None:
        class Mine(websockets.ClientConnection):  # type: ignore[misc, name-defined]
            async def recv(self, decode: bool | None = None) -> Any:
                return f"<{await super().recv(decode)}>"

            async def close(self, code: int = 1000, reason: str = "") -> None:
                seen.append(code)
                await super().close(code, reason)

        async with serving() as uri:
            with contextlib.suppress(ZeroDivisionError):
                async with websockets.connect(uri, create_connection=Mine, logger=QUIET) as websocket:
                    await websocket.send("x")
                    seen.append(await websocket.recv())
                    raise ZeroDivisionError

    assert await both(program) == ["<x>", 1011]


async def test_a_legacy_client_keeps_its_options_and_exceptions() -> None:
    def authorize(connection: Any, request: Any) -> Any:
        return None if request.headers.get("X-Key") == "1" else connection.respond(401, "")

    async with serving(process_request=authorize) as uri:
        async with ours.client.connect(uri, extra_headers={"X-Key": "1"}, timeout=3) as websocket:
            assert isinstance(websocket, ours.WebSocketClientProtocol)
            assert websocket.open
            assert websocket.close_timeout == 3
            assert websocket.path == "/"
        with pytest.raises(ours.InvalidStatusCode, match="HTTP 401"):
            await ours.client.connect(uri)


async def test_a_server_and_a_client_of_one_library_broadcast() -> None:
    async with ours.serve(echo, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        websocket = await connect(f"ws://127.0.0.1:{port}")
        ours.broadcast([websocket], "to the server")
        assert await websocket.recv() == "to the server"
        await websocket.close()
