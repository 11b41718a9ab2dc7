"""Broadcasts of one hub: recipients, encoding, and the start of each fan-out.

Each accepted broadcast to rooms goes one way: `_submit`, `_start`, and a `FanOut` that `scheduler` steps. A call of
`broadcast` is accepted or rejected at once. A `publish` that waits for a place in the job queue is accepted after that
wait.

No direct send to a member, or to a user, overtakes an accepted broadcast. A connection that a broadcast does not reach
at once gets the hook :meth:`Broadcaster.catch_up`. Each direct send, and each close of ours, first calls the hooks of
its connection, by ``conn._catch_up()``. The hook reaches the connection with all broadcasts that come before the send.

Invariants: broadcasts to one room arrive at each member in the order in which they are accepted, whatever the number of
workers. A connection in several of the target rooms gets the message once. The predicate ``where`` is called before
anything is sent, so that nothing is sent if it raises.
"""

from __future__ import annotations

import asyncio
import functools
import math
from collections.abc import Callable, Hashable
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

from ..conn import full_queue
from ..conn.connection import Conn
from ..counters import BoundedCounter
from ..errors import InvalidRoomName
from ..protocol.message import Data, EncodedMessage, checked_compress, encode, opcode_of, payload_of
from ..transport.loop_context import loop_context
from ..validation import is_plain_function
from .fanout import FanOut, FanOutCounters
from .history_store import HistoryStore, Places
from .member import AnyMember, OwnKey, is_member
from .presence import PresenceIndex, check_user_id
from .results import BroadcastResult
from .rooms import MemberSnapshot, Recipients, RoomTable, Target
from .scheduler import FanOutScheduler
from .slow_members import SlowMembers

__all__ = ["Broadcaster", "DataAt", "Rooms", "choose", "key_of", "target_of"]

M = TypeVar("M")

#: Argument that names one room or several.
Rooms: TypeAlias = "str | list[str] | tuple[str, ...] | set[str] | frozenset[str]"

#: Function that makes a message for its position in the history of its room.
DataAt: TypeAlias = "Callable[[Any], Data]"

#: Connections of one user that a direct message reaches within the call. More are a fan-out by the workers.
USER_CONNECTIONS: Final = 64

#: Types whose values compare without code of the application.
_PLAIN: Final = (str, bytes, int)


# --- recipients -----------------------------------------------------------------------------------


def target_of(room: Rooms | None) -> Target:
    """Return the target for an argument that names rooms. The caller may change its list afterwards."""
    if isinstance(room, (list, tuple, set, frozenset)):
        names = tuple(room)
        # Only a name: ``[None]`` is not all rooms.
        return names[0] if len(names) == 1 and isinstance(names[0], str) else names
    return room


def choose(table: RoomTable[M], target: Target, exclude: M | None, where: Callable[[M], bool] | None) -> Recipients[M]:
    """Return the members of ``target`` now, without ``exclude``, for which ``where`` is true."""
    snapshot = table.snapshot(target)
    if exclude is not None and not table.is_member(target, exclude):
        exclude = None
    if where is not None:
        if not is_plain_function(where):
            raise TypeError("where must be a plain function that takes a Conn and returns a bool")
        snapshot = MemberSnapshot(
            tuple([member for member in snapshot.members if member is not exclude and where(member)])
        )
        exclude = None
    return Recipients(snapshot, functools.partial(table.is_member, target), exclude)


# --- keys -----------------------------------------------------------------------------------------


def key_of(target: Target, key: Hashable) -> Hashable:
    """Return ``key`` as one among the keys of all rooms. The order of several rooms does not matter."""
    if type(key) not in _PLAIN:
        try:
            key = OwnKey(key)
        except TypeError:
            raise TypeError(f"a key must be hashable, such as a str, not {type(key).__name__}") from None
    return (frozenset(target) if isinstance(target, tuple) else target, key)


# --- broadcasts -----------------------------------------------------------------------------------


class _Unencoded(NamedTuple):
    """A message that is made when its position is known."""

    make: DataAt
    opcode: int | None
    compress: bool | None

    def encode(self, ask: Callable[[DataAt, object], Data], at: object) -> EncodedMessage:
        data = ask(self.make, at)
        opcode = opcode_of(data) if self.opcode is None else self.opcode
        return encode(opcode, payload_of(opcode, data), compress=self.compress)


class _Broadcast(NamedTuple):
    """A broadcast whose arguments are checked."""

    target: Target
    message: EncodedMessage | _Unencoded
    exclude: AnyMember | None
    where: Callable[[Any], bool] | None
    key: Hashable
    keep: bool


