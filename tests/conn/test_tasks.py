"""Tasks of handlers and readers, as asyncio, debuggers and task factories see them."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import anyio
import pytest

import plumews
from plumews import Conn
from support.fakes import started, ticks, until
from support.raw_client import Wire, text

pytestmark = pytest.mark.anyio


async def by_recv(conn: Conn) -> str | bytes:
    return await conn.recv()


async def by_iteration(conn: Conn) -> str | bytes:
    async for message in conn:
        return message
    raise AssertionError("the connection has ended")


READERS: list[Callable[[Conn], Coroutine[Any, Any, str | bytes]]] = [by_recv, by_iteration]

each_reader = pytest.mark.parametrize("read", READERS)


@contextlib.asynccontextmanager
async def handled(
    start: Any, handler: Callable[[Conn], Awaitable[None]]
) -> AsyncIterator[tuple[asyncio.Task[Any], Conn, Wire]]:
    """The task of a handler that waits, its connection, and its client."""
    running: list[tuple[asyncio.Task[Any], Conn]] = []

    async def handle(conn: Conn) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.append((task, conn))
        await handler(conn)

    server = await start(plumews.serve(handle, "127.0.0.1", 0))
    async with await Wire.open(server) as wire:
        await until(lambda: running)
        await ticks()
        task, conn = running.pop()
        yield task, conn, wire


@contextlib.asynccontextmanager
async def opened(start: Any, **options: Any) -> AsyncIterator[tuple[Conn, Wire]]:
    """A connection that its handler does not read, and its client."""
    conns: list[Conn] = []

    async def handler(conn: Conn) -> None:
        conns.append(conn)
        ended = asyncio.Event()
        conn.add_close_callback(lambda conn: ended.set())
        await ended.wait()

    server = await start(plumews.serve(handler, "127.0.0.1", 0, **options))
    async with await Wire.open(server) as wire:
        await until(lambda: conns)
        yield conns.pop(), wire


# --- the iteration of the loop --------------------------------------------------------------------


def send_now(wire: Wire, frame: bytes) -> None:
    """Write past the transport, which may wait for the next iteration."""
    assert os.write(wire.writer.get_extra_info("socket").fileno(), frame) == len(frame)


class Iterations:
    """Counter of the loop's iterations, which also sends at the beginning of one: no read lies between."""

    def __init__(self) -> None:
        self.count = 0
        self._to_send: tuple[Wire, bytes] | None = None
        self._sent = 0
        self._next()

    def _next(self) -> None:
        self.count += 1
        if self._to_send is not None:
            wire, frame = self._to_send
            self._to_send, self._sent = None, self.count
            send_now(wire, frame)
        self._handle = asyncio.get_running_loop().call_soon(self._next)

    def send(self, wire: Wire, frame: bytes) -> None:
        self._to_send = wire, frame

    def passed(self) -> int:
        """Return the iterations since the frame was sent."""
        return self.count - self._sent

    def end(self) -> None:
        self._handle.cancel()


@each_reader
async def test_reader_runs_in_the_iteration_of_its_read(start: Any, read: Any) -> None:
    passed: dict[str, list[int]] = {"callback": [], "reader": []}
    server = await start(
        plumews.serve(
            on_message=lambda conn, message: passed["callback"].append(iterations.passed()), host="127.0.0.1", port=0
        )
    )
    async with opened(start) as (conn, wire), await Wire.open(server) as called:
        iterations = Iterations()

        async def reading() -> None:
            for _ in range(20):
                await read(conn)
                passed["reader"].append(iterations.passed())

        reader = started(reading())
        await ticks()
        for number in range(20):
            iterations.send(called, text("to the callback"))
            await until(lambda at=number: len(passed["callback"]) > at)  # type: ignore[misc]
            iterations.send(wire, text("to the reader"))
            await until(lambda at=number: len(passed["reader"]) > at)  # type: ignore[misc]
        await reader
        iterations.end()
    # A callback runs within the read. A busy kernel may deliver a frame later, so the fastest of each is compared.
    assert min(passed["reader"]) == min(passed["callback"])


