"""What one address may have: connections and new ones a second, by /32 and /64, in a table that does not grow."""

from __future__ import annotations

import pytest

from plumews import limits
from plumews.errors import Refused
from plumews.server.addresses import AddressBounds, AddressLimits

NONE = AddressBounds(None, None)


def retry_after(refused: Refused) -> int:
    return int(dict(refused.headers)["Retry-After"])


def test_one_more_than_an_address_may_have_is_refused_and_another_address_is_not():
    addresses = AddressLimits(AddressBounds(2, None), NONE)
    key = addresses.enter("8.8.8.8", 0.0)
    addresses.enter("::ffff:8.8.8.8", 0.0)
    with pytest.raises(Refused, match="too many connections from this address") as caught:
        addresses.enter("8.8.8.8", 0.0)
    assert (caught.value.status, caught.value.code) == (429, "WEBSOCKET_TOO_MANY_FROM_ADDRESS")
    addresses.enter("8.8.8.9", 0.0)
    addresses.leave(key)
    assert addresses.enter("8.8.8.8", 0.0) == key
    assert addresses.count(key) == 2


def test_the_time_to_wait_is_told_and_true():
    addresses = AddressLimits(AddressBounds(None, 0.25), NONE)
    now = 1000.0
    for _ in range(3):  # ten seconds of the rate, rounded up
        addresses.leave(addresses.enter("8.8.8.8", now))
    with pytest.raises(Refused, match="too many new connections from this address") as caught:
        addresses.enter("8.8.8.8", now)
    assert (caught.value.status, caught.value.code) == (429, "WEBSOCKET_RATE_LIMITED")
    assert retry_after(caught.value) == 4
    with pytest.raises(Refused):
        addresses.enter("8.8.8.8", now + 3.9)
    addresses.enter("8.8.8.8", now + 4)


def test_private_addresses_have_bounds_of_their_own():
    addresses = AddressLimits(AddressBounds(1, 1), NONE)
    for _ in range(50):
        assert addresses.enter("127.0.0.1", 0.0) is None
    assert len(addresses) == 0


def test_an_address_is_forgotten_when_its_bucket_would_be_full_again():
    addresses = AddressLimits(AddressBounds(None, 10), NONE)
    for number in range(100):
        addresses.leave(addresses.enter(f"8.8.8.{number}", 0.0))
    assert len(addresses) == 100
    for _ in range(60):
        addresses.enter("9.9.9.9", 10.1)
    assert len(addresses) == 1


def test_the_table_is_bounded_and_those_who_are_connected_stay_in_it(monkeypatch):
    monkeypatch.setattr(limits, "IDLE_ADDRESSES", 50)
    addresses = AddressLimits(AddressBounds(1, 10), NONE)
    addresses.enter("9.9.9.9", 0.0)
    for number in range(1000):
        addresses.leave(addresses.enter(f"8.8.{number // 256}.{number % 256}", 0.0))
    assert len(addresses) == 51
    with pytest.raises(Refused):
        addresses.enter("9.9.9.9", 0.0)


def test_without_a_rate_nothing_is_kept_of_who_has_left():
    addresses = AddressLimits(AddressBounds(5, None), NONE)
    for number in range(100):
        addresses.leave(addresses.enter(f"8.8.8.{number}", 0.0))
    assert len(addresses) == 0
