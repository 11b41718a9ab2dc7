"""Stop of a hub: its members, their messages, its time limits and repeated calls."""

from __future__ import annotations

import asyncio
import math

import pytest

import plumews
from plumews import BroadcastResult, CloseCode, ConnectionClosed, Hub, HubStopped, ShutdownReport, State, limits
from support.fakes import (
    PATIENCE,
    clog,
    deadlines,
    fake_conn,
    pass_time,
    ticks,
    until,
)
from support.members import (
    adds_up,
    answer_close,
    answer_closes,
    close_frame_of,
    crowd,
    join_members,
    messages,
    plain_members,
)
from support.raw_client import Wire, close, text

# --- everybody is told ----------------------------------------------------------------------------


async def test_stop_closes_every_member_with_1001(start):
    hub = Hub()
    async with crowd(start, 4) as (conns, wires):
        for number, conn in enumerate(conns):
            hub.join(f"room {number % 2}", conn)
        hub.join("room 0", conns[1])
        stopping = asyncio.ensure_future(hub.stop())
        assert [code for code, _ in await answer_closes(wires)] == [CloseCode.GOING_AWAY] * 4
        assert await stopping == ShutdownReport(closed=4)
        assert hub.rooms() == []
        assert hub.connection_count() == 0
        assert all(conn.state is State.CLOSED for conn in conns)


async def test_restart_closes_with_1012(start):
    hub = Hub()
    async with crowd(start, 2) as (conns, wires):
        for conn in conns:
            hub.join("chat", conn)
        stopping = asyncio.ensure_future(hub.shutdown(restart=True))
        assert [code for code, _ in await answer_closes(wires)] == [CloseCode.SERVICE_RESTART] * 2
        assert await stopping == ShutdownReport(closed=2)


async def test_stop_leaves_connections_without_a_room_open(start):
    hub = Hub()
    async with crowd(start, 2) as (conns, wires):
        hub.join("chat", conns[0])
        hub.join("chat", conns[1])
        hub.remove(conns[1])
        stopping = asyncio.ensure_future(hub.stop())
        await answer_close(wires[0])
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
        answering = asyncio.ensure_future(answer_close(wire))
        async with Hub() as hub:
            hub.join("chat", conn)
            hub.broadcast_room("chat", "hello")
        assert (await answering)[0] == CloseCode.GOING_AWAY
        assert conn.state is State.CLOSED
        with pytest.raises(HubStopped):
            hub.can_join("chat")


# --- what was broadcast is delivered --------------------------------------------------------------


async def test_broadcasts_before_the_stop_precede_the_close_frame(start, sliced):
    hub = Hub()
    for _ in range(300):
        hub.join("chat", fake_conn(ping_interval=None, close_timeout=0.1)[0])
    async with crowd(start, 1) as ((conn,), (wire,)):
        hub.join("chat", conn)
        for number in range(20):
            assert hub.broadcast_room("chat", str(number)).pending
        stopping = asyncio.ensure_future(hub.stop())
        assert await messages(wire, 20) == [str(number) for number in range(20)]
        assert (await answer_close(wire))[0] == CloseCode.GOING_AWAY
        report = await stopping
        assert (report.closed, report.aborted, report.undelivered_messages) == (1, 300, 0)
        assert report.delivered_messages >= 20
        metrics = hub.metrics()
        assert metrics.broadcast_matched == metrics.broadcast_queued == 20 * 301


async def test_full_member_gets_its_send_timeout_before_the_close(start):
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
        assert (await answer_close(wire))[0] == CloseCode.GOING_AWAY
        report = await stopping
        assert (report.closed, report.aborted, report.undelivered_messages) == (1, 0, 0)
        assert report.delivered_messages >= 8  # what filled its queue, and what waited behind that
        assert hub.metrics().broadcast_dropped == 0


