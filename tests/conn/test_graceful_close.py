"""The end of a hub: everybody is told, what was broadcast is delivered, and it takes no longer than it may.

Weak points of the seed's review (section 8): no 1001 and connections that stay open (9), a stop that crashes when it
comes twice or when somebody still broadcasts (14, 16), a drain without limit (17), a join that nobody closes (19).
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

import plumews
from plumews import BroadcastResult, CloseCode, ConnectionClosed, Hub, HubStopped, Opcode, ShutdownReport, State, limits
from plumews.conn.graceful_close import GracefulClose, TimeBudget, check_graceful_close
from support.fakes import (
    CALLS,
    PATIENCE,
    FakeTransport,
    clog,
    deadlines,
    failing,
    failures,
    fake_conn,
    feed,
    pass_time,
    ticks,
    until,
)
from support.members import adds_up, crowd, messages, texts
from support.raw_client import Wire, close, text


async def says_goodbye(wire: Wire) -> tuple[int, str]:
    """The server's close frame, answered as a client does."""
    code, reason = await wire.closing()
    wire.send(close(code))
    return code, reason


def joined(hub: Hub, count: int) -> list[FakeTransport]:
    """The transports of ``count`` new members that answer nothing."""
    pairs = [fake_conn(ping_interval=None, close_timeout=1000) for _ in range(count)]
    for conn, _ in pairs:
        hub.join("chat", conn)
    return [transport for _, transport in pairs]


def goodbye(transport: FakeTransport) -> tuple[int, str]:
    """The close frame that was written, as the last of all."""
    kind, (code, reason) = transport.events()[-1]
    assert kind == Opcode.CLOSE
    return code, reason


async def goodbyes(wires: list[Wire]) -> list[tuple[int, str]]:
    return list(await asyncio.gather(*map(says_goodbye, wires)))


# --- everybody is told ----------------------------------------------------------------------------


async def test_section_8_point_9_stopping_closes_every_member_with_1001(start):
    hub = Hub()
    async with crowd(start, 4) as (conns, wires):
        for number, conn in enumerate(conns):
            hub.join(f"room {number % 2}", conn)
        hub.join("room 0", conns[1])
        stopping = asyncio.ensure_future(hub.stop())
        assert [code for code, _ in await goodbyes(wires)] == [CloseCode.GOING_AWAY] * 4
        assert await stopping == ShutdownReport(closed=4)
        assert hub.rooms() == []
        assert hub.connection_count() == 0
        assert all(conn.state is State.CLOSED for conn in conns)


async def test_a_restart_is_announced_with_1012(start):
    hub = Hub()
    async with crowd(start, 2) as (conns, wires):
        for conn in conns:
            hub.join("chat", conn)
        stopping = asyncio.ensure_future(hub.shutdown(restart=True))
        assert [code for code, _ in await goodbyes(wires)] == [CloseCode.SERVICE_RESTART] * 2
        assert await stopping == ShutdownReport(closed=2)


async def test_connections_that_are_in_no_room_are_left_alone(start):
    hub = Hub()
    async with crowd(start, 2) as (conns, wires):
        hub.join("chat", conns[0])
        hub.join("chat", conns[1])
        hub.remove(conns[1])
        stopping = asyncio.ensure_future(hub.stop())
        await says_goodbye(wires[0])
        assert await stopping == ShutdownReport(closed=1)
        await conns[1].send("still here")
        assert await wires[1].message() == "still here"


async def test_a_hub_without_members_stops_at_once():
    hub = Hub()
    assert await hub.stop() == ShutdownReport()
    async with Hub() as hub:
        pass
    assert repr(hub).startswith("<plumews.Hub stopped")


