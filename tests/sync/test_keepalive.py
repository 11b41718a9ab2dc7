"""Tests of pings of blocking connections."""

from __future__ import annotations

import pytest

from plumews import ConnectionClosedError
from plumews.protocol.codec import Parser, build_frame
from plumews.sync import Conn, connect
from support.fakes import PATIENCE
from support.hostile_server import Peer
from support.threaded import hostile_server, in_thread, refusing_server


def test_ping_returns_the_latency_and_keeps_messages(conn: Conn) -> None:
    conn.send("before")
    latency = conn.ping("data", timeout=PATIENCE)
    assert 0 < latency < PATIENCE
    assert conn.latency == latency
    assert conn.recv(timeout=0) == "before"


def test_ping_while_another_thread_receives(conn: Conn) -> None:
    with in_thread(conn.recv) as received:
        assert conn.ping(timeout=PATIENCE) > 0
        conn.send("end")
        assert received() == "end"


def test_ping_without_a_pong_times_out() -> None:
    with refusing_server() as uri, connect(uri, close_timeout=0.1) as conn:
        with pytest.raises(TimeoutError, match="no pong within"):
            conn.ping(b"1", timeout=0.05)
        with pytest.raises(ValueError, match="unanswered ping"):
            conn.ping(b"1")
        with pytest.raises(ValueError, match="125 bytes"):
            conn.ping(bytes(126))
    with pytest.raises(ConnectionClosedError):
        conn.ping()


def test_pings_of_the_server_are_answered() -> None:
    received: list[bytes] = []

    async def play(peer: Peer) -> None:
        peer.accept(behind=build_frame(9, b"are you there"))
        received.append(await peer.reader.readexactly(6 + 13))
        peer.send(build_frame(1, b"yes"))
        await peer.gone()

    with hostile_server(play) as uri, connect(uri, close_timeout=0.1) as conn:
        assert conn.recv(timeout=PATIENCE) == "yes"
    assert Parser(client=False, max_size=None).feed(received[0]) == [(10, b"are you there")]
