"""How many lines a second are logged, and which."""

from __future__ import annotations

import random

from plumews import limits
from plumews.conn.log_limit import LogLimit


def test_a_flood_of_one_kind_is_three_lines_a_second():
    limit = LogLimit()
    logged = [now / 1000 for now in range(10_000) if limit.admit("bad", now / 1000)]
    assert len(logged) == 10 * limits.LOG_REPEATED


def test_a_flood_of_one_kind_hides_the_first_line_of_no_other():
    limit = LogLimit()
    for _ in range(1000):
        limit.admit("bad", 0.0)
    assert limit.admit("other", 0.1)
    assert limit.admit("third", 0.1)
    assert not limit.admit("other", 0.2)


def test_what_is_not_urgent_leaves_room_for_what_is():
    limit = LogLimit()
    logged = sum(limit.admit(f"kind {number}", 0.0) for number in range(1000))
    assert logged == limits.LOG_CALM
    assert limit.admit("broken", 0.5, urgent=True)


def test_no_second_has_more_lines_than_it_may():
    chance, limit, lines, now, told = random.Random(7), LogLimit(), [], 0.0, 0.0
    for _ in range(20_000):
        now += chance.expovariate(2000)
        if limit.admit(f"kind {chance.randrange(40)}", now, urgent=chance.random() < 0.5):
            lines.append(now)
        if now - told >= limits.LOG_SUMMARY_EVERY and limit.take_left_out(now):
            lines.append(now)
            told = now
    assert len(lines) > 50
    busiest = max(sum(start <= time < start + 1 for time in lines) for start in lines)
    assert busiest == limits.LOG_LINES


def test_what_is_left_out_is_counted_by_kind_and_told_once():
    limit = LogLimit()
    for kind in ("bad", "bad", "bad", "bad", "bad", "worse"):
        limit.admit(kind, 0.0)
    assert limit.take_left_out(1.0) == {"bad": 2}
    assert limit.take_left_out(2.0) == {}


def test_a_line_that_tells_of_it_is_a_line():
    limit = LogLimit()
    logged = sum(limit.admit(f"kind {number}", 0.0, urgent=True) for number in range(100))
    assert limit.take_left_out(0.5) != {}
    limit.admit("more", 0.6, urgent=True)
    assert limit.take_left_out(0.7) == {}, "the second is full"
    assert limit.take_left_out(1.6) == {"more": 1}
    assert logged + 1 == limits.LOG_LINES


def test_kinds_without_end_are_not_kept_without_end():
    limit = LogLimit()
    for number in range(100_000):
        limit.admit(f"kind {number}", number / 100_000)
    assert len(limit._kinds) <= limits.LOG_LINES
    counts = limit.take_left_out(1.5)
    assert len(counts) <= limits.COUNTED_NAMES + 1
    assert sum(counts.values()) > 99_000
