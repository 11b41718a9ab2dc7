"""Keys that are added and removed by their kid, and revocation of tokens by an authenticator."""

from __future__ import annotations

from typing import Any

import jwt
import pytest

from plumews import HS256TokenAuth, InvalidToken, Revocations, RevocationsFull, SimpleRoomAuth, TokenRevoked, WeakSecret

NOW = 1_700_000_000
OLD, NEW = b"old-key-" * 4, b"new-key-" * 4


def token(key: bytes, kid: str | None = None, **claims: Any) -> str:
    return jwt.encode({"sub": "42", **claims}, key, algorithm="HS256", headers=None if kid is None else {"kid": kid})


def at(secret: Any, now: float = NOW, **options: Any) -> HS256TokenAuth:
    return HS256TokenAuth(secret, clock=lambda: now, **options)


def refusal(auth: HS256TokenAuth | SimpleRoomAuth, text: str) -> str:
    with pytest.raises(InvalidToken) as caught:
        auth.verify_jwt(text)
    assert caught.value.__context__ is None
    return str(caught.value)


def test_traceback_of_a_refusal_holds_no_key() -> None:
    with pytest.raises(InvalidToken) as caught:
        at({"new": NEW}).verify_jwt(token(OLD, "new"))
    frames = [entry.frame for entry in caught.traceback if "plumews" in str(entry.path)]
    assert len(frames) > 1
    assert not any(NEW in frame.f_locals.values() for frame in frames)


def test_token_is_checked_with_the_key_of_its_kid() -> None:
    auth = at({"new": NEW, "old": OLD})
    assert auth.verify_jwt(token(NEW, "new")) == auth.verify_jwt(token(OLD, "old")) == {"sub": "42"}
    for key, kid in ((NEW, "old"), (OLD, "new")):
        assert refusal(auth, token(key, kid)) == "invalid jwt: it is malformed, or its signature is not ours"


def test_row_33_unknown_kid_is_refused_with_any_key() -> None:
    for key in (NEW, OLD, bytes(32)):
        assert refusal(at({"new": NEW, "old": OLD}), token(key, "other")) == (
            "invalid jwt: its kid is not that of a key here"
        )


def test_token_without_a_kid_is_checked_with_the_current_key() -> None:
    auth = at({"new": NEW, "old": OLD})
    assert auth.verify_jwt(token(NEW))
    refusal(auth, token(OLD))


def test_keys_are_added_and_removed_at_run_time() -> None:
    auth = at({"old": OLD})
    auth.add_key("new", NEW)
    assert auth.key_ids == ("old", "new")
    assert auth.verify_jwt(token(NEW, "new"))
    refusal(auth, token(NEW))
    auth.add_key("new", NEW, current=True)
    assert auth.key_ids == ("new", "old")
    assert auth.verify_jwt(token(NEW))
    auth.remove_key("old")
    refusal(auth, token(OLD, "old"))


def test_secret_without_a_kid_is_replaced_by_a_named_key() -> None:
    auth = at(OLD)
    auth.add_key("new", NEW)
    assert auth.verify_jwt(token(OLD))
    assert auth.verify_jwt(token(NEW, "new"))
    refusal(auth, token(OLD, "unknown"))
    auth.add_key("new", NEW, current=True)
    auth.remove_key(None)
    refusal(auth, token(OLD))
    assert auth.verify_jwt(token(NEW))
    refusal(auth, token(NEW, "unknown"))


def test_removing_the_current_or_an_unknown_key_raises() -> None:
    auth = at({"new": NEW, "old": OLD})
    with pytest.raises(ValueError, match="'new' is the current key"):
        auth.remove_key("new")
    with pytest.raises(KeyError, match="there is no key 'x'"):
        auth.remove_key("x")


@pytest.mark.parametrize("kid", ["", "../key", "a\\b", 5, None], ids=repr)
def test_kid_must_be_a_plain_name(kid: Any) -> None:
    with pytest.raises(ValueError, match="a kid must be a plain name"):
        HS256TokenAuth({kid: NEW})
    with pytest.raises(ValueError, match="a kid must be a plain name"):
        at(OLD).add_key(kid, NEW)


