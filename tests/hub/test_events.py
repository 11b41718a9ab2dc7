"""Tests of events: order, failures and removal of callbacks, their registration at a hub, and watchers of counts."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
from typing import Any

import pytest

import plumews
from plumews import Gap, Hub, SendBehavior
from plumews.hub import events
from plumews.hub.events import CountWatchers, EventDispatcher
from plumews.validation import check_callback, is_plain_function
from support.fakes import deadlines, failures, ticks
from support.members import joined, plain_members, stalled


async def test_callbacks_of_a_kind_are_called_in_order():
    callbacks, log = EventDispatcher(), []
    callbacks.add("join", lambda room: log.append(("one", room)))
    callbacks.add("join", lambda room: log.append(("two", room)))
    callbacks.add("leave", lambda room: log.append(("never", room)))
    callbacks.dispatch("join", ("a",), ("b",))
    callbacks.dispatch("something else", ("c",))
    assert log == [("one", "a"), ("two", "a"), ("one", "b"), ("two", "b")]


async def test_ended_callback_is_not_called():
    callbacks, log = EventDispatcher(), []
    end = callbacks.add("join", log.append)
    callbacks.add("join", log.append)
    end()
    end()
    callbacks.dispatch("join", (1,))
    assert log == [1]


async def test_dispatcher_keeps_nothing_after_last_callback_ended():
    callbacks = EventDispatcher()
    for end in [callbacks.add("join", print) for _ in range(3)]:
        end()
    callbacks.dispatch("join", (1,))
    assert not callbacks.wanted("join")
    assert not callbacks._events


async def test_event_within_callback_waits_for_other_callbacks():
    callbacks, log = EventDispatcher(), []

    def chain(number: int) -> None:
        log.append(("chain", number))
        if number < 3:
            callbacks.dispatch("join", (number + 1,))
            log.append(("returned", number))

    callbacks.add("join", chain)
    callbacks.add("join", lambda number: log.append(("other", number)))
    callbacks.dispatch("join", (1,))
    assert log == [
        ("chain", 1),
        ("returned", 1),
        ("other", 1),
        ("chain", 2),
        ("returned", 2),
        ("other", 2),
        ("chain", 3),
        ("other", 3),
    ]


async def test_chain_of_ten_thousand_events_does_not_nest():
    callbacks, count = EventDispatcher(), 0

    def again(number: int) -> None:
        nonlocal count
        count += 1
        if number:
            callbacks.dispatch("join", (number - 1,))

    callbacks.add("join", again)
    callbacks.dispatch("join", (9_999,))
    assert count == 10_000


async def test_callback_ended_by_another_is_not_called():
    callbacks, log = EventDispatcher(), []
    ends = []
    callbacks.add("join", lambda number: [end() for end in ends])
    ends.append(callbacks.add("join", log.append))
    callbacks.dispatch("join", (1,), (2,))
    assert log == []


@pytest.mark.parametrize("error", [RuntimeError("not today"), asyncio.CancelledError()], ids=["error", "cancelled"])
async def test_failing_callback_is_reported_and_others_are_called(error):
    callbacks, log = EventDispatcher(), []

    def fail(number: int) -> None:
        raise error

    callbacks.add("join", fail)
    callbacks.add("join", log.append)
    with failures() as told:
        callbacks.dispatch("join", (1,), (2,))
    assert log == [1, 2]
    assert [failure["exception"] for failure in told] == [error] * 2
    assert told[0]["message"] == "a callback of the hub (join) failed"


async def test_interrupted_callback_does_not_lose_later_events():
    callbacks, log = EventDispatcher(), []

    def interrupt(number: int) -> None:
        log.append(number)
        if number == 1:
            raise KeyboardInterrupt

    callbacks.add("join", interrupt)
    with pytest.raises(KeyboardInterrupt):
        callbacks.dispatch("join", (1,), (2,))
    callbacks.dispatch("join", (3,))
    assert log == [1, 2, 3]


class Plain:
    def __call__(self) -> None: ...


class Awaited:
    async def __call__(self) -> None: ...


async def coroutine_function() -> None: ...


@pytest.mark.parametrize(
    ("callback", "plain"),
    [
        (print, True),
        (lambda: None, True),
        (Plain(), True),
        (functools.partial(print, 1), True),
        (coroutine_function, False),
        (functools.partial(coroutine_function), False),
        (Awaited(), False),
        (None, False),
        ("print", False),
    ],
)
def test_only_plain_functions_are_callbacks(callback, plain):
    assert is_plain_function(callback) is plain
    with contextlib.nullcontext() if plain else pytest.raises(TypeError, match="must be a plain function"):
        check_callback(callback)
    with contextlib.nullcontext() if plain else pytest.raises(TypeError, match="must be a plain function"):
        EventDispatcher().add("join", callback)


def test_wanted_tells_if_there_is_a_callback():
    callbacks = EventDispatcher()
    assert not callbacks.wanted("join")
    end = callbacks.add("join", print)
    assert callbacks.wanted("join")
    assert not callbacks.wanted("leave")
    end()
    assert not callbacks.wanted("join")


# --- registration at a hub ------------------------------------------------------------------------


NAMES = ["on_join", "on_leave", "on_slow", "on_drop", "on_gap"]


async def everything(hub: Hub) -> None:
    """Let a member join, be slow, lose a message, read again, and leave."""
    conn, transport = stalled(hub, send_behavior=SendBehavior.DROP, queue_size=1)
    hub.broadcast_room("room", "x")
    hub.broadcast_room("room", "y")
    await ticks()
    transport.drain()
    await ticks()
    hub.remove(conn)


async def test_hub_events_reach_their_callbacks_in_order():
    hub, log = Hub(), []
    for name in NAMES:
        getattr(hub, name)(lambda *args, name=name: log.append((name, *args[-1:])))
    await everything(hub)
    assert [name for name, _ in log] == ["on_join", "on_slow", "on_drop", "on_gap", "on_leave"]
    assert dict(log)["on_drop"] == 1
    assert dict(log)["on_gap"] == Gap("room", 1)


@pytest.mark.parametrize("name", NAMES)
async def test_ended_callback_of_hub_is_not_called(name):
    hub, log = Hub(), []
    end, other = (getattr(hub, name)(lambda *_, which=which: log.append(which)) for which in ("one", "other"))
    end()
    end()
    await everything(hub)
    assert log == ["other"]
    other()
    await everything(hub)
    assert log == ["other"]


@pytest.mark.parametrize("name", NAMES)
async def test_coroutine_function_is_refused_at_registration(name):
    async def callback(*_: object) -> None: ...

    with pytest.raises(TypeError, match="must be a plain function"):
        getattr(Hub(), name)(callback)


async def test_drops_of_one_iteration_are_reported_together():
    hub, log = Hub(), []
    hub.on_drop(lambda conn, room, count: log.append((room, count)))
    _, transports = joined(hub, "room", 1, send_behavior=SendBehavior.DROP, queue_size=1)
    transports[0].fill()
    for _ in range(5):
        hub.broadcast_room("room", "x")
    assert log == []
    await ticks()
    assert log == [("room", 4)]


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("on_join", "room, conn"),
        ("on_leave", "room, conn"),
        ("on_slow", "conn"),
        ("on_drop", "conn, room, count"),
        ("on_gap", "conn, gap"),
    ],
)
async def test_callback_with_wrong_parameters_is_refused_at_once(name, parameters):
    text = rf"the callback of {name} is called with \({parameters}\), but takes \(hub, one, too, many\)"
    with pytest.raises(TypeError, match=text):
        getattr(Hub(), name)(lambda hub, one, too, many: None)


@pytest.mark.parametrize("name", ["watch_count", "watch_presence"])
async def test_watcher_with_wrong_parameters_is_refused_at_once(name):
    with pytest.raises(TypeError, match=rf"the callback of {name} is called with \(room, .*\), but takes \(room\)"):
        getattr(Hub(), name)("room", lambda room: None)


@pytest.mark.parametrize("name", ["on_join", "on_leave", "on_slow", "on_drop", "on_gap"])
async def test_registration_on_another_thread_is_refused(name):
    hub = plumews.Hub()
    register = getattr(hub, name)
    end = register(lambda *args: None)  # before it is used a hub belongs to no thread
    async with hub:
        for call in (end, lambda: register(lambda *args: None)):
            with pytest.raises(plumews.ConcurrencyError, match="belongs to the thread of its event loop"):
                await asyncio.to_thread(call)
        end()


# --- watchers of counts ---------------------------------------------------------------------------


class Told:
    """Callback that records its calls."""

    def __init__(self) -> None:
        self.counts: list[tuple[str, int]] = []
        self._next: asyncio.Queue[tuple[str, int]] = asyncio.Queue()

    def __call__(self, room: str, count: int) -> None:
        self.counts.append((room, count))
        self._next.put_nowait((room, count))

    async def next(self) -> tuple[str, int]:
        return await self._next.get()


async def test_count_watcher_gets_room_and_count(soon):
    hub, told = Hub(), Told()
    hub.watch_count("chat", told)
    conns = plain_members(hub, "chat", 3)
    assert await told.next() == ("chat", 3)
    hub.leave("chat", conns[0])
    assert await told.next() == ("chat", 2)
    hub.remove(conns[1])
    conns[2].end()
    assert await told.next() == ("chat", 0)


async def test_many_count_changes_are_one_call_with_the_last_count(soon):
    hub, told = Hub(), Told()
    hub.watch_count("chat", told)
    before = deadlines()
    for _ in range(50):
        for conn in plain_members(hub, "chat", 4)[:3]:
            hub.leave("chat", conn)
    assert deadlines() == before + 1
    assert told.counts == []
    assert await told.next() == ("chat", 50)
    assert told.counts == [("chat", 50)]


async def test_count_watchers_are_called_at_most_ten_times_a_second(monkeypatch):
    assert events.WATCH_INTERVAL == 0.1
    monkeypatch.setattr(events, "WATCH_INTERVAL", 0.05)
    hub, told = Hub(), Told()
    loop = asyncio.get_running_loop()
    times = []  # of the calls, not of when this task got its turn behind them
    hub.watch_count("chat", lambda room, count: times.append(loop.time()))
    hub.watch_count("chat", told)
    for _ in range(4):
        plain_members(hub, "chat", 1)
        await told.next()
    assert all(later - earlier > 0.04 for earlier, later in itertools.pairwise(times))


async def test_count_watcher_is_not_called_without_change(soon):
    hub, told = Hub(), Told()
    (conn,) = plain_members(hub, "chat", 1)
    before = deadlines()
    hub.watch_count("chat", told)
    hub.join("chat", conn)
    hub.leave("news", conn)
    hub.join("news", conn)
    hub.broadcast_all("x")
    assert deadlines() == before
    assert told.counts == []


async def test_count_watchers_of_rooms_are_independent(soon):
    hub, chat, news, both = Hub(), Told(), Told(), Told()
    hub.watch_count("chat", chat)
    hub.watch_count("news", news)
    hub.watch_count("chat", both)
    hub.watch_count("news", both)
    plain_members(hub, "chat", 2)
    plain_members(hub, "news", 3)
    assert await chat.next() == ("chat", 2)
    assert await news.next() == ("news", 3)
    assert {await both.next(), await both.next()} == {("chat", 2), ("news", 3)}


async def test_ended_count_watcher_is_not_called(soon):
    hub, one, two = Hub(), Told(), Told()
    end = hub.watch_count("chat", one)
    hub.watch_count("chat", two)
    plain_members(hub, "chat", 1)
    end()
    end()
    assert await two.next() == ("chat", 1)
    assert one.counts == []


async def test_ending_twice_keeps_other_watch_of_same_callback(soon):
    hub, told = Hub(), Told()
    end = hub.watch_count("chat", told)
    hub.watch_count("chat", told)
    end()
    end()
    plain_members(hub, "chat", 1)
    assert await told.next() == ("chat", 1)
    assert told.counts == [("chat", 1)]


async def test_last_count_watcher_cancels_the_deadline():
    hub, before = Hub(), deadlines()
    end = hub.watch_count("chat", Told())
    plain_members(hub, "chat", 1)
    assert deadlines() == before + 1
    end()
    assert deadlines() == before
    assert not hub._counts._watchers


async def test_failing_count_watcher_is_reported(soon):
    failures: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: failures.append(context))
    try:
        hub, told = Hub(), Told()

        def fail(room: str, count: int) -> None:
            raise RuntimeError("not today")

        hub.watch_count("chat", fail)
        hub.watch_count("chat", told)
        plain_members(hub, "chat", 1)
        assert await told.next() == ("chat", 1)
        plain_members(hub, "chat", 1)
        assert await told.next() == ("chat", 2)
    finally:
        loop.set_exception_handler(None)
    assert [str(failure["exception"]) for failure in failures] == ["not today"] * 2
    assert failures[0]["message"] == "a watcher of a member count failed"


async def test_count_watcher_may_end_watchers_and_change_the_room(soon):
    hub, told = Hub(), Told()
    ends = []

    def once(room: str, count: int) -> None:
        told(room, count)
        for end in ends:
            end()
        hub.watch_count("chat", told)
        plain_members(hub, "chat", 1)

    ends.append(hub.watch_count("chat", once))
    ends.append(hub.watch_count("chat", once))
    plain_members(hub, "chat", 1)
    assert await told.next() == ("chat", 1)
    assert await told.next() == ("chat", 2)
    assert told.counts == [("chat", 1), ("chat", 2)]


async def test_ten_thousand_count_watchers_end_in_linear_time():
    watchers = CountWatchers(lambda room: 0)

    def nothing(room: str, count: int) -> None:
        """Do nothing. All watchers share it, so that a search for it would be slow."""

    ends = [watchers.add("chat", nothing) for _ in range(10_000)]
    for end in reversed(ends):
        end()
    assert not watchers._watchers


async def test_stopped_hub_calls_no_count_watchers():
    hub, told, before = Hub(), Told(), deadlines()
    hub.watch_count("chat", told)
    plain_members(hub, "chat", 2)
    await hub.shutdown(0)
    await ticks()
    assert not hub._counts._watchers
    assert not hub._counts._due
    assert told.counts == []
    assert deadlines() == before