async def test_leaving_the_context_of_a_hub_stops_it(start):
    async with crowd(start, 1) as ((conn,), (wire,)):
        goodbye = asyncio.ensure_future(says_goodbye(wire))
        async with Hub() as hub:
            hub.join("chat", conn)
            hub.broadcast_room("chat", "hello")
        assert (await goodbye)[0] == CloseCode.GOING_AWAY
        assert conn.state is State.CLOSED
        with pytest.raises(HubStopped):
            hub.can_join("chat")


# --- what was broadcast is delivered --------------------------------------------------------------


async def test_what_was_broadcast_before_the_stop_stands_before_the_close_frame(start, sliced):
    hub = Hub()
    for _ in range(300):
        hub.join("chat", fake_conn(ping_interval=None, close_timeout=0.1)[0])
    async with crowd(start, 1) as ((conn,), (wire,)):
        hub.join("chat", conn)
        for number in range(20):
            assert hub.broadcast_room("chat", str(number)).pending
        stopping = asyncio.ensure_future(hub.stop())
        assert await messages(wire, 20) == [str(number) for number in range(20)]
        assert (await says_goodbye(wire))[0] == CloseCode.GOING_AWAY
        report = await stopping
        assert (report.closed, report.aborted, report.undelivered_messages) == (1, 300, 0)
        assert report.delivered_messages >= 20
        metrics = hub.metrics()
        assert metrics.broadcast_matched == metrics.broadcast_queued == 20 * 301


async def test_a_member_that_is_full_gets_its_send_timeout_before_it_is_closed(start):
    hub = Hub()
    async with crowd(start, 1, rcvbuf=4096, queue_size=4, send_timeout=60) as ((conn,), (wire,)):
        hub.join("chat", conn)
        clog(conn)
        while conn.queued_messages < 4:
            hub.broadcast_room("chat", b"fills")
        for number in range(4):
            assert hub.broadcast_room("chat", str(number)).pending
        stopping = asyncio.ensure_future(hub.stop())
        received: list[str | bytes] = []
        while len(received) < 4:
            message = await wire.message()
            if isinstance(message, str):
                received.append(message)
        assert received == ["0", "1", "2", "3"]
        assert (await says_goodbye(wire))[0] == CloseCode.GOING_AWAY
        report = await stopping
        assert (report.closed, report.aborted, report.undelivered_messages) == (1, 0, 0)
        assert report.delivered_messages >= 8  # what filled its queue, and what waited behind that
        assert hub.metrics().broadcast_dropped == 0


async def test_publishers_get_their_result_when_the_hub_stops(sliced):
    hub = Hub(1, 2)
    transports = []
    for _ in range(200):
        conn, transport = fake_conn(ping_interval=None, close_timeout=0.05)
        transports.append(transport)
        hub.join("chat", conn)
    publishing = [asyncio.ensure_future(hub.publish("chat", str(number))) for number in range(6)]
    await asyncio.sleep(0)
    assert len(hub._broadcaster.scheduler) == 2
    stopping = asyncio.ensure_future(hub.stop())
    results = await asyncio.gather(*publishing)
    assert results == [BroadcastResult(matched=200, queued=200)] * 2 + [BroadcastResult(stopped=True)] * 4
    await stopping
    assert all(texts(transport.wire) == ["0", "1"] for transport in transports)
    assert adds_up(hub.metrics())


# --- it takes no longer than it may ---------------------------------------------------------------


async def test_section_8_point_17_members_that_do_not_answer_are_cut_at_the_deadline_and_reported(start):
    hub = Hub()
    async with crowd(start, 3, close_timeout=60) as (conns, wires):
        for conn in conns:
            hub.join("chat", conn)
        loop = asyncio.get_running_loop()
        started = loop.time()
        stopping = asyncio.ensure_future(hub.shutdown(0.5))  # in which one has to answer
        await says_goodbye(wires[0])
        assert await stopping == ShutdownReport(closed=1, aborted=2)
        assert 0.45 < loop.time() - started < PATIENCE
        assert all(conn.state is State.CLOSED for conn in conns)
        assert hub.rooms() == []


