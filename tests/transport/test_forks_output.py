"""A fork while output of all kinds is under way: the child goes on with the loop, and each byte leaves once.

The server forks in a callback, in the middle of a read, when the socket of its peer is full, messages are queued and a
broadcast is made. Its child returns into the same callback, sends, collects garbage and runs the loop until it ends.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import plumews
from support.raw_client import Wire, text

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")]

SERVER = """
import asyncio, gc, os, socket, sys, threading
import plumews

hub = plumews.Hub()

def on_open(conn):
    conn.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    hub.join("room", conn)

def send(conn, number):
    conn.send_nowait(f"{number} " * 4000)
    hub.broadcast_room("room", f"broadcast {number}")

def on_message(conn, message):
    for number in range(5):
        send(conn, number)
    if os.fork() == 0:
        timer = threading.Timer(0.2, os._exit, (0,))
        timer.daemon = True
        timer.start()
        try:
            send(conn, 99)
        except RuntimeError:
            gc.collect()
        return
    os.wait()  # all that the child writes is written
    for number in range(5, 10):
        send(conn, number)

async def main():
    options = dict(queue_size=1000, queue_bytes=1 << 24, ping_interval=None, compression="deflate")
    async with plumews.serve(on_open=on_open, on_message=on_message, host="127.0.0.1", port=0, **options) as server:
        os.write(1, b"%d\\n" % server.port)
        await asyncio.sleep(60)  # the test ends it before

if sys.argv[1] == "uvloop":
    import uvloop
    uvloop.run(main())
else:
    asyncio.run(main())
"""


@pytest.fixture
def server(anyio_backend: tuple[str, dict[str, Any]]) -> Iterator[Any]:
    """The process, as `Wire` takes a server."""
    path = str(Path(plumews.__file__).parent.parent)
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, "uvloop" if anyio_backend[1]["use_uvloop"] else "asyncio"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": path},
    ) as process:
        assert process.stdout is not None
        address = ("127.0.0.1", int(process.stdout.readline()))
        yield SimpleNamespace(sockets=[SimpleNamespace(getsockname=lambda: address, family=socket.AF_INET)])
        process.kill()


async def test_fork_with_output_under_way_sends_each_byte_once(server: Any) -> None:
    async with await Wire.open(server, rcvbuf=4096) as wire, await Wire.open(server) as other:
        for _ in range(2):
            wire.send(text("fork"))
            for number in range(10):
                assert await wire.message() == f"{number} " * 4000
                assert await wire.message() == f"broadcast {number}"
                assert await other.message() == f"broadcast {number}"
        async with await Wire.open(server) as newcomer:
            newcomer.send(text("fork"))
            assert await newcomer.message() == "0 " * 4000
