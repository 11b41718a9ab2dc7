"""Tests of the end of blocking connections."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import textwrap
import time

import pytest

import plumews
from plumews import ConnectionClosed, ConnectionClosedError, ConnectionClosedOK, State
from plumews.sync import Conn, connect
from support.fakes import PATIENCE
from support.threaded import in_thread, refusing_server, server


def test_the_end_of_the_peer_ends_iteration() -> None:
    async def handler(conn: plumews.Conn) -> None:
        await conn.send("last")
        await conn.close(1001, "leaving")

    with server(handler) as uri, connect(uri) as conn:
        assert list(conn) == ["last"]
        assert (conn.close_code, conn.close_reason, conn.closed) == (1001, "leaving", True)
        with pytest.raises(ConnectionClosedOK, match="1001"):
            conn.recv()
        with pytest.raises(ConnectionClosedOK):
            conn.send("late")


def test_close_tells_code_and_reason() -> None:
    ends: list[tuple[int | None, str | None]] = []

    async def handler(conn: plumews.Conn) -> None:
        await conn.wait_closed()
        ends.append((conn.close_code, conn.close_reason))

    with server(handler) as uri:
        conn = connect(uri).open()
        with pytest.raises(ValueError, match="close frame"):
            conn.close(1005)
        conn.close(4000, "enough")
        conn.close()
        with contextlib.suppress(ZeroDivisionError), connect(uri):
            raise ZeroDivisionError
    assert sorted(ends, key=str) == [(1011, ""), (4000, "enough")]


def test_close_ends_a_recv_of_another_thread(conn: Conn) -> None:
    with in_thread(conn.recv) as received:
        conn.close()
        with pytest.raises(ConnectionClosedOK):
            received()


def test_close_ends_a_recv_if_the_peer_does_not_answer() -> None:
    with refusing_server() as uri:
        conn = connect(uri, close_timeout=0.1).open()
        with in_thread(conn.recv) as received:
            began = time.monotonic()
            conn.close()
            assert time.monotonic() - began < 2
            with pytest.raises(ConnectionClosedError):
                received()


def test_close_ends_a_stuck_sender() -> None:
    with refusing_server() as uri:
        conn = connect(uri, close_timeout=0.2).open()
        with in_thread(lambda: conn.send(bytes(50_000_000))) as sent:
            conn.close()
            with pytest.raises(ConnectionClosedError):
                sent()
        assert conn.state is State.CLOSED


def test_messages_before_the_end_can_be_read_behind_it(echo_uri: str) -> None:
    conn = connect(echo_uri).open()
    conn.send("kept")
    conn.ping()
    conn.close()
    assert conn.recv() == "kept"
    with pytest.raises(ConnectionClosedOK):
        conn.recv()


def test_close_passes_over_a_flood() -> None:
    async def handler(conn: plumews.Conn) -> None:
        while True:
            await conn.send(bytes(60_000))

    with server(handler, send_timeout=None) as uri:
        conn = connect(uri).open()
        conn.recv()
        began = time.monotonic()
        conn.close()
        assert (conn.close_code, time.monotonic() - began < 2) == (1000, True)


def test_wait_closed_waits_for_the_end_and_keeps_messages() -> None:
    async def handler(conn: plumews.Conn) -> None:
        await conn.recv()
        await conn.send("last")

    with server(handler) as uri:
        conn = connect(uri).open()
        assert not conn.wait_closed(0.01)
        conn.send("end")
        assert conn.wait_closed(PATIENCE)
        assert (conn.state, conn.recv()) == (State.CLOSED, "last")
        assert conn.wait_closed(0)


def test_abort_cuts_the_connection(conn: Conn) -> None:
    conn.abort()
    assert (conn.state, conn.close_code) == (State.CLOSED, 1006)
    with pytest.raises(ConnectionClosedError):
        conn.send("late")


def test_close_in_the_middle_of_everything_ends_all_threads() -> None:
    def send() -> None:
        with contextlib.suppress(ConnectionClosed):
            for size in (1, 300, 70_000) * 10:
                conn.send("x" * size)

    def receive() -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                conn.recv()

    began = time.monotonic()
    with server(compression="deflate", send_timeout=None) as uri:
        for number in range(40):
            conn = connect(uri, compression="deflate" if number % 2 else None).open()
            with in_thread(send) as one, in_thread(send) as two, in_thread(receive) as received:
                time.sleep(number * 0.0002)  # each close comes at another moment of the others
                (conn.close if number % 5 else conn.abort)()
                for ended in (one, two, received):
                    ended()
            assert conn.fileno() == -1
    assert time.monotonic() - began < PATIENCE


def test_a_process_that_forgets_to_close_ends_silently(echo_uri: str) -> None:
    program = """
        import sys, threading
        from plumews.sync import connect
        conn = connect(sys.argv[1]).open()
        conn.send("hello")
        assert conn.recv() == "hello"
        def forget():
            other = connect(sys.argv[1]).open()
            other.send("hello")
        forget()
        waiting = connect(sys.argv[1]).open()
        threading.Thread(target=waiting.recv, daemon=True).start()
        left = connect(sys.argv[1])
        left.__enter__()
    """
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", textwrap.dedent(program), echo_uri],
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert time.monotonic() - began < PATIENCE
