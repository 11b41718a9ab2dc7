"""Rest of a read that is handled later: time slices, bounds of the receive queue, and order."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest

import plumews
from plumews import Opcode, State, limits
from plumews.conn.receiver import deliver_to
from support.compressed_messages import Squeezing
from support.fakes import FakeTransport, echo_by_callback, fake_conn, feed, linked, ticks, tls_contexts, until
from support.raw_client import Wire, close, masked, text


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Handle each read in one time slice, even on a busy machine."""
    monkeypatch.setattr(limits, "FAN_OUT_SLICE", 60.0)


def kinds(transport: FakeTransport) -> list[int]:
    return [kind for kind, _ in transport.events()]


# --- time slices ----------------------------------------------------------------------------------


async def test_burst_for_a_slow_callback_is_handled_in_time_slices(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "FAN_OUT_SLICE", -1.0)  # over before it began: one message a turn
    conn, transport = fake_conn()
    heard: list[Any] = []
    deliver_to(conn, lambda conn, message: heard.append(message), lambda conn, exc: None)
    feed(conn, *[text(str(index)) for index in range(50)], close(1000))
    assert heard == ["0"]
    assert not transport.reading  # who sends faster than it is handled is not read meanwhile
    asyncio.get_running_loop().call_soon(heard.append, "somebody else")
    await ticks(3)
    assert "somebody else" in heard
    assert conn.state is State.OPEN  # its close frame stands behind its messages
    await ticks(60)
    heard.remove("somebody else")
    assert heard == [str(index) for index in range(50)]
    assert conn.state is not State.OPEN
    conn.abort()


async def test_violation_behind_a_burst_is_answered_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FAN_OUT_SLICE", -1.0)
    conn, transport = fake_conn()
    echo_by_callback(conn)
    feed(conn, text("one"), text("two"), masked(3, b"no such opcode"))
    await ticks(10)
    assert kinds(transport) == [Opcode.TEXT, Opcode.TEXT, Opcode.CLOSE]
    conn.abort()


async def test_connection_lost_in_a_burst_drops_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FAN_OUT_SLICE", -1.0)
    conn, _ = fake_conn()
    heard: list[Any] = []
    deliver_to(conn, lambda conn, message: heard.append(message), lambda conn, exc: None)
    feed(conn, text("one"), text("two"))
    conn.abort()
    await ticks(5)
    assert heard == ["one"]


def ignore(conn: plumews.Conn, exc: BaseException) -> None:
    """Ignore a failure."""


# --- within one read ------------------------------------------------------------------------------


def numbered(count: int) -> list[bytes]:
    return [number.to_bytes(2, "big") for number in range(count)]


@pytest.mark.parametrize("way", ["plain", "tls", "compressed"])
async def test_tiny_messages_of_one_read_stop_at_the_bound_of_messages(start: Any, way: str) -> None:
    opened: asyncio.Queue[plumews.Conn] = asyncio.Queue()
    done = asyncio.Event()

    async def handler(conn: plumews.Conn) -> None:
        opened.put_nowait(conn)
        await done.wait()

    options: dict[str, Any] = {"compression": "deflate"}
    client: dict[str, Any] = {}
    if way == "tls":
        options["ssl"], client["ssl"] = tls_contexts()
        client["server_hostname"] = "localhost"
    server = await start(plumews.serve(handler, "127.0.0.1", 0, **options))
    opening = Squeezing if way == "compressed" else Wire
    async with await opening.open(server, **client) as wire:
        conn = await opened.get()
        sent = numbered(50_000)
        wire.send(*(masked(Opcode.BINARY, payload) for payload in sent))
        await until(lambda: conn._reading_paused)
        assert len(conn._inbox) == limits.MAX_QUEUE
        assert len(conn._backlog or ()) * limits.RECEIVED_OVERHEAD <= limits.READ_SLACK
        assert len(conn._rest or b"") <= limits.READ_BUFFER
        wire.send(close())
        assert [await conn.recv() for _ in sent] == sent
        with pytest.raises(plumews.ConnectionClosedOK):
            await conn.recv()
        assert await wire.closing() == (1000, "")
        done.set()


async def test_tiny_chunks_of_a_stream_stop_at_the_bound_of_bytes(start: Any) -> None:
    async with linked(start) as (conn, wire):
        wire.send(masked(Opcode.BINARY, b"xy", fin=False))
        stream = await conn.read_stream()
        wire.send(*[masked(Opcode.CONT, b"xy", fin=False)] * 99_999, masked(Opcode.CONT))
        await until(lambda: conn._reading_paused)
        assert stream.held <= limits.MAX_QUEUE_BYTES + limits.READ_SLACK
        assert stream.buffered < 50_000
        assert await stream.read_all() == b"xy" * 100_000
        wire.send(text("behind"))
        assert await conn.recv() == "behind"


