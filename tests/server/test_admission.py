"""Admission of connections: bounds of a server, of an address, and of the clients behind a proxy."""

from __future__ import annotations

import pytest

from plumews import limits
from plumews.errors import Refused
from plumews.server.admission import AddressBounds, AddressLimits, Admission
from plumews.server.options import ServerOptions

HOME, INTERNET = "127.0.0.1", "8.8.8.8"
NONE = AddressBounds(None, None)


def admission(**bounds):
    return Admission(ServerOptions(**bounds))


def refusal(admission, address=HOME, now=0.0):
    with pytest.raises(Refused) as caught:
        admission.admit(address, now)
    return caught.value


def test_admit_beyond_max_connections_is_503_until_one_leaves():
    server = admission(max_connections=2)
    slot = server.admit(HOME, 0.0)
    slot.opened()
    server.admit(None, 0.0)
    refused = refusal(server)
    assert (refused.status, refused.code) == (503, "WEBSOCKET_TOO_MANY_CONNECTIONS")
    assert dict(refused.headers)["Retry-After"] == str(limits.RETRY_AFTER)
    slot.left()
    server.admit(HOME, 0.0)
    refusal(server)


def test_admit_beyond_max_opening_is_503_until_one_opens():
    server = admission(max_opening=2)
    slots = [server.admit(HOME, 0.0) for _ in range(2)]
    refused = refusal(server)
    assert (refused.status, refused.code) == (503, "WEBSOCKET_TOO_MANY_HANDSHAKES")
    slots[0].opened()
    server.admit(HOME, 0.0)
    refusal(server)
    slots[1].left()
    server.admit(HOME, 0.0)
    assert (server.connections, server.opening) == (3, 2)


def test_slot_that_leaves_twice_counts_once():
    server = admission(max_connections_per_address=2)
    slot, other = server.admit(INTERNET, 0.0), server.admit(INTERNET, 0.0)
    slot.left()
    slot.left(object())
    slot.opened()
    slot.known_as("9.9.9.9", 0.0)
    assert (server.connections, server.opening) == (1, 1)
    other.left()
    assert (server.connections, server.opening, len(server._addresses)) == (0, 0, 1)


def test_accept_rate_refuses_and_tells_the_true_retry_after():
    server = admission(accept_rate=2)
    for _ in range(4):  # two seconds of it
        server.admit(HOME, 100.0)
    refused = refusal(server, now=100.0)
    assert (refused.status, refused.code) == (429, "WEBSOCKET_RATE_LIMITED")
    assert dict(refused.headers)["Retry-After"] == "1"
    server.admit(HOME, 101.0)


def test_refused_connection_uses_up_nothing():
    server = admission(accept_rate=1, max_connections_per_address=1)
    server.admit(INTERNET, 0.0)
    for _ in range(10):
        assert refusal(server, INTERNET).code == "WEBSOCKET_TOO_MANY_FROM_ADDRESS"
    server.admit("9.9.9.9", 0.0)
    assert refusal(server, "7.7.7.7").code == "WEBSOCKET_RATE_LIMITED"
    assert (server.connections, server.opening) == (2, 2)


def test_default_address_bounds_hold_for_the_internet_only():
    server = admission(max_opening=None)
    for _ in range(limits.CONNECTIONS_PER_ADDRESS + 1):
        server.admit(HOME, 0.0)
    for _ in range(int(limits.ACCEPT_RATE_PER_ADDRESS * limits.ADDRESS_BURST_TIME)):
        server.admit(INTERNET, 0.0)
    assert refusal(server, INTERNET).code == "WEBSOCKET_RATE_LIMITED"


def test_default_rate_lets_an_address_reach_its_connections():
    server = admission(max_opening=None)
    for number in range(limits.CONNECTIONS_PER_ADDRESS):
        server.admit(INTERNET, number / limits.ACCEPT_RATE_PER_ADDRESS)
    assert refusal(server, INTERNET, 1000.0).code == "WEBSOCKET_TOO_MANY_FROM_ADDRESS"


