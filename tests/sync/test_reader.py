"""Tests of receiving on blocking connections: order, timeouts, threads, and ends that a read finds."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import plumews
from plumews import ConnectionClosedError
from plumews.protocol.codec import Parser, build_frame
from plumews.sync import Conn, connect
from support.fakes import PATIENCE, tls_contexts
from support.hostile_server import Peer
from support.threaded import hostile_server, in_thread, server


def test_a_sender_progresses_while_no_thread_receives() -> None:
    with server(send_timeout=None) as uri, connect(uri, max_queue_bytes=64_000_000) as conn:
        for _ in range(20):
            conn.send(bytes(1_000_000))  # the echoes fill all buffers, unless the watcher reads
        assert all(conn.recv(timeout=PATIENCE) == bytes(1_000_000) for _ in range(20))


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


def test_a_timeout_loses_no_message(conn: Conn) -> None:
    with pytest.raises(TimeoutError, match=r"no message within 0\.01 s"):
        conn.recv(timeout=0.01)
    with pytest.raises(TimeoutError):
        conn.recv(timeout=0)
    conn.send("late")
    assert conn.recv(timeout=PATIENCE) == "late"


@pytest.mark.parametrize("timeout", [3e6, 1e300, float("inf")])
def test_a_time_beyond_that_of_the_system_is_no_limit(echo_uri: str, timeout: float) -> None:
    """poll() takes 24 days, and a lock takes 292 years."""
    seconds = min(timeout, 1e300)
    with connect(echo_uri, open_timeout=seconds, close_timeout=seconds) as conn:
        conn.send("one")
        assert conn.recv(timeout=timeout) == "one"
        conn.send("two")
        with conn.read_stream(timeout=timeout) as stream:
            assert stream.read_all(timeout=timeout) == b"two"
        assert conn.ping(timeout=timeout) > 0


@pytest.mark.parametrize("timeout", [None, 5.0])
def test_a_time_out_of_the_system_is_the_end(
    conn: Conn, monkeypatch: pytest.MonkeyPatch, timeout: float | None
) -> None:
    def give_up(*_: object) -> int:
        raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))

    monkeypatch.setattr(conn._reader, "arrivals", map(give_up, itertools.repeat(0)))
    monkeypatch.setattr(conn._reader, "_polls", map(give_up, itertools.repeat(0)))
    with pytest.raises(ConnectionClosedError):
        conn.recv(timeout)


def test_an_interrupt_while_data_is_handled_cuts_the_connection(conn: Conn, monkeypatch: pytest.MonkeyPatch) -> None:
    take = type(conn._reader)._take

    def interrupted(*args: Any) -> None:
        if threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt
        take(*args)

    def ask() -> None:
        for _ in range(1000):  # the watcher may have read it
            conn.send("lost")
            conn.recv(timeout=PATIENCE)

    monkeypatch.setattr(type(conn._reader), "_take", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ask()
    monkeypatch.undo()
    with pytest.raises(ConnectionClosedError):
        conn.recv(timeout=PATIENCE)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="timer signals")
@pytest.mark.parametrize("timeout", [None, PATIENCE])
@pytest.mark.parametrize("scheme", ["ws", "wss"])
def test_an_interrupt_loses_nothing_or_cuts_the_connection(scheme: str, timeout: float | None) -> None:
    async def count_up(conn: plumews.Conn) -> None:
        for number in itertools.count():
            await conn.send(str(number))
            if number % 3 == 0:
                await asyncio.sleep(0)

    class Interrupt(BaseException):
        """Exception of a signal handler."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal interrupts
        if armed and frame is not None and frame.f_code.co_filename.startswith(package):
            interrupts += 1
            raise Interrupt

    armed, interrupts = False, 0
    package = str(Path(plumews.__file__).parent)
    theirs, ours = tls_contexts()
    tls = (theirs, ours) if scheme == "wss" else (None, None)
    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0003)
    try:
        with server(count_up, scheme, ssl=tls[0], send_timeout=None) as uri:
            while interrupts < 300:
                with connect(uri, ssl=tls[1]) as conn:
                    expected = 0
                    armed = True
                    while interrupts < 300:
                        try:
                            message = conn.recv(timeout)
                            assert int(message) == expected
                            expected += 1
                        except Interrupt:
                            continue
                        except ConnectionClosedError:
                            break
                    armed = False
    finally:
        armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


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
    assert Parser(client=False, max_size=None).feed(received[0])[0][1][0] == 1007


def test_the_read_limit_can_be_changed(echo_uri: str) -> None:
    with connect(echo_uri) as conn:
        conn.read_limit = 10
        assert conn.read_limit == 10
        conn.send(bytes(11))
        with pytest.raises(ConnectionClosedError, match="1009"):
            conn.recv(timeout=PATIENCE)