def test_each_key_must_have_the_minimum_length() -> None:
    with pytest.raises(WeakSecret, match="minimum 32 bytes required, got 5"):
        HS256TokenAuth({"new": NEW, "old": b"short"})
    with pytest.raises(WeakSecret, match="minimum 32 bytes required, got 5"):
        at(NEW).add_key("x", b"short")
    with pytest.raises(ValueError, match="mapping of secrets is empty"):
        HS256TokenAuth({})


def test_repr_holds_no_key() -> None:
    assert repr(at({"new": NEW})) == "<HS256TokenAuth: keys ('new',)>"


# --- revoking -------------------------------------------------------------------------------------


def test_revoked_token_raises_token_revoked() -> None:
    auth = SimpleRoomAuth(NEW, clock=lambda: NOW)
    good = token(NEW, jti="t1", iat=NOW)
    assert auth.verify_jwt(good)
    auth.revoke_token("t1", until=NOW + 60)
    with pytest.raises(TokenRevoked, match=r"^invalid jwt: it was revoked$"):
        auth.verify_jwt(good)
    assert auth.verify_jwt(token(NEW, jti="t2", iat=NOW))


def test_revoked_user_is_accepted_with_a_later_token() -> None:
    auth = SimpleRoomAuth(NEW, clock=lambda: NOW)
    auth.revoke_user("42")
    for claims in ({}, {"iat": NOW}, {"iat": NOW - 60}):
        assert refusal(auth, token(NEW, **claims)) == "invalid jwt: it was revoked"
    assert auth.verify_jwt(token(NEW, iat=NOW + 1))


@pytest.mark.parametrize("iat", [NOW + 1, NOW + 29.5, NOW + 30])
def test_verified_token_with_iat_ahead_is_revoked(iat: float) -> None:
    auth = SimpleRoomAuth(NEW, leeway=30, clock=lambda: NOW)
    early = token(NEW, iat=iat, nbf=iat)
    assert auth.verify_jwt(early)
    auth.revoke_user("42")
    assert refusal(auth, early) == "invalid jwt: it was revoked"
    assert auth.verify_jwt(token(NEW, iat=NOW + 31))


@pytest.mark.parametrize("leeways", [(0, 30), (30, 0)])
def test_shared_revocations_take_the_largest_leeway(leeways: tuple[float, float]) -> None:
    shared = Revocations(clock=lambda: NOW)
    one, other = (HS256TokenAuth(NEW, leeway=leeway, revocations=shared, clock=lambda: NOW) for leeway in leeways)
    one.revoke_user("42")
    for auth in (one, other):
        assert refusal(auth, token(NEW, iat=NOW + 20)) == "invalid jwt: it was revoked"


def test_bad_signature_does_not_reveal_a_revocation() -> None:
    auth = at(NEW)
    auth.revoke_user("42")
    assert "signature is not ours" in refusal(auth, token(OLD))


def test_revocation_lasts_through_the_leeway() -> None:
    now = NOW
    revocations = Revocations(max_entries=1, clock=lambda: now)
    auth = HS256TokenAuth(NEW, leeway=10, revocations=revocations, clock=lambda: now)
    auth.revoke_token("t1", until=NOW + 60)
    now = NOW + 69
    with pytest.raises(RevocationsFull):
        auth.revoke_token("t2")
    assert refusal(auth, token(NEW, jti="t1", exp=NOW + 60)) == "invalid jwt: it was revoked"


def test_revocations_may_be_shared() -> None:
    shared = Revocations(clock=lambda: NOW)
    one, other = at(NEW, revocations=shared), at(OLD, revocations=shared)
    one.revoke_user("42")
    assert refusal(other, token(OLD)) == "invalid jwt: it was revoked"


@pytest.mark.parametrize("claims", [{}, {"iat": NOW}, {"exp": NOW + 50}, {"iat": NOW, "exp": NOW + 101}], ids=repr)
def test_token_that_outlives_revocations_is_refused(claims: dict[str, Any]) -> None:
    auth = at(NEW, revocations=Revocations(token_life=100, clock=lambda: NOW))
    assert refusal(auth, token(NEW, **claims)) == (
        "invalid jwt: it must say by iat and exp that it lives 100 seconds or less"
    )
    assert auth.verify_jwt(token(NEW, iat=NOW, exp=NOW + 100))