async def test_woken_reader_leaves_the_next_reader_its_own_task(start: Any) -> None:
    seen: list[bool] = []

    async def reading(conn: Conn, own: list[asyncio.Task[Any]]) -> None:
        for _ in range(3):
            await conn.recv()
            seen.append(asyncio.current_task() is own[0])
            await conn.send("told")
            seen.append(asyncio.current_task() is own[0])

    async with opened(start) as (one, first), opened(start) as (other, second):
        tasks = []
        for conn in (one, other):
            own: list[asyncio.Task[Any]] = []
            own.append(asyncio.create_task(reading(conn, own)))
            tasks += own
        await ticks()
        for _ in range(3):
            for wire in (first, second):  # both reads are in one iteration
                send_now(wire, text("x"))
            for wire in (first, second):
                assert await wire.message() == "told"
        await asyncio.gather(*tasks)
    assert seen == [True] * 12


# --- what tasks show of themselves ----------------------------------------------------------------


async def waits_in_recv(conn: Conn) -> None:
    await conn.recv()


async def waits_in_iteration(conn: Conn) -> None:
    async for _ in conn:
        pass


def awaited_by(coroutine: Any) -> list[str]:
    """Return the names of the coroutines from the outermost to the innermost."""
    names = []
    while hasattr(coroutine, "cr_frame"):
        names.append(coroutine.cr_code.co_name)
        coroutine = coroutine.cr_await
    return names


WAITING = [waits_in_recv, waits_in_iteration]


@pytest.mark.parametrize("handler", WAITING)
async def test_task_of_a_waiting_handler_has_a_stack(start: Any, handler: Any) -> None:
    async with handled(start, handler) as (task, _, _):
        assert len(task.get_stack()) == 1
        out = io.StringIO()
        task.print_stack(file=out)
        assert "the coroutine" not in out.getvalue()
        assert out.getvalue().startswith("Stack for <")
        assert task in asyncio.all_tasks()


@pytest.mark.parametrize("handler", WAITING)
async def test_coroutine_of_a_task_leads_to_its_handler(start: Any, handler: Any) -> None:
    async with handled(start, handler) as (task, _, wire):
        coroutine = task.get_coro()
        assert asyncio.iscoroutine(coroutine)
        assert awaited_by(coroutine)[-1] == handler.__name__
        wire.send(text("x"))
        if handler is waits_in_recv:
            await until(task.done)


async def test_task_of_a_reader_has_its_awaitable_as_coroutine(start: Any) -> None:
    async with opened(start) as (conn, wire):
        reading = conn.recv()
        task: asyncio.Task[Any] = asyncio.create_task(reading)
        await ticks()
        assert task.get_coro() is reading
        assert "pending" in repr(task)
        assert isinstance(task.get_stack(), list)
        wire.send(text("x"))
        assert await task == "x"
        assert "finished" in repr(task)


# --- timeouts -------------------------------------------------------------------------------------


async def under_timeout(read: Any, conn: Conn, seconds: float) -> Any:
    async with asyncio.timeout(seconds):
        return await read(conn)


async def under_wait_for(read: Any, conn: Conn, seconds: float) -> Any:
    return await asyncio.wait_for(read(conn), seconds)


async def under_fail_after(read: Any, conn: Conn, seconds: float) -> Any:
    with anyio.fail_after(seconds):
        return await read(conn)


async def under_wait(read: Any, conn: Conn, seconds: float) -> Any:
    reader: asyncio.Task[Any] = asyncio.create_task(read(conn))
    done, _ = await asyncio.wait({reader}, timeout=seconds)
    if done:
        return reader.result()
    reader.cancel()
    try:
        return await reader
    except asyncio.CancelledError:
        raise TimeoutError from None