async def test_a_member_that_reads_nothing_is_cut_and_what_it_lost_is_counted(start):
    hub = Hub()
    async with crowd(start, 1, rcvbuf=4096, send_timeout=0.02, close_timeout=60) as ((conn,), (_,)):
        hub.join("chat", conn)
        clog(conn)
        for _ in range(5):
            hub.broadcast_room("chat", "never read")
        queued, size = conn.queued_messages, conn.queued_bytes
        assert queued >= 5
        report = await hub.shutdown(0.1)
        assert report == ShutdownReport(aborted=1, undelivered_messages=queued, undelivered_bytes=size)


async def test_a_member_that_is_cut_by_its_own_close_timeout_is_no_member_that_closed(start):
    hub = Hub()
    async with crowd(start, 2, close_timeout=1000, ping_interval=None) as (conns, wires):
        for conn in conns:
            hub.join("chat", conn)
        stopping = asyncio.ensure_future(hub.shutdown(2000))
        await says_goodbye(wires[0])
        await conns[0].wait_closed()
        pass_time(1000)
        assert await stopping == ShutdownReport(closed=1, aborted=1)


async def test_section_8_point_17_a_stop_gives_up_broadcasts_that_would_take_too_long(sliced):
    hub = Hub(4, 100)
    for _ in range(2000):
        hub.join("chat", fake_conn(ping_interval=None, close_timeout=60)[0])
    publishing = [asyncio.ensure_future(hub.publish("chat", "x")) for _ in range(20)]
    await asyncio.sleep(0)
    report = await hub.shutdown(0)
    assert report.aborted == 2000
    results = await asyncio.gather(*publishing)
    assert all(map(adds_up, results))
    assert sum(result.pending for result in results) == 0
    assert sum(result.dropped for result in results) > 0
    metrics = hub.metrics()
    assert metrics.broadcast_pending == 0
    assert adds_up(metrics)


async def test_section_8_point_17_a_full_member_without_a_send_timeout_does_not_hang_the_stop(monkeypatch):
    monkeypatch.setattr(limits, "BROADCAST_WAIT", 0.05)
    hub = Hub()
    conn, transport = fake_conn(ping_interval=None, queue_size=1, send_timeout=None, close_timeout=60)
    hub.join("chat", conn)
    transport.fill()
    hub.broadcast_room("chat", "fills")
    publishing = asyncio.ensure_future(hub.publish("chat", "waits"))
    await asyncio.sleep(0)
    assert (await hub.shutdown(0.1)).aborted == 1
    assert await publishing == BroadcastResult(matched=1, dropped=1)


@pytest.mark.parametrize("timeout", [-1, -0.001, math.nan, math.inf], ids=str)
async def test_a_timeout_that_is_none_is_refused_and_the_hub_goes_on(timeout):
    hub = Hub()
    with pytest.raises(ValueError, match="timeout must be at least 0 seconds, not"):
        await hub.shutdown(timeout)
    hub.can_join("chat")


async def test_nothing_is_left_of_a_stopped_hub():
    before = deadlines()
    hub = Hub()
    for number in range(50):
        conn, transport = fake_conn(ping_interval=None, queue_size=1)
        hub.join("chat", conn)
        if number % 2:
            transport.fill()
    hub.broadcast_room("chat", "x")
    hub.broadcast_room("chat", "y")
    hub.watch_count("chat", print)
    await hub.shutdown(0)
    await ticks()
    assert deadlines() == before
    assert not hub._slow.members
    assert not hub._rooms._snapshots
    assert len(hub._broadcaster.scheduler) == hub.connection_count() == 0


# --- while and after it stops ---------------------------------------------------------------------


