"""What all connections of one event loop share: receive buffer, timers, the flush (layer 3).

An idle connection keeps no receive buffer, and what many connections have to send leaves in one pass at
the end of the tick, not by a callback for each; threads may help with that. The state lives on the loop itself,
so that it goes when the loop goes.

Invariant: while threads send, nothing else happens on the loop's thread, and before anything else does every writer
knows what was sent of its own.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any, Final

from . import limits, wire
from .parallel import SendingThreads
from .timers import Timers

__all__ = ["Flushable", "LoopState", "loop_state"]

_ATTRIBUTE: Final = "_plumews_state"

#: Flushes between two looks at the clock.
_STRIDE: Final = 64


class Flushable:
    """Something with output that waits: a writer."""

    __slots__ = ()

    def flush(self) -> None:
        """Let it leave."""
        raise NotImplementedError

    def hand_over(self, fds: list[int], queues: list[list[Any]]) -> bool:
        """Add a descriptor and what is to be written to it, if that is all that a flush would do now.

        Then nothing may be done with it but to write, once, and to say with :meth:`was_sent` what came of it.
        """
        return False

    def was_sent(self, sent: int) -> bool:
        """What :func:`plumews.wire.send` said of what was handed over; whether there is a flush to be made now."""
        raise NotImplementedError

    def fail(self, exc: Exception) -> None:
        """Give up everything: :meth:`was_sent` has raised ``exc``."""
        raise NotImplementedError


class LoopState:
    """The shared parts of one loop. What is in ``buffer`` holds until the next read: keep no view of it."""

    __slots__ = (
        "_dirty",
        "_gathered",
        "_gathered_until",
        "_lent",
        "_loop",
        "_scheduled",
        "_spare",
        "_threads",
        "buffer",
        "in_batch",
        "timers",
        "view",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.timers = Timers(loop)
        self.buffer = bytearray(limits.READ_BUFFER)
        self.view = memoryview(self.buffer)
        self._dirty: list[Flushable] = []
        self._gathered: list[Flushable] = []
        self._gathered_until = 0.0
        self._spare: list[list[Any]] = []
        self._lent = 0
        self._scheduled = False
        self._threads: SendingThreads | None = None
        #: Whether a read is being handled: what is sent meanwhile leaves at its end.
        self.in_batch = False

    def mark_dirty(self, writer: Flushable) -> None:
        """Flush ``writer`` at the end of this tick. The writer sees to it that it is marked once."""
        self._dirty.append(writer)
        self._schedule()

    def gather(self, writer: Flushable) -> None:
        """Flush ``writer`` together with others that are gathered, at the end of this tick or after a time at most.

        They come before those that are dirty, which may be thousands.
        """
        now = monotonic()
        if not self._gathered:
            self._gathered_until = now + limits.GATHER_TIME
        self._gathered.append(writer)
        if now >= self._gathered_until:
            self._flush_gathered()
        else:
            self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def lend_queue(self) -> list[Any]:
        """An empty list for what one member of many is sent.

        A new one for each would have the garbage collector look at all connections again and again.
        """
        self._lent += 1
        return self._spare.pop() if self._spare else []

    def give_back(self, queue: list[Any]) -> None:
        """Nobody else has ``queue`` any more: keep it, if as many were lent."""
        if self._lent > 0:
            self._lent -= 1
            if len(self._spare) < limits.SPARE_QUEUES:
                queue.clear()
                self._spare.append(queue)

    def want_threads(self, count: int) -> None:
        """Let up to ``count`` threads help to send, until as many are given up; of several wishes the largest holds."""
        if self._threads is None:
            self._threads = SendingThreads()
        self._threads.want(count)

    def give_up_threads(self, count: int) -> None:
        """What was wanted is not wanted any more; threads that nobody else wants are gone then."""
        if self._threads is not None and self._threads.give_up(count) == 0:
            self._threads = None

    def _flush(self) -> None:
        """One slice: thousands of system calls in a row would starve reads and pings."""
        self._scheduled = False
        if self._gathered:
            self._flush_gathered()
        dirty, self._dirty = self._dirty, []
        if not dirty:
            return
        until = monotonic() + limits.FAN_OUT_SLICE
        if self._threads is not None and len(dirty) >= limits.PARALLEL_LEAST:
            dirty = self._flush_together(self._threads, dirty, until)
        for position, writer in enumerate(dirty, 1):
            self._flush_one(writer)
            if position % _STRIDE == 0 and position < len(dirty) and monotonic() >= until:
                self._dirty = dirty[position:] + self._dirty
                self._schedule()
                return

    def _flush_one(self, writer: Flushable) -> None:
        try:
            writer.flush()
        except Exception as exc:
            self._report(exc)

    def _flush_gathered(self) -> None:
        gathered, self._gathered = self._gathered, []
        for writer in gathered:
            self._flush_one(writer)

    def _flush_together(self, threads: SendingThreads, dirty: list[Flushable], until: float) -> list[Flushable]:
        """Let threads help as long as there is enough to do; who is left to be flushed."""
        size = limits.PARALLEL_SHARE * (threads.start() + 1)
        left: list[Flushable] = []
        position = 0
        while size > limits.PARALLEL_SHARE and len(dirty) - position >= limits.PARALLEL_LEAST:
            left += self._send_together(threads, dirty[position : position + size])
            position += size
            if monotonic() >= until:
                break
        return left + dirty[position:]

    def _send_together(self, threads: SendingThreads, writers: list[Flushable]) -> list[Flushable]:
        fds: list[int] = []
        queues: list[list[Any]] = []
        sending: list[Flushable] = []
        left: list[Flushable] = []
        for writer in writers:
            if writer.hand_over(fds, queues):
                sending.append(writer)
            else:
                left.append(writer)
        if 2 * len(sending) < limits.PARALLEL_LEAST:
            return writers
        try:
            batch = wire.Batch(fds, queues)
        except MemoryError:
            return writers
        failures: list[tuple[Flushable | None, BaseException]] = []
        try:
            threads.send(batch)
        except BaseException as exc:  # from the handler of a signal, wherever that was: threads may be at it
            batch.finish()
            failures.append((None, exc))
        results = batch.sent
        for position in range(len(sending)):
            writer = sending[position]
            try:
                if writer.was_sent(results[position]):
                    left.append(writer)
            except BaseException as exc:  # who hears of it may send: first all must know what they have sent
                failures.append((writer, exc))
        for failed, failure in failures:
            if failed is not None and isinstance(failure, Exception):
                failed.fail(failure)
            else:
                self._report(failure)
        return left

    def _report(self, failure: BaseException) -> None:
        if not isinstance(failure, Exception):
            raise failure
        self._loop.call_exception_handler({"message": "a plumews flush failed", "exception": failure})


def loop_state(loop: asyncio.AbstractEventLoop) -> LoopState:
    """The state of ``loop``, made when it is first asked for."""
    state = getattr(loop, _ATTRIBUTE, None)
    if state is None:
        state = LoopState(loop)
        setattr(loop, _ATTRIBUTE, state)
    assert isinstance(state, LoopState)
    return state