BOUNDS = [under_wait_for, under_fail_after, under_wait]
if sys.version_info >= (3, 11):
    BOUNDS.append(under_timeout)
bound = pytest.mark.parametrize("bounded", BOUNDS)


@each_reader
@bound
async def test_bound_on_a_read_ends_it_and_no_more(start: Any, read: Any, bounded: Any) -> None:
    async with opened(start) as (conn, wire):
        for number in range(3):
            with pytest.raises((TimeoutError, asyncio.TimeoutError)):
                await bounded(read, conn, 0.001)
            wire.send(text(str(number)))
            assert await bounded(read, conn, 30) == str(number)
        assert not conn.closed


@each_reader
@bound
async def test_bounds_that_race_with_messages_lose_none(start: Any, read: Any, bounded: Any) -> None:
    async with opened(start) as (conn, wire):
        expected = [str(number) for number in range(60)]
        got: list[Any] = []
        timeouts = 0

        async def sending() -> None:
            for message in expected:
                wire.send(text(message))
                await asyncio.sleep(0.001)  # as long as the bound: whichever comes first

        sender = asyncio.create_task(sending())
        while len(got) < len(expected):
            try:
                got.append(await bounded(read, conn, 0.001))
            except (TimeoutError, asyncio.TimeoutError):
                timeouts += 1
        await sender
        assert got == expected


@each_reader
async def test_reader_cancelled_while_its_message_is_read_loses_none(start: Any, read: Any) -> None:
    async with opened(start) as (conn, wire):
        loop = asyncio.get_running_loop()
        got: list[Any] = []
        for number in range(50):
            reader: asyncio.Task[Any] = asyncio.create_task(read(conn))
            await ticks()
            send_now(wire, text(str(number)))
            if number % 2:
                loop.call_soon(reader.cancel)
            else:
                reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                got.append(await reader)
        while len(got) < 50:
            got.append(await asyncio.wait_for(read(conn), 30))
        assert got == [str(number) for number in range(50)]


# --- a wait for one of several --------------------------------------------------------------------


async def test_first_of_a_message_and_an_event_keeps_the_other(start: Any) -> None:
    async with opened(start) as (conn, wire):
        event = asyncio.Event()
        reader: asyncio.Task[Any] = asyncio.create_task(conn.recv())
        told: asyncio.Task[Any] = asyncio.create_task(event.wait())
        event.set()
        done, pending = await asyncio.wait({reader, told}, return_when=asyncio.FIRST_COMPLETED)
        assert (done, pending) == ({told}, {reader})
        wire.send(text("later"))
        assert await reader == "later"


async def test_sends_complete_under_wait_and_as_completed(start: Any) -> None:
    async with opened(start) as (conn, wire):
        done, pending = await asyncio.wait({asyncio.create_task(conn.send("a"))})
        assert (len(done), pending) == (1, set())
        for each in asyncio.as_completed([conn.send("b"), conn.send("b")]):
            await each
        assert [await wire.message() for _ in range(3)] == ["a", "b", "b"]


async def test_awaitables_of_another_thread_run_on_the_loop(start: Any) -> None:
    async with opened(start) as (conn, wire):
        loop = asyncio.get_running_loop()

        def elsewhere() -> Any:
            asyncio.run_coroutine_threadsafe(conn.send("from a thread"), loop).result(30)
            return asyncio.run_coroutine_threadsafe(conn.recv(), loop).result(30)

        told = loop.run_in_executor(None, elsewhere)
        assert await wire.message() == "from a thread"
        wire.send(text("to a thread"))
        assert await told == "to a thread"


@pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio.TaskGroup is new in Python 3.11")
async def test_task_group_takes_reads_and_sends(start: Any) -> None:
    async with opened(start) as (conn, wire):
        async with asyncio.TaskGroup() as group:
            reader = group.create_task(conn.recv())
            group.create_task(conn.send("sent"))
            wire.send(text("received"))
        assert reader.result() == "received"
        assert await wire.message() == "sent"


