"""Handlers and callbacks on open connections: how they begin, how they fail, and who notices."""

from __future__ import annotations

import asyncio
import builtins
import functools
import subprocess
import sys

import anyio
import pytest

import plumews
from plumews.conn.handlers import CallbackEndpoint, HandlerEndpoint, endpoint_for
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


async def test_section_8_point_15_a_handler_that_raises_closes_with_1011_logs_once_and_the_others_live(start, caplog):
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
    """Such as those of the `exceptiongroup` package on Python 3.10."""

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
            await asyncio.sleep(0.001)

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


async def test_a_handler_that_trips_over_another_connections_end_has_failed(start, caplog):
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


async def test_a_handler_that_is_no_coroutine_function_fails_at_the_first_connection_only(start, caplog):
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


# --- callbacks ------------------------------------------------------------------------------------


async def test_callbacks_are_called_in_order_with_the_same_connection(start):
    calls = []
    closed = asyncio.get_running_loop().create_future()
    server = await start(
        plumews.serve(
            host="127.0.0.1",
            port=0,
            on_open=lambda conn: calls.append(("open", conn, conn.state)),
            on_message=lambda conn, message: calls.append((message, conn, conn.state)),
            on_close=lambda conn: closed.set_result(calls.append(("close", conn, conn.state))),
        )
    )
    async with await Wire.open(server) as wire:
        wire.send(text("one"), text("two"), close(1001, "bye"))
        assert await wire.closing() == (1001, "")
    await closed
    conn = calls[0][1]
    assert calls == [
        ("open", conn, plumews.State.OPEN),
        ("one", conn, plumews.State.OPEN),
        ("two", conn, plumews.State.OPEN),
        ("close", conn, plumews.State.CLOSED),
    ]
    assert (conn.close_code, conn.close_reason) == (1001, "bye")


def broken(*args):
    raise RuntimeError("broken callback")


@pytest.mark.parametrize("which", ["on_open", "on_message"])
async def test_section_8_point_15_a_callback_that_raises_closes_with_1011_logs_once_and_the_others_live(
    start, caplog, which
):
    breaks = {"now": True}

    def maybe(conn, *message):
        if breaks["now"]:
            broken()
        for text_ in message:
            conn.send_nowait(text_)

    callbacks = {"on_message": lambda conn, message: conn.send_nowait(message), which: maybe}
    server = await start(plumews.serve(host="127.0.0.1", port=0, **callbacks))
    breaks["now"] = False
    async with await Wire.open(server) as good:
        breaks["now"] = True
        async with await Wire.open(server) as bad:
            bad.send(text("fail"), text("behind the failure"))
            assert await bad.closing() == (1011, "the handler failed")
        breaks["now"] = False
        good.send(text("alive"))
        assert await good.message() == "alive"
    (entry,) = entries(caplog)
    assert (entry.name, entry.exc_info[1].args) == ("plumews.server", ("broken callback",))


async def test_an_on_close_that_raises_is_logged_once_and_the_others_live(start, caplog):
    closed = asyncio.get_running_loop().create_future()

    def on_close(conn):
        closed.set_result(None)
        broken()

    server = await start(
        plumews.serve(
            host="127.0.0.1", port=0, on_message=lambda conn, message: conn.send_nowait(message), on_close=on_close
        )
    )
    async with await Wire.open(server) as good:
        async with await Wire.open(server) as bad:
            bad.reset()
        await closed
        good.send(text("alive"))
        assert await good.message() == "alive"
        (entry,) = entries(caplog)
        assert (entry.name, entry.exc_info[1].args) == ("plumews.server", ("broken callback",))
        closed = asyncio.get_running_loop().create_future()
    await closed


async def test_a_callback_that_sends_to_its_closed_connection_has_not_failed(start, caplog):
    closed = asyncio.get_running_loop().create_future()

    def on_message(conn, message):
        conn.close_nowait(1000, "enough")
        conn.send_nowait("one more")

    server = await start(
        plumews.serve(host="127.0.0.1", port=0, on_message=on_message, on_close=lambda conn: closed.set_result(None))
    )
    async with await Wire.open(server) as wire:
        wire.send(text("go"))
        assert await wire.closing() == (1000, "enough")
        wire.send(close())
    await closed
    assert entries(caplog) == []


