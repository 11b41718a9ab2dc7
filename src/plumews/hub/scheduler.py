"""The workers of a hub: cooperative lanes on the event loop (layer 4).

Jobs of one room stand in one lane, so that their order holds with any number of workers. A job that takes
longer than its slice lets reads, pings and the other lanes go on, and continues in the next turn of the
loop. A job for several rooms stands in the lanes of all of them, one for everybody in every lane: it waits until each
of these has reached it, and they wait until it is done.

Slices are measured in the processor's time of this thread: a machine that is busy with something else must not cut
the work into smaller pieces, and the time of some loops stands still within a callback.

Invariants: at most ``capacity`` jobs wait, besides the one that each lane is at; a job that found its lane idle
and fitted its slice never did; in every turn at least one job gets on.
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
        """Work until :func:`plumews.transport.timers.clock` says ``until``; True when all is done."""


class FanOutScheduler:
    """The job queue and its workers. ``loop`` is given with each call, because a hub may be older than its loop."""

    def __init__(self, workers: int, capacity: int) -> None:
        self._lanes: list[deque[Job]] = [deque() for _ in range(workers)]
        self._capacity = capacity
        #: The jobs that are not done, oldest first, and the lanes in which each stands.
        self._waiting: dict[Job, list[deque[Job]]] = {}
        self._turn = 0
        self._scheduled = False
        self._changed: asyncio.Future[None] | None = None

    def __len__(self) -> int:
        """How many jobs are not done."""
        return len(self._waiting)

    def full(self, room: Target) -> bool:
        """Whether a job for ``room`` (``None``: for everybody) would have to wait, and there is no space for that."""
        return len(self._waiting) >= self._capacity and any(self._lanes_of(room))

    def make_room(self, room: Target) -> bool:
        """Whether a job for ``room`` can be taken; if not, what waits is worked on for a slice first.

        The turns of the loop do not come while one callback submits job after job, such as for a burst of messages
        in one read: without this the first job that is longer than its slice would make all behind it wait, and
        most of them be refused, though each would have been done at once.
        """
        if self.full(room):
            self._work()
        return not self.full(room)

    def submit(self, job: Job, room: Target, loop: asyncio.AbstractEventLoop) -> bool:
        """Do ``job`` now as far as a slice reaches, the rest in the lanes of ``room`` (``None``: in all of them).

        True if it is done. Ask :meth:`make_room` before. A job that cannot be kept, for want of memory, is done at once
        if none is before it; else it is not taken, and this raises ``MemoryError``.
        """
        lanes = self._lanes_of(room)
        first = not any(lanes)
        if first and job.step(TimeSlice().end):
            return True
        try:
            self._waiting[job] = lanes
            for lane in lanes:
                lane.append(job)
            self._schedule(loop)
        except MemoryError:
            self._waiting.pop(job, None)
            for lane in lanes:
                if lane and lane[-1] is job:
                    lane.pop()
            if not first:
                raise
            while not job.step(math.inf):
                pass
            return True
        return False

    def waiting(self) -> Iterator[Job]:
        """The jobs that are not done, in the order in which they came."""
        return iter(list(self._waiting))

    async def changed(self) -> None:
        """Until a job is done, or all are given up."""
        if self._changed is None:
            self._changed = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._changed)

    async def idle(self) -> None:
        """Until all jobs are done."""
        while self._waiting:
            await self.changed()

    def clear(self) -> list[Job]:
        """Give up what waits."""
        given_up = list(self.waiting())
        for lane in self._lanes:
            lane.clear()
        self._waiting.clear()
        self._tell()
        return given_up

    # --- inside -----------------------------------------------------------------------------------

    def _lanes_of(self, room: Target) -> list[deque[Job]]:
        if room is None:
            return self._lanes
        if isinstance(room, str):
            return [self._lanes[self._lane_of(room)]]
        return [self._lanes[lane] for lane in sorted(set(map(self._lane_of, room)))]

    def _lane_of(self, room: str) -> int:
        # Not hash(): it differs between processes, and a lane that changes with each start helps nobody.
        return crc32(room.encode(errors="replace")) % len(self._lanes)

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._scheduled:
            loop.call_soon(self._run, loop, context=Context())
            self._scheduled = True  # not before: if the call fails the next job asks again

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        self._scheduled = False
        try:
            self._work()
        finally:
            if self._waiting:
                self._schedule(loop)

    def _work(self) -> None:
        """One slice: the lanes in turn, each with the job at its head."""
        time_slice = TimeSlice()
        stuck = 0
        while self._waiting and stuck < len(self._lanes):
            lane = self._lanes[self._turn]
            self._turn = (self._turn + 1) % len(self._lanes)
            job = lane[0] if lane else None
            if job is None or any(other[0] is not job for other in self._waiting[job]):
                stuck += 1
                continue
            stuck = 0
            if job.step(time_slice.end):
                for other in self._waiting.pop(job):
                    other.popleft()
                self._tell()
            if time_slice.is_over():
                break

    def _tell(self) -> None:
        changed, self._changed = self._changed, None
        if changed is not None and not changed.done():
            changed.set_result(None)
