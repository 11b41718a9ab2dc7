"""Rejected clients: sockets that wait until the response is read, and the spare descriptor for EMFILE."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

import plumews
from plumews import limits
from plumews.errors import Refused
from plumews.server import listener
from plumews.server.listener import EXHAUSTED, RejectedSockets, SpareDescriptor
from plumews.transport.timers import Timers
from support.fakes import FakeLoop, echo, until
from support.listener_setup import answer, refused
from support.raw_client import Wire, upgrade

# --- with a server --------------------------------------------------------------------------------


async def test_client_that_sent_much_reads_its_rejection(start):
    server = await start(plumews.serve(echo, "127.0.0.1", 0, max_connections=1))
    async with await Wire.open(server), await Wire.connect(server) as wire:
        wire.writer.write(upgrade("/", "X-Long: " + "x" * 12_000))
        await until(lambda: refused(server))
        await asyncio.sleep(0)
        assert await answer(wire) == (503, "WEBSOCKET_TOO_MANY_CONNECTIONS")


async def test_rejected_sockets_are_bounded_in_number_and_time(start, monkeypatch):
    monkeypatch.setattr(limits, "REJECTED_SOCKETS", 3)
    monkeypatch.setattr(limits, "REJECTED_SOCKET_TIME", 0.2)
    monkeypatch.setattr(listener, "_LINGER_EVERY", 0.02)
    server = await start(plumews.serve(echo, "127.0.0.1", 0, max_connections=1))
    waiting = server._listener._rejected._waiting
    async with await Wire.open(server):
        wires = [await Wire.connect(server) for _ in range(10)]  # they do not hang up
        await until(lambda: refused(server).get("WEBSOCKET_TOO_MANY_CONNECTIONS") == 10)
        assert len(waiting) == 3
        for wire in wires:
            assert await answer(wire) == (503, "WEBSOCKET_TOO_MANY_CONNECTIONS")
        await until(lambda: not server._listener._rejected._waiting)
        for wire in wires:
            wire.writer.close()


# --- without a server -----------------------------------------------------------------------------

FULL = Refused("too many connections", status=503, code="WEBSOCKET_TOO_MANY_CONNECTIONS")


@pytest.fixture
def loop():
    return FakeLoop()


@pytest.fixture
def rejected(loop):
    made = RejectedSockets(Timers(loop))
    yield made
    made.close()


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    theirs.settimeout(10)
    with ours, theirs:
        yield ours, theirs


def read_to_the_end(sock):
    return b"".join(iter(lambda: sock.recv(65536), b""))


def is_closed(sock):
    return sock.fileno() == -1


def test_rejected_client_reads_whole_answer_and_end(rejected, pair):
    ours, theirs = pair
    rejected.answer(ours, FULL)
    head, body = read_to_the_end(theirs).split(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert json.loads(body)["error"]["code"] == "WEBSOCKET_TOO_MANY_CONNECTIONS"
    assert not is_closed(ours)


def test_rejected_socket_closes_on_hangup_or_after_linger_time(rejected, pair, loop):
    ours, theirs = pair
    other, stays = socket.socketpair()
    for sock in (ours, other):
        rejected.answer(sock, FULL)
    stays.send(b"x" * 1000)  # its data is discarded
    theirs.close()
    loop.advance(listener._LINGER_EVERY)
    assert (is_closed(ours), is_closed(other)) == (True, False)
    loop.advance(limits.REJECTED_SOCKET_TIME - 2 * listener._LINGER_EVERY)
    assert not is_closed(other)
    loop.advance(2 * listener._LINGER_EVERY)
    assert is_closed(other)
    assert loop.armed == []
    stays.close()


def test_answer_without_wait_closes_the_socket_at_once(rejected, pair, loop):
    ours, theirs = pair
    rejected.answer(ours, FULL, wait=False)
    assert is_closed(ours)
    assert b"WEBSOCKET_TOO_MANY_CONNECTIONS" in read_to_the_end(theirs)
    assert loop.armed == []


def test_answer_to_a_closed_peer_closes_the_socket(rejected, pair, loop):
    ours, theirs = pair
    theirs.close()
    rejected.answer(ours, FULL)
    assert is_closed(ours)
    assert loop.armed == []


def test_answer_beyond_the_bound_closes_the_socket_at_once(rejected, monkeypatch):
    monkeypatch.setattr(limits, "REJECTED_SOCKETS", 2)
    pairs = [socket.socketpair() for _ in range(4)]
    for ours, _ in pairs:
        rejected.answer(ours, FULL)
    assert [is_closed(ours) for ours, _ in pairs] == [False, False, True, True]
    rejected.close()
    assert all(is_closed(ours) for ours, _ in pairs)
    for _, theirs in pairs:
        theirs.close()


async def test_wait_idle_ends_with_the_last_socket_or_a_close(pair, loop):
    rejected = RejectedSockets(Timers(loop))
    await rejected.wait_idle()  # no socket waits
    for end in (lambda: loop.advance(limits.REJECTED_SOCKET_TIME + listener._LINGER_EVERY), rejected.close):
        ours, theirs = socket.socketpair()
        rejected.answer(ours, FULL)
        waiting = [asyncio.ensure_future(rejected.wait_idle()) for _ in range(2)]
        await asyncio.sleep(0)
        waiting.pop().cancel()  # one cancelled waiter does not end the others
        await asyncio.sleep(0)
        assert not waiting[0].done()
        end()
        await waiting[0]
        theirs.close()


# --- the spare descriptor -------------------------------------------------------------------------


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=256) as sock:
        sock.setblocking(False)
        yield sock


@pytest.fixture
def spare() -> Iterator[SpareDescriptor]:
    made = SpareDescriptor()
    yield made
    made.close()


def clients(listening: socket.socket, count: int) -> list[socket.socket]:
    return [socket.create_connection(listening.getsockname(), 10) for _ in range(count)]


def test_spare_descriptor_rejects_the_backlog_one_by_one(listening: socket.socket, spare: SpareDescriptor) -> None:
    told: list[socket.socket] = []

    def tell(sock: socket.socket) -> None:
        assert all(sock.fileno() == -1 for sock in told), "two at once"
        told.append(sock)
        with sock:
            sock.sendall(b"full")

    waiting = clients(listening, 3)
    assert spare.turn_away(listening, tell) == 3
    for client in waiting:
        with client:
            assert client.recv(10) == b"full"
    assert spare.turn_away(listening, tell) == 0


def test_spare_descriptor_rejects_a_bounded_number_at_a_time(
    listening: socket.socket, spare: SpareDescriptor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "_ACCEPTS_AT_ONCE", 2)
    waiting = clients(listening, 3)
    assert [spare.turn_away(listening, socket.socket.close) for _ in range(3)] == [2, 1, 0]
    for client in waiting:
        client.close()


def test_spare_descriptor_at_the_limit_rejects_all_clients(
    listening: socket.socket,
) -> None:
    resource = pytest.importorskip("resource")
    waiting = clients(listening, 3)
    spare = SpareDescriptor()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        free = os.dup(listening.fileno())
        os.close(free)  # the lowest free one; above it there may be others
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        with pytest.raises(OSError) as caught:  # noqa: PT011 - by its number
            listening.accept()
        assert caught.value.errno in EXHAUSTED
        for turned in (3, 0):
            assert spare.turn_away(listening, socket.socket.close) == turned
            assert spare._held is not None
        spare.close()
        with pytest.raises(BlockingIOError):
            listening.accept()  # there is one again, and the backlog is empty
    for client in waiting:
        with client:
            assert client.recv(10) == b""


def test_spare_descriptor_closed_twice_serves_again(listening: socket.socket, spare: SpareDescriptor) -> None:
    spare.close()
    spare.close()
    with clients(listening, 1)[0]:
        assert spare.turn_away(listening, socket.socket.close) == 1
