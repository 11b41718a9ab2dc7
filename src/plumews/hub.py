"""`Hub`: rooms of connections, and broadcasts to them (layer 4).

The seed's hub, with an order that holds. Who is in it is in `membership`, what is sent is in `publishing`; here are its
making, its counters and its end. A hub belongs to the thread of its event loop; `publish_threadsafe` is for the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable
from types import TracebackType

from . import limits
from .conn import Conn
from .fanout import Broadcast
from .hub_config import HubConfig
from .publishing import Publishing
from .reports import Gap, HubMetrics, ShutdownReport
from .shutdown import close_all

__all__ = ["Hub"]


class Hub(Publishing):
    """Rooms and broadcasts.

    ``Hub()``, ``Hub(workers, job_queue_size)`` as the seed's ``NewHub``, or ``Hub(HubConfig(...))``. Use it with
    ``async with``, or call :meth:`stop` at the end.
    """

    def __init__(self, workers: int | HubConfig = limits.WORKERS, job_queue_size: int = limits.JOB_QUEUE_SIZE) -> None:
        if isinstance(workers, HubConfig):
            config = workers
        else:
            config = HubConfig(workers=workers, job_queue_size=job_queue_size)
        super().__init__(config)
        self._stopping: asyncio.Task[ShutdownReport] | None = None

    def metrics(self) -> HubMetrics:
        """A snapshot of the counters."""
        tally = self._tally
        return HubMetrics(
            active_connections=self._table.connections,
            room_registrations=self._table.registrations,
            rooms=len(self._table.names()),
            accepted_total=self._accepted,
            rejected_total=self._rejected,
            max_connections=self.config.max_connections,
            max_room_connections=self.config.max_room_connections,
            broadcasts_total=tally.broadcasts,
            broadcasts_rejected=tally.rejected,
            broadcast_matched=tally.matched,
            broadcast_queued=tally.queued,
            broadcast_dropped=tally.dropped,
            broadcast_skipped=tally.skipped,
            broadcast_pending=tally.pending,
            messages_evicted=self._slow.evicted,
            messages_replaced=self._slow.replaced,
        )

    # --- slow members -----------------------------------------------------------------------------

    def on_slow(self, callback: Callable[[Conn], object]) -> Callable[[], None]:
        """Call ``callback(conn)`` when the send queue of a member is half full and its peer takes nothing.

        Once for each time, until the queue was empty again. Callbacks about slow members are called at the end of the
        tick; what they do to the hub is done like anything else, and one that raises is reported to the loop's
        exception handler. This and its siblings return the function that ends it.
        """
        self._bind()
        return self._slow.notices.register(self._slow.notices.on_slow, callback)

    def on_drop(self, callback: Callable[[Conn, str | None, int], object]) -> Callable[[], None]:
        """Call ``callback(conn, room, count)`` when a member has lost messages, those of a tick together.

        ``room`` is ``None`` where they were for everybody, or may be of any room that the member is in.
        """
        self._bind()
        return self._slow.notices.register(self._slow.notices.on_drop, callback)

    def on_gap(self, callback: Callable[[Conn, Gap], object]) -> Callable[[], None]:
        """Call ``callback(conn, gap)`` when a member that has lost messages takes others again.

        At that point stands what ``encode_gap`` made of it, if that is configured. ``gap.dropped`` counts what was
        lost since the last call for this member and room.
        """
        self._bind()
        return self._slow.notices.register(self._slow.notices.on_gap, callback)

    # --- the end ----------------------------------------------------------------------------------

    async def stop(self) -> ShutdownReport:
        """:meth:`shutdown` with its defaults (the seed's ``Stop``)."""
        return await self.shutdown()

    async def shutdown(self, timeout: float = limits.SHUTDOWN_TIMEOUT, *, restart: bool = False) -> ShutdownReport:
        """Refuse joins and broadcasts, deliver what was broadcast, close all members, cut who takes too long.

        Members are closed with 1001 (going away), or with 1012 (service restart) if ``restart``. Idempotent: a
        second call waits for the first and returns its report.

        Args:
            timeout: seconds in all (default 10).

        Raises:
            ValueError: ``timeout`` is negative or not finite.
        """
        if not (timeout >= 0 and math.isfinite(timeout)):
            raise ValueError(f"timeout must be at least 0 seconds, not {timeout}")
        loop = self._bind()
        self._stopped = True
        if self._stopping is None:
            self._stopping = loop.create_task(self._shut_down(timeout, restart))
        return await asyncio.shield(self._stopping)

    async def _shut_down(self, timeout: float, restart: bool) -> ShutdownReport:
        deadline = asyncio.get_running_loop().time() + timeout
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._settled(), timeout)
        for job in self._lanes.clear():
            assert isinstance(job, Broadcast)
            job.give_up()
        report = await close_all(self._table.roll(None).members, deadline=deadline, restart=restart)
        self._watchers.clear()
        self._slow.end()
        return report

    async def _settled(self) -> None:
        """Until every broadcast has reached its members, and full ones have made room or had their time."""
        await self._lanes.idle()
        for broadcast in self._slow.waiting():
            await broadcast.wait()

    async def __aenter__(self) -> Hub:
        self._bind()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.stop()

    def __repr__(self) -> str:
        state = "stopped" if self._stopped else "running"
        return f"<plumews.Hub {state} rooms={len(self.rooms())} connections={self.connection_count()}>"
