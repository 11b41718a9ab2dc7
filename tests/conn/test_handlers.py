"""Handler coroutines: close codes, log entries, cancellation and groups of exceptions."""

from __future__ import annotations

import asyncio
import builtins
import subprocess
import sys

import anyio
import pytest

import plumews
from support.fakes import until
from support.raw_client import Wire, close, text, upgrade


def entries(caplog):
    return [record for record in caplog.records if record.name != "asyncio" or record.levelname == "ERROR"]


# --- handlers -------------------------------------------------------------------------------------


async def test_a_handler_that_returns_closes_with_1000(start):
    async def handler(conn):
        await conn.send(await conn.recv())

    server = await start(plumews.serve(handler, "127.0.0.1", 0))
    async with await Wire.open(server) as wire:
        wire.send(text("one"))
        assert await wire.message() == "one"
        assert await wire.closing() == (1000, "")
        wire.send(close())
        await wire.eof()


async def test_failing_handler_closes_with_1011_and_logs_once(start, caplog):
    async def handler(conn):
        async for message in conn:
            if message == "fail":
                raise RuntimeError("broken handler")
            await conn.send(message)

    server = await start(plumews.serve(handler, "127.0.0.1", 0))
    async with await Wire.open(server) as good, await Wire.open(server) as bad:
        bad.send(text("fail"))
        assert await bad.closing() == (1011, "the handler failed")
        good.send(text("alive"))
        assert await good.message() == "alive"
    (entry,) = entries(caplog)
    assert entry.name == "plumews.server"
    assert entry.exc_info[1].args == ("broken handler",)


async def test_a_handler_whose_connection_ended_has_not_failed(start, caplog):
    ended = []

    async def handler(conn):
        try:
            while True:
                await conn.recv()
        except plumews.ConnectionClosed as exc:
            ended.append(exc)
            raise

    server = await start(plumews.serve(handler, "127.0.0.1", 0))
    for leave in (lambda wire: wire.send(close()), lambda wire: wire.send(b"\xff\xff"), lambda wire: wire.reset()):
        async with await Wire.open(server) as wire:
            leave(wire)
            await wire.eof()
    server.close()
    await server.wait_closed()
    assert [type(exc) for exc in ended] == [
        plumews.ConnectionClosedOK,
        plumews.ConnectionClosedError,
        plumews.ConnectionClosedError,
    ]
    assert entries(caplog) == []


async def cancelled_future():
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


async def cancelled_by_the_application():
    task = asyncio.current_task()
    asyncio.get_running_loop().call_soon(task.cancel)
    await asyncio.Event().wait()


async def cancelled_in_a_group():
    raise builtins.BaseExceptionGroup("a driver", [asyncio.CancelledError(), asyncio.CancelledError()])


@pytest.mark.parametrize(
    "fail",
    [
        cancelled_future,
        cancelled_by_the_application,
        pytest.param(cancelled_in_a_group, marks=pytest.mark.skipif(sys.version_info < (3, 11), reason="no groups")),
    ],
)
async def test_foreign_cancellation_of_a_handler_is_a_failure(start, caplog, fail):
    async def handler(conn):
        await fail()

    server = await start(plumews.serve(handler, "127.0.0.1", 0))
    async with await Wire.open(server) as wire:
        assert await wire.closing() == (1011, "the handler failed")
    (entry,) = entries(caplog)
    assert entry.message.startswith("the handler failed")


async def test_cancelled_iterator_given_to_send_is_a_failure(start, caplog):
    async def pieces():
        yield "half"
        await cancelled_future()

    async def handler(conn):
        await conn.send(pieces())

    server = await start(plumews.serve(handler, "127.0.0.1", 0))
    async with await Wire.open(server) as wire:
        assert (await wire.closing())[0] == 1011
    assert len(entries(caplog)) == 1


async def test_cancelled_predicate_of_a_broadcast_is_a_failure(start, caplog):
    hub = plumews.Hub()

    def where(conn):
        raise asyncio.CancelledError

    async def handler(conn):
        hub.join("room", conn)
        await hub.publish("room", "news", where=where)

    server = await start(plumews.serve(handler, "127.0.0.1", 0))
    async with hub, await Wire.open(server) as wire:
        assert await wire.closing() == (1011, "the handler failed")
    assert len(entries(caplog)) == 1


@pytest.mark.parametrize("which", ["on_open", "on_message", "on_close"])
async def test_cancellation_out_of_a_callback_is_a_failure(start, caplog, which):
    def fail(*args):
        raise asyncio.CancelledError

    callbacks = {"on_message": lambda conn, message: None, which: fail}
    server = await start(plumews.serve(host="127.0.0.1", port=0, **callbacks))
    async with await Wire.open(server) as wire:
        wire.send(text("m"), close() if which == "on_close" else b"")
        if which != "on_close":
            assert await wire.closing() == (1011, "the handler failed")
            wire.send(close())
        await wire.eof()
        await until(lambda: not server._context.connections)
    (entry,) = entries(caplog)
    assert entry.message.startswith("a callback failed")


async def test_cancellation_by_the_server_is_silent(start, caplog):
    stuck = asyncio.Event()

    async def handler(conn):
        stuck.set()
        await asyncio.Event().wait()

    server = await start(plumews.serve(handler, "127.0.0.1", 0, close_timeout=0.05))
    async with await Wire.open(server) as wire:
        await stuck.wait()
        server.close()
        await server.wait_closed()
        await wire.eof()
    assert [record.levelname for record in entries(caplog)] == ["WARNING"]  # that stopping took long