class Broadcaster:
    """Broadcasts of one hub. The arguments of its methods are described at :class:`plumews.Hub`."""

    def __init__(
        self,
        rooms: RoomTable[Any],
        presence: PresenceIndex[Any],
        history: HistoryStore | None,
        slow: SlowMembers,
        scheduler: FanOutScheduler,
    ) -> None:
        self._rooms = rooms
        self._presence = presence
        self._history = history
        self._slow = slow
        self.scheduler = scheduler
        self.counters = FanOutCounters()
        #: Broadcasts that were not accepted, by reason.
        self.refusals = BoundedCounter(("invalid", "stopped", "overloaded"))
        #: True refuses all broadcasts.
        self.stopped = False
        self._publishing = asyncio.Lock()  # calls of publish() in their order
        self._asking = 0

    def prepare(
        self,
        room: Rooms | None,
        data: Data | DataAt,
        opcode: int | None,
        exclude: AnyMember | None,
        where: Callable[[Any], bool] | None,
        key: Hashable,
        compress: bool | None,
        keep: bool,
    ) -> _Broadcast:
        """Check the arguments of a broadcast, and return it. ``room=None`` is all members."""
        target = target_of(room)
        message = _encoded(data, opcode, compress)
        if key is not None:  # in send queues, where the keys of other hubs are different ones
            key = self._slow, key_of(target, key)
        if not isinstance(keep, bool):
            raise TypeError(f"keep must be True or False, not {type(keep).__name__}")
        _check_exclude(exclude)
        return _Broadcast(target, message, exclude, where, key, keep)

    def broadcast(self, loop: asyncio.AbstractEventLoop, broadcast: _Broadcast) -> BroadcastResult:
        """Send a message without waiting."""
        return _result(self._submit(loop, broadcast))

    async def publish(self, loop: asyncio.AbstractEventLoop, broadcast: _Broadcast) -> BroadcastResult:
        """Send a message, and wait until it is decided for every member."""
        target = broadcast.target
        async with self._publishing:
            while self._has_names(target) and self.scheduler.full(target):
                await self.scheduler.changed()
            submitted = self._submit(loop, broadcast)
        if isinstance(submitted, FanOut):
            await submitted.wait()
        pause = loop_context(loop).count_await()
        if pause is not None:
            await pause
        return _result(submitted)

    def send_to_user(
        self,
        loop: asyncio.AbstractEventLoop,
        user_id: str,
        data: Data,
        opcode: int | None,
        exclude: AnyMember | None,
        compress: bool | None,
    ) -> BroadcastResult:
        """Send a message to all connections of one user."""
        opcode = opcode_of(data) if opcode is None else opcode
        message = encode(opcode, payload_of(opcode, data), compress=checked_compress(compress))
        _check_exclude(exclude)
        members = self._presence.members(check_user_id(user_id))
        self._check_not_within()
        if self.stopped:
            return self.reject(BroadcastResult(stopped=True))
        recipients = Recipients(
            MemberSnapshot(members),
            functools.partial(self._presence.is_user, user_id),
            exclude if exclude in members else None,
        )
        if len(members) > USER_CONNECTIONS:
            return _result(self._start(loop, message, recipients, None, None, kept=False))
        for member in members:
            if not isinstance(member, Conn):
                self.catch_up(member)
            else:
                member._catch_up()
        fan_out = self._fan_out(message, recipients)
        fan_out.step(math.inf)
        return fan_out.result()

    def reject(self, result: BroadcastResult) -> BroadcastResult:
        """Count a broadcast that is not accepted, and return ``result``."""
        self.counters.rejected += 1
        self.counters.matched += result.matched
        self.counters.dropped += result.dropped
        self.counters.dropped_by["overloaded"] += result.dropped
        self.refusals.add("invalid" if result.invalid else "stopped" if result.stopped else "overloaded")
        return result

    def ask(self, function: Callable[[Any], Any], about: object) -> Any:
        """Return ``function(about)``, a function of the application that must not broadcast meanwhile."""
        self._asking += 1
        try:
            return function(about)
        finally:
            self._asking -= 1

    def unfinished(self) -> list[FanOut]:
        """Return the broadcasts that have not reached all their members, in the order of the calls."""
        return [job for job in self.scheduler.waiting() if isinstance(job, FanOut)]

    def give_up(self) -> None:
        """Drop unfinished broadcasts for the members that they have not reached."""
        for job in self.scheduler.clear():
            assert isinstance(job, FanOut)
            job.give_up()

    def catch_up(self, member: AnyMember) -> None:
        """Reach ``member`` now with all broadcasts that are to come before a direct send to it."""
        for fan_out in self.unfinished():
            fan_out.catch_up(member)

    # --- inside -----------------------------------------------------------------------------------

    def _submit(self, loop: asyncio.AbstractEventLoop, broadcast: _Broadcast) -> FanOut | BroadcastResult:
        """Start a broadcast, or return the result that says why not."""
        target, message, exclude, where, key, keep = broadcast
        self._check_not_within()
        if self.stopped:
            return self.reject(BroadcastResult(stopped=True))
        if not self._has_names(target):
            return self.reject(BroadcastResult(invalid=True))
        kept = keep and where is None
        told: Places = None
        if isinstance(message, _Unencoded):
            # Now, before the position is taken: to make room may call the application, which may broadcast.
            if not self.scheduler.make_room(target):
                matched = choose(self._rooms, target, exclude, where).matched
                if matched:
                    return self.reject(BroadcastResult(matched=matched, dropped=matched, overloaded=True))
            if kept and self._history is not None:
                told = self._history.next_places(target, loop_context(loop).timers)
            message = message.encode(self.ask, dict(told) if isinstance(told, dict) else told)
        recipients = choose(self._rooms, target, exclude, where)
        return self._start(loop, message, recipients, target, key, kept=kept, told=told)

    def _has_names(self, target: Target) -> bool:
        """Return True if the hub allows all room names in ``target``. ``None`` has no names."""
        try:
            if isinstance(target, tuple):
                for room in target:
                    self._rooms.check_name(room)
            elif target is not None:
                self._rooms.check_name(target)
        except InvalidRoomName:
            return False
        return True

    def _start(
        self,
        loop: asyncio.AbstractEventLoop,
        message: EncodedMessage,
        recipients: Recipients[Any],
        target: Target,
        key: Hashable,
        *,
        kept: bool,
        told: Places = None,
    ) -> FanOut | BroadcastResult:
        """Give a broadcast to the workers of ``target``. ``told`` is the position that stands in the message."""
        matched = recipients.matched
        if matched and not self.scheduler.make_room(target):
            return self.reject(BroadcastResult(matched=matched, dropped=matched, overloaded=True))
        position: Places = None
        if kept and self._history is not None:
            position = self._history.keep(target, message, loop_context(loop).timers)
        if told is not None:
            position = told  # with more rooms than histories are allowed, each new one ends the one before it
        fan_out = self._fan_out(message, recipients, position, target if isinstance(target, str) else None, key)
        if not matched:
            return fan_out
        try:
            done = self.scheduler.submit(fan_out, target, loop)
        except BaseException:
            fan_out.give_up()  # else it stays pending for ever
            raise
        if not done:
            for member in fan_out.unreached():
                if isinstance(member, Conn):
                    self._hook(member)
        return fan_out

    def _hook(self, conn: Conn) -> None:
        """Let ``conn`` call :meth:`catch_up` before a direct send to it."""
        try:
            full_queue.catch_up_with(conn, self.catch_up)
        except MemoryError as exc:
            conn._fail_output(exc)  # the next direct send to it would come before this broadcast

    def _fan_out(
        self,
        message: EncodedMessage,
        recipients: Recipients[Any],
        position: Places = None,
        room: str | None = None,
        key: Hashable = None,
    ) -> FanOut:
        return FanOut(message, recipients, self.counters, self._slow, position, room, key)

    def _check_not_within(self) -> None:
        if self._slow.reports.encoding:
            raise RuntimeError("encode_gap must not broadcast: it may be called in the midst of a broadcast")
        if self._slow.others.events.held:
            raise RuntimeError("a member must not broadcast where it is asked: that may be in the midst of a broadcast")
        if self._asking:
            raise RuntimeError("what makes the text of a message must not broadcast: another would take its place")


def _encoded(data: Data | DataAt, opcode: int | None, compress: bool | None) -> EncodedMessage | _Unencoded:
    """Return ``data`` as frames that all members share, or as the function that makes it for its position."""
    if not isinstance(data, (str, bytes, bytearray, memoryview)) and callable(data):
        if not is_plain_function(data):
            raise TypeError("data must be a message, or a plain function that returns one: it cannot be awaited")
        if opcode is not None:
            payload_of(opcode, b"")  # raises for a wrong opcode
        return _Unencoded(data, opcode, checked_compress(compress))
    opcode = opcode_of(data) if opcode is None else opcode
    return encode(opcode, payload_of(opcode, data), compress=checked_compress(compress))


def _check_exclude(exclude: object) -> None:
    """Raise `TypeError` for an object that cannot be a member. Else the member to exclude would get the message."""
    if exclude is not None and not is_member(exclude):
        raise TypeError(f"exclude must be a Conn, Member or None, not {type(exclude).__name__}: for several use where")


def _result(submitted: FanOut | BroadcastResult) -> BroadcastResult:
    return submitted.result() if isinstance(submitted, FanOut) else submitted
