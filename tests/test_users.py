"""Whom a token speaks of: what of its claims is taken for what it says, and what is passed over."""

from __future__ import annotations

import pytest

from plumews.users import UserInfo, extract_user_info
from support.jwt_forgery import at, sign


def test_a_user_is_what_the_claims_say() -> None:
    claims = {"sub": "42", "name": "Ada", "email": "ada@example.com", "roles": ["admin", "dev"], "team": 7}
    user = extract_user_info(claims)
    assert user == UserInfo("42", "Ada", "ada@example.com", ("admin", "dev"), claims)
    assert user.claims["team"] == 7


def test_section_8_roles_never_filled_roles_come_out_of_a_real_token() -> None:
    user = extract_user_info(at().verify_jwt(sign({"sub": "42", "roles": ["admin", 5, None, "dev"]})))
    assert user.roles == ("admin", "dev")


def test_claims_of_other_types_are_passed_over_and_stay_visible() -> None:
    claims = {"sub": 42, "name": ["Ada"], "email": None, "roles": "admin"}
    user = extract_user_info(claims)
    assert (user.id, user.name, user.email, user.roles) == ("", "", "", ())
    assert user.claims == claims


def test_no_claims_give_an_empty_user() -> None:
    assert extract_user_info(None) == extract_user_info({}) == UserInfo()


@pytest.mark.parametrize("wrong", [42, None, b"42"])
def test_a_user_id_that_is_no_text_is_refused_where_it_is_made(wrong):
    with pytest.raises(TypeError, match=f"the id of a user must be a str, not {type(wrong).__name__}"):
        UserInfo(wrong, "Ada")


def test_a_user_cannot_be_changed_is_hashable_and_does_not_print_its_claims() -> None:
    claims = {"sub": "42", "card": "4111"}
    user = extract_user_info(claims)
    claims["sub"] = "1"
    assert user.claims["sub"] == "42"
    assert "4111" not in repr(user)
    assert len({user, extract_user_info({"sub": "42", "card": "4111"})}) == 1
    with pytest.raises(AttributeError):
        user.id = "1"  # type: ignore[misc]
