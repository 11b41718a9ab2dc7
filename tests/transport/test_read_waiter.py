"""What a reader awaits: its task goes on when it is told, at once or in the next turn, and can be cancelled."""

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


def ready() -> ReadWaiter:
    return ReadWaiter(asyncio.get_running_loop())


async def waiting_task(log: list[Any], waiter: ReadWaiter) -> asyncio.Task[None]:
    """A task that has begun to wait, and says so when it goes on."""

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
    """Run ``call`` as the loop runs what a socket brings: in no task."""
    done = asyncio.get_running_loop().create_future()

    def run() -> None:
        call()
        done.set_result(None)

    asyncio.get_running_loop().call_soon(run)
    return done


def test_it_is_what_asyncio_takes_for_a_future() -> None:
    loop = asyncio.new_event_loop()
    assert asyncio.isfuture(ReadWaiter(loop))
    assert ReadWaiter(loop).get_loop() is loop
    loop.close()


async def test_told_now_the_task_goes_on_before_the_call_returns_as_itself_and_in_its_context() -> None:
    log: list[Any] = []
    waiter = ready()
    task = await waiting_task(log, waiter)

    def tell() -> None:
        waiter.wake_now()
        log.append("told")
        log.append((asyncio.current_task(), NAME.get()))

    await outside_tasks(tell)
    assert log == ["went on", (task, "the task"), "told", (None, "nobody")]
    assert task.done()


async def test_told_the_task_goes_on_in_the_next_turn() -> None:
    log: list[Any] = []
    waiter = ready()
    await waiting_task(log, waiter)
    waiter.wake()
    assert log == []
    await ticks(1)
    assert log[0] == "went on"


async def test_told_now_by_another_task_it_goes_on_in_the_next_turn() -> None:
    log: list[Any] = []
    waiter = ready()
    await waiting_task(log, waiter)
    waiter.wake_now()
    assert log == []
    await ticks(1)
    assert log[0] == "went on"


@pytest.mark.parametrize("wake", [ReadWaiter.wake, ReadWaiter.wake_now])
async def test_told_before_anybody_waits_nobody_has_to(wake: Callable[[ReadWaiter], None]) -> None:
    waiter = ready()
    wake(waiter)
    wake(waiter)
    assert waiter.done()
    await waiter


async def test_it_is_told_once() -> None:
    log: list[Any] = []
    waiter = ready()
    await waiting_task(log, waiter)
    waiter.wake()
    waiter.wake()
    await outside_tasks(waiter.wake_now)
    await ticks()
    assert log.count("went on") == 1


async def test_a_task_that_is_cancelled_stops_waiting_and_is_told_nothing_more() -> None:
    log: list[Any] = []
    waiter = ready()
    task = await waiting_task(log, waiter)
    task.cancel("enough")
    await outside_tasks(waiter.wake_now)
    await ticks()
    assert waiter.cancelled()
    assert task.cancelled()
    assert isinstance(log[0], asyncio.CancelledError)
    assert log[0].args == ("enough",)
    assert not waiter.cancel()


async def test_a_task_that_is_cancelled_when_it_was_told_is_cancelled_all_the_same() -> None:
    log: list[Any] = []
    waiter = ready()
    task = await waiting_task(log, waiter)
    waiter.wake()
    task.cancel()
    await ticks()
    assert task.cancelled()


async def test_wait_for_and_timeouts_end_the_waiting() -> None:
    waiter = ready()

    async def wait() -> None:
        await waiter

    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(wait(), 0.001)
    assert waiter.cancelled()


async def test_two_cannot_wait_for_the_same() -> None:
    waiter = ready()
    task = await waiting_task([], waiter)

    async def wait() -> None:
        await waiter

    with pytest.raises(RuntimeError, match="one task waits here"):
        await wait()
    waiter.wake()
    await task


async def test_a_callback_can_be_taken_back() -> None:
    waiter, log = ready(), []  # type: ignore[var-annotated]
    waiter.add_done_callback(log.append, context=contextvars.copy_context())
    assert waiter.remove_done_callback(print) == 0
    assert waiter.remove_done_callback(log.append) == 1
    waiter.wake()
    await ticks()
    assert log == []


async def test_there_is_no_result_before_it_was_told() -> None:
    waiter = ready()
    with pytest.raises(asyncio.InvalidStateError):
        waiter.result()
    waiter.wake()
    assert waiter.result() is None  # type: ignore[func-returns-value]


# --- in a connection ------------------------------------------------------------------------------


async def echoing(conn: plumews.Conn) -> None:
    async for message in conn:
        await conn.send(message)


async def test_a_handler_answers_a_read_while_it_is_handled_in_one_write() -> None:
    conn, transport = fake_conn()
    task = asyncio.create_task(echoing(conn))
    await ticks()
    await outside_tasks(lambda: feed(conn, text("a"), text("b"), text("c")))
    assert [payload for _, payload in transport.events()] == ["a", "b", "c"]
    assert len(transport.writes) == 1
    conn.abort()
    with pytest.raises(plumews.ConnectionClosedError):
        await task


async def test_a_handler_that_closes_there_and_then_sees_no_more_of_the_read() -> None:
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


async def test_a_handler_that_raises_there_and_then_leaves_the_connection_as_it_is() -> None:
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
