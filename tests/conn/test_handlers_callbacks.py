"""Callbacks of a connection, and arguments that are neither a handler nor callbacks."""

from __future__ import annotations

import asyncio
import functools

import pytest

import plumews
from plumews.conn.handlers import CallbackEndpoint, HandlerEndpoint, endpoint_for
from support.raw_client import Wire, close, text, upgrade


def entries(caplog):
    return [record for record in caplog.records if record.name != "asyncio" or record.levelname == "ERROR"]


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
async def test_failing_callback_closes_with_1011_and_logs_once(start, caplog, which):
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


async def test_failing_on_close_is_logged_once(start, caplog):
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


async def test_send_of_a_callback_on_its_closed_connection_is_quiet(start, caplog):
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


# --- wrong arguments ------------------------------------------------------------------------------


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
def test_callback_with_wrong_parameters_is_a_type_error(arguments, text):
    with pytest.raises(TypeError, match=text):
        plumews.serve(host="127.0.0.1", port=0, **arguments)


def test_function_without_a_signature_is_accepted():
    assert isinstance(endpoint_for(None, None, dict.update, None), CallbackEndpoint)
    assert isinstance(endpoint_for(functools.partial(two_arguments, path="/"), None, None, None), HandlerEndpoint)


def test_plain_functions_methods_and_classes_are_callbacks():
    class Game:
        def on_message(self, conn, message): ...

        def __call__(self, conn): ...

    assert isinstance(endpoint_for(None, Game(), Game().on_message, print), CallbackEndpoint)
    assert isinstance(endpoint_for(AsyncCallable(), None, None, None), HandlerEndpoint)


async def test_plain_function_as_handler_is_named_in_the_log(start, caplog):
    server = await start(plumews.serve(lambda conn: None, "127.0.0.1", 0))
    async with await Wire.open(server) as wire:
        assert await wire.closing() == (1011, "the handler failed")
    assert "the handler must be an `async def` function: it returned None" in caplog.text