async def test_section_8_point_14_stopping_twice_waits_for_the_first_and_says_the_same(start):
    hub = Hub()
    async with crowd(start, 1) as ((conn,), (wire,)):
        hub.join("chat", conn)
        stopping = [asyncio.ensure_future(stop) for stop in (hub.stop(), hub.shutdown(20, restart=True), hub.stop())]
        await ticks()
        assert not any(stop.done() for stop in stopping)
        assert (await says_goodbye(wire))[0] == CloseCode.GOING_AWAY
        assert await asyncio.gather(*stopping) == [ShutdownReport(closed=1)] * 3
        assert await hub.stop() == ShutdownReport(closed=1)


async def test_a_stop_that_is_cancelled_goes_on_without_its_caller(start):
    hub = Hub()
    async with crowd(start, 1) as ((conn,), (wire,)):
        hub.join("chat", conn)
        first = asyncio.ensure_future(hub.stop())
        code, _ = await wire.closing()
        first.cancel()
        await ticks()
        assert first.cancelled()
        wire.send(close(code))
        assert await hub.stop() == ShutdownReport(closed=1)


async def test_section_8_point_16_broadcasts_after_the_stop_say_so_and_count_as_rejected():
    hub = Hub()
    conn, transport = fake_conn(ping_interval=None)
    hub.join("chat", conn)
    await hub.shutdown(0)
    written = transport.wire
    for result in (hub.broadcast_room("chat", "x"), hub.broadcast_all("x"), await hub.publish("chat", "x")):
        assert result == BroadcastResult(stopped=True)
        assert result.rejected
    assert hub.metrics().broadcasts_rejected == 3
    assert adds_up(hub.metrics())
    assert transport.wire == written


async def test_section_8_point_19_nobody_joins_from_the_moment_on_at_which_the_stop_was_called(start):
    hub = Hub()
    async with crowd(start, 2) as (conns, wires):
        hub.join("chat", conns[0])
        stopping = asyncio.ensure_future(hub.stop())
        await asyncio.sleep(0)
        with pytest.raises(HubStopped, match="the hub is stopped"):
            hub.join("chat", conns[1])
        await says_goodbye(wires[0])
        await stopping
        with pytest.raises(HubStopped):
            hub.join("chat", conns[1])
        assert hub.metrics().rejected_total == 2
        assert hub.rooms() == []
        assert not conns[1].closed


async def test_questions_and_leaving_are_still_answered_after_the_stop():
    hub = Hub()
    conn, _ = fake_conn(ping_interval=None)
    hub.join("chat", conn)
    await hub.shutdown(0)
    hub.leave("chat", conn)
    hub.remove(conn)
    assert (hub.rooms(), hub.total_count(), hub.members("chat"), hub.rooms_of(conn)) == ([], 0, [], [])
    assert hub.metrics().accepted_total == 1


async def test_members_that_broadcast_leave_and_close_while_it_stops_do_no_harm(start, sliced):
    hub = Hub()
    results: list[BroadcastResult] = []

    def busy(conn: plumews.Conn, message: str | bytes) -> None:
        results.append(hub.broadcast_room("chat", message))

    def gone(conn: plumews.Conn) -> None:
        results.append(hub.broadcast_all("somebody left"))
        with pytest.raises((HubStopped, ConnectionClosed)):
            hub.join("chat", conn)

    async with crowd(start, 6, on_message=busy, on_close=gone, close_timeout=1) as (conns, wires):
        for conn in conns:
            hub.join("chat", conn)
        for _ in range(200):
            hub.join("chat", fake_conn(ping_interval=None, close_timeout=0.1)[0])
        for number in range(10):
            hub.broadcast_room("chat", str(number))
        stopping = asyncio.ensure_future(hub.stop())
        await asyncio.sleep(0)  # it has begun
        wires[0].send(text("hello?"), close())
        wires[1].reset()
        hub.leave("chat", conns[2])
        conns[3].abort()
        await asyncio.gather(*map(says_goodbye, wires[4:]))
        report = await stopping
        assert report.closed + report.aborted == 205
        assert report.aborted >= 200
        await asyncio.gather(*(conn.wait_closed() for conn in conns if conn is not conns[2]))
        assert all(result.stopped for result in results)
        assert not conns[2].closed
        metrics = hub.metrics()
        assert metrics.broadcast_pending == 0
        assert adds_up(metrics)


