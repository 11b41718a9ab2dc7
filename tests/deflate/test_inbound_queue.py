"""Messages that take long to inflate: time slices, turns, and the memory of messages in progress."""

from __future__ import annotations

import asyncio
import functools
import io
import time
import tracemalloc
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import pytest

import plumews
from plumews import Deflate, Opcode, limits
from plumews.conn.opening import use_deflate
from plumews.conn.receive_backlog import receive
from plumews.conn.receiver import deliver_to, start_streaming
from plumews.deflate.config import Agreement
from plumews.deflate.inbound import SHORT, InflateQueue, inflate_queue
from plumews.transport.loop_context import loop_context
from support.compressed_messages import Squeezing, frame, frames, squeezed
from support.fakes import PATIENCE, fake_conn, until
from support.raw_client import Wire, close, text

KiB = 1024
MiB = 1024 * KiB
BOMB = squeezed(bytes(16 * MiB))
TEXT, BINARY, CONT = Opcode.TEXT, Opcode.BINARY, Opcode.CONT
ALONE = Agreement(12, 12, False, False, "permessage-deflate")
TAKEOVER = Deflate(server_takeover=True, client_takeover=True)


def queue_here() -> InflateQueue:
    """Return the queue of this loop."""
    return inflate_queue(loop_context(asyncio.get_running_loop()))


# --- connections ------------------------------------------------------------------------------------


