"""Public calls that close a connection."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import plumews
from plumews import (
    CloseCode,
    Conn,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    Opcode,
)
from support.fakes import fake_conn, linked, ticks
from support.raw_client import Wire, close, text

# --- closing --------------------------------------------------------------------------------------


async def test_close_is_1000_without_a_reason_by_default(start: Any) -> None:
    async with linked(start) as (conn, wire):
        conn.close_nowait()
        assert await wire.closing() == (1000, "")


@pytest.mark.parametrize("code", [1000, 1001, CloseCode.GOING_AWAY, 1010, 1012, 3000, 4999])
async def test_close_sends_code_and_reason(start: Any, code: int) -> None:
    async with linked(start) as (conn, wire):
        conn.close_nowait(code, "grüß Gott")
        assert await wire.closing() == (code, "grüß Gott")


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 2000, 5000])
async def test_forbidden_close_code_raises_and_closes_nothing(code: int) -> None:
    conn, transport = fake_conn()
    with pytest.raises(ValueError, match="may not stand in a close frame"):
        await conn.close(code)
    with pytest.raises(ValueError, match="may not stand in a close frame"):
        conn.close_nowait(code)
    assert not conn.closed
    assert transport.writes == []
    conn.abort()


async def test_long_close_reason_raises_and_closes_nothing() -> None:
    conn, transport = fake_conn()
    with pytest.raises(ValueError, match="123 bytes"):
        await conn.close(1000, "x" * 124)
    assert not conn.closed
    assert transport.writes == []
    conn.close_nowait(1000, "x" * 123)
    assert transport.events() == [(Opcode.CLOSE, (1000, "x" * 123))]
    conn.abort()


async def test_closing_a_closed_connection_returns_at_once(start: Any) -> None:
    async with linked(start) as (conn, wire):
        wire.send(close(1001))
        await conn.wait_closed()
        await conn.close()
        await conn.wait_closed()
        conn.close_nowait()
        conn.abort()
        assert conn.close_code == 1001


async def test_many_tasks_can_wait_for_the_end_and_be_cancelled(start: Any) -> None:
    async with linked(start) as (conn, wire):
        waiters = [asyncio.ensure_future(conn.wait_closed()) for _ in range(5)]
        await ticks()
        waiters[0].cancel()
        await ticks()
        wire.send(close())
        await asyncio.gather(*waiters[1:])
        assert waiters[0].cancelled()


async def test_a_cancelled_close_goes_on_without_its_caller(start: Any) -> None:
    async with linked(start, close_timeout=0.05) as (conn, wire):
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(conn.close(4000, "bye"), 0.005)
        assert await wire.closing() == (4000, "bye")
        await conn.wait_closed()


@pytest.mark.parametrize("failing", [False, True])
async def test_a_block_closes_with_1000_or_with_1011_on_an_exception(start: Any, failing: bool) -> None:
    async with linked(start, close_timeout=0.1) as (conn, wire):
        try:
            async with conn as entered:
                assert entered is conn
                if failing:
                    raise LookupError
        except LookupError:
            assert failing
        assert (await wire.closing())[0] == (1011 if failing else 1000)


async def test_close_codes_are_seen_from_both_sides(start: Any) -> None:
    async with linked(start) as (conn, wire):
        assert (conn.close_code, conn.close_reason) == (None, None)
        wire.send(close(4321, "so long"))
        with pytest.raises(ConnectionClosedError) as info:
            await conn.recv()
        assert (conn.close_code, conn.close_reason) == (4321, "so long")
        assert (info.value.code, info.value.reason) == (4321, "so long")
        assert info.value.rcvd == (4321, "so long")
        assert info.value.sent is None or info.value.sent.code == 4321


@pytest.mark.parametrize(
    ("code", "kind"), [(1000, ConnectionClosedOK), (1001, ConnectionClosedOK), (1008, ConnectionClosedError)]
)
async def test_a_handler_that_uses_a_closed_connection_is_no_failure(
    start: Any, caplog: pytest.LogCaptureFixture, code: int, kind: type[ConnectionClosed]
) -> None:
    raised: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()

    async def handler(conn: Conn) -> None:
        try:
            while True:
                await conn.recv()
        except ConnectionClosed as exc:
            raised.set_result(exc)
            raise

    server = await start(plumews.serve(handler, "127.0.0.1", 0))
    async with await Wire.open(server) as wire:
        wire.send(text("a"), close(code))
        assert type(await raised) is kind
        await wire.eof()
    assert caplog.records == []