async def test_stopping_from_the_handler_of_a_member_does_not_wait_for_itself(start):
    hub = Hub()
    reports: asyncio.Queue[ShutdownReport] = asyncio.Queue()

    async def handler(conn: plumews.Conn) -> None:
        hub.join("chat", conn)
        async for _ in conn:
            reports.put_nowait(await hub.stop())

    server = await start(plumews.serve(handler, "127.0.0.1", 0))
    async with await Wire.open(server) as wire:
        wire.send(text("stop"))
        assert (await says_goodbye(wire))[0] == CloseCode.GOING_AWAY
        assert await reports.get() == ShutdownReport(closed=1)


# --- when to come back ----------------------------------------------------------------------------


def hints(goodbyes: list[tuple[int, str]]) -> list[float]:
    """The times at which those who were closed are to come back."""
    found = [re.fullmatch(r"reconnect in (\d+\.\d) s", reason) for _, reason in goodbyes]
    assert all(found), goodbyes
    return [float(match[1]) for match in found if match]


@pytest.mark.parametrize("restart", [False, True], ids=["for good", "restart"])
async def test_each_member_is_told_to_come_back_at_a_moment_of_its_own(restart):
    hub = Hub()
    transports = joined(hub, 200)
    await hub.shutdown(0, restart=restart, reconnect_in=3.0)
    told = hints([goodbye(transport) for transport in transports])
    assert 0 <= min(told) < 0.5
    assert 2.5 < max(told) <= 3.0
    assert len(set(told)) > 20


async def test_the_hint_reaches_five_seconds_unless_it_is_told_otherwise(start):
    hub = Hub()
    async with crowd(start, 3) as (conns, wires):
        for conn in conns:
            hub.join("chat", conn)
        stopping = asyncio.ensure_future(hub.stop())
        assert all(0 <= hint <= 5 for hint in hints(await goodbyes(wires)))
        await stopping


async def test_without_a_hint_the_reason_is_empty():
    hub = Hub()
    (transport,) = joined(hub, 1)
    await hub.shutdown(0, reconnect_in=0)
    assert goodbye(transport) == (CloseCode.GOING_AWAY, "")


# --- not all in the same second -------------------------------------------------------------------


async def test_members_are_closed_over_the_time_that_was_given_and_not_in_the_order_in_which_they_came():
    hub = Hub()
    transports = joined(hub, 60)
    loop = asyncio.get_running_loop()
    began = loop.time()
    closed: dict[FakeTransport, float] = {}
    stopping = asyncio.ensure_future(hub.shutdown(30, spread=0.3))
    while len(closed) < 60:
        for transport in transports:
            if transport.writes and transport not in closed:
                closed[transport] = loop.time() - began
        await asyncio.sleep(0.001)  # how exactly the times are known
    for transport in transports:
        transport.abort()
    await stopping
    assert list(closed) != transports
    times = sorted(closed.values())
    assert times[-1] - times[0] > 0.1
    assert max(Counter(round(time, 3) for time in times).values()) < 30


