"""Tests of counters by name."""

from __future__ import annotations

import pytest

from plumews import limits
from plumews.counters import BoundedCounter


def test_given_names_start_at_0_and_others_are_added():
    counts = BoundedCounter(["a", "b"])
    counts.add("b")
    counts.add("c")
    counts.add("b")
    assert counts.snapshot() == {"a": 0, "b": 2, "c": 1}
    assert counts.total == 3


def test_snapshot_is_a_copy():
    counts = BoundedCounter(["a"])
    snapshot = counts.snapshot()
    counts.add("a")
    assert snapshot == {"a": 0}


@pytest.mark.parametrize("beyond", [0, 1, 1000])
def test_names_beyond_the_limit_are_counted_as_other(beyond):
    counts = BoundedCounter(["given"])
    for number in range(limits.COUNTED_NAMES - 1 + beyond):
        counts.add(f"name {number}")
    counts.add("given")
    counts.add("name 0")
    snapshot = counts.snapshot()
    assert (snapshot["given"], snapshot["name 0"], snapshot.get("other", 0)) == (1, 2, beyond)
    assert len(snapshot) == limits.COUNTED_NAMES + (beyond > 0)
    assert counts.total == limits.COUNTED_NAMES + 1 + beyond
