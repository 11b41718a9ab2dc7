"""plumews.password_gate: one hash for all who bring the same, none for who is known, and a price for guessing."""

from __future__ import annotations

import asyncio
import threading

import pytest

import plumews
from plumews.auth.attempts import Attempts
from plumews.auth.password_checker import PasswordChecker

HERE = "192.0.2.1"


class Counted(plumews.RoomPasswords):
    """Room "chat" opens with "right"; a check is counted, and waits until ``go_on``."""

    def __init__(self):
        super().__init__(rounds=1)
        self.checked = []
        self.threads = set()
        self.go_on = threading.Event()
        self.go_on.set()
        self.set_room_password("chat", "right")

    def check_room_password(self, room, password):
        self.checked.append(password)
        self.threads.add(threading.current_thread())
        assert self.go_on.wait(30)
        return super().check_room_password(room, password)

    def room_password_salt(self, room):
        return super().room_password_salt(room)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


async def begun(gate, count):
    """Until ``count`` checks are under way."""
    while len(gate._checks) < count:
        await asyncio.sleep(0)


async def refusal(gate, password, address=HERE):
    with pytest.raises(plumews.Refused) as caught:
        await gate.check("chat", password, address)
    return caught.value.status, caught.value.code, dict(caught.value.headers)["Retry-After"]


async def test_row_35_a_right_password_opens_and_a_wrong_one_does_not_in_a_thread():
    auth = Counted()
    gate = PasswordChecker(auth)
    assert await gate.check("chat", "right", HERE) is True
    assert await gate.check("chat", "wrong", HERE) is False
    assert threading.current_thread() not in auth.threads


async def test_what_was_right_is_remembered_and_what_was_wrong_is_not():
    auth = Counted()
    gate = PasswordChecker(auth)
    for _ in range(3):
        assert await gate.check("chat", "right", HERE)
        assert not await gate.check("chat", "wrong", HERE)
    assert auth.checked == ["right", "wrong", "wrong", "wrong"]
    assert repr(gate) == "<PasswordChecker: 0 under way, 1 remembered>"
    assert not any(b"right" in name for name in gate._right)


async def test_what_is_remembered_is_for_that_room_only():
    auth = Counted()
    gate = PasswordChecker(auth)
    auth.set_room_password("other", "another")
    assert await gate.check("chat", "right", HERE)
    assert not await gate.check("other", "right", HERE)


async def test_a_new_password_has_nothing_remembered():
    auth = Counted()
    gate = PasswordChecker(auth)
    assert await gate.check("chat", "right", HERE)
    auth.set_room_password("chat", "new")
    assert not await gate.check("chat", "right", HERE)
    assert await gate.check("chat", "new", HERE)


async def test_a_new_password_has_nothing_remembered_even_if_it_is_set_while_the_old_one_is_hashed():
    class Late(Counted):
        def check_room_password(self, room, password):
            right = plumews.RoomPasswords.check_room_password(self, room, password)
            hashed.set()
            assert self.go_on.wait(30)
            return right

        def room_password_salt(self, room):
            return super().room_password_salt(room)

    hashed = threading.Event()
    auth = Late()
    gate = PasswordChecker(auth)
    auth.go_on.clear()
    old = asyncio.ensure_future(gate.check("chat", "right", HERE))
    await begun(gate, 1)
    assert await asyncio.to_thread(hashed.wait, 30)
    auth.set_room_password("chat", "new")
    auth.go_on.set()
    await old
    assert not await gate.check("chat", "right", HERE)
    assert await gate.check("chat", "new", HERE)


async def test_a_check_with_rules_of_its_own_is_asked_each_time():
    class Picky(plumews.SimpleRoomAuth):
        def check_room_password(self, room, password):
            return self.open and super().check_room_password(room, password)

    auth = Picky(rounds=1)
    auth.set_room_password("chat", "right")
    gate = PasswordChecker(auth)
    auth.open = True
    assert await gate.check("chat", "right", HERE)
    auth.open = False
    assert not await gate.check("chat", "right", HERE)


@pytest.mark.parametrize("auth", [plumews.SimpleRoomAuth(rounds=1), plumews.SecureRoomAuth(bytes(32), rounds=1)])
async def test_our_own_are_remembered(auth):
    auth.set_room_password("chat", "Password1")
    gate = PasswordChecker(auth)
    assert await gate.check("chat", "Password1", HERE)
    assert len(gate._right) == 1


async def test_what_is_remembered_is_bounded_and_the_longest_unused_is_forgotten():
    auth = Counted()
    for room in "abc":
        auth.set_room_password(room, "right")
    gate = PasswordChecker(auth, memory=2)
    for room in ("a", "b", "a", "c", "a", "b"):
        assert await gate.check(room, "right", HERE)
    assert len(auth.checked) == 4  # a, b, c, and b again
    assert len(gate._right) == 2


async def test_many_with_the_same_password_wait_for_one_hash():
    auth = Counted()
    gate = PasswordChecker(auth, queue=1)
    auth.go_on.clear()
    waiting = [asyncio.ensure_future(gate.check("chat", "right", HERE)) for _ in range(500)]
    await begun(gate, 1)
    auth.go_on.set()
    assert await asyncio.gather(*waiting) == [True] * 500
    assert auth.checked == ["right"]
    assert len(gate._attempts) == 0


