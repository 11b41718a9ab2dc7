"""Tests of HistoryStore: lifetime of histories, and bounds over all rooms."""

from __future__ import annotations

import gc
import random
import tracemalloc

import pytest

from plumews import limits
from plumews.hub.config import HubConfig
from plumews.hub.history import HistoryLimits
from plumews.hub.history_store import HistoryStore
from plumews.position import Position
from plumews.protocol.message import encode
from plumews.transport.timers import Timers
from support.fakes import FakeLoop

TEN = encode(2, bytes(8))  # a frame of ten bytes


@pytest.fixture
def frames_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count frames only, without the memory of objects."""
    monkeypatch.setattr(limits, "HISTORY_OVERHEAD", 0)
    monkeypatch.setattr(limits, "HISTORY_ROOM_OVERHEAD", 0)


class Rooms:
    """Store on a clock that stands still, and the member counts of its rooms."""

    def __init__(
        self, *, max_rooms: int = 0, max_bytes: int = 0, asked: list[str] | None = None, **bounds: float
    ) -> None:
        self.loop = FakeLoop()
        self.timers = Timers(self.loop)  # type: ignore[arg-type]
        self.members = {"full": 1}
        bounds_of_all = HistoryLimits(**{"max_age": 10, **bounds})  # type: ignore[arg-type]

        def policy(room: str) -> HistoryLimits | None:
            if asked is not None:
                asked.append(room)
            return None if room == "none" else bounds_of_all

        config = HubConfig(max_history_rooms=max_rooms, max_history_bytes=max_bytes)
        self.store = HistoryStore(policy, config, lambda room: self.members.get(room, 0))

    def record(self, room: str) -> Position | None:
        return self.store.record(room, TEN, self.timers)

    def position(self, room: str) -> Position | None:
        stream = self.store.stream(room, self.timers)
        return None if stream is None else stream.position

    def kept(self, room: str) -> int:
        stream = self.store.stream(room, self.timers)
        assert stream is not None
        return len(stream)

    def epoch(self, room: str) -> str:
        position = self.position(room)
        assert position is not None
        return position.epoch


# --- rooms ----------------------------------------------------------------------------------------


def test_room_without_history_is_not_stored():
    rooms = Rooms()
    assert rooms.record("none") is None
    assert rooms.position("none") is None
    assert (len(rooms.store), rooms.store.bytes, len(rooms.timers)) == (0, 0, 0)


def test_rooms_number_their_messages_independently():
    rooms = Rooms()
    assert [rooms.record(room).offset for room in ("a", "b", "a", "a")] == [1, 1, 2, 3]  # type: ignore[union-attr]
    assert rooms.epoch("a") != rooms.epoch("b")


def test_policy_is_called_once_in_the_life_of_a_history():
    asked: list[str] = []
    rooms = Rooms(asked=asked)
    for _ in range(3):
        rooms.record("a")
        rooms.position("a")
    assert asked == ["a"]
    rooms.loop.advance(30)
    rooms.record("a")
    assert asked == ["a", "a"]


def test_policy_with_other_result_raises_type_error():
    store = HistoryStore(lambda room: 100, HubConfig(), len)  # type: ignore[arg-type,return-value]
    with pytest.raises(TypeError, match="history must give HistoryLimits or None for a room, not int"):
        store.record("a", TEN, Rooms().timers)
    assert len(store) == 0


# --- lifetime -------------------------------------------------------------------------------------


def test_history_of_empty_room_lives_for_max_age():
    rooms = Rooms()
    rooms.record("a")
    epoch = rooms.epoch("a")
    rooms.loop.advance(9.9)
    assert rooms.kept("a") == 1
    assert rooms.epoch("a") == epoch
    rooms.loop.advance(10)  # it was asked for again
    assert (len(rooms.store), rooms.store.bytes) == (0, 0)
    assert rooms.epoch("a") != epoch


def test_history_lives_for_max_age_after_last_member_left():
    rooms = Rooms()
    rooms.record("full")
    epoch = rooms.epoch("full")
    rooms.loop.advance(95)
    assert (len(rooms.store), rooms.store.bytes) == (1, limits.HISTORY_ROOM_OVERHEAD)
    rooms.members["full"] = 0
    rooms.store.left("full", rooms.timers)
    rooms.loop.advance(9.9)
    assert rooms.epoch("full") == epoch
    rooms.loop.advance(10)
    assert len(rooms.store) == 0


def test_leave_with_members_left_sets_no_deadline():
    rooms = Rooms()
    rooms.record("full")
    rooms.loop.advance(50)
    rooms.store.left("full", rooms.timers)
    assert len(rooms.timers) == 0
    rooms.store.left("unknown", rooms.timers)
    assert len(rooms.store) == 1


def test_history_survives_if_members_return_in_time():
    rooms = Rooms()
    rooms.record("a")
    epoch = rooms.epoch("a")
    rooms.loop.advance(9)
    rooms.members["a"] = 1
    rooms.loop.advance(500)
    assert rooms.position("a") == Position(epoch, 1)


def test_messages_expire_without_a_call(frames_alone):
    rooms = Rooms()
    for _ in range(5):
        rooms.record("full")
        rooms.loop.advance(1)
    assert rooms.store.bytes == 50
    rooms.loop.advance(6.5)
    assert rooms.store.bytes == 30
    rooms.loop.advance(100)
    assert rooms.store.bytes == 0


def test_silent_room_with_members_has_no_deadline():
    rooms = Rooms()
    rooms.record("full")
    rooms.loop.advance(11)
    wakes = rooms.loop.wakes
    rooms.loop.advance(10_000)
    assert (rooms.loop.wakes, len(rooms.timers)) == (wakes, 0)


def test_all_histories_share_one_timer():
    rooms = Rooms()
    for number in range(500):
        rooms.record(f"room {number}")
        rooms.loop.advance(0.001)
    assert len(rooms.loop.armed) == 1
    rooms.loop.advance(100)
    assert (len(rooms.store), len(rooms.timers), rooms.loop.armed) == (0, 0, [])


# --- bounds ---------------------------------------------------------------------------------------


def test_least_recently_used_history_goes_beyond_max_rooms(frames_alone):
    rooms = Rooms(max_rooms=3)
    epochs = {}
    for room in ("a", "b", "c"):
        rooms.record(room)
        epochs[room] = rooms.epoch(room)
    rooms.position("a")
    rooms.record("d")
    assert len(rooms.store) == 3
    assert rooms.store.bytes == 30
    assert rooms.epoch("a") == epochs["a"]
    assert rooms.epoch("c") == epochs["c"]
    assert rooms.epoch("b") != epochs["b"]


def test_oldest_messages_of_quiet_rooms_go_beyond_max_bytes(frames_alone):
    rooms = Rooms(max_bytes=100)
    for room in "aaabbb":
        rooms.record(room)
    for _ in range(6):
        rooms.record("c")
    assert rooms.store.bytes == 100
    assert [rooms.kept(room) for room in "abc"] == [1, 3, 6]
    for _ in range(20):
        rooms.record("c")
    assert [rooms.kept(room) for room in "abc"] == [0, 0, 10]
    assert rooms.position("a") == Position(rooms.epoch("a"), 3)  # its numbers live on


def test_message_above_all_bytes_is_not_kept(frames_alone):
    rooms = Rooms(max_bytes=9)
    rooms.record("a")
    assert (rooms.kept("a"), rooms.store.bytes) == (0, 0)


def test_many_dropped_rooms_leave_no_deadlines():
    rooms = Rooms(max_rooms=10)
    for number in range(5000):
        rooms.record(f"room {number}")
    assert len(rooms.store) == len(rooms.timers) == 10
    assert len(rooms.timers._heap) < 200


def test_clear_forgets_all_histories(frames_alone):
    rooms = Rooms()
    for room in ("a", "b", "full"):
        rooms.record(room)
    rooms.store.clear()
    assert (len(rooms.store), rooms.store.bytes, len(rooms.timers)) == (0, 0, 0)
    assert rooms.record("a").offset == 1  # type: ignore[union-attr]


def test_store_keeps_sums_and_bounds_under_random_use(frames_alone):
    for seed in range(30):
        dice = random.Random(seed)
        rooms = Rooms(max_rooms=5, max_bytes=150, max_messages=dice.randint(1, 8))
        for _ in range(300):
            room = dice.choice("abcdefgh")
            action = dice.randrange(4)
            if action == 0:
                rooms.loop.advance(dice.random() * 4)
            elif action == 1:
                rooms.members[room] = dice.randrange(2)
                rooms.store.left(room, rooms.timers)
            elif action == 2:
                rooms.position(room)
            else:
                rooms.record(room)
            entries = rooms.store._entries.values()
            assert rooms.store.bytes == sum(entry.stream.bytes for entry in entries) <= 150, seed
            assert len(entries) <= 5, seed
            assert {room for room, entry in rooms.store._entries.items() if len(entry.stream)} == set(
                rooms.store._filled
            ), seed
        rooms.members.clear()
        for room in "abcdefgh":
            rooms.store.left(room, rooms.timers)
        rooms.loop.advance(100)
        assert (len(rooms.store), rooms.store.bytes, len(rooms.timers)) == (0, 0, 0), seed


@pytest.mark.parametrize("size", [0, 100])
@pytest.mark.parametrize("per_room", [1, 30])
def test_history_bytes_are_within_factor_2_of_memory(size: int, per_room: int):
    bound = 2_000_000
    rooms = Rooms(max_bytes=bound, max_messages=1000)
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(20_000):
            message = encode(2, bytes(size))
            rooms.store.record(f"room {number // per_room}", message, rooms.timers)
        del message
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert bound * 0.5 < rooms.store.bytes <= bound
    assert rooms.store.bytes / 2 <= taken <= 2 * rooms.store.bytes


def test_histories_without_messages_take_half_of_the_bytes():
    rooms = Rooms(max_bytes=20 * limits.HISTORY_ROOM_OVERHEAD)
    for number in range(100):
        rooms.position(f"room {number}")
    assert len(rooms.store) == len(rooms.timers) == 10
    rooms = Rooms(max_bytes=1)
    assert rooms.record("a").offset == rooms.record("b").offset == 1  # type: ignore[union-attr]
    assert (len(rooms.store), rooms.kept("b")) == (1, 0)
