"""Opening handshakes of `plumews.compat.websockets`: hooks, refusals and headers, observed on both libraries."""

from __future__ import annotations

import asyncio
import http
import re
from typing import Any

import pytest
import websockets

from plumews.compat import websockets as ours
from support.both_libraries import Observations, at, both, refused, running

pytestmark = pytest.mark.peer


async def echo(websocket: Any) -> None:
    async for message in websocket:
        await websocket.send(message)


async def raw(server: Any, head: str) -> tuple[str, list[str], str]:
    """Return status line, header names and body of the response to ``head``, without a date and the server's name."""
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
    writer.write(head.replace("\n", "\r\n").encode())
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").splitlines()
    body = "" if " 101 " in lines[0] else (await reader.read()).decode()
    writer.close()
    headers = sorted(line for line in lines[1:] if line and not line.startswith(("Date:", "Server:")))
    return lines[0], headers, body


HEAD = """GET /chat HTTP/1.1
Host: localhost
Connection: Upgrade
Upgrade: websocket
Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==
Sec-WebSocket-Version: 13

"""

HEADS = {
    "valid": HEAD,
    "post": HEAD.replace("GET", "POST"),
    "version_1_0": HEAD.replace("HTTP/1.1", "HTTP/1.0"),
    "no_connection": HEAD.replace("Connection: Upgrade\n", ""),
    "keep_alive": HEAD.replace("Connection: Upgrade", "Connection: keep-alive"),
    "options": HEAD.replace("Connection: Upgrade", "Connection: keep-alive, Upgrade"),
    "no_upgrade": HEAD.replace("Upgrade: websocket\n", ""),
    "other_upgrade": HEAD.replace("Upgrade: websocket", "Upgrade: h2c"),
    "no_key": HEAD.replace("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n", ""),
    "two_keys": HEAD.replace("\nSec-WebSocket-Version", "\nSec-WebSocket-Key: x\nSec-WebSocket-Version"),
    "short_key": HEAD.replace("dGhlIHNhbXBsZSBub25jZQ==", "dGhl"),
    "no_version": HEAD.replace("Sec-WebSocket-Version: 13\n", ""),
    "version_8": HEAD.replace("Version: 13", "Version: 8"),
    "two_versions": HEAD.replace("Version: 13", "Version: 13\nSec-WebSocket-Version: 8"),
    "browser": "GET / HTTP/1.1\nHost: localhost\nConnection: keep-alive\n\n",
}


@pytest.mark.parametrize("name", HEADS)
async def test_a_request_gets_the_same_response(name: str) -> None:
    async def program(library: Any, seen: Observations) -> None:
        async with running(library, echo) as server:
            status, headers, body = await raw(server, HEADS[name])
            seen.append(status)
            if not name.startswith("two_"):  # a head that plumews does not parse to its end is refused in JSON
                seen += [headers, body]

    await both(program)


# --- hooks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("awaited", [False, True], ids=["function", "coroutine"])
async def test_process_request_answers_or_goes_on(awaited: bool) -> None:
    async def program(library: Any, seen: Observations) -> None:
        def decide(connection: Any, request: Any) -> Any:
            seen.append((request.path, request.method, request.protocol, connection.request is request))
            connection.user = request.path
            if request.path == "/healthz":
                return connection.respond(http.HTTPStatus.OK, "OK\n")
            if request.path == "/page":
                headers = library.Headers({"Content-Type": "text/html", "Content-Length": 6, "X-A": "1"})
                return library.Response(200, "Fine", headers, b"<html>")
            if request.path == "/gone":
                response = connection.respond(410, "gone\n")
                response.headers["X-Why"] = "old"
                return response
            return None

        async def decide_later(connection: Any, request: Any) -> Any:
            await asyncio.sleep(0)
            return decide(connection, request)

        async def tell(websocket: Any) -> None:
            await websocket.send(websocket.user)

        async with running(library, tell, process_request=decide_later if awaited else decide) as server:
            for path in ("/healthz", "/page", "/gone"):
                status, headers, body = await raw(server, HEAD.replace("/chat", path))
                headers = [line for line in headers if not line.startswith("Connection")]
                seen += [status, headers, body]
                seen.append((await raw(server, HEADS["browser"].replace("GET /", f"GET {path}")))[::2])
            async with at(server, "/chat?token=x") as client:
                seen.append(await client.recv())

    await both(program)


