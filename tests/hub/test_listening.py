"""Who registers to hear of what happens in a hub; what each is told is tested where it happens."""

from __future__ import annotations

import asyncio

import pytest

import plumews
from plumews import Gap, Hub, SendBehavior
from support.fakes import ticks
from support.members import joined, stalled

NAMES = ["on_join", "on_leave", "on_slow", "on_drop", "on_gap"]


async def everything(hub: Hub) -> None:
    """Somebody comes, is slow, loses a message, takes others again, and goes."""
    conn, transport = stalled(hub, send_behavior=SendBehavior.DROP, queue_size=1)
    hub.broadcast_room("room", "x")
    hub.broadcast_room("room", "y")
    await ticks()
    transport.drain()
    await ticks()
    hub.remove(conn)


async def test_each_hears_of_its_own_kind_in_the_order_in_which_it_happens():
    hub, log = Hub(), []
    for name in NAMES:
        getattr(hub, name)(lambda *args, name=name: log.append((name, *args[-1:])))
    await everything(hub)
    assert [name for name, _ in log] == ["on_join", "on_slow", "on_drop", "on_gap", "on_leave"]
    assert dict(log)["on_drop"] == 1
    assert dict(log)["on_gap"] == Gap("room", 1)


@pytest.mark.parametrize("name", NAMES)
async def test_who_has_ended_it_hears_nothing_any_more(name):
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
async def test_a_coroutine_function_is_refused_where_it_is_registered(name):
    async def callback(*_: object) -> None: ...

    with pytest.raises(TypeError, match="must be a plain function"):
        getattr(Hub(), name)(callback)


async def test_what_is_told_together_is_told_when_the_tick_ends():
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
async def test_a_callback_that_takes_something_else_is_told_so_at_once_and_not_when_it_is_called(name, parameters):
    text = rf"the callback of {name} is called with \({parameters}\), but takes \(hub, one, too, many\)"
    with pytest.raises(TypeError, match=text):
        getattr(Hub(), name)(lambda hub, one, too, many: None)


@pytest.mark.parametrize("name", ["watch_count", "watch_presence"])
async def test_a_watcher_that_takes_something_else_is_told_so_at_once(name):
    with pytest.raises(TypeError, match=rf"the callback of {name} is called with \(room, .*\), but takes \(room\)"):
        getattr(Hub(), name)("room", lambda room: None)


@pytest.mark.parametrize("name", ["on_join", "on_leave", "on_slow", "on_drop", "on_gap"])
async def test_registering_in_another_thread_is_refused(name):
    hub = plumews.Hub()
    register = getattr(hub, name)
    end = register(lambda *args: None)  # before it is used a hub belongs to no thread
    async with hub:
        for call in (end, lambda: register(lambda *args: None)):
            with pytest.raises(plumews.ConcurrencyError, match="belongs to the thread of its event loop"):
                await asyncio.to_thread(call)
        end()
