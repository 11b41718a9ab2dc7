"""Room passwords: how they are set, checked, hashed and stored elsewhere, and rules for strong ones."""

from __future__ import annotations

import ast
import asyncio
import base64
import hashlib
import hmac
import inspect
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeAlias

import pytest

from plumews import (
    PasswordStrength,
    RoomPasswords,
    SimpleRoomAuth,
    WeakRoomPassword,
    generate_secure_secret,
    limits,
    validate_room_password,
)
from plumews.auth import password_checker, passwords, simple, tokens

Rooms: TypeAlias = RoomPasswords | SimpleRoomAuth

# --- passwords of rooms ---------------------------------------------------------------------------


@pytest.fixture(params=[RoomPasswords, SimpleRoomAuth])
def rooms(request: pytest.FixtureRequest) -> Rooms:
    """Return an authorizer whose room "chat" opens with "room-password". Hashing is cheap."""
    made: Rooms = request.param(rounds=2)
    made.set_room_password("chat", "room-password")
    return made


def test_protected_room_opens_to_its_password_only(rooms: Rooms) -> None:
    assert rooms.check_room_password("chat", "room-password") is True
    for wrong in ("", "room-passwor", "room-password ", "ROOM-PASSWORD", "\0", "\ud800", None):
        assert rooms.check_room_password("chat", wrong) is False


def test_room_without_a_password_is_open(rooms: Rooms) -> None:
    assert rooms.has_room_password("chat")
    assert not rooms.has_room_password("lobby")
    for password in (None, "", "anything"):
        assert rooms.check_room_password("lobby", password) is True


def test_password_is_replaced_and_removed(rooms: Rooms) -> None:
    rooms.set_room_password("chat", "second")
    assert not rooms.check_room_password("chat", "room-password")
    assert rooms.check_room_password("chat", "second")
    rooms.remove_room_password("chat")
    rooms.remove_room_password("chat")
    assert not rooms.has_room_password("chat")
    assert rooms.check_room_password("chat", None)


def test_section_4_empty_password_is_refused(rooms: Rooms) -> None:
    with pytest.raises(ValueError, match="text of 1 to 4096 bytes of UTF-8"):
        rooms.set_room_password("chat", "")
    assert not rooms.check_room_password("chat", None)
    assert not rooms.check_room_password("chat", "")


@pytest.mark.parametrize("password", [None, b"bytes", 5, "\ud800"], ids=repr)
def test_password_that_is_not_text_is_refused(rooms: Rooms, password: Any) -> None:
    with pytest.raises(ValueError, match="text of 1 to 4096 bytes"):
        rooms.set_room_password("lobby", password)
    assert not rooms.has_room_password("lobby")


def test_password_is_bounded_in_bytes_of_utf_8(rooms: Rooms) -> None:
    longest = "é" * 2048
    rooms.set_room_password("chat", longest)
    assert rooms.check_room_password("chat", longest)
    for longer in (longest + "x", "é" * 4096, "x" * 10_000_000):
        assert not rooms.check_room_password("chat", longer)
        with pytest.raises(ValueError, match="4096 bytes"):
            rooms.set_room_password("chat", longer)


def test_password_is_stored_as_salted_pbkdf2_hmac_sha512() -> None:
    rooms = RoomPasswords(rounds=3)
    rooms.set_room_password("a", "same")
    rooms.set_room_password("b", "same")
    first, second = rooms._passwords["a"], rooms._passwords["b"]
    assert first.salt != second.salt
    assert len(first.salt) == 16
    assert first.digest == hashlib.pbkdf2_hmac("sha512", b"same", first.salt, 3)
    assert len(first.digest) == 64


def test_default_rounds_are_those_of_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds: list[int] = []

    def hasher(name: str, password: bytes, salt: bytes, iterations: int, size: int) -> bytes:
        rounds.append(iterations)
        return password

    monkeypatch.setattr(hashlib, "pbkdf2_hmac", hasher)
    RoomPasswords().set_room_password("chat", "pw")
    assert rounds == [limits.PASSWORD_ROUNDS] == [210_000]


@pytest.mark.parametrize("rounds", [0, -1])
def test_rounds_below_1_are_refused(rounds: int) -> None:
    with pytest.raises(ValueError, match="rounds must be 1 or more"):
        RoomPasswords(rounds=rounds)


def test_row_35_passwords_are_compared_in_constant_time(rooms: Rooms, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[int, int]] = []
    compare = hmac.compare_digest

    def spy(left: bytes, right: bytes) -> bool:
        compared.append((len(left), len(right)))
        return compare(left, right)

    monkeypatch.setattr(hmac, "compare_digest", spy)
    assert rooms.check_room_password("chat", "room-password")
    assert not rooms.check_room_password("chat", "x")
    assert compared == [(64, 64), (64, 64)]


@pytest.mark.parametrize("module", [password_checker, passwords, simple, tokens])
def test_row_35_no_digest_is_compared_with_an_operator(module: ModuleType) -> None:
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.Compare) and any(isinstance(op, (ast.Eq, ast.NotEq)) for op in node.ops):
            names = ast.unparse(node)
            assert not any(word in names for word in ("digest", "secret", "password", "hash", "signature")), names