@pytest.mark.parametrize("hook", ["process_request", "process_response"])
@pytest.mark.parametrize("awaited", [False, True], ids=["function", "coroutine"])
async def test_a_hook_that_fails_is_500_and_logged(hook: str, awaited: bool, caplog: Any) -> None:
    async def program(library: Any, seen: Observations) -> None:
        def fail(*args: Any) -> Any:
            raise ValueError("mistake")

        async def fail_later(*args: Any) -> Any:
            await asyncio.sleep(0)
            raise ValueError("mistake")

        options: Any = {hook: fail_later if awaited else fail}
        async with running(library, echo, **options) as server:
            seen.append(await refused(server))
        seen += [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
        caplog.clear()

    assert (await both(program))[1] == f"{hook} failed"


async def test_process_request_may_change_the_headers() -> None:
    async def program(library: Any, seen: Observations) -> None:
        def mend(connection: Any, request: Any) -> None:
            del request.headers["Connection"]
            request.headers["Connection"] = "Upgrade"
            request.headers["X-Added"] = "here"

        async def tell(websocket: Any) -> None:
            await websocket.send(websocket.request.headers["x-added"])

        async with running(library, tell, process_request=mend) as server:
            seen.append((await raw(server, HEADS["keep_alive"]))[0])
            async with at(server) as client:
                seen.append(await client.recv())

    assert await both(program) == ["HTTP/1.1 101 Switching Protocols", "here"]


@pytest.mark.parametrize("awaited", [False, True], ids=["function", "coroutine"])
async def test_process_response_changes_responses(awaited: bool) -> None:
    async def program(library: Any, seen: Observations) -> None:
        def change(connection: Any, request: Any, response: Any) -> Any:
            seen.append((request.path, response.status_code, connection.response is response))
            response.headers["X-Path"] = request.path
            response.headers["Set-Cookie"] = "a=1"
            response.headers["Set-Cookie"] = "b=2"
            if request.path == "/teapot":
                return connection.respond(418, "short and stout")
            return None

        async def change_later(connection: Any, request: Any, response: Any) -> Any:
            await asyncio.sleep(0)
            return change(connection, request, response)

        async def tell(websocket: Any) -> None:
            await websocket.send(websocket.response.headers["X-Path"])

        hook = change_later if awaited else change
        async with running(library, tell, process_response=hook, origins=[None]) as server:
            async with at(server, "/a") as client:
                assert client.response is not None
                seen += [await client.recv(), client.response.headers.get_all("Set-Cookie")]
            seen.append(await refused(server, "/teapot"))
            seen.append(await refused(server, "/b", origin="https://example.com"))
            seen.append((await raw(server, HEADS["browser"]))[1])

    seen = await both(program)
    assert "X-Path: /" in seen[-1]


async def test_a_tuple_is_a_500_that_says_why(caplog: Any) -> None:
    async with running(ours, echo, process_request=lambda connection, request: (200, [], b"OK")) as server:
        assert (await refused(server))[0] == 500
    assert "legacy.server" in str(caplog.records[-1].exc_info[1])


async def test_the_server_header_can_be_set() -> None:
    async def program(library: Any, seen: Observations) -> None:
        for header in ("mine/1", None):
            async with running(library, echo, server_header=header) as server:
                async with at(server) as client:
                    assert client.response is not None
                    seen.append(client.response.headers.get("Server"))
                head = HEADS["browser"].replace("\n", "\r\n").encode()
                reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
                writer.write(head)
                seen.append(b"Server: mine/1" in await reader.read())
                writer.close()

    assert await both(program) == ["mine/1", True, None, False]


async def test_the_default_server_header_names_plumews() -> None:
    async with running(ours, echo) as server, at(server) as client:
        assert client.response is not None
        assert re.fullmatch(r"Python/3\.\d+ plumews/\d.*", client.response.headers["Server"])


# --- subprotocols, origins ------------------------------------------------------------------------

OFFERS: list[list[str] | None] = [None, ["x"], ["chat.v1"], ["x", "chat.v1", "chat.v2"]]


@pytest.mark.parametrize("offered", OFFERS)
async def test_subprotocols_are_agreed_on_or_refused(offered: Any) -> None:
    async def program(library: Any, seen: Observations) -> None:
        async def tell(websocket: Any) -> None:
            await websocket.send(str(websocket.subprotocol))

        names = [library.Subprotocol("chat.v2"), library.Subprotocol("chat.v1")]
        for supported in (names, None, []):
            async with running(library, tell, subprotocols=supported) as server:
                seen.append(await refused(server, subprotocols=offered))
                if seen[-1][0] == 101:
                    async with at(server, subprotocols=offered) as client:
                        seen += [await client.recv(), client.subprotocol]

    await both(program)


@pytest.mark.parametrize("offered", OFFERS)
async def test_select_subprotocol_chooses_or_refuses(offered: Any) -> None:
    async def program(library: Any, seen: Observations) -> None:
        def select(connection: Any, subprotocols: Any) -> Any:
            seen.append((list(subprotocols), connection.request.path))
            if "x" in subprotocols and len(subprotocols) == 1:
                raise library.exceptions.NegotiationError("no x alone")
            return next((name for name in subprotocols if name.startswith("chat")), None)

        async def tell(websocket: Any) -> None:
            await websocket.send(str(websocket.subprotocol))

        options = {"select_subprotocol": select, "subprotocols": ["other"]}
        async with running(library, tell, **options) as server:
            seen.append(await refused(server, subprotocols=offered))
            if seen[-1][0] == 101:
                async with at(server, subprotocols=offered) as client:
                    seen += [await client.recv(), client.subprotocol]

    await both(program)


async def test_select_subprotocol_that_fails_is_500() -> None:
    async def program(library: Any, seen: Observations) -> None:
        def select(connection: Any, subprotocols: Any) -> Any:
            raise ValueError("mistake")

        async with running(library, echo, select_subprotocol=select) as server:
            seen.append(await refused(server))

    await both(program)


ORIGINS: list[Any] = [
    None,
    [],
    [None],
    ["https://example.com"],
    [None, "https://example.com"],
    [re.compile(r"https://[a-z]+\.example\.com"), None],
]


@pytest.mark.parametrize("allowed", ORIGINS, ids=range(len(ORIGINS)))
async def test_origins_are_checked_alike(allowed: Any) -> None:
    async def program(library: Any, seen: Observations) -> None:
        async with running(library, echo, origins=allowed) as server:
            for origin in (None, "https://example.com", "https://a.example.com", "https://example.com.evil", "null"):
                seen.append(await refused(server, origin=origin))

    await both(program)


async def test_any_host_is_served() -> None:
    async def program(library: Any, seen: Observations) -> None:
        async with running(library, echo) as server:
            seen.append((await raw(server, HEAD.replace("localhost", "evil.example:80")))[0])

    assert await both(program) == ["HTTP/1.1 101 Switching Protocols"]


# --- basic authentication -------------------------------------------------------------------------

CREDENTIALS: list[Any] = [
    {},
    {"Authorization": "Bearer x"},
    {"Authorization": "Basic !!!"},
    {"Authorization": "Basic aGVsbG8="},  # hello
    {"Authorization": "Basic aGVsbG86d3Jvbmc="},  # hello:wrong
    {"Authorization": "Basic aGVsbG86aWxvdmV5b3U="},  # hello:iloveyou
    {"Authorization": "basic Ym9iOmE6Yg=="},  # bob:a:b
]


async def checked(username: str, password: str) -> bool:
    return (username, password) == ("bob", "a:b")


ALLOWED: list[Any] = [
    {"credentials": ("hello", "iloveyou")},
    {"credentials": [("hello", "iloveyou"), ("bob", "a:b")]},
    {"check_credentials": checked},
    {"check_credentials": lambda username, password: username == "hello" and password == "iloveyou"},
]


@pytest.mark.parametrize("allowed", ALLOWED, ids=["pair", "list", "coroutine", "function"])
async def test_basic_auth_asks_for_credentials(allowed: Any) -> None:
    async def program(library: Any, seen: Observations) -> None:
        async def tell(websocket: Any) -> None:
            await websocket.send(websocket.username)

        hook = library.asyncio.server.basic_auth(realm='my "dev" server', **allowed)
        async with running(library, tell, process_request=hook) as server:
            for headers in CREDENTIALS:
                try:
                    async with at(server, additional_headers=headers) as client:
                        seen.append(await client.recv())
                except websockets.exceptions.InvalidStatus as exc:
                    response = exc.response
                    seen += [response.status_code, response.headers["WWW-Authenticate"], bytes(response.body)]

    await both(program)


def test_basic_auth_checks_its_arguments() -> None:
    for arguments in ({}, {"credentials": ("a", "b"), "check_credentials": checked}):
        with pytest.raises(ValueError, match="provide either"):
            ours.basic_auth("realm", **arguments)  # type: ignore[arg-type]
    for wrong in ("ab", 5, [("a",)], ("a", 5)):
        with pytest.raises(TypeError, match="credentials"):
            ours.basic_auth("realm", wrong)  # type: ignore[arg-type]


# --- a client that leaves, and log lines ----------------------------------------------------------


async def test_a_client_that_leaves_while_it_is_judged_is_forgotten() -> None:
    asked = asyncio.Event()
    gone = asyncio.Event()

    async def think(connection: Any, request: Any) -> None:
        asked.set()
        try:
            await asyncio.sleep(60)  # the client leaves before
        finally:
            gone.set()

    async with running(ours, echo, process_request=think) as server:
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
        writer.write(HEAD.replace("\n", "\r\n").encode())
        await asked.wait()
        writer.transport.abort()
        await gone.wait()
        while server._handshakes.connections:
            await asyncio.sleep(0)


@pytest.mark.parametrize("call", ["close", "abort"])
async def test_a_hook_that_closes_ends_the_connection(call: str) -> None:
    async def program(library: Any, seen: Observations) -> None:
        async def hook(connection: Any, request: Any) -> None:
            if call == "close":
                await connection.close()
            else:
                connection.transport.abort()

        async with running(library, echo, process_request=hook, close_timeout=0.1) as server:
            try:
                await at(server)
            except Exception:
                seen.append("refused")

    assert await both(program) == ["refused"]


async def test_log_lines_are_those_of_websockets(caplog: Any) -> None:
    caplog.set_level("INFO", "websockets.server")

    async def program(library: Any, seen: Observations) -> None:
        def health(connection: Any, request: Any) -> Any:
            return connection.respond(200, "OK\n") if request.path == "/healthz" else None

        async with library.asyncio.server.serve(
            echo, "127.0.0.1", 0, process_request=health, subprotocols=["a"]
        ) as server:
            await refused(server, "/healthz")
            await refused(server)
            async with at(server, subprotocols=["a"]) as client:
                await client.send("x")
                await client.recv()
        lines = [record for record in caplog.records if record.name == "websockets.server"]
        seen += [re.sub(r":\d+$", ":port", line.getMessage()) for line in lines]
        seen.append([hasattr(line, "websocket") for line in lines])
        caplog.clear()

    seen = await both(program)
    assert seen[0] == "server listening on 127.0.0.1:port"
