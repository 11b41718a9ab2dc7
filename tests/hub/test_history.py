"""Tests of RoomHistory: numbers without holes, bounds, and the messages since a position."""

from __future__ import annotations

import dataclasses
import math
import random

import pytest

from plumews import limits
from plumews.hub.history import HistoryLimits, Recovery, RoomHistory
from plumews.position import Position
from plumews.protocol.message import EncodedMessage, encode

#: What a message takes besides its frame.
MORE = limits.HISTORY_OVERHEAD


def message(number: int, size: int = 10) -> EncodedMessage:
    """Return a frame of ``size`` bytes that contains its number."""
    return encode(2, f"{number:0{size - 2}}".encode())


def numbers(messages: list[EncodedMessage]) -> list[int]:
    return [int(bytes(encoded.buffers[0])[2:]) for encoded in messages]


def filled(count: int, **bounds: float) -> RoomHistory:
    """Return a history to which message N was added at second N, up to ``count``."""
    stream = RoomHistory(HistoryLimits(**bounds))  # type: ignore[arg-type]
    for number in range(1, count + 1):
        stream.record(message(number), number)
    return stream


def since(stream: RoomHistory, offset: int) -> tuple[bool, list[int]]:
    complete, messages = stream.since(Position(stream.epoch, offset))
    return complete, numbers(messages)


# --- numbers --------------------------------------------------------------------------------------


def test_messages_are_numbered_from_1_in_order():
    stream = filled(0)
    assert stream.position == Position(stream.epoch, 0)
    stream.record(message(1), 0)
    stream.record(message(2), 0)
    assert stream.position == Position(stream.epoch, 2)
    assert since(stream, 0) == (True, [1, 2])


def test_histories_have_different_epochs():
    assert len({filled(0).epoch for _ in range(1000)}) == 1000


@pytest.mark.parametrize("offset", range(6))
def test_since_returns_all_later_messages(offset):
    assert since(filled(5), offset) == (True, list(range(offset + 1, 6)))


def test_history_keeps_frames_without_copies():
    stream = filled(0)
    encoded = message(1)
    stream.record(encoded, 0)
    assert stream.since(stream.position) == (True, [])
    (kept,) = stream.since(Position(stream.epoch, 0))[1]
    assert kept is encoded


# --- bounds ---------------------------------------------------------------------------------------


def test_history_drops_oldest_beyond_max_messages():
    stream = filled(5, max_messages=3)
    assert len(stream) == 3
    assert since(stream, 2) == (True, [3, 4, 5])
    assert since(stream, 1) == (False, [3, 4, 5])
    assert since(stream, 0) == (False, [3, 4, 5])


def test_history_drops_oldest_beyond_max_bytes():
    stream = filled(5, max_bytes=30 + 3 * MORE)
    assert stream.bytes == 30 + 3 * MORE
    assert since(stream, 2) == (True, [3, 4, 5])
    assert since(stream, 1) == (False, [3, 4, 5])


def test_message_above_max_bytes_is_numbered_but_not_kept():
    stream = filled(2, max_bytes=30 + MORE)
    stream.record(message(3, size=31), 3)
    assert (len(stream), stream.bytes, stream.offset) == (0, 0, 3)
    assert since(stream, 2) == (False, [])
    assert since(stream, 3) == (True, [])
    stream.record(message(4), 4)
    assert since(stream, 2) == (False, [4])
    assert since(stream, 3) == (True, [4])


def test_messages_of_max_age_expire():
    stream = filled(3, max_age=10)
    assert stream.next_expiry == 11
    stream.expire(10.999)
    assert len(stream) == 3
    stream.expire(12)
    assert (len(stream), stream.bytes, stream.next_expiry) == (1, 10 + MORE, 13)
    assert since(stream, 2) == (True, [3])
    assert since(stream, 1) == (False, [3])
    stream.expire(100)
    assert (stream.next_expiry, stream.offset) == (None, 3)
    assert since(stream, 3) == (True, [])


def test_since_is_complete_only_if_nothing_is_missing():
    for seed in range(200):
        dice = random.Random(seed)
        bounds = HistoryLimits(
            max_messages=dice.randint(1, 8), max_age=dice.randint(1, 20), max_bytes=dice.randint(1, 8) * (25 + MORE)
        )
        stream, everything, now = RoomHistory(bounds), [], 0
        for number in range(1, dice.randint(1, 40)):
            now += dice.randint(0, 3)
            everything.append((number, now))
            stream.record(message(number, size=dice.randint(6, 40)), now)
        now += dice.randint(0, 10)
        stream.expire(now)
        assert len(stream) <= bounds.max_messages
        assert stream.bytes <= bounds.max_bytes
        assert stream.bytes == sum(encoded.size + MORE for encoded in stream.since(Position("x", 0))[1])
        for offset in range(len(everything) + 1):
            complete, got = since(stream, offset)
            wanted = [number for number, _ in everything[offset:]]
            assert complete == (got == wanted), seed
            assert got == wanted[len(wanted) - len(got) :], seed
            assert all(now - when < bounds.max_age for number, when in everything if number in got), seed


# --- positions of others --------------------------------------------------------------------------


def test_since_of_another_epoch_returns_all_as_incomplete():
    stream = filled(3)
    for offset in (0, 2, 3, 7):
        complete, messages = stream.since(Position("another", offset))
        assert (complete, numbers(messages)) == (False, [1, 2, 3])
    assert filled(0).since(Position("another", 0)) == (False, [])


def test_since_start_is_complete_until_a_message_is_dropped():
    start = Position("", 0)
    assert filled(0).since(start) == (True, [])
    complete, messages = filled(3).since(start)
    assert (complete, numbers(messages)) == (True, [1, 2, 3])
    complete, messages = filled(3, max_messages=2).since(start)
    assert (complete, numbers(messages)) == (False, [2, 3])
    assert filled(3).since(Position("", 3))[0] is False, "an offset without an epoch means nothing"


def test_since_future_position_returns_nothing_as_incomplete():
    assert since(filled(3), 4) == (False, [])
    assert since(filled(3), 10**30) == (False, [])


def test_position_of_a_history_survives_str_and_parse():
    position = filled(17).position
    assert Position.parse(str(position)) == position


@pytest.mark.parametrize("value", [HistoryLimits(), Recovery(True, 0, None)], ids=type)
def test_limits_and_recovery_cannot_be_changed(value):
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, dataclasses.fields(value)[0].name, 5)


# --- wrong values ---------------------------------------------------------------------------------


def test_history_limits_defaults():
    assert HistoryLimits() == HistoryLimits(max_messages=100, max_age=300.0, max_bytes=1024 * 1024)


@pytest.mark.parametrize("name", ["max_messages", "max_bytes"])
@pytest.mark.parametrize("value", [0, -1, 1.0, "1", True, None], ids=repr)
def test_bound_that_is_no_positive_int_is_refused(name, value):
    with pytest.raises((ValueError, TypeError), match=f"^{name} must be"):
        HistoryLimits(**{name: value})


@pytest.mark.parametrize("value", [0, -1, math.inf, math.nan, "1", True, None], ids=repr)
def test_max_age_that_is_no_time_is_refused(value):
    with pytest.raises((ValueError, TypeError), match=r"^max_age must be"):
        HistoryLimits(max_age=value)
