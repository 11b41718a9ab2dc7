"""What a door asks of who answers for it, and what it tells an authorizer: nothing of it prints a secret."""

from __future__ import annotations

import dataclasses

import pytest

from plumews.auth.interfaces import RoomAuthorization, RoomAuthorizer, TokenAuthenticator
from plumews.auth.simple import SimpleRoomAuth
from plumews.http11.models import Request
from plumews.users import UserInfo
from support.jwt_forgery import GOOD, at


def asked() -> RoomAuthorization:
    request = Request("GET", "/ws?room_password=hunter2", [("Authorization", "Bearer hunter2")])
    return RoomAuthorization(request, "chat", "hunter2", UserInfo("42", "Ada"), {"sub": "42", "card": "hunter2"}, False)


def test_who_asks_for_a_room_is_told_by_name_and_what_they_showed_is_not() -> None:
    printed = repr(asked())
    assert "'chat'" in printed
    assert "'Ada'" in printed
    assert "hunter2" not in printed


def test_who_asks_without_a_token_is_anonymous_and_has_no_claims() -> None:
    plain = RoomAuthorization(Request("GET", "/ws", []), "chat")
    assert (plain.password, plain.user, dict(plain.claims), plain.anonymous) == (None, None, {}, True)
    assert plain.claims is not RoomAuthorization(plain.request, "chat").claims


def test_what_an_authorizer_is_told_cannot_be_changed_on_its_way() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        asked().room = "vault"  # type: ignore[misc]


def test_the_simple_auth_is_what_a_server_asks_for() -> None:
    tokens: TokenAuthenticator = at()
    passwords: RoomAuthorizer = SimpleRoomAuth()
    assert tokens.verify_jwt(GOOD) == {"sub": "42"}
    assert passwords.check_room_password("lobby", None)
