"""When work is done: at once within a share of the time, then in turn, and not before there is room for it."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest

from plumews import limits
from plumews.constants import State
from plumews.deflate.pacing import LATER, ROOM, TURN, Pacing
from plumews.deflate.turns import turns_of


class Work(Pacing):
    """Has room when the test says so."""

    room = True

    def _has_room(self, conn: Any) -> bool:
        return self.room


class Conn:
    """What is asked of a connection: to go on."""

    def __init__(self, share: float = 0.5) -> None:
        self._loop = asyncio.get_running_loop()
        self._rules = SimpleNamespace(state=State.OPEN)
        self.went_on: list[bool] = []
        self.work = Work(share, turns_of(self._loop))

    def _go_on(self) -> None:
        self.went_on.append(self.work._may_work(time.monotonic()))


async def test_work_uses_up_its_share_and_has_time_again_when_that_has_passed() -> None:
    work = Conn(0.25).work
    now = time.monotonic()
    assert work._may_work(now)
    work._count(now - limits.INFLATE_BURST)  # what takes so long costs four times that
    assert not work._may_work(time.monotonic())
    assert work._may_work(time.monotonic() + 5 * limits.INFLATE_BURST)


async def test_who_waits_for_its_turn_goes_on_in_it_whatever_it_has_used() -> None:
    conn = Conn()
    conn.work._used_until = time.monotonic() + 60
    assert conn.work._wait_for(TURN) == LATER
    assert conn.work.waits(conn)
    assert conn.work.waits(conn)  # and asks once
    end = time.monotonic() + 9
    while not conn.went_on and time.monotonic() < end:
        await asyncio.sleep(0)
    for _ in range(5):
        await asyncio.sleep(0)
    assert conn.went_on == [True]
    assert not conn.work.waits(conn)
    assert not conn.work._may_work(time.monotonic())


async def test_who_waits_for_room_goes_on_when_there_is_some() -> None:
    conn = Conn()
    conn.work.room = False
    conn.work._wait_for(ROOM)
    assert conn.work.waits(conn)
    conn.work.changed(conn)
    await asyncio.sleep(0)
    assert conn.went_on == []
    conn.work.room = True
    conn.work.changed(conn)
    conn.work.changed(conn)
    await asyncio.sleep(0)
    assert conn.went_on == [True]
    assert not conn.work.waits(conn)


async def test_room_is_nothing_to_who_waits_for_its_turn() -> None:
    conn = Conn()
    conn.work._wait_for(TURN)
    conn.work.changed(conn)
    await asyncio.sleep(0)
    assert conn.went_on == []


async def test_who_closes_waits_for_no_turn() -> None:
    conn = Conn()
    conn.work._wait_for(TURN)
    conn._rules.state = State.CLOSING
    conn.work.changed(conn)
    conn.work.changed(conn)
    await asyncio.sleep(0)
    assert conn.went_on == [True]


async def test_there_is_no_pacing_without_knowing_what_room_is() -> None:
    with pytest.raises(NotImplementedError):
        Pacing(1, turns_of(asyncio.get_running_loop()))._has_room(None)
