"""Options of rooms: one list of them, sorted from those of the server and of connections."""

from __future__ import annotations

import dataclasses

import pytest

from plumews import ConnConfig, serve_rooms
from plumews.auth.credentials import AuthOptions
from plumews.room_server.options import RoomKeywords, RoomOptions, split_room_options
from plumews.server.options import ServerOptions


def test_keywords_are_the_options_of_rooms():
    assert set(RoomKeywords.__annotations__) == {field.name for field in dataclasses.fields(RoomOptions)}


def test_keywords_are_sorted_by_their_owner():
    rooms, server, auth, config = split_room_options(
        {"echo": False, "backlog": 5, "require_token": True, "max_size": 9}
    )
    assert rooms == RoomOptions(echo=False)
    assert server == ServerOptions(backlog=5, subprotocols=("plumews",))
    assert auth == AuthOptions(require_token=True)
    assert config == ConnConfig(max_size=9)


@pytest.mark.parametrize(("name", "hint"), [("member_path", "members_path"), ("text_polcy", "text_policy")])
def test_a_misspelled_option_is_named_with_the_right_one(name, hint):
    with pytest.raises(TypeError, match=rf"{name} \(.*{hint}"):
        serve_rooms(None, None, **{name: None})
