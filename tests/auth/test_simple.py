"""Tokens and room passwords in one object: its secret, and the rules and counters of SecureRoomAuth."""

from __future__ import annotations

from typing import Any

import pytest

from plumews.auth.passwords import PasswordStrength, generate_secure_secret
from plumews.auth.simple import AuthMetrics, SecureRoomAuth, SimpleRoomAuth
from plumews.errors import WeakRoomPassword, WeakSecret
from support.jwt_forgery import GOOD, NOW, SECRET, refusal, sign

# --- secret ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("secret", [b"", "", b"x" * 31, "your-secret-key", bytearray(5)], ids=repr)
def test_short_secret_raises_weak_secret_with_its_length(secret: Any) -> None:
    with pytest.raises(WeakSecret) as caught:
        SimpleRoomAuth(secret)
    assert str(caught.value) == (
        f"jwt secret too weak: minimum 32 bytes required, got {len(secret)}; plumews.generate_secure_secret() makes one"
    )
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    "secret",
    [
        "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQ",
        "ssh-ed25519-cert-v01@openssh.com AAAAIHNzaC1lZDI1NTE5",
        "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTY=",
        "-----BEGIN PUBLIC KEY-----\nMIIBIjANBg\n-----END PUBLIC KEY-----\n",
        "# the service's key\n-----BEGIN EC PRIVATE KEY-----\nMHcCAQEE\n-----END EC PRIVATE KEY-----\n",
    ],
    ids=["ssh", "ssh-certificate", "ecdsa", "pem", "pem-behind-words"],
)
def test_key_of_an_asymmetric_algorithm_is_refused_as_secret(secret: str) -> None:
    with pytest.raises(WeakSecret, match="PEM or SSH key") as caught:
        SimpleRoomAuth(secret)
    assert caught.value.__context__ is None


@pytest.mark.parametrize("secret", [32, ["x"] * 32, memoryview(SECRET)], ids=["int", "list", "memoryview"])
def test_secret_of_another_type_raises_type_error(secret: Any) -> None:
    with pytest.raises(TypeError, match="must be bytes or str"):
        SimpleRoomAuth(secret)


def test_secret_is_copied() -> None:
    secret = bytearray(SECRET)
    verifier = SimpleRoomAuth(secret)
    secret[:] = bytes(32)
    assert verifier.verify_jwt(sign({}, key=SECRET)) == {}


def test_repr_holds_neither_secret_nor_passwords() -> None:
    verifier = SimpleRoomAuth("top-secret-" * 4, rounds=1)
    verifier.set_room_password("chat", "hunter2")
    assert repr(verifier) == "<SimpleRoomAuth: tokens, 1 room passwords>"
    assert repr(SimpleRoomAuth()) == "<SimpleRoomAuth: no tokens, 0 room passwords>"


def test_without_a_secret_tokens_are_refused_and_passwords_work() -> None:
    only_passwords = SimpleRoomAuth(rounds=1)
    for token in (GOOD, sign({}, key=b""), sign({}, {"alg": "none"})):
        assert str(refusal(token, only_passwords)) == "invalid jwt: tokens cannot be checked, no secret configured"
    only_passwords.set_room_password("chat", "pw")
    assert only_passwords.check_room_password("chat", "pw")


@pytest.mark.parametrize("leeway", [-1, float("nan"), float("inf")])
def test_leeway_must_be_finite_and_not_negative(leeway: float) -> None:
    with pytest.raises(ValueError, match="leeway must be at least 0 seconds"):
        SimpleRoomAuth(leeway=leeway)


@pytest.mark.parametrize(
    ("name", "wanted"), [("leeway", "a number of seconds"), ("issuer", "a str"), ("audience", "a str")]
)
def test_wrong_type_of_token_option_is_named(name: str, wanted: str) -> None:
    with pytest.raises(TypeError, match=f"{name} must be {wanted}.*, not list"):
        SimpleRoomAuth(b"k" * 32, **{name: []})


# --- SecureRoomAuth -------------------------------------------------------------------------------


def secure(**options: Any) -> SecureRoomAuth:
    return SecureRoomAuth(SECRET, rounds=1, clock=lambda: NOW, **options)


def test_section_4_secure_auth_refuses_weak_room_passwords() -> None:
    strict = secure()
    for weak in ("", "short", "nodigitsHERE"):
        with pytest.raises(WeakRoomPassword, match="room password does not meet strength requirements"):
            strict.set_room_password("chat", weak)
    assert not strict.has_room_password("chat")
    strict.set_room_password("chat", "Long3nough")
    assert strict.check_room_password("chat", "Long3nough")
    lenient = secure(allow_weak_room_passwords=True)
    lenient.set_room_password("chat", "x")
    with pytest.raises(ValueError, match="text of 1 to 4096 bytes"):
        lenient.set_room_password("chat", "")
    assert (strict.metrics().weak_room_passwords, lenient.metrics().weak_room_passwords) == (3, 1)


def test_section_4_secure_auth_takes_other_password_rules() -> None:
    simple = secure(password_strength=PasswordStrength(min_length=12))
    with pytest.raises(WeakRoomPassword, match="12 to 1024 characters"):
        simple.set_room_password("chat", "Long3nough")


def test_section_4_secure_auth_counts_and_resets_its_metrics() -> None:
    simple, other = secure(), secure()
    simple.set_room_password("chat", "Long3nough")
    simple.check_room_password("chat", "Long3nough")
    simple.check_room_password("chat", "wrong")
    simple.check_room_password("open", None)
    simple.verify_jwt(GOOD)
    for bad in ("x", sign({"exp": NOW - 1})):
        refusal(bad, simple)
    assert simple.metrics() == AuthMetrics(2, 0, 2)
    assert other.metrics() == AuthMetrics()
    simple.reset_metrics()
    assert simple.metrics() == AuthMetrics()


@pytest.mark.parametrize(("least", "held_to"), [(8, 32), (48, 48)])
def test_section_4_minimum_of_secrets_is_32_bytes_or_more(least: int, held_to: int) -> None:
    for make in (
        lambda: SecureRoomAuth(bytes(held_to - 1), min_secret_length=least),
        lambda: SecureRoomAuth({"a": bytes(64), "b": bytes(held_to - 1)}, min_secret_length=least),
        lambda: SecureRoomAuth(bytes(64), min_secret_length=least).add_key("b", bytes(held_to - 1)),
    ):
        with pytest.raises(WeakSecret, match=f"minimum {held_to} bytes required"):
            make()
    SecureRoomAuth(bytes(held_to), min_secret_length=least)
    with pytest.raises(TypeError, match="needs a secret"):
        SecureRoomAuth(None)  # type: ignore[arg-type]


def test_section_4_common_word_in_a_secret_is_logged_as_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    SecureRoomAuth(generate_secure_secret())
    assert caplog.messages == []
    SecureRoomAuth("my-very-own-Secret-of-the-house-42")
    assert len(caplog.messages) == 1
    assert "house" not in caplog.text
