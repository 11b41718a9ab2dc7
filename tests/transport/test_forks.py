"""Tests of forked children of a process with a server: no action of a child reaches a peer of its parent.

The server runs in its own process, which forks when a client asks for it. The clients are in the process of the test: a
client in the process of the server would be forked, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import plumews
from plumews.transport import forks
from support.command import certificate
from support.raw_client import Wire, close, text

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")]

#: The server. What its children do is in the dictionary; a child that goes on is ended by its own timer.
SERVER = """
import asyncio, contextlib, faulthandler, gc, multiprocessing, os, socket, ssl, subprocess, sys, threading
sys.path.insert(0, {path!r})
import plumews

given = socket.create_server(("127.0.0.1", 0))

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def told(call):
    try:
        call()
    except RuntimeError as exc:
        say("refused", "child process" in str(exc))
    else:
        say("not refused", call)

async def told_async(awaitable):
    try:
        await asyncio.wait_for(awaitable, 5)
    except RuntimeError as exc:
        say("refused", "child process" in str(exc))
    else:
        say("not refused", awaitable)

def serve_in_child():
    async def main():
        hub = plumews.Hub()
        async def handler(conn):
            hub.join("room", conn)
            async for message in conn:
                hub.broadcast_room("room", message + " of the child")
        async with hub, plumews.serve(handler, "127.0.0.1", 0) as server:
            say("port", server.port)
            await asyncio.sleep(30)  # the test ends it before
    asyncio.run(main())

def with_multiprocessing():
    process = multiprocessing.get_context("fork").Process(target=serve_in_child, daemon=True)
    process.start()
    say("child", process.pid)

def with_preexec():
    say("child", subprocess.run([sys.executable, "-c", "pass"], preexec_fn=lambda: gc.collect()).returncode)

async def calls(conn):
    told(lambda: conn.send_nowait("x"))
    told(conn.close_nowait)
    told(conn.abort)
    told(server.close)
    told(lambda: server.port)
    told(lambda: hub.broadcast_room("room", "x"))
    told(lambda: hub.publish_threadsafe("room", "x"))
    told(lambda: hub.join("other", conn))

async def awaits(conn):
    for step in (conn.send("x"), conn.recv(), conn.close(), conn.ping(), conn.drain(), conn.write_text("x")):
        try:
            step.send(None)
        except RuntimeError as exc:
            say("refused", "child process" in str(exc))
        else:
            say("not refused", step)
    for step in (server.wait_closed(), server.serve_forever(), hub.stop(), hub.publish("room", "x")):
        try:
            step.send(None)
        except RuntimeError as exc:
            say("refused", "child process" in str(exc))
        else:
            say("not refused", step)

async def child(what, conn):
    global server
    if what == "exit":
        sys.exit(0)
    elif what == "raise":
        raise ValueError("in the child")
    elif what == "calls":
        await calls(conn)
        os._exit(0)
    elif what == "awaits":
        await awaits(conn)
        os._exit(0)
    elif what == "clean up":
        try:
            sys.exit(0)
        finally:
            with contextlib.suppress(RuntimeError):
                await conn.close()
    elif what == "collect":
        for other in list(server._context.connections):
            other._transport.abort()
        server._context.connections.clear()
        server._listener = None
        gc.collect()
        os._exit(0)
    elif what == "given":
        given.listen()
        say("port", given.getsockname()[1])
        os._exit(0)
    elif what == "keep":
        threading.Event().wait()

async def handler(conn):
    hub.join("room", conn)
    async for message in conn:
        what, _, argument = message.partition(" ")
        if what == "fork":
            pid = os.fork()
            if pid == 0:
                timer = threading.Timer({patience}, os._exit, (0,))
                timer.daemon = True
                timer.start()
                await child(argument, conn)
                return
            say("child", pid)
        elif what == "watch":
            conn.add_close_callback(lambda conn: say("gone", os.getpid()))
        elif what == "call":
            globals()[argument]()
        elif what == "close":
            await conn.close()
            return
        elif what == "wake":
            woken = asyncio.Event()
            threading.Timer(0.01, asyncio.get_running_loop().call_soon_threadsafe, (woken.set,)).start()
            await woken.wait()
        await conn.send(message)