async def test_publishers_get_their_result_when_the_hub_stops(sliced):
    hub = Hub(1, 2)
    members = plain_members(hub, "chat", 200)
    publishing = [asyncio.ensure_future(hub.publish("chat", str(number))) for number in range(6)]
    await asyncio.sleep(0)
    assert len(hub._broadcaster.scheduler) == 2
    stopping = asyncio.ensure_future(hub.stop())
    results = await asyncio.gather(*publishing)
    assert results == [BroadcastResult(matched=200, queued=200)] * 2 + [BroadcastResult(stopped=True)] * 4
    await stopping
    assert all(member.messages == ["0", "1"] for member in members)
    assert adds_up(hub.metrics())


# --- it takes no longer than it may ---------------------------------------------------------------


async def test_silent_members_are_cut_at_the_limit_and_reported(start):
    hub = Hub()
    async with crowd(start, 3, close_timeout=60) as (conns, wires):
        for conn in conns:
            hub.join("chat", conn)
        loop = asyncio.get_running_loop()
        started = loop.time()
        stopping = asyncio.ensure_future(hub.shutdown(0.5))  # in which one has to answer
        await answer_close(wires[0])
        assert await stopping == ShutdownReport(closed=1, aborted=2)
        assert 0.45 < loop.time() - started < PATIENCE
        assert all(conn.state is State.CLOSED for conn in conns)
        assert hub.rooms() == []


async def test_unread_member_is_cut_and_its_losses_counted(start):
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


async def test_member_cut_by_its_close_timeout_counts_as_aborted(start):
    hub = Hub()
    async with crowd(start, 2, close_timeout=1000, ping_interval=None) as (conns, wires):
        for conn in conns:
            hub.join("chat", conn)
        stopping = asyncio.ensure_future(hub.shutdown(2000))
        await answer_close(wires[0])
        await conns[0].wait_closed()
        pass_time(1000)
        assert await stopping == ShutdownReport(closed=1, aborted=1)


async def test_stop_gives_up_broadcasts_at_the_limit(sliced):
    hub = Hub(4, 100)
    for member in plain_members(hub, "chat", 2000):
        member.lingers = True
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


async def test_full_member_without_timeout_does_not_block_the_stop(monkeypatch):
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
async def test_timeout_of_none_is_refused_and_the_hub_goes_on(timeout):
    hub = Hub()
    with pytest.raises(ValueError, match="timeout must be at least 0 seconds, not"):
        await hub.shutdown(timeout)
    hub.can_join("chat")


async def test_stopped_hub_leaves_nothing_behind():
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


async def test_second_stop_waits_for_the_first_and_returns_the_same(start):
    hub = Hub()
    async with crowd(start, 1) as ((conn,), (wire,)):
        hub.join("chat", conn)
        stopping = [asyncio.ensure_future(stop) for stop in (hub.stop(), hub.shutdown(20, restart=True), hub.stop())]
        await ticks()
        assert not any(stop.done() for stop in stopping)
        assert (await answer_close(wire))[0] == CloseCode.GOING_AWAY
        assert await asyncio.gather(*stopping) == [ShutdownReport(closed=1)] * 3
        assert await hub.stop() == ShutdownReport(closed=1)


async def test_cancelled_stop_goes_on_without_its_caller(start):
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


async def test_broadcasts_after_the_stop_count_as_rejected():
    hub = Hub()
    (member,) = plain_members(hub, "chat", 1)
    await hub.shutdown(0)
    for result in (hub.broadcast_room("chat", "x"), hub.broadcast_all("x"), await hub.publish("chat", "x")):
        assert result == BroadcastResult(stopped=True)
        assert result.rejected
    assert hub.metrics().broadcasts_rejected == 3
    assert adds_up(hub.metrics())
    assert member.messages == []


async def test_no_connection_joins_once_the_stop_is_called(start):
    hub = Hub()
    async with crowd(start, 2) as (conns, wires):
        hub.join("chat", conns[0])
        stopping = asyncio.ensure_future(hub.stop())
        await asyncio.sleep(0)
        with pytest.raises(HubStopped, match="the hub is stopped"):
            hub.join("chat", conns[1])
        await answer_close(wires[0])
        await stopping
        with pytest.raises(HubStopped):
            hub.join("chat", conns[1])
        assert hub.metrics().rejected_total == 2
        assert hub.rooms() == []
        assert not conns[1].closed