async def test_a_crowd_takes_longer_than_a_handful_but_no_more_than_a_fifth_of_the_time(monkeypatch):
    pauses: list[float] = []

    async def pause(limit: TimeBudget, seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(TimeBudget, "pause", pause)
    for count, least, most in ((3, 0, 0), (400, 0.1, 0.3), (4000, 0.5, 1.5)):
        pauses.clear()
        limit = TimeBudget(5)
        await GracefulClose(limit).close(fake_conn(ping_interval=None)[0] for _ in range(count))
        limit.end()
        assert least <= sum(pauses) <= most
        assert max(pauses, default=0) <= 1.5 * limits.CLOSE_SLICE


async def test_closing_thousands_lets_others_go_on(monkeypatch):
    monkeypatch.setattr(limits, "FAN_OUT_SLICE", 0.0)
    limit = TimeBudget(60)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.ensure_future(count())
    farewell = GracefulClose(limit, spread=0)
    await farewell.close(fake_conn(ping_interval=None)[0] for _ in range(2000))
    assert turns > 50
    turns = 0
    limit.hasten(0)
    await farewell.ended()
    assert turns > 50
    assert (farewell.closed, farewell.aborted) == (0, 2000)
    counting.cancel()


async def test_who_left_the_hub_before_its_turn_came_is_left_alone():
    hub = Hub()
    transports = joined(hub, 40)
    stopping = asyncio.ensure_future(hub.shutdown(30, spread=0.5))
    await until(lambda: any(transport.writes for transport in transports))
    waiting = [transport for transport in transports if not transport.writes]
    for transport in waiting:
        hub.remove(transport.protocol)
    for transport in transports:
        if transport not in waiting:
            transport.abort()
    report = await stopping
    assert report == ShutdownReport(aborted=40 - len(waiting))
    assert waiting
    assert not any(transport.writes for transport in waiting)


# --- a shorter time than was said first -----------------------------------------------------------


async def test_a_second_call_with_less_time_shortens_the_first(start):
    hub = Hub()
    async with crowd(start, 1, close_timeout=1000) as ((conn,), (wire,)):
        hub.join("chat", conn)
        first = asyncio.ensure_future(hub.shutdown(1000))
        assert (await wire.closing())[0] == CloseCode.GOING_AWAY  # which is not answered
        assert await hub.shutdown(0.05) == ShutdownReport(aborted=1)
        assert await first == ShutdownReport(aborted=1)


async def test_a_second_call_with_more_time_does_not_lengthen_the_first(start):
    hub = Hub()
    async with crowd(start, 1, close_timeout=1000) as ((conn,), (wire,)):
        hub.join("chat", conn)
        first = asyncio.ensure_future(hub.shutdown(0.2))
        await wire.closing()
        assert await hub.shutdown(1000) == await first == ShutdownReport(aborted=1)


async def test_less_time_ends_the_pauses_between_those_who_are_closed():
    hub = Hub()
    transports = joined(hub, 40)
    first = asyncio.ensure_future(hub.shutdown(1000, spread=900))
    await until(lambda: any(transport.writes for transport in transports))
    assert await hub.shutdown(0) == ShutdownReport(aborted=40)
    await first
    assert all(goodbye(transport)[0] == CloseCode.GOING_AWAY for transport in transports)


async def test_less_time_ends_the_wait_for_members_that_are_full():
    hub = Hub()
    conn, transport = fake_conn(ping_interval=None, queue_size=1, send_timeout=1000, close_timeout=1000)
    hub.join("chat", conn)
    transport.fill()
    hub.broadcast_room("chat", "fills")
    publishing = asyncio.ensure_future(hub.publish("chat", "waits"))
    first = asyncio.ensure_future(hub.shutdown(1000))
    await ticks()
    assert not first.done()
    report = await hub.shutdown(0)
    assert (report.aborted, report.undelivered_messages) == (1, 2)
    assert await publishing == BroadcastResult(matched=1, dropped=1)


async def test_a_call_after_the_end_leaves_no_deadline_behind():
    before = deadlines()
    hub = Hub()
    report = await hub.shutdown(0)
    assert await hub.shutdown(1000) == await hub.shutdown(0) == report
    assert deadlines() == before


async def test_one_full_member_does_not_keep_the_others_waiting(start):
    hub = Hub()
    full, transport = fake_conn(ping_interval=None, queue_size=1, send_timeout=1000, close_timeout=1000)
    hub.join("chat", full)
    transport.fill()
    hub.broadcast_room("chat", "fills")
    hub.broadcast_room("chat", "waits")
    async with crowd(start, 1) as ((conn,), (wire,)):
        hub.join("chat", conn)
        stopping = asyncio.ensure_future(hub.shutdown(2000))
        assert (await says_goodbye(wire))[0] == CloseCode.GOING_AWAY
        await conn.wait_closed()
        assert not full.closed
        pass_time(2000)
        report = await stopping
        assert (report.closed, report.aborted, report.undelivered_messages) == (1, 1, 2)


# --- who waits is told ----------------------------------------------------------------------------


async def test_who_waits_for_space_in_the_job_queue_is_told_that_the_hub_stops(sliced):
    hub = Hub(1, 1)
    joined(hub, 1000)
    publishing = [asyncio.ensure_future(hub.publish("chat", str(number))) for number in range(5)]
    await asyncio.sleep(0)
    await hub.shutdown(0)
    results = await asyncio.gather(*publishing)
    assert results[0].dropped > 0
    assert results[1:] == [BroadcastResult(stopped=True)] * 4


async def test_a_thread_that_publishes_while_the_hub_stops_is_told():
    hub = Hub()
    joined(hub, 1)
    await hub.shutdown(0)
    future = await asyncio.to_thread(hub.publish_threadsafe, "chat", "x")
    assert await asyncio.wrap_future(future) == BroadcastResult(stopped=True)


# --- arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"spread": -1}, "spread must be at least 0 seconds, not -1"),
        ({"spread": math.inf}, "spread must be at least 0 seconds, not inf"),
        ({"spread": 11}, r"spread \(11 s\) must not be more than the timeout \(10 s\)"),
        ({"reconnect_in": -1}, "reconnect_in must be at least 0 seconds, not -1"),
        ({"reconnect_in": math.nan}, "reconnect_in must be at least 0 seconds, not nan"),
        ({"reconnect_in": 3601}, "reconnect_in must be at most 3600 seconds, not 3601"),
    ],
)
async def test_times_that_make_no_sense_are_refused_and_the_hub_goes_on(options, said):
    hub = Hub()
    with pytest.raises(ValueError, match=f"^{said}$"):
        await hub.shutdown(**options)
    hub.can_join("chat")


