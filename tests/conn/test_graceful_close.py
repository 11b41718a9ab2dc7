"""Graceful close of many connections: hints, spread, arguments and failures."""

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
from plumews import CloseCode, Hub, Opcode, ShutdownReport, limits
from plumews.conn import graceful_close
from plumews.conn.graceful_close import GracefulClose, TimeBudget, check_graceful_close
from support.fakes import (
    CALLS,
    FakeTransport,
    failing,
    failures,
    fake_conn,
    feed,
    ticks,
    until,
)
from support.members import answer_close, answer_closes, close_frame_of, crowd, join_members
from support.raw_client import close

# --- reconnect times ------------------------------------------------------------------------------


def hints(frames: list[tuple[int, str]]) -> list[float]:
    """Return the reconnect times in the reasons of close frames."""
    found = [re.fullmatch(r"reconnect in (\d+\.\d) s", reason) for _, reason in frames]
    assert all(found), frames
    return [float(match[1]) for match in found if match]


@pytest.mark.parametrize("restart", [False, True], ids=["for good", "restart"])
async def test_each_member_gets_its_own_reconnect_time(restart):
    hub = Hub()
    transports = join_members(hub, 200)
    await hub.shutdown(0, restart=restart, reconnect_in=3.0)
    told = hints([close_frame_of(transport) for transport in transports])
    assert 0 <= min(told) < 0.5
    assert 2.5 < max(told) <= 3.0
    assert len(set(told)) > 20


async def test_default_reconnect_time_is_up_to_five_seconds(start):
    hub = Hub()
    async with crowd(start, 3) as (conns, wires):
        for conn in conns:
            hub.join("chat", conn)
        stopping = asyncio.ensure_future(hub.stop())
        assert all(0 <= hint <= 5 for hint in hints(await answer_closes(wires)))
        await stopping


async def test_without_a_hint_the_reason_is_empty():
    hub = Hub()
    (transport,) = join_members(hub, 1)
    await hub.shutdown(0, reconnect_in=0)
    assert close_frame_of(transport) == (CloseCode.GOING_AWAY, "")


# --- spread ---------------------------------------------------------------------------------------


async def test_members_are_closed_over_the_spread_in_random_order():
    hub = Hub()
    transports = join_members(hub, 60)
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


async def test_default_spread_grows_to_a_fifth_of_the_timeout(monkeypatch):
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
        assert max(pauses, default=0) <= 1.5 * graceful_close._CLOSE_SLICE


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


async def test_connection_that_left_the_hub_stays_open():
    hub = Hub()
    transports = join_members(hub, 40)
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
async def test_wrong_times_are_refused_and_the_hub_goes_on(options, said):
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


# --- GracefulClose --------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def farewell_within(seconds: float, **options: Any) -> AsyncIterator[GracefulClose]:
    limit = TimeBudget(seconds)
    yield GracefulClose(limit, **options)
    limit.end()


async def test_close_of_no_connections_ends_at_once():
    async with farewell_within(60) as farewell:
        await farewell.close([])
        await farewell.ended()
        assert (farewell.closed, farewell.aborted) == (0, 0)


async def test_a_connection_that_was_closing_already_keeps_its_code(start):
    async with crowd(start, 1) as ((conn,), (wire,)), farewell_within(60) as farewell:
        conn.close_nowait(CloseCode.POLICY_VIOLATION, "enough")
        await farewell.close([conn])
        ending = asyncio.ensure_future(farewell.ended())
        assert await answer_close(wire) == (CloseCode.POLICY_VIOLATION, "enough")
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


async def test_ended_waits_for_connections_closed_later():
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
    assert re.fullmatch(r"new version; reconnect in [012]\.\d s", close_frame_of(transport)[1])


# --- failures -------------------------------------------------------------------------------------


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
    transports = join_members(hub, 9)
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
