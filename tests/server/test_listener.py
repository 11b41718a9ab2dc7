"""Accepting connections on real sockets: bounds, rejections, exhausted descriptors, and slow clients.

Rows 29 and 30 of docs/security.md are here.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import re
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest

import plumews
from plumews import limits
from plumews.server import listener
from plumews.transport.loop_context import loop_context
from support.fakes import echo, tls_contexts, until
from support.listener_setup import answer, code_of, refused
from support.raw_client import Wire, masked, text, upgrade


async def from_address(server, address):
    """Connect from another address of this machine."""
    return Wire(*await asyncio.open_connection("127.0.0.1", server.port, local_addr=(address, 0)))


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


on_linux = pytest.mark.skipif(sys.platform != "linux", reason="127.0.0.2 and /proc are there on Linux")


# --- the bounds -----------------------------------------------------------------------------------


async def test_connection_beyond_the_bound_gets_503_until_one_ends(start):
    server = await start(plumews.serve(echo, "127.0.0.1", 0, max_connections=1))
    async with await Wire.open(server) as inside:
        async with await Wire.connect(server) as wire:
            status, body = await wire.response(upgrade())
            error = json.loads(body)["error"]
            assert (status, error["status"]) == (503, 503)
            assert (error["code"], error["message"]) == ("WEBSOCKET_TOO_MANY_CONNECTIONS", "too many connections")
            assert (wire.header("Retry-After"), wire.header("Connection")) == (str(limits.RETRY_AFTER), "close")
        inside.send(text("still here"))
        assert await inside.message() == "still here"
    await until(lambda: not server._context.connections)
    async with await Wire.open(server):
        assert refused(server) == {"WEBSOCKET_TOO_MANY_CONNECTIONS": 1}


async def test_max_opening_bounds_unfinished_handshakes_only(start):
    server = await start(plumews.serve(echo, "127.0.0.1", 0, max_opening=1))
    async with await Wire.open(server), await Wire.open(server), await Wire.connect(server) as half:
        half.writer.write(b"GET / HT")
        async with await Wire.connect(server) as wire:
            assert await answer(wire) == (503, "WEBSOCKET_TOO_MANY_HANDSHAKES")
        half.writer.write(b"TP/1.1\r\n\r\n")
        await half.reader.read()
        half.writer.close()
        await until(lambda: server._context.admission.opening == 0)
        async with await Wire.open(server):
            pass


@on_linux
async def test_address_with_all_its_connections_gets_429_alone(start):
    server = await start(plumews.serve(echo, "127.0.0.1", 0, max_connections_per_address=2))
    async with await Wire.open(server), await Wire.open(server), await Wire.connect(server) as third:
        assert await answer(third) == (429, "WEBSOCKET_TOO_MANY_FROM_ADDRESS")
        assert third.header("Retry-After") == str(limits.RETRY_AFTER)
        async with await from_address(server, "127.0.0.2") as other:
            other.writer.write(upgrade())
            await other.read_head()
            assert other.status == 101


async def test_addresses_of_a_64_network_share_one_bound(start):
    server = await start(plumews.serve(echo, "::1", 0, max_connections_per_address=1))
    async with await Wire.open(server), await Wire.connect(server) as wire:
        assert await answer(wire) == (429, "WEBSOCKET_TOO_MANY_FROM_ADDRESS")


@pytest.mark.parametrize("option", ["accept_rate", "accept_rate_per_address"])
async def test_connection_beyond_the_accept_rate_gets_retry_after(start, option):
    server = await start(plumews.serve(echo, "127.0.0.1", 0, **{option: 0.05}))
    async with await Wire.open(server), await Wire.connect(server) as wire:
        assert await answer(wire) == (429, "WEBSOCKET_RATE_LIMITED")
        assert wire.header("Retry-After") == "20"


async def test_unix_socket_has_the_bounds_of_the_server_only(start, tmp_path):
    path = str(tmp_path / "ws.sock")
    server = await start(plumews.unix_serve(echo, path, max_connections_per_address=1, max_connections=2))
    async with await Wire.open(server), await Wire.open(server), await Wire.connect(server) as wire:
        assert await answer(wire) == (503, "WEBSOCKET_TOO_MANY_CONNECTIONS")


async def test_client_counts_under_the_address_told_by_its_proxy(start):
    server = await start(
        plumews.serve(echo, "127.0.0.1", 0, trusted_proxies=["127.0.0.1"], max_connections_per_address=1)
    )
    one, other = "X-Forwarded-For: 8.8.8.8", "X-Forwarded-For: 9.9.9.9"
    async with await Wire.open(server, "/", one), await Wire.open(server, "/", other):
        wire = await Wire.connect(server)
        status, body = await wire.response(upgrade("/", one))
        wire.writer.close()
        assert (status, code_of(body)) == (429, "WEBSOCKET_TOO_MANY_FROM_ADDRESS")
    await until(lambda: not server._context.connections)
    assert server._context.admission.connections == server._context.admission.opening == 0


async def test_bounds_hold_where_the_loop_cannot_watch_sockets(start, monkeypatch):
    def cannot(*args):
        raise NotImplementedError

    monkeypatch.setattr(asyncio.get_running_loop(), "add_reader", cannot, raising=False)
    server = await start(plumews.serve(echo, "127.0.0.1", 0, max_connections_per_address=1))
    assert server._listener._sockets == []
    async with await Wire.open(server):
        async with await Wire.connect(server) as wire:
            assert await answer(wire) == (429, "WEBSOCKET_TOO_MANY_FROM_ADDRESS")
        await until(lambda: len(server._context.connections) == 1)
    await until(lambda: not server._context.connections)
    async with await Wire.open(server):
        assert refused(server) == {"WEBSOCKET_TOO_MANY_FROM_ADDRESS": 1}
    await until(lambda: server._context.admission.connections == 0)


async def test_plain_connection_is_accepted_without_a_task(start):
    server = await start(
        plumews.serve(on_message=lambda conn, message: conn.send_nowait(message), host="127.0.0.1", port=0)
    )
    loop, made = asyncio.get_running_loop(), []
    loop.set_task_factory(lambda loop, work, **options: made.append(work) or asyncio.Task(work, loop=loop, **options))
    async with await Wire.open(server) as wire:
        wire.send(text("alive"))
        assert await wire.message() == "alive"
    loop.set_task_factory(None)
    assert [work for work in made if "connect_accepted_socket" in repr(work) or "plumews" in repr(work)] == []


async def test_failing_protocol_frees_the_slot_and_is_logged(start, caplog, monkeypatch):
    server = await start(plumews.serve(echo, "127.0.0.1", 0))

    def fail(slot):
        raise RuntimeError("no connection today")

    monkeypatch.setattr(server._listener, "_connection", fail)
    async with await Wire.connect(server) as wire:
        await wire.eof()
    await until(lambda: server._context.admission.connections == 0)
    assert not server._listener._connecting
    assert [record.getMessage() for record in caplog.records] == ["connecting a client failed"]


# --- rejections -----------------------------------------------------------------------------------


async def test_rejected_tls_client_is_cut_before_its_handshake(start):
    server_context, client_context = tls_contexts()
    server = await start(plumews.serve(echo, "127.0.0.1", 0, ssl=server_context, max_connections=1))
    options = {"ssl": client_context, "server_hostname": "localhost"}
    async with await Wire.open(server, **options):
        with pytest.raises((ConnectionError, ssl.SSLError)):
            await Wire.connect(server, **options)
        assert refused(server) == {"WEBSOCKET_TOO_MANY_CONNECTIONS": 1}
        assert server._context.admission.connections == 1


async def test_client_admitted_just_before_the_stop_gets_503():
    server = await plumews.serve(echo, "127.0.0.1", 0)
    (listening,) = server._listener._sockets
    client = socket.create_connection(("127.0.0.1", server.port))
    server._listener._accept(listening)
    assert server._listener._connecting
    server.close()
    client.setblocking(False)
    async with Wire(*await asyncio.open_connection(sock=client)) as wire:
        assert await answer(wire) == (503, "WEBSOCKET_STOPPING")
    await server.wait_closed()


async def test_backlog_of_a_stopping_server_gets_503():
    server = await plumews.serve(echo, "127.0.0.1", 0)
    clients = [
        socket.create_connection(("127.0.0.1", server.port)) for _ in range(5)
    ]  # the loop runs nothing in between
    for client in clients:
        client.sendall(upgrade())
    server.close()
    for client in clients:
        client.setblocking(False)
        async with Wire(*await asyncio.open_connection(sock=client)) as wire:
            assert await answer(wire) == (503, "WEBSOCKET_STOPPING")
    await server.wait_closed()
    assert refused(server) == {"WEBSOCKET_STOPPING": 5}


@on_linux
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_admitted_rejected_and_gone_clients_leave_nothing(tls):
    options = {"ssl": tls_contexts()[1], "server_hostname": "localhost"} if tls else {}
    loop = asyncio.get_running_loop()
    server = await plumews.serve(
        echo, "127.0.0.1", 0, ssl=tls_contexts()[0] if tls else None, open_timeout=1, max_connections=3
    )
    async with server, await Wire.open(server, **options) as inside:
        before = descriptors()
        for _ in range(20):
            wires = [await Wire.connect(server) for _ in range(6)]
            wires[0].reset()
            for wire in wires[1:]:
                wire.writer.close()
            await until(lambda: server._context.admission.connections == 1)
        await until(lambda: descriptors() <= before and not server._listener._connecting)
        inside.send(text("alive"))
        assert await inside.message() == "alive"
        assert len(refused(server)) == 1
    assert (server._context.admission.connections, server._context.admission.opening) == (0, 0)
    assert server._context.tasks == server._context.connections == set(server._listener._connecting) == set()
    await until(lambda: len(loop_context(loop).timers) == 0)


# --- row 29: no descriptors -----------------------------------------------------------------------

CHILD = """
import asyncio, logging, resource, sys, time
import plumews