@pytest.mark.parametrize("name", ["timeout", "spread", "reconnect_in"])
async def test_a_time_must_be_a_number(name):
    with pytest.raises(TypeError, match=f"^{name} must be a number of seconds, not str$"):
        await Hub().shutdown(**{name: "5"})


def test_a_reason_leaves_room_for_the_longest_hint():
    check_graceful_close(10, None, 3600, reason="x" * (123 - len("; reconnect in 3600.0 s")))
    with pytest.raises(ValueError, match="a close reason may have 123 bytes of UTF-8, not 124"):
        check_graceful_close(10, None, 1, reason="x" * (124 - len("; reconnect in 3600.0 s")))
    check_graceful_close(10, None, 0, reason="x" * 123)


# --- the farewell itself --------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def farewell_within(seconds: float, **options: Any) -> AsyncIterator[GracefulClose]:
    limit = TimeBudget(seconds)
    yield GracefulClose(limit, **options)
    limit.end()


async def test_closing_nobody_is_done_at_once():
    async with farewell_within(60) as farewell:
        await farewell.close([])
        await farewell.ended()
        assert (farewell.closed, farewell.aborted) == (0, 0)


async def test_a_connection_that_was_closing_already_keeps_its_code(start):
    async with crowd(start, 1) as ((conn,), (wire,)), farewell_within(60) as farewell:
        conn.close_nowait(CloseCode.POLICY_VIOLATION, "enough")
        await farewell.close([conn])
        ending = asyncio.ensure_future(farewell.ended())
        assert await says_goodbye(wire) == (CloseCode.POLICY_VIOLATION, "enough")
        await ending
        assert (farewell.closed, farewell.aborted) == (1, 0)


