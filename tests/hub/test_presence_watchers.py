"""Tests of presence watchers: all users in the first call, differences in later ones."""

from __future__ import annotations

import asyncio

import pytest

from plumews import Hub, InvalidRoomName, UserInfo
from support.fakes import deadlines, failures, ticks
from support.members import PlainMember, plain_member

Names = tuple[str, str, str]


class Told:
    """Callback that records its calls: ``("chat", "ann bob", "cid")`` if Ann and Bob joined and Cid left."""

    def __init__(self) -> None:
        self.calls: list[Names] = []
        self._next: asyncio.Queue[Names] = asyncio.Queue()

    def __call__(self, room: str, joined: tuple[UserInfo, ...], left: tuple[UserInfo, ...]) -> None:
        call = room, *(" ".join(sorted(user.id for user in users)) for users in (joined, left))
        self.calls.append(call)
        self._next.put_nowait(call)

    async def next(self) -> Names:
        return await self._next.get()


def join(hub: Hub, room: str, *names: str) -> list[PlainMember]:
    return [plain_member(hub, room, user=name) for name in names]


async def test_first_call_names_all_users_and_later_ones_changes(soon):
    hub, told = Hub(), Told()
    ann, bob = join(hub, "chat", "ann", "bob")
    hub.watch_presence("chat", told)
    assert told.calls == []
    assert await told.next() == ("chat", "ann bob", "")
    join(hub, "chat", "cid")
    hub.leave("chat", ann)
    bob.end()
    assert await told.next() == ("chat", "cid", "ann bob")


async def test_late_watcher_gets_all_users(soon):
    hub, early, late = Hub(), Told(), Told()
    hub.watch_presence("chat", early)
    join(hub, "chat", "ann")
    assert await early.next() == ("chat", "ann", "")
    join(hub, "chat", "bob")
    hub.watch_presence("chat", late)
    join(hub, "chat", "cid")
    assert await late.next() == ("chat", "ann bob cid", "")
    assert await early.next() == ("chat", "bob cid", "")


async def test_user_that_returns_in_time_is_not_reported(soon):
    hub, told = Hub(), Told()
    hub.watch_presence("chat", told)
    (ann,) = join(hub, "chat", "ann")
    assert await told.next() == ("chat", "ann", "")
    hub.leave("chat", ann)
    join(hub, "chat", "ann")
    flash = join(hub, "chat", "bob", "cid")
    for conn in flash:
        hub.remove(conn)
    join(hub, "chat", "dan")
    assert await told.next() == ("chat", "dan", "")


async def test_only_first_join_and_last_leave_of_user_are_reported(soon):
    hub, told = Hub(), Told()
    hub.watch_presence("chat", told)
    one, two = join(hub, "chat", "ann", "ann")
    assert await told.next() == ("chat", "ann", "")
    before = deadlines()
    hub.leave("chat", one)
    join(hub, "chat", "")  # anonymous
    assert deadlines() == before
    hub.leave("chat", two)
    assert await told.next() == ("chat", "", "ann")


async def test_changed_user_is_reported_as_left_and_joined(soon):
    hub, told = Hub(), Told()
    hub.watch_presence("chat", told)
    (conn,) = join(hub, "chat", "")
    conn.user_info = UserInfo("ann")
    hub.join("chat", conn)
    assert await told.next() == ("chat", "ann", "")
    conn.user_info = UserInfo("bob")
    hub.join("chat", conn)
    assert await told.next() == ("chat", "bob", "ann")


async def test_changes_that_cancel_out_are_not_reported(soon):
    hub, told, counts = Hub(), Told(), asyncio.Queue[int]()
    hub.watch_presence("chat", told)
    for conn in join(hub, "chat", "ann", "bob"):
        hub.leave("chat", conn)
    hub.watch_count("chat", lambda room, count: counts.put_nowait(count))
    join(hub, "chat", "")
    await counts.get()  # which was asked for later
    assert told.calls == []
    assert not hub._presence.watchers._differences


async def test_many_changes_are_one_call_with_bounded_memory(soon):
    hub, told = Hub(), Told()
    hub.watch_presence("chat", told)
    before = deadlines()
    for number in range(2000):
        (conn,) = join(hub, "chat", f"user {number}")
        if number % 500:
            hub.leave("chat", conn)
    came, went = hub._presence.watchers._differences["chat"]
    assert (len(came), len(went)) == (4, 0)
    assert deadlines() == before
    assert await told.next() == ("chat", "user 0 user 1000 user 1500 user 500", "")
    assert len(told.calls) == 1


async def test_unwatched_room_costs_nothing():
    hub, told, before = Hub(), Told(), deadlines()
    end = hub.watch_presence("news", told)
    assert deadlines() == before + 1
    join(hub, "chat", "ann", "bob")
    assert not hub._presence.watchers._differences
    end()
    end()
    assert deadlines() == before
    watchers = hub._presence.watchers
    assert not any((watchers._watchers, watchers._differences, watchers._new, watchers._due))


async def test_failing_presence_watcher_is_reported(soon):
    hub, told = Hub(), Told()

    def fail(room: str, joined: object, left: object) -> None:
        raise RuntimeError("not today")

    hub.watch_presence("chat", fail)
    hub.watch_presence("chat", told)
    with failures() as reported:
        join(hub, "chat", "ann")
        assert await told.next() == ("chat", "ann", "")
    assert [failure["message"] for failure in reported] == ["a watcher of presence failed"]


async def test_presence_watcher_may_end_itself_and_change_the_room(soon):
    hub, told, later = Hub(), Told(), Told()
    ends = []

    def once(room: str, joined: tuple[UserInfo, ...], left: tuple[UserInfo, ...]) -> None:
        for end in ends:
            end()
        join(hub, "chat", "bob")
        hub.watch_presence("chat", later)

    ends.append(hub.watch_presence("chat", once))
    ends.append(hub.watch_presence("chat", once))
    hub.watch_presence("chat", told)
    join(hub, "chat", "ann")
    assert await told.next() == ("chat", "ann", "")  # Bob came while it was being told
    assert await told.next() == ("chat", "bob", "")
    assert await later.next() == ("chat", "ann bob", "")
    assert len(told.calls) == 2
    assert len(later.calls) == 1


async def test_stopped_hub_calls_no_presence_watchers():
    hub, told, before = Hub(), Told(), deadlines()
    hub.watch_presence("chat", told)
    join(hub, "chat", "ann", "bob")
    await hub.shutdown(0)
    await ticks()
    assert told.calls == []
    assert deadlines() == before


async def test_invalid_rooms_and_callbacks_are_refused():
    hub = Hub()

    async def told(room: str, joined: object, left: object) -> None: ...

    with pytest.raises(TypeError, match="the callback must be a plain function"):
        hub.watch_presence("chat", told)
    with pytest.raises(InvalidRoomName):
        hub.watch_presence("", Told())
    with pytest.raises(InvalidRoomName):
        hub.watch_count("", lambda room, count: None)
    with pytest.raises(TypeError, match="the callback must be a plain function"):
        hub.watch_count("chat", None)  # type: ignore[arg-type]