@pytest.mark.parametrize("end", ["abort", "close_nowait"])
async def test_row_26_on_open_may_end_the_connection(start, caplog, end):
    calls = []
    closed = asyncio.get_running_loop().create_future()
    server = await start(
        plumews.serve(
            host="127.0.0.1",
            port=0,
            on_open=lambda conn: getattr(conn, end)(),
            on_message=lambda conn, message: calls.append(message),
            on_close=lambda conn: closed.set_result(None),
        )
    )
    async with await Wire.connect(server) as wire:
        wire.writer.write(upgrade() + text("glued"))
        if end == "close_nowait":
            await wire.read_head()
            assert await wire.closing() == (1000, "")
            wire.send(close())
        await closed
    assert calls == []
    assert entries(caplog) == []


# --- what is not an endpoint ----------------------------------------------------------------------


async def two_arguments(conn, path): ...


async def generator(conn):
    yield


async def coroutine_function(*args):
    raise AssertionError


class AsyncCallable:
    async def __call__(self, *args):
        raise AssertionError


@pytest.mark.parametrize("name", ["on_open", "on_message", "on_close"])
@pytest.mark.parametrize(
    "callback",
    [coroutine_function, functools.partial(coroutine_function, 1), AsyncCallable(), AsyncCallable().__call__, "text"],
    ids=["async_def", "partial", "async_object", "async_method", "text"],
)
def test_a_callback_that_could_wait_is_a_type_error_at_once(name, callback):
    callbacks = {"on_open": None, "on_message": lambda conn, message: None, "on_close": None, name: callback}
    with pytest.raises(TypeError, match=f"{name} must be a plain function"):
        plumews.serve(host="127.0.0.1", port=0, **callbacks)


def test_handler_and_callbacks_exclude_each_other():
    for name in ("on_open", "on_message", "on_close"):
        with pytest.raises(TypeError, match="not both"):
            plumews.serve(coroutine_function, "127.0.0.1", 0, **{name: print})


def test_one_of_handler_and_on_message_is_needed():
    with pytest.raises(TypeError, match="give a handler coroutine, or an on_message function"):
        plumews.serve(host="127.0.0.1", port=0, on_open=print)


def test_a_handler_must_be_callable():
    with pytest.raises(TypeError, match="the handler must be an `async def` function, not str"):
        plumews.serve("handler", "127.0.0.1", 0)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"handler": two_arguments}, r"the handler is called with \(conn\), but takes \(conn, path\)"),
        ({"on_message": lambda conn: None}, r"on_message is called with \(conn, message\), but takes \(conn\)"),
        ({"on_open": lambda: None, "on_message": print}, r"on_open is called with \(conn\), but takes \(\)"),
        ({"handler": generator}, "an `async def` function without yield"),
    ],
    ids=["handler", "on_message", "on_open", "generator"],
)
def test_what_cannot_be_called_as_it_will_be_is_a_type_error_at_once(arguments, text):
    with pytest.raises(TypeError, match=text):
        plumews.serve(host="127.0.0.1", port=0, **arguments)


def test_a_function_whose_arguments_nobody_knows_is_believed():
    assert isinstance(endpoint_for(None, None, dict.update, None), CallbackEndpoint)
    assert isinstance(endpoint_for(functools.partial(two_arguments, path="/"), None, None, None), HandlerEndpoint)


def test_plain_functions_methods_and_classes_are_callbacks():
    class Game:
        def on_message(self, conn, message): ...

        def __call__(self, conn): ...

    assert isinstance(endpoint_for(None, Game(), Game().on_message, print), CallbackEndpoint)
    assert isinstance(endpoint_for(AsyncCallable(), None, None, None), HandlerEndpoint)


async def test_a_handler_that_is_no_coroutine_function_is_said_to_be_none(start, caplog):
    server = await start(plumews.serve(lambda conn: None, "127.0.0.1", 0))
    async with await Wire.open(server) as wire:
        assert await wire.closing() == (1011, "the handler failed")
    assert "the handler must be an `async def` function: it returned None" in caplog.text
