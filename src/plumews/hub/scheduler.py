"""Scheduler of a hub's broadcasts: cooperative workers on the event loop.

The jobs of one room stand in the queue of one worker, so their order holds with any number of workers. A job for
several rooms stands in the queues of all their workers. It starts when each of these has reached it, and they wait
until it is done. A job that takes longer than its time slice continues in the next iteration of the event loop.

Invariants: at most ``capacity`` jobs wait, besides the current one of each worker. A job that found its workers idle
and fitted its time slice never waited. At least one job advances in every iteration.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Iterator
from contextvars import Context
from typing import Protocol
from zlib import crc32

from ..transport.timers import TimeSlice
from .rooms import Target

__all__ = ["FanOutScheduler", "Job"]


class Job(Protocol):
    """Work that can be done piece by piece."""

    def step(self, until: float) -> bool:
        """Work until :func:`plumews.transport.timers.clock` returns ``until``. Return True when the job is done."""


class FanOutScheduler:
    """Job queues of one hub and their workers. A hub may be older than its loop, so each call is given ``loop``."""

    def __init__(self, workers: int, capacity: int) -> None:
        self._queues: list[deque[Job]] = [deque() for _ in range(workers)]
        self._capacity = capacity
        #: Jobs that are not done, oldest first, and the queues in which each stands.
        self._waiting: dict[Job, list[deque[Job]]] = {}
        self._next = 0  # index of the worker that continues
        self._scheduled = False
        self._changed: asyncio.Future[None] | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def full(self, room: Target) -> bool:
        """Return True if there is no space for a job for ``room`` that has to wait. ``None`` stands for all rooms."""
        return len(self._waiting) >= self._capacity and any(self._queues_of(room))

    def make_room(self, room: Target) -> bool:
        """Return True if a job for ``room`` can be submitted. Work on waiting jobs for a time slice first if not.

        One callback may submit job after job. Else the first one that is longer than its time slice would make all
        others wait, and most of them would be refused.
        """
        if self.full(room):
            self._work()
        return not self.full(room)

    def submit(self, job: Job, room: Target, loop: asyncio.AbstractEventLoop) -> bool:
        """Do ``job`` now for a time slice, and the rest behind the other jobs for ``room``. Return True if it is done.

        Call :meth:`make_room` before. Without memory to queue it, it is done at once, or if others come before it
        ``MemoryError`` is raised.
        """
        queues = self._queues_of(room)
        first = not any(queues)
        if first and job.step(TimeSlice().end):
            return True
        try:
            self._waiting[job] = queues
            for queue in queues:
                queue.append(job)
            self._schedule(loop)
        except MemoryError:
            self._waiting.pop(job, None)
            for queue in queues:
                if queue and queue[-1] is job:
                    queue.pop()
            if not first:
                raise
            while not job.step(math.inf):
                pass
            return True
        return False

    def waiting(self) -> Iterator[Job]:
        """Iterate over the jobs that are not done, in the order in which they came."""
        return iter(list(self._waiting))

    async def changed(self) -> None:
        """Wait until a job is done, or all are given up."""
        if self._changed is None:
            self._changed = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._changed)

    async def idle(self) -> None:
        """Wait until all jobs are done."""
        while self._waiting:
            await self.changed()

    def clear(self) -> list[Job]:
        """Give up all waiting jobs, and return them."""
        given_up = list(self.waiting())
        for queue in self._queues:
            queue.clear()
        self._waiting.clear()
        self._wake()
        return given_up

    # --- inside -----------------------------------------------------------------------------------

    def _queues_of(self, room: Target) -> list[deque[Job]]:
        if room is None:
            return self._queues
        if isinstance(room, str):
            return [self._queues[self._worker_of(room)]]
        return [self._queues[worker] for worker in sorted(set(map(self._worker_of, room)))]

    def _worker_of(self, room: str) -> int:
        # Not hash(): it differs between processes, and a bug that comes and goes with each start is hard to find.
        return crc32(room.encode(errors="replace")) % len(self._queues)

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._scheduled:
            loop.call_soon(self._run, loop, context=Context())
            self._scheduled = True  # not before: if the call fails the next job tries again

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        self._scheduled = False
        try:
            self._work()
        finally:
            if self._waiting:
                self._schedule(loop)

    def _work(self) -> None:
        """Let the workers advance in rotation for one time slice, each with the first job of its queue."""
        time_slice = TimeSlice()
        blocked = 0
        while self._waiting and blocked < len(self._queues):
            queue = self._queues[self._next]
            self._next = (self._next + 1) % len(self._queues)
            job = queue[0] if queue else None
            if job is None or any(other[0] is not job for other in self._waiting[job]):
                blocked += 1
                continue
            blocked = 0
            if job.step(time_slice.end):
                for other in self._waiting.pop(job):
                    other.popleft()
                self._wake()
            if time_slice.is_over():
                break

    def _wake(self) -> None:
        changed, self._changed = self._changed, None
        if changed is not None and not changed.done():
            changed.set_result(None)
