"""The send queue of one connection: two lanes, two bounds, one write a flush (layer 3).

Control frames never wait behind data: they go between the fragments of a long message (RFC 6455 section
5.4). Data is bounded by messages and by bytes; what happens beyond the bounds is the caller's policy, told by
:meth:`Writer.offer` and :meth:`Writer.wait`. A close frame goes behind everything that was accepted before it
(section 5.5.1).

Invariants: messages leave in the order in which they were accepted, waiting senders included; nothing is
written after the close frame; nothing is written while the transport asks to wait, but for a last frame.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Callable
from typing import Final

from .loopstate import LoopState
from .outgoing import Encoded

__all__ = ["Waiter", "Writer"]

#: Bytes handed to the transport in one call; beyond it the transport is asked again whether it has room.
_WRITE_SIZE: Final = 256 * 1024

#: These CPythons never ask for a pause after ``writelines`` (CVE-2024-12254): their buffer has no bound.
_WRITELINES_HAS_NO_BOUND: Final = (3, 12) <= sys.version_info < (3, 12, 9) or (3, 13) <= sys.version_info < (3, 13, 2)


class Waiter:
    """A message that waits for space. ``done(accepted)`` is called once, unless it is withdrawn."""

    __slots__ = ("done", "message")

    def __init__(self, message: Encoded, done: Callable[[bool], None]) -> None:
        self.message = message
        self.done = done


class Writer:
    """What one connection has to send. Lives on the loop's thread."""

    __slots__ = (
        "_closing",
        "_control",
        "_dirty",
        "_hot",
        "_on_finished",
        "_pong",
        "_queue",
        "_queue_bytes",
        "_queue_size",
        "_rest",
        "_state",
        "_transport",
        "_waiters",
        "dropped",
        "paused",
        "queued_bytes",
    )

    def __init__(self, state: LoopState, *, queue_size: int, queue_bytes: int) -> None:
        self._state = state
        self._queue_size = queue_size
        self._queue_bytes = queue_bytes
        self._transport: asyncio.WriteTransport | None = None
        self._control: list[bytes] = []
        self._pong: bytes | None = None
        # Most connections are never backed up: their deques are made when there is something to hold.
        self._queue: deque[Encoded] | None = None
        self._waiters: deque[Waiter] | None = None
        self._rest: list[bytes | memoryview] | None = None  # of a long message that is on its way
        self._closing: bytes | None = None
        self._on_finished: Callable[[], None] | None = None
        self._dirty = False
        self._hot = False
        self.paused = False
        self.queued_bytes = 0
        self.dropped = 0

    # --- state ------------------------------------------------------------------------------------

    def attach(self, transport: asyncio.WriteTransport) -> None:
        self._transport = transport

    def detach(self) -> None:
        """The transport is gone: everything that waits is given up, senders are told."""
        self._transport = None
        self._on_finished = None
        self.discard()

    @property
    def queued_messages(self) -> int:
        """Accepted messages that have not begun to leave."""
        return len(self._queue) if self._queue else 0

    @property
    def finished(self) -> bool:
        """Whether the transport has taken the close frame."""
        return self._closing == b""

    def _has_space(self, size: int) -> bool:
        queue = self._queue
        if not queue:
            return True  # one message above the byte bound must be sendable, too
        return len(queue) < self._queue_size and self.queued_bytes + size <= self._queue_bytes

    # --- data lane --------------------------------------------------------------------------------

    def offer(self, message: Encoded) -> bool:
        """Accept ``message`` if there is space now; what waits is flushed before the answer is no.

        It leaves with the next :meth:`flush`: call :meth:`kick`, too.
        """
        if self._waiters:
            return False
        if not self._has_space(message.size):
            self.flush()
            if self._waiters or not self._has_space(message.size):
                return False
        self._accept(message)
        return True

    def wait(self, message: Encoded, done: Callable[[bool], None]) -> Waiter:
        """Queue up for space: ``done(True)`` when the message is accepted, ``done(False)`` when it never will be."""
        waiter = Waiter(message, done)
        if self._waiters is None:
            self._waiters = deque()
        self._waiters.append(waiter)
        return waiter

    def withdraw(self, waiter: Waiter) -> bool:
        """Stop waiting; False if the message was accepted or given up before."""
        if self._waiters is None or waiter not in self._waiters:
            return False
        self._waiters.remove(waiter)
        self._admit()  # a smaller message behind it may fit
        return True

    @property
    def waiting(self) -> int:
        """Messages that wait for space."""
        return len(self._waiters) if self._waiters else 0

    def _accept(self, message: Encoded) -> None:
        if self._queue is None:
            self._queue = deque()
        self._queue.append(message)
        self.queued_bytes += message.size

    def _admit(self) -> None:
        waiters = self._waiters
        while waiters and self._has_space(waiters[0].message.size):
            waiter = waiters.popleft()
            self._accept(waiter.message)
            waiter.done(True)

    # --- control lane -----------------------------------------------------------------------------

    def control(self, frame: bytes) -> None:
        """Send a ping ahead of all data."""
        if self._closing is None:
            self._control.append(frame)

    def pong(self, frame: bytes) -> None:
        """Answer a ping; while the socket takes no bytes only the newest answer is kept (section 5.5.3)."""
        if self._closing is not None:
            return
        if self.paused:
            self._pong = frame
        else:
            self._control.append(frame)

    # --- the end ----------------------------------------------------------------------------------

    def finish(self, close_frame: bytes, on_finished: Callable[[], None]) -> None:
        """Send ``close_frame`` behind what was accepted; waiting senders are refused.

        ``on_finished`` is called when the transport has taken the close frame.
        """
        self._closing = close_frame
        self._on_finished = on_finished
        self._refuse_waiters()
        self.flush()

    def discard(self) -> None:
        """Give up all data that waits; control frames and a close frame stay."""
        if self._queue:
            self._queue.clear()
        self._rest = None
        self.queued_bytes = 0
        self._refuse_waiters()

    def last_words(self) -> None:
        """Hand over the close frame though the transport is full: it is small, and the last."""
        if self.paused:
            self.paused = False
            self.flush()

    def _refuse_waiters(self) -> None:
        waiters, self._waiters = self._waiters, None
        for waiter in waiters or ():
            waiter.done(False)

    # --- to the transport -------------------------------------------------------------------------

    def pause(self) -> None:
        """The transport holds more than its high-water mark."""
        self.paused = True

    def resume(self) -> None:
        """The transport has room again."""
        self.paused = False
        self.flush()

    def kick(self, *, at_once: bool) -> None:
        """Something was queued: write it now if that is allowed and is the first in this tick, else at its end."""
        if self.paused or self._dirty:
            return
        if at_once and not self._hot:
            self.flush()
            self._hot = True  # a second message in the same tick joins the ones behind it
        else:
            self._dirty = True
            self._state.mark_dirty(self)

    def flush(self) -> None:
        """Hand everything that waits to the transport, in as few writes as it allows."""
        self._dirty = self._hot = False
        transport = self._transport
        while transport is not None and not self.paused and not transport.is_closing():
            batch = self._take()
            if not batch:
                return
            if len(batch) == 1:
                transport.write(batch[0])
            elif _WRITELINES_HAS_NO_BOUND:
                transport.write(b"".join(batch))
            else:
                transport.writelines(batch)
            if self.finished:
                finished, self._on_finished = self._on_finished, None
                if finished is not None:
                    finished()
                return
            if self._waiters:
                self._admit()

    def _take(self) -> list[bytes | memoryview]:
        """The next buffers to write, at most about one write's worth."""
        batch: list[bytes | memoryview] = []
        if self._control:
            batch += self._control
            self._control.clear()
        if self._pong is not None:
            batch.append(self._pong)
            self._pong = None
        queue = self._queue
        room = _WRITE_SIZE
        if self._rest:
            room -= self._take_part(self._rest, room, batch)
        while queue and room > 0:
            message = queue.popleft()
            self.queued_bytes -= message.size
            if message.size <= room:
                batch += message.buffers
                room -= message.size
            else:
                room -= self._take_part(message.buffers, room, batch)
        if self._closing and not queue and not self._rest:
            batch.append(self._closing)
            self._closing = b""  # taken: nothing leaves any more
        return batch

    def _take_part(self, buffers: list[bytes | memoryview], room: int, batch: list[bytes | memoryview]) -> int:
        """Add the next frames of a long message, at least one and about ``room`` bytes; how many bytes it were."""
        stop = size = 0
        while stop < len(buffers) and size < room:
            size += sum(map(len, buffers[stop : stop + 2]))  # a header and its payload, or two whole frames
            stop += 2
        batch += buffers[:stop]
        self._rest = buffers[stop:]
        return size