ENDED = """
import asyncio, socket, plumews

async def main():
    running = asyncio.Event()

    async def handler(conn):
        running.set()
        await asyncio.Event().wait()

    server = await plumews.serve(handler, "127.0.0.1", 0)
    client = socket.create_connection(("127.0.0.1", server.port))
    client.sendall(UPGRADE)
    await running.wait()

asyncio.run(main())
"""


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tasks do not tell that they are cancelled")
def test_cancellation_by_the_end_of_the_program_is_silent():
    code = ENDED.replace("UPGRADE", repr(upgrade()))
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert "failed" not in ended.stderr


class Group(Exception):
    """Group such as that of the `exceptiongroup` package on Python 3.10."""

    def __init__(self, *exceptions):
        super().__init__("a group")
        self.exceptions = exceptions


@pytest.mark.parametrize("nested", [False, True])
async def test_group_of_connection_closed_is_an_ordinary_end(start, caplog, nested):
    left = []

    async def handler(conn):
        try:
            await conn.recv()
        except plumews.ConnectionClosed as exc:
            left.append(exc)
            raise (Group(exc, Group(exc, asyncio.CancelledError())) if nested else Group(exc)) from None

    server = await start(plumews.serve(handler, "127.0.0.1", 0))
    async with await Wire.open(server) as wire:
        wire.send(close(1001))
        await wire.eof()
    await until(lambda: not server._context.tasks)
    assert len(left) == 1
    assert entries(caplog) == []


async def test_group_of_anything_else_is_logged_once(start, caplog):
    async def handler(conn):
        try:
            await conn.recv()
        except plumews.ConnectionClosed as exc:
            raise Group(exc, Group(exc, KeyError("mine"))) from None

    server = await start(plumews.serve(handler, "127.0.0.1", 0))
    async with await Wire.open(server) as wire:
        wire.send(close(1001))
        await wire.eof()
    await until(lambda: not server._context.tasks)
    assert len(entries(caplog)) == 1


async def test_group_on_an_open_connection_is_a_failure(start, caplog):
    async def handler(conn):
        raise Group(plumews.ConnectionClosedOK(None, None))  # of another connection

    server = await start(plumews.serve(handler, "127.0.0.1", 0))
    async with await Wire.open(server) as wire:
        assert await wire.closing() == (1011, "the handler failed")
    assert len(entries(caplog)) == 1


@pytest.mark.parametrize("group", ["asyncio", "anyio"])
async def test_leave_inside_a_task_group_is_an_ordinary_end(start, caplog, group):
    if group == "asyncio" and sys.version_info < (3, 11):
        pytest.skip("no task groups")

    async def ticks(conn):
        while True:
            await conn.send("tick")
            await asyncio.sleep(0.001)  # the pace of the ticks

    async def handler(conn):
        if group == "asyncio":
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(conn.recv())
                tasks.create_task(ticks(conn))
        else:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(conn.recv)
                tasks.start_soon(ticks, conn)

    server = await start(plumews.serve(handler, "127.0.0.1", 0))
    async with await Wire.open(server) as wire:
        await wire.message()
        wire.send(close(1001))
        await wire.eof()
    await until(lambda: not server._context.tasks)
    assert entries(caplog) == []


async def test_connection_closed_of_another_connection_is_a_failure(start, caplog):
    first = asyncio.get_running_loop().create_future()

    async def handler(conn):
        if not first.done():
            first.set_result(conn)
            await conn.wait_closed()
            return
        await conn.recv()
        await first.result().send("are you there?")

    server = await start(plumews.serve(handler, "127.0.0.1", 0))
    async with await Wire.open(server) as gone:
        (await first).abort()
        await gone.eof()
    async with await Wire.open(server) as wire:
        wire.send(text("ask"))
        assert await wire.closing() == (1011, "the handler failed")
    assert len(entries(caplog)) == 1


async def test_plain_function_as_handler_fails_when_it_is_called(start, caplog):
    server = await start(plumews.serve(lambda conn: None, "127.0.0.1", 0))
    async with await Wire.open(server) as wire:
        assert await wire.closing() == (1011, "the handler failed")
    assert len(entries(caplog)) == 1


async def test_a_handler_knows_its_request_its_answer_and_its_peer(start):
    known = asyncio.get_running_loop().create_future()

    async def handler(conn):
        known.set_result(
            (conn.request.path, dict(conn.request.query), conn.request.headers["X-Mine"], conn.response.status)
        )
        assert conn.remote_address == peer
        assert conn.local_address[1] == server.port
        assert conn.subprotocol is None
        assert conn.user_info is None
        assert not conn.request.secure

    server = await start(plumews.serve(handler, "127.0.0.1", 0))
    wire = await Wire.connect(server)
    async with wire:
        peer = wire.writer.get_extra_info("sockname")
        wire.writer.write(upgrade("/a%20path?room=blue&room=red&empty=", "X-Mine: 1"))
        await wire.read_head()
        assert await known == ("/a path", {"room": "blue", "empty": ""}, "1", 101)
        assert await wire.closing() == (1000, "")