def tls(chain, key):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    return context

async def main():
    global hub, server
    listen = {listen}
    async with plumews.Hub() as hub, listen as server:
        say("port", server.port if server.sockets[0].family.name != "AF_UNIX" else 0)
        await asyncio.sleep(60)  # the test ends it before

def run():
    {run}

run()
"""


class Process:
    """Process of the server, with the attributes of a server that `Wire` needs."""

    def __init__(self, uvloop: bool, listen: str, *, patience: float = 5.0) -> None:
        run = "import uvloop; uvloop.run(main())" if uvloop else "asyncio.run(main())"
        path = str(Path(plumews.__file__).parent.parent)
        code = SERVER.format(path=path, listen=listen, run=run, patience=patience)
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # its children go with it
        )
        self.address: Any = ("127.0.0.1", self.number("port"))

    @property
    def sockets(self) -> list[Any]:
        family = socket.AF_UNIX if isinstance(self.address, str) else socket.AF_INET
        return [SimpleNamespace(getsockname=lambda: self.address, family=family)]

    def line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().decode().strip()

    def number(self, kind: str) -> int:
        """Return the number in the next line, which begins with ``kind``."""
        found, _, number = self.line().partition(" ")
        assert found == kind
        return int(number)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        assert self._process.stdout is not None
        self._process.stdout.close()


Start = Callable[..., Process]


@pytest.fixture
def started(anyio_backend: tuple[str, dict[str, Any]]) -> Iterator[Start]:
    with contextlib.ExitStack() as stack:

        def start(listen: str = 'plumews.serve(handler, "127.0.0.1", 0)', **options: Any) -> Process:
            process = Process(anyio_backend[1]["use_uvloop"], listen, **options)
            stack.callback(process.end)
            return process

        yield start


async def answer(wire: Wire, message: str) -> str | bytes:
    wire.send(text(message))
    return await asyncio.wait_for(wire.message(), 20)


async def check_unharmed(process: Process, *wires: Wire, **client: Any) -> None:
    """Check that old and new clients are served, and that other threads wake the loop."""
    for wire in wires:
        assert await answer(wire, "hello") == "hello"
        assert await answer(wire, "wake") == "wake"
    async with await Wire.open(process, **client) as newcomer:
        assert await answer(newcomer, "hello") == "hello"
    for wire in wires:
        assert await answer(wire, "and again") == "and again"


async def gone(pid: int) -> None:
    """Wait until the child has ended, reaped or not."""
    for _ in range(2000):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return
        if state == "Z":
            return
        await asyncio.sleep(0.01)  # no event tells the end of a grandchild
    raise AssertionError("the child goes on")


linux = pytest.mark.skipif(sys.platform != "linux", reason="children are looked up in /proc")


@linux
@pytest.mark.parametrize("what", ["exit", "return", "raise", "clean up", "collect"])
async def test_child_that_ends_harms_no_peer_of_its_parent(started: Start, what: str) -> None:
    process = started(patience=0.3)
    async with await Wire.open(process) as one, await Wire.open(process) as other:
        one.send(text(f"fork {what}"))
        child = process.number("child")
        assert await asyncio.wait_for(one.message(), 20) == f"fork {what}"
        await check_unharmed(process, one, other)
        await gone(child)
        await check_unharmed(process, one, other)


@linux
async def test_close_callback_is_called_in_the_parent_alone(started: Start) -> None:
    process = started(patience=0.3)
    async with await Wire.open(process) as wire:
        assert await answer(wire, "watch") == "watch"
        wire.send(text("fork exit"))
        await gone(process.number("child"))
        assert await asyncio.wait_for(wire.message(), 20) == "fork exit"
        wire.send(close())
        assert process.line() == f"gone {process._process.pid}"


@linux
async def test_child_that_ends_harms_no_peer_over_tls(started: Start, tmp_path: Path) -> None:
    chain, key = certificate(tmp_path)
    client = {"ssl": ssl.create_default_context(cafile=str(chain)), "server_hostname": "localhost"}
    process = started(f'plumews.serve(handler, "127.0.0.1", 0, ssl=tls({str(chain)!r}, {str(key)!r}))', patience=0.3)
    async with await Wire.open(process, **client) as one, await Wire.open(process, **client) as other:
        for what in ("exit", "return", "collect"):
            one.send(text(f"fork {what}"))
            child = process.number("child")
            assert await asyncio.wait_for(one.message(), 20) == f"fork {what}"
            await gone(child)
            await check_unharmed(process, one, other, **client)


@linux
async def test_child_that_ends_leaves_the_unix_socket_of_its_parent(started: Start, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    process = started(f"plumews.unix_serve(handler, {path!r})", patience=0.3)
    process.address = path
    async with await Wire.open(process) as one:
        for what in ("exit", "return"):
            one.send(text(f"fork {what}"))
            child = process.number("child")
            assert await asyncio.wait_for(one.message(), 20) == f"fork {what}"
            await gone(child)
            await check_unharmed(process, one)


@pytest.mark.parametrize(("what", "count"), [("calls", 8), ("awaits", 10)])
async def test_call_in_a_child_says_where_it_belongs(started: Start, what: str, count: int) -> None:
    process = started()
    async with await Wire.open(process) as wire:
        wire.send(text(f"fork {what}"))
        lines = [process.line() for _ in range(count + 1)]
        assert sorted(line for line in lines if not line.startswith("child ")) == ["refused True"] * count
        assert await asyncio.wait_for(wire.message(), 20) == f"fork {what}"
        await check_unharmed(process, wire)


async def test_close_of_the_parent_reaches_peers_while_a_child_lives(started: Start) -> None:
    process = started(patience=60.0)
    async with await Wire.open(process) as one, await Wire.open(process) as other:
        assert await answer(one, "fork keep") == "fork keep"
        process.number("child")
        other.send(text("close"))
        assert await other.closing() == (1000, "")
        other.send(close())
        await asyncio.wait_for(other.eof(), 20)
        process._process.kill()
        await asyncio.wait_for(one.eof(), 20)
        process._process.wait()
        with socket.socket() as again:  # nor does the child keep the port
            again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            again.bind(process.address)
            again.listen()


async def test_child_of_multiprocessing_serves_by_itself(started: Start) -> None:
    process = started()
    async with await Wire.open(process) as wire:
        assert await answer(wire, "call with_multiprocessing") == "call with_multiprocessing"
        first, second = sorted([process.line(), process.line()])
        assert first.startswith("child ")
        child = SimpleNamespace(
            sockets=[SimpleNamespace(getsockname=lambda: ("127.0.0.1", port), family=socket.AF_INET)]
        )
        port = int(second.removeprefix("port "))
        async with await Wire.open(child) as there:
            assert await answer(there, "hello") == "hello of the child"
            await check_unharmed(process, wire)
            assert await answer(there, "hello") == "hello of the child"


async def test_subprocess_with_preexec_harms_no_peer(started: Start) -> None:
    process = started()
    async with await Wire.open(process) as wire:
        assert await answer(wire, "call with_preexec") == "call with_preexec"
        assert process.line() == "child 0"
        await check_unharmed(process, wire)


def test_descriptors_are_replaced_though_there_is_none_left(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    other, last = os.pipe()
    opened = os.open
    answers = [OSError(errno.EMFILE, "none is left")]

    def open_one(*args: Any) -> int:
        if answers:
            raise answers.pop()
        return opened(*args)

    monkeypatch.setattr(os, "open", open_one)
    forks._replace({reader, other, -1})
    monkeypatch.undo()
    try:
        for fd in (reader, other):
            assert os.fstat(fd).st_rdev == Path(os.devnull).stat().st_rdev
            assert not os.get_inheritable(fd)
    finally:
        for fd in (reader, writer, other, last):
            os.close(fd)


async def test_given_socket_is_left_to_a_child(started: Start) -> None:
    process = started("plumews.serve(handler, sock=given)")
    async with await Wire.open(process) as wire:
        wire.send(text("fork given"))
        assert sorted([process.line(), process.line()])[1] == f"port {process.address[1]}"
        assert await asyncio.wait_for(wire.message(), 20) == "fork given"
        await check_unharmed(process, wire)
