"""`Hub`: rooms of connections, and broadcasts to them (layer 4).

The seed's hub, with an order that holds: what is broadcast to one room arrives at each member in the order
of the calls, whatever the number of workers, and nothing that is sent to a member directly overtakes it.
Membership is in `rooms`, the workers are in `lanes`, one broadcast is in `fanout`. A hub belongs to the
thread of its event loop; `publish_threadsafe` is for the others.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import Callable
from types import TracebackType

from . import limits
from .conn import Conn
from .errors import ConcurrencyError, ConnectionClosed, HubError, HubStopped, InvalidRoomName
from .fanout import Broadcast, Stall, Tally
from .hub_config import HubConfig
from .lanes import Lanes
from .outgoing import Data, encode, opcode_of, payload_of
from .reports import BroadcastResult, HubMetrics, ShutdownReport
from .rooms import RoomTable
from .shutdown import close_all
from .watch import Watchers

__all__ = ["Hub"]


class Hub:
    """Rooms and broadcasts.

    ``Hub()``, ``Hub(workers, job_queue_size)`` as the seed's ``NewHub``, or ``Hub(HubConfig(...))``. Use it with
    ``async with``, or call :meth:`stop` at the end.
    """

    def __init__(self, workers: int | HubConfig = limits.WORKERS, job_queue_size: int = limits.JOB_QUEUE_SIZE) -> None:
        if isinstance(workers, HubConfig):
            config = workers
        else:
            config = HubConfig(workers=workers, job_queue_size=job_queue_size)
        self.config = config
        self._table: RoomTable[Conn] = RoomTable(
            max_connections=config.max_connections,
            max_room_connections=config.max_room_connections,
            max_rooms_per_connection=config.max_rooms_per_connection,
            check_name=config.check_room_name,
        )
        self._lanes = Lanes(config.workers, config.job_queue_size)
        self._tally = Tally()
        self._stalls: dict[Conn, Stall] = {}
        self._watchers = Watchers(self._table.count)
        self._accepted = self._rejected = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: int | None = None
        self._stopping: asyncio.Task[ShutdownReport] | None = None
        self._stopped = False

    # --- membership -------------------------------------------------------------------------------

    def join(self, room: str, conn: Conn) -> None:
        """Add ``conn`` to ``room``; joining twice is harmless. It leaves by itself when it closes.

        Raises:
            HubStopped, InvalidRoomName, ConnectionClosed, HubFull, RoomFull, TooManyRooms: nothing was changed.
        """
        self._check_thread()
        try:
            self._check_stopped()
            if not isinstance(conn, Conn):
                raise TypeError(f"a member must be a Conn, not {type(conn).__name__}")
            self._table.check_name(room)
            if conn.closed:
                raise conn._closed_error()
            new = not self._table.knows(conn)
            joined = self._table.join(room, conn)
        except (HubError, ConnectionClosed):
            self._rejected += 1
            raise
        if joined:
            self._accepted += 1
            self._watchers.changed(room)
        if new:
            conn.add_close_callback(self.remove)

    def can_join(self, room: str) -> None:
        """Raise what :meth:`join` would raise for a new connection now; changes nothing, counts a refusal."""
        try:
            self._check_stopped()
            self._table.check_name(room)
            self._table.check_space(room)
        except HubError:
            self._rejected += 1
            raise

    def leave(self, room: str, conn: Conn) -> None:
        """Remove ``conn`` from ``room``; harmless if it is not there."""
        self._check_thread()
        if self._table.leave(room, conn):
            self._left(conn, [room])

    def remove(self, conn: Conn) -> None:
        """Remove ``conn`` from all its rooms. It stays open."""
        self._check_thread()
        rooms = self._table.remove(conn)
        if rooms:
            self._left(conn, rooms)

    def _left(self, conn: Conn, rooms: list[str]) -> None:
        if not self._table.knows(conn):
            conn.remove_close_callback(self.remove)
            stall = self._stalls.get(conn)
            if stall is not None and not stall.waiting:  # else its grace ends by itself
                del self._stalls[conn]
        for room in rooms:
            self._watchers.changed(room)

    # --- questions --------------------------------------------------------------------------------

    def room_count(self, room: str) -> int:
        """Members of ``room``; 0 if there is no such room."""
        return self._table.count(room)

    def total_count(self) -> int:
        """Members of all rooms added up (the seed): a connection in two rooms counts twice."""
        return self._table.registrations

    def connection_count(self) -> int:
        """Unique connections in any room."""
        return self._table.connections

    def rooms(self) -> list[str]:
        """The names of the rooms that have members."""
        return self._table.names()

    def rooms_of(self, conn: Conn) -> list[str]:
        """The rooms in which ``conn`` is."""
        return self._table.rooms_of(conn)

    def members(self, room: str) -> list[Conn]:
        """A snapshot of the members of ``room``, in the order in which they joined."""
        return self._table.members(room)

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
        )

    def watch_count(self, room: str, callback: Callable[[str, int], object]) -> Callable[[], None]:
        """Call ``callback(room, count)`` after the member count of ``room`` changed, a few times a second at most.

        Returns the function that ends it.
        """
        self._bind()
        return self._watchers.add(room, callback)

    # --- broadcasting -----------------------------------------------------------------------------

    def broadcast_room(
        self, room: str, data: Data, opcode: int | None = None, *, exclude: Conn | None = None
    ) -> BroadcastResult:
        """Send a message to all members of ``room``; never waits.

        Args:
            room: an unknown or empty room is no error: nobody is matched.
            data: ``str``, or bytes-like, which is copied if it can change.
            opcode: ``Opcode.TEXT`` or ``Opcode.BINARY``; by default what the type of ``data`` says.
            exclude: a member that does not get it, such as the sender.

        Raises:
            TypeError, ValueError: ``data`` or ``opcode`` is not what a message is made of.
        """
        broadcast, failure = self._submit(room, data, opcode, exclude)
        return failure if broadcast is None else broadcast.result()

    def broadcast_all(self, data: Data, opcode: int | None = None, *, exclude: Conn | None = None) -> BroadcastResult:
        """Send a message to every member of any room, once each. As :meth:`broadcast_room` otherwise."""
        broadcast, failure = self._submit(None, data, opcode, exclude)
        return failure if broadcast is None else broadcast.result()

    async def publish(
        self, room: str | None, data: Data, opcode: int | None = None, *, exclude: Conn | None = None
    ) -> BroadcastResult:
        """Send a message and wait until it is decided for every member: the result has nothing pending.

        Waits for space in the job queue, too. ``room=None`` is everybody. Raises as :meth:`broadcast_room`.
        """
        while True:
            broadcast, failure = self._submit(room, data, opcode, exclude)
            if broadcast is not None:
                await broadcast.wait()
                return broadcast.result()
            if not failure.overloaded:
                return failure
            await self._lanes.changed()

    def publish_threadsafe(
        self, room: str | None, data: Data, opcode: int | None = None
    ) -> concurrent.futures.Future[BroadcastResult]:
        """:meth:`publish` from another thread; the future gives its result.

        Raises:
            RuntimeError: the hub has no loop yet: nobody has joined and no ``async with`` was entered.
        """
        if self._loop is None:
            raise RuntimeError("the hub is not running on an event loop yet")
        return asyncio.run_coroutine_threadsafe(self.publish(room, data, opcode), self._loop)

    def _submit(
        self, room: str | None, data: Data, opcode: int | None, exclude: Conn | None
    ) -> tuple[Broadcast | None, BroadcastResult]:
        """Start a broadcast, or say why not."""
        loop = self._bind()
        opcode = opcode_of(data) if opcode is None else opcode
        payload = payload_of(opcode, data)
        if self._stopped:
            return self._reject(BroadcastResult(stopped=True))
        if room is not None:
            try:
                self._table.check_name(room)
            except InvalidRoomName:
                return self._reject(BroadcastResult(invalid=True))
        members = self._table.everybody() if room is None else self._table.members(room)
        if exclude is not None and exclude in members:
            members.remove(exclude)
        if not members:
            self._tally.broadcasts += 1
            return None, BroadcastResult()
        if self._lanes.full and self._lanes.busy(room):
            return self._reject(BroadcastResult(matched=len(members), dropped=len(members), overloaded=True))
        broadcast = Broadcast(
            encode(opcode, payload),
            members,
            tally=self._tally,
            stalls=self._stalls,
            still_member=self._membership(room),
        )
        if not self._lanes.submit(broadcast, room, loop):
            for conn in broadcast.unreached():
                conn._fall_behind(self._bring_up)
        return broadcast, BroadcastResult()

    def _reject(self, result: BroadcastResult) -> tuple[None, BroadcastResult]:
        self._tally.rejected += 1
        self._tally.matched += result.matched
        self._tally.dropped += result.dropped
        return None, result

    def _membership(self, room: str | None) -> Callable[[Conn], bool]:
        table = self._table
        if room is None:
            return table.knows
        return lambda conn: table.is_member(room, conn)

    def _bring_up(self, conn: Conn) -> None:
        for job in self._lanes.waiting():
            assert isinstance(job, Broadcast)
            job.bring_up(conn)

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
        """
        loop = self._bind()
        self._stopped = True
        if self._stopping is None:
            self._stopping = loop.create_task(self._shut_down(timeout, restart))
        return await asyncio.shield(self._stopping)

    async def _shut_down(self, timeout: float, restart: bool) -> ShutdownReport:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._lanes.idle(), timeout)
        for job in self._lanes.clear():
            assert isinstance(job, Broadcast)
            job.give_up()
        report = await close_all(self._table.everybody(), deadline=deadline, restart=restart)
        self._watchers.clear()
        return report

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

    # --- inside -----------------------------------------------------------------------------------

    def _bind(self) -> asyncio.AbstractEventLoop:
        """The loop of this hub: the one on which it is first used."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._thread = threading.get_ident()
        else:
            self._check_thread()
        return self._loop

    def _check_thread(self) -> None:
        if self._loop is None:
            self._bind()
        elif threading.get_ident() != self._thread:
            raise ConcurrencyError("a hub belongs to the thread of its event loop: use hub.publish_threadsafe")

    def _check_stopped(self) -> None:
        if self._stopped:
            raise HubStopped("the hub is stopped")
