"""Room passwords at the door: each hashed once, off the event loop, and not for whoever guesses (layer 5).

Invariants: `limits.PASSWORD_HASHES` are hashed at once in the process, and a bounded number waits; many who come with
the same room and password wait for one hash, which ends when the last of them has gone; only what was right is
remembered, as a digest under a key of this object, over the salt of the password, so that a new password has nothing
remembered; an address pays for each wrong password before it knows that it was wrong.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import inspect
import secrets
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, Final

from .. import limits
from ..constants import ErrorCode
from ..errors import Refused
from ..transport.forks import after_fork
from ..validation import is_coroutine_function
from .attempts import Attempts
from .interfaces import RoomAuthorizer

__all__ = ["PasswordChecker"]


class _Hashers:
    """Threads that hash, for the whole process. A child of a fork has its own: those of its parent are not there."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        self.pool = ThreadPoolExecutor(max_workers=limits.PASSWORD_HASHES, thread_name_prefix="plumews-password")


_hashers: Final = _Hashers()
after_fork(_hashers.renew)


class _Check:
    """One check under way, and how many wait for it."""

    __slots__ = ("abandoned", "task", "waiting", "work")

    def __init__(self, task: asyncio.Task[bool], work: Future[Any] | None) -> None:
        self.task = task
        self.work = work
        self.waiting = 0
        self.abandoned = False

    def abandon(self) -> None:
        """Nobody waits any more: what has not begun is not to be, from this very moment."""
        self.abandoned = True
        if self.work is not None:
            self.work.cancel()
        self.task.cancel()


class PasswordChecker:
    """Checks room passwords for the doors of one event loop.

    Args:
        authorizer: whose ``check_room_password`` decides: in a thread, or awaited where it is ``async def``. What it
            found right is remembered only if it has ``room_password_salt(room)`` as well, which has to change with
            the password, in the same class or a subclass: rules that only ``check_room_password`` knows are asked
            each time.
        attempts: what addresses have guessed wrong (default: the bounds of ``limits``).
        queue: how many checks may run and wait (default ``limits.PASSWORD_QUEUE``).
        memory: how many right passwords are remembered (default ``limits.PASSWORD_MEMORY``).
        clock: seconds that never go back.
    """

    def __init__(
        self,
        authorizer: RoomAuthorizer,
        *,
        attempts: Attempts | None = None,
        queue: int = limits.PASSWORD_QUEUE,
        memory: int = limits.PASSWORD_MEMORY,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._authorizer = authorizer
        self._attempts = Attempts() if attempts is None else attempts
        self._queue = queue
        self._memory = memory
        self._clock = clock
        self._context = copy_context()  # many may wait for one check: it is in the context of none of them
        self._key = secrets.token_bytes(32)
        self._salt_of = _salt_of(authorizer)
        self._checks: dict[bytes, _Check] = {}
        self._right: dict[bytes, None] = {}

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {len(self._checks)} under way, {len(self._right)} remembered>"

    async def check(self, room: str, password: str | None, address: str | None) -> bool:
        """Whether ``password`` (``None``: none) opens ``room``, asked from ``address`` (``None``: not from a network).

        Raises ``Refused``: 429 where that address has had too many wrong ones, also for the right one, or it could
        be found by asking; 503 where too many wait. Both say when to come back. What the authorizer raises passes.
        """
        now = self._clock()
        wait = self._attempts.retry_after(address, now)
        if wait > 0:
            text = "too many wrong passwords from this address"
            raise Refused.busy(text, ErrorCode.TOO_MANY_ATTEMPTS, wait, status=429)
        salt = None if self._salt_of is None else self._salt_of(room)
        name = self._digest(room, salt, password)
        if name in self._right:
            self._remember(name)
            return True
        check = self._checks.get(name)
        first = check is None
        if check is None:
            check = self._begin(name, room, password, remember=salt is not None)
            self._attempts.failed(address, now)  # until it is known: guesses that come at once are guesses
        right = True
        try:
            right = await self._wait(name, check)
        except Exception:
            if first:
                self._attempts.forgive(address, self._clock())
            raise
        if first and right:
            self._attempts.forgive(address, self._clock())
        elif not first and not right:
            self._attempts.failed(address, self._clock())
        return right

    def _begin(self, name: bytes, room: str, password: str | None, *, remember: bool) -> _Check:
        if len(self._checks) >= self._queue:
            raise Refused.busy("too many passwords wait to be checked", ErrorCode.BUSY)
        ask: Callable[[str, str | None], Any] = self._authorizer.check_room_password
        if is_coroutine_function(ask):
            asked, work = ask(room, password), None
        else:
            work = _hashers.pool.submit(self._context.copy().run, ask, room, password)
            asked = asyncio.wrap_future(work)
        check = _Check(self._context.copy().run(asyncio.ensure_future, _answer(asked)), work)
        self._checks[name] = check

        def done(task: asyncio.Task[bool]) -> None:
            if self._checks.get(name) is check:
                del self._checks[name]
            # Looked at in any case: what nobody asks for, asyncio's log would tell with all that stands in it.
            right = not task.cancelled() and task.exception() is None and task.result()
            if remember and right:
                self._remember(name)

        check.task.add_done_callback(done)
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
                check.abandon()  # or it would be hashed before those of who is there
                self._checks.pop(name, None)

    def _remember(self, name: bytes) -> None:
        self._right.pop(name, None)  # so that the first of the dict is the one unused for longest
        if len(self._right) >= self._memory:
            del self._right[next(iter(self._right))]
        self._right[name] = None

    def _digest(self, room: str, salt: bytes | None, password: str | None) -> bytes:
        """What stands for the three. It may be looked up in a dict: who does not know the key cannot aim at it."""
        given = b"none" if password is None else b"=" + password.encode(errors="surrogatepass")
        parts = (room.encode(errors="surrogatepass"), salt or b"", given)
        return hmac.digest(self._key, b"".join(b"%d:%b" % (len(part), part) for part in parts), hashlib.sha256)


async def _answer(asked: Awaitable[Any]) -> bool:
    """What was answered; by a plain function that hands out an awaitable, too."""
    answer = await asked
    return bool(await answer if inspect.isawaitable(answer) else answer)


def _salt_of(authorizer: RoomAuthorizer) -> Callable[[str], bytes | None] | None:
    """The method that says when a password changes; ``None`` if the check was made by somebody who may not know it."""
    salt_of: Callable[[str], bytes | None] | None = getattr(authorizer, "room_password_salt", None)
    names = ("room_password_salt", "check_room_password")
    of_salt, of_check = (
        next((depth for depth, cls in enumerate(type(authorizer).__mro__) if name in vars(cls)), None) for name in names
    )
    if of_salt is None or of_check is None or of_salt > of_check:
        return None
    return salt_of