def test_given_address_bound_holds_for_this_machine_too():
    assert admission(max_connections_per_address=1).admit(HOME, 0.0)
    server = admission(max_connections_per_address=1)
    server.admit(HOME, 0.0)
    assert refusal(server).code == "WEBSOCKET_TOO_MANY_FROM_ADDRESS"
    server.admit("127.0.0.2", 0.0)


def test_bounds_of_none_admit_every_connection():
    server = admission(
        max_connections=None, max_opening=None, max_connections_per_address=None, accept_rate_per_address=None
    )
    for _ in range(5000):
        server.admit(INTERNET, 0.0)


def test_clients_of_a_proxy_count_under_their_own_address():
    server = admission(trusted_proxies=["10.0.0.1"], max_connections_per_address=2)
    slots = [server.admit("10.0.0.1", 0.0) for _ in range(10)]
    slots[0].known_as(INTERNET, 0.0)
    slots[1].known_as(INTERNET, 0.0)
    with pytest.raises(Refused) as caught:
        slots[2].known_as(INTERNET, 0.0)
    assert caught.value.code == "WEBSOCKET_TOO_MANY_FROM_ADDRESS"
    slots[3].known_as("9.9.9.9", 0.0)
    slots[0].left()
    slots[2].known_as(INTERNET, 0.0)
    for slot in slots:
        slot.left()
    assert (server.connections, server.opening) == (0, 0)


@pytest.mark.parametrize(
    ("bounds", "error", "said"),
    [
        ({"max_connections": 0}, ValueError, "max_connections must be at least 1, not 0"),
        ({"max_opening": 1.5}, TypeError, "max_opening must be an int, not float"),
        ({"max_connections_per_address": True}, TypeError, "max_connections_per_address must be an int, not bool"),
        ({"accept_rate": 0}, ValueError, "accept_rate must be 0.001 to 1,000,000 connections a second, or None"),
        ({"accept_rate_per_address": float("nan")}, ValueError, "accept_rate_per_address must be 0.001 to"),
        ({"accept_rate": "10"}, TypeError, "accept_rate must be a number or None, not str"),
    ],
    ids=str,
)
def test_invalid_bound_raises_naming_the_right_values(bounds, error, said):
    with pytest.raises(error, match=said):
        ServerOptions(**bounds)


# --- addresses ------------------------------------------------------------------------------------


def retry_after(refused: Refused) -> int:
    return int(dict(refused.headers)["Retry-After"])


def test_address_with_all_its_connections_is_refused_alone():
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


def test_address_rate_refuses_and_tells_the_true_retry_after():
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


def test_idle_address_is_forgotten_when_its_bucket_is_full():
    addresses = AddressLimits(AddressBounds(None, 10), NONE)
    for number in range(100):
        addresses.leave(addresses.enter(f"8.8.8.{number}", 0.0))
    assert len(addresses) == 100
    for _ in range(60):
        addresses.enter("9.9.9.9", 10.1)
    assert len(addresses) == 1


def test_address_table_is_bounded_and_keeps_connected_ones(monkeypatch):
    monkeypatch.setattr(limits, "IDLE_ADDRESSES", 50)
    addresses = AddressLimits(AddressBounds(1, 10), NONE)
    addresses.enter("9.9.9.9", 0.0)
    for number in range(1000):
        addresses.leave(addresses.enter(f"8.8.{number // 256}.{number % 256}", 0.0))
    assert len(addresses) == 51
    with pytest.raises(Refused):
        addresses.enter("9.9.9.9", 0.0)


def test_address_without_rate_is_forgotten_when_it_leaves():
    addresses = AddressLimits(AddressBounds(5, None), NONE)
    for number in range(100):
        addresses.leave(addresses.enter(f"8.8.8.{number}", 0.0))
    assert len(addresses) == 0