async def test_wide_text_counts_its_memory(start: Any) -> None:
    async with linked(start) as (conn, wire):
        line = "a" * 4000 + "\U0001f600"
        wire.send(*[text(line)] * 300)
        await until(lambda: conn._reading_paused)
        assert len(conn._inbox) * sys.getsizeof(line) <= limits.MAX_QUEUE_BYTES + 2 * limits.READ_SLACK
        assert [await conn.recv() for _ in range(300)] == [line] * 300


@pytest.mark.parametrize("bound", [1, 10_000, 100_000])
async def test_read_is_no_larger_than_the_bound_of_bytes(bound: int) -> None:
    conn, transport = fake_conn(max_queue_bytes=bound)
    assert len(conn.get_buffer(-1)) == max(bound, limits.READ_LEAST)
    feed(conn, *[masked(Opcode.BINARY, bytes(100))] * 15)
    assert (bound == 1) is not transport.reading
    assert [await conn.recv() for _ in range(15)] == [bytes(100)] * 15
    conn.abort()


async def test_close_frame_behind_tiny_messages_is_seen_when_we_close() -> None:
    conn, transport = fake_conn(max_queue=2)
    feed(conn, *[text("x")] * 2000, close(1000))
    assert (len(conn._inbox), transport.reading) == (2, False)
    conn.close_nowait(4000)
    await ticks()
    assert (conn.close_code, len(conn._inbox)) == (1000, 2)
    assert transport.closing


@pytest.mark.parametrize("count", [5, 600, 30_000])
async def test_messages_before_a_lost_connection_can_be_read(count: int) -> None:
    conn, _ = fake_conn(max_queue=4)
    sent = numbered(count)
    feed(conn, *(masked(Opcode.BINARY, payload) for payload in sent))
    conn.connection_lost(ConnectionResetError())
    assert len(conn._inbox) == 4
    assert [await conn.recv() for _ in sent] == sent
    with pytest.raises(plumews.ConnectionClosedError):
        await conn.recv()


async def test_violation_behind_tiny_messages_comes_last() -> None:
    conn, transport = fake_conn()
    feed(conn, *[text("x")] * 20_000, b"\x83\x80\x00\x00\x00\x00")
    assert transport.events() == []
    assert [await conn.recv() for _ in range(20_000)] == ["x"] * 20_000
    with pytest.raises(plumews.ConnectionClosedError):
        await conn.recv()
    assert transport.events()[-1][1][0] == 1002


async def test_read_stream_works_while_bytes_wait_to_be_parsed() -> None:
    conn, _ = fake_conn(max_queue=1)
    feed(conn, *[text("x")] * 5000, masked(Opcode.BINARY, b"a", fin=False), masked(Opcode.CONT, b"b"))
    for _ in range(5000):
        stream = await conn.read_stream()
        assert await stream.read_all() == b"x"
    stream = await conn.read_stream()
    assert await stream.read_all() == b"ab"
    conn.abort()


@pytest.mark.parametrize("slice_", [60.0, -1.0], ids=["one slice", "many slices"])
async def test_callbacks_get_tiny_messages_of_one_read_in_order(monkeypatch: Any, slice_: float) -> None:
    monkeypatch.setattr(limits, "FAN_OUT_SLICE", slice_)
    conn, _ = fake_conn()
    got: list[Any] = []
    held = 0

    def on_message(conn: plumews.Conn, message: str | bytes) -> None:
        got.append(message)

    deliver_to(conn, on_message, ignore)
    sent = numbered(20_000)
    feed(conn, *(masked(Opcode.BINARY, payload) for payload in sent))
    while len(got) < len(sent):
        held = max(held, len(conn._backlog or ()))
        await asyncio.sleep(0)
    assert got == sent
    assert held * limits.RECEIVED_OVERHEAD <= limits.READ_SLACK
    conn.abort()


# --- reads within a callback ----------------------------------------------------------------------


async def test_bytes_within_a_callback_follow_those_of_the_read() -> None:
    conn, _ = fake_conn()
    got: list[Any] = []

    def on_message(conn: plumews.Conn, message: str | bytes) -> None:
        got.append(message)
        if message == "first":
            feed(conn, text("third"))
            feed(conn, text("fourth"))

    deliver_to(conn, on_message, ignore)
    feed(conn, text("first"), text("second"))
    await ticks()
    assert got == ["first", "second", "third", "fourth"]
    conn.abort()


async def test_bytes_within_a_callback_are_dropped_after_the_end() -> None:
    conn, _ = fake_conn()
    got: list[Any] = []

    def on_message(conn: plumews.Conn, message: str | bytes) -> None:
        got.append(message)
        feed(conn, text("behind the end"))

    deliver_to(conn, on_message, ignore)
    feed(conn, text("first"), close(1000))
    await ticks()
    assert got == ["first"]
    assert conn._later is None
    assert conn._rest is None
    conn.abort()


async def test_read_of_a_paused_transport_is_kept_in_order() -> None:
    conn, transport = fake_conn(max_queue=1)
    feed(conn, *[text(str(number)) for number in range(1000)])
    assert not transport.reading
    feed(conn, text("1000"))  # some transports cannot be paused
    assert [await conn.recv() for _ in range(1001)] == [str(number) for number in range(1001)]
    conn.abort()
