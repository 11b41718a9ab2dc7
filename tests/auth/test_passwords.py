"""Hashes of room passwords that are stored elsewhere, and rules for strong passwords and secrets."""

from __future__ import annotations

import base64
import hashlib

import pytest

from plumews import PasswordStrength, RoomPasswords, WeakRoomPassword, generate_secure_secret, validate_room_password

SALT = bytes(range(16))


def b64(data: bytes, padding: bool = True) -> str:
    text = base64.b64encode(data).decode()
    return text if padding else text.rstrip("=")


def kept(rounds: int = 100_000, salt: bytes = SALT, size: int = 64, padding: bool = True) -> str:
    digest = hashlib.pbkdf2_hmac("sha512", b"pw", salt, 100_000, size)
    return f"{rounds}${b64(salt, padding)}${b64(digest, padding)}"


def test_a_hash_opens_the_room_in_another_process_without_the_password() -> None:
    first, second = RoomPasswords(rounds=100_000), RoomPasswords(rounds=1)
    first.set_room_password("chat", "pw")
    text = first.room_password_hash("chat")
    assert text is not None
    assert text.startswith("100000$")
    assert "pw" not in text.split("$")
    second.set_room_password_hash("chat", text)
    assert second.room_password_hash("chat") == text
    assert second.check_room_password("chat", "pw")
    assert not second.check_room_password("chat", "PW")


def test_a_room_without_a_password_has_no_hash_and_no_salt() -> None:
    rooms = RoomPasswords(rounds=1)
    assert rooms.room_password_hash("chat") is None
    assert rooms.room_password_salt("chat") is None
    assert (len(rooms), repr(rooms)) == (0, "<RoomPasswords: 0>")


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("padding", [True, False])
def test_section_4_the_seeds_hashes_are_taken(size: int, padding: bool) -> None:
    rooms = RoomPasswords()
    rooms.set_room_password_hash("chat", kept(size=size, padding=padding))
    assert rooms.check_room_password("chat", "pw")
    assert not rooms.check_room_password("chat", "px")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "of the form"),
        (None, "of the form"),
        ("pw", "of the form"),
        ("100000$x", "of the form"),
        (kept() + "$", "of the form"),
        (kept() + "\n", "of the form"),
        ("-" + kept(), "of the form"),
        (kept(rounds=99_999), "100000 to 2000000 rounds, not 99999"),
        (kept(rounds=2_000_001), "100000 to 2000000 rounds, not 2000001"),
        (kept(salt=SALT[:15]), "16 to 64 bytes, not 15"),
        (kept(salt=bytes(65)), "16 to 64 bytes, not 65"),
        (kept(size=63), "64 or 32 bytes, not 63"),
        (f"100000${b64(SALT)}$A", "64 or 32 bytes, not 0"),
    ],
)
def test_section_4_what_is_no_hash_or_costs_too_little_or_too_much_is_refused(text: str, why: str) -> None:
    rooms = RoomPasswords()
    with pytest.raises(ValueError, match=why) as caught:
        rooms.set_room_password_hash("chat", text)
    assert not rooms.has_room_password("chat")
    if text:
        assert text not in str(caught.value)


def test_the_salt_changes_with_the_password_though_it_is_the_same() -> None:
    rooms = RoomPasswords(rounds=1)
    rooms.set_room_password("chat", "pw")
    salt = rooms.room_password_salt("chat")
    rooms.set_room_password("chat", "pw")
    assert rooms.room_password_salt("chat") != salt


# --- strength -------------------------------------------------------------------------------------


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