def test_row_35_hashing_leaves_the_event_loop_free() -> None:
    rooms = RoomPasswords(rounds=100_000)
    rooms.set_room_password("chat", "pw")

    async def count_turns_while_checking() -> int:
        turns = 0
        check = asyncio.ensure_future(asyncio.to_thread(rooms.check_room_password, "chat", "pw"))
        while not check.done():
            await asyncio.sleep(0)
            turns += 1
        assert await check
        return turns

    # Who held the loop up would do so each time; a machine with other work does it now and then.
    assert any(asyncio.run(count_turns_while_checking()) > 100 for _ in range(5))


def test_section_8_point_24_no_lock_is_held_while_hashing(rooms: Rooms, monkeypatch: pytest.MonkeyPatch) -> None:
    hashing, go_on = threading.Event(), threading.Event()
    real: Callable[..., bytes] = hashlib.pbkdf2_hmac
    main = threading.current_thread()

    def slow(*args: Any) -> bytes:
        if threading.current_thread() is not main:
            hashing.set()
            assert go_on.wait(60)
        return real(*args)

    monkeypatch.setattr(hashlib, "pbkdf2_hmac", slow)
    answers: list[bool] = []
    checker = threading.Thread(target=lambda: answers.append(rooms.check_room_password("chat", "room-password")))
    checker.start()
    assert hashing.wait(60)
    rooms.set_room_password("chat", "new")
    rooms.set_room_password("other", "pw")
    assert rooms.check_room_password("chat", "new")
    assert rooms.has_room_password("other")
    rooms.remove_room_password("chat")
    go_on.set()
    checker.join(60)
    assert answers == [True]  # judged by the password that was set when the question came


def test_passwords_may_be_used_from_many_threads() -> None:
    rooms = RoomPasswords(rounds=1)
    rooms.set_room_password("shared", "pw")
    wrong: list[str] = []

    def use(name: str) -> None:
        for _ in range(200):
            rooms.set_room_password(name, name)
            if not rooms.check_room_password(name, name) or rooms.check_room_password("shared", name):
                wrong.append(name)
            rooms.remove_room_password(name)

    threads = [threading.Thread(target=use, args=(f"room-{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert repr(rooms) == "<RoomPasswords: 1>"


# --- hashes that are stored elsewhere -------------------------------------------------------------

SALT = bytes(range(16))


def b64(data: bytes, padding: bool = True) -> str:
    text = base64.b64encode(data).decode()
    return text if padding else text.rstrip("=")


def kept(rounds: int = 100_000, salt: bytes = SALT, size: int = 64, padding: bool = True) -> str:
    digest = hashlib.pbkdf2_hmac("sha512", b"pw", salt, 100_000, size)
    return f"{rounds}${b64(salt, padding)}${b64(digest, padding)}"


def test_hash_opens_the_room_in_another_process() -> None:
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


def test_room_without_a_password_has_neither_hash_nor_salt() -> None:
    rooms = RoomPasswords(rounds=1)
    assert rooms.room_password_hash("chat") is None
    assert rooms.room_password_salt("chat") is None
    assert (len(rooms), repr(rooms)) == (0, "<RoomPasswords: 0>")


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("padding", [True, False])
def test_section_4_hashes_of_32_and_64_bytes_are_accepted(size: int, padding: bool) -> None:
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
def test_section_4_malformed_or_extreme_hash_is_refused(text: str, why: str) -> None:
    rooms = RoomPasswords()
    with pytest.raises(ValueError, match=why) as caught:
        rooms.set_room_password_hash("chat", text)
    assert not rooms.has_room_password("chat")
    if text:
        assert text not in str(caught.value)


def test_salt_changes_when_the_same_password_is_set_again() -> None:
    rooms = RoomPasswords(rounds=1)
    rooms.set_room_password("chat", "pw")
    salt = rooms.room_password_salt("chat")
    rooms.set_room_password("chat", "pw")
    assert rooms.room_password_salt("chat") != salt


# --- strength -------------------------------------------------------------------------------------


@pytest.mark.parametrize("password", ["Abcdefg1", "Äbcdefg٣", "A1" + "b" * 1022, "Correct horse 1"])
def test_strong_password_is_accepted(password: str) -> None:
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
def test_section_4_weak_password_raises_with_the_broken_rules(password: str, missing: str) -> None:
    with pytest.raises(WeakRoomPassword) as caught:
        validate_room_password(password)
    assert str(caught.value) == f"room password does not meet strength requirements: {missing}"
    assert isinstance(caught.value, ValueError)


def test_strength_rules_can_be_changed() -> None:
    validate_room_password("x", PasswordStrength(1, 2, False, False, False))
    special = PasswordStrength(require_special=True)
    validate_room_password("Abcdefg1!", special)
    for plain in ("Abcdefg1", "Abcdefg1 ", "Abcdefg1\x00"):
        with pytest.raises(WeakRoomPassword, match="a special character"):
            validate_room_password(plain, special)


@pytest.mark.parametrize(("least", "most"), [(0, 10), (10, 9)])
def test_strength_rules_that_allow_no_password_are_refused(least: int, most: int) -> None:
    with pytest.raises(ValueError, match="min_length must be 1 or more"):
        PasswordStrength(least, most)


def test_section_4_generated_secret_is_random_and_long_enough() -> None:
    assert len(generate_secure_secret()) == 32
    assert len(generate_secure_secret(48)) == 48
    assert generate_secure_secret() != generate_secure_secret()
    with pytest.raises(ValueError, match="length should be at least 32 bytes"):
        generate_secure_secret(31)
