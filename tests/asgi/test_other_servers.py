"""Rooms and connections on servers that are commands, started as their pages in docs/servers say."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

import plumews
from support.command import certificate

pytestmark = [pytest.mark.timeout(60), pytest.mark.skipif(sys.platform == "win32", reason="gunicorn needs a Unix")]

#: Seconds for a server to start or to end.
PATIENCE = 30.0

DOCS = Path(__file__).parents[2] / "docs" / "servers"

#: Application with a room: it enters and echoes to all, denies ``/denied``, closes at ``close``, returns at ``return``.
PROGRAM = """
import plumews
from plumews.asgi import conn

hub = plumews.Hub()


async def app(scope, receive, send):
    if scope["type"] != "websocket":
        return
    await receive()
    if scope["path"] == "/denied":
        await send({"type": "websocket.close"})
        return
    await send({"type": "websocket.accept"})
    member = conn(scope, receive, send)
    hub.join("room", member)
    hub.broadcast_room("room", f"{hub.room_count('room')} {type(member).__name__}")
    try:
        async for message in member:
            if message == "return":
                return
            if message == "close":
                await member.close(4001, "as you wish")
                return
            hub.broadcast_room("room", message)
    except plumews.ConnectionClosed:
        pass
    finally:
        hub.broadcast_room("room", f"left {hub.room_count('room')}")
"""

#: Page and headings of each server, without and with TLS, and further words of its command.
COMMANDS = {
    "uvicorn": ("uvicorn.md", "Running uvicorn", "uvicorn with TLS", ()),
    "hypercorn": ("hypercorn.md", "Running hypercorn", "hypercorn with TLS", ("--graceful-timeout", "1")),
    "granian": ("granian.md", "Running granian", "granian with TLS", ()),
    "daphne": ("daphne.md", "Running daphne", "daphne with TLS", ()),
    "gunicorn": ("gunicorn.md", "gunicorn with its own worker", "gunicorn with TLS", ("--graceful-timeout", "1")),
    "uvicorn-worker": ("gunicorn.md", "gunicorn with uvicorn's worker", "gunicorn with TLS", ()),
}

#: Packages beside the command itself.
NEEDS = {"uvicorn-worker": "uvicorn_worker"}

#: Close codes, as the pages have them: of an application that returns, and of a server that stops.
#: daphne leaves a connection open when its application returns.
RETURNED = {
    "uvicorn": 1000,
    "uvicorn-worker": 1000,
    "hypercorn": 1011,
    "granian": 1005,
    "daphne": None,
    "gunicorn": 1011,
}
STOPPED = {
    "uvicorn": 1012,
    "uvicorn-worker": 1012,
    "hypercorn": 1011,
    "granian": 1006,
    "daphne": 1006,
    "gunicorn": 1006,
}


def snippet(page: str, heading: str, language: str) -> str:
    """Code in ``language`` under ``heading`` of a page in docs/servers."""
    _, _, section = (DOCS / page).read_text(encoding="utf-8").partition(f"# {heading}\n")
    found = re.search(rf"^```{language}\n(.*?)^```$", section.partition("\n#")[0], re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """One loop: the servers are processes of their own."""
    return "asyncio", {"use_uvloop": False}


@contextlib.asynccontextmanager
async def serving(
    kind: str, folder: Path, *, tls: bool = False
) -> AsyncIterator[tuple[int, asyncio.subprocess.Process]]:
    """Run the program on a server of ``kind``. Gives its port and its process."""
    page, plain, encrypted, more = COMMANDS[kind]
    words = snippet(page, encrypted if tls else plain, "sh").split()
    if kind == "gunicorn":
        words = [word.replace("worker.Worker", "asgi") for word in words]  # TLS is said once for both workers
    for package in (words[0], NEEDS.get(kind, words[0])):
        pytest.importorskip(package)
    (folder / "app.py").write_text(PROGRAM)
    (folder / "worker.py").write_text(snippet("gunicorn.md", "gunicorn with uvicorn's worker", "python"))
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *(word.replace("8000", str(port)) for word in words), *more),
        cwd=folder,
        env={**os.environ, "PLUMEWS_PURE": "1" if plumews.BODY == "pure" else ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout is not None
    said = asyncio.ensure_future(process.stdout.read())
    try:
        await asyncio.wait_for(listening(port, said), PATIENCE)
        yield port, process
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        # hypercorn and daphne log tracebacks of their own when they stop while a client is there
        wrong = rb"plumews[/.](asgi|conn|hub)\b" if kind in {"hypercorn", "daphne"} else rb"Traceback"
        assert not re.search(wrong, await asyncio.wait_for(said, PATIENCE))
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def listening(port: int, said: asyncio.Future[bytes]) -> None:
    """Wait until the server listens."""
    while True:
        assert not said.done(), said.result().decode()
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.02)  # each server announces that it listens in words of its own, or not at all
        else:
            writer.close()
            return


async def close_of(client: ClientConnection) -> tuple[int | None, str | None]:
    """Wait for the end of a connection, which may have messages before."""
    with contextlib.suppress(ConnectionClosed):
        while True:
            await asyncio.wait_for(client.recv(), PATIENCE)
    return client.close_code, client.close_reason


@pytest.mark.parametrize("kind", COMMANDS)
async def test_members_of_a_room_on_each_server(kind, tmp_path):
    async with serving(kind, tmp_path) as (port, process):
        url = f"ws://127.0.0.1:{port}"
        async with connect(url, proxy=None) as first:
            assert await first.recv() == "1 Conn"
            async with connect(url, proxy=None) as second:
                assert [await first.recv(), await second.recv()] == ["2 Conn"] * 2
                await second.send("hello")
                assert [await first.recv(), await second.recv()] == ["hello"] * 2
            assert await first.recv() == "left 1"
            await first.send("close")
            # daphne sends no reason
            assert await close_of(first) == (4001, "" if kind == "daphne" else "as you wish")
        with pytest.raises(InvalidStatus, match="403"):
            await connect(f"{url}/denied", proxy=None)
        if RETURNED[kind] is not None:
            async with connect(url, proxy=None) as returned:
                await returned.send("return")
                assert (await close_of(returned))[0] == RETURNED[kind]
        async with connect(url, proxy=None) as last:
            assert await last.recv() == "1 Conn"
            process.send_signal(signal.SIGTERM)
            assert (await close_of(last))[0] == STOPPED[kind]


@pytest.mark.parametrize("kind", COMMANDS)
async def test_tls_of_each_server(kind, tmp_path):
    file, _ = certificate(tmp_path)
    trust = ssl.create_default_context(cafile=str(file))
    async with (
        serving(kind, tmp_path, tls=True) as (port, _),
        connect(f"wss://127.0.0.1:{port}", ssl=trust, proxy=None) as client,
    ):
        assert await client.recv() == "1 Conn"
