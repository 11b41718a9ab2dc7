"""Password checks: one hash for equal passwords, right ones remembered, failed attempts limited by address."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import pytest

import plumews
from plumews import limits
from plumews.auth.password_checker import (
    AUTHORIZER_THREADS,
    PASSWORD_THREADS,
    Attempts,
    BlockingPool,
    PasswordChecker,
)
from support.fakes import until

HERE = "192.0.2.1"


class Counted(plumews.RoomPasswords):
    """Authorizer whose room "chat" opens with "right". It counts checks, each of which waits for ``go_on``."""

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


async def begun(checker, count):
    """Wait until ``count`` checks are in progress."""
    while len(checker._checks) < count:
        await asyncio.sleep(0)


async def refusal(checker, password, address=HERE):
    with pytest.raises(plumews.Refused) as caught:
        await checker.check("chat", password, address)
    return caught.value.status, caught.value.code, dict(caught.value.headers)["Retry-After"]


async def test_row_35_password_is_checked_in_a_thread():
    auth = Counted()
    checker = PasswordChecker(auth)
    assert await checker.check("chat", "right", HERE) is True
    assert await checker.check("chat", "wrong", HERE) is False
    assert threading.current_thread() not in auth.threads


async def test_only_right_password_is_remembered():
    auth = Counted()
    checker = PasswordChecker(auth)
    for _ in range(3):
        assert await checker.check("chat", "right", HERE)
        assert not await checker.check("chat", "wrong", HERE)
    assert auth.checked == ["right", "wrong", "wrong", "wrong"]
    assert repr(checker) == "<PasswordChecker: 0 under way, 1 remembered>"
    assert not any(b"right" in name for name in checker._known)


async def test_remembered_password_opens_no_other_room():
    auth = Counted()
    checker = PasswordChecker(auth)
    auth.set_room_password("other", "another")
    assert await checker.check("chat", "right", HERE)
    assert not await checker.check("other", "right", HERE)


async def test_new_password_has_nothing_remembered():
    auth = Counted()
    checker = PasswordChecker(auth)
    assert await checker.check("chat", "right", HERE)
    auth.set_room_password("chat", "new")
    assert not await checker.check("chat", "right", HERE)
    assert await checker.check("chat", "new", HERE)


async def test_password_set_during_a_check_has_nothing_remembered():
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
    checker = PasswordChecker(auth)
    auth.go_on.clear()
    old = asyncio.ensure_future(checker.check("chat", "right", HERE))
    await begun(checker, 1)
    assert await asyncio.to_thread(hashed.wait, 30)
    auth.set_room_password("chat", "new")
    auth.go_on.set()
    await old
    assert not await checker.check("chat", "right", HERE)
    assert await checker.check("chat", "new", HERE)


async def test_overridden_check_is_called_each_time():
    class Picky(plumews.SimpleRoomAuth):
        def check_room_password(self, room, password):
            return self.open and super().check_room_password(room, password)

    auth = Picky(rounds=1)
    auth.set_room_password("chat", "right")
    checker = PasswordChecker(auth)
    auth.open = True
    assert await checker.check("chat", "right", HERE)
    auth.open = False
    assert not await checker.check("chat", "right", HERE)


@pytest.mark.parametrize("auth", [plumews.SimpleRoomAuth(rounds=1), plumews.SecureRoomAuth(bytes(32), rounds=1)])
async def test_passwords_of_our_own_classes_are_remembered(auth):
    auth.set_room_password("chat", "Password1")
    checker = PasswordChecker(auth)
    assert await checker.check("chat", "Password1", HERE)
    assert len(checker._known) == 1


async def test_memory_is_bounded_and_forgets_the_least_recently_used():
    auth = Counted()
    for room in "abc":
        auth.set_room_password(room, "right")
    checker = PasswordChecker(auth, memory=2)
    for room in ("a", "b", "a", "c", "a", "b"):
        assert await checker.check(room, "right", HERE)
    assert len(auth.checked) == 4  # a, b, c, and b again
    assert len(checker._known) == 2


async def test_clients_with_the_same_password_share_one_hash():
    auth = Counted()
    checker = PasswordChecker(auth, queue=1)
    auth.go_on.clear()
    waiting = [asyncio.ensure_future(checker.check("chat", "right", HERE)) for _ in range(500)]
    await begun(checker, 1)
    auth.go_on.set()
    assert await asyncio.gather(*waiting) == [True] * 500
    assert auth.checked == ["right"]
    assert len(checker._attempts) == 0


async def test_leaving_client_does_not_cancel_a_shared_hash():
    auth = Counted()
    checker = PasswordChecker(auth)
    auth.go_on.clear()
    first, second = (asyncio.ensure_future(checker.check("chat", "right", HERE)) for _ in range(2))
    await begun(checker, 1)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    auth.go_on.set()
    assert await second
    assert auth.checked == ["right"]


async def test_abandoned_check_is_not_hashed():
    auth = Counted()
    checker = PasswordChecker(auth)
    auth.go_on.clear()
    busy = [asyncio.ensure_future(checker.check("chat", name, None)) for name in ("one", "two")]
    while len(auth.checked) < 2:
        await asyncio.sleep(0)
    left = asyncio.ensure_future(checker.check("chat", "three", None))
    await begun(checker, 3)
    left.cancel()
    with pytest.raises(asyncio.CancelledError):
        await left
    assert len(checker._checks) == 2
    auth.go_on.set()
    await asyncio.gather(*busy)
    assert await checker.check("chat", "right", None)
    assert "three" not in auth.checked


async def test_full_queue_of_checks_is_503_with_retry_after():
    auth = Counted()
    checker = PasswordChecker(auth, queue=3)
    auth.go_on.clear()
    waiting = [asyncio.ensure_future(checker.check("chat", f"wrong{n}", HERE)) for n in range(3)]
    await begun(checker, 3)
    assert await refusal(checker, "wrong3", "192.0.2.2") == (503, "WEBSOCKET_BUSY", "5")
    assert len(checker._attempts) == 1
    auth.go_on.set()
    assert await asyncio.gather(*waiting) == [False] * 3
    assert await checker.check("chat", "right", "192.0.2.2")


async def test_clients_that_left_hold_no_place_in_the_queue():
    auth = Counted()
    checker = PasswordChecker(auth, queue=10)
    auth.go_on.clear()
    guesses = [asyncio.ensure_future(checker.check("chat", f"wrong{n}", None)) for n in range(10)]
    await until(lambda: len(auth.checked) == limits.PASSWORD_HASHES)
    assert (await refusal(checker, "right"))[:2] == (503, "WEBSOCKET_BUSY")
    for guess in guesses:
        guess.cancel()
    await asyncio.wait(guesses)
    late = asyncio.ensure_future(checker.check("chat", "right", HERE))
    await until(lambda: late.done() or checker._checks)
    auth.go_on.set()
    assert await late
    assert len(auth.checked) == limits.PASSWORD_HASHES + 1


async def test_section_8_point_24_guessing_address_is_429():
    auth = Counted()
    clock = Clock()
    checker = PasswordChecker(auth, attempts=Attempts(burst=3, interval=10), clock=clock)
    assert await checker.check("chat", "right", HERE)
    for _ in range(3):
        assert not await checker.check("chat", "the same wrong one", HERE)
    checked = len(auth.checked)
    for password in ("wrong", "right"):
        assert await refusal(checker, password) == (429, "WEBSOCKET_TOO_MANY_ATTEMPTS", "10")
    assert len(auth.checked) == checked
    assert await checker.check("chat", "right", "192.0.2.2")
    clock.now = 10
    assert await checker.check("chat", "right", HERE)


async def test_section_8_point_24_concurrent_guesses_are_charged():
    auth = Counted()
    checker = PasswordChecker(auth, attempts=Attempts(burst=3, interval=10), clock=Clock())
    auth.go_on.clear()
    waiting = [asyncio.ensure_future(checker.check("chat", f"wrong{n}", HERE)) for n in range(3)]
    await begun(checker, 3)
    assert (await refusal(checker, "wrong3"))[0] == 429
    auth.go_on.set()
    await asyncio.gather(*waiting)
    assert len(auth.checked) == 3


async def test_shared_wrong_password_is_charged_to_each_client():
    auth = Counted()
    checker = PasswordChecker(auth, attempts=Attempts(burst=3, interval=10), clock=Clock())
    auth.go_on.clear()
    waiting = [asyncio.ensure_future(checker.check("chat", "wrong", HERE)) for _ in range(3)]
    await begun(checker, 1)
    auth.go_on.set()
    assert await asyncio.gather(*waiting) == [False] * 3
    assert (await refusal(checker, "right"))[0] == 429


async def test_right_password_is_not_charged():
    checker = PasswordChecker(Counted(), attempts=Attempts(burst=1, interval=10), clock=Clock())
    for _ in range(5):
        assert await checker.check("chat", "right", HERE)
    assert len(checker._attempts) == 0


async def test_async_authorizer_is_awaited_on_the_loop_each_time():
    class Remote:
        asked = 0

        async def check_room_password(self, room, password):
            await asyncio.sleep(0)
            self.asked += 1
            assert asyncio.get_running_loop()
            return password == "right"

    remote = Remote()
    checker = PasswordChecker(remote)
    assert await checker.check("chat", "right", HERE)
    assert await checker.check("chat", "right", HERE)
    assert not await checker.check("chat", "wrong", HERE)
    assert remote.asked == 3


async def test_error_of_the_authorizer_reaches_all_and_costs_nothing():
    class Broken(Counted):
        def check_room_password(self, room, password):
            super().check_room_password(room, password)
            raise RuntimeError("away")

    auth = Broken()
    checker = PasswordChecker(auth)
    auth.go_on.clear()
    waiting = [asyncio.ensure_future(checker.check("chat", "right", HERE)) for _ in range(2)]
    await begun(checker, 1)
    auth.go_on.set()
    errors = await asyncio.gather(*waiting, return_exceptions=True)
    assert [str(error) for error in errors] == ["away", "away"]
    assert len(checker._attempts) == 0
    assert len(checker._checks) == len(checker._known) == 0


# --- failed attempts ------------------------------------------------------------------------------


def wait_of(attempts, address, now):
    """Return how long ``address`` is told to wait, 0 if it need not."""
    try:
        attempts.check(address, now, "too many")
    except plumews.Refused as exc:
        return int(dict(exc.headers)["Retry-After"])
    return 0


def test_burst_of_failures_is_free_then_one_each_interval():
    attempts = Attempts(burst=2, interval=10)
    for _ in range(2):
        assert wait_of(attempts, HERE, 100) == 0
        attempts.charge(HERE, 100)
    assert [wait_of(attempts, HERE, now) for now in (100, 104, 110)] == [10, 6, 0]
    assert wait_of(attempts, "192.0.2.2", 100) == 0


def test_address_saves_no_more_than_the_burst():
    attempts = Attempts(burst=2, interval=10)
    attempts.charge(HERE, 0)
    for _ in range(2):
        attempts.charge(HERE, 1e9)
    assert wait_of(attempts, HERE, 1e9) == 10


def test_charges_of_an_address_are_bounded_by_the_burst():
    attempts = Attempts(burst=2, interval=10)
    for _ in range(1000):
        attempts.charge(HERE, 0)
    assert wait_of(attempts, HERE, 0) == 30


def test_refund_gives_an_attempt_back_and_frees_the_entry():
    attempts = Attempts(burst=2, interval=10)
    attempts.charge(HERE, 0)
    attempts.refund(HERE, 0)
    assert len(attempts) == 0
    for _ in range(2):
        attempts.charge(HERE, 0)
    attempts.refund(HERE, 0)
    assert wait_of(attempts, HERE, 0) == 0
    attempts.refund("192.0.2.9", 0)
    assert len(attempts) == 1


def test_client_without_an_address_is_not_limited():
    attempts = Attempts(burst=1)
    for _ in range(5):
        attempts.charge(None, 0)
    attempts.refund(None, 0)
    assert wait_of(attempts, None, 0) == 0


def test_table_of_addresses_is_bounded_and_forgets_the_oldest():
    attempts = Attempts(burst=1, max_addresses=2)
    for address in (HERE, "192.0.2.2", HERE, "192.0.2.3"):
        attempts.charge(address, 0)
    assert len(attempts) == 2
    assert [wait_of(attempts, f"192.0.2.{n}", 0) > 0 for n in (1, 2, 3)] == [True, False, True]


# --- threads --------------------------------------------------------------------------------------


@pytest.fixture
async def busy():
    """Pool of three whose two threads are busy until its event is set, as a pair. The third place is free."""
    pool = BlockingPool(PASSWORD_THREADS, 3)
    go_on, begun = threading.Event(), threading.Semaphore(0)

    def hang():
        begun.release()
        return go_on.wait(30)

    calls = [pool.start(hang) for _ in range(limits.PASSWORD_HASHES)]
    for _ in calls:
        assert await asyncio.to_thread(begun.acquire, timeout=30)
    yield pool, go_on
    go_on.set()
    assert await asyncio.gather(*calls) == [True] * len(calls)
    assert not pool.pending


async def test_abandoned_call_frees_its_place_at_once(busy):
    pool, go_on = busy
    called = []
    abandoned = pool.start(called.append, "abandoned")
    with pytest.raises(plumews.Refused, match="full") as caught:
        pool.check_space("full")
    assert (caught.value.status, caught.value.code) == (503, "WEBSOCKET_BUSY")
    pool.abandon(abandoned)
    pool.check_space("full")
    kept = pool.start(called.append, "kept")
    go_on.set()
    await kept
    assert called == ["kept"]


async def test_abandoned_calls_do_not_pile_up(busy):
    pool, _ = busy
    for _ in range(1000):
        pool.abandon(pool.start(print))
    assert not PASSWORD_THREADS._queue
    assert PASSWORD_THREADS._executor._work_queue.qsize() == 0


async def test_running_call_that_is_abandoned_keeps_its_place(busy):
    pool, _ = busy
    for work in list(pool.pending):
        pool.abandon(work)
    assert len(pool.pending) == limits.PASSWORD_HASHES


async def test_busy_password_threads_do_not_delay_authorizers(busy):
    assert await BlockingPool(AUTHORIZER_THREADS, 1).start(lambda: "answer") == "answer"


async def test_late_error_of_a_blocking_call_is_not_logged(caplog):
    def ask():
        raise KeyError("a secret")

    pool = BlockingPool(PASSWORD_THREADS, 1)
    pool.start(ask)
    await until(lambda: not pool.pending)
    gc.collect()
    assert caplog.records == []


async def test_failed_call_is_freed_without_the_collector():
    class Argument:
        pass

    def ask(argument):
        raise KeyError

    argument = Argument()
    freed = threading.Event()
    weakref.finalize(argument, freed.set)
    pool = BlockingPool(PASSWORD_THREADS, 1)
    gc.disable()
    try:
        pool.start(ask, argument)
        del argument
        await until(lambda: not pool.pending)
        assert await asyncio.to_thread(freed.wait, 10)
    finally:
        gc.enable()


FORKED = """
import asyncio, os
from plumews.auth.password_checker import PASSWORD_THREADS, BlockingPool

async def ask():
    return await BlockingPool(PASSWORD_THREADS, 1).start(lambda: 1)

assert asyncio.run(ask())
child = os.fork()
answer = asyncio.run(asyncio.wait_for(ask(), 30))
if not child:
    os._exit(0 if answer else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_blocking_call_in_a_forked_child_has_a_thread_of_its_own():
    # A process of its own: the one of the tests has more threads than a fork copies.
    path = str(Path(plumews.__file__).parent.parent)
    subprocess.run([sys.executable, "-c", FORKED], check=True, timeout=60, env={**os.environ, "PYTHONPATH": path})
