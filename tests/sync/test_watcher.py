"""Tests of the watcher: what it does for connections that no caller reads from."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref

import pytest

import plumews
from plumews import ConnectionClosedError, State
from plumews.protocol.codec import Parser, build_frame
from plumews.sync import connect
from plumews.sync.watcher import Watcher, watcher
from support.fakes import PATIENCE
from support.hostile_server import Peer
from support.threaded import hostile_server, in_thread, server


def until(condition: object) -> None:
    """Wait until ``condition()`` is true. Ends of threads and states of connections have no event: it is polled."""
    end = time.monotonic() + PATIENCE
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.005)  # no event tells of the end of a thread, or of a state


def test_the_thread_ends_when_it_is_unused() -> None:
    class Silent:
        descriptor = 0

        def fileno(self) -> int:
            return self.descriptor

        def _watch(self, now: float, resumed: bool) -> bool:
            looks.set()
            return False

        def _leave(self) -> None: ...

    looks = threading.Event()
    one = Watcher(tick=0.01)
    conn = Silent()
    one.add(conn)
    assert looks.wait(PATIENCE)
    assert one.running
    conn.descriptor = -1
    until(lambda: not one.running)
    conn.descriptor = 0
    one.add(conn)
    assert one.running
    one.leave()
    del conn
    until(lambda: not one.running)


def test_a_connection_that_fails_does_not_end_the_thread(caplog: pytest.LogCaptureFixture) -> None:
    class Failing:
        descriptor = 0

        def fileno(self) -> int:
            return self.descriptor

        def _watch(self, now: float, resumed: bool) -> bool:
            looks.append(1)
            raise ZeroDivisionError

        def _leave(self) -> None: ...

    looks: list[int] = []
    one = Watcher(tick=0.01)
    conn = Failing()
    one.add(conn)
    until(lambda: len(looks) > 2)
    conn.descriptor = -1
    until(lambda: not one.running)
    assert "looking after a connection failed" in caplog.text


def test_an_idle_connection_answers_pings_and_keeps_messages() -> None:
    async def handler(conn: plumews.Conn) -> None:
        await conn.send("kept")
        latencies.append(await (await conn.ping()))
        latencies.append(await (await conn.ping()))
        await conn.wait_closed()

    latencies: list[float] = []
    with server(handler) as uri, connect(uri) as conn:
        until(lambda: len(latencies) == 2)
        assert latencies[1] < 0.3  # the second one finds the watcher waiting
        assert conn.recv(timeout=0) == "kept"


def test_an_idle_connection_answers_a_close() -> None:
    async def handler(conn: plumews.Conn) -> None:
        await conn.close(1001)
        codes.append(conn.close_code)

    codes: list[int | None] = []
    with server(handler) as uri:
        conn = connect(uri).open()
        until(lambda: codes == [1001])
        until(lambda: conn.state is State.CLOSED)


def test_keepalive_pings_are_sent_and_measured() -> None:
    with server() as uri, connect(uri, ping_interval=0.05) as conn:
        until(lambda: conn.latency > 0)


def test_keepalive_pings_are_sent_while_a_caller_receives() -> None:
    with server() as uri, connect(uri, ping_interval=0.05) as conn, in_thread(conn.recv) as received:
        until(lambda: conn.latency > 0)
        conn.send("end")
        assert received() == "end"


@pytest.mark.parametrize("receives", [True, False])
def test_a_peer_that_answers_no_ping_is_given_up(receives: bool) -> None:
    async def play(peer: Peer) -> None:
        peer.accept()
        sent.append(await peer.gone())

    sent: list[bytes] = []
    with hostile_server(play) as uri:
        conn = connect(uri, ping_interval=0.05, ping_timeout=0.05).open()
        if receives:
            with in_thread(conn.recv) as received, pytest.raises(ConnectionClosedError, match="1011"):
                received()
        until(lambda: conn.state is State.CLOSED)
    events = Parser(client=False, max_size=None).feed(sent[0])
    assert events[-1] == (8, (1011, "keepalive ping timeout"))


def test_the_watcher_stops_reading_at_the_limit_of_the_queue() -> None:
    async def play(peer: Peer) -> None:
        peer.accept()
        while len(filled) < 100:
            peer.send(build_frame(2, bytes(65536)))
            try:
                await asyncio.wait_for(peer.writer.drain(), 0.2)
            except TimeoutError:
                break
            except asyncio.TimeoutError:
                break
            filled.append(1)
        stopped.set()
        await peer.gone()

    filled: list[int] = []
    stopped = threading.Event()
    with hostile_server(play) as uri, connect(uri, max_queue=3, close_timeout=0.2) as conn:
        assert stopped.wait(PATIENCE)
        assert len(conn._reader._queue) <= 4
        for _ in range(5):
            assert conn.recv(timeout=PATIENCE) == bytes(65536)


def test_no_connection_is_kept_alive() -> None:
    with server() as uri:
        conn = connect(uri).open()
        gone = weakref.ref(conn)
        del conn
        gc.collect()
        until(lambda: gone() is None)


def test_the_thread_of_the_process_ends_with_the_last_connection() -> None:
    gc.collect()
    with server() as uri, connect(uri):
        assert watcher.running
    until(lambda: not watcher.running)
