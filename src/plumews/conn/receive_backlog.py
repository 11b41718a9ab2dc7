"""Backlog of a connection: events and unparsed bytes that one read leaves over for later.

Functions that take the connection. They run for a read of more messages than the parser returns at once, for one that
stops at a violation, a full receive queue or the end of its time slice, and for bytes that come within a callback.

Invariants: what came first is handled first. Nothing is parsed while the handler has enough messages.
"""

from __future__ import annotations

from contextvars import Context
from time import monotonic
from typing import TYPE_CHECKING, Any

from . import closing

if TYPE_CHECKING:
    from .core import ConnCore

__all__ = ["continue_read", "halted", "keep", "next_events", "postpone", "receive"]


# --- bytes that are not parsed --------------------------------------------------------------------


def halted(conn: ConnCore, data: memoryview) -> None:
    """Keep the rest of ``data``, where the parser stopped at a violation or at too many events."""
    conn._rules.error = conn._parser.error
    left = conn._parser.left
    if left:
        conn._rest = memoryview(bytes(data[len(data) - left :]))


def keep(conn: ConnCore, data: memoryview) -> None:
    """Keep the bytes of a read that came within a callback, or although the transport was paused."""
    if conn._in_batch:
        conn._later = (conn._later or b"") + bytes(data)  # what is left of the outer read comes before
    elif not conn._ended:
        conn._rest = memoryview(bytes(conn._rest or b"") + bytes(data))


def receive(conn: ConnCore, data: bytes) -> None:
    """Handle bytes that the transport did not read into the buffer, as one read."""
    try:
        if not conn._ended:
            events = conn._parser.feed_messages(data)
            if conn._parser.halted:
                halted(conn, memoryview(data))
            conn._take_up(events)
    except BaseException as exc:
        closing.fail(conn, exc)


# --- the next events ------------------------------------------------------------------------------


def next_events(conn: ConnCore) -> list[Any]:
    """Return the events that were left over, or those in the next part of the unparsed bytes."""
    events, conn._backlog = conn._backlog, None
    if events:
        return events
    rest, conn._rest = conn._rest, None
    if rest is None:
        return []
    events = conn._parser.feed_messages(rest)
    conn._rules.error = conn._parser.error
    left = conn._parser.left
    if left:
        conn._rest = rest[len(rest) - left :]
    return events


def continue_read(conn: ConnCore) -> list[Any] | None:
    """Return the next events of the read that is being handled. ``None`` if they have to wait, or without any.

    Before that a violation of the peer is handled, and the reader is resumed.
    """
    if conn._backlog is None and conn._rest is None and conn._rules.error is not None and not conn._ended:
        closing.peer_ended(conn)
    conn._inbox.wake_now()  # the reader's replies leave with this read
    if (conn._backlog is None and conn._rest is None) or not _goes_on(conn):
        return None
    conn._flush()
    return next_events(conn)


def _goes_on(conn: ConnCore) -> bool:
    """Return whether events that are left over can be handled in this iteration of the loop."""
    if conn._on_message is not None:
        return conn._backlog is None and monotonic() < conn._until
    if conn._backlog is not None and not conn._blocked:
        return False  # it waits to be inflated
    conn._blocked = _has_enough(conn)
    if conn._blocked and conn._end_waiters > 0 and not conn._inbox.touched:
        closing.look_ahead(conn)
    return not conn._blocked


def _has_enough(conn: ConnCore) -> bool:
    """Return whether the handler has to read before it gets more messages."""
    if conn._on_message is not None or not conn._open:
        return False
    stream = conn._stream or conn._incoming
    held = 0 if stream is None or stream.awaited else stream.held
    return conn._inbox.is_full(held)


def postpone(conn: ConnCore) -> None:
    """Handle what a read has left over in a later iteration of the loop, unless the handler has to read before."""
    later, conn._later = conn._later, None
    if later is not None and not conn._ended:
        conn._rest = memoryview(later if conn._rest is None else bytes(conn._rest) + later)
    held = conn._backlog is not None or conn._rest is not None
    if held and not conn._blocked and (conn._inflate is None or not conn._inflate.waits_for):
        conn._loop.call_soon(conn._go_on, context=Context())
