"""Who is told how many members a room has: seldom, and always of the last change."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

from plumews import Hub, limits
from plumews.hub.events import CountWatchers
from support.fakes import deadlines, fake_conn, ticks


class Told:
    """A callback, and what it was told."""

    def __init__(self) -> None:
        self.counts: list[tuple[str, int]] = []
        self._next: asyncio.Queue[tuple[str, int]] = asyncio.Queue()

    def __call__(self, room: str, count: int) -> None:
        self.counts.append((room, count))
        self._next.put_nowait((room, count))

    async def next(self) -> tuple[str, int]:
        return await self._next.get()


def members(hub: Hub, room: str, count: int) -> list[Any]:
    conns = [fake_conn(ping_interval=None)[0] for _ in range(count)]
    for conn in conns:
        hub.join(room, conn)
    return conns


async def test_a_watcher_is_told_the_room_and_its_count(soon):
    hub, told = Hub(), Told()
    hub.watch_count("chat", told)
    conns = members(hub, "chat", 3)
    assert await told.next() == ("chat", 3)
    hub.leave("chat", conns[0])
    assert await told.next() == ("chat", 2)
    hub.remove(conns[1])
    conns[2].abort()
    assert await told.next() == ("chat", 0)


async def test_a_storm_of_changes_is_told_once_and_with_its_end(soon):
    hub, told = Hub(), Told()
    hub.watch_count("chat", told)
    before = deadlines()
    for _ in range(50):
        for conn in members(hub, "chat", 4)[:3]:
            hub.leave("chat", conn)
    assert deadlines() == before + 1
    assert told.counts == []
    assert await told.next() == ("chat", 50)
    assert told.counts == [("chat", 50)]


async def test_two_counts_are_a_tenth_of_a_second_apart(monkeypatch):
    assert limits.COUNT_EVERY == 0.1
    monkeypatch.setattr(limits, "COUNT_EVERY", 0.05)
    hub, told = Hub(), Told()
    loop = asyncio.get_running_loop()
    times = []  # of the calls, not of when this task got its turn behind them
    hub.watch_count("chat", lambda room, count: times.append(loop.time()))
    hub.watch_count("chat", told)
    for _ in range(4):
        members(hub, "chat", 1)
        await told.next()
    assert all(later - earlier > 0.04 for earlier, later in itertools.pairwise(times))


async def test_nobody_is_told_when_nothing_changed(soon):
    hub, told = Hub(), Told()
    (conn,) = members(hub, "chat", 1)
    before = deadlines()
    hub.watch_count("chat", told)
    hub.join("chat", conn)
    hub.leave("news", conn)
    hub.join("news", conn)
    hub.broadcast_all("x")
    assert deadlines() == before
    assert told.counts == []


async def test_each_room_has_its_own_watchers(soon):
    hub, chat, news, both = Hub(), Told(), Told(), Told()
    hub.watch_count("chat", chat)
    hub.watch_count("news", news)
    hub.watch_count("chat", both)
    hub.watch_count("news", both)
    members(hub, "chat", 2)
    members(hub, "news", 3)
    assert await chat.next() == ("chat", 2)
    assert await news.next() == ("news", 3)
    assert {await both.next(), await both.next()} == {("chat", 2), ("news", 3)}


async def test_a_watcher_that_ended_is_told_nothing_more_and_the_others_are(soon):
    hub, one, two = Hub(), Told(), Told()
    end = hub.watch_count("chat", one)
    hub.watch_count("chat", two)
    members(hub, "chat", 1)
    end()
    end()
    assert await two.next() == ("chat", 1)
    assert one.counts == []


async def test_ending_twice_does_not_end_another_watch_of_the_same_callback(soon):
    hub, told = Hub(), Told()
    end = hub.watch_count("chat", told)
    hub.watch_count("chat", told)
    end()
    end()
    members(hub, "chat", 1)
    assert await told.next() == ("chat", 1)
    assert told.counts == [("chat", 1)]


async def test_the_last_watcher_takes_the_deadline_with_it():
    hub, before = Hub(), deadlines()
    end = hub.watch_count("chat", Told())
    members(hub, "chat", 1)
    assert deadlines() == before + 1
    end()
    assert deadlines() == before
    assert not hub._counts._callbacks


async def test_a_watcher_that_fails_is_reported_and_the_others_are_told(soon):
    failures: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: failures.append(context))
    try:
        hub, told = Hub(), Told()

        def fail(room: str, count: int) -> None:
            raise RuntimeError("not today")

        hub.watch_count("chat", fail)
        hub.watch_count("chat", told)
        members(hub, "chat", 1)
        assert await told.next() == ("chat", 1)
        members(hub, "chat", 1)
        assert await told.next() == ("chat", 2)
    finally:
        loop.set_exception_handler(None)
    assert [str(failure["exception"]) for failure in failures] == ["not today"] * 2
    assert failures[0]["message"] == "a watcher of a member count failed"


async def test_a_watcher_may_end_itself_and_others_and_change_the_room(soon):
    hub, told = Hub(), Told()
    ends = []

    def once(room: str, count: int) -> None:
        told(room, count)
        for end in ends:
            end()
        hub.watch_count("chat", told)
        members(hub, "chat", 1)

    ends.append(hub.watch_count("chat", once))
    ends.append(hub.watch_count("chat", once))
    members(hub, "chat", 1)
    assert await told.next() == ("chat", 1)
    assert await told.next() == ("chat", 2)
    assert told.counts == [("chat", 1), ("chat", 2)]


async def test_ten_thousand_watchers_of_one_room_end_in_linear_time():
    watchers = CountWatchers(lambda room: 0)

    def nothing(room: str, count: int) -> None:
        """The same for all, so that looking for it would find it late."""

    ends = [watchers.add("chat", nothing) for _ in range(10_000)]
    for end in reversed(ends):
        end()
    assert not watchers._callbacks


async def test_a_stopped_hub_tells_nobody_anything():
    hub, told, before = Hub(), Told(), deadlines()
    hub.watch_count("chat", told)
    members(hub, "chat", 2)
    await hub.shutdown(0)
    await ticks()
    assert not hub._counts._callbacks
    assert not hub._counts._due
    assert told.counts == []
    assert deadlines() == before
