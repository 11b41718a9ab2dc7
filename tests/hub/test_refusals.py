"""The words by which refusals are counted: one for each exception of a hub."""

from __future__ import annotations

import pytest

from plumews import errors
from plumews.hub.membership import REASONS, reason_of


@pytest.mark.parametrize(
    ("refusal", "word"),
    [
        (errors.HubFull("x"), "hub_full"),
        (errors.RoomFull("x"), "room_full"),
        (errors.HubStopped("x"), "hub_stopped"),
        (errors.InvalidRoomName("x"), "invalid_room_name"),
        (errors.TooManyRooms("x"), "too_many_rooms"),
        (errors.ConnectionClosed(None, None), "connection_closed"),
        (errors.ConnectionClosedOK(None, None), "connection_closed"),
        (errors.ConnectionClosedError(None, None), "connection_closed"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_refusal_has_a_word(refusal, word):
    assert reason_of(refusal) == word
    assert word in REASONS


def test_every_exception_of_a_hub_is_a_reason():
    hub_errors = {
        thing for thing in vars(errors).values() if isinstance(thing, type) and issubclass(thing, errors.HubError)
    }
    words = {reason_of(cls("x")) for cls in hub_errors - {errors.HubError}}
    assert words == set(REASONS) - {"connection_closed"}
    assert len(REASONS) == len(hub_errors)  # less the one that is the root, and one for what is closed


def test_what_an_application_derives_makes_no_new_word():
    class Reserved(errors.InvalidRoomName):
        pass

    class Whim(errors.HubError):
        pass

    assert reason_of(Reserved("x")) == "invalid_room_name"
    assert reason_of(Whim("x")) == "other"
