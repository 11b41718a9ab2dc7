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
import functools
import math
import threading
from collections.abc import Callable
from types import TracebackType

from . import limits
from .conn import Conn
from .errors import ConcurrencyError, ConnectionClosed, HubError, HubStopped, InvalidRoomName
from .fanout import Broadcast, Stall, Tally
from .hub_config import HubConfig
from .lanes import Lanes
from .outgoing import Data, Encoded, encode, opcode_of, payload_of
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
        self._gate = asyncio.Lock()  # of those who publish: first come, first served
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
            ConcurrencyError: the hub, or ``conn``, belongs to another event loop.
        """
        loop = self._bind()
        try:
            self._check_stopped()
            if not isinstance(conn, Conn):
                raise TypeError(f"a member must be a Conn, not {type(conn).__name__}")
            if conn._loop is not loop:
                raise ConcurrencyError("the connection belongs to another event loop than the hub")
            self._table.check_name(room)
            if conn.closed:
                raise conn._closed_error()
            new = not self._table.is_member(None, conn)
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
        self._bind()
        if self._table.leave(room, conn):
            self._left(conn, [room])

    def remove(self, conn: Conn) -> None:
        """Remove ``conn`` from all its rooms. It stays open."""
        self._bind()
        rooms = self._table.remove(conn)
        if rooms:
            self._left(conn, rooms)

    def _left(self, conn: Conn, rooms: list[str]) -> None:
        if not self._table.is_member(None, conn):
            conn.remove_close_callback(self.remove)
            self._stalls.pop(conn, None)
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
        return list(self._table.roll(room).members)

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
        if room is None:  # a slip must not become a message to everybody
            return self._reject(BroadcastResult(invalid=True))
        return _result(self._submit(room, _encoded(data, opcode), exclude))

    def broadcast_all(self, data: Data, opcode: int | None = None, *, exclude: Conn | None = None) -> BroadcastResult:
        """Send a message to every member of any room, once each. As :meth:`broadcast_room` otherwise."""
        return _result(self._submit(None, _encoded(data, opcode), exclude))

    async def publish(
        self, room: str | None, data: Data, opcode: int | None = None, *, exclude: Conn | None = None
    ) -> BroadcastResult:
        """Send a message and wait until it is decided for every member: the result has nothing pending.

        Waits for space in the job queue, too, in the order of the calls. ``room=None`` is everybody. Raises as
        :meth:`broadcast_room`.
        """
        self._bind()
        return await self._publish(room, _encoded(data, opcode), exclude)

    def publish_threadsafe(
        self, room: str | None, data: Data, opcode: int | None = None
    ) -> concurrent.futures.Future[BroadcastResult]:
        """:meth:`publish` from another thread; the future gives its result.

        Raises:
            RuntimeError: the hub has no running loop: nobody has joined and no ``async with`` was entered, or the
                loop is closed. TypeError, ValueError: as :meth:`broadcast_room`.
        """
        loop = self._loop
        if loop is None or loop.is_closed():
            raise RuntimeError("the hub is not running on an event loop")
        return asyncio.run_coroutine_threadsafe(self._publish(room, _encoded(data, opcode), None), loop)

    async def _publish(self, room: str | None, message: Encoded, exclude: Conn | None) -> BroadcastResult:
        async with self._gate:
            while self._lanes.full(room):
                await self._lanes.changed()
            submitted = self._submit(room, message, exclude)
        if isinstance(submitted, Broadcast):
            await submitted.wait()
        return _result(submitted)

    def _submit(self, room: str | None, message: Encoded, exclude: Conn | None) -> Broadcast | BroadcastResult:
        """Start a broadcast, or say why not."""
        loop, table = self._bind(), self._table
        if self._stopped:
            return self._reject(BroadcastResult(stopped=True))
        if room is not None:
            try:
                table.check_name(room)
            except InvalidRoomName:
                return self._reject(BroadcastResult(invalid=True))
        roll = table.roll(room)
        if exclude is not None and not table.is_member(room, exclude):
            exclude = None
        matched = len(roll.members) - (exclude is not None)
        if matched and not self._lanes.make_room(room):
            return self._reject(BroadcastResult(matched=matched, dropped=matched, overloaded=True))
        broadcast = Broadcast(
            message,
            roll,
            exclude=exclude,
            tally=self._tally,
            stalls=self._stalls,
            still_member=functools.partial(table.is_member, room),
        )
        if matched and not self._lanes.submit(broadcast, room, loop):
            for conn in broadcast.unreached():
                conn._fall_behind(self._bring_up)
        return broadcast

    def _reject(self, result: BroadcastResult) -> BroadcastResult:
        self._tally.rejected += 1
        self._tally.matched += result.matched
        self._tally.dropped += result.dropped
        return result

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
        return report

    async def _settled(self) -> None:
        """Until every broadcast has reached its members, and full ones have made room or had their time."""
        await self._lanes.idle()
        for stall in list(self._stalls.values()):
            for broadcast in list(stall.waiting.values()):
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

    # --- inside -----------------------------------------------------------------------------------

    def _bind(self) -> asyncio.AbstractEventLoop:
        """The loop of this hub: the one on which it is first used."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._thread = threading.get_ident()
        elif threading.get_ident() != self._thread:
            raise ConcurrencyError("a hub belongs to the thread of its event loop: use hub.publish_threadsafe")
        elif self._loop.is_closed():
            raise ConcurrencyError("the event loop of this hub is closed: make a hub for each loop")
        return self._loop

    def _check_stopped(self) -> None:
        if self._stopped:
            raise HubStopped("the hub is stopped")


def _encoded(data: Data, opcode: int | None) -> Encoded:
    """``data`` as the frames that all members share."""
    opcode = opcode_of(data) if opcode is None else opcode
    return encode(opcode, payload_of(opcode, data))


def _result(submitted: Broadcast | BroadcastResult) -> BroadcastResult:
    return submitted.result() if isinstance(submitted, Broadcast) else submitted
