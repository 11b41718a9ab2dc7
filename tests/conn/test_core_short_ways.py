"""Short ways of a connection where callbacks, signals and a lack of memory come between them."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import weakref
from collections.abc import Callable

import pytest

from plumews import Conn, ConnectionClosedError, limits
from plumews.conn.receiver import deliver_to
from plumews.constants import Opcode, State
from support.fakes import fake_conn, feed, ticks
from support.raw_client import close, masked, text


def ignore(conn: Conn, exc: BaseException) -> None:
    """Take the exception of a callback."""


def call(conn: Conn, function: Callable[[str | bytes], object]) -> None:
    """Call ``function`` with each message of ``conn``."""
    deliver_to(conn, lambda conn, message: function(message), ignore)


# --- a transport that is wrong --------------------------------------------------------------------


async def test_no_byte_behind_the_receive_buffer_is_read() -> None:
    conn, _ = fake_conn(max_queue=1000, max_queue_bytes=1 << 20)
    room = conn.get_buffer(-1)
    message = masked(Opcode.BINARY, bytes(993))  # of 1,001 bytes, the last of which is cut
    whole = len(room) // len(message)
    room[:] = (message * (whole + 1))[: len(room)]
    conn.buffer_updated(len(room) + len(message))
    assert len(conn._inbox) == whole
    conn.abort()


# --- a read within a read -------------------------------------------------------------------------


@pytest.mark.parametrize("nested", [1, 3])
async def test_read_inside_a_callback_spares_unread_messages(nested: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FAN_OUT_SLICE", 3600.0)  # a busy machine would hear some of them later
    outer, _ = fake_conn()
    inner, _ = fake_conn()
    heard: list[str | bytes] = []
    call(inner, heard.append)

    def relay(message: str | bytes) -> None:
        heard.append(message)
        for _ in range(nested):
            feed(inner, text(f"<{message!r}>"), text("-" * 200))

    call(outer, relay)
    feed(outer, *[text(str(number)) for number in range(5)])
    expected: list[str | bytes] = []
    for number in range(5):
        expected += [str(number), *[f"<{str(number)!r}>", "-" * 200] * nested]
    assert heard == expected
    outer.abort()
    inner.abort()


async def test_read_of_its_own_connection_in_a_callback_comes_later() -> None:
    conn, _ = fake_conn()
    heard: list[str | bytes] = []
    stream = text("one") + text("two") + text("three") + text("four")
    first, second = stream[:20], stream[20:]  # inside a frame

    def relay(message: str | bytes) -> None:
        heard.append(message)
        if message == "one":
            feed(conn, second[:5])
            feed(conn, second[5:])

    call(conn, relay)
    feed(conn, first)
    await ticks()
    assert heard == ["one", "two", "three", "four"]
    assert conn.state is State.OPEN
    conn.abort()


# --- the end --------------------------------------------------------------------------------------


async def test_ping_that_waits_is_told_that_a_message_was_cut() -> None:
    conn, _ = fake_conn()
    feed(conn, text("cut")[:-1])
    pong = await conn.ping()
    conn.connection_lost(ConnectionResetError())
    with pytest.raises(ConnectionClosedError, match="a message was cut"):
        await pong


async def test_reader_that_was_woken_keeps_no_context() -> None:
    class Value:
        pass

    conn, _ = fake_conn()
    variable: contextvars.ContextVar[Value] = contextvars.ContextVar("variable")

    async def handler() -> weakref.ref[Value]:
        value = Value()
        variable.set(value)
        assert await conn.recv() == "a"
        return weakref.ref(value)

    gc.disable()
    try:
        task = asyncio.create_task(handler())
        await ticks()
        feed(conn, text("a"))
        gone = await task
        del task
        await ticks()
        assert gone() is None
    finally:
        gc.enable()
    conn.abort()


# --- exceptions that are not the connection's -----------------------------------------------------


async def test_parser_keeps_its_place_after_an_interrupt() -> None:
    conn, _ = fake_conn()
    heard: list[str | bytes] = []

    def interrupted(message: str | bytes) -> None:
        heard.append(message)
        if message == "a":
            raise KeyboardInterrupt

    call(conn, interrupted)
    cut = text("cut in two")
    with pytest.raises(KeyboardInterrupt):
        feed(conn, text("a"), cut[:9])
    feed(conn, cut[9:], text("b"))
    assert heard == ["a", "cut in two", "b"]
    assert conn.state is State.OPEN
    conn.abort()


# --- the end --------------------------------------------------------------------------------------


async def test_close_frame_behind_an_abort_is_not_heard() -> None:
    conn, _ = fake_conn()
    call(conn, lambda message: conn.abort())
    feed(conn, text("a"), text("b"), close(1000))
    await ticks()
    assert conn.close_code == 1006
