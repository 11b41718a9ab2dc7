"""Revocations of users and tokens: which tokens they cover, their subscribers, and when they make room."""

from __future__ import annotations

from typing import Any

import pytest

from plumews.auth.revocation import Revocation, Revocations
from plumews.errors import RevocationsFull

NOW = 1000.0


class Clock:
    now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def revocations(clock: Clock) -> Revocations:
    return Revocations(clock=clock)


@pytest.mark.parametrize(
    ("claims", "refused"),
    [
        ({"sub": "ada", "iat": NOW - 1}, True),
        ({"sub": "ada", "iat": NOW}, True),
        ({"sub": "ada", "iat": NOW + 1}, False),
        ({"sub": "ada"}, True),
        ({"sub": "ada", "iat": "later"}, True),
        ({"sub": "ada", "iat": float("inf")}, True),
        ({"sub": "bob", "iat": NOW - 1}, False),
        ({"jti": "ada"}, False),
        ({"sub": ["ada"]}, False),
        ({}, False),
    ],
    ids=repr,
)
def test_revoke_user_refuses_tokens_issued_until_then(
    revocations: Revocations, claims: dict[str, Any], refused: bool
) -> None:
    assert not revocations.revoked(claims)
    revocations.revoke_user("ada")
    assert revocations.revoked(claims) is refused


def test_revoking_a_user_again_moves_the_time(revocations: Revocations, clock: Clock) -> None:
    revocations.revoke_user("ada")
    clock.now += 10
    assert not revocations.revoked({"sub": "ada", "iat": NOW + 5})
    revocations.revoke_user("ada")
    assert revocations.revoked({"sub": "ada", "iat": NOW + 5})
    assert len(revocations) == 1


@pytest.mark.parametrize(("ahead", "refused"), [(0, True), (4.5, True), (5, True), (5.5, False)])
@pytest.mark.parametrize("earlier", [False, True])
def test_revoke_user_covers_an_iat_ahead_within_the_leeway(
    revocations: Revocations, ahead: float, refused: bool, earlier: bool
) -> None:
    heard: list[Revocation] = []
    revocations.subscribe(heard.append)
    if earlier:  # as a program does at its start, before it has its authenticators
        revocations.revoke_user("ada")
    for leeway in (1, 5, 0):  # of several authenticators the largest counts
        revocations.allow_leeway(leeway)
    if not earlier:
        revocations.revoke_user("ada")
        assert heard[0].covers({"sub": "ada", "iat": NOW + ahead}) is refused
    assert revocations.revoked({"sub": "ada", "iat": NOW + ahead}) is refused
    assert not revocations.revoked({"sub": "bob", "iat": NOW + ahead})


def test_revoking_again_keeps_the_later_time(revocations: Revocations, clock: Clock) -> None:
    revocations.revoke_user("ada")
    revocations.revoke_token("t1")
    clock.now -= 10
    revocations.revoke_user("ada")
    revocations.revoke_token("t1", until=NOW - 5)
    assert revocations.revoked({"sub": "ada", "iat": NOW - 1})
    clock.now = NOW + 1
    full = Revocations(max_entries=1, clock=clock)
    full.revoke_token("t1", until=NOW + 60)
    full.revoke_token("t1", until=NOW)
    with pytest.raises(RevocationsFull):
        full.revoke_token("t2")


def test_token_is_revoked_by_its_jti(revocations: Revocations) -> None:
    revocations.revoke_token("t1", until=NOW + 60)
    assert revocations.revoked({"sub": "ada", "iat": NOW + 5, "jti": "t1"})
    assert not revocations.revoked({"sub": "ada", "iat": NOW - 5, "jti": "t2"})


