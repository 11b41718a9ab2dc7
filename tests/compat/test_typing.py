"""Results of a type checker for programs that have moved by their imports."""

from __future__ import annotations

from pathlib import Path

import pytest

api = pytest.importorskip("mypy.api", reason="mypy is of the extra `lint`")

PROGRAM = """
import asyncio
import http
from collections.abc import AsyncIterator

from plumews.compat import websockets
from plumews.compat.websockets.asyncio.router import route
from plumews.compat.websockets.asyncio.server import Server, ServerConnection, basic_auth, broadcast, serve
from plumews.compat.websockets.exceptions import ConnectionClosed
from plumews.compat.websockets.frames import CloseCode
from plumews.compat.websockets.http11 import Request, Response
from plumews.compat.websockets.typing import Data, Origin, Subprotocol


def process_request(connection: ServerConnection, request: Request) -> Response | None:
    connection.username = request.headers["X-User"]
    if request.path == "/healthz":
        return connection.respond(http.HTTPStatus.OK, "OK")
    return Response(404, "Not Found", websockets.Headers({"A": "b"}), b"") if request.path == "/" else None


async def pieces() -> AsyncIterator[str]:
    yield "a"


async def handler(websocket: ServerConnection) -> None:
    text: str = await websocket.recv(decode=True)
    data: Data = await websocket.recv()
    await websocket.send(text)
    await websocket.send([b"a", b"b"])
    await websocket.send(pieces(), text=True)
    try:
        async for message in websocket:
            print(message, data)
    except ConnectionClosed as exc:
        print(exc.rcvd.code if exc.rcvd is not None else exc.sent)
    latency: float = await (await websocket.ping())
    task: asyncio.Task[None] = asyncio.create_task(websocket.send("x"))
    await task
    print(latency, websocket.request and websocket.request.path, websocket.transport.get_extra_info("x"))
    await websocket.close(CloseCode.GOING_AWAY)


async def main() -> None:
    server: Server = await serve(
        handler,
        "localhost",
        8765,
        process_request=process_request,
        subprotocols=[Subprotocol("chat")],
        origins=[Origin("https://example.com"), None],
        max_size=None,
    )
    broadcast(server.connections, "x", raise_exceptions=True)
    async with serve(handler, process_request=basic_auth("realm", ("a", "b"))) as other:
        print(other.sockets)
    async with route(None, "localhost", 0):
        await server.serve_forever()
"""

#: Lines that are wrong, and a part of what is said about each.
WRONG = {
    "from plumews.compat.websockets import Frame": 'has no attribute "Frame"',
    "websocket.send(5)": "incompatible type",
    "websocket.nonsense": 'has no attribute "nonsense"',
    "websockets.Response(200)": "Missing positional argument",
}


def checked(path: Path, cache: Path) -> list[str]:
    """Return the lines of ``mypy --strict``."""
    out, err, _ = api.run(["--strict", "--config-file=", f"--cache-dir={cache}", "--no-error-summary", str(path)])
    assert err == ""
    return list(out.splitlines())


def test_a_typed_program_passes_and_slips_do_not(tmp_path: Path) -> None:
    good, slips = tmp_path / "good.py", tmp_path / "slips.py"
    good.write_text(PROGRAM, encoding="utf-8")
    assert checked(good, tmp_path / "cache") == []
    head = "from plumews.compat import websockets\n\n\nasync def f(websocket: websockets.ServerConnection) -> None:\n"
    slips.write_text(head + "".join(f"    {line}\n" for line in WRONG), encoding="utf-8")
    told = checked(slips, tmp_path / "cache")
    for number, words in enumerate(WRONG.values(), 5):
        assert any(f"slips.py:{number}: error: " in line and words in line for line in told), (words, told)
