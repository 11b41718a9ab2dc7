"""Interfaces of authenticators and authorizers: a repr of what they are passed holds no secret."""

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


def test_repr_of_room_authorization_holds_no_secret() -> None:
    printed = repr(asked())
    assert "'chat'" in printed
    assert "'Ada'" in printed
    assert "hunter2" not in printed


def test_room_authorization_without_a_token_is_anonymous() -> None:
    plain = RoomAuthorization(Request("GET", "/ws", []), "chat")
    assert (plain.password, plain.user, dict(plain.claims), plain.anonymous) == (None, None, {}, True)
    assert plain.claims is not RoomAuthorization(plain.request, "chat").claims


def test_room_authorization_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        asked().room = "vault"  # type: ignore[misc]


def test_simple_room_auth_has_both_interfaces() -> None:
    tokens: TokenAuthenticator = at()
    passwords: RoomAuthorizer = SimpleRoomAuth()
    assert tokens.verify_jwt(GOOD) == {"sub": "42"}
    assert passwords.check_room_password("lobby", None)
