"""What runs for each message: reading in place, callbacks that fail anywhere, short messages, two bodies alike."""

from __future__ import annotations

import asyncio
import copy
import functools
import gc
import logging
import pickle
import sys
import threading
import tracemalloc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import plumews
from plumews import ConcurrencyError, Opcode, SendQueueFull, State, limits
from support.compressed_messages import OFFER, Squeezing
from support.fakes import clog, fake_conn, feed, linked, payloads_of, ticks, tls_contexts, until
from support.raw_client import Wire, close, masked, text

KiB = 1024


def ignore(conn: plumews.Conn, exc: BaseException) -> None:
    """A failure that is no matter of the test."""


# --- reading in place -----------------------------------------------------------------------------

#: Around what a read holds, what is worth its own memory, and what the shared buffer holds.
SIZES = [
    each + by
    for each in (32 * KiB, 64 * KiB, 96 * KiB, 256 * KiB, 320 * KiB, 1024 * KiB)
    for by in (-15, -14, -1, 0, 1, 65_536)
]


def contents(size: int) -> bytes:
    return bytes(range(251)) * (size // 251) + bytes(size % 251)


def words(size: int) -> str:
    """Text of ``size`` bytes that is not ASCII, with characters of each length across every border."""
    return ("aé€\U0001f600" * (size // 10 + 1)).encode()[:size].decode(errors="ignore")


@pytest.mark.parametrize("way", ["plain", "tls", "unix"])
async def test_messages_of_any_size_behind_each_other_arrive_whole(start: Any, way: str, tmp_path: Any) -> None:
    async def echo(conn: plumews.Conn) -> None:
        async for message in conn:
            await conn.send(f"{type(message).__name__} {len(message)} {hash(message)}")

    options: dict[str, Any] = {}
    client: dict[str, Any] = {}
    if way == "tls":
        options["ssl"], client["ssl"] = tls_contexts()
        client["server_hostname"] = "localhost"
    if way == "unix":
        server = await start(plumews.unix_serve(echo, str(tmp_path / "s")))
    else:
        server = await start(plumews.serve(echo, "127.0.0.1", 0, **options))
    async with await Wire.open(server, **client) as wire:
        expected: list[Any] = []
        for size in SIZES:
            message, line = contents(size), words(size)
            wire.send(
                masked(Opcode.BINARY, message),
                masked(Opcode.PING, b"between"),
                masked(Opcode.TEXT, line),
                text("short"),
            )
            expected += [f"bytes {len(message)} {hash(message)}", f"str {len(line)} {hash(line)}"]
            expected.append(f"str 5 {hash('short')}")
            await wire.writer.drain()
        answers = []
        pongs = 0
        while len(answers) < len(expected):
            kind, payload = await wire.event()
            if kind == Opcode.PONG:
                pongs += 1
            else:
                answers.append(payload)
        assert answers == expected
        assert pongs == len(SIZES)


@pytest.mark.parametrize("fragment", [20 * KiB, 100 * KiB, 300 * KiB])
async def test_fragments_with_pings_between_them_arrive_whole(start: Any, fragment: int) -> None:
    async with linked(start) as (conn, wire):
        line = words(1024 * KiB)
        data = line.encode()
        pieces = [data[at : at + fragment] for at in range(0, len(data), fragment)]
        for index, piece in enumerate(pieces):
            wire.send(
                masked(Opcode.CONT if index else Opcode.TEXT, piece, fin=index == len(pieces) - 1),
                masked(Opcode.PING, bytes([index])),
            )
        wire.send(masked(Opcode.BINARY, contents(300 * KiB)))
        assert await conn.recv() == line
        assert await conn.recv() == contents(300 * KiB)
        assert [await wire.event() for _ in pieces] == [(Opcode.PONG, bytes([index])) for index in range(len(pieces))]


class Arrival:
    """Bytes that arrive as a transport delivers them: as many as there is room for, or as few as the test wants."""

    def __init__(self, conn: plumews.Conn) -> None:
        self.conn = conn
        self.rooms: list[int] = []

    def bring(self, data: bytes, most: int = 1 << 30) -> None:
        at = 0
        while at < len(data):
            room = self.conn.get_buffer(-1)
            self.rooms.append(len(room))
            take = min(len(room), most, len(data) - at)
            room[:take] = data[at : at + take]
            self.conn.buffer_updated(take)
            at += take


async def test_a_large_message_arrives_in_its_own_memory_and_what_follows_it_does_not() -> None:
    conn, _ = fake_conn()
    arrival = Arrival(conn)
    arrival.bring(masked(Opcode.BINARY, contents(1024 * KiB)) + text("a"), 64 * KiB)
    shared = len(conn._state.view)
    assert arrival.rooms[0] == shared
    assert any(room != shared for room in arrival.rooms)
    assert arrival.rooms[-1] == shared
    assert await conn.recv() == contents(1024 * KiB)
    assert await conn.recv() == "a"
    conn.abort()


async def test_a_buffer_that_was_asked_for_and_not_used_costs_nothing() -> None:
    conn, _ = fake_conn()
    frame = masked(Opcode.BINARY, contents(400 * KiB))
    arrival = Arrival(conn)
    for at in range(0, len(frame), 50 * KiB):
        for _ in range(3):
            conn.get_buffer(-1)
        arrival.bring(frame[at : at + 50 * KiB])
    assert await conn.recv() == contents(400 * KiB)
    conn.abort()


async def test_a_stream_may_be_asked_for_while_a_buffer_is_lent() -> None:
    conn, _ = fake_conn()
    frame = masked(Opcode.BINARY, contents(700 * KiB))
    arrival = Arrival(conn)
    arrival.bring(frame[: 200 * KiB], 40 * KiB)
    conn.get_buffer(-1)
    assert conn._state.view is not conn.get_buffer(-1)  # it is lent
    stream = await conn.read_stream()
    arrival.bring(frame[200 * KiB :], 40 * KiB)
    assert await stream.read_all() == contents(700 * KiB)
    conn.abort()


async def test_a_lowered_limit_holds_from_the_next_header_on_though_a_message_arrives_in_place() -> None:
    conn, transport = fake_conn()
    frame = masked(Opcode.BINARY, contents(700 * KiB))
    arrival = Arrival(conn)
    arrival.bring(frame[: 200 * KiB], 40 * KiB)
    conn.get_buffer(-1)
    conn.read_limit = 100
    arrival.bring(frame[200 * KiB :], 40 * KiB)
    assert await conn.recv() == contents(700 * KiB)
    arrival.bring(masked(Opcode.BINARY, bytes(101)))
    with pytest.raises(plumews.ConnectionClosedError):
        await conn.recv()
    assert transport.events()[-1][1][0] == 1009
    conn.abort()


@pytest.mark.parametrize("bad", [200 * KiB, 300 * KiB, 399 * KiB])
async def test_text_that_is_not_utf_8_is_refused_where_it_stands_in_a_lent_buffer(bad: int) -> None:
    conn, transport = fake_conn()
    data = bytearray(b"x" * 400 * KiB)
    data[bad] = 0xFF
    got: list[Any] = []
    conn._deliver_to(lambda conn, message: got.append(message), ignore)
    Arrival(conn).bring(text("before") + masked(Opcode.TEXT, bytes(data)) + text("behind"), 40 * KiB)
    assert got == ["before"]
    assert [payload[0] for kind, payload in transport.events() if kind == Opcode.CLOSE] == [1007]
    conn.abort()


@pytest.mark.parametrize("how", ["close", "abort", "raise"])
async def test_a_callback_that_ends_the_connection_gets_nothing_of_the_large_message_behind(how: str) -> None:
    conn, transport = fake_conn()
    got: list[Any] = []

    def on_message(conn: plumews.Conn, message: str | bytes) -> None:
        got.append(message)
        if how == "close":
            conn.close_nowait()
        elif how == "abort":
            conn.abort()
        else:
            raise RuntimeError

    conn._deliver_to(on_message, lambda conn, exc: conn.close_nowait(1011))
    Arrival(conn).bring(text("a") + masked(Opcode.BINARY, contents(400 * KiB)) + text("b"), 40 * KiB)
    assert got == ["a"]
    kinds = [kind for kind, _ in transport.events()]
    assert kinds == ([] if how == "abort" else [Opcode.CLOSE])
    conn.abort()


async def test_a_handler_that_does_not_read_holds_up_large_messages_and_memory_stays_bounded(start: Any) -> None:
    size, count = 1024 * KiB, 24
    async with linked(start) as (conn, wire):
        tracemalloc.start()
        frame = masked(Opcode.BINARY, contents(size))

        async def send_all() -> None:
            for _ in range(count):
                wire.send(frame)
                await wire.writer.drain()

        sending = asyncio.ensure_future(send_all())
        await until(lambda: conn._reading_paused)
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        await ticks(100)
        assert conn._reading_paused
        assert conn._inbox.bytes + conn._rules.parser.buffered <= 2 * limits.MAX_QUEUE_BYTES + limits.READ_BUFFER
        for _ in range(count):
            assert await conn.recv() == contents(size)
        await sending
        tracemalloc.stop()
        assert before < 12 * 1024 * KiB
        wire.send(text("last"))
        assert await conn.recv() == "last"


# --- callbacks that fail --------------------------------------------------------------------------


@pytest.mark.parametrize("position", [0, 1, 3, 4, 5, 31])
@pytest.mark.parametrize("error", [RuntimeError, asyncio.CancelledError], ids=lambda error: error.__name__)
@pytest.mark.parametrize("slice_", [60.0, -1.0], ids=["one slice", "many slices"])
async def test_a_callback_that_raises_ends_the_connection_once_and_gets_nothing_more(
    start: Any,
    position: int,
    error: type[BaseException],
    slice_: float,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(limits, "FAN_OUT_SLICE", slice_)
    got: list[Any] = []

    def on_message(conn: plumews.Conn, message: str | bytes) -> None:
        got.append(message)
        conn.send_nowait(message)
        if message == str(position):
            raise error("a callback fails")

    server = await start(plumews.serve(on_message=on_message, host="127.0.0.1", port=0))
    async with await Wire.open(server) as wire:
        with caplog.at_level(logging.ERROR):
            wire.send(*[text(str(index)) for index in range(32)])
            answers = [await wire.event() for _ in range(position + 2)]
            wire.send(close(1011))
            await wire.eof()
    assert answers[:-1] == [(Opcode.TEXT, str(index)) for index in range(position + 1)]
    assert (answers[-1][0], answers[-1][1][0]) == (Opcode.CLOSE, 1011)
    assert got == [str(index) for index in range(position + 1)]
    assert len(caplog.records) == 1


async def test_a_callback_for_which_the_queue_is_full_goes_on_where_it_catches_that(start: Any) -> None:
    full: list[str | bytes] = []

    def on_message(conn: plumews.Conn, message: str | bytes) -> None:
        if message == "clog":
            clog(conn)
            return
        try:
            while True:
                conn.send_nowait(bytes(32 * KiB))
        except SendQueueFull:
            full.append(message)

    server = await start(plumews.serve(on_message=on_message, host="127.0.0.1", port=0))
    async with await Wire.open(server, rcvbuf=4096) as wire:
        wire.send(text("clog"), text("a"), text("b"))
        await until(lambda: len(full) == 2)
        assert full == ["a", "b"]


# --- short messages -------------------------------------------------------------------------------


@pytest.mark.parametrize("fragment", [64 * KiB, 1000], ids=["64 KiB", "1000"])
@pytest.mark.parametrize("character", ["a", "é", "€", "\U0001f600"], ids=["1", "2", "3", "4"])
@pytest.mark.parametrize("by", [-1, 0, 1])
async def test_a_message_about_as_long_as_the_quick_way_takes_is_the_same_either_way(
    fragment: int, character: str, by: int
) -> None:
    quick = min(fragment, limits.COPY_SIZE)
    conn, transport = fake_conn(fragment_size=fragment)
    messages: list[str | bytes] = [character * (quick // 4 + by), character * (quick + by), bytes(quick + by)]
    for message in messages:
        conn.send_nowait(message)
        await conn.send(message)
        await ticks()
    assert payloads_of(transport) == [message for message in messages for _ in range(2)]
    conn.abort()


class Text(str):
    __slots__ = ()


class Bytes(bytes):
    pass


@pytest.mark.parametrize("message", ["", b"", Text("text"), Bytes(b"bytes"), Text("é" * 9000), Bytes(20 * KiB)])
async def test_empty_messages_and_those_of_a_subclass_are_messages(message: Any) -> None:
    conn, transport = fake_conn()
    conn.send_nowait(message)
    await conn.send(message)
    await ticks()
    assert payloads_of(transport) == [message, message]
    conn.abort()


@pytest.mark.parametrize("message", ["\ud800", "x" * 20_000 + "\udfff"], ids=["short", "long"])
async def test_a_lone_surrogate_is_an_error_and_nothing_is_queued(message: str) -> None:
    conn, transport = fake_conn()
    with pytest.raises(UnicodeEncodeError):
        conn.send_nowait(message)
    with pytest.raises(UnicodeEncodeError):
        await conn.send(message)
    await ticks()
    assert transport.wire == b""
    assert (conn.queued_messages, conn.queued_bytes) == (0, 0)
    conn.abort()


@pytest.mark.parametrize("message", ["short", b"x" * 100_000], ids=["short", "long"])
async def test_another_thread_may_not_send(message: Any) -> None:
    conn, transport = fake_conn()
    raised: list[BaseException] = []

    def send() -> None:
        try:
            conn.send_nowait(message)
        except ConcurrencyError as exc:
            raised.append(exc)

    thread = threading.Thread(target=send)
    thread.start()
    thread.join()
    await ticks()
    assert len(raised) == 1
    assert transport.wire == b""
    conn.abort()


# --- both bodies alike ----------------------------------------------------------------------------


async def test_a_connection_takes_no_attribute_of_a_stranger_and_a_subclass_does() -> None:
    class Mine(plumews.Conn):
        pass

    conn, _ = fake_conn()
    with pytest.raises(AttributeError):
        conn.stranger = 1  # type: ignore[attr-defined]
    mine = Mine(plumews.ConnConfig())
    mine.stranger = 1  # type: ignore[attr-defined]
    assert mine.stranger == 1  # type: ignore[attr-defined]
    assert weakref.ref(mine)() is mine
    assert repr(mine).startswith("<plumews.Conn ")
    conn.abort()


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, *[lambda conn, p=p: pickle.dumps(conn, p) for p in range(6)]]
)
async def test_a_connection_cannot_be_copied_or_pickled(duplicate: Callable[[Any], Any]) -> None:
    conn, _ = fake_conn()
    with pytest.raises(TypeError, match="a connection cannot be copied or pickled"):
        duplicate(conn)
    conn.abort()


# --- nothing is left ------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["close", "abort", "reset", "cut in a message", "cut while a frame waits"])
async def test_a_connection_is_dead_when_it_is_gone_without_the_help_of_the_collector(start: Any, end: str) -> None:
    opened: list[weakref.ref[plumews.Conn]] = []
    conns: list[plumews.Conn] = []
    gone: list[bool] = []

    def on_open(conn: plumews.Conn) -> None:
        opened.append(weakref.ref(conn))
        conns.append(conn)

    def on_message(conn: plumews.Conn, message: str | bytes) -> None:
        conn.send_nowait(message)

    def on_close(conn: plumews.Conn) -> None:
        gone.append(True)

    server = await start(
        plumews.serve(on_open=on_open, on_message=on_message, on_close=on_close, host="127.0.0.1", port=0)
    )
    gc.collect()
    gc.disable()
    try:
        async with await Wire.open(server, rcvbuf=4096) as wire:
            wire.send(text("a"), masked(Opcode.PING, b"p"))
            await wire.event()
            await wire.event()
            if end == "abort":
                conns.pop().abort()
            elif end == "close":
                wire.send(close(1000))
                await wire.eof()
            elif end == "cut in a message":
                wire.send(masked(Opcode.BINARY, bytes(500 * KiB))[: 300 * KiB])
                await wire.writer.drain()
                wire.writer.close()
            elif end == "cut while a frame waits":
                clog(conns[0])
                wire.reset()
            else:
                wire.reset()
            conns.clear()
            await until(lambda: gone)
            await ticks(10)
            assert opened[0]() is None
    finally:
        gc.enable()


async def test_a_connection_in_a_circle_is_found_by_the_collector() -> None:
    conn, _ = fake_conn()
    conn.metadata["circle"] = conn
    conn._on_message = lambda *_, conn=conn: None
    conn.add_close_callback(lambda gone, conn=conn: None)
    reference = weakref.ref(conn)
    conn.connection_lost(None)
    assert conn.state is State.CLOSED
    del conn, _
    await ticks()
    gc.collect()
    assert reference() is None


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


async def test_wide_text_stops_at_what_it_takes_in_memory(start: Any) -> None:
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
async def test_messages_that_arrived_before_the_connection_was_lost_can_be_read(count: int) -> None:
    conn, _ = fake_conn(max_queue=4)
    sent = numbered(count)
    feed(conn, *(masked(Opcode.BINARY, payload) for payload in sent))
    conn.connection_lost(ConnectionResetError())
    assert len(conn._inbox) == 4
    assert [await conn.recv() for _ in sent] == sent
    with pytest.raises(plumews.ConnectionClosedError):
        await conn.recv()


async def test_fault_behind_tiny_messages_counts_behind_them() -> None:
    conn, transport = fake_conn()
    feed(conn, *[text("x")] * 20_000, b"\x83\x80\x00\x00\x00\x00")
    assert transport.events() == []
    assert [await conn.recv() for _ in range(20_000)] == ["x"] * 20_000
    with pytest.raises(plumews.ConnectionClosedError):
        await conn.recv()
    assert transport.events()[-1][1][0] == 1002


async def test_stream_may_be_asked_for_while_bytes_wait_to_be_parsed() -> None:
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

    conn._deliver_to(on_message, ignore)
    sent = numbered(20_000)
    feed(conn, *(masked(Opcode.BINARY, payload) for payload in sent))
    while len(got) < len(sent):
        held = max(held, len(conn._backlog or ()))
        await asyncio.sleep(0)
    assert got == sent
    assert held * limits.RECEIVED_OVERHEAD <= limits.READ_SLACK
    conn.abort()


async def test_pings_of_one_read_are_all_answered_and_never_held_together() -> None:
    conn, transport = fake_conn()
    feed(conn, *[masked(Opcode.PING, b"")] * 30_000)
    assert transport.events() == [(Opcode.PONG, b"")] * 30_000
    assert max(map(len, transport.writes)) <= 2 * limits.READ_SLACK // limits.RECEIVED_OVERHEAD
    conn.abort()


# --- failures of what the loop calls --------------------------------------------------------------


def broken(*args: Any) -> bool:
    raise RuntimeError("broken")


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.parametrize("tls", [False, True])
async def test_failure_in_a_read_is_1011_and_one_entry(start: Any, caplog: Any, tls: bool) -> None:
    async with linked(start, tls=tls) as (conn, wire):
        conn._filter = broken
        wire.send(text("one"), text("two"))
        assert await wire.closing() == (1011, "the connection failed")
        wire.send(text("three"), close())
        await wire.eof()
    assert [line.split(" [")[0] for line in errors(caplog)] == ["a connection failed"]


@pytest.mark.parametrize("compression", [None, "deflate"])
async def test_failure_in_a_backlog_is_1011_and_one_entry(
    start: Any, caplog: Any, monkeypatch: pytest.MonkeyPatch, compression: str | None
) -> None:
    monkeypatch.setattr(limits, "FAN_OUT_SLICE", 0.0)
    heard: list[Any] = []

    def screen(conn: plumews.Conn, message: Any) -> bool:
        return message == "last" and broken()

    def on_open(conn: plumews.Conn) -> None:
        conn._filter = screen

    server = await start(
        plumews.serve(
            host="127.0.0.1",
            port=0,
            on_open=on_open,
            on_message=lambda conn, message: heard.append(message),
            compression=compression,
        )
    )
    async with await Wire.open(server, "/", *([OFFER] if compression else [])) as wire:
        wire.send(*[text("m")] * 40, text("last"), text("after"))
        assert await wire.closing() == (1011, "the connection failed")
        wire.send(text("later"), close())
        await wire.eof()
    assert heard == ["m"] * 40
    assert len(errors(caplog)) == 1


async def test_failure_for_a_large_message_is_1011_and_one_entry(start: Any, caplog: Any) -> None:
    async with linked(start) as (conn, wire):
        payload = masked(2, bytes(1 << 20))
        wire.send(payload[: 1 << 17])
        await until(lambda: conn._rules.parser.buffered)
        conn._filter = broken
        wire.send(payload[1 << 17 :])
        assert await wire.closing() == (1011, "the connection failed")
    assert len(errors(caplog)) == 1


async def test_second_failure_cuts_the_connection(caplog: Any) -> None:
    conn, transport = fake_conn()
    conn._guard(broken)
    assert conn.closed
    assert not transport.aborted
    conn._guard(broken)
    assert transport.aborted
    assert len(errors(caplog)) == 1


async def test_end_of_the_program_passes_a_guard() -> None:
    conn, transport = fake_conn()

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        conn._guard(interrupt)
    assert not conn.closed
    transport.abort()


class Once:
    """Fails when it is called first, and then does what it stands for."""

    def __init__(self, method: Any) -> None:
        self.method = method
        self.failed = False

    def __get__(self, conn: Any, owner: Any) -> Any:
        return functools.partial(self, conn)

    def __call__(self, conn: Any, *args: Any, **options: Any) -> Any:
        if not self.failed:
            self.failed = True
            raise RuntimeError("broken")
        return self.method(conn, *args, **options)


@pytest.mark.parametrize(
    ("inside", "call"),
    [("_discard", lambda conn: conn.eof_received()), ("_pay", lambda conn: conn._pay_and_resume())],
)
async def test_failure_in_a_call_of_the_loop_is_1011(
    monkeypatch: pytest.MonkeyPatch, caplog: Any, inside: str, call: Any
) -> None:
    conn, transport = fake_conn()
    monkeypatch.setattr(plumews.Conn, inside, Once(getattr(plumews.Conn, inside)), raising=False)
    call(conn)
    assert conn.closed
    assert len(errors(caplog)) == 1
    transport.abort()
    await until(lambda: conn.state is plumews.State.CLOSED)


@pytest.mark.parametrize("inside", ["_send_ping", "_progress"])
async def test_failure_in_the_keepalive_is_1011(
    start: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any, inside: str
) -> None:
    monkeypatch.setattr(plumews.Conn, inside, Once(getattr(plumews.Conn, inside)), raising=False)
    async with linked(start, ping_interval=0.01, ping_timeout=60) as (_, wire):
        assert await wire.closing() == (1011, "the connection failed")
    assert len(errors(caplog)) == 1


@pytest.mark.parametrize("inside", ["_count_lost", "_fail_stream", "_settle", "_forget", "_stop_pings"])
async def test_failure_in_connection_lost_leaves_nothing(
    start: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any, inside: str
) -> None:
    async with linked(start) as (conn, wire):
        monkeypatch.setattr(plumews.Conn, inside, Once(getattr(plumews.Conn, inside)), raising=False)
        wire.reset()
        await conn.wait_closed()
    assert conn.state is plumews.State.CLOSED
    assert len(errors(caplog)) == 1