async def test_anyio_scope_that_is_cancelled_loses_no_message(start: Any) -> None:
    async with opened(start) as (conn, wire):
        got: list[Any] = []

        async def reading() -> None:
            got.append(await conn.recv())

        async with anyio.create_task_group() as group:
            group.start_soon(reading)
            await ticks()
            group.cancel_scope.cancel()
        assert got == []
        wire.send(text("kept"))
        async with anyio.create_task_group() as group:
            group.start_soon(reading)
        assert got == ["kept"]


# --- factories of tasks, and debug mode -----------------------------------------------------------


@contextlib.contextmanager
def factory_of_tasks(make: Callable[..., Any]) -> Any:
    loop = asyncio.get_running_loop()
    loop.set_task_factory(make)
    try:
        yield
    finally:
        loop.set_task_factory(None)


async def check_echo(start: Any) -> None:
    async def handler(conn: Conn) -> None:
        async for message in conn:
            await conn.send(message)
            assert await asyncio.create_task(conn.recv()) == "for a task"
            await asyncio.gather(conn.send("a"), conn.send("b"))
            with pytest.raises((TimeoutError, asyncio.TimeoutError)):
                await asyncio.wait_for(conn.recv(), 0.001)
            await conn.send("timeout")

    server = await start(plumews.serve(handler, "127.0.0.1", 0))
    async with await Wire.open(server) as wire:
        for number in range(5):
            wire.send(text(str(number)))
            assert await wire.message() == str(number)
            wire.send(text("for a task"))
            assert [await wire.message() for _ in range(3)] == ["a", "b", "timeout"]


async def test_plain_python_tasks_read_and_send(start: Any) -> None:
    made: list[Any] = []

    def make(loop: Any, coro: Any, **options: Any) -> Any:
        made.append(coro)
        return asyncio.tasks._PyTask(coro, loop=loop, **options)  # type: ignore[attr-defined]

    with factory_of_tasks(make):
        await check_echo(start)
    assert len(made) > 10


async def test_tasks_of_a_subclass_read_and_send(start: Any) -> None:
    class Task(asyncio.Task):  # type: ignore[type-arg]
        pass

    kinds: list[type] = []

    async def handler(conn: Conn) -> None:
        kinds.append(type(asyncio.current_task()))
        await conn.send(await conn.recv())
        kinds.append(type(asyncio.current_task()))

    with factory_of_tasks(lambda loop, coro, **options: Task(coro, loop=loop, **options)):
        await check_echo(start)
        server = await start(plumews.serve(handler, "127.0.0.1", 0))
        async with await Wire.open(server) as wire:
            wire.send(text("x"))
            assert await wire.message() == "x"
            await until(lambda: len(kinds) == 2)
    assert kinds == [Task, Task]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are new in Python 3.12")
async def test_eager_tasks_read_and_send(start: Any) -> None:
    with factory_of_tasks(asyncio.eager_task_factory):
        await check_echo(start)
        async with opened(start) as (conn, wire):
            wire.send(text("one"), text("two"))
            assert await conn.recv() == "one"
            reader = asyncio.create_task(conn.recv())
            assert reader.done()
            assert reader.result() == "two"
            sender = asyncio.create_task(conn.send("at once"))
            assert sender.done()
            assert await wire.message() == "at once"


async def test_debug_mode_of_the_loop_changes_nothing(start: Any, caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 60.0
    try:
        await check_echo(start)
        hub = plumews.Hub()
        server = await start(
            plumews.serve(
                on_open=lambda conn: hub.join("room", conn),
                on_message=lambda conn, message: hub.broadcast_room("room", message),
                host="127.0.0.1",
                port=0,
                compression="deflate",
            )
        )
        async with await Wire.open(server) as wire:
            wire.send(text("x"))
            assert await wire.message() == "x"
        server.close()
        await server.wait_closed()
    finally:
        loop.set_debug(False)
    assert [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")] == []
