"""Tests of blocking connections over real sockets, against our own server and a hostile one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

import plumews
from plumews import ConcurrencyError, ConnectionClosed, ConnectionClosedError, ConnectionClosedOK, Opcode, State
from plumews.protocol.codec import Parser, build_frame
from plumews.sync import Conn, connect
from support.fakes import PATIENCE
from support.hostile_server import Peer
from support.threaded import hostile_server, in_thread, server


@pytest.fixture(scope="module")
def echo_uri() -> Iterator[str]:
    with server(max_size=32 * 1024 * 1024, send_timeout=None) as uri:
        yield uri


@pytest.fixture
def conn(echo_uri: str) -> Iterator[Conn]:
    with connect(echo_uri, max_size=32 * 1024 * 1024) as conn:
        yield conn


def frames_of(data: bytes) -> list[tuple[int, Any]]:
    """Return the events in what a client has sent."""
    return Parser(client=False, max_size=None).feed(data)


async def refuse_to_read(peer: Peer) -> None:
    peer.accept()
    peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
    await asyncio.sleep(0.6)


# --- messages -------------------------------------------------------------------------------------


@pytest.mark.parametrize("message", ["", "hello", "ä€😀", b"", b"hello", "x" * 5000, b"y" * 300_000, "ö" * 100_000])
def test_messages_come_back_as_they_were_sent(conn: Conn, message: str | bytes) -> None:
    conn.send(message)
    assert conn.recv() == message
    conn.send(message)
    assert conn.recv(timeout=PATIENCE) == message


def test_a_large_message_passes_in_both_directions(conn: Conn) -> None:
    message = os.urandom(20_000_000)
    with in_thread(lambda: conn.recv(timeout=PATIENCE)) as received:
        conn.send(message)
        assert received() == message


def test_a_sender_progresses_while_no_thread_receives() -> None:
    with server(send_timeout=None) as uri, connect(uri, max_queue_bytes=64_000_000) as conn:
        for _ in range(20):
            conn.send(bytes(1_000_000))  # the echoes fill all buffers, unless the watcher reads
        assert all(conn.recv(timeout=PATIENCE) == bytes(1_000_000) for _ in range(20))


def test_the_kind_can_be_chosen_in_both_directions(conn: Conn) -> None:
    conn.send(b"text", text=True)
    assert conn.recv() == "text"
    conn.send("bytes", text=False)
    assert conn.recv(decode=True) == "bytes"
    conn.send("text")
    assert conn.recv(decode=False) == b"text"


def test_the_other_ways_to_send(conn: Conn) -> None:
    conn.write_text("text")
    conn.write_binary(bytearray(b"binary"))
    conn.write_json({"a": [1]})
    conn.write_message(Opcode.BINARY, memoryview(b"message"))
    conn.write_many(["one", b"two"])
    expected = ["text", b"binary", '{"a":[1]}', b"message", "one", b"two"]
    assert [conn.recv() for _ in expected] == expected
    conn.send("read")
    assert conn.read_message() == (Opcode.TEXT, b"read")


def test_wrong_messages_are_refused_and_nothing_is_sent(conn: Conn) -> None:
    with pytest.raises(TypeError, match="use write_json"):
        conn.send({"a": 1})  # type: ignore[arg-type]
    with pytest.raises(UnicodeDecodeError):
        conn.send(b"\xff", text=True)
    with pytest.raises(TypeError, match="compress must be"):
        conn.send("text", compress=1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="use send"):
        conn.write_many("text")
    with pytest.raises(TypeError, match="takes a str"):
        conn.write_text(b"text")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="takes bytes"):
        conn.write_binary("text")  # type: ignore[arg-type]
    conn.send("next")
    assert conn.recv() == "next"


def test_long_messages_are_sent_in_fragments() -> None:
    received: list[bytes] = []

    async def play(peer: Peer) -> None:
        peer.accept()
        received.append(await peer.reader.readexactly(3 * (6 + 10)))
        peer.send(build_frame(8, b"\x03\xe8"))

    with hostile_server(play) as uri, connect(uri, fragment_size=10) as conn:
        conn.send("0123456789abcdefghijABCDEFGHIJ")
    assert [received[0][at] for at in (0, 16, 32)] == [0x01, 0x00, 0x80]


def test_each_frame_has_a_fresh_mask() -> None:
    received: list[bytes] = []

    async def play(peer: Peer) -> None:
        peer.accept()
        received.append(await peer.reader.readexactly(4 * 10))
        peer.send(build_frame(8, b"\x03\xe8"))

    with hostile_server(play) as uri, connect(uri) as conn:
        for _ in range(4):
            conn.send(b"same")
    assert len({received[0][at + 2 : at + 6] for at in range(0, 40, 10)}) == 4


def test_frames_glued_to_the_response_arrive() -> None:
    async def play(peer: Peer) -> None:
        peer.accept(behind=build_frame(1, b"one") + build_frame(2, b"two") + build_frame(8, b"\x03\xe8"))
        await peer.reader.readexactly(8)

    with hostile_server(play) as uri:
        with connect(uri) as conn:
            assert list(conn) == ["one", b"two"]
        with connect(uri) as conn:
            with conn.read_stream() as stream:
                assert stream.read_all() == b"one"
            assert conn.recv(timeout=0) == b"two"


def test_many_messages_of_one_read_arrive_in_order(conn: Conn) -> None:
    messages = [str(number) for number in range(3000)]
    conn.write_many(messages)
    assert [conn.recv() for _ in messages] == messages


def test_pieces_are_one_message(conn: Conn) -> None:
    conn.send(iter(["one ", "two ", "", "three"]))
    assert conn.recv() == "one two three"
    conn.send(iter([b"\xe2\x82", b"\xac"]), text=True)
    assert conn.recv() == "€"
    conn.send(iter([]))
    conn.send("next")
    assert conn.recv() == "next"


def test_pieces_that_fail_close_with_1011(echo_uri: str) -> None:
    def pieces() -> Iterator[str]:
        yield "half"
        raise ZeroDivisionError

    with connect(echo_uri) as conn, pytest.raises(ZeroDivisionError):
        conn.send(pieces())
    assert (conn.state, conn.close_code) == (State.CLOSED, 1011)


def test_an_iterator_of_pieces_cannot_send(echo_uri: str) -> None:
    with connect(echo_uri) as conn:

        def pieces() -> Iterator[str]:
            yield "half"
            conn.send("between")

        with pytest.raises(ConcurrencyError, match="in pieces"):
            conn.send(pieces())


def test_other_senders_wait_for_the_end_of_the_pieces(conn: Conn) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def pieces() -> Iterator[str]:
        yield "one "
        begun.set()
        assert go_on.wait(PATIENCE)
        yield "two"

    with in_thread(lambda: conn.send(pieces())) as sent:
        assert begun.wait(PATIENCE)
        with in_thread(lambda: conn.send("behind")) as sent_behind:
            assert conn.ping(timeout=PATIENCE) > 0  # control frames go in between
            go_on.set()
            sent()
            sent_behind()
    assert [conn.recv(), conn.recv()] == ["one two", "behind"]


# --- waiting --------------------------------------------------------------------------------------


def test_a_timeout_loses_no_message(conn: Conn) -> None:
    with pytest.raises(TimeoutError, match=r"no message within 0\.01 s"):
        conn.recv(timeout=0.01)
    with pytest.raises(TimeoutError):
        conn.recv(timeout=0)
    conn.send("late")
    assert conn.recv(timeout=PATIENCE) == "late"


def test_a_timeout_inside_a_large_message_loses_nothing() -> None:
    frame = build_frame(2, bytes(range(256)) * 1000)
    go_on = threading.Event()

    async def play(peer: Peer) -> None:
        peer.accept(behind=frame[:200_000])
        await asyncio.to_thread(go_on.wait, PATIENCE)
        peer.send(frame[200_000:])
        await peer.gone()

    with hostile_server(play) as uri, connect(uri, close_timeout=0.1) as conn:
        with pytest.raises(TimeoutError):
            conn.recv(timeout=0.1)
        go_on.set()
        assert conn.recv(timeout=PATIENCE) == bytes(range(256)) * 1000


def test_threads_share_the_messages(conn: Conn) -> None:
    with in_thread(conn.recv) as first, in_thread(conn.recv) as second:
        conn.write_many(["a", "b"])
        assert {first(), second()} == {"a", "b"}


def test_threads_can_send_at_the_same_time(conn: Conn) -> None:
    def send() -> None:
        for number in range(100):
            conn.send(f"{number} " * 2000)

    with in_thread(send) as one, in_thread(send) as other:
        received = [conn.recv(timeout=PATIENCE) for _ in range(200)]
        one()
        other()
    assert sorted(received) == sorted(f"{number} " * 2000 for number in range(100) for _ in range(2))


@pytest.mark.skipif(sys.platform == "win32", reason="SIGALRM")
@pytest.mark.parametrize("timeout", [None, PATIENCE])
def test_a_signal_ends_a_waiting_recv(conn: Conn, timeout: float | None) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(KeyboardInterrupt):
            conn.recv(timeout)
    finally:
        signal.signal(signal.SIGALRM, before)
    conn.send("goes on")
    assert conn.recv() == "goes on"


# --- pings ----------------------------------------------------------------------------------------


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
    with hostile_server(refuse_to_read) as uri, connect(uri, close_timeout=0.1) as conn:
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
    assert frames_of(received[0]) == [(10, b"are you there")]


# --- the end --------------------------------------------------------------------------------------


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


def test_an_end_without_a_close_frame_is_an_error() -> None:
    async def play(peer: Peer) -> None:
        peer.accept(behind=build_frame(1, b"last"))

    with hostile_server(play) as uri, connect(uri) as conn:
        assert conn.recv() == "last"
        with pytest.raises(ConnectionClosedError):
            conn.recv()
        assert conn.close_code == 1006


def test_a_violation_closes_with_its_code() -> None:
    received: list[bytes] = []

    async def play(peer: Peer) -> None:
        peer.accept(behind=build_frame(1, b"good") + build_frame(1, b"\xff"))
        received.append(await peer.gone())

    with hostile_server(play) as uri, connect(uri, close_timeout=0.2) as conn:
        assert conn.recv() == "good"
        with pytest.raises(ConnectionClosedError, match="UTF-8"):
            conn.recv(timeout=PATIENCE)
    assert frames_of(received[0])[0][1][0] == 1007


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
    with hostile_server(refuse_to_read) as uri:
        conn = connect(uri, close_timeout=0.1).open()
        with in_thread(conn.recv) as received:
            began = time.monotonic()
            conn.close()
            assert time.monotonic() - began < 2
            with pytest.raises(ConnectionClosedError):
                received()


def test_close_ends_a_stuck_sender() -> None:
    with hostile_server(refuse_to_read) as uri:
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
                time.sleep(number * 0.0002)
                (conn.close if number % 5 else conn.abort)()
                for ended in (one, two, received):
                    ended()
            assert conn.fileno() == -1
    assert time.monotonic() - began < PATIENCE


# --- processes ------------------------------------------------------------------------------------


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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_of_a_fork_cannot_use_a_connection_of_its_parent(echo_uri: str, conn: Conn) -> None:
    conn.send("before")
    child = os.fork()
    if child == 0:
        outcome = 1
        with contextlib.suppress(BaseException):
            calls = [conn.recv, conn.close, conn.abort, conn.ping, conn.read_stream, lambda: conn.send("child")]
            for call in calls:
                with pytest.raises(ConcurrencyError, match="connect in the child"):
                    call()
            with connect(echo_uri) as own:
                own.send("own")
                outcome = 0 if own.recv(timeout=PATIENCE) == "own" else 2
        os._exit(outcome)
    assert os.waitpid(child, 0)[1] == 0
    assert conn.recv(timeout=PATIENCE) == "before"
    conn.send("goes on")
    assert conn.recv(timeout=PATIENCE) == "goes on"


# --- properties -----------------------------------------------------------------------------------


def test_a_connection_tells_how_it_was_opened(conn: Conn, echo_uri: str) -> None:
    assert (conn.request.path, conn.response.status, conn.subprotocol) == ("/", 101, None)
    assert (conn.attempt, conn.last_error, conn.compression) == (1, None, None)
    assert (conn.state, conn.closed, conn.close_code, conn.close_reason) == (State.OPEN, False, None, None)
    assert f"{conn.remote_address[0]}:{conn.remote_address[1]}" in echo_uri  # type: ignore[index]
    assert conn.local_address[0] == "127.0.0.1"
    assert conn.id == conn.id
    assert repr(conn).startswith(f"<plumews.sync.Conn {conn.id} OPEN")
    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(conn)


def test_the_read_limit_can_be_changed(echo_uri: str) -> None:
    with connect(echo_uri) as conn:
        conn.read_limit = 10
        assert conn.read_limit == 10
        conn.send(bytes(11))
        with pytest.raises(ConnectionClosedError, match="1009"):
            conn.recv(timeout=PATIENCE)
