"""Rooms and connections on servers that are commands: granian, daphne, and gunicorn with each of its workers."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

import plumews

pytestmark = [pytest.mark.timeout(60), pytest.mark.skipif(sys.platform == "win32", reason="gunicorn needs a Unix")]

#: Seconds for a server to start or to end.
PATIENCE = 30.0

#: Application with a room: it enters and echoes to all, denies ``/denied``, and closes at ``close``.
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
            if message == "close":
                await member.close(4001, "as you wish")
                return
            hub.broadcast_room("room", message)
    except plumews.ConnectionClosed:
        pass
    finally:
        hub.broadcast_room("room", f"left {hub.room_count('room')}")
"""

WORKER = """
from uvicorn_worker import UvicornWorker


class Worker(UvicornWorker):
    CONFIG_KWARGS = {**UvicornWorker.CONFIG_KWARGS, "ws": "plumews.asgi:PlumeProtocol"}
"""

#: Commands behind ``python -m``, with the port as ``{port}``, and the packages that they need.
COMMANDS = {
    "granian": (("granian", "--interface", "asgi", "--port", "{port}", "program:app"), ("granian",)),
    "daphne": (("daphne", "-p", "{port}", "program:app"), ("daphne",)),
    "gunicorn": (("gunicorn", "-k", "asgi", "-b", "127.0.0.1:{port}", "program:app"), ("gunicorn",)),
    "uvicorn-worker": (
        ("gunicorn", "-k", "worker.Worker", "-b", "127.0.0.1:{port}", "program:app"),
        ("gunicorn", "uvicorn_worker"),
    ),
}


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """One loop: the servers are processes of their own."""
    return "asyncio", {"use_uvloop": False}


def missing(packages: tuple[str, ...]) -> list[str]:
    return [name for name in packages if not importlib.util.find_spec(name)]


@contextlib.asynccontextmanager
async def serving(kind: str, folder: Path) -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    """Run the program on a server of ``kind``. Gives its URL and its process."""
    words, packages = COMMANDS[kind]
    if missing(packages):
        pytest.skip(f"{', '.join(missing(packages))} is not installed")
    (folder / "program.py").write_text(PROGRAM)
    (folder / "worker.py").write_text(WORKER)
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *(word.format(port=port) for word in words)),
        cwd=folder,
        env={**os.environ, "PLUMEWS_PURE": "1" if plumews.BODY == "pure" else ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout is not None
    said = asyncio.ensure_future(process.stdout.read())
    try:
        await asyncio.wait_for(listening(port, said), PATIENCE)
        yield f"ws://127.0.0.1:{port}", process
        process.send_signal(signal.SIGTERM)
        assert b"Traceback" not in await asyncio.wait_for(said, PATIENCE)
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
            await asyncio.sleep(0.02)
        else:
            writer.close()
            return


@pytest.mark.parametrize("kind", COMMANDS)
async def test_members_of_a_room_on_each_server(kind, tmp_path):
    async with serving(kind, tmp_path) as (url, _):
        async with connect(url, proxy=None) as first:
            assert await first.recv() == "1 Conn"
            async with connect(url, proxy=None) as second:
                assert [await first.recv(), await second.recv()] == ["2 Conn"] * 2
                await second.send("hello")
                assert [await first.recv(), await second.recv()] == ["hello"] * 2
            assert await first.recv() == "left 1"
            await first.send("close")
            with pytest.raises(ConnectionClosed):
                await first.recv()
            reason = "" if kind == "daphne" else "as you wish"  # daphne sends none
            assert (first.close_code, first.close_reason) == (4001, reason)
        with pytest.raises(InvalidStatus, match="403"):
            await connect(f"{url}/denied", proxy=None)
