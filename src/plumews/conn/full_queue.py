"""Full send queue of one connection: waiting for space, displaced messages, and the end of a peer that reads nothing.

The overflow policy of the connection decides, and calls the parts that stand here. Hubs are told of messages that were
displaced, and may queue a frame before the peer receives anything again.

Invariants: each lost message is counted once. A peer that reads nothing after the close is disconnected after
``limits.EVICT_TIMEOUT``.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Hashable
from contextvars import Context
from typing import Any, Protocol

from .. import limits
from ..constants import CloseCode, State
from ..errors import SendTimeout
from ..protocol.message import EncodedMessage
from ..transport.timers import Deadline
from .closing import guarded
from .config import ConnConfig
from .receiver import Receiving

__all__ = ["Overflowing"]


class LossReporter(Protocol):
    """Hub with a loss report for a peer."""

    def report_losses(self, conn: Any) -> None:
        """Queue the report: the peer reads again."""

    def report_last_losses(self, conn: Any, *, delivered: bool) -> None:
        """Queue the report before the close frame. Without ``delivered`` no frame leaves any more."""


class Overflowing(Receiving):
    """Full send queue of :class:`plumews.Conn`."""

    __slots__ = ("_evict_deadline", "_loss_watchers", "_reporters")

    def __init__(self, config: ConnConfig, *, client: bool = False) -> None:
        super().__init__(config, client=client)
        self._evict_deadline: Deadline | None = None
        #: Hubs with a loss report, which leaves before any other frame.
        self._reporters: list[LossReporter] | None = None
        #: Callbacks of hubs for displaced messages, and whether the hub reports them to the peer.
        self._loss_watchers: list[tuple[Callable[[Any, int, bool], None], bool]] | None = None

    # --- a message of the application -------------------------------------------------------------

    async def _wait_for_space(self, message: EncodedMessage | None) -> None:
        timeout = self._config.send_timeout
        outcome: asyncio.Future[bool | None] = self._loop.create_future()

        def done(accepted: bool | None) -> None:
            if not outcome.done():
                outcome.set_result(accepted)
            elif accepted and message is None:
                self._writer.in_pieces = False  # its sender was cancelled: the next in line begins

        def give_up() -> None:
            if self._writer.withdraw(waiter):
                done(None)

        waiter = self._writer.wait(message, done)
        deadline = None
        try:
            if timeout is not None:
                deadline = self._state.timers.after(timeout, lambda: self._guard(give_up))
            accepted = await outcome
        except BaseException:
            begun = message is None and outcome.done() and not outcome.cancelled() and outcome.result()
            if not self._writer.withdraw(waiter) and begun and self._writer.in_pieces:
                self._writer.end_pieces()
            raise
        finally:
            if deadline is not None:
                deadline.cancel()
        if accepted is None:
            self._writer.dropped += 1
            raise SendTimeout(f"the send queue had no space for {timeout:g} s")
        if not accepted:
            raise self._closed_error()

    # --- displaced messages -----------------------------------------------------------------------

    def _displace(self, message: EncodedMessage) -> bool:
        """Queue ``message`` in the place of the oldest ones. Return False if it cannot be queued now."""
        return self._count_displaced(self._writer.displace(message))

    def _conflate(self, message: EncodedMessage, key: Hashable) -> bool:
        """Queue ``message`` in the place of the one with ``key``, else as :meth:`_displace` does."""
        return self._count_displaced(self._writer.conflate(message, key))

    def _count_displaced(self, count: int) -> bool:
        """Count displaced messages and call the watchers. Return False for -1, if none could be displaced."""
        if count > 0:
            self._writer.dropped += count
            told = False
            for watcher, tells in self._loss_watchers or ():
                watcher(self, count, tells and not told)
                told = told or tells
        return count >= 0

    def _never_left(self) -> tuple[int, int]:
        """Return the number and the bytes of queued messages that never leave: displaced, or given up at the end."""
        writer, (messages, size) = self._writer, self._lost
        return messages + writer.evicted + writer.replaced, size + writer.displaced_bytes

    def _watch_losses(self, watcher: Callable[[Any, int, bool], None], tells: bool) -> None:
        """Call ``watcher(conn, count, mine)`` for displaced messages. ``mine`` is True for the first reporting hub."""
        if self._loss_watchers is None:
            self._loss_watchers = []
        if (watcher, tells) not in self._loss_watchers:
            self._loss_watchers.append((watcher, tells))

    def _unwatch_losses(self, watcher: Callable[[Any, int, bool], None]) -> None:
        if self._loss_watchers is not None:
            self._loss_watchers = [each for each in self._loss_watchers if each[0] != watcher]

    # --- loss reports -----------------------------------------------------------------------------

    def _report_later(self, reporter: LossReporter) -> None:
        """Let a hub report losses before the next frame leaves, or at the end of the connection."""
        if self._reporters is None:
            self._reporters = []
        if reporter not in self._reporters:
            self._reporters.append(reporter)

    def _report_losses(self) -> None:
        reporters, self._reporters = self._reporters, None
        for reporter in reporters or ():
            reporter.report_losses(self)

    def _report_last_losses(self, *, delivered: bool) -> None:
        reporters, self._reporters = self._reporters, None
        for reporter in reporters or ():
            reporter.report_last_losses(self, delivered=delivered)
        self._reporters = None  # losses of the reports themselves are part of them

    @guarded
    def _report_and_resume(self) -> None:
        if self._transport is not None:
            self._report_losses()
            self._writer.resume()

    @guarded
    def _may_write(self) -> None:
        if self._reporters is None:
            self._writer.resume()
        else:  # encode_gap of the application may end the connection: not inside the call of the transport
            self._loop.call_soon(self._report_and_resume, context=Context())

    # --- the end ----------------------------------------------------------------------------------

    def _evict(self) -> None:
        """Close with 1013 and drop the queued messages. The connection is cut soon if the peer reads nothing."""
        if self._rules.state is State.OPEN:
            self._begin_close(CloseCode.TRY_AGAIN_LATER, "send queue full", discard=True)
            self._expect_drain(-math.inf)

    def _expect_drain(self, before: float) -> None:
        """Cut the connection if the peer has acknowledged no byte since the last look, which found ``before``."""
        progress = self._progress()
        if progress is None:  # the socket does not tell: use the bytes that the kernel has taken
            size = self._ask_transport("get_write_buffer_size") or 0
            progress = -size, size
        acknowledged, waiting = progress
        if waiting and acknowledged <= before:
            self._abort()
        elif waiting:
            self._evict_deadline = self._state.timers.after(
                limits.EVICT_TIMEOUT, lambda: self._guard(self._expect_drain, acknowledged)
            )

    def connection_lost(self, exc: Exception | None) -> None:
        if self._evict_deadline is not None:
            self._evict_deadline.cancel()
        self._evict_deadline = None
        self._guard(lambda: self._report_last_losses(delivered=False))
        super().connection_lost(exc)
        self._reporters = self._loss_watchers = None