async def test_questions_and_leaving_are_still_answered_after_the_stop():
    hub = Hub()
    (conn,) = plain_members(hub, "chat", 1)
    await hub.shutdown(0)
    hub.leave("chat", conn)
    hub.remove(conn)
    assert (hub.rooms(), hub.total_count(), hub.members("chat"), hub.rooms_of(conn)) == ([], 0, [], [])
    assert hub.metrics().accepted_total == 1


async def test_members_may_send_leave_and_close_during_the_stop(start, sliced):
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
        await asyncio.gather(*map(answer_close, wires[4:]))
        report = await stopping
        assert report.closed + report.aborted == 205
        assert report.aborted >= 200
        await asyncio.gather(*(conn.wait_closed() for conn in conns if conn is not conns[2]))
        assert all(result.stopped for result in results)
        assert not conns[2].closed
        metrics = hub.metrics()
        assert metrics.broadcast_pending == 0
        assert adds_up(metrics)


async def test_stop_from_a_members_handler_does_not_wait_for_itself(start):
    hub = Hub()
    reports: asyncio.Queue[ShutdownReport] = asyncio.Queue()

    async def handler(conn: plumews.Conn) -> None:
        hub.join("chat", conn)
        async for _ in conn:
            reports.put_nowait(await hub.stop())

    server = await start(plumews.serve(handler, "127.0.0.1", 0))
    async with await Wire.open(server) as wire:
        wire.send(text("stop"))
        assert (await answer_close(wire))[0] == CloseCode.GOING_AWAY
        assert await reports.get() == ShutdownReport(closed=1)


# --- a shorter time than was said first -----------------------------------------------------------


async def test_second_stop_with_less_time_shortens_the_first(start):
    hub = Hub()
    async with crowd(start, 1, close_timeout=1000) as ((conn,), (wire,)):
        hub.join("chat", conn)
        first = asyncio.ensure_future(hub.shutdown(1000))
        assert (await wire.closing())[0] == CloseCode.GOING_AWAY  # which is not answered
        assert await hub.shutdown(0.05) == ShutdownReport(aborted=1)
        assert await first == ShutdownReport(aborted=1)


async def test_second_stop_with_more_time_does_not_extend_the_first(start):
    hub = Hub()
    async with crowd(start, 1, close_timeout=1000) as ((conn,), (wire,)):
        hub.join("chat", conn)
        first = asyncio.ensure_future(hub.shutdown(0.2))
        await wire.closing()
        assert await hub.shutdown(1000) == await first == ShutdownReport(aborted=1)


async def test_less_time_ends_the_pauses_between_closes():
    hub = Hub()
    transports = join_members(hub, 40)
    first = asyncio.ensure_future(hub.shutdown(1000, spread=900))
    await until(lambda: any(transport.writes for transport in transports))
    assert await hub.shutdown(0) == ShutdownReport(aborted=40)
    await first
    assert all(close_frame_of(transport)[0] == CloseCode.GOING_AWAY for transport in transports)


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
        assert (await answer_close(wire))[0] == CloseCode.GOING_AWAY
        await conn.wait_closed()
        assert not full.closed
        pass_time(2000)
        report = await stopping
        assert (report.closed, report.aborted, report.undelivered_messages) == (1, 1, 2)


# --- who waits is told ----------------------------------------------------------------------------


async def test_publisher_waiting_for_space_raises_when_the_hub_stops(sliced):
    hub = Hub(1, 1)
    plain_members(hub, "chat", 1000)
    publishing = [asyncio.ensure_future(hub.publish("chat", str(number))) for number in range(5)]
    await asyncio.sleep(0)
    await hub.shutdown(0)
    results = await asyncio.gather(*publishing)
    assert results[0].dropped > 0
    assert results[1:] == [BroadcastResult(stopped=True)] * 4


async def test_publishing_thread_raises_when_the_hub_stops():
    hub = Hub()
    plain_members(hub, "chat", 1)
    await hub.shutdown(0)
    future = await asyncio.to_thread(hub.publish_threadsafe, "chat", "x")
    assert await asyncio.wrap_future(future) == BroadcastResult(stopped=True)
