"""Tests of the queries and the bound of the kernel send buffer, on real sockets."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator

import pytest

from plumews.transport import send_buffer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the figures are those of Linux")

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def tcp() -> Iterator[Pair]:
    listening = socket.create_server(("127.0.0.1", 0))
    with listening, socket.create_connection(listening.getsockname()) as ours, listening.accept()[0] as theirs:
        ours.setblocking(False)
        yield ours, theirs


@pytest.fixture
def unix() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        yield ours, theirs


def fill(sock: socket.socket, size: int = 1000) -> int:
    written = 0
    while True:
        try:
            written += sock.send(bytes(size))
        except BlockingIOError:
            return written


def test_bound_limits_what_tcp_takes_beyond_the_network(tcp: Pair) -> None:
    ours, theirs = tcp
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    send_buffer.bound(ours, 16 * 1024)
    fill(ours)
    waiting = send_buffer.unsent(ours)
    assert waiting is not None
    assert 0 < waiting <= 64 * 1024  # the last segment is filled


def test_bound_limits_what_a_unix_socket_takes(unix: Pair) -> None:
    send_buffer.bound(unix[0], 16 * 1024)
    assert fill(unix[0], 4096) <= 33 * 1024


def test_bytes_the_peer_has_are_acknowledged(tcp: Pair) -> None:
    ours, theirs = tcp
    before = send_buffer.acknowledged(ours, 0)
    ours.send(bytes(1000))
    theirs.recv(1000, socket.MSG_WAITALL)
    after = send_buffer.acknowledged(ours, 1000)
    assert before is not None
    assert after is not None
    assert after - before == 1000
    assert send_buffer.unacknowledged(ours) == send_buffer.unsent(ours) == 0


def test_bytes_only_our_kernel_has_are_not_acknowledged(tcp: Pair) -> None:
    written = fill(tcp[0])
    acknowledged, held = send_buffer.acknowledged(tcp[0], written), send_buffer.unacknowledged(tcp[0])
    assert acknowledged is not None
    assert held is not None
    assert held > 0
    assert acknowledged <= written - held + 1


def test_bytes_read_from_a_unix_socket_are_acknowledged(unix: Pair) -> None:
    ours, theirs = unix
    before = send_buffer.acknowledged(ours, 0)
    ours.send(bytes(1000))
    sent = send_buffer.acknowledged(ours, 1000)
    theirs.recv(1000)
    after = send_buffer.acknowledged(ours, 1000)
    assert before == 0
    assert sent is not None
    assert sent <= 0
    assert after == 1000


@pytest.mark.parametrize(
    "ask", [send_buffer.unsent, send_buffer.unacknowledged, lambda s: send_buffer.acknowledged(s, 1)]
)
def test_socket_that_cannot_answer_gives_none(ask) -> None:  # type: ignore[no-untyped-def]
    closed = socket.socket()
    closed.close()
    assert ask(closed) is None
    assert ask(None) is None


def test_bound_of_a_closed_socket_is_no_error() -> None:
    closed = socket.socket()
    closed.close()
    send_buffer.bound(closed, 1000)
