"""plumews.attempts: what an address may guess wrong, and when it may guess again."""

from __future__ import annotations

import pytest

from plumews.auth.attempts import Attempts


def test_the_first_failures_are_free_and_then_one_each_interval() -> None:
    attempts = Attempts(burst=2, interval=10)
    for _ in range(2):
        assert attempts.retry_after("192.0.2.1", 100) == 0
        attempts.failed("192.0.2.1", 100)
    assert attempts.retry_after("192.0.2.1", 100) == 10
    assert attempts.retry_after("192.0.2.1", 104) == pytest.approx(6)
    assert attempts.retry_after("192.0.2.1", 110) == 0
    assert attempts.retry_after("192.0.2.2", 100) == 0


def test_no_more_is_saved_than_the_burst() -> None:
    attempts = Attempts(burst=2, interval=10)
    attempts.failed("192.0.2.1", 0)
    for _ in range(2):
        attempts.failed("192.0.2.1", 1e9)
    assert attempts.retry_after("192.0.2.1", 1e9) == 10


def test_what_is_owed_is_bounded() -> None:
    attempts = Attempts(burst=2, interval=10)
    for _ in range(1000):
        attempts.failed("192.0.2.1", 0)
    assert attempts.retry_after("192.0.2.1", 0) == 30


def test_what_was_right_after_all_is_forgiven_and_nothing_is_kept_of_it() -> None:
    attempts = Attempts(burst=2, interval=10)
    attempts.failed("192.0.2.1", 0)
    attempts.forgive("192.0.2.1", 0)
    assert len(attempts) == 0
    for _ in range(2):
        attempts.failed("192.0.2.1", 0)
    attempts.forgive("192.0.2.1", 0)
    assert attempts.retry_after("192.0.2.1", 0) == 0
    attempts.forgive("192.0.2.9", 0)
    assert len(attempts) == 1


def test_who_comes_from_no_network_is_not_limited() -> None:
    attempts = Attempts(burst=1)
    for _ in range(5):
        attempts.failed(None, 0)
    attempts.forgive(None, 0)
    assert attempts.retry_after(None, 0) == 0


def test_the_table_is_bounded_and_forgets_who_has_not_failed_for_longest() -> None:
    attempts = Attempts(burst=1, max_addresses=2)
    for address in ("192.0.2.1", "192.0.2.2", "192.0.2.1", "192.0.2.3"):
        attempts.failed(address, 0)
    assert len(attempts) == 2
    assert [attempts.retry_after(f"192.0.2.{n}", 0) > 0 for n in (1, 2, 3)] == [True, False, True]


@pytest.mark.parametrize("name", ["burst", "interval", "max_addresses"])
def test_bounds_are_positive(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be more than 0"):
        Attempts(**{name: 0})  # type: ignore[arg-type]
