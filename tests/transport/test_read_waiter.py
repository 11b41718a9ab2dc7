"""Tests of the awaitable of readers: its task resumes at once or in the next iteration, and can be cancelled."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from typing import Any

import pytest

import plumews
from plumews.transport.read_waiter import ReadWaiter
from support.fakes import fake_conn, feed, ticks
from support.raw_client import close, masked, text

NAME = contextvars.ContextVar("NAME", default="nobody")


def new_waiter() -> ReadWaiter:
    return ReadWaiter(asyncio.get_running_loop())


async def waiting_task(log: list[Any], waiter: ReadWaiter) -> asyncio.Task[None]:
    """Return a task that waits, and logs when it is resumed."""

    async def wait() -> None:
        NAME.set("the task")
        try:
            await waiter
            log.append("went on")
        except asyncio.CancelledError as exc:
            log.append(exc)
            raise
        finally:
            log.append((asyncio.current_task(), NAME.get()))

    task = asyncio.create_task(wait())
    await ticks(1)
    return task


def outside_tasks(call: Callable[[], object]) -> asyncio.Future[None]:
    """Run ``call`` outside of any task, as the loop does for a readable socket."""
    done = asyncio.get_running_loop().create_future()

    def run() -> None:
        call()
        done.set_result(None)

    asyncio.get_running_loop().call_soon(run)
    return done


def test_read_waiter_passes_for_a_future() -> None:
    loop = asyncio.new_event_loop()
    assert asyncio.isfuture(ReadWaiter(loop))
    assert ReadWaiter(loop).get_loop() is loop
    loop.close()


async def test_wake_now_resumes_the_task_at_once_in_its_context() -> None:
    log: list[Any] = []
    waiter = new_waiter()
    task = await waiting_task(log, waiter)

    def wake() -> None:
        waiter.wake_now()
        log.append("woken")
        log.append((asyncio.current_task(), NAME.get()))

    await outside_tasks(wake)
    assert log == ["went on", (task, "the task"), "woken", (None, "nobody")]
    assert task.done()


async def test_wake_resumes_the_task_in_the_next_iteration() -> None:
    log: list[Any] = []
    waiter = new_waiter()
    await waiting_task(log, waiter)
    waiter.wake()
    assert log == []
    await ticks(1)
    assert log[0] == "went on"


async def test_wake_now_from_a_task_resumes_in_the_next_iteration() -> None:
    log: list[Any] = []
    waiter = new_waiter()
    await waiting_task(log, waiter)
    waiter.wake_now()
    assert log == []
    await ticks(1)
    assert log[0] == "went on"


@pytest.mark.parametrize("wake", [ReadWaiter.wake, ReadWaiter.wake_now])
async def test_await_after_wake_ends_at_once(wake: Callable[[ReadWaiter], None]) -> None:
    waiter = new_waiter()
    wake(waiter)
    wake(waiter)
    assert waiter.done()
    await waiter


async def test_repeated_wake_resumes_the_task_once() -> None:
    log: list[Any] = []
    waiter = new_waiter()
    await waiting_task(log, waiter)
    waiter.wake()
    waiter.wake()
    await outside_tasks(waiter.wake_now)
    await ticks()
    assert log.count("went on") == 1


async def test_cancelled_task_stops_waiting_and_ignores_wake() -> None:
    log: list[Any] = []
    waiter = new_waiter()
    task = await waiting_task(log, waiter)
    task.cancel("enough")
    await outside_tasks(waiter.wake_now)
    await ticks()
    assert waiter.cancelled()
    assert task.cancelled()
    assert isinstance(log[0], asyncio.CancelledError)
    assert log[0].args == ("enough",)
    assert not waiter.cancel()


async def test_task_cancelled_after_wake_is_cancelled() -> None:
    log: list[Any] = []
    waiter = new_waiter()
    task = await waiting_task(log, waiter)
    waiter.wake()
    task.cancel()
    await ticks()
    assert task.cancelled()


async def test_timeout_of_wait_for_cancels_the_wait() -> None:
    waiter = new_waiter()

    async def wait() -> None:
        await waiter

    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(wait(), 0.001)
    assert waiter.cancelled()


async def test_second_task_cannot_wait() -> None:
    waiter = new_waiter()
    task = await waiting_task([], waiter)

    async def wait() -> None:
        await waiter

    with pytest.raises(RuntimeError, match="one task waits here"):
        await wait()
    waiter.wake()
    await task


async def test_removed_callback_is_not_called() -> None:
    waiter, log = new_waiter(), []  # type: ignore[var-annotated]
    waiter.add_done_callback(log.append, context=contextvars.copy_context())
    assert waiter.remove_done_callback(print) == 0
    assert waiter.remove_done_callback(log.append) == 1
    waiter.wake()
    await ticks()
    assert log == []


async def test_result_before_wake_raises_invalid_state_error() -> None:
    waiter = new_waiter()
    with pytest.raises(asyncio.InvalidStateError):
        waiter.result()
    waiter.wake()
    assert waiter.result() is None  # type: ignore[func-returns-value]


# --- in a connection ------------------------------------------------------------------------------


async def echoing(conn: plumews.Conn) -> None:
    async for message in conn:
        await conn.send(message)


async def test_handler_answers_a_read_in_one_write() -> None:
    conn, transport = fake_conn()
    task = asyncio.create_task(echoing(conn))
    await ticks()
    await outside_tasks(lambda: feed(conn, text("a"), text("b"), text("c")))
    assert [payload for _, payload in transport.events()] == ["a", "b", "c"]
    assert len(transport.writes) == 1
    conn.abort()
    with pytest.raises(plumews.ConnectionClosedError):
        await task


async def test_handler_that_closes_sees_no_more_of_the_read() -> None:
    conn, transport = fake_conn()
    seen = []

    async def handler() -> None:
        async for message in conn:
            seen.append(message)
            conn.close_nowait(4000, "enough")

    task = asyncio.create_task(handler())
    await ticks()
    await outside_tasks(lambda: feed(conn, text("a"), masked(plumews.Opcode.PING, b"p")))
    assert transport.events()[-1] == (plumews.Opcode.CLOSE, (4000, "enough"))
    await outside_tasks(lambda: feed(conn, close(4000)))
    await ticks()
    with pytest.raises(plumews.ConnectionClosedError):
        await task
    assert seen == ["a"]


async def test_handler_that_raises_leaves_the_connection_open() -> None:
    conn, transport = fake_conn()

    async def handler() -> None:
        await conn.recv()
        raise ZeroDivisionError

    task = asyncio.create_task(handler())
    await ticks()
    await outside_tasks(lambda: feed(conn, text("a"), masked(plumews.Opcode.PING, b"p")))
    with pytest.raises(ZeroDivisionError):
        await task
    assert transport.events() == [(plumews.Opcode.PONG, b"p")]
    conn.abort()
