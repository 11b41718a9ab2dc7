"""Checks of room passwords: shared by clients, hashed in threads, and limited for each address.

Clients that send the same password for the same room at once share one hash. It is abandoned when the last of them has
gone. Only right passwords are remembered, as a digest under a random key and over the password's salt. A new password
has another salt, so nothing is remembered of it. An address is charged for each attempt before the password is checked,
so concurrent guesses cannot exceed the limit.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import inspect
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from threading import RLock
from typing import Any, Final

from .. import limits
from ..constants import ErrorCode
from ..errors import Refused
from ..rate_limit import TokenBucket, address_group
from ..transport.forks import after_fork
from ..validation import is_coroutine_function
from .interfaces import RoomAuthorizer

__all__ = ["AUTHORIZER_THREADS", "PASSWORD_THREADS", "Attempts", "BlockingPool", "PasswordChecker", "truth_of"]


class Attempts:
    """Failed attempts of addresses, with a token bucket for each IPv4 address or IPv6 /64 network.

    Only failures cost: an address has ``burst`` of them free, and one more each ``interval``. In a full table the
    address whose last failure is the oldest makes room for a new one.
    """

    def __init__(
        self,
        burst: int = limits.ATTEMPTS_BURST,
        interval: float = limits.ATTEMPTS_INTERVAL,
        max_addresses: int = limits.ATTEMPTS_ADDRESSES,
    ) -> None:
        self._rate = 1 / interval
        self._burst = burst
        self._max_addresses = max_addresses
        self._buckets: dict[str | int, TokenBucket] = {}

    def __len__(self) -> int:
        return len(self._buckets)

    def check(self, address: str | None, now: float, text: str) -> None:
        """Raise ``Refused`` (429) with ``text`` if ``address`` has to wait. None, which is no network, never has to."""
        bucket = None if address is None else self._buckets.get(address_group(address).key)
        wait = 0.0 if bucket is None else bucket.wait(now)
        if wait > 0:
            raise Refused.busy(text, ErrorCode.TOO_MANY_ATTEMPTS, wait, status=429)

    def charge(self, address: str | None, now: float) -> None:
        """Charge ``address`` one failure. The bucket never falls below minus ``burst`` tokens."""
        if address is None:
            return
        key = address_group(address).key
        bucket = self._buckets.pop(key, None)  # so that the oldest failure is the first entry
        if bucket is None:
            bucket = TokenBucket(self._rate, self._burst)
        if len(self._buckets) >= self._max_addresses:
            del self._buckets[next(iter(self._buckets))]
        bucket.charge(now)
        self._buckets[key] = bucket

    def refund(self, address: str | None, now: float) -> None:
        """Return to ``address`` the cost of one failure."""
        key = None if address is None else address_group(address).key
        if key is not None and key in self._buckets and self._buckets[key].refund(now):
            del self._buckets[key]


class _Threads:
    """Threads of the process for blocking calls of one kind, and the queue of the calls of all servers for them.

    ``limits.PASSWORD_HASHES`` (2) calls run at once. A forked child starts threads of its own.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._start()
        after_fork(self._start)

    def _start(self) -> None:
        self._lock = RLock()  # reentrant: garbage collected while it is held, a coroutine may remove its call
        self._queue: OrderedDict[asyncio.Future[Any], tuple[Future[Any], Callable[[], Any]]] = OrderedDict()
        self._active = 0
        self._executor = ThreadPoolExecutor(max_workers=limits.PASSWORD_HASHES, thread_name_prefix=self._name)

    def submit(self, call: Callable[[], Any]) -> asyncio.Future[Any]:
        """Queue ``call`` for a thread. Return the future of its result."""
        result: Future[Any] = Future()
        work = asyncio.wrap_future(result)
        with self._lock:
            if self._active < limits.PASSWORD_HASHES:
                self._executor.submit(self._run)
                self._active += 1
            self._queue[work] = result, call
        return work

    def remove(self, work: asyncio.Future[Any]) -> bool:
        """Cancel ``work`` and return True, or return False if a thread has begun it."""
        with self._lock:
            result, _ = self._queue.pop(work, (None, None))
        return result is not None and result.cancel()

    def _run(self) -> None:
        while True:
            with self._lock:
                try:
                    _, (result, call) = self._queue.popitem(last=False)
                except KeyError:
                    self._active -= 1
                    return
            if result.set_running_or_notify_cancel():
                try:
                    result.set_result(call())
                except BaseException as exc:
                    result.set_exception(exc)
            del _, result, call  # otherwise the exception refers to itself through the frame in its traceback