async def test_a_deadline_that_has_passed_cuts_at_once():
    conn, transport = fake_conn(ping_interval=None)
    async with farewell_within(0, reason="too late") as farewell:
        await farewell.close([conn])
        await farewell.ended()
        assert (farewell.closed, farewell.aborted) == (0, 1)
    assert transport.aborted
    assert transport.events() == [(8, (CloseCode.GOING_AWAY, "too late"))]


async def test_those_who_come_later_are_waited_for_though_the_first_are_gone():
    one, two = fake_conn(ping_interval=None)[0], fake_conn(ping_interval=None)[0]
    async with farewell_within(60) as farewell:
        await farewell.close([one])
        one.abort()
        await one.wait_closed()
        await farewell.close([two])
        ending = asyncio.ensure_future(farewell.ended())
        await ticks()
        assert not ending.done()
        feed(two, close(CloseCode.GOING_AWAY))
        await ending
        assert (farewell.closed, farewell.aborted) == (1, 1)


async def test_the_hint_stands_behind_the_reason_that_was_given():
    conn, transport = fake_conn(ping_interval=None)
    async with farewell_within(0, reason="new version", reconnect_in=2.0) as farewell:
        await farewell.close([conn])
        await farewell.ended()
    assert re.fullmatch(r"new version; reconnect in [012]\.\d s", goodbye(transport)[1])


# --- one that fails -------------------------------------------------------------------------------


async def close_all(how: str, hub: Hub) -> object:
    """Close the members of ``hub``, all connections of one user."""
    if how == "hub":
        return await hub.shutdown(5, spread=0)
    if how == "user":
        return hub.disconnect_user("u")
    return await GracefulClose(TimeBudget(5), spread=0).close(hub.members("chat"))


@pytest.mark.parametrize("how", ["hub", "user", "farewell"])
@pytest.mark.parametrize("calls", [("write", "writelines"), ("write", "writelines", "abort"), CALLS], ids=len)
async def test_failing_transport_keeps_no_other_open(how, calls):
    hub = Hub()
    transports: list[FakeTransport] = []
    with failures():
        for position in range(9):
            make = failing(calls, ValueError("broken")) if position == 4 else FakeTransport
            conn, transport = fake_conn(make, ping_interval=None, close_timeout=1)
            conn.user_info = plumews.UserInfo(id="u")
            hub.join("chat", conn)
            transports.append(transport)
        broken = transports.pop(4)
        broken.broken = True  # type: ignore[attr-defined]
        closing = asyncio.ensure_future(close_all(how, hub))
        await until(lambda: all(transport.writes for transport in transports))
        for transport in transports:
            assert transport.events()[-1][0] == Opcode.CLOSE
            feed(transport.protocol, close(1001))
        await closing
        await broken.protocol.wait_closed()
        await until(lambda: not hub.members("chat"))


@pytest.mark.parametrize("how", ["hub", "user", "farewell"])
async def test_connection_that_cannot_be_closed_keeps_no_other_open(how, monkeypatch):
    hub = Hub()
    transports = joined(hub, 9)
    for transport in transports:
        transport.protocol.user_info = plumews.UserInfo(id="u")
        hub.join("chat", transport.protocol)
    bad = transports[4].protocol
    genuine = plumews.Conn.close_nowait

    def close_nowait(conn, *args):
        if conn is bad:
            raise OSError("no")
        genuine(conn, *args)

    monkeypatch.setattr(plumews.Conn, "close_nowait", close_nowait)
    with failures() as told:
        closing = asyncio.ensure_future(close_all(how, hub))
        await until(lambda: sum(bool(transport.writes) for transport in transports) == 8)
        assert [context["message"] for context in told] == ["closing a connection failed"]
        for transport in transports:
            transport.abort()
        await closing
