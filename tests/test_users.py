"""Tests of the user that claims describe."""

from __future__ import annotations

import pytest

from plumews.users import UserInfo, extract_user_info
from support.jwt_forgery import at, sign


def test_user_has_the_fields_of_the_claims() -> None:
    claims = {"sub": "42", "name": "Ada", "email": "ada@example.com", "roles": ["admin", "dev"], "team": 7}
    user = extract_user_info(claims)
    assert user == UserInfo("42", "Ada", "ada@example.com", ("admin", "dev"), claims)
    assert user.claims["team"] == 7


def test_roles_of_a_real_token_are_kept() -> None:
    user = extract_user_info(at().verify_jwt(sign({"sub": "42", "roles": ["admin", 5, None, "dev"]})))
    assert user.roles == ("admin", "dev")


def test_claims_of_other_types_are_left_out_of_fields() -> None:
    claims = {"sub": 42, "name": ["Ada"], "email": None, "roles": "admin"}
    user = extract_user_info(claims)
    assert (user.id, user.name, user.email, user.roles) == ("", "", "", ())
    assert user.claims == claims


def test_missing_claims_give_an_empty_user() -> None:
    assert extract_user_info(None) == extract_user_info({}) == UserInfo()


@pytest.mark.parametrize("wrong", [42, None, b"42"])
def test_user_id_that_is_no_str_raises_type_error(wrong):
    with pytest.raises(TypeError, match=f"the id of a user must be a str, not {type(wrong).__name__}"):
        UserInfo(wrong, "Ada")


def test_user_is_frozen_hashable_and_hides_claims_in_repr() -> None:
    claims = {"sub": "42", "card": "4111"}
    user = extract_user_info(claims)
    claims["sub"] = "1"
    assert user.claims["sub"] == "42"
    assert "4111" not in repr(user)
    assert len({user, extract_user_info({"sub": "42", "card": "4111"})}) == 1
    with pytest.raises(AttributeError):
        user.id = "1"  # type: ignore[misc]
