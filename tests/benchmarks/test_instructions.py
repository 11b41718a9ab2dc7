"""bench.instructions drives a server in lockstep: every answer is read before the next batch leaves."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from bench.harness.running import Failed
from bench.instructions import lockstep
from bench.instructions.__main__ import ROWS, Row

import plumews


def small(row: Row) -> Row:
    return Row(row.name, row.kind, row.size, row.batch, min(row.members, 5), 2)


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
async def test_row_counts_every_message_of_its_batches(start: Any, row: Row) -> None:
    row = small(row)
    members: list[plumews.Conn] = []
    got = 0

    def on_open(conn: plumews.Conn) -> None:
        if conn.request.path == "/":
            members.append(conn)

    def on_message(conn: plumews.Conn, message: str | bytes) -> None:
        nonlocal got
        got += 1
        plumews.broadcast(members, message)

    server = await start(plumews.serve(on_open=on_open, on_message=on_message, host="127.0.0.1", port=0))
    await asyncio.to_thread(row.drive, server.port, row.batches)
    assert got == row.batches * row.batch


async def test_missing_answer_is_a_failure(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lockstep, "PATIENCE", 0.05)
    server = await start(plumews.serve(on_message=lambda conn, message: None, host="127.0.0.1", port=0))
    with pytest.raises(Failed, match="does not come"):
        await asyncio.to_thread(small(ROWS[0]).drive, server.port, 1)


async def test_closed_connection_is_a_failure(start: Any) -> None:
    server = await start(plumews.serve(on_message=lambda conn, message: conn.abort(), host="127.0.0.1", port=0))
    with pytest.raises((Failed, ConnectionError)):
        await asyncio.to_thread(small(ROWS[0]).drive, server.port, 1)
