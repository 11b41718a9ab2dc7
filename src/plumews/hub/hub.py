"""`Hub`: rooms of connections, and broadcasts to them.

`Hub` has the public methods, and each job is done by a part that the hub holds. A part does not know the hub: it gets
what it needs as an argument. A hub belongs to the thread of its event loop. Other threads use `publish_threadsafe`.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import threading
from collections.abc import Callable, Hashable, Iterable
from typing import Any

from .. import limits
from ..conn.connection import Conn
from ..conn.graceful_close import GracefulClose, ShutdownReport, TimeBudget, check_graceful_close
from ..constants import CloseCode
from ..counters import RequestCounters
from ..errors import ConcurrencyError
from ..position import Position
from ..protocol.message import Data
from ..protocol.state import check_close
from ..transport.forks import FOREIGN, check_owner, detach_on_fork, loop_descriptors
from ..transport.loop_context import loop_context
from ..transport.timers import Timers
from ..validation import check_call
from .broadcaster import Broadcaster, DataAt, Rooms
from .config import HubConfig
from .events import CountWatchers, EventDispatcher
from .history import Recovery
from .history_store import EncodeRecovered, HistoryStore, check_recovery, send_missed
from .member import AnyMember, close_member
from .membership import Membership
from .metrics import HubMetrics, collect_metrics, inspect_member, inspect_room
from .presence import PresenceCallback, PresenceIndex, RoomPresence, check_user_id
from .results import BroadcastResult, Gap, MemberInfo, RoomInfo
from .rooms import RoomTable
from .scheduler import FanOutScheduler
from .shutdown import begin_shutdown
from .slow_members import SlowMembers

__all__ = ["Hub"]


class Hub:
    """Rooms and broadcasts in one process.

    Use it with ``async with``, or call :meth:`stop` at the end.

    Args:
        workers: cooperative workers that carry broadcasts, 1 or more (default 4). Or a :class:`plumews.HubConfig`
            with all settings.
        job_queue_size: broadcasts that may wait for a worker, 1 or more (default 1024).

    Raises:
        TypeError: ``workers`` is neither a number nor a ``HubConfig``.
        ValueError: a number is out of range.
    """

    def __init__(self, workers: int | HubConfig = limits.WORKERS, job_queue_size: int = limits.JOB_QUEUE_SIZE) -> None:
        if isinstance(workers, HubConfig):
            config = workers
        elif not isinstance(workers, int):
            raise TypeError(f"a Hub takes a number of workers or a plumews.HubConfig, not {type(workers).__name__}")
        else:
            config = HubConfig(workers=workers, job_queue_size=job_queue_size)
        self.config = config
        self._rooms: RoomTable[Any] = RoomTable(
            max_connections=config.max_connections,
            max_room_connections=config.max_room_connections,
            max_rooms_per_connection=config.max_rooms_per_connection,
            check_name=config.check_room_name,
        )
        self._events = EventDispatcher()
        self._counts = CountWatchers(self._rooms.count)
        self._presence: PresenceIndex[Any] = PresenceIndex(self._rooms.rooms_of)
        policy = config.history_policy
        self._history = None if policy is None else HistoryStore(policy, config, self._rooms.count)
        self._slow = SlowMembers(config, self._rooms.rooms_of, self._events)
        self._members = Membership(
            config, self._rooms, self._events, self._counts, self._presence, self._history, self._slow
        )
        scheduler = FanOutScheduler(config.workers, config.job_queue_size)
        self._broadcaster = Broadcaster(self._rooms, self._presence, self._history, self._slow, scheduler)
        #: Counters of the servers that let members in.
        self._requests = RequestCounters()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: int | None = None
        self._shutdown: asyncio.Task[ShutdownReport] | None = None
        self._limit: TimeBudget | None = None

    # --- membership -------------------------------------------------------------------------------

    def join(self, room: str, conn: AnyMember) -> None:
        """Add ``conn`` to ``room``. Joining twice is harmless. A connection leaves by itself when it closes.

        The user of the connection, for :meth:`presence` and :meth:`send_to_user`, is what ``conn.user_info`` says now.
        Join again after a change of that. To move a connection to another room, join the new room before leaving the
        old one. Otherwise it counts as a new connection against ``accept_rate``.

        Args:
            room: name of the room.
            conn: an open connection of the hub's event loop, or an object that keeps :class:`plumews.hub.Member`.

        Raises:
            HubStopped, InvalidRoomName, ConnectionClosed, HubFull, RoomFull, TooManyRooms: nothing was changed.
            RateLimited: nothing was changed. Its ``retry_after`` says when to try again.
            ConcurrencyError: the hub, or ``conn``, belongs to another event loop.
            TypeError: ``conn`` is neither a ``Conn`` nor a ``plumews.hub.Member``. The text names what is missing.
        """
        self._members.join(room, conn, self._bind(), self.remove)

    def can_join(self, room: str) -> None:
        """Raise the error that :meth:`join` would raise for a new connection now. Changes nothing, counts a refusal."""
        self._members.check_join(room, self._bind)

    def leave(self, room: str, conn: AnyMember) -> None:
        """Remove ``conn`` from ``room``. Harmless if it is not a member."""
        self._members.leave(room, conn, self._bind(), self.remove)

    def remove(self, conn: AnyMember) -> None:
        """Remove ``conn`` from all its rooms. It stays open."""
        self._members.remove(conn, self._bind(), self.remove)

    def room_count(self, room: str) -> int:
        """Return the number of members of ``room``, 0 if there is no such room."""
        return self._rooms.count(room)

    def total_count(self) -> int:
        """Return the sum of the members of all rooms. A connection in two rooms counts twice."""
        return self._rooms.registrations

    def connection_count(self) -> int:
        """Return the number of unique connections in any room."""
        return self._rooms.connections

    def rooms(self) -> list[str]:
        """Return the names of the rooms that have members."""
        return self._rooms.names()

    def rooms_of(self, conn: AnyMember) -> list[str]:
        """Return the names of the rooms that ``conn`` is in."""
        return self._rooms.rooms_of(conn)

    def members(self, room: str) -> list[Conn]:
        """Return a snapshot of the members of ``room``, in the order in which they joined.

        A member that is no ``Conn`` is in it as the object that joined.
        """
        return list(self._rooms.snapshot(room).members)

    # --- callbacks --------------------------------------------------------------------------------

    def on_join(self, callback: Callable[[str, Any], object]) -> Callable[[], None]:
        """Call ``callback(room, conn)`` whenever a connection has joined a room.

        The callback may join, leave, close and publish. Changes made by a callback are reported after all callbacks
        were called for the first change. An exception is reported to the event loop, and the join stands. Each call
        runs in a new copy of the context in which ``on_join`` was called.

        Args:
            callback: a plain function.

        Returns:
            The function that ends it.

        Raises:
            TypeError: ``callback`` is not a plain function of these arguments.
        """
        return self._on("join", callback, "room", "conn")

    def on_leave(self, callback: Callable[[str, Any], object]) -> Callable[[], None]:
        """Call ``callback(room, conn)`` when a connection has left a room or closed. As :meth:`on_join` otherwise."""
        return self._on("leave", callback, "room", "conn")

    def watch_count(self, room: str, callback: Callable[[str, int], object]) -> Callable[[], None]:
        """Call ``callback(room, count)`` after the member count of ``room`` changed, at most 10 times a second.

        Args:
            room: name of the room.
            callback: a plain function.

        Returns:
            The function that ends it.

        Raises:
            InvalidRoomName: the room's name is outside the policy.
            TypeError: ``callback`` is not a plain function of these arguments.
        """
        check_call("the callback of watch_count", callback, "room", "count")
        self._bind()
        self._rooms.check_name(room)
        return self._checked(self._counts.add(room, callback))

    def on_slow(self, callback: Callable[[Any], object]) -> Callable[[], None]:
        """Call ``callback(conn)`` when the send queue of a member is half full and its peer does not read.

        It is called once until the queue was empty again. Callbacks about slow members are called at the end of the
        event loop iteration. As :meth:`on_join` otherwise.
        """
        return self._on("slow", callback, "conn")

    def on_drop(self, callback: Callable[[Any, str | None, int], object]) -> Callable[[], None]:
        """Call ``callback(conn, room, count)`` when a member has lost messages. As :meth:`on_slow` otherwise.

        Losses of one event loop iteration are reported together. ``room`` is ``None`` if the messages were for
        all members, for several rooms or for one user, or may be of any room of the member.
        """
        return self._on("drop", callback, "conn", "room", "count")

    def on_gap(self, callback: Callable[[Any, Gap], object]) -> Callable[[], None]:
        """Call ``callback(conn, gap)`` when a member that lost messages takes others again, or ends.

        If ``encode_gap`` is configured and the connection was not cut, its message stands at that point of the stream.
        ``gap.dropped`` counts the messages lost since the last call for this member and room. As :meth:`on_slow`
        otherwise.
        """
        return self._on("gap", callback, "conn", "gap")

    # --- users ------------------------------------------------------------------------------------

    def connections_of(self, user_id: str) -> list[Conn]:
        """Return the connections in any room whose ``user_info.id`` is ``user_id``, in the order of their joins.

        Raises:
            TypeError: ``user_id`` is not a ``str``.
            ValueError: ``user_id`` is empty.
        """
        return list(self._presence.members(check_user_id(user_id)))

    def disconnect_user(self, user_id: str, code: int = CloseCode.POLICY_VIOLATION, reason: str = "") -> int:
        """Close all connections of a user in this hub, behind the messages that were sent to them.

        The user may connect again: refuse the user in the handshake, too.

        Args:
            user_id: as in :meth:`connections_of`.
            code: close code (default 1008).
            reason: close reason, up to 123 bytes.

        Returns:
            The number of connections that were open.

        Raises:
            TypeError, ValueError: an argument is not valid. Nothing was closed.
        """
        self._bind()
        check_close(code, reason)
        members = self._presence.members(check_user_id(user_id))
        still_open = [each for each in members if not (isinstance(each, Conn) and each.closed)]
        for member in still_open:
            if not isinstance(member, Conn):
                self._broadcaster.catch_up(member)
            close_member(member, code, reason)
        return len(still_open)

    def presence(self, room: str) -> RoomPresence:
        """Return the users in ``room``, one entry each, and the number of connections without a user id.

        Users are known by ``conn.user_info``, which a token sets, or the application before it calls :meth:`join`.
        """
        return self._presence.presence(room, self._rooms.count(room))

    def watch_presence(self, room: str, callback: PresenceCallback) -> Callable[[], None]:
        """Call ``callback(room, joined, left)`` after users joined or left ``room``, a few times a second at most.

        ``joined`` and ``left`` are tuples of :class:`plumews.UserInfo`, the difference to the last call. The first
        call, soon, names all users of the room. A user is present while one of its connections is. A user that left
        and is back by the next call is not mentioned. Anonymous connections are not users. As :meth:`watch_count`
        otherwise.
        """
        self._bind()
        self._rooms.check_name(room)
        check_call("the callback of watch_presence", callback, "room", "joined", "left")
        return self._checked(self._presence.watchers.add(room, callback))

    # --- history ----------------------------------------------------------------------------------

    def position(self, room: str) -> Position | None:
        """Return the position behind the newest message that was broadcast to ``room``. ``None`` without a history.

        A connection that joins now gets the messages behind it. The history of a room begins with its first message,
        or with this call.

        Raises:
            HubStopped: the hub forgets everything when it stops.
            InvalidRoomName: the room's name is outside the policy.
        """
        timers = self._timers()
        self._members.check_running()
        self._rooms.check_name(room)
        return None if self._history is None else self._history.position(room, timers)

    def recover(
        self, room: str, conn: AnyMember, position: Position, *, encode_recovered: EncodeRecovered | None = None
    ) -> Recovery:
        """:meth:`join` ``room``, and send what was broadcast to it since ``position`` before all later messages.

        The kept messages are queued at once, in order. The result says whether that is all. It is not if a message was
        too old or too much for the bounds of the history, or if the send queue had no space for the rest, which counts
        in ``dropped_messages``. Of a ``position`` in another life of the history everything that is kept is sent. Of
        one in the future nothing is sent.

        Pass ``Position("", 0)`` to receive the whole retained history. That is complete if nothing was dropped since
        the history of the room began.

        Messages to all members, to one user, with ``where=`` and with ``keep=False`` are not part of a room's history.
        Messages that were broadcast with ``exclude=`` are. Messages to several rooms are in the history of each.

        Args:
            room: as in :meth:`join`.
            conn: a connection that is not in ``room``.
            position: the position of the last message that the client has seen.
            encode_recovered: a plain function that returns the message to send before the missed ones. It gets the
                :class:`Recovery`. ``str`` is sent as text, bytes-like as binary, ``None`` sends nothing. It cannot
                broadcast. By default nothing is sent.

        Raises:
            HubError, ConnectionClosed, ConcurrencyError: as :meth:`join`. Nothing was changed.
            ValueError: ``conn`` is a member already.
            TypeError: ``position`` is not a ``Position``, or ``encode_recovered`` is not a plain function, or returns
                no message. An exception of it is raised, too, and ``conn`` is not a member then.
        """
        check_recovery(position, encode_recovered)
        missed = self._history, room, conn, position, self._timers()
        send = functools.partial(send_missed, *missed, encode_recovered, self._broadcaster.ask, self._slow.others)
        if not isinstance(conn, Conn):
            self._broadcaster.catch_up(conn)  # a broadcast that it left before is decided first
        return self._members.rejoin(room, conn, self._bind(), self.remove, send)

    # --- broadcasting -----------------------------------------------------------------------------

    def broadcast_room(
        self,
        room: Rooms,
        data: Data | DataAt,
        opcode: int | None = None,
        *,
        exclude: AnyMember | None = None,
        where: Callable[[Any], bool] | None = None,
        key: Hashable = None,
        compress: bool | None = None,
        keep: bool = True,
    ) -> BroadcastResult:
        """Send a message to all members of ``room``, without waiting.

        Args:
            room: name of a room. An unknown or empty room is not an error. Or a list, tuple or set of names: each
                member of any of these rooms gets the message once, in the order of each of these rooms.
            data: ``str``, or bytes-like, which is copied if it can change. Or a plain function that returns one of
                these. It is called once, before anything is sent, with the :class:`plumews.Position` of the message
                in the history of ``room``. It gets ``None`` if the message is in no history, and for several rooms a
                dict of the positions by room. It cannot broadcast.
            opcode: ``Opcode.TEXT`` or ``Opcode.BINARY`` (default: by the type of ``data``).
            exclude: a member that does not get the message, such as the sender.
            where: a plain function. Only members for which it returns true get the message. It is called for all of
                them before anything is sent, so it should be quick.
            key: identifies the value that the message updates, in this room or these rooms. For a member under
                ``SendBehavior.CONFLATE`` the message replaces a queued one with an equal key. Other members get both.
            compress: for members that negotiated permessage-deflate. ``None``: from :attr:`plumews.Deflate.min_size`
                on, if it gets smaller. True: always. False: never. A message is compressed once for all members with
                the same parameters. With ``None`` one above 64 KiB is not: compressing 1 MiB blocks the loop for 20 ms.
            keep: True adds the message to the history of the room, if it has one (default True). Pass False for
                messages that are soon out of date, such as "Ada came in". With ``where`` nothing is kept.

        Raises:
            TypeError, ValueError: an argument is not valid.
            Exception: an exception of ``where``, or of ``data`` as a function. Nothing was sent.
            RuntimeError: called by a function that makes the text of a message: ``data``, ``encode_gap`` or
                ``encode_recovered``.
        """
        if room is None:  # a mistake must not become a message to all members
            return self._broadcaster.reject(BroadcastResult(invalid=True))
        broadcast = self._broadcaster.prepare(room, data, opcode, exclude, where, key, compress, keep)
        return self._broadcaster.broadcast(self._bind(), broadcast)

    def broadcast_all(
        self,
        data: Data | DataAt,
        opcode: int | None = None,
        *,
        exclude: AnyMember | None = None,
        where: Callable[[Any], bool] | None = None,
        key: Hashable = None,
        compress: bool | None = None,
    ) -> BroadcastResult:
        """Send a message to every member of any room, once each. As :meth:`broadcast_room` otherwise.

        The message is in no history: a function as ``data`` is called with ``None``.
        """
        broadcast = self._broadcaster.prepare(None, data, opcode, exclude, where, key, compress, False)
        return self._broadcaster.broadcast(self._bind(), broadcast)

    async def publish(
        self,
        room: Rooms | None,
        data: Data | DataAt,
        opcode: int | None = None,
        *,
        exclude: AnyMember | None = None,
        where: Callable[[Any], bool] | None = None,
        key: Hashable = None,
        compress: bool | None = None,
        keep: bool = True,
    ) -> BroadcastResult:
        """Send a message and wait until it is decided for every member. Nothing is pending in the result.

        It waits for space in the job queue, too, in the order of the calls. ``room=None`` is all members. The members
        are the ones at the end of that wait. ``where``, and ``data`` as a function, are called at that time. As
        :meth:`broadcast_room` otherwise.
        """
        broadcast = self._broadcaster.prepare(room, data, opcode, exclude, where, key, compress, keep)
        return await self._broadcaster.publish(self._bind(), broadcast)

    def publish_threadsafe(
        self,
        room: Rooms | None,
        data: Data | DataAt,
        opcode: int | None = None,
        *,
        key: Hashable = None,
        compress: bool | None = None,
        keep: bool = True,
    ) -> concurrent.futures.Future[BroadcastResult]:
        """Call :meth:`publish` from another thread. The future gives its result.

        A function as ``data`` is called on the thread of the hub.

        Raises:
            RuntimeError: the hub has no running event loop: no connection has joined and no ``async with`` was
                entered, or the loop is closed.
            TypeError, ValueError: as :meth:`broadcast_room`.
        """
        loop = self._loop
        check_owner(self._thread, "hub")
        if loop is None or loop.is_closed():
            raise RuntimeError("the hub is not running on an event loop")
        broadcast = self._broadcaster.prepare(room, data, opcode, None, None, key, compress, keep)
        return asyncio.run_coroutine_threadsafe(self._broadcaster.publish(loop, broadcast), loop)

    def send_to_user(
        self,
        user_id: str,
        data: Data,
        opcode: int | None = None,
        *,
        exclude: AnyMember | None = None,
        compress: bool | None = None,
    ) -> BroadcastResult:
        """Send a message to all connections of one user in this hub, in any room, without waiting.

        It comes behind earlier broadcasts to them, as a send to each of them would, and is counted as a broadcast.
        An absent user is not an error.

        Args:
            user_id: the ``user_info.id`` of the connections.
            data: ``str``, or bytes-like.
            opcode: as in :meth:`broadcast_room`.
            exclude: a connection that does not get the message, such as the one that caused it.
            compress: as in :meth:`broadcast_room`.

        Raises:
            TypeError, ValueError: ``user_id`` is not a ``str`` or is empty, or as :meth:`broadcast_room`.
            RuntimeError: as :meth:`broadcast_room`.
        """
        return self._broadcaster.send_to_user(self._bind(), user_id, data, opcode, exclude, compress)

    # --- metrics ----------------------------------------------------------------------------------

    def metrics(self) -> HubMetrics:
        """Return a snapshot of all metrics.

        Counters cost nothing. The backlog is added up over all members: with 10,000 members that takes 0.5 ms while
        they keep up, 5 ms if none of them does. Call it on the thread of the event loop.
        """
        return collect_metrics(self.config, self._rooms, self._members, self._slow, self._broadcaster, self._requests)

    def inspect(self, conn: AnyMember) -> MemberInfo:
        """Return a snapshot of ``conn``. It has no rooms if the connection is not a member.

        Raises:
            TypeError: ``conn`` is neither a :class:`plumews.Conn` nor a :class:`plumews.hub.Member`.
        """
        return inspect_member(conn, self._rooms, self._members, self._slow)

    def inspect_room(self, room: str) -> RoomInfo:
        """Return a snapshot of ``room``. Every member of it is looked at."""
        return inspect_room(room, self._rooms, self._slow)

    # --- shutdown ---------------------------------------------------------------------------------

    async def stop(self) -> ShutdownReport:
        """Call :meth:`shutdown` with its defaults."""
        return await self.shutdown()

    async def shutdown(
        self,
        timeout: float = limits.SHUTDOWN_TIMEOUT,
        *,
        restart: bool = False,
        spread: float | None = None,
        reconnect_in: float = limits.RECONNECT_IN,
    ) -> ShutdownReport:
        """Refuse joins and broadcasts, deliver earlier broadcasts, and close all members. Abort the slow ones.

        Members are closed in random order with 1001 (going away), or with 1012 (service restart) if ``restart``. The
        close reason tells each when to reconnect, such as ``reconnect in 3.2 s``. Cancelling the call does not stop
        the shutdown. A second call waits for the first and returns its report. A shorter ``timeout`` shortens it.

        Args:
            timeout: seconds in all (default 10). Half of it is for the broadcasts and for full members.
            restart: True tells members that the service comes back (default False).
            spread: seconds over which the close frames are sent, ``timeout`` at most (default: 1 s for each 2,000
                members, a fifth of ``timeout`` at most).
            reconnect_in: seconds within which members are told to reconnect, each at a random moment (default 5,
                3600 at most, 0: no hint).

        Raises:
            ValueError: a time is negative, not finite or too long.
            TypeError: a time is not a number.
        """
        check_graceful_close(timeout, spread, reconnect_in)
        loop = self._bind()
        if self._shutdown is None:
            self._limit = TimeBudget(timeout)
            code = CloseCode.SERVICE_RESTART if restart else CloseCode.GOING_AWAY
            wanted = self._members.is_to_close
            close = GracefulClose(self._limit, code=code, spread=spread, reconnect_in=reconnect_in, wanted=wanted)
            parts = self._rooms, self._members, self._broadcaster, self._slow, self._history
            self._shutdown = begin_shutdown(loop, self._limit, close, *parts, self.remove)
        elif self._limit is not None and not self._shutdown.done():
            self._limit.hasten(timeout)
        return await asyncio.shield(self._shutdown)

    async def __aenter__(self) -> Hub:
        self._bind()
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._thread != FOREIGN:  # else it goes on in the parent process
            await self.stop()

    def __repr__(self) -> str:
        state = "stopped" if self._members.stopped else "running"
        return f"<plumews.Hub {state} rooms={len(self.rooms())} connections={self.connection_count()}>"

    # --- inside -----------------------------------------------------------------------------------

    def _bind(self) -> asyncio.AbstractEventLoop:
        """Return the loop of this hub, the one on which it is first used. Raise on another thread."""
        if self._loop is None:
            try:
                self._loop = asyncio.get_running_loop()
            except RuntimeError:
                raise RuntimeError("no running event loop: a hub is used in coroutines and callbacks") from None
            self._thread = threading.get_ident()
            detach_on_fork(self)
        self._check_thread()
        if self._loop.is_closed():
            raise ConcurrencyError("the event loop of this hub is closed: make a hub for each loop")
        return self._loop

    def _check_thread(self) -> None:
        """Raise on another thread than the one of the hub. A hub that was not used yet belongs to none."""
        if self._thread is not None and threading.get_ident() != self._thread:
            check_owner(self._thread, "hub")
            raise ConcurrencyError(
                "a hub belongs to the thread of its event loop: "
                "use hub.publish_threadsafe or loop.call_soon_threadsafe, or make a hub for each loop"
            )

    def _forked(self) -> Iterable[int]:
        """Give the hub up in a child of the process that has it."""
        self._thread = FOREIGN
        assert self._loop is not None
        return loop_descriptors(self._loop)

    def _timers(self) -> Timers:
        return loop_context(self._bind()).timers

    def _on(self, event: str, callback: Callable[..., object], *parameters: str) -> Callable[[], None]:
        """Register ``callback`` for ``event``."""
        self._check_thread()
        check_call(f"the callback of on_{event}", callback, *parameters)
        return self._checked(self._events.add(event, callback))

    def _checked(self, end: Callable[[], None]) -> Callable[[], None]:
        """Return ``end`` for the application, which may call it on the thread of the hub only."""

        def checked() -> None:
            self._check_thread()
            end()

        return checked
