"""Tests of data that waits for an answered ping or a writable socket, on a fake transport and on real ones."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import plumews
from plumews import ConnectionClosed, Opcode, SendBehavior, State
from plumews.conn.keepalive import Keepalive
from plumews.transport import send_buffer
from plumews.transport.channel import Channel
from plumews.transport.timers import Timers
from support.channel_setup import CLOSE, Setup, message, pong
from support.channel_setup import State as TickState
from support.fakes import FakeLoop, FakeTransport, fake_conn, feed, flushed, linked, ticks, tls_contexts, until
from support.raw_client import Wire, masked

LIMIT = 400


class Held(Setup):
    """Channel that sends no more than 400 bytes beyond an answered ping."""

    channel: Channel

    def __init__(self, pong_wait: float | None = 30, **bounds: int) -> None:
        self.state = TickState()
        bounds = {"queue_size": 100, "queue_bytes": 100_000, **bounds}
        self.channel = Channel(self.state, **bounds)
        self.keepalive = Keepalive(
            Timers(FakeLoop()),  # type: ignore[arg-type]
            self,  # type: ignore[arg-type]
            ping_period=None if pong_wait is None else pong_wait / 2,
            pong_wait=pong_wait,
        )
        self.channel._limit_unanswered(LIMIT, self.keepalive)
        self.transport = FakeTransport(self)
        self.channel._attach(self.transport)  # type: ignore[arg-type]
        self.finished = 0

    def send(self, size: int = 50) -> None:
        assert self.channel._try_queue(message("x" * (size - 2 if size < 128 else size - 4)))
        self.channel._kick_output(True)
        self.state.end_of_tick()

    @property
    def pings(self) -> list[bytes]:
        return [payload for kind, payload in self.transport.events() if kind == Opcode.PING]

    def answer(self, ping: bytes) -> None:
        if self.channel._ping_answered(self.keepalive.pong(ping)):
            self.channel._resume_output()
            self.state.end_of_tick()


def test_pings_travel_with_each_quarter_of_the_bound() -> None:
    setup = Held()
    for _ in range(8):
        setup.send(50)
    kinds = [kind for kind, _ in setup.transport.events()]
    assert kinds == [Opcode.TEXT, Opcode.TEXT, Opcode.PING] * 4
    assert setup.channel.unanswered_bytes == LIMIT


def test_data_beyond_the_bound_waits_for_an_answer() -> None:
    setup = Held()
    for _ in range(20):
        setup.send(50)
    assert (len(setup.messages), setup.channel.queued_messages) == (8, 12)
    assert setup.channel._paused
    assert setup.channel.queued_age > 0
    setup.answer(setup.pings[0])
    assert len(setup.messages) == 10
    setup.answer(setup.pings[-1])
    assert len(setup.messages) == 18
    while setup.channel.queued_messages:
        setup.answer(setup.pings[-1])
    assert len(setup.messages) == 20
    assert not setup.channel._paused


def test_answer_counts_for_all_earlier_pings() -> None:
    setup = Held()
    for _ in range(8):
        setup.send(50)
    setup.answer(setup.pings[-1])
    assert setup.channel.unanswered_bytes == 0
    setup.answer(setup.pings[0])
    assert setup.channel.unanswered_bytes == 0


def test_answer_to_a_keepalive_ping_counts() -> None:
    """A peer may answer the newest ping alone."""
    setup = Held()
    for _ in range(20):
        setup.send(50)
    payload = setup.keepalive.expect(None, None)
    setup.answer(payload)
    assert len(setup.messages) == 16


def test_unsolicited_pong_releases_nothing() -> None:
    setup = Held()
    for _ in range(20):
        setup.send(50)
    setup.answer(b"????")
    assert len(setup.messages) == 8


def test_message_above_the_bound_leaves_alone() -> None:
    setup = Held()
    setup.send(5000)
    setup.send(50)
    assert len(setup.messages) == 1
    setup.answer(setup.pings[-1])
    assert len(setup.messages) == 2


def test_pings_and_pongs_pass_waiting_data() -> None:
    setup = Held()
    for _ in range(20):
        setup.send(50)
    for payload in (b"1", b"2"):
        setup.channel._queue_pong(pong(payload))
    setup.channel._flush()
    setup.channel._queue_ping(b"\x89\x01p")
    setup.channel._kick_output(True)
    assert setup.transport.events()[-3:] == [(Opcode.PONG, b"1"), (Opcode.PONG, b"2"), (Opcode.PING, b"p")]
    assert len(setup.messages) == 8


def test_data_waits_for_the_transport_and_for_the_answer() -> None:
    setup = Held()
    for _ in range(20):
        setup.send(50)
    setup.transport.fill()
    setup.answer(setup.pings[-1])
    assert len(setup.messages) == 8
    setup.transport.drain()
    assert len(setup.messages) == 16


def test_free_transport_releases_no_data_without_an_answer() -> None:
    setup = Held()
    for _ in range(20):
        setup.send(50)
    setup.transport.fill()
    setup.channel._queue_pong(pong(b"late"))
    setup.transport.drain()
    setup.state.end_of_tick()
    assert len(setup.messages) == 8
    assert (Opcode.PONG, b"late") in setup.transport.events()


def test_close_waits_for_no_answer() -> None:
    setup = Held()
    for _ in range(20):
        setup.send(50)
    setup.channel._finish_output(CLOSE, setup.on_finished)
    assert len(setup.messages) == 20
    assert setup.finished == 1
    assert setup.keepalive.held_since == 0.0


def test_data_without_a_pong_timeout_never_waits() -> None:
    setup = Held(pong_wait=None)
    for _ in range(20):
        setup.send(50)
    assert len(setup.messages) == 20


def test_when_empty_is_called_at_the_bound() -> None:
    setup = Held()
    for _ in range(8):
        setup.send(50)
    done: list[bool] = []
    setup.channel._when_empty(done.append)
    assert done == [True]


# --- connections ----------------------------------------------------------------------------------


async def test_pong_wait_of_none_releases_waiting_data() -> None:
    conn, _ = fake_conn(unanswered_bytes=100)
    for _ in range(10):
        conn.send_nowait("x" * 50)
    await flushed()
    assert conn.queued_messages == 8
    conn.pong_wait = None
    await until(lambda: not conn.queued_messages)
    assert conn.state is State.OPEN


async def test_peer_that_never_answers_is_disconnected() -> None:
    conn, transport = fake_conn(unanswered_bytes=100, ping_interval=0.02, ping_timeout=0.02)
    for _ in range(10):
        conn.send_nowait("x" * 50)
    began = asyncio.get_running_loop().time()
    while conn.state is State.OPEN:
        feed(conn, masked(Opcode.BINARY, b"I am here"))
        await conn.recv()
        await asyncio.sleep(0.001)  # bytes that a test feeds take no loop iteration
    assert asyncio.get_running_loop().time() - began >= 4 * 0.04
    assert transport.aborted


async def test_paused_reading_does_not_end_the_connection() -> None:
    conn, transport = fake_conn(unanswered_bytes=100, ping_interval=0.02, ping_timeout=0.02, max_queue=1)
    for _ in range(10):
        conn.send_nowait("x" * 50)
    pings = [payload for kind, payload in transport.events() if kind == Opcode.PING]
    feed(conn, masked(Opcode.TEXT, "1"), masked(Opcode.TEXT, "2"))
    assert not transport.reading
    await asyncio.sleep(0.3)  # longer than an answer may take
    assert conn.state is State.OPEN
    await conn.recv()
    await conn.recv()
    await ticks()  # this task was woken within a read, which the next one would follow
    feed(conn, masked(Opcode.PONG, pings[-1]))
    assert conn.queued_messages < 8
    conn.abort()


def value(text: str) -> int:
    return int(text.partition(":")[0])


@contextlib.asynccontextmanager
async def feed_of_prices(start: Any, kind: str, tmp_path: Path, **options: Any) -> AsyncIterator[tuple[Any, Any, Wire]]:
    """Yield a hub, its only member, which has CONFLATE, and the raw client of that."""
    hub = plumews.Hub()
    client: dict[str, Any] = {}
    if kind == "tls":
        options["ssl"], client["ssl"] = tls_contexts()
        client["server_hostname"] = "localhost"
    options["send_behavior"] = SendBehavior.CONFLATE

    async def handler(conn: plumews.Conn) -> None:
        hub.join("prices", conn)
        async for _ in conn:
            pass

    if kind == "unix":
        server = await start(plumews.unix_serve(handler, str(tmp_path / "socket"), **options))
    else:
        server = await start(plumews.serve(handler, "127.0.0.1", 0, **options))
    async with hub, await Wire.open(server, **client) as wire:
        await until(lambda: hub.room_count("prices"))
        yield hub, next(iter(hub.members("prices"))), wire


@pytest.mark.parametrize("kind", ["tcp", "tls", "unix"])
async def test_late_client_gets_the_newest_price(start: Any, tmp_path: Path, kind: str) -> None:
    async with feed_of_prices(start, kind, tmp_path, unanswered_bytes=8192) as (hub, conn, wire):
        for number in range(2000):
            hub.broadcast_room("prices", f"{number}:" + "x" * 100, key=number % 5)
            if number % 50 == 0:
                await asyncio.sleep(0)
        await until(lambda: conn.queued_messages == 5)
        assert conn.unanswered_bytes <= 8192 + 120
        newest = {1995, 1996, 1997, 1998, 1999}
        numbers: list[int] = []
        while not newest <= set(numbers):
            opcode, payload = await wire.event()
            if opcode == Opcode.PING:
                wire.send(masked(Opcode.PONG, payload))
            else:
                numbers.append(value(payload))
        assert set(numbers[-5:]) == newest
        assert len(numbers) <= 8192 / 100 + 10
        info = hub.inspect(conn)
        assert info.unanswered_bytes is not None
        assert info.unsent_bytes is not None
        assert info.unacknowledged_bytes is not None


async def test_prompt_client_misses_nothing(start: Any, tmp_path: Path) -> None:
    async with feed_of_prices(start, "tcp", tmp_path, unanswered_bytes=4096, queue_size=1000) as (hub, _, wire):
        for number in range(500):
            hub.broadcast_room("prices", f"{number}:" + "x" * 100)
        assert [value(str(await wire.message())) for _ in range(500)] == list(range(500))


@pytest.mark.parametrize("behavior", list(SendBehavior))
async def test_kernel_holds_little_when_messages_are_displaced(start: Any, behavior: SendBehavior) -> None:
    async with linked(start, rcvbuf=4096, send_behavior=behavior, queue_size=2, unanswered_bytes=None) as (conn, _):
        assert conn.unanswered_bytes is None
        displaces = behavior in (SendBehavior.DROP_OLDEST, SendBehavior.CONFLATE)
        sent = 0
        while not conn._paused and sent < 400_000:
            conn.send_nowait(bytes(1000))
            sent += 1000
        assert conn._paused is displaces
        if displaces:
            assert conn.unsent_bytes <= 64 * 1024 < conn._config.queue_bytes


async def test_unsent_bytes_bounds_the_kernel(start: Any) -> None:
    async with linked(start, rcvbuf=4096, unsent_bytes=16 * 1024, send_timeout=0) as (conn, _):
        with contextlib.suppress(plumews.SendTimeout):
            for _ in range(1000):
                await conn.send(bytes(1000))
        assert conn._paused
        assert conn.unsent_bytes <= 64 * 1024
        assert conn.unacknowledged_bytes >= conn.unsent_bytes


# --- the writable event ---------------------------------------------------------------------------


@pytest.mark.parametrize("tls", [False, True])
async def test_writes_wait_for_the_writable_event(start: Any, monkeypatch: pytest.MonkeyPatch, tls: bool) -> None:
    """macOS needs this. Linux has the same event."""
    monkeypatch.setattr(send_buffer, "WAITS_FOR_EVENT", True)
    options: dict[str, Any] = {"send_behavior": SendBehavior.DROP_OLDEST, "queue_size": 1000}
    async with linked(start, rcvbuf=4096, tls=tls, **options) as (conn, wire):
        assert conn._waits_for_event
        conn.send_nowait("0")
        assert conn._paused
        for number in range(1, 500):
            conn.send_nowait(f"{number}:" + "x" * 100)
            if number % 7 == 0:
                await asyncio.sleep(0)
        received = [value(str(await wire.message())) for _ in range(500)]
        assert received == list(range(500))
        await conn.drain()
        conn.close_nowait(1000, "done")
        assert await wire.closing() == (1000, "done")


def descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


async def test_connection_that_ends_while_waiting_closes_descriptors(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(send_buffer, "WAITS_FOR_EVENT", True)
    async with linked(start, rcvbuf=4096, send_behavior=SendBehavior.DROP_OLDEST) as (conn, _):
        sock = conn._transport.get_extra_info("socket")
        before = descriptors()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        for _ in range(50):
            conn.send_nowait(bytes(10_000))
            await asyncio.sleep(0)
        assert descriptors() == before + 1
        conn.abort()
        await conn.wait_closed()
        assert descriptors() < before
        with pytest.raises(ConnectionClosed):
            conn.send_nowait("x")
