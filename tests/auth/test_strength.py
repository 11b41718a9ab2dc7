"""plumews.strength: which passwords are too easy to guess, and secrets that nobody can."""

from __future__ import annotations

import pytest

from plumews import PasswordStrength, WeakRoomPassword, generate_secure_secret, validate_room_password


@pytest.mark.parametrize("password", ["Abcdefg1", "Äbcdefg٣", "A1" + "b" * 1022, "Correct horse 1"])
def test_a_strong_password_passes(password: str) -> None:
    validate_room_password(password)


@pytest.mark.parametrize(
    ("password", "missing"),
    [
        ("Abcdef1", "it must have 8 to 1024 characters"),
        ("A1" + "b" * 1023, "it must have 8 to 1024 characters"),
        ("abcdefg1", "it must have an upper-case letter"),
        ("ABCDEFG1", "it must have a lower-case letter"),
        ("Abcdefgh", "it must have a digit"),
        ("--------", "it must have an upper-case letter, a lower-case letter, a digit"),
        (b"Abcdefg1", "it must be a str, not bytes"),
    ],
)
def test_section_4_a_weak_password_is_told_what_it_lacks_and_is_not_repeated(password: str, missing: str) -> None:
    with pytest.raises(WeakRoomPassword) as caught:
        validate_room_password(password)
    assert str(caught.value) == f"room password does not meet strength requirements: {missing}"
    assert isinstance(caught.value, ValueError)


def test_the_rules_can_be_others() -> None:
    validate_room_password("x", PasswordStrength(1, 2, False, False, False))
    special = PasswordStrength(require_special=True)
    validate_room_password("Abcdefg1!", special)
    for plain in ("Abcdefg1", "Abcdefg1 ", "Abcdefg1\x00"):
        with pytest.raises(WeakRoomPassword, match="a special character"):
            validate_room_password(plain, special)


@pytest.mark.parametrize(("least", "most"), [(0, 10), (10, 9)])
def test_rules_that_leave_no_password_are_refused(least: int, most: int) -> None:
    with pytest.raises(ValueError, match="min_length must be 1 or more"):
        PasswordStrength(least, most)


def test_section_4_a_secret_is_random_and_long_enough() -> None:
    assert len(generate_secure_secret()) == 32
    assert len(generate_secure_secret(48)) == 48
    assert generate_secure_secret() != generate_secure_secret()
    with pytest.raises(ValueError, match="length should be at least 32 bytes"):
        generate_secure_secret(31)