@pytest.mark.parametrize("reader", ["handler", "callback"])
async def test_row_2_bombs_below_the_limit_delay_only_their_sender(start: Any, reader: str) -> None:
    received: list[int] = []

    def on_message(conn: plumews.Conn, message: Any) -> None:
        if conn.request.path == "/echo":
            conn.send_nowait(message)
        else:
            received.append(len(message))

    async def handler(conn: plumews.Conn) -> None:
        async for message in conn:
            on_message(conn, message)

    options = {"handler": handler} if reader == "handler" else {"on_message": on_message}
    server = await start(plumews.serve(**options, host="127.0.0.1", port=0, compression="deflate"))
    sent = b"".join(frames(BINARY, BOMB))

    async def attack(wire: Wire) -> None:
        for _ in range(10):
            wire.send(sent * 3)
            await asyncio.sleep(0.048)  # the pace of the attack

    async def p99(bad: Wire, good: Wire) -> float:
        attacker = asyncio.ensure_future(attack(bad))
        latencies: list[float] = []
        until = time.monotonic() + 0.6
        while time.monotonic() < until:
            began = time.thread_time()  # server and clients share the loop; others may have the core for a while
            good.send(text("how long"))
            assert await asyncio.wait_for(good.message(), PATIENCE) == "how long"
            latencies.append(time.thread_time() - began)
            await asyncio.sleep(0.002)  # the pace of who measures, and is no attacker
        await attacker
        return sorted(latencies)[(len(latencies) - 1) * 99 // 100]

    async with await Squeezing.open(server) as bad, await Wire.open(server, "/echo") as good:
        assert await p99(bad, good) < 0.02
    assert received  # the messages do arrive
    assert set(received) == {16 * MiB}


async def test_many_messages_of_one_read_take_several_turns() -> None:
    conn, transport = fake_conn(compression="deflate")
    use_deflate(conn, Agreement(12, 12, False, False, ""))
    received: list[int] = []
    deliver_to(conn, lambda _, message: received.append(len(message)), lambda _, exc: None)
    sent = b"".join(frames(BINARY, squeezed(bytes(64 * KiB)))) * 400
    began = time.monotonic()
    receive(conn, sent)
    assert 0 < len(received) < 400  # what one read may do at once
    assert not transport.reading
    while len(received) < 400:
        await asyncio.sleep(0)
    assert received == [64 * KiB] * 400
    assert transport.reading
    assert time.monotonic() - began < PATIENCE


def receiving(agreement: Agreement = ALONE) -> tuple[plumews.Conn, list[int]]:
    """Return a connection that inflates, and the list of the sizes of its messages."""
    conn, _ = fake_conn(compression="deflate", ping_interval=None)
    use_deflate(conn, agreement)
    received: list[int] = []
    deliver_to(conn, lambda _, message: received.append(len(message)), lambda _, exc: None)
    return conn, received


@pytest.mark.parametrize("reading", ["whole", "stream"])
async def test_collecting_and_checking_count_as_inflating(reading: str, monkeypatch: pytest.MonkeyPatch) -> None:
    conn, received = receiving(Agreement(12, 12, True, True, ""))
    sent = b"".join(frames(TEXT, squeezed("\u20ac".encode() * MiB)))
    slow = Mock(side_effect=lambda part: time.sleep(0.0005) or True)  # work that takes its time
    if reading == "whole":

        class Kept(io.BytesIO):
            def write(self, part: Any) -> int:
                slow(part)
                return super().write(part)

        monkeypatch.setattr("plumews.deflate.inbound.io", Mock(BytesIO=Kept))
    else:
        conn._on_message = None
        start_streaming(conn)
        monkeypatch.setattr("plumews.deflate.inbound.Utf8Validator", lambda: Mock(feed=slow))
    receive(conn, sent)
    assert 0 < slow.call_count < 10  # of 48 steps
    assert received == []
    conn.abort()


async def test_row_2_connections_together_do_not_block_the_loop() -> None:
    sent = b"".join(frames(BINARY, squeezed(bytes(64 * KiB)))) * 100
    durations = []
    for _ in range(3):  # others may have the caches for a while
        several = [receiving() for _ in range(20)]
        began = time.thread_time()
        for conn, _ in several:
            receive(conn, sent)
        durations.append(time.thread_time() - began)
        end = time.monotonic() + PATIENCE
        while any(len(received) < 5 for _, received in several):  # each has its turn
            assert time.monotonic() < end
            await asyncio.sleep(0)
        for conn, _ in several:
            conn.abort()
    assert min(durations) < 5 * limits.FAN_OUT_SLICE  # each may have as much where it is alone


@pytest.mark.parametrize("agreement", [ALONE, Agreement(12, 12, True, True, "")], ids=["alone", "takeover"])
async def test_short_message_does_not_wait_for_others(agreement: Agreement) -> None:
    conn, received = receiving(agreement)
    queue_here().used_until = time.monotonic() + 60
    receive(conn, b"".join([frame(TEXT, b"hello" * 200), *frames(BINARY, squeezed(bytes(20_000)))]))
    assert received == [1000]
    await until(lambda: received == [1000, 20_000])


async def test_row_2_message_long_on_the_wire_waits_for_its_turn() -> None:
    conn, received = receiving()
    queue_here().used_until = time.monotonic() + 60
    empty = bytes.fromhex("000000ffff")
    receive(conn, b"".join(frames(BINARY, empty * (SHORT // 5) + squeezed(b"x" * 100))))
    assert received == []
    await until(lambda: received == [100])


async def test_row_1_bombs_below_the_limit_are_inflated_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "INFLATED_PARTS", 2 * MiB)
    queue = queue_here()
    bomb = b"".join(frames(BINARY, squeezed(bytes(4 * MiB))))
    several = [receiving() for _ in range(8)]
    tracemalloc.start()
    try:
        for conn, _ in several:
            receive(conn, bomb * 2)
        await until(lambda: all(len(received) == 2 for _, received in several))
        assert tracemalloc.get_traced_memory()[1] < 2 * MiB + 3 * 4 * MiB
    finally:
        tracemalloc.stop()
    assert queue.held == 0


async def test_queue_holds_nothing_of_a_closed_connection() -> None:
    queue = queue_here()
    for end in (lambda conn: conn.close_nowait(), lambda conn: conn.connection_lost(None)):
        conn, received = receiving()
        receive(conn, b"".join(frames(BINARY, BOMB)))
        await until(lambda: queue.held > 0)
        end(conn)
        await until(lambda: queue.held == 0)
        assert received == []


async def test_closing_connection_does_not_wait_for_its_turn() -> None:
    conn, received = receiving()
    queue = queue_here()
    queue.used_until = queue.free_at = time.monotonic() + 60
    receive(conn, b"".join([*frames(BINARY, BOMB), close(1000)]))
    conn.close_nowait()
    await until(lambda: conn.state is plumews.State.CLOSED)
    assert (conn.close_code, received) == (1000, [])


async def test_internal_error_in_a_turn_closes_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    conn, received = receiving()
    receive(conn, b"".join(frames(BINARY, BOMB)))
    conn._inflate._inflater._inflater = Mock(**{"decompress.side_effect": MemoryError})
    await until(lambda: conn.closed)
    assert conn._rules.close_sent.code == 1011
    (entry,) = caplog.records
    assert entry.exc_info[0] is MemoryError
    assert received == []


async def test_closed_connection_inflates_no_more() -> None:
    for end in (lambda conn: conn.close_nowait(), lambda conn: conn.connection_lost(None)):
        await close_in_the_middle(end)


async def close_in_the_middle(end: Callable[[Any], None]) -> None:
    conn, transport = fake_conn(compression="deflate")
    use_deflate(conn, Agreement(12, 12, False, False, ""))
    received: list[int] = []
    deliver_to(conn, lambda _, message: received.append(len(message)), lambda _, exc: None)
    receive(conn, b"".join([*frames(BINARY, BOMB), close()]))
    assert not transport.reading
    end(conn)
    ended = until(lambda: conn._rules.close_rcvd is not None or conn.state is plumews.State.CLOSED)
    await asyncio.wait_for(ended, PATIENCE)
    assert received == []
    assert conn.close_code in (1000, 1006)


# --- the queue of a loop ----------------------------------------------------------------------------


class Waiting:
    """Connection that waits in the queue, with a function that is called in its turn."""

    def __init__(self, queue: InflateQueue, resume: Callable[[Waiting], object]) -> None:
        self.queue = queue
        self._inflate = Mock(resume=resume)


async def test_queue_gives_turns_in_the_order_of_waiting() -> None:
    queue = queue_here()
    seen: list[str] = []

    def resume(name: str, conn: Waiting) -> None:
        assert queue.is_free(time.monotonic(), True)
        assert not queue.is_free(time.monotonic() + limits.FAN_OUT_SLICE, True)
        seen.append(name)
        if len(seen) < 7:
            queue.wait(conn, 0)

    for name in "abc":
        queue.wait(Waiting(queue, functools.partial(resume, name)), 0)
    assert seen == []
    await until(lambda: len(seen) == 9)
    assert "".join(seen) == "abcabcabc"


async def test_queue_resumes_messages_in_progress_first_when_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "INFLATED_PARTS", 100)
    queue = queue_here()
    seen: list[str] = []

    def resume(conn: Waiting) -> None:
        seen.append("a")
        if len(seen) < 3:
            queue.wait(conn, 101)

    queue.wait(Waiting(queue, resume), 101)
    queue.wait(Waiting(queue, lambda conn: seen.append("b")), 0)
    await until(lambda: len(seen) == 4)
    assert "".join(seen) == "aaab"
    assert queue.held == 0


async def test_queue_runs_one_turn_in_each_loop_iteration() -> None:
    queue = queue_here()
    seen: list[int] = []
    for index in range(3):
        queue.wait(Waiting(queue, lambda _, index=index: seen.append(index)), 0)  # type: ignore[misc]
    await asyncio.sleep(0)
    assert seen == [0]
    await until(lambda: len(seen) == 3)
    assert seen == [0, 1, 2]


async def test_queue_rests_as_long_as_a_turn_took() -> None:
    queue = queue_here()
    times: list[float] = []

    def work(conn: Waiting) -> None:
        times.append(time.monotonic())
        while queue.is_free(time.monotonic(), True):
            pass
        times.append(time.monotonic())
        if len(times) < 8:
            queue.wait(conn, 0)

    queue.wait(Waiting(queue, work), 0)
    await until(lambda: len(times) == 8)
    for end, begin in zip(times[1::2], times[2::2], strict=False):
        assert begin - end >= 0.8 * limits.FAN_OUT_SLICE


async def test_queue_continues_after_a_failed_turn() -> None:
    loop = asyncio.get_running_loop()
    queue = queue_here()
    failures: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: failures.append(context))
    seen: list[Waiting] = []
    queue.wait(Waiting(queue, Mock(side_effect=RuntimeError("in its turn"))), 0)
    queue.wait(Waiting(queue, seen.append), 0)
    await until(lambda: len(seen) == 1)
    assert [str(failure["exception"]) for failure in failures] == ["in its turn"]


def test_queue_belongs_to_one_loop() -> None:
    async def here() -> InflateQueue:
        assert queue_here() is queue_here()
        return queue_here()

    assert asyncio.run(here()) is not asyncio.run(here())
