"""An event loop that is closed while connections are open: no error, and nothing remains open.

Warnings of asyncio and uvloop about what the program left open are theirs to give.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import socket
import ssl
import sys
import warnings
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import plumews
from conftest import loops
from plumews import Conn, Hub
from support.fakes import tls_contexts, until
from support.raw_client import masked, text, upgrade

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="descriptors are counted in /proc")

CLIENTS = 4
LARGE = bytes(300_000)


@pytest.fixture(scope="module", autouse=True)
def loops_ran_before() -> None:
    """Let uvloop open the pipe for signals, which all of its loops share and which stays."""
    for name in loops():
        program = Program(name)
        program.run_until(lambda: True)
        program.close()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a Path would keep one open longer


@contextlib.contextmanager
def nothing_reported(
    caplog: pytest.LogCaptureFixture, *, allowed: tuple[str, ...] = ("Task was destroyed but it is pending",)
) -> Iterator[None]:
    """Check that no error was raised where nobody catches it, and that warnings are about resources left open."""
    unraisable: list[Any] = []
    told: list[tuple[type[Warning], str]] = []
    former = sys.unraisablehook
    sys.unraisablehook = lambda args: unraisable.append((args.err_msg, repr(args.exc_value)))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            # Not `record=True`: a kept warning refers to its transport.
            warnings.showwarning = lambda message, category, *where: told.append((category, str(message)))
            yield
            gc.collect()
    finally:
        sys.unraisablehook = former
    assert unraisable == []
    assert [message for category, message in told if category is not ResourceWarning] == []
    ours = [record for record in caplog.records if record.name.startswith("plumews") and record.levelno > logging.INFO]
    assert ours == []
    # asyncio tells of tasks that nobody will finish.
    others = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert [message for message in others if not message.startswith(allowed)] == []


class Program:
    """A server on a loop of its own, and clients that no loop serves."""

    def __init__(self, name: str) -> None:
        if name == "uvloop":
            import uvloop

            self.loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        else:
            self.loop = asyncio.new_event_loop()
        self.hub = Hub()
        self.conns: list[Conn] = []
        self.got: list[Any] = []
        self.clients: list[socket.socket] = []
        self.server: plumews.Server

    def opens(self, conn: Conn) -> None:
        self.conns.append(conn)
        self.hub.join("room", conn)

    async def handles(self, conn: Conn) -> None:
        self.opens(conn)
        async for message in conn:
            self.got.append(message)

    async def floods(self, conn: Conn) -> None:
        self.opens(conn)
        while True:
            self.got.append(1)
            await conn.send(LARGE)

    def start(self, **options: Any) -> None:
        async def start() -> plumews.Server:
            return await plumews.serve(**options, host="127.0.0.1", port=0)

        self.server = self.loop.run_until_complete(start())
        self.clients = [socket.create_connection(("127.0.0.1", self.server.port)) for _ in range(CLIENTS)]

    def run_until(self, condition: Callable[[], object]) -> None:
        self.loop.run_until_complete(asyncio.wait_for(until(condition), 30))

    def close(self) -> None:
        """Close the loop. A thread that looked an address up refers to it for a moment longer, so it ends before."""
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()

    def upgrade(self, *frames: bytes) -> None:
        for client in self.clients:
            client.sendall(upgrade() + b"".join(frames))
        self.run_until(lambda: len(self.conns) == CLIENTS)


def idle(program: Program) -> None:
    program.start(on_message=lambda conn, message: None, on_open=program.opens)
    program.upgrade()


def reading(program: Program) -> None:
    program.start(handler=program.handles)
    program.upgrade(text("x"))
    program.run_until(lambda: len(program.got) == CLIENTS)


def inside_a_message(program: Program) -> None:
    program.start(on_message=lambda conn, message: None, on_open=program.opens)
    program.upgrade(masked(2, LARGE)[:-1])


def full(program: Program) -> None:
    program.start(handler=program.floods, send_timeout=None)
    program.upgrade()
    program.run_until(lambda: len(program.got) > 5 * CLIENTS and any(conn.queued_bytes for conn in program.conns))


def queued(program: Program) -> None:
    program.start(on_message=lambda conn, message: None, on_open=program.opens)
    program.upgrade()

    async def send() -> None:
        for conn in program.conns:
            conn.send_nowait("queued in the last iteration")
        program.hub.broadcast_room("room", "and this")

    program.loop.run_until_complete(send())


def closing(program: Program) -> None:
    program.start(on_message=lambda conn, message: None, on_open=program.opens)
    program.upgrade()

    async def close() -> None:
        for conn in program.conns:
            conn.close_nowait()

    program.loop.run_until_complete(close())


def inside_the_handshake(program: Program) -> None:
    asked: list[Conn] = []

    async def process_request(conn: Conn, request: plumews.Request) -> None:
        asked.append(conn)
        await asyncio.Event().wait()

    program.start(on_message=lambda conn, message: None, process_request=process_request)
    for client in program.clients[:2]:
        client.sendall(upgrade())
    program.run_until(lambda: len(asked) == 2)


def over_tls(program: Program) -> None:
    server, client = tls_contexts()
    program.start(on_message=lambda conn, message: None, on_open=program.opens, ssl=server)
    program.run_until(lambda: True)
    for at, sock in enumerate(program.clients):
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = client.wrap_bio(incoming, outgoing, server_hostname="localhost")
        sock.settimeout(0.01)
        for step in (tls.do_handshake, lambda tls=tls: tls.write(upgrade())):
            while True:
                try:
                    step()
                    break
                except ssl.SSLWantReadError:
                    sock.sendall(outgoing.read())
                    program.run_until(lambda: True)
                    with contextlib.suppress(TimeoutError):
                        incoming.write(sock.recv(1 << 16))
            sock.sendall(outgoing.read())
        program.run_until(lambda at=at: len(program.conns) > at)


SITUATIONS = [idle, reading, inside_a_message, full, queued, closing, inside_the_handshake, over_tls]


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda situation: situation.__name__)
@pytest.mark.parametrize("name", loops())
def test_closed_loop_leaves_nothing_open(
    name: str, situation: Callable[[Program], None], caplog: pytest.LogCaptureFixture
) -> None:
    gc.collect()
    before = descriptors()
    with nothing_reported(caplog):
        program = Program(name)
        situation(program)
        program.close()
        clients = program.clients
        gone = [weakref.ref(conn) for conn in program.conns]
        del program
        for _ in range(3):
            gc.collect()
        assert [conn for conn in gone if conn() is not None] == []
        for client in clients:  # the kernel tells each peer
            client.settimeout(30)
            with contextlib.suppress(ConnectionResetError):
                while client.recv(1 << 20):
                    pass
            client.close()
        assert descriptors() == before


@pytest.mark.parametrize("name", loops())
def test_connection_of_a_closed_loop_answers_calls(name: str, caplog: pytest.LogCaptureFixture) -> None:
    with nothing_reported(caplog, allowed=("a transport failed",)):  # of asyncio, which cannot abort any more
        program = Program(name)
        idle(program)
        program.close()
        conn = program.conns[0]
        reading = conn.recv()
        for call in (partial(conn.send_nowait, "x"), conn.close_nowait, conn.abort, partial(reading.send, None)):
            with contextlib.suppress(RuntimeError, plumews.ConnectionClosed, StopIteration):
                call()
        reading.close()
        with contextlib.suppress(RuntimeError):
            program.hub.broadcast_room("room", "x")
        assert repr(conn)
        assert conn.remote_address is not None
        for client in program.clients:
            client.close()
        del conn, program, reading, call
        gc.collect()


@pytest.mark.parametrize("name", loops())
def test_run_that_returns_with_open_connections_ends_them(
    name: str, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    ended: list[str] = []

    async def main() -> list[socket.socket]:
        async def handler(conn: Conn) -> None:
            conns.append(conn)
            try:
                async for _ in conn:
                    pass
            finally:
                ended.append("handler")

        conns: list[Conn] = []
        server = await plumews.serve(handler, "127.0.0.1", 0)
        await plumews.unix_serve(handler, str(tmp_path / "socket"))
        clients = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(CLIENTS)]
        for client in clients:
            client.sendall(upgrade())
        await until(lambda: len(conns) == CLIENTS)
        return clients

    gc.collect()
    before = descriptors()
    with nothing_reported(caplog):
        if name == "uvloop":
            import uvloop

            clients = uvloop.run(main())
        else:
            clients = asyncio.run(main())
        assert ended == ["handler"] * CLIENTS
        gc.collect()
        for client in clients:
            client.settimeout(30)
            with contextlib.suppress(ConnectionResetError):
                while client.recv(1 << 16):
                    pass
            client.close()
        gc.collect()
        assert descriptors() == before
