"""Who may connect to a server: in all, before the handshake is done, by rate, by address, behind a proxy."""

from __future__ import annotations

import pytest

from plumews import limits
from plumews.errors import Refused
from plumews.server.admission import Admission, AdmissionLimits

HOME, INTERNET = "127.0.0.1", "8.8.8.8"


def admission(is_proxy=None, **bounds):
    return Admission(AdmissionLimits(**bounds), is_proxy)


def refusal(admission, address=HOME, now=0.0):
    with pytest.raises(Refused) as caught:
        admission.admit(address, now)
    return caught.value


def test_there_are_as_many_as_there_may_be_and_one_more_when_one_has_left():
    door = admission(max_connections=2)
    visit = door.admit(HOME, 0.0)
    visit.opened()
    door.admit(None, 0.0)
    refused = refusal(door)
    assert (refused.status, refused.code) == (503, "WEBSOCKET_TOO_MANY_CONNECTIONS")
    assert dict(refused.headers)["Retry-After"] == str(limits.RETRY_AFTER)
    visit.left()
    door.admit(HOME, 0.0)
    refusal(door)


def test_those_who_have_not_finished_their_handshake_have_a_bound_of_their_own():
    door = admission(max_opening=2)
    visits = [door.admit(HOME, 0.0) for _ in range(2)]
    refused = refusal(door)
    assert (refused.status, refused.code) == (503, "WEBSOCKET_TOO_MANY_HANDSHAKES")
    visits[0].opened()
    door.admit(HOME, 0.0)
    refusal(door)
    visits[1].left()
    door.admit(HOME, 0.0)
    assert (door.connections, door.opening) == (3, 2)


def test_a_visit_that_leaves_twice_counts_once():
    door = admission(max_connections_per_address=2)
    visit, other = door.admit(INTERNET, 0.0), door.admit(INTERNET, 0.0)
    visit.left()
    visit.left(object())
    visit.opened()
    visit.known_as("9.9.9.9", 0.0)
    assert (door.connections, door.opening) == (1, 1)
    other.left()
    assert (door.connections, door.opening, len(door._addresses)) == (0, 0, 1)


def test_the_rate_of_the_server_is_kept_and_the_time_to_wait_is_true():
    door = admission(accept_rate=2)
    for _ in range(4):  # two seconds of it
        door.admit(HOME, 100.0)
    refused = refusal(door, now=100.0)
    assert (refused.status, refused.code) == (429, "WEBSOCKET_RATE_LIMITED")
    assert dict(refused.headers)["Retry-After"] == "1"
    door.admit(HOME, 101.0)


def test_who_is_refused_takes_nothing_from_anybody():
    door = admission(accept_rate=1, max_connections_per_address=1)
    door.admit(INTERNET, 0.0)
    for _ in range(10):
        assert refusal(door, INTERNET).code == "WEBSOCKET_TOO_MANY_FROM_ADDRESS"
    door.admit("9.9.9.9", 0.0)
    assert refusal(door, "7.7.7.7").code == "WEBSOCKET_RATE_LIMITED"
    assert (door.connections, door.opening) == (2, 2)


def test_by_default_an_address_of_the_internet_has_its_share_and_this_machine_all():
    door = admission(max_opening=None)
    for _ in range(limits.CONNECTIONS_PER_ADDRESS + 1):
        door.admit(HOME, 0.0)
    for _ in range(int(limits.ACCEPT_RATE_PER_ADDRESS * limits.ADDRESS_BURST_TIME)):
        door.admit(INTERNET, 0.0)
    assert refusal(door, INTERNET).code == "WEBSOCKET_RATE_LIMITED"


def test_the_share_of_an_address_is_reached_at_the_rate_that_it_may_come():
    door = admission(max_opening=None)
    for number in range(limits.CONNECTIONS_PER_ADDRESS):
        door.admit(INTERNET, number / limits.ACCEPT_RATE_PER_ADDRESS)
    assert refusal(door, INTERNET, 1000.0).code == "WEBSOCKET_TOO_MANY_FROM_ADDRESS"


def test_a_bound_of_ones_own_holds_for_this_machine_too():
    assert admission(max_connections_per_address=1).admit(HOME, 0.0)
    door = admission(max_connections_per_address=1)
    door.admit(HOME, 0.0)
    assert refusal(door).code == "WEBSOCKET_TOO_MANY_FROM_ADDRESS"
    door.admit("127.0.0.2", 0.0)


def test_no_bound_is_no_bound():
    door = admission(
        max_connections=None, max_opening=None, max_connections_per_address=None, accept_rate_per_address=None
    )
    for _ in range(5000):
        door.admit(INTERNET, 0.0)


def test_the_clients_of_a_proxy_are_counted_one_by_one_when_they_are_known():
    door = admission(is_proxy=lambda address: address == "10.0.0.1", max_connections_per_address=2)
    visits = [door.admit("10.0.0.1", 0.0) for _ in range(10)]
    visits[0].known_as(INTERNET, 0.0)
    visits[1].known_as(INTERNET, 0.0)
    with pytest.raises(Refused) as caught:
        visits[2].known_as(INTERNET, 0.0)
    assert caught.value.code == "WEBSOCKET_TOO_MANY_FROM_ADDRESS"
    visits[3].known_as("9.9.9.9", 0.0)
    visits[0].left()
    visits[2].known_as(INTERNET, 0.0)
    for visit in visits:
        visit.left()
    assert (door.connections, door.opening) == (0, 0)


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
def test_a_bound_that_makes_no_sense_is_an_error_that_says_so(bounds, error, said):
    with pytest.raises(error, match=said):
        AdmissionLimits(**bounds)
