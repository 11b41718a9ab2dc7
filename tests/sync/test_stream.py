"""Tests of streams of blocking connections."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from plumews import ConcurrencyError, ConnectionClosedError, Opcode
from plumews.protocol.codec import build_frame
from plumews.sync import Conn, connect
from support.fakes import PATIENCE
from support.hostile_server import Peer
from support.threaded import hostile_server, server


@pytest.fixture(scope="module")
def echo_uri() -> Iterator[str]:
    with server(max_size=None, send_timeout=None) as uri:
        yield uri


@pytest.fixture
def conn(echo_uri: str) -> Iterator[Conn]:
    with connect(echo_uri) as conn:
        yield conn


def test_a_stream_yields_a_message_while_it_arrives() -> None:
    go_on = threading.Event()

    async def play(peer: Peer) -> None:
        peer.accept(behind=build_frame(1, b"one", fin=False))
        await asyncio.to_thread(go_on.wait, PATIENCE)
        peer.send(build_frame(0, b"two") + build_frame(1, b"next"))
        await peer.gone()

    with hostile_server(play) as uri, connect(uri, close_timeout=0.1) as conn:
        with conn.read_stream(timeout=PATIENCE) as stream:
            assert (stream.opcode, stream.buffered) == (Opcode.TEXT, 3)
            assert stream.read() == b"one"
            assert "arriving" in repr(stream)
            with pytest.raises(TimeoutError):
                stream.read(timeout=0.01)
            with pytest.raises(ConcurrencyError, match="still open"):
                conn.recv()
            go_on.set()
            assert list(stream) == [b"two"]
            assert stream.read() == b""
            assert "complete" in repr(stream)
        assert conn.recv() == "next"


def test_a_message_that_has_arrived_is_a_stream_too(conn: Conn) -> None:
    conn.send("text")
    conn.ping()
    with conn.read_stream() as stream:
        assert stream.read_all() == b"text"
    conn.send(b"next")
    assert conn.recv() == b"next"


@pytest.mark.parametrize("message", ["", b""])
def test_an_empty_message_is_a_stream_without_chunks(conn: Conn, message: str | bytes) -> None:
    conn.send(message)
    with conn.read_stream(timeout=PATIENCE) as stream:
        assert (stream.opcode is Opcode.TEXT, stream.read_all()) == (message == "", b"")
    conn.send("next")
    assert conn.recv(timeout=PATIENCE) == "next"


def test_a_stream_above_the_limit_of_the_queue(conn: Conn) -> None:
    conn.send(bytes(3_000_000))
    with conn.read_stream() as stream:
        assert sum(len(chunk) for chunk in stream) == 3_000_000


def test_a_closed_stream_discards_its_rest(conn: Conn) -> None:
    conn.send(bytes(3_000_000))
    conn.send("next")
    with conn.read_stream() as stream:
        assert stream.read()
    with pytest.raises(ConcurrencyError, match="closed"):
        stream.read()
    assert "closed" in repr(stream)
    assert conn.recv(timeout=PATIENCE) == "next"


def test_a_stream_follows_one_that_was_closed_early(conn: Conn) -> None:
    conn.write_many([bytes(3_000_000), bytes(10)])
    with conn.read_stream() as stream:
        assert stream.read()
    with conn.read_stream(timeout=PATIENCE) as stream:
        assert stream.read_all() == bytes(10)


def test_a_stream_that_times_out_leaves_whole_messages(conn: Conn) -> None:
    with pytest.raises(TimeoutError):
        conn.read_stream(timeout=0.01)
    conn.send("whole")
    assert conn.recv() == "whole"


def test_a_stream_that_is_cut_raises() -> None:
    async def play(peer: Peer) -> None:
        peer.accept(behind=build_frame(2, b"half", fin=False))

    with hostile_server(play) as uri, connect(uri) as conn, conn.read_stream() as stream:
        assert stream.read() == b"half"
        with pytest.raises(ConnectionClosedError):
            stream.read()
