"""Graceful close of many connections in bounded time, spread so that clients do not all come back in the same second.

Each connection gets its close frame behind its queued messages. It is cut at the time limit, or after its own close
timeout. Connections are closed in random order, a slice at a time. Invariants: no step holds the loop for long. No
connection is left after the limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from .. import limits
from ..constants import CloseCode
from ..protocol.state import check_close
from ..transport.loop_context import loop_context
from ..transport.safe_calls import call_safely
from ..transport.timers import Deadline, TimeSlice
from ..validation import check_time
from .connection import Conn

__all__ = ["GracefulClose", "GracefulShutdown", "ShutdownReport", "TimeBudget", "check_graceful_close"]

#: Connections between two checks of the clock.
_STRIDE = 16

#: Seconds between two groups of connections that are closed.
_CLOSE_SLICE = 0.02


def check_graceful_close(
    timeout: float, spread: float | None, reconnect_in: float, *, code: int = CloseCode.GOING_AWAY, reason: str = ""
) -> None:
    """Raise ``ValueError`` or ``TypeError`` for wrong arguments of a :class:`GracefulClose`."""
    check_close(code, reason)
    check_time("timeout", timeout, zero=True)
    if spread is not None:
        check_time("spread", spread, zero=True)
        if spread > timeout:
            raise ValueError(f"spread ({spread:g} s) must not be more than the timeout ({timeout:g} s)")
    check_time("reconnect_in", reconnect_in, zero=True)
    if reconnect_in > limits.LONGEST_RECONNECT:
        raise ValueError(f"reconnect_in must be at most {limits.LONGEST_RECONNECT:g} seconds, not {reconnect_in:g}")
    check_close(code, _with_hint(reason, reconnect_in, limits.LONGEST_RECONNECT))


@dataclass(frozen=True)
class ShutdownReport:
    """Result of a hub's shutdown, for the members at its beginning.

    Attributes:
        closed: members whose closing handshake was completed.
        aborted: members without one: cut at the limit, or gone by themselves.
        delivered_messages: messages that were queued at the beginning and have left for the network, in send queues and
            in broadcasts that had not reached the member.
        delivered_bytes: the bytes of their frames.
        undelivered_messages: messages that were queued at the beginning and have not left, because the member was cut,
            gone, or had no space.
        undelivered_bytes: the bytes of their frames; uncompressed for broadcasts that had not reached the member.
    """

    closed: int = 0
    aborted: int = 0
    delivered_messages: int = 0
    delivered_bytes: int = 0
    undelivered_messages: int = 0
    undelivered_bytes: int = 0


class GracefulShutdown(Protocol):
    """Owner of connections that closes them itself before its server stops, such as a hub."""

    async def shutdown(self, timeout: float, *, spread: float | None, reconnect_in: float) -> ShutdownReport:
        """Close the connections within ``timeout`` seconds, and return the counts of their messages."""


class TimeBudget:
    """Time that several owners of an end share: the shortest limit counts, and no call extends it.

    It begins now, on the running loop. :meth:`end` it as soon as nothing waits for it.
    """

    def __init__(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._timers = loop_context(loop).timers
        self._over: asyncio.Future[None] = loop.create_future()
        self._deadline: Deadline | None = None
        self._when = self._timers.time() + seconds
        self._arm(seconds)

    @property
    def over(self) -> bool:
        """True once the limit is reached."""
        return self._over.done()

    @property
    def left(self) -> float:
        """Seconds until the limit."""
        return 0.0 if self.over else max(0.0, self._when - self._timers.time())

    def hasten(self, seconds: float) -> None:
        """End the budget ``seconds`` from now, unless it ends before that."""
        if not self.over and self._timers.time() + seconds < self._when:
            self._when = self._timers.time() + seconds
            self._arm(seconds)

    def end(self) -> None:
        """Cancel the limit: it is never reached."""
        if self._deadline is not None:
            self._deadline.cancel()

    async def pause(self, seconds: float) -> None:
        """Wait for ``seconds``, or until the limit."""
        if not self.over:
            await asyncio.wait([self._over], timeout=seconds)

    async def bound(self, work: Coroutine[Any, Any, object], seconds: float | None = None) -> bool:
        """Run ``work`` until the limit, and for ``seconds`` at most; return whether it is done."""
        if self.over:
            work.close()
            return False
        task = asyncio.ensure_future(work)
        ends: list[asyncio.Future[Any]] = [task, self._over]
        try:
            await asyncio.wait(ends, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
                return True
            return False
        finally:
            if not task.done():
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    def _arm(self, seconds: float) -> None:
        self.end()
        if seconds <= 0:
            self._over.set_result(None)
        else:
            self._deadline = self._timers.at(self._when, lambda: self._over.set_result(None))


class GracefulClose:
    """Close frames for many connections, and the wait for their ends, which are cut at ``limit``.

    ``spread`` and ``reconnect_in`` are those of :meth:`plumews.Hub.shutdown`. ``wanted`` is called before a connection
    is closed, and leaves it open with False.
    """

    def __init__(
        self,
        limit: TimeBudget,
        *,
        code: int = CloseCode.GOING_AWAY,
        reason: str = "",
        spread: float | None = None,
        reconnect_in: float = 0.0,
        wanted: Callable[[Conn], bool] = lambda conn: True,
    ) -> None:
        self._limit = limit
        self._code = code
        self._reason = reason
        self._spread = spread
        self._most = limit.left * limits.SPREAD_SHARE
        self._reconnect_in = reconnect_in
        self._wanted = wanted
        self._told: list[Conn] = []
        self._open: set[Conn] = set()
        self._empty: asyncio.Future[None] | None = None

    async def close(self, conns: Iterable[Conn], *, at_once: bool = False) -> None:
        """Send the close frames, one slice after the other, or with ``at_once`` without a pause."""
        order = list(conns)
        random.shuffle(order)  # clients of one place that came together do not leave together
        spread = self._spread
        if spread is None:
            spread = min(self._most, len(order) / limits.CLOSES_PER_SECOND)
        slices = 1 if at_once else max(1, min(len(order), math.ceil(spread / _CLOSE_SLICE)))
        for number in range(slices):
            if number:
                await self._limit.pause(spread / slices * random.uniform(0.5, 1.5))  # noqa: S311 - no secret
            await self._each(order[number * len(order) // slices : (number + 1) * len(order) // slices], self._begin)

    async def ended(self) -> None:
        """Wait until all are gone. At the limit the rest is cut."""
        if self._open:
            self._empty = asyncio.get_running_loop().create_future()
            await self._limit.bound(asyncio.wait([self._empty]))
            await self._each(list(self._open), lambda conn: conn.abort())
            if self._open:
                await asyncio.wait([self._empty], timeout=limits.END_GRACE)

    @property
    def aborted(self) -> int:
        """Number of connections that ended without a closing handshake: cut, or gone by themselves."""
        return sum(conn.close_code == CloseCode.ABNORMAL_CLOSURE for conn in self._told)

    @property
    def closed(self) -> int:
        """Number of connections that ended with a closing handshake."""
        return len(self._told) - len(self._open) - self.aborted

    # --- inside -----------------------------------------------------------------------------------

    async def _each(self, conns: Sequence[Conn], do: Callable[[Conn], object]) -> None:
        """Call ``do`` with each connection, in time slices."""
        time_slice = TimeSlice(_STRIDE)
        for conn in conns:
            call_safely("closing a connection", do, conn)
            if time_slice.is_over():
                await asyncio.sleep(0)
                time_slice = TimeSlice(_STRIDE)

    def _begin(self, conn: Conn) -> None:
        if not self._wanted(conn):
            return
        self._told.append(conn)
        self._open.add(conn)
        conn.add_close_callback(self._gone)
        hint = random.uniform(0, self._reconnect_in)  # noqa: S311 - no secret
        conn.close_nowait(self._code, _with_hint(self._reason, self._reconnect_in, hint))

    def _gone(self, conn: Conn) -> None:
        self._open.discard(conn)
        if not self._open and self._empty is not None:
            self._empty.set_result(None)


def _with_hint(reason: str, reconnect_in: float, hint: float) -> str:
    if not reconnect_in:
        return reason
    told = f"reconnect in {hint:.1f} s"
    return f"{reason}; {told}" if reason else told
