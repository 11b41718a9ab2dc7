"""Awaitables of a send and of the next message, which behave as coroutines do."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import plumews
from plumews import Conn, ConnectionClosed, limits
from plumews.constants import Opcode
from support.fakes import fake_conn, feed, full, started, ticks, until
from support.raw_client import close, text

READERS: list[Callable[[Conn], Any]] = [lambda conn: conn.recv(), lambda conn: conn.__anext__()]


@pytest.mark.parametrize("make", [*READERS, lambda conn: conn.send("x")])
async def test_they_are_coroutines_and_no_futures(make: Callable[[Conn], Any]) -> None:
    conn, _ = fake_conn()
    made = make(conn)
    assert asyncio.iscoroutine(made)
    assert inspect.isawaitable(made)
    assert not asyncio.isfuture(made)
    made.close()
    conn.abort()


@pytest.mark.parametrize("make", READERS)
@pytest.mark.parametrize(
    "wrap",
    [
        asyncio.create_task,
        asyncio.ensure_future,
        asyncio.gather,
        asyncio.shield,
        lambda made: asyncio.wait_for(made, 10),
        lambda made: asyncio.wait_for(asyncio.shield(made), 10),
    ],
)
async def test_a_reader_may_be_wrapped_as_a_coroutine_may(
    make: Callable[[Conn], Any], wrap: Callable[[Any], Awaitable[Any]]
) -> None:
    conn, _ = fake_conn()
    wrapped = asyncio.ensure_future(wrap(make(conn)))
    await ticks()
    feed(conn, text("hello"))
    assert await wrapped in ("hello", ["hello"])
    feed(conn, text("at once"))
    assert await wrap(make(conn)) in ("at once", ["at once"])
    conn.abort()


async def test_sends_may_be_wrapped_as_coroutines_may() -> None:
    conn, transport = fake_conn()
    await asyncio.gather(conn.send("a"), asyncio.wait_for(conn.send(b"b"), 10))
    await asyncio.create_task(conn.send("c"))
    await ticks()
    assert transport.events() == [(Opcode.TEXT, "a"), (Opcode.BINARY, b"b"), (Opcode.TEXT, "c")]
    conn.abort()


async def test_send_without_await_sends_nothing_and_warns() -> None:
    conn, transport = fake_conn()
    with pytest.warns(RuntimeWarning, match=r"never awaited: .*send_nowait"):
        conn.send("forgotten")
    await ticks()
    assert transport.events() == []
    conn.abort()


@pytest.mark.parametrize("make", [*READERS, lambda conn: conn.send("x")])
async def test_each_is_awaited_once(make: Callable[[Conn], Any]) -> None:
    conn, _ = fake_conn()
    feed(conn, text("a"), text("b"))
    made = make(conn)
    await made
    with pytest.raises(RuntimeError, match="already awaited"):
        await made
    conn.abort()


@pytest.mark.parametrize("make", READERS)
async def test_a_cancelled_reader_leaves_the_message_to_the_next(make: Callable[[Conn], Any]) -> None:
    conn, _ = fake_conn()
    reader = asyncio.ensure_future(make(conn))
    await ticks()
    feed(conn, text("kept"))
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    reader = asyncio.ensure_future(make(conn))
    await ticks()
    assert await make(conn) == "kept" if not reader.done() else reader.result() == "kept"
    conn.abort()


@pytest.mark.parametrize("make", READERS)
async def test_cancelled_reader_lets_another_wait(make: Callable[[Conn], Any]) -> None:
    conn, _ = fake_conn()
    first = asyncio.ensure_future(make(conn))
    await ticks()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    second = asyncio.ensure_future(make(conn))
    await ticks()
    feed(conn, text("for the second"))
    assert await second == "for the second"
    conn.abort()


@pytest.mark.parametrize("make", READERS)
async def test_closed_awaitable_lets_another_reader_wait(make: Callable[[Conn], Any]) -> None:
    conn, _ = fake_conn()
    reader = make(conn)
    reader.send(None)
    reader.close()
    feed(conn, text("a"))
    assert await conn.recv() == "a"
    conn.abort()


@pytest.mark.parametrize("make", [*READERS, lambda conn: conn.send("x")])
async def test_throw_before_the_first_step_raises_and_does_nothing(
    make: Callable[[Conn], Any],
) -> None:
    conn, transport = fake_conn()
    feed(conn, text("kept"))
    made = make(conn)
    with pytest.raises(KeyError):
        made.throw(KeyError("no"))
    assert await conn.recv() == "kept"
    assert transport.events() == []
    conn.abort()


async def test_iteration_ends_after_a_normal_close_and_raises_else() -> None:
    for code in (1000, 1001):
        conn, _ = fake_conn()
        feed(conn, text("last"), close(code))
        assert [message async for message in conn] == ["last"]
        with pytest.raises(plumews.ConnectionClosedOK):
            await conn.recv()
    conn, _ = fake_conn()
    feed(conn, close(1011))
    with pytest.raises(plumews.ConnectionClosedError):
        await anext(conn)


async def test_iteration_of_events_ends_with_none_after_a_normal_close() -> None:
    conn, _ = fake_conn()
    feed(conn, text("a"), close(1000))
    assert await conn._next_or_none() == "a"
    assert await conn._next_or_none() is None
    waiting, _ = fake_conn()
    reader = asyncio.ensure_future(waiting._next_or_none())
    await ticks()
    feed(waiting, close(1001))
    assert await reader is None
    failing, _ = fake_conn()
    feed(failing, close(1011))
    with pytest.raises(ConnectionClosed):
        await failing._next_or_none()


@pytest.mark.parametrize("make", READERS)
async def test_cancelled_reader_leaves_no_reference_cycle(make: Callable[[Conn], Any]) -> None:
    conn, _ = fake_conn()
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            reader = asyncio.ensure_future(make(conn))
            await ticks()
            reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reader
        del reader
        assert gc.collect() == 0
    finally:
        gc.enable()
    conn.abort()


# --- awaits that never suspend --------------------------------------------------------------------


async def by_send(conn: plumews.Conn) -> None:
    await conn.send("x")


async def by_write_text(conn: plumews.Conn) -> None:
    await conn.write_text("x")


async def by_write_json(conn: plumews.Conn) -> None:
    await conn.write_json(["x"])


async def by_write_many(conn: plumews.Conn) -> None:
    await conn.write_many(["x", "y"])


async def by_pieces(conn: plumews.Conn) -> None:
    await conn.send(iter(["x", "y"]))


async def by_drain(conn: plumews.Conn) -> None:
    await conn.drain()


async def by_ping(conn: plumews.Conn) -> None:
    await conn.ping()


async def by_recv(conn: plumews.Conn) -> None:
    await conn.recv()


async def by_recv_of_bytes(conn: plumews.Conn) -> None:
    await conn.recv(decode=False)


async def by_iteration(conn: plumews.Conn) -> None:
    async for _ in conn:
        break


async def by_read_message(conn: plumews.Conn) -> None:
    await conn.read_message()


async def by_stream(conn: plumews.Conn) -> None:
    async with await conn.read_stream() as stream:
        await stream.read_all()


async def by_closed_send(conn: plumews.Conn) -> None:
    if not conn.closed:
        conn.close_nowait()
    with pytest.raises(ConnectionClosed):
        await conn.send("x")


async def by_closed_write(conn: plumews.Conn) -> None:
    if not conn.closed:
        conn.close_nowait()
    with pytest.raises(ConnectionClosed):
        await conn.write_text("x")


async def by_closed_write_many(conn: plumews.Conn) -> None:
    if not conn.closed:
        conn.close_nowait()
    with pytest.raises(ConnectionClosed):
        await conn.write_many(["x"])


async def by_closed_pieces(conn: plumews.Conn) -> None:
    if not conn.closed:
        conn.close_nowait()
    with pytest.raises(ConnectionClosed):
        await conn.send(iter(["x"]))


async def by_closed_ping(conn: plumews.Conn) -> None:
    if not conn.closed:
        conn.close_nowait()
    with pytest.raises(ConnectionClosed):
        await conn.ping()


async def by_waiting_for_the_end(conn: plumews.Conn) -> None:
    conn.connection_lost(None)
    await conn.wait_closed()


async def by_no_message(conn: plumews.Conn) -> None:
    await conn.write_many([])


async def by_no_piece(conn: plumews.Conn) -> None:
    await conn.send(iter(()))


async def by_empty_pieces(conn: plumews.Conn) -> None:
    await conn.send(iter(["", ""]))


KINDS = [value for name, value in globals().items() if name.startswith("by_")]


async def rounds(conn: plumews.Conn, kind: Callable[[plumews.Conn], Awaitable[None]], count: int) -> None:
    for _ in range(count):
        await kind(conn)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
async def test_awaits_that_never_suspend_share_a_slice(
    kind: Callable[[plumews.Conn], Awaitable[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    conn, _ = fake_conn(ping_interval=None, max_queue=10_000)
    feed(conn, *[text("x")] * 500)
    monkeypatch.setattr(limits, "FAN_OUT_SLICE", 0.0)
    turns = 0
    task = started(rounds(conn, kind, 200))
    while not task.done():
        turns += 1
        await asyncio.sleep(0)
    await task
    assert turns > 20
    conn.abort()


async def test_published_messages_to_idle_rooms_share_a_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FAN_OUT_SLICE", 0.0)
    async with plumews.Hub() as hub:

        async def publish(conn: object) -> None:
            await hub.publish("room", "x")

        task = started(rounds(None, publish, 200))  # type: ignore[arg-type]
        turns = 0
        while not task.done():
            turns += 1
            await asyncio.sleep(0)
        await task
    assert turns > 20


@pytest.mark.parametrize(
    "send", [lambda conn: conn.send("x"), lambda conn: conn.write_many(["x"])], ids=["send", "write_many"]
)
async def test_send_that_is_refused_again_and_again_shares_a_slice(
    send: Callable[[plumews.Conn], Awaitable[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    conn, _ = full(send_behavior=plumews.SendBehavior.DROP, queue_size=1)
    monkeypatch.setattr(limits, "FAN_OUT_SLICE", 0.0)
    refused = 0

    async def insist() -> None:
        nonlocal refused
        while True:
            try:
                await send(conn)
            except plumews.SendQueueFull:
                refused += 1

    task = started(insist())
    await until(lambda: refused > 50)  # though nothing waits
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    conn.abort()


async def test_tasks_that_never_suspend_share_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FAN_OUT_SLICE", 0.001)
    conn, _ = fake_conn(ping_interval=None)
    sent = [0] * 8

    async def flood(place: int) -> None:
        while True:
            await conn.send("x")
            sent[place] += 1

    tasks = [started(flood(place)) for place in range(8)]
    await until(lambda: min(sent) > 100)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert max(sent) < sum(sent) / 2, sent
    conn.abort()


async def test_few_awaits_do_not_suspend_nor_look_at_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    conn, _ = fake_conn(ping_interval=None)
    state = conn._state
    await asyncio.sleep(0)
    for _ in range(100):
        feed(conn, text("x"))
        ran = False

        def run() -> None:
            nonlocal ran
            ran = True

        asyncio.get_running_loop().call_soon(run)
        await conn.send(await conn.recv())
        assert not ran
        assert not state.in_slice
        await asyncio.sleep(0)
    conn.abort()


@pytest.mark.parametrize("kind", [by_recv, by_iteration, by_read_message, by_stream], ids=lambda kind: kind.__name__)
async def test_reader_cancelled_in_its_turn_loses_nothing(
    kind: Callable[[plumews.Conn], Awaitable[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    conn, _ = fake_conn(ping_interval=None, max_queue=10_000)
    feed(conn, *[text(str(number)) for number in range(100)])
    monkeypatch.setattr(limits, "FAN_OUT_SLICE", 0.0)
    task = started(rounds(conn, kind, 50))
    while len(conn._inbox) > 80:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    left = len(conn._inbox)
    monkeypatch.setattr(limits, "FAN_OUT_SLICE", 60.0)
    assert [await conn.recv() for _ in range(left)] == [str(number) for number in range(100 - left, 100)]
    conn.abort()


async def test_send_cancelled_in_its_turn_is_sent_once(monkeypatch: pytest.MonkeyPatch) -> None:
    conn, transport = fake_conn(ping_interval=None)
    monkeypatch.setattr(limits, "FAN_OUT_SLICE", 0.0)
    for number in range(100):
        task = started(conn.send(str(number)))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await until(lambda: transport.events() == [(Opcode.TEXT, str(number)) for number in range(100)])
    conn.abort()


async def test_sends_of_many_tasks_leave_in_the_order_of_the_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    conn, transport = fake_conn(ping_interval=None)
    monkeypatch.setattr(limits, "FAN_OUT_SLICE", 0.0)
    await asyncio.gather(*[conn.send(str(number)) for number in range(300)])
    await ticks()
    assert transport.events() == [(Opcode.TEXT, str(number)) for number in range(300)]
    conn.abort()
