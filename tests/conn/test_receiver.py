"""Receiving: whole messages, cancellation, the end, and limits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import plumews
from plumews import ConcurrencyError, ConnectionClosedError, ConnectionClosedOK, Opcode
from support.fakes import collect, fake_conn, feed, linked, started, ticks, until
from support.raw_client import Wire, close, masked, text

MiB = 1024 * 1024


# --- whole messages -------------------------------------------------------------------------------


SIZES = [0, 1, 125, 126, 127, 4096, 65535, 65536, 65537, 200_000, MiB]


@pytest.mark.parametrize("size", SIZES)
async def test_binary_of_any_size_arrives_unchanged(start: Any, size: int) -> None:
    payload = bytes(index % 251 for index in range(size % 100_000)) + bytes(size - size % 100_000)
    async with linked(start) as (conn, wire):
        wire.send(masked(Opcode.BINARY, payload), masked(Opcode.BINARY, payload), masked(Opcode.BINARY, payload))
        assert await conn.recv() == payload
        assert await conn.read_message() == (Opcode.BINARY, payload)
        assert await conn.__anext__() == payload


@pytest.mark.parametrize("size", SIZES)
async def test_text_of_any_size_arrives_unchanged(start: Any, size: int) -> None:
    message = ("grün€😀" * (size // 7 + 1))[:size]
    async with linked(start) as (conn, wire):
        wire.send(text(message), text(message), text(message))
        assert await conn.recv() == message
        assert await conn.read_message() == (Opcode.TEXT, message.encode())
        assert await conn.__anext__() == message


@pytest.mark.parametrize("pieces", [[b"", b"a"], [b"a", b""], [b"", b"", b""], [b"a", b"b", b"c"], [bytes(70_000)] * 3])
async def test_fragments_are_one_message(start: Any, pieces: list[bytes]) -> None:
    frames = [
        masked(Opcode.CONT if index else Opcode.BINARY, piece, fin=index == len(pieces) - 1)
        for index, piece in enumerate(pieces)
    ]
    async with linked(start) as (conn, wire):
        wire.send(*frames)
        assert await conn.read_message() == (Opcode.BINARY, b"".join(pieces))


async def test_a_character_cut_by_fragments_is_whole_again(start: Any) -> None:
    data = "€😀".encode()
    frames = [
        masked(Opcode.CONT if index else Opcode.TEXT, data[index : index + 1], fin=index == len(data) - 1)
        for index in range(len(data))
    ]
    async with linked(start) as (conn, wire):
        wire.send(*frames)
        assert await conn.recv() == "€😀"


async def test_a_message_byte_by_byte(start: Any) -> None:
    async with linked(start) as (conn, wire):
        frame = text("slowly")
        for index in range(len(frame)):
            wire.send(frame[index : index + 1])
            await ticks()
        assert await conn.recv() == "slowly"


async def test_recv_decodes_as_asked() -> None:
    conn, _ = fake_conn()
    for message in (text("grün"), masked(Opcode.BINARY, "grün".encode())):
        feed(conn, message * 3)
        assert await conn.recv(decode=True) == "grün"
        assert await conn.recv(decode=False) == "grün".encode()
        assert type(await conn.recv()) is (str if message is not None and message[0] == 0x81 else bytes)
    feed(conn, masked(Opcode.BINARY, b"\xff"))
    with pytest.raises(UnicodeDecodeError):
        await conn.recv(decode=True)
    conn.abort()


async def test_read_message_gives_the_opcode_by_name() -> None:
    conn, _ = fake_conn()
    feed(conn, text("a"), masked(Opcode.BINARY, b"b"))
    kinds = [(await conn.read_message())[0] for _ in range(2)]
    assert kinds == [Opcode.TEXT, Opcode.BINARY]
    assert all(isinstance(kind, Opcode) for kind in kinds)
    conn.abort()


async def test_iteration_does_not_suspend_while_messages_wait() -> None:
    conn, _ = fake_conn()
    feed(conn, *[text(str(index)) for index in range(100)])
    others = 0

    async def other() -> None:
        nonlocal others
        others += 1

    task = started(other())
    got = []
    async for message in conn:
        got.append(message)
        if len(got) == 100:
            break
    assert got == [str(index) for index in range(100)]
    assert others == 0
    await task
    conn.abort()


# --- the end --------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [1000, 1001, None])
async def test_iteration_ends_after_a_normal_end(start: Any, code: int | None) -> None:
    async with linked(start) as (conn, wire):
        wire.send(text("a"), text("b"), close(code, "" if code is None else "bye"))
        assert [message async for message in conn] == ["a", "b"]
        assert await wire.closing() == (code or 1005, "")
        await conn.wait_closed()
        assert (conn.close_code, conn.close_reason) == (code or 1005, "" if code is None else "bye")
        assert [message async for message in conn] == []
        with pytest.raises(ConnectionClosedOK):
            await conn.recv()


@pytest.mark.parametrize("code", [1002, 1011, 3000, 4999])
async def test_iteration_raises_after_an_abnormal_end(start: Any, code: int) -> None:
    async with linked(start) as (conn, wire):
        wire.send(text("a"), close(code, "why"))
        got: list[Any] = []
        with pytest.raises(ConnectionClosedError, match="why") as info:
            await collect(conn, got)
        assert got == ["a"]
        assert (info.value.code, info.value.reason) == (code, "why")
        assert "connection closed" in str(info.value)


async def test_messages_are_readable_after_the_close_of_the_peer(start: Any) -> None:
    async with linked(start) as (conn, wire):
        wire.send(text("a"), masked(Opcode.BINARY, b"b"), text("c"), close(1001, "gone"))
        await until(lambda: conn.close_code is not None)
        assert await conn.recv() == "a"
        assert await conn.read_message() == (Opcode.BINARY, b"b")
        async with await conn.read_stream() as stream:
            assert await stream.read_all() == b"c"
        with pytest.raises(ConnectionClosedOK) as info:
            await conn.recv()
        assert (info.value.code, info.value.reason) == (1001, "gone")


@pytest.mark.parametrize("how", ["eof", "reset"])
async def test_messages_are_readable_after_the_connection_was_lost(start: Any, how: str) -> None:
    async with linked(start) as (conn, wire):
        wire.send(text("a"), text("b"))
        await until(lambda: len(conn._inbox) == 2)
        if how == "eof":
            wire.writer.write_eof()
        else:
            wire.reset()
        await conn.wait_closed()
        assert conn.close_code == 1006
        assert [await conn.recv(), await conn.recv()] == ["a", "b"]
        with pytest.raises(ConnectionClosedError) as info:
            await conn.recv()
        assert info.value.code == 1006


@pytest.mark.parametrize("read", ["recv", "read_message", "read_stream"])
@pytest.mark.parametrize("end", ["close", "eof", "reset", "fault", "abort", "our close"])
async def test_waiting_reader_raises_after_each_kind_of_end(start: Any, read: str, end: str) -> None:
    options = {"close_timeout": 0.2} if end == "fault" else {}  # of which this peer hears nothing
    async with linked(start, **options) as (conn, wire):
        reader = started(getattr(conn, read)())
        await ticks()
        if end == "close":
            wire.send(close(1000))
        elif end == "eof":
            wire.writer.write_eof()
        elif end == "reset":
            wire.reset()
        elif end == "fault":
            wire.send(b"\xff\xff")
        elif end == "abort":
            conn.abort()
        else:
            conn.close_nowait()
            assert await wire.closing() == (1000, "")
            wire.send(close(1000))
        with pytest.raises(plumews.ConnectionClosed) as info:
            await reader
        assert isinstance(info.value, ConnectionClosedOK) is (end in ("close", "our close"))
        assert not conn._inbox.awaited
        await conn.wait_closed()


CUTS = {
    "between fragments": [masked(Opcode.BINARY, b"first", fin=False)],
    "inside a frame": [masked(Opcode.BINARY, bytes(100))[:50]],
    "inside a header": [masked(Opcode.BINARY, bytes(1000))[:3]],
}


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
@pytest.mark.parametrize("end", ["eof", "reset", "close"])
@pytest.mark.parametrize("read", ["recv", "read_message", "iteration"])
async def test_cut_message_raises_and_is_never_short(start: Any, cut: list[bytes], end: str, read: str) -> None:
    if end == "close" and cut is not CUTS["between fragments"]:
        cut = CUTS["between fragments"]  # only there is a close frame one
    async with linked(start) as (conn, wire):
        wire.send(text("whole"), *cut)
        if end == "eof":
            wire.writer.write_eof()
        elif end == "close":
            wire.send(close(1000))
        assert await conn.recv() == "whole"
        await until(lambda: conn._rules.parser.mid_message)
        if end == "reset":
            wire.reset()
        reading = collect(conn, []) if read == "iteration" else getattr(conn, read)()
        with pytest.raises(ConnectionClosedError, match="a message was cut"):
            await reading


async def test_message_above_the_limit_is_not_delivered(start: Any) -> None:
    async with linked(start, max_size=1000) as (conn, wire):
        wire.send(text("x" * 1000), text("y" * 1001), text("z"))
        got: list[Any] = []
        with pytest.raises(ConnectionClosedError, match="payload too large"):
            await collect(conn, got)
        assert got == ["x" * 1000]
        assert (await wire.closing())[0] == 1009


# --- one reader -----------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["recv", "read_message", "read_stream"])
@pytest.mark.parametrize("second", ["recv", "read_message", "read_stream", "__anext__"])
async def test_two_readers_at_once_are_an_error_for_the_second(first: str, second: str) -> None:
    conn, _ = fake_conn()
    reader = started(getattr(conn, first)())
    await ticks()
    with pytest.raises(ConcurrencyError, match="another task is already receiving"):
        await getattr(conn, second)()
    feed(conn, text("for the first"))
    result = await reader
    assert result in ("for the first", (Opcode.TEXT, b"for the first")) or isinstance(result, plumews.Stream)
    conn.abort()


async def test_second_reader_is_refused_while_the_first_wakes_up() -> None:
    conn, _ = fake_conn()
    reader = started(conn.recv())
    await ticks()
    feed(conn, text("a"), text("b"))
    with pytest.raises(ConcurrencyError):
        await conn.recv()
    assert await reader == "a"
    assert await conn.recv() == "b"
    conn.abort()


async def test_another_thread_is_a_concurrency_error() -> None:
    conn, _ = fake_conn()
    feed(conn, text("a"))
    errors: list[BaseException] = []

    def elsewhere(call: Callable[[], Any]) -> None:
        try:
            coroutine = call()
            if coroutine is not None:
                coroutine.send(None)
        except BaseException as exc:
            errors.append(exc)

    for name in ("recv", "read_message", "read_stream"):
        thread = threading.Thread(target=elsewhere, args=(getattr(conn, name),))
        thread.start()
        thread.join()
    assert [type(error) for error in errors] == [ConcurrencyError] * 3
    assert "belongs to the thread of its event loop" in str(errors[0])
    assert await conn.recv() == "a"
    conn.abort()


async def test_reading_beside_a_callback_is_an_error(start: Any) -> None:
    opened: asyncio.Future[plumews.Conn] = asyncio.get_running_loop().create_future()
    server = await start(
        plumews.serve(host="127.0.0.1", port=0, on_open=opened.set_result, on_message=lambda conn, message: None)
    )
    async with await Wire.open(server):
        conn = await opened
        for call in (conn.recv, conn.read_message, conn.read_stream):
            with pytest.raises(ConcurrencyError, match="on_message"):
                await call()


# --- cancellation ---------------------------------------------------------------------------------


@pytest.mark.parametrize("read", ["recv", "read_message", "read_stream"])
async def test_a_cancelled_reader_loses_no_message(read: str) -> None:
    conn, _ = fake_conn()
    for arrives_first in (False, True):
        reader = started(getattr(conn, read)())
        await ticks()
        if arrives_first:
            feed(conn, text("kept"))  # it has woken the reader, which is cancelled before it runs
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        if not arrives_first:
            feed(conn, text("kept"))
        assert await conn.recv() == "kept"
    conn.abort()


async def test_message_of_a_cancelled_read_stream_can_be_read() -> None:
    conn, _ = fake_conn()
    frame = masked(Opcode.TEXT, "first and second")
    readers: list[Callable[[], Awaitable[Any]]] = [conn.recv, conn.read_message, conn.read_stream]
    for read in readers:
        reader = started(conn.read_stream())
        await ticks()
        feed(conn, frame[:10])
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        again = started(read())
        await ticks()
        feed(conn, frame[10:])
        result = await again
        if isinstance(result, plumews.Stream):
            result = await result.read_all()
        assert result in ("first and second", b"first and second", (Opcode.TEXT, b"first and second"))
        assert conn._inbox.bytes == len(conn._inbox) == 0
    conn.abort()


async def test_reader_of_a_cancelled_stream_is_the_only_reader() -> None:
    conn, _ = fake_conn()
    frame = masked(Opcode.TEXT, "first and second")
    reader = started(conn.read_stream())
    await ticks()
    feed(conn, frame[:10])
    reader.cancel()
    await ticks()
    whole = started(conn.recv())
    await ticks()
    for read in (conn.recv, conn.read_message, conn.read_stream):
        with pytest.raises(ConcurrencyError):
            await read()
    feed(conn, frame[10:], text("next"))
    with pytest.raises(ConcurrencyError):  # it is complete, and belongs to the one who waited
        await conn.read_stream()
    assert await whole == "first and second"
    assert await conn.recv() == "next"
    conn.abort()


async def test_reading_with_a_timeout_loses_nothing(start: Any) -> None:
    messages = [str(index) for index in range(300)]

    async with linked(start) as (conn, wire):

        async def send() -> None:
            for message in messages:
                wire.send(text(message))
                await ticks(2)

        sender = started(send())
        got: list[Any] = []
        timeouts = 0
        while len(got) < len(messages):
            try:
                got.append(await asyncio.wait_for(conn.recv(), 0.0005))
            except asyncio.TimeoutError:
                timeouts += 1
        assert got == messages
        await sender


# --- limits ---------------------------------------------------------------------------------------


async def test_default_read_limit_is_16_mib_for_all_fragments(start: Any) -> None:
    half = bytes(8 * MiB)
    async with linked(start) as (conn, wire):
        assert conn.read_limit == 16 * MiB
        reader = started(conn.recv())
        wire.send(masked(Opcode.BINARY, half, fin=False), masked(Opcode.CONT, half))
        assert len(await reader) == 16 * MiB
        reader = started(conn.recv())
        wire.send(masked(Opcode.BINARY, half, fin=False), masked(Opcode.CONT, half + b"x"))
        with pytest.raises(ConnectionClosedError, match="payload too large"):
            await reader
        assert (await wire.closing())[0] == 1009


async def test_a_new_read_limit_is_effective_at_the_next_header(start: Any) -> None:
    async with linked(start, max_size=10) as (conn, wire):
        conn.read_limit = 20
        wire.send(text("x" * 20))
        assert await conn.recv() == "x" * 20
        conn.read_limit = 5
        wire.send(text("x" * 5))
        assert await conn.recv() == "x" * 5
        wire.send(text("x" * 6))
        with pytest.raises(ConnectionClosedError, match="payload too large"):
            await conn.recv()


async def test_a_read_limit_can_be_lifted_for_one_stream(start: Any) -> None:
    async with linked(start, max_size=10) as (conn, wire):
        conn.read_limit = None
        assert conn.read_limit is None
        wire.send(masked(Opcode.BINARY, bytes(MiB)))
        async with await conn.read_stream() as stream:
            assert sum([len(chunk) async for chunk in stream]) == MiB
        conn.read_limit = 10
        wire.send(text("x" * 11))
        with pytest.raises(ConnectionClosedError, match="payload too large"):
            await conn.recv()


@pytest.mark.parametrize(("value", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), ("1", TypeError)])
async def test_wrong_read_limit_is_refused_and_changes_nothing(value: Any, error: type[Exception]) -> None:
    conn, _ = fake_conn(max_size=100)
    with pytest.raises(error, match="the read limit"):
        conn.read_limit = value
    assert conn.read_limit == 100
    conn.abort()


async def test_row_8_a_flood_of_empty_fragments_is_a_policy_violation(start: Any) -> None:
    async with linked(start, max_size=64 * 100) as (conn, wire):
        wire.send(masked(Opcode.BINARY, b"", fin=False), *[masked(Opcode.CONT, b"", fin=False)] * 1200)
        with pytest.raises(ConnectionClosedError, match="too many fragments"):
            await conn.recv()
        assert (await wire.closing())[0] == 1008


# --- the end of an iteration ----------------------------------------------------------------------


async def test_each_iteration_after_a_normal_end_is_empty() -> None:
    conn, _ = fake_conn()
    feed(conn, text("a"), close(1001))
    assert [message async for message in conn] == ["a"]
    assert [message async for message in conn] == []
    made = conn.__anext__()
    with pytest.raises(StopAsyncIteration):
        await made
    with pytest.raises(RuntimeError, match="already awaited"):
        await made


async def test_iterations_after_the_end_let_others_run(monkeypatch: pytest.MonkeyPatch) -> None:
    conn, _ = fake_conn()
    feed(conn, close(1000))
    monkeypatch.setattr("plumews.limits.FAN_OUT_SLICE", 0.0)
    others = 0

    async def other() -> None:
        nonlocal others
        while others < 3:
            others += 1
            await asyncio.sleep(0)

    running = asyncio.ensure_future(other())
    for _ in range(10_000):
        async for _message in conn:
            raise AssertionError
    assert others == 3
    await running
