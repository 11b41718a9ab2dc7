"""plumews.passwords: hashes that are kept elsewhere. What is set and checked is in test_auth, by SimpleRoomAuth."""

from __future__ import annotations

import base64
import hashlib

import pytest

from plumews import RoomPasswords

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
