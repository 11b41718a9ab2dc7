"""One descriptor kept, so that a client can be told that there are no others."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from plumews import limits
from plumews.server.reserve import EXHAUSTED, SpareDescriptor


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=256) as sock:
        sock.setblocking(False)
        yield sock


@pytest.fixture
def reserve() -> Iterator[SpareDescriptor]:
    made = SpareDescriptor()
    yield made
    made.close()


def clients(listening: socket.socket, count: int) -> list[socket.socket]:
    return [socket.create_connection(listening.getsockname(), 10) for _ in range(count)]


def test_all_in_the_backlog_are_told_one_after_the_other(listening: socket.socket, reserve: SpareDescriptor) -> None:
    told: list[socket.socket] = []

    def tell(sock: socket.socket) -> None:
        assert all(sock.fileno() == -1 for sock in told), "two at once"
        told.append(sock)
        with sock:
            sock.sendall(b"full")

    waiting = clients(listening, 3)
    assert reserve.turn_away(listening, tell) == 3
    for client in waiting:
        with client:
            assert client.recv(10) == b"full"
    assert reserve.turn_away(listening, tell) == 0


def test_a_bounded_number_is_told_at_a_time(
    listening: socket.socket, reserve: SpareDescriptor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ACCEPTS_AT_ONCE", 2)
    waiting = clients(listening, 3)
    assert [reserve.turn_away(listening, socket.socket.close) for _ in range(3)] == [2, 1, 0]
    for client in waiting:
        client.close()


def test_where_there_is_no_other_descriptor_the_one_in_reserve_serves_all_and_is_taken_back(
    listening: socket.socket,
) -> None:
    resource = pytest.importorskip("resource")
    waiting = clients(listening, 3)
    reserve = SpareDescriptor()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        free = os.dup(listening.fileno())
        os.close(free)  # the lowest that is free; above it there may be others
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        with pytest.raises(OSError) as caught:  # noqa: PT011 - by its number
            listening.accept()
        assert caught.value.errno in EXHAUSTED
        for turned in (3, 0):
            assert reserve.turn_away(listening, socket.socket.close) == turned
            assert reserve._held is not None
        reserve.close()
        with pytest.raises(BlockingIOError):
            listening.accept()  # there is one again, and nobody waits
    for client in waiting:
        with client:
            assert client.recv(10) == b""


def test_it_may_be_closed_twice_and_serve_again(listening: socket.socket, reserve: SpareDescriptor) -> None:
    reserve.close()
    reserve.close()
    with clients(listening, 1)[0]:
        assert reserve.turn_away(listening, socket.socket.close) == 1
