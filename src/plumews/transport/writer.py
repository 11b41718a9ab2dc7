"""Acceptance of messages into the send queue of a connection, and the time of their write: one write per flush.

`send_queue` keeps the order, and `socket_writer` writes to the socket. The caller has the policy for a full queue,
which :meth:`Writer.offer` and :meth:`Writer.wait` report.

Invariants: waiting senders are served in order. Nothing is written after the close frame. Nothing is written while the
transport asks to wait, except for a last frame. A flush never raises: any failure, such as a lack of memory, ends this
connection. An exception before a message is accepted changes nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from .. import limits
from ..protocol.message import EncodedMessage
from .displacing_queue import DONE, STALE
from .loop_context import LoopContext
from .socket_writer import SocketWriter

__all__ = ["Waiter", "Writer"]

_FREE = limits.QUEUED_FREE


class Waiter:
    """Message that waits for space in the queue.

    ``done(accepted)`` is called once, unless the waiter is withdrawn. With ``None`` for the message it waits to begin a
    message in fragments.
    """

    __slots__ = ("done", "message")

    def __init__(self, message: EncodedMessage | None, done: Callable[[bool], None]) -> None:
        self.message = message
        self.done = done


class Writer(SocketWriter):
    """Output of one connection. Used by the thread of the loop only."""

    __slots__ = (
        "_dirty",
        "_drains",
        "_gathered",
        "_hot",
        "_on_finished",
        "_waiters",
        "context",
        "dropped",
        "in_pieces",
    )

    def __init__(self, state: LoopContext, *, queue_size: int, queue_bytes: int) -> None:
        super().__init__(state, queue_size, queue_bytes)
        self._waiters: deque[Waiter] | None = None
        self._drains: list[Callable[[bool], None]] | None = None
        self._on_finished: Callable[[], None] | None = None
        self._dirty = False
        self._hot = False
        self._gathered = False
        #: Compressor with context takeover, if any. It compresses accepted messages, and is reset if they are dropped.
        self.context: Any = None
        #: Messages that a full queue refused.
        self.dropped = 0
        #: True while a message is sent in fragments: no other may begin before its end.
        self.in_pieces = False

    # --- the transport ----------------------------------------------------------------------------

    def detach(self) -> None:
        """Drop all output, because the transport is closed. Waiting senders are refused."""
        self._detach()
        self._on_finished = None
        self._control = self._pongs = None
        self.discard()
        self._empty(False)

    def fail(self, exc: BaseException | None) -> None:
        """End the connection: it is unknown what the peer has received, or output cannot be kept.

        ``exc`` is reported; ``None`` if the caller reports it.
        """
        on_failure = self._on_failure
        self._detach()  # first: no byte may follow
        try:
            if on_failure is not None:
                on_failure(exc)
        finally:
            self.detach()

    # --- data -------------------------------------------------------------------------------------

    def offer(self, message: EncodedMessage) -> bool:
        """Queue ``message`` if there is space, after a flush if necessary. Return False if there is none.

        It leaves with the next :meth:`flush`: call :meth:`kick`, too.
        """
        if self._waiters or self.in_pieces:
            return False
        if not self._has_space(message.size):
            self.flush()
            if self._waiters or not self._has_space(message.size):
                return False
        self._enter(message)
        return True

    def _enter(self, message: EncodedMessage) -> None:
        self._accept(message if self.context is None else self.context.enter(message))

    def offer_frame(self, frame: bytes) -> bool:
        """Queue a message of one frame in one buffer, as :meth:`offer` does."""
        size = len(frame)
        if self._waiters or self.in_pieces:
            return False
        if not self._has_space(size):
            self.flush()
            if self._waiters or not self._has_space(size):
                return False
        self._append(frame, size)
        return True

    def takes_note(self, *, first: bool) -> bool:
        """Return True if :meth:`add_note` would put a loss report between two messages."""
        return not self.in_pieces or (first and self._begins_whole())

    def has_space(self, size: int) -> bool:
        """Return True if :meth:`offer` would accept a message of ``size`` bytes, after a flush if necessary."""
        if self._waiters or self.in_pieces:
            return False
        if not self._has_space(size):
            self.flush()
        return not self._waiters and self._has_space(size)

    def room_for(self, messages: list[EncodedMessage]) -> int:
        """Return how many of ``messages``, in order, can be accepted now: all of them while the transport takes bytes.

        Queued messages are flushed first.
        """
        self.flush()
        if self._waiters or self.in_pieces:
            return 0
        if not self.paused and not self._has_output():
            return len(messages)
        waiting, size = self.queued_messages, self.counted_bytes
        count = waiting
        for message in messages:
            size += message.size + (limits.QUEUED_OVERHEAD if count >= _FREE else 0)
            if count and (count >= self._queue_size or size > self._queue_bytes):
                break
            count += 1
        return count - waiting

    def accept_run(self, messages: list[EncodedMessage]) -> None:
        """Queue ``messages``, for which there is space. They begin to leave at once if the transport takes bytes.

        The rest that the socket does not take is treated as the rest of a long message: nothing displaces it, and it
        does not count against the bounds of the queue.
        """
        try:
            if self.context is not None:
                messages = [self.context.enter(message) for message in messages]
            gone = self._transport is None or self._transport.is_closing()  # then nothing leaves
            if self.paused or gone or self._rest is not None:
                for message in messages:
                    self._accept(message)
            elif messages:
                run = [len(message.buffers) for message in messages]
                self._rest, self._run = _in_pairs(messages, run), run
        except BaseException:
            self.fail(None)  # some may be accepted, or known to the compressor
            raise
        self.flush()

    def displace(self, message: EncodedMessage) -> int:
        """Queue ``message``, which was refused, in place of the oldest ones.

        Return how many were dropped for it; -1 if it cannot be queued, because a message is sent in fragments.
        """
        if self._waiters or self.in_pieces:
            return -1
        try:
            dropped = self._make_room(message.size)
            self._accept(message)
        except BaseException:
            self.fail(None)  # the missing messages are unknown
            raise
        self.evicted += dropped
        return dropped

    def conflate(self, message: EncodedMessage, key: Any) -> int:
        """Queue ``message`` in place of the queued one with ``key``, else as :meth:`displace`."""
        if self._waiters:
            return -1
        try:
            found = self._replace(message, key)
            if found == DONE:
                self.replaced += 1
                return 0
            if self.in_pieces:
                return -1
            if found == STALE:
                self._take_key(key)
                self.replaced += 1
            elif not self._has_space(message.size):
                self.flush()
            dropped = self.displace(message)
            if dropped >= 0:
                self._remember(key)
        except BaseException:
            self.fail(None)
            raise
        return dropped

    def evict(self) -> int:
        """Drop all queued messages, except for one that is sent in fragments. Return how many."""
        dropped = 0 if self.in_pieces else self._drop_messages()
        self.evicted += dropped
        if dropped and self.context is not None:
            self.context.reset()
        return dropped

    def share(self, frame: bytes | memoryview, size: int) -> bool:
        """Queue one message of a broadcast, to leave at the end of this loop iteration.

        Return False if that takes more than an append: call :meth:`offer` and :meth:`kick` then.
        """
        if self.paused or self.in_pieces or self._waiters is not None or self.context is not None:
            return False
        queue = self._queue
        if queue is None:
            self._queue = self._state.lend_queue(frame)
        elif (
            len(queue) < self._queue_size
            and self.queued_bytes + size <= self._queue_bytes
            and (len(queue) < _FREE or self._has_space(size))
        ):
            queue.append(frame)
        else:
            return False
        self.queued_bytes += size
        if not self._dirty:
            self._state.mark_dirty(self)
            self._dirty = True
        return True

    def stuck(self, size: int) -> bool:
        """Return True if a message of ``size`` bytes has no space, and nothing can leave to make space."""
        return self.paused and (bool(self._waiters) or self.in_pieces or not self._has_space(size))

    def begin_pieces(self) -> bool:
        """Begin a message in fragments. Return False if another one is being sent, or others wait for space."""
        if self._waiters or self.in_pieces:
            return False
        self.in_pieces = True
        return True

    def add_piece(self, frame: bytes) -> None:
        """Queue a frame of the message in fragments. :meth:`when_empty` tells when there is space for the next."""
        self._append(frame, len(frame))

    def end_pieces(self) -> None:
        """End the message in fragments, complete or not: others may begin."""
        self.in_pieces = False
        self._admit()

    def when_empty(self, done: Callable[[bool], None]) -> None:
        """Call ``done(True)`` when all queued data has left, ``done(False)`` when it never will."""
        if self._transport is None:
            done(False)
        elif not self.paused and not self._has_output():
            done(True)
        elif self._drains is None:
            self._drains = [done]
        else:
            self._drains.append(done)

    def _empty(self, good: bool) -> None:
        drains, self._drains = self._drains, None
        while drains:
            self._tell(drains.pop(0), good)

    def _tell(self, done: Callable[[bool], None], good: bool) -> None:
        """Call ``done(good)``. Report its failure, so that others are called, too."""
        try:
            done(good)
        except Exception as exc:
            self._state._report(exc)

    def wait(self, message: EncodedMessage | None, done: Callable[[bool], None]) -> Waiter:
        """Wait for space: call ``done(True)`` when the message is accepted, ``done(False)`` when it never will be.

        Without a message, ``done(True)`` tells that a message in fragments has begun.
        """
        waiter = Waiter(message, done)
        if self._waiters is None:
            self._waiters = deque()
        self._waiters.append(waiter)
        return waiter

    def wait_on(self, waiter: Waiter) -> None:
        """Put ``waiter`` back at the head of the line, with another message: its last one was just accepted."""
        if self._waiters is None:
            self._waiters = deque()
        self._waiters.appendleft(waiter)

    @property
    def last_waiter(self) -> Waiter | None:
        """Last waiter for space, or ``None``."""
        return self._waiters[-1] if self._waiters else None

    def withdraw(self, waiter: Waiter) -> bool:
        """Remove ``waiter``. Return False if its message was accepted or refused before."""
        if self._waiters is None or waiter not in self._waiters:
            return False
        self._waiters.remove(waiter)
        self._admit()  # a smaller message behind it may fit
        return True

    @property
    def waiting(self) -> int:
        """Number of messages that wait for space."""
        return len(self._waiters) if self._waiters else 0

    def _admit(self) -> None:
        # Read anew in each step: `done` may send, withdraw, or end the connection.
        try:
            while self._waiters and not self.in_pieces:
                waiter = self._waiters[0]
                message = waiter.message
                if message is not None and not self._has_space(message.size):
                    break
                if message is None:
                    self.in_pieces = True
                else:
                    self._enter(message)
                self._waiters.popleft()
                waiter.done(True)
        except BaseException as exc:
            self.fail(exc)
            if not isinstance(exc, Exception):
                raise
        if not self._waiters:
            self._waiters = None

    # --- the end ----------------------------------------------------------------------------------

    def finish(self, close_frame: bytes, on_finished: Callable[[], None]) -> None:
        """Send ``close_frame`` behind all accepted messages. Waiting senders are refused.

        ``on_finished()`` is called when the transport has taken the close frame.
        """
        self._closing = close_frame
        self._on_finished = on_finished
        self.in_pieces = False  # a message that was not complete never will be
        self.refuse_waiters()
        self.flush()

    def discard(self) -> None:
        """Drop all queued data. Control frames and a close frame stay."""
        self._drop_data()
        self.refuse_waiters()

    def last_words(self) -> None:
        """Write the close frame although the transport is full: it is small, and the last frame."""
        if self.paused:
            self.paused = False
            self.flush()

    def refuse_waiters(self) -> None:
        """Refuse all messages that wait for space."""
        waiters, self._waiters = self._waiters, None
        while waiters:
            self._tell(waiters.popleft().done, False)

    # --- writing ----------------------------------------------------------------------------------

    def pause(self) -> None:
        """Stop writing: the transport holds more than its high-water mark."""
        self.paused = True
        if self._pongs is not None:
            del self._pongs[:-1]
        if self._queue is not None:
            self._date(self._queue)

    def drained(self) -> bool:
        """Note that the transport has space again. Return True if data may leave: call :meth:`resume` then."""
        return True

    def answered(self, place: int) -> bool:
        """Note an answered ping. Return True if data may leave for that: call :meth:`resume` then."""
        return False

    @property
    def unanswered(self) -> int | None:
        """Bytes written since the last answered ping; ``None`` if they are not counted."""
        return None

    def resume(self) -> None:
        """Write queued frames at the end of this loop iteration: the transport has space again.

        A write within the call of asyncio could end the connection twice, if it fails.
        """
        self.paused = False
        if not self._dirty and (self._drains is not None or self._has_output()):
            self._state.mark_dirty(self)
            self._dirty = True

    def kick(self, at_once: bool) -> None:
        """Write new output now with ``at_once`` and if it is the first in this loop iteration, else at its end."""
        if self.paused or self._dirty:
            return
        if at_once and not self._hot:
            self.flush()
            self._hot = True  # a second message in this iteration leaves with those behind it
        else:
            self._state.mark_dirty(self)
            self._dirty = True

    def gather(self) -> None:
        """Write the output of a slow read together with that of other connections in this loop iteration."""
        if self._gathered:
            return
        if self._dirty or self.paused or not self._has_output():
            self.flush()
        else:
            self._dirty = self._gathered = True  # first: the call may flush it at once
            self._state.gather(self)

    def flush(self) -> None:
        """Write all queued frames, in as few writes as the socket allows. A failure ends the connection."""
        self._dirty = self._hot = self._gathered = False
        try:
            while not self.paused and self._transport is not None and self._has_output():
                if self._transport.is_closing():
                    return
                self._write_some()
                if self._closing == b"":
                    finished, self._on_finished = self._on_finished, None
                    if finished is not None:
                        finished()
                    break
                if self._waiters:
                    self._admit()
            if self._drains is not None and not self.paused and not self._has_output():
                self._empty(True)
        except BaseException as exc:
            self.fail(exc)
            if not isinstance(exc, Exception):
                raise


def _in_pairs(messages: list[EncodedMessage], counts: list[int]) -> list[bytes | memoryview]:
    """Return the buffers of ``messages`` in pairs, because the queue must not separate header and payload.

    ``counts``, the number of buffers of each message, is updated.
    """
    buffers: list[bytes | memoryview] = []
    for number, message in enumerate(messages):
        if len(buffers) % 2 and len(message.buffers) > 1:
            whole = buffers.pop()  # one or more frames in one buffer: its first header becomes a buffer of its own
            length = whole[1] & 0x7F
            header = 2 if length < 126 else 4 if length == 126 else 10
            buffers += (bytes(whole[:header]), memoryview(whole)[header:])
            counts[number - 1] += 1
        buffers += message.buffers
    return buffers
