"""Full send queue of one connection: waiting for space, displaced messages, and the end of a peer that reads nothing.

Functions that take the connection. Its overflow policy decides, and calls them. Hubs are told of messages that were
displaced, and may queue a frame before the peer receives anything again.

Invariants: each lost message is counted once. A peer that reads nothing after the close is disconnected after
``limits.EVICT_TIMEOUT``.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Hashable
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from .. import limits
from ..constants import CloseCode, State
from ..errors import SendTimeout
from ..protocol.message import EncodedMessage
from ..transport import displacing, waiters
from .closing import abort, ask, begin_close, guard, progress

if TYPE_CHECKING:
    from ..transport.channel import Channel
    from ..transport.send_queue import Note
    from .core import ConnCore

__all__ = [
    "LossReporter",
    "add_note",
    "catch_up_with",
    "conflate",
    "count_displaced",
    "displace",
    "drain",
    "evict",
    "give_way",
    "may_write",
    "never_left",
    "report_later",
    "report_losses",
    "take_note",
    "takes_note",
    "unwatch_losses",
    "wait_for_space",
    "watch_losses",
]


class LossReporter(Protocol):
    """Hub with a loss report for a peer."""

    def report_losses(self, conn: Any) -> None:
        """Queue the report: the peer reads again."""

    def report_last_losses(self, conn: Any, *, delivered: bool) -> None:
        """Queue the report before the close frame. Without ``delivered`` no frame leaves any more."""


# --- a sender that waits --------------------------------------------------------------------------


async def wait_for_space(conn: ConnCore, message: EncodedMessage | None) -> None:
    """Wait until ``message`` is queued; without one, until a message in pieces may begin."""
    timeout = conn._config.send_timeout
    outcome: asyncio.Future[bool | None] = conn._loop.create_future()

    def done(accepted: bool | None) -> None:
        if not outcome.done():
            outcome.set_result(accepted)
        elif accepted and message is None:
            conn._in_pieces = False  # its sender was cancelled: the next in line begins

    def give_up() -> None:
        if waiters.withdraw(conn, waiter):
            done(None)

    waiter = waiters.add(conn, message, done)
    deadline = None
    try:
        if timeout is not None:
            deadline = conn._state.timers.after(timeout, partial(guard, conn, give_up))
        accepted = await outcome
    except BaseException:
        begun = message is None and outcome.done() and not outcome.cancelled() and outcome.result()
        if not waiters.withdraw(conn, waiter) and begun and conn._in_pieces:
            conn._end_pieces()
        raise
    finally:
        if deadline is not None:
            deadline.cancel()
    if accepted is None:
        conn._dropped += 1
        raise SendTimeout(f"the send queue had no space for {timeout:g} s")
    if not accepted:
        raise conn._rules.closed()


async def drain(conn: ConnCore) -> None:
    """Wait until all queued messages have left for the peer."""
    conn._flush()
    left: asyncio.Future[bool] = conn._loop.create_future()
    conn._when_empty(lambda good: None if left.done() else left.set_result(good))
    good = await left
    await give_way(conn)
    if not good:
        raise conn._rules.closed()


async def give_way(conn: ConnCore) -> None:
    """Suspend if this task, or others that do not suspend, have used up the time slice of the loop."""
    pause = conn._state.count_await()
    if pause is not None:
        await pause


# --- messages that a direct send must not overtake ------------------------------------------------


def catch_up_with(conn: ConnCore, hook: Callable[[Any], None]) -> None:
    """Call ``hook(conn)`` in the next :meth:`ConnCore._catch_up`."""
    if conn._catch_up_hooks is None:
        conn._catch_up_hooks = []
    if hook not in conn._catch_up_hooks:
        conn._catch_up_hooks.append(hook)


# --- displaced messages ---------------------------------------------------------------------------


def displace(conn: ConnCore, message: EncodedMessage) -> bool:
    """Queue ``message`` in the place of the oldest ones. Return False if none of them can go."""
    return count_displaced(conn, displacing.displace(conn, message))


def conflate(conn: ConnCore, message: EncodedMessage, key: Hashable) -> bool:
    """Queue ``message`` in the place of the one with ``key``, else as :func:`displace` does."""
    return count_displaced(conn, displacing.conflate(conn, message, key))


def count_displaced(conn: ConnCore, count: int) -> bool:
    """Count displaced messages and call the watchers. Return False for -1, if none could be displaced."""
    if count > 0:
        conn._dropped += count
        told = False
        for watcher, tells in conn._loss_watchers or ():
            watcher(conn, count, tells and not told)
            told = told or tells
    return count >= 0


def never_left(conn: ConnCore) -> tuple[int, int]:
    """Return the number and the bytes of queued messages that never leave: displaced, or given up at the end."""
    messages, size = conn._lost
    return messages + conn._evicted + conn._replaced, size + conn._displaced_bytes


def watch_losses(conn: ConnCore, watcher: Callable[[Any, int, bool], None], tells: bool) -> None:
    """Call ``watcher(conn, count, mine)`` for displaced messages. ``mine`` is True for the first reporting hub."""
    if conn._loss_watchers is None:
        conn._loss_watchers = []
    if (watcher, tells) not in conn._loss_watchers:
        conn._loss_watchers.append((watcher, tells))


def unwatch_losses(conn: ConnCore, watcher: Callable[[Any, int, bool], None]) -> None:
    """Do not call ``watcher`` any more."""
    if conn._loss_watchers is not None:
        conn._loss_watchers = [each for each in conn._loss_watchers if each[0] != watcher]


# --- loss reports ---------------------------------------------------------------------------------


def takes_note(conn: Channel, *, first: bool) -> bool:
    """Return True if :func:`add_note` would put a loss report between two messages."""
    return not conn._in_pieces or (first and conn._queue is not None and conn._queue.begins_whole())


def add_note(conn: Channel, note: Note, *, first: bool) -> None:
    """Queue a loss report, beyond the bounds: in front of all queued messages, or behind them."""
    queue = conn._fill()
    queue.add_note(note, first=first)
    if conn._paused:
        queue.date()


def take_note(conn: Channel, note: Note, *, last: bool) -> bool:
    """Remove a queued loss report; with ``last`` only if it is the last entry. Return True if it was removed."""
    taken = conn._queue is not None and conn._queue.take_note(note, last=last)
    if taken:
        conn._return_queue()
    return taken


def report_later(conn: ConnCore, reporter: LossReporter) -> None:
    """Let a hub report losses before the next frame leaves, or at the end of the connection."""
    if conn._reporters is None:
        conn._reporters = []
    if reporter not in conn._reporters:
        conn._reporters.append(reporter)


def report_losses(conn: ConnCore) -> None:
    """Let the hubs of :func:`report_later` report losses now."""
    reporters, conn._reporters = conn._reporters, None
    for reporter in reporters or ():
        reporter.report_losses(conn)


def may_write(conn: ConnCore) -> None:
    """Resume the output, behind the loss reports. A failure ends the connection."""
    guard(conn, _resume, conn)


def _resume(conn: ConnCore) -> None:
    if conn._reporters is None:
        conn._resume_output()
    else:  # encode_gap of the application may end the connection: not inside the call of the transport
        conn._loop.call_soon(guard, conn, _report_and_resume, conn, context=Context())


def _report_and_resume(conn: ConnCore) -> None:
    if conn._transport is not None:
        report_losses(conn)
        conn._resume_output()


# --- a peer that reads nothing --------------------------------------------------------------------


def evict(conn: ConnCore) -> None:
    """Close with 1013 and drop the queued messages. The connection is cut soon if the peer reads nothing."""
    if conn._rules.state is State.OPEN:
        begin_close(conn, CloseCode.TRY_AGAIN_LATER, "send queue full", discard=True)
        _expect_drain(conn, -math.inf)


def _expect_drain(conn: ConnCore, before: float) -> None:
    """Cut the connection if the peer has acknowledged no byte since the last look, which found ``before``."""
    acknowledged, waiting = progress(conn) or (None, 0)
    if acknowledged is None:  # the socket does not tell: use the bytes that the kernel has taken
        waiting = ask(conn, "get_write_buffer_size") or 0
        acknowledged = -waiting
    if waiting and acknowledged <= before:
        abort(conn)
    elif waiting:
        conn._evict_deadline = conn._state.timers.after(
            limits.EVICT_TIMEOUT, partial(guard, conn, _expect_drain, conn, acknowledged)
        )
