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
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Any, Final

from .. import limits
from ..constants import ErrorCode
from ..errors import Refused
from ..rate_limit import TokenBucket, address_group
from ..transport.forks import after_fork
from ..validation import is_coroutine_function
from .interfaces import RoomAuthorizer

__all__ = ["Attempts", "BlockingCall", "BlockingPool", "PasswordChecker"]


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
    """Threads that run blocking calls for the whole process. A forked child starts threads of its own."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        self.executor = ThreadPoolExecutor(max_workers=limits.PASSWORD_HASHES, thread_name_prefix="plumews-check")


_threads: Final = _Threads()
after_fork(_threads.start)


class BlockingCall:
    """Call of a function that may block, queued for a thread."""

    __slots__ = ("_call", "_work")

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call: Callable[[], Any] | None = call
        self._work = asyncio.wrap_future(_threads.executor.submit(copy_context().run, self._run))

    def _run(self) -> Any:
        call = self._call
        return None if call is None else call()

    def add_done_callback(self, callback: Callable[[asyncio.Future[Any]], object]) -> None:
        """Call ``callback`` on the event loop when a thread has made or skipped the call."""
        self._work.add_done_callback(callback)

    async def answer(self) -> bool:
        """Return the truth of the result. A cancelled caller leaves the call in the queue of the threads."""
        return await _truth_of(asyncio.shield(self._work))

    def abandon(self) -> None:
        """Have the threads skip the call, unless one has begun it. It keeps its place until a thread reaches it."""
        self._call = None


class BlockingPool:
    """Bounded number of blocking checks of one server that run and wait, in threads of the process.

    All servers of a process together run ``limits.PASSWORD_HASHES`` (2) blocking checks at once.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        #: Checks that run or wait, with abandoned ones that no thread has reached yet.
        self.pending = 0

    def check_space(self, text: str) -> None:
        """Raise ``Refused`` (503) with ``text`` if the pool is full."""
        if self.pending >= self._size:
            raise Refused.busy(text, ErrorCode.BUSY)

    def start(self, function: Callable[..., Any], *args: Any) -> BlockingCall:
        """Queue ``function(*args)`` for a thread, in a copy of the current context."""
        call = BlockingCall(partial(function, *args))
        self.track(call)
        return call

    def track(self, work: BlockingCall | asyncio.Future[bool]) -> None:
        """Count ``work`` until it is done."""
        self.pending += 1
        work.add_done_callback(self._finished)

    def _finished(self, work: asyncio.Future[Any]) -> None:
        self.pending -= 1
        if not work.cancelled():
            work.exception()  # retrieved, or asyncio logs it, and its text may hold a secret


class _Check:
    """Check in progress, with the number of clients that wait for it."""

    __slots__ = ("abandoned", "call", "task", "waiting")

    def __init__(self, task: asyncio.Task[bool], call: BlockingCall | None) -> None:
        self.task = task
        self.call = call
        self.waiting = 0
        self.abandoned = False

    def abandon(self) -> None:
        """Cancel the check, because no client waits for it any more."""
        self.abandoned = True
        if self.call is not None:
            self.call.abandon()
        self.task.cancel()


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
        #: Blocking checks of the server. An ``authorize_room`` that is a plain function runs here, too.
        self.pool = BlockingPool(limits.PASSWORD_QUEUE if queue is None else queue)
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
        self.pool.check_space("too many passwords wait to be checked")
        context = self._context.copy()
        ask: Callable[[str, str | None], Any] = self._authorizer.check_room_password
        if is_coroutine_function(ask):
            call, answer = None, _truth_of(ask(room, password))
        else:
            call = context.run(self.pool.start, ask, room, password)
            answer = call.answer()
        task: asyncio.Task[bool] = context.run(asyncio.ensure_future, answer)
        if call is None:
            self.pool.track(task)
        check = self._checks[name] = _Check(task, call)

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
                check.abandon()  # otherwise it is hashed before the passwords of connected clients
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


async def _truth_of(asked: Awaitable[Any]) -> bool:
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
