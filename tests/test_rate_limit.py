"""Tests of token buckets and address groups. The tests set the clock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plumews.rate_limit import TokenBucket, address_group, default_burst


def take_all(bucket: TokenBucket, now: float) -> int:
    """Take all tokens at ``now``, and return their number."""
    count = 0
    while not bucket.take(now):
        count += 1
    return count


def test_full_bucket_gives_a_burst_and_then_the_rate():
    bucket = TokenBucket(10, 3)
    assert [bucket.take(1000.0) for _ in range(3)] == [0.0] * 3
    assert bucket.take(1000.0) == pytest.approx(0.1)
    assert bucket.take(1000.09) == pytest.approx(0.01)
    assert bucket.take(1000.1) == 0.0
    assert bucket.take(1000.1) == pytest.approx(0.1)


def test_wait_and_refused_take_leave_the_tokens():
    bucket = TokenBucket(1, 1)
    assert bucket.wait(0.0) == bucket.wait(0.0) == bucket.take(0.0) == 0.0
    assert [bucket.take(0.5) for _ in range(5)] == [pytest.approx(0.5)] * 5
    assert bucket.take(1.0) == 0.0


def test_take_succeeds_after_the_returned_wait():
    bucket, now = TokenBucket(7, 1), 12345.678
    bucket.take(now)
    for _ in range(1000):
        now += bucket.wait(now)
        assert bucket.take(now) == 0.0


@pytest.mark.parametrize("idle", [10, 48 * 3600, 1e12], ids=["seconds", "two days", "ages"])
def test_idle_bucket_holds_at_most_the_burst(idle):
    bucket = TokenBucket(100_000, 5)
    assert take_all(bucket, 0.0) == 5
    assert take_all(bucket, idle) == 5


def test_rate_below_one_gives_single_tokens():
    bucket = TokenBucket(0.5, default_burst(0.5))
    assert take_all(bucket, 0.0) == 1
    assert take_all(bucket, 1.9) == 0
    assert take_all(bucket, 2.0) == 1


@pytest.mark.parametrize(("rate", "burst"), [(0.001, 1), (0.5, 1), (0.6, 2), (1, 2), (2.25, 5), (100, 200)])
def test_default_burst_is_two_seconds_of_the_rate(rate, burst):
    assert default_burst(rate) == burst


@given(
    rate=st.floats(0.1, 1000),
    burst=st.integers(1, 20),
    gaps=st.lists(st.floats(0, 5) | st.floats(0, 0.01), max_size=60),
    start=st.floats(0, 1e6),
)
def test_any_window_gives_at_most_burst_and_rate(rate, burst, gaps, start):
    bucket, now = TokenBucket(rate, burst), start
    times: list[float] = []
    for gap in gaps:
        now += gap
        wait = bucket.take(now)
        if wait == 0.0:
            times.append(now)
        else:  # within some window that ends now the limit is reached
            assert 0 < wait <= 1 / rate + 1e-6
            assert any(len(times) - first >= burst + rate * (now - times[first]) - 1 for first in range(len(times)))
    for first in range(len(times)):
        for last in range(first, len(times)):
            assert last - first + 1 <= burst + rate * (times[last] - times[first]) + 1e-3


def test_bucket_charge_owes_at_most_the_burst():
    bucket = TokenBucket(0.1, 2)
    for _ in range(1000):
        bucket.charge(0.0)
    assert bucket.wait(0.0) == 30
    assert bucket.take(30.0) == 0.0
    assert bucket.wait(30.0) == 10


def test_bucket_refund_returns_true_when_full():
    bucket = TokenBucket(1, 2)
    bucket.charge(0.0)
    bucket.charge(0.0)
    assert [bucket.refund(0.0), bucket.refund(0.0), bucket.refund(0.0)] == [False, True, True]
    assert take_all(bucket, 0.0) == 2


# --- address groups -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("8.8.8.8", "8.8.8.9", False),
        ("2a00:1:2:3::1", "2a00:1:2:3:ffff:ffff:ffff:ffff", True),
        ("2a00:1:2:3::1", "2a00:1:2:4::1", False),
        ("::ffff:8.8.8.8", "8.8.8.8", True),
        ("::ffff:8.8.8.8", "::ffff:8.8.8.9", False),
        ("fe80::1%eth0", "fe80::2", True),
    ],
)
def test_address_group_is_an_ipv4_address_or_a_64_network(one, other, same):
    assert (address_group(one).key == address_group(other).key) is same


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("8.8.8.8", True),
        ("2a00:1450:4001::1", True),
        ("::ffff:8.8.8.8", True),
        ("what is this", True),
        ("127.0.0.1", False),
        ("::1", False),
        ("::ffff:127.0.0.1", False),
        ("10.1.2.3", False),
        ("192.168.0.1", False),
        ("100.64.0.1", False),
        ("fd00::1", False),
        ("fe80::1", False),
    ],
)
def test_address_group_tells_internet_from_private(address, expected):
    assert address_group(address).is_global is expected
