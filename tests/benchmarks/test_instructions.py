"""bench.instructions drives a server in lockstep: every answer is read before the next batch leaves."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from pathlib import Path
from typing import Any

import pytest
from bench.harness.running import Failed
from bench.instructions import counting, lockstep
from bench.instructions.__main__ import ROWS, Row, chosen
from bench.instructions.counting import Counted
from bench.instructions.lockstep import Bytes, Messages, frame
from bench.instructions.rows import Broadcast, Connects, Driven, Echo

import plumews
from support.fakes import tls_contexts


def small(driven: Driven) -> Driven:
    if isinstance(driven, Broadcast):
        driven = dataclasses.replace(driven, members=5)
    return dataclasses.replace(driven, batches=2)


def run(driven: Driven, port: int, *, tls: bool = False) -> None:
    with contextlib.ExitStack() as stack:
        driven.connect(stack, port, tls=tls)(driven.batches)


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
async def test_row_counts_every_message_of_its_batches(start: Any, row: Row) -> None:
    driven = small(row.driven)
    members: list[plumews.Conn] = []
    got = connects = 0

    def on_open(conn: plumews.Conn) -> None:
        nonlocal connects
        connects += 1
        if conn.request.path == "/":
            members.append(conn)

    def on_message(conn: plumews.Conn, message: str | bytes) -> None:
        nonlocal got
        got += 1
        plumews.broadcast(members, message)

    options: dict[str, Any] = {"max_size": 1 << 24, "ssl": tls_contexts()[0] if row.tls else None}
    serving = plumews.serve(on_open=on_open, on_message=on_message, host="127.0.0.1", port=0, **options)
    server = await start(serving)
    await asyncio.to_thread(run, driven, server.port, tls=row.tls)
    if isinstance(driven, Connects):
        assert (connects, got) == (2, 0)
    else:
        assert got * (driven.members if isinstance(driven, Broadcast) else 1) == driven.batches * driven.messages


def test_rows_of_the_pure_body_have_fewer_messages() -> None:
    for usual, pure in zip(chosen("", pure=False), chosen("", pure=True), strict=True):
        assert 0 < pure.driven.batches <= usual.driven.batches


async def test_missing_answer_is_a_failure(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lockstep, "PATIENCE", 0.05)
    server = await start(plumews.serve(on_message=lambda conn, message: None, host="127.0.0.1", port=0))
    with pytest.raises(Failed, match="does not come"):
        await asyncio.to_thread(run, Echo(1, size=32, batch=1), server.port)


async def test_answer_that_nobody_asked_for_is_a_failure(start: Any) -> None:
    def twice(conn: plumews.Conn, message: str | bytes) -> None:
        plumews.broadcast([conn], message)
        plumews.broadcast([conn], message)

    server = await start(plumews.serve(on_message=twice, host="127.0.0.1", port=0))
    with pytest.raises(Failed, match="more answers"):
        await asyncio.to_thread(run, Echo(5, size=32, batch=3), server.port)


async def test_closed_connection_is_a_failure(start: Any) -> None:
    server = await start(plumews.serve(on_message=lambda conn, message: conn.abort(), host="127.0.0.1", port=0))
    with pytest.raises((Failed, ConnectionError)):
        await asyncio.to_thread(run, Echo(1, size=32, batch=1), server.port)


async def test_refused_connection_is_a_failure(start: Any) -> None:
    def refuse(conn: plumews.Conn, request: plumews.Request) -> plumews.Response:
        return plumews.Response(403)

    options: dict[str, Any] = {"process_request": refuse, "host": "127.0.0.1", "port": 0}
    server = await start(plumews.serve(on_message=lambda conn, message: None, **options))
    with pytest.raises(Failed, match="does not upgrade"):
        await asyncio.to_thread(run, Connects(1), server.port)


@pytest.mark.parametrize("step", [1, 3, 1000, 1 << 20])
def test_messages_are_counted_however_they_are_cut(step: int) -> None:
    fragments = b"\x02\x03abc" + b"\x89\x02hi" + b"\x80\x01d"  # a message in two frames, a ping between them
    stream = b"".join(frame(bytes(size), masked=False) for size in (0, 1, 125, 126, 65535, 65536)) + fragments
    messages = Messages()
    assert sum(messages.feed(stream[at : at + step]) for at in range(0, len(stream), step)) == 7


def test_bytes_are_counted_by_whole_messages() -> None:
    messages = Bytes(10)
    assert [messages.feed(bytes(size)) for size in (9, 1, 25, 5)] == [0, 1, 2, 1]


@pytest.mark.skipif(counting.missing() is not None, reason="needs valgrind and a C compiler")
@pytest.mark.timeout(240)
def test_server_under_callgrind_gives_the_same_count_twice() -> None:
    with Counted("bench.echo.servers", "plumews_callback", "asyncio") as server:
        first, second = (server.instructions(Echo(50, size=32, batch=4)) for _ in range(2))
    assert 1000 < first == pytest.approx(second, rel=0.05)


@pytest.mark.skipif(counting.missing() is not None, reason="needs valgrind and a C compiler")
@pytest.mark.timeout(240)
def test_server_that_does_not_start_under_callgrind_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="does not start under callgrind"):
        Counted("bench.echo.servers", "plumews_callback", "asyncio", source=tmp_path, environment={"PYTHONHOME": "/"})