@pytest.mark.parametrize("wrong", [5, None, b"t1"], ids=repr)
def test_revoking_by_another_type_than_str_raises(revocations: Revocations, wrong: Any) -> None:
    with pytest.raises(TypeError, match="user_id must be a str, as in the token"):
        revocations.revoke_user(wrong)
    with pytest.raises(TypeError, match="jti must be a str, as in the token"):
        revocations.revoke_token(wrong)
    with pytest.raises(ValueError, match="until must be a number of seconds"):
        revocations.revoke_token("t1", until="tomorrow")  # type: ignore[arg-type]


def test_subscriber_is_called_until_it_unsubscribes(revocations: Revocations) -> None:
    heard: list[Revocation] = []
    unsubscribe = revocations.subscribe(heard.append)
    revocations.revoke_user("ada")
    revocations.revoke_token("t1")
    unsubscribe()
    unsubscribe()
    revocations.revoke_user("bob")
    assert heard == [Revocation("ada", None, NOW), Revocation(None, "t1", NOW)]
    assert heard[0].covers({"sub": "ada", "iat": NOW - 1})
    assert not heard[0].covers({"sub": "ada", "iat": NOW + 1})
    assert heard[1].covers({"jti": "t1"})


def test_subscriber_is_called_after_tokens_are_refused(revocations: Revocations) -> None:
    refused: list[bool] = []
    revocations.subscribe(lambda revocation: refused.append(revocations.revoked({"jti": revocation.jti})))
    revocations.revoke_token("t1")
    assert refused == [True]


def test_failing_subscriber_does_not_stop_the_others(revocations: Revocations) -> None:
    heard: list[Revocation] = []

    def fails(revocation: Revocation) -> None:
        raise RuntimeError("away")

    revocations.subscribe(fails)
    revocations.subscribe(heard.append)
    with pytest.raises(RuntimeError, match="away"):
        revocations.revoke_user("ada")
    assert len(heard) == 1
    assert revocations.revoked({"sub": "ada"})


def test_full_revocations_raise_and_forget_none(clock: Clock) -> None:
    revocations = Revocations(max_entries=2, clock=clock)
    heard: list[Revocation] = []
    revocations.subscribe(heard.append)
    revocations.revoke_user("a")
    revocations.revoke_user("b")
    revocations.revoke_user("b")
    with pytest.raises(RevocationsFull, match="2 revocations are kept"):
        revocations.revoke_user("c")
    assert [revocations.revoked({"sub": name}) for name in "abc"] == [True, True, False]
    assert heard[-1].user_id == "c"  # whose connections are ended all the same


def test_revocation_that_covers_no_valid_token_makes_room(clock: Clock) -> None:
    revocations = Revocations(token_life=100, max_entries=2, clock=clock)
    revocations.revoke_user("a")
    revocations.revoke_token("t", until=NOW + 10)
    clock.now = NOW + 10
    with pytest.raises(RevocationsFull):
        revocations.revoke_user("c")
    clock.now = NOW + 11
    revocations.revoke_user("c")
    assert revocations.revoked({"sub": "a"})
    clock.now = NOW + 101
    revocations.revoke_user("d")
    assert not revocations.revoked({"sub": "a"})
    assert len(revocations) == 2


def test_revocation_makes_room_only_after_the_leeway(clock: Clock) -> None:
    revocations = Revocations(token_life=100, max_entries=1, clock=clock)
    revocations.allow_leeway(10)
    revocations.revoke_user("a")  # a token of a clock that is ahead by 10 s, good for 10 s after its exp
    clock.now = NOW + 120
    with pytest.raises(RevocationsFull):
        revocations.revoke_user("b")
    clock.now += 0.5
    revocations.revoke_user("b")


def test_bounds_of_revocations_must_be_positive() -> None:
    for life in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="token_life must be more than 0 seconds"):
            Revocations(token_life=life)
    with pytest.raises(ValueError, match="max_entries must be 1 or more"):
        Revocations(max_entries=0)


def test_repr_names_no_user(revocations: Revocations) -> None:
    revocations.revoke_user("ada")
    assert repr(revocations) == "<Revocations: 1>"