#: Threads for room passwords and for ``authorize_room``. A slow authorizer delays no password check of another server.
PASSWORD_THREADS: Final = _Threads("plumews-password")
AUTHORIZER_THREADS: Final = _Threads("plumews-authorizer")


class BlockingPool:
    """Bounded number of checks of one server that run in ``threads`` of the process, or wait for one."""

    def __init__(self, threads: _Threads, size: int) -> None:
        self._threads = threads
        self._size = size
        #: Checks that run or wait. An abandoned one that runs is counted until it ends.
        self.pending: set[asyncio.Future[Any]] = set()

    def check_space(self, text: str) -> None:
        """Raise ``Refused`` (503) with ``text`` if the pool is full."""
        if len(self.pending) >= self._size:
            raise Refused.busy(text, ErrorCode.BUSY)

    def start(self, function: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        """Queue ``function(*args)`` for a thread, in a copy of the current context."""
        return self.track(self._threads.submit(partial(copy_context().run, function, *args)))

    def track(self, work: asyncio.Future[Any]) -> asyncio.Future[Any]:
        """Count ``work`` until it is done. Return it."""
        self.pending.add(work)
        work.add_done_callback(self._finished)
        return work

    def abandon(self, work: asyncio.Future[Any]) -> None:
        """Free the place of ``work`` at once, and never make its call, unless a thread has begun it."""
        if self._threads.remove(work):
            self.pending.discard(work)

    def _finished(self, work: asyncio.Future[Any]) -> None:
        self.pending.discard(work)
        if not work.cancelled():
            work.exception()  # retrieved, or asyncio logs it, and its text may hold a secret


class _Check:
    """Check in progress, with the number of clients that wait for it."""

    __slots__ = ("abandoned", "task", "waiting", "work")

    def __init__(self, task: asyncio.Task[bool], work: asyncio.Future[Any]) -> None:
        self.task = task
        self.work = work
        self.waiting = 0
        self.abandoned = False


class PasswordChecker:
    """Checks of room passwords for the endpoints of one server.

    ``check_room_password`` of the authorizer decides, in a thread or, if it is a coroutine function, on the loop. A
    right password is remembered only if the same class or a subclass defines ``room_password_salt(room)``, bytes that
    change with the password. Otherwise the rules of ``check_room_password`` may depend on more.
    """

    def __init__(
        self,
        authorizer: RoomAuthorizer,
        *,
        attempts: Attempts | None = None,
        queue: int | None = None,
        memory: int = limits.PASSWORD_MEMORY,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._authorizer = authorizer
        self._attempts = Attempts() if attempts is None else attempts
        self._pool = BlockingPool(PASSWORD_THREADS, limits.PASSWORD_QUEUE if queue is None else queue)
        self._memory = memory
        self._clock = clock
        self._context = copy_context()  # a check that several clients share runs in the context of none of them
        self._key = secrets.token_bytes(32)
        self._salt_of = _salt_method(authorizer)
        self._checks: dict[bytes, _Check] = {}
        self._known: dict[bytes, None] = {}

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {len(self._checks)} under way, {len(self._known)} remembered>"

    async def check(self, room: str, password: str | None, address: str | None) -> bool:
        """Return whether ``password`` opens ``room``, for a client with this address.

        Raises:
            Refused: 429 after too many wrong passwords from ``address``, also for the right one, which could be
                guessed otherwise. 503 if too many checks wait. Both have ``Retry-After``. Exceptions of the
                authorizer are raised as well.
        """
        now = self._clock()
        self._attempts.check(address, now, "too many wrong passwords from this address")
        salt = None if self._salt_of is None else self._salt_of(room)
        name = self._digest(room, salt, password)
        if name in self._known:
            self._remember(name)
            return True
        check = self._checks.get(name)
        first = check is None
        if check is None:
            check = self._begin(name, room, password, remember=salt is not None)
            self._attempts.charge(address, now)
        try:
            right = await self._wait(name, check)
        except Exception:
            if first:
                self._attempts.refund(address, self._clock())
            raise
        if first and right:
            self._attempts.refund(address, self._clock())
        elif not first and not right:
            self._attempts.charge(address, self._clock())
        return right

    def _begin(self, name: bytes, room: str, password: str | None, *, remember: bool) -> _Check:
        self._pool.check_space("too many passwords wait to be checked")
        context = self._context.copy()
        ask: Callable[[str, str | None], Any] = self._authorizer.check_room_password
        if is_coroutine_function(ask):
            task = context.run(asyncio.ensure_future, truth_of(ask(room, password)))
            work = self._pool.track(task)
        else:
            work = context.run(self._pool.start, ask, room, password)
            task = context.run(asyncio.ensure_future, truth_of(asyncio.shield(work)))
        check = self._checks[name] = _Check(task, work)

        def done(task: asyncio.Task[bool]) -> None:
            if self._checks.get(name) is check:
                del self._checks[name]
            # The exception is retrieved in any case, or asyncio logs it, and its text may hold a secret.
            right = not task.cancelled() and task.exception() is None and task.result()
            if remember and right:
                self._remember(name)

        task.add_done_callback(done)
        return check

    async def _wait(self, name: bytes, check: _Check) -> bool:
        check.waiting += 1
        try:
            return await asyncio.shield(check.task)
        except asyncio.CancelledError as exc:
            if check.task.cancelled() and not check.abandoned:
                raise RuntimeError("the check of a room password was cancelled") from exc
            raise
        finally:
            check.waiting -= 1
            if not check.waiting and not check.task.done():
                check.abandoned = True
                self._pool.abandon(check.work)  # otherwise it is hashed before the passwords of connected clients
                check.task.cancel()
                self._checks.pop(name, None)

    def _remember(self, name: bytes) -> None:
        self._known.pop(name, None)  # so that the entry unused for longest is the first
        if len(self._known) >= self._memory:
            del self._known[next(iter(self._known))]
        self._known[name] = None

    def _digest(self, room: str, salt: bytes | None, password: str | None) -> bytes:
        """Return a keyed digest of the three. It may be a key of a dict: without the key no collision can be aimed."""
        given = b"none" if password is None else b"=" + password.encode(errors="surrogatepass")
        parts = (room.encode(errors="surrogatepass"), salt or b"", given)
        return hmac.digest(self._key, b"".join(b"%d:%b" % (len(part), part) for part in parts), hashlib.sha256)


async def truth_of(asked: Awaitable[Any]) -> bool:
    """Return the truth of the answer, which may be awaitable itself."""
    answer = await asked
    return bool(await answer if inspect.isawaitable(answer) else answer)


def _salt_method(authorizer: RoomAuthorizer) -> Callable[[str], bytes | None] | None:
    """Return the method for the salt. Return None if a subclass has overridden only ``check_room_password``."""
    salt_of: Callable[[str], bytes | None] | None = getattr(authorizer, "room_password_salt", None)
    names = ("room_password_salt", "check_room_password")
    of_salt, of_check = (
        next((depth for depth, cls in enumerate(type(authorizer).__mro__) if name in vars(cls)), None) for name in names
    )
    if of_salt is None or of_check is None or of_salt > of_check:
        return None
    return salt_of
