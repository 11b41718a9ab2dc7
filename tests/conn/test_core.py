"""Hot path of a connection: callbacks, short messages, failures of calls, and both bodies alike."""

from __future__ import annotations

import asyncio
import copy
import functools
import gc
import logging
import pickle
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import plumews
from plumews import (
    ConcurrencyError,
    Opcode,
    SendQueueFull,
    State,
    limits,
)
from plumews.conn import full_queue
from plumews.conn.closing import guard
from plumews.conn.receiver import deliver_to
from support.compressed_messages import OFFER
from support.fakes import (
    FakeTransport,
    clog,
    echo_by_callback,
    fake_conn,
    feed,
    linked,
    payloads_of,
    ticks,
    until,
)
from support.raw_client import Wire, close, masked, text

KiB = 1024


# --- callbacks that fail --------------------------------------------------------------------------


@pytest.mark.parametrize("position", [0, 1, 3, 4, 5, 31])
@pytest.mark.parametrize("error", [RuntimeError, asyncio.CancelledError], ids=lambda error: error.__name__)
@pytest.mark.parametrize("slice_", [60.0, -1.0], ids=["one slice", "many slices"])
async def test_failing_callback_ends_the_connection_once(
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


async def test_callback_may_catch_a_full_queue(start: Any) -> None:
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
async def test_messages_around_the_short_way_limit_arrive_whole(fragment: int, character: str, by: int) -> None:
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
async def test_empty_messages_and_subclasses_are_sent(message: Any) -> None:
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


async def test_unknown_attribute_is_refused_but_for_subclasses() -> None:
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


# --- nothing remains ------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["close", "abort", "reset", "cut in a message", "cut while a frame waits"])
async def test_connection_is_freed_without_the_garbage_collector(start: Any, end: str) -> None:
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
    guard(conn, broken)
    assert conn.closed
    assert not transport.aborted
    guard(conn, broken)
    assert transport.aborted
    assert len(errors(caplog)) == 1


async def test_end_of_the_program_passes_a_guard() -> None:
    conn, transport = fake_conn()

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        guard(conn, interrupt)
    assert not conn.closed
    transport.abort()


class Once:
    """Function that fails at its first call and calls the original later."""

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


def fail_once(monkeypatch: pytest.MonkeyPatch, inside: str) -> None:
    """Let the function ``inside``, of a module of the package ``conn``, fail at its first call."""
    module, name = inside.split(".")
    function = getattr(sys.modules[f"plumews.conn.{module}"], name)
    monkeypatch.setattr(f"plumews.conn.{inside}", Once(function))


def report_now(conn: plumews.Conn) -> None:
    """Let the channel send again while a loss report is due."""
    full_queue.report_later(conn, LossReporter())
    conn.resume_writing()


class LossReporter:
    """Hub that has nothing to report."""

    def report_losses(self, conn: plumews.Conn) -> None:
        """Report nothing."""

    def report_last_losses(self, conn: plumews.Conn, *, delivered: bool) -> None:
        """Report nothing."""


@pytest.mark.parametrize(
    ("inside", "call"),
    [
        ("closing._discard", lambda conn: conn.eof_received()),
        ("full_queue.report_losses", lambda conn: report_now(conn)),
    ],
)
async def test_failure_in_a_call_of_the_loop_is_1011(
    monkeypatch: pytest.MonkeyPatch, caplog: Any, inside: str, call: Any
) -> None:
    conn, transport = fake_conn()
    fail_once(monkeypatch, inside)
    call(conn)
    await ticks()
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


@pytest.mark.parametrize("inside", ["_count_lost", "_fail_streams", "_report_last_losses", "_forget", "_stop_pings"])
async def test_failure_in_connection_lost_leaves_nothing(
    start: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any, inside: str
) -> None:
    async with linked(start) as (conn, wire):
        fail_once(monkeypatch, f"closing.{inside}")
        wire.reset()
        await conn.wait_closed()
    assert conn.state is plumews.State.CLOSED
    assert len(errors(caplog)) == 1


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Handle each read in one time slice, even on a busy machine."""
    monkeypatch.setattr(limits, "FAN_OUT_SLICE", 60.0)


def kinds(transport: FakeTransport) -> list[int]:
    return [kind for kind, _ in transport.events()]


# --- callbacks ------------------------------------------------------------------------------------


async def test_failing_callback_is_reported_and_later_messages_arrive() -> None:
    conn, _ = fake_conn()
    seen: list[Any] = []
    failed: list[Exception] = []

    def on_message(conn: plumews.Conn, message: str | bytes) -> None:
        if message == "bad":
            raise ValueError(message)
        seen.append(message)

    deliver_to(conn, on_message, lambda conn, exc: failed.append(exc))
    feed(conn, text("a"), text("bad"), text("b"))
    assert seen == ["a", "b"]
    assert [type(exc) for exc in failed] == [ValueError]
    conn.abort()


async def test_messages_before_the_callback_are_delivered_first() -> None:
    conn, transport = fake_conn(max_queue=2)
    feed(conn, text("a"), text("b"))
    assert not transport.reading
    seen: list[Any] = []
    deliver_to(conn, lambda conn, message: seen.append(message), lambda conn, exc: None)
    assert transport.reading
    feed(conn, text("c"))
    assert seen == ["a", "b", "c"]
    conn.abort()


async def test_close_before_the_callback_is_answered_after_messages() -> None:
    conn, transport = fake_conn()
    feed(conn, text("a"), close(1000))
    assert transport.writes == []
    echo_by_callback(conn)
    assert kinds(transport) == [Opcode.TEXT, Opcode.CLOSE]
    await conn.wait_closed()


# --- nothing remains ------------------------------------------------------------------------------


async def test_the_receive_buffer_belongs_to_the_loop() -> None:
    first, _ = fake_conn()
    second, _ = fake_conn()
    view = first.get_buffer(-1)
    assert view is second.get_buffer(65536)
    feed(first, text("a"), masked(Opcode.BINARY, b"unfinished", fin=False))
    feed(second, text("b" * 1000))
    feed(first, masked(Opcode.CONT, b" business"))
    assert await second.recv() == "b" * 1000
    assert [await first.recv(), await first.recv()] == ["a", b"unfinished business"]
    for conn in (first, second):
        conn.abort()
