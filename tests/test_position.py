"""Tests of positions in the history of a room."""

from __future__ import annotations

import dataclasses

import pytest

from plumews.position import Position


def test_position_is_written_as_epoch_dot_offset():
    assert str(Position("1f0c", 17)) == "1f0c.17"


@pytest.mark.parametrize(
    "text",
    [
        *[
            ".",
            "1f",
            "1f.",
            "starts",
            "Start",
            "start.",
            " ",
            "1f.-1",
            "1f.+1",
            "1f.1.5",
            "1f.1_0",
            "1f. 1",
            "1f.٣",
            "é.1",
            "a b.1",
            "1f.1\n",
        ],
        *["a" * 33 + ".1", "1f." + "1" * 33],
    ],
)
def test_parse_of_other_text_raises_value_error_with_example(text):
    with pytest.raises(ValueError, match=r"^a position must look like 1f0c9a5be27d4830\.17"):
        Position.parse(text)


@pytest.mark.parametrize("epoch", ["", "0", "start", "1f0c9a5be27d4830", "z" * 32])
@pytest.mark.parametrize("offset", [0, 1, 17, 2**64, 10**32 - 1])
def test_position_of_any_value_survives_str_and_parse(epoch, offset):
    position = Position(epoch, offset)
    assert Position.parse(str(position)) == position


def test_position_without_epoch_is_start():
    assert str(Position("", 0)) == "start"
    assert Position.parse("start") == Position.parse("") == Position.parse(".0") == Position("", 0)


@pytest.mark.parametrize("epoch", ["a.b", "a b", "é", "a\n", "a" * 33])
def test_position_with_unreadable_epoch_is_refused(epoch):
    with pytest.raises(ValueError, match=r"^epoch must be up to 32 ASCII letters and digits, not "):
        Position(epoch, 1)


def test_parse_of_bytes_raises_type_error():
    with pytest.raises(TypeError, match="a position is read from a str, not from bytes"):
        Position.parse(b"1f.1")  # type: ignore[arg-type]


def test_position_fields_of_wrong_type_or_range_are_refused():
    with pytest.raises(ValueError, match=r"^offset must be at least 0, not -1$"):
        Position("x", -1)
    with pytest.raises(ValueError, match=r"^offset must be at most 9{32}, not 1"):
        Position("x", 10**32)
    with pytest.raises(TypeError, match=r"^offset must be an int, not str$"):
        Position("x", "1")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^epoch must be a str, not int$"):
        Position(1, 1)  # type: ignore[arg-type]


def test_position_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Position("x", 1).offset = 2  # type: ignore[misc]