async def test_who_leaves_does_not_take_the_hash_along_that_others_wait_for():
    auth = Counted()
    gate = PasswordChecker(auth)
    auth.go_on.clear()
    first, second = (asyncio.ensure_future(gate.check("chat", "right", HERE)) for _ in range(2))
    await begun(gate, 1)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    auth.go_on.set()
    assert await second
    assert auth.checked == ["right"]


async def test_a_hash_that_nobody_waits_for_is_not_begun():
    auth = Counted()
    gate = PasswordChecker(auth)
    auth.go_on.clear()
    busy = [asyncio.ensure_future(gate.check("chat", name, None)) for name in ("one", "two")]
    while len(auth.checked) < 2:
        await asyncio.sleep(0)
    left = asyncio.ensure_future(gate.check("chat", "three", None))
    await begun(gate, 3)
    left.cancel()
    with pytest.raises(asyncio.CancelledError):
        await left
    assert len(gate._checks) == 2
    auth.go_on.set()
    await asyncio.gather(*busy)
    assert await gate.check("chat", "right", None)
    assert "three" not in auth.checked


async def test_beyond_the_bound_of_those_who_wait_503_says_when_to_come_back():
    auth = Counted()
    gate = PasswordChecker(auth, queue=3)
    auth.go_on.clear()
    waiting = [asyncio.ensure_future(gate.check("chat", f"wrong{n}", HERE)) for n in range(3)]
    await begun(gate, 3)
    assert await refusal(gate, "wrong3", "192.0.2.2") == (503, "WEBSOCKET_BUSY", "5")
    assert gate._attempts.retry_after("192.0.2.2", 0) == 0
    auth.go_on.set()
    assert await asyncio.gather(*waiting) == [False] * 3
    assert await gate.check("chat", "right", "192.0.2.2")


async def test_section_8_point_24_an_address_that_guesses_is_429_even_for_the_right_one():
    auth = Counted()
    clock = Clock()
    gate = PasswordChecker(auth, attempts=Attempts(burst=3, interval=10), clock=clock)
    assert await gate.check("chat", "right", HERE)
    for _ in range(3):
        assert not await gate.check("chat", "the same wrong one", HERE)
    checked = len(auth.checked)
    for password in ("wrong", "right"):
        assert await refusal(gate, password) == (429, "WEBSOCKET_TOO_MANY_ATTEMPTS", "10")
    assert len(auth.checked) == checked
    assert await gate.check("chat", "right", "192.0.2.2")
    clock.now = 10
    assert await gate.check("chat", "right", HERE)


async def test_section_8_point_24_guesses_that_come_at_once_are_counted_before_they_are_known_to_be_wrong():
    auth = Counted()
    gate = PasswordChecker(auth, attempts=Attempts(burst=3, interval=10), clock=Clock())
    auth.go_on.clear()
    waiting = [asyncio.ensure_future(gate.check("chat", f"wrong{n}", HERE)) for n in range(3)]
    await begun(gate, 3)
    assert (await refusal(gate, "wrong3"))[0] == 429
    auth.go_on.set()
    await asyncio.gather(*waiting)
    assert len(auth.checked) == 3


async def test_who_shared_a_wrong_guess_pays_for_it_too():
    auth = Counted()
    gate = PasswordChecker(auth, attempts=Attempts(burst=3, interval=10), clock=Clock())
    auth.go_on.clear()
    waiting = [asyncio.ensure_future(gate.check("chat", "wrong", HERE)) for _ in range(3)]
    await begun(gate, 1)
    auth.go_on.set()
    assert await asyncio.gather(*waiting) == [False] * 3
    assert (await refusal(gate, "right"))[0] == 429


async def test_right_passwords_cost_nothing():
    gate = PasswordChecker(Counted(), attempts=Attempts(burst=1, interval=10), clock=Clock())
    for _ in range(5):
        assert await gate.check("chat", "right", HERE)
    assert len(gate._attempts) == 0


async def test_an_authorizer_that_is_async_is_awaited_on_the_loop_and_asked_each_time():
    class Remote:
        asked = 0

        async def check_room_password(self, room, password):
            await asyncio.sleep(0)
            self.asked += 1
            assert asyncio.get_running_loop()
            return password == "right"

    remote = Remote()
    gate = PasswordChecker(remote)
    assert await gate.check("chat", "right", HERE)
    assert await gate.check("chat", "right", HERE)
    assert not await gate.check("chat", "wrong", HERE)
    assert remote.asked == 3


async def test_an_authorizer_that_raises_reaches_all_who_wait_and_costs_nothing():
    class Broken(Counted):
        def check_room_password(self, room, password):
            super().check_room_password(room, password)
            raise RuntimeError("away")

    auth = Broken()
    gate = PasswordChecker(auth)
    auth.go_on.clear()
    waiting = [asyncio.ensure_future(gate.check("chat", "right", HERE)) for _ in range(2)]
    await begun(gate, 1)
    auth.go_on.set()
    errors = await asyncio.gather(*waiting, return_exceptions=True)
    assert [str(error) for error in errors] == ["away", "away"]
    assert len(gate._attempts) == 0
    assert len(gate._checks) == len(gate._right) == 0
