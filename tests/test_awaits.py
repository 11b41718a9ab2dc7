"""The awaitables of a send and of the next message: to asyncio and to applications they are coroutines."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import plumews
from fakes import fake_conn, feed, ticks
from plumews import Conn
from plumews.constants import Opcode
from wire import close, text

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


async def test_nothing_is_sent_before_it_is_awaited_and_who_forgets_to_is_told() -> None:
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
async def test_a_reader_that_is_cancelled_while_it_waits_makes_room_for_another(make: Callable[[Conn], Any]) -> None:
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
async def test_a_reader_that_is_closed_while_it_waits_makes_room_for_another(make: Callable[[Conn], Any]) -> None:
    conn, _ = fake_conn()
    reader = make(conn)
    reader.send(None)
    reader.close()
    feed(conn, text("a"))
    assert await conn.recv() == "a"
    conn.abort()


@pytest.mark.parametrize("make", [*READERS, lambda conn: conn.send("x")])
async def test_what_is_thrown_in_before_the_first_step_is_raised_and_nothing_happens(
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


async def test_the_end_of_an_iteration_is_told_by_a_good_close_and_raised_by_another() -> None:
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


@pytest.mark.parametrize("make", READERS)
async def test_a_cancelled_reader_leaves_nothing_for_the_garbage_collector(make: Callable[[Conn], Any]) -> None:
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