async def main():
    async def handler(conn):
        async for message in conn:
            await conn.send(str(time.process_time()))
    async with plumews.serve(handler, "127.0.0.1", 0, open_timeout=60) as server:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
        print(server.port, flush=True)
        await server.serve_forever()

logging.basicConfig(level=logging.WARNING)
if sys.argv[1] == "uvloop":
    import uvloop
    uvloop.run(main())
else:
    asyncio.run(main())
"""


class Child:
    """Server in a process that may have 256 descriptors."""

    sockets = ()

    def __init__(self, loop, errors):
        self.process = subprocess.Popen(
            [sys.executable, "-c", CHILD, loop],
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, "PYTHONPATH": str(Path(plumews.__file__).parent.parent)},
        )
        self.port = int(self.process.stdout.readline())

    async def connect(self):
        return Wire(*await asyncio.open_connection("127.0.0.1", self.port))

    def stop(self):
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def child(anyio_backend, tmp_path):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2048:
        pytest.skip("not enough descriptors for the clients")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    loop = "uvloop" if anyio_backend[1]["use_uvloop"] else "asyncio"
    with (tmp_path / "errors").open("wb") as errors:
        server = Child(loop, errors)
    yield server
    server.stop()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def cpu_of(wire):
    """Return the processor time of the child, asked over an open connection."""
    wire.send(text("?"))
    return float(await asyncio.wait_for(wire.message(), 1))


async def opened(server):
    """Return an open WebSocket, or None if the server rejects it."""
    wire = await server.connect()
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        wire.writer.write(upgrade())
        await wire.read_head()
        if wire.status == 101:
            return wire
    wire.writer.close()
    return None


@on_linux
async def test_row_29_emfile_neither_spins_nor_blocks(child, tmp_path):
    old = await opened(child)
    begin, cpu = time.monotonic(), await cpu_of(old)
    clients = [await child.connect() for _ in range(1000)]
    for client in clients[300:]:  # each gets a response, though there is no descriptor
        status, code = await asyncio.wait_for(answer(client), 10)
        assert (status, code) == (503, "WEBSOCKET_OUT_OF_DESCRIPTORS")
    waited = await child.connect()  # and so does a later one
    assert await asyncio.wait_for(answer(waited), 10) == (503, "WEBSOCKET_OUT_OF_DESCRIPTORS")
    spent = await cpu_of(old) - cpu
    seconds = time.monotonic() - begin
    assert spent < 0.2 * seconds, f"{spent:.2f} s of processor time in {seconds:.2f} s"
    lines = (tmp_path / "errors").read_text().splitlines()
    assert 1 <= len(lines) <= 1 + seconds, lines
    assert re.search(r"ERROR:plumews.server:cannot accept connections: .* \(\d+ turned away\)", lines[0])
    for client in [*clients, waited]:
        client.writer.close()
    begin = time.monotonic()
    while (new := await opened(child)) is None:
        assert time.monotonic() - begin < 2
    await cpu_of(new)
    await cpu_of(old)
    for wire in (old, new):
        wire.writer.close()


@pytest.mark.parametrize("code", [errno.ENOBUFS, errno.ENOMEM, errno.EPROTO, errno.EPERM], ids=errno.errorcode.get)
async def test_accept_that_fails_is_tried_again_after_a_pause(start, caplog, monkeypatch, code):
    server = await start(plumews.serve(echo, "127.0.0.1", 0))
    (listening,) = server._listener._sockets
    failures = 0

    class Failing:
        def accept(self):
            nonlocal failures
            failures += 1
            raise OSError(code, os.strerror(code))

        def fileno(self):
            return listening.fileno()

    monkeypatch.setattr(listener, "_ACCEPT_PAUSE", 0.05)
    server._listener._accept(Failing())
    server._listener._accept(Failing())
    assert 2 <= failures <= 4  # one more each where the spare descriptor is used
    assert [record.getMessage() for record in caplog.records] == [
        f"cannot accept connections: {os.strerror(code)} (0 turned away)"
    ]
    for failing in list(server._listener._paused):
        server._listener._paused.pop(failing).cancel()
    server._listener._watch(listening)
    async with await Wire.open(server):
        pass


# --- row 30: slow ones ----------------------------------------------------------------------------


async def trickle(wire, data, every):
    """Send one byte at a time, until the connection ends."""
    with contextlib.suppress(ConnectionError):
        for index in range(len(data)):
            wire.writer.write(data[index : index + 1])
            await asyncio.sleep(every)  # it is slow on purpose


@pytest.mark.parametrize("where", ["tls", "head in tls", "head"])
async def test_row_30_slowloris_ends_at_the_open_timeout(start, where):
    server_context, client_context = tls_contexts()
    context = None if where == "head" else server_context
    options = {"ssl": client_context, "server_hostname": "localhost"} if where == "head in tls" else {}
    server = await start(plumews.serve(echo, "127.0.0.1", 0, ssl=context, open_timeout=0.3))
    data = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500) if where == "tls" else upgrade("/" + "x" * 500)
    begin = time.monotonic()
    async with await Wire.connect(server, **options) as wire:
        slow = asyncio.ensure_future(trickle(wire, data, 0.02))
        with contextlib.suppress(ConnectionError):
            await asyncio.wait_for(wire.reader.read(), 5)
        assert 0.25 < time.monotonic() - begin < 2
        slow.cancel()
    await until(lambda: server._context.admission.connections == 0)


@pytest.mark.parametrize("part", ["frame", "payload"])
async def test_row_30_slowloris_when_open_is_ended_by_keepalive(start, part):
    server = await start(plumews.serve(echo, "127.0.0.1", 0, ping_interval=0.1, ping_timeout=0.1, open_timeout=0.05))
    async with await Wire.open(server) as wire:
        frame = masked(2, b"x" * 1000)
        wire.send(frame[: 3 if part == "frame" else 500])
        begin = time.monotonic()
        await asyncio.wait_for(wire.eof(), 5)
        assert time.monotonic() - begin > 0.1
    await until(lambda: server._context.admission.connections == 0)
