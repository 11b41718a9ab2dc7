"""`Hub`: rooms of connections, and broadcasts to them (layer 4).

The seed's hub, with an order that holds. Who is in it is in `membership`, what is sent is in `publishing`, what it says
about itself in `introspection`; here are its making and its end. A hub belongs to the thread of its event loop;
`publish_threadsafe` is for the others.
"""

from __future__ import annotations

import asyncio
from contextvars import Context
from types import TracebackType

from .. import limits
from ..conn.connection import Conn
from ..conn.graceful_close import GracefulClose, ShutdownReport, TimeBudget, check_goodbye
from ..constants import CloseCode, State
from ..transport.forks import FOREIGN
from .config import HubConfig
from .fanout import FanOut
from .metrics import Introspection
from .shutdown import Ledger
from .slow_members import Delivery

__all__ = ["Hub"]


class Hub(Introspection):
    """Rooms and broadcasts.

    ``Hub()``, ``Hub(workers, job_queue_size)`` as the seed's ``NewHub``, or ``Hub(HubConfig(...))``. Use it with
    ``async with``, or call :meth:`stop` at the end.
    """

    def __init__(self, workers: int | HubConfig = limits.WORKERS, job_queue_size: int = limits.JOB_QUEUE_SIZE) -> None:
        if isinstance(workers, HubConfig):
            config = workers
        elif not isinstance(workers, int):
            raise TypeError(f"a Hub takes a number of workers or a plumews.HubConfig, not {type(workers).__name__}")
        else:
            config = HubConfig(workers=workers, job_queue_size=job_queue_size)
        super().__init__(config)
        self._stopping: asyncio.Task[ShutdownReport] | None = None
        self._limit: TimeBudget | None = None

    # --- the end ----------------------------------------------------------------------------------

    async def stop(self) -> ShutdownReport:
        """:meth:`shutdown` with its defaults (the seed's ``Stop``)."""
        return await self.shutdown()

    async def shutdown(
        self,
        timeout: float = limits.SHUTDOWN_TIMEOUT,
        *,
        restart: bool = False,
        spread: float | None = None,
        reconnect_in: float = limits.RECONNECT_IN,
    ) -> ShutdownReport:
        """Refuse joins and broadcasts, deliver what was broadcast, close all members, cut who takes too long.

        Members are closed with 1001 (going away), or with 1012 (service restart) if ``restart``, in an order of chance;
        the reason tells each when to come back, such as ``reconnect in 3.2 s``. Cancelling the call does not stop the
        shutdown. A second call waits for the first and returns its report; with a shorter ``timeout`` it shortens it.

        Args:
            timeout: seconds in all (default 10); for the broadcasts and for full members half of it.
            restart: whether to say that the service comes back.
            spread: seconds over which the close frames are sent, ``timeout`` at most (default: one for each 2,000
                members, a fifth of ``timeout`` at most).
            reconnect_in: seconds within which the members are told to come back, each at its own moment (default 5,
                3600 at most; 0: no hint).

        Raises:
            ValueError: a time is negative, not finite or too long. TypeError: it is no number.
        """
        check_goodbye(timeout, spread, reconnect_in)
        loop = self._bind()
        self._stopped = True
        if self._stopping is None:
            self._limit = TimeBudget(timeout)
            farewell = GracefulClose(
                self._limit,
                code=CloseCode.SERVICE_RESTART if restart else CloseCode.GOING_AWAY,
                spread=spread,
                reconnect_in=reconnect_in,
                wanted=lambda conn: conn.state is State.CLOSED or self._table.is_member(None, conn),
            )
            members = self._table.roll(None).members
            ledger = Ledger(members, self._undecided())
            self._stopping = Context().run(loop.create_task, self._shut_down(self._limit, farewell, members, ledger))
        elif self._limit is not None:
            self._limit.hasten(timeout)
        return await asyncio.shield(self._stopping)

    async def _shut_down(
        self, limit: TimeBudget, farewell: GracefulClose, members: tuple[Conn, ...], ledger: Ledger
    ) -> ShutdownReport:
        rest = limit.left * (1 - limits.SETTLE_SHARE)
        await limit.bound(self._lanes.idle(), max(0.0, limit.left - rest))
        if limit.over:
            self._give_up()  # else each member gets what is left for it when it is closed
        waited_for = {conn for conn in members if self._slow.waits_for(conn)}
        await farewell.close(conn for conn in members if conn not in waited_for)
        await limit.bound(self._settled(), max(0.0, limit.left - rest))
        await farewell.close(waited_for)
        await farewell.ended()
        limit.end()
        self._limit = None
        self._give_up()
        self._end_watches()
        self._slow.end()
        if self._archive is not None:
            self._archive.clear()
            self._forms.clear()
        messages, size = ledger.undelivered()
        return ShutdownReport(
            closed=farewell.closed,
            aborted=farewell.aborted,
            delivered_messages=ledger.messages - messages,
            delivered_bytes=ledger.bytes - size,
            undelivered_messages=messages,
            undelivered_bytes=size,
        )

    def _undecided(self) -> list[Delivery]:
        """The broadcasts that have not reached all their members, or wait for full ones to make room."""
        lanes: list[Delivery] = [job for job in self._lanes.waiting() if isinstance(job, FanOut)]
        return list(dict.fromkeys(lanes + self._slow.waiting()))

    def _give_up(self) -> None:
        for job in self._lanes.clear():
            assert isinstance(job, FanOut)
            job.give_up()

    async def _settled(self) -> None:
        """Until full members have made room for what waits for them, or had their time."""
        for broadcast in self._slow.waiting():
            await broadcast.wait()

    async def __aenter__(self) -> Hub:
        self._bind()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._thread != FOREIGN:  # else it goes on in the parent process
            await self.stop()

    def __repr__(self) -> str:
        state = "stopped" if self._stopped else "running"
        return f"<plumews.Hub {state} rooms={len(self.rooms())} connections={self.connection_count()}>"
