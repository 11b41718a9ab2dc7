"""Broadcasting: what is sent to whom, now or when there is space for it (layer 4).

One broadcast on its way is in `fanout`, the workers that carry it are in `lanes`, whom it is for is in `audience`.
Invariants: what is broadcast to one room arrives at each member in the order of the calls, whatever the number of
workers; nothing that is sent to a member, or to a user, directly overtakes it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import math
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple, TypeAlias

from .. import limits
from ..conn.connection import Conn
from ..counters import BoundedCounter
from ..errors import InvalidRoomName
from ..position import Position
from ..protocol.message import Data, EncodedMessage, checked_compress, encode, opcode_of, payload_of
from ..transport.forks import check_owner
from ..transport.loop_context import loop_context
from ..validation import is_plain_function
from .audience import Recipients, Rooms, choose, key_of, target_of
from .config import HubConfig
from .fanout import FanOut, FanOutCounters
from .presence import check_user_id
from .recovery import Recovering
from .results import BroadcastResult
from .rooms import MemberSnapshot, Target
from .scheduler import FanOutScheduler

__all__ = ["DataAt", "Publishing"]

#: Makes a message, for the place in its room's history that it will have.
DataAt: TypeAlias = "Callable[[Any], Data]"


class _Unencoded(NamedTuple):
    """A message that is made when its position is known."""

    make: DataAt
    opcode: int | None
    compress: bool | None

    def encode(self, ask: Callable[[DataAt, object], Data], at: object) -> EncodedMessage:
        data = ask(self.make, at)
        opcode = opcode_of(data) if self.opcode is None else self.opcode
        return encode(opcode, payload_of(opcode, data), compress=self.compress)


class Publishing(Recovering):
    """The broadcasting half of :class:`plumews.Hub`."""

    def __init__(self, config: HubConfig) -> None:
        super().__init__(config)
        self._lanes = FanOutScheduler(config.workers, config.job_queue_size)
        self._gate = asyncio.Lock()  # of those who publish: first come, first served
        self._tally = FanOutCounters()
        self._outcomes = BoundedCounter(("invalid", "stopped", "overloaded"))  # of broadcasts that were not accepted

    # --- broadcasting -----------------------------------------------------------------------------

    def broadcast_room(
        self,
        room: Rooms,
        data: Data | DataAt,
        opcode: int | None = None,
        *,
        exclude: Conn | None = None,
        where: Callable[[Conn], bool] | None = None,
        key: Hashable = None,
        compress: bool | None = None,
        keep: bool = True,
    ) -> BroadcastResult:
        """Send a message to all members of ``room``; never waits.

        Args:
            room: an unknown or empty room is no error: nobody is matched. Several rooms, as a list, tuple or set of
                names: each member of any of them gets the message once, in the order of each of these rooms.
            data: ``str``, or bytes-like, which is copied if it can change. Or a plain function that returns one of
                these: it is called once, before anything is sent, with the :class:`plumews.Position` of the message
                in the history of ``room``. It gets ``None`` if the message is in no history, and for several rooms a
                dict of the positions by room. It cannot broadcast.
            opcode: ``Opcode.TEXT`` or ``Opcode.BINARY``; by default what the type of ``data`` says.
            exclude: a member that does not get it, such as the sender.
            where: a plain function; only members for which it returns true get the message. It is asked about all of
                them before anything is sent, so it should be quick.
            key: what the message is the newest value of (in this room, or these): for a member under
                ``SendBehavior.CONFLATE`` it takes the place of an older one with an equal key that still waits. Others
                get both.
            compress: for members that agreed on permessage-deflate. ``None``: from :attr:`plumews.Deflate.min_size` on,
                where it gets smaller. True: always. False: never. It is done once for all members that agreed on the
                same; one above 64 KiB is made in pieces before it goes on, so that it holds up nobody else.
            keep: whether the message becomes a part of the history of the room, if that has one (default True). Say
                False for what is out of date a moment later, such as "Ada came in". With ``where`` none is kept.

        Raises:
            TypeError, ValueError: ``data`` or ``opcode`` is not what a message is made of, ``where`` is no function,
                ``exclude`` is no ``Conn``, ``key`` is not hashable, ``compress`` or ``keep`` is no choice.
            What ``where`` raises, or ``data`` as a function: nothing was sent.
            RuntimeError: it is called by what makes the text of a message: ``data``, ``encode_gap``,
                ``encode_recovered``.
        """
        if room is None:  # a slip must not become a message to everybody
            return self._reject(BroadcastResult(invalid=True))
        target = target_of(room)
        message = _encoded(data, opcode, compress)
        return _result(self._submit(target, message, exclude, where, self._key(target, key), _checked_keep(keep)))

    def broadcast_all(
        self,
        data: Data | DataAt,
        opcode: int | None = None,
        *,
        exclude: Conn | None = None,
        where: Callable[[Conn], bool] | None = None,
        key: Hashable = None,
        compress: bool | None = None,
    ) -> BroadcastResult:
        """Send a message to every member of any room, once each. As :meth:`broadcast_room` otherwise.

        It is in no history: a function as ``data`` is called with ``None``.
        """
        return _result(self._submit(None, _encoded(data, opcode, compress), exclude, where, self._key(None, key)))

    async def publish(
        self,
        room: Rooms | None,
        data: Data | DataAt,
        opcode: int | None = None,
        *,
        exclude: Conn | None = None,
        where: Callable[[Conn], bool] | None = None,
        key: Hashable = None,
        compress: bool | None = None,
        keep: bool = True,
    ) -> BroadcastResult:
        """Send a message and wait until it is decided for every member: the result has nothing pending.

        Waits for space in the job queue, too, in the order of the calls. ``room=None`` is everybody. The members are
        those at the end of that wait, and so it is then that ``where``, and ``data`` as a function, are called. Raises
        as :meth:`broadcast_room`.
        """
        self._bind()
        target = target_of(room)
        message = _encoded(data, opcode, compress)
        return await self._publish(target, message, exclude, where, self._key(target, key), _checked_keep(keep))

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
        """:meth:`publish` from another thread; the future gives its result.

        A function as ``data`` is called on the thread of the hub.

        Raises:
            RuntimeError: the hub has no running loop: nobody has joined and no ``async with`` was entered, or the
                loop is closed. TypeError, ValueError: as :meth:`broadcast_room`.
        """
        loop = self._loop
        check_owner(self._thread, "hub")
        if loop is None or loop.is_closed():
            raise RuntimeError("the hub is not running on an event loop")
        target = target_of(room)
        message = _encoded(data, opcode, compress)
        publishing = self._publish(target, message, key=self._key(target, key), keep=_checked_keep(keep))
        return asyncio.run_coroutine_threadsafe(publishing, loop)

    def send_to_user(
        self,
        user_id: str,
        data: Data,
        opcode: int | None = None,
        *,
        exclude: Conn | None = None,
        compress: bool | None = None,
    ) -> BroadcastResult:
        """Send a message to all connections of one user in this hub, whatever rooms they are in; never waits.

        It comes behind what was broadcast to them before, as a send to each of them would, and it is counted as a
        broadcast. Nobody there is no error.

        Args:
            user_id: the ``user_info.id`` of the connections.
            data, opcode, compress: as in :meth:`broadcast_room`.
            exclude: a connection that does not get it, such as the one on which the user did what is told.

        Raises:
            TypeError, ValueError: ``user_id`` is no ``str`` or empty, or as :meth:`broadcast_room`.
            RuntimeError: as there.
        """
        loop = self._bind()
        opcode = opcode_of(data) if opcode is None else opcode
        message = encode(opcode, payload_of(opcode, data), compress=checked_compress(compress))
        _check_exclude(exclude)
        conns = self._people.members(check_user_id(user_id))
        self._check_not_within()
        if self._stopped:
            return self._reject(BroadcastResult(stopped=True))
        audience = Recipients(
            MemberSnapshot(conns),
            functools.partial(self._people.is_user, user_id),
            exclude if exclude in conns else None,
        )
        slow = message.size > limits.COMPRESS_PIECE and message.compress is not False
        if len(conns) > limits.USER_CONNECTIONS or (slow and any(conn._shared is not None for conn in conns)):
            return _result(self._start(message, audience, None, loop, None, kept=False))
        for conn in conns:
            if conn._behind is not None:
                conn._catch_up()
        broadcast = self._broadcast(message, audience)
        broadcast.step(math.inf)
        return broadcast.result()

    # --- inside -----------------------------------------------------------------------------------

    async def _publish(
        self,
        target: Target,
        message: EncodedMessage | _Unencoded,
        exclude: Conn | None = None,
        where: Callable[[Conn], bool] | None = None,
        key: Hashable = None,
        keep: bool = True,
    ) -> BroadcastResult:
        _check_exclude(exclude)
        async with self._gate:
            while self._has_names(target) and self._lanes.full(target):
                await self._lanes.changed()
            submitted = self._submit(target, message, exclude, where, key, keep)
        if isinstance(submitted, FanOut):
            await submitted.wait()
        pause = loop_context(self._bind()).count_await()
        if pause is not None:
            await pause
        return _result(submitted)

    def _submit(
        self,
        target: Target,
        message: EncodedMessage | _Unencoded,
        exclude: Conn | None,
        where: Callable[[Conn], bool] | None,
        key: Hashable,
        keep: bool = False,
    ) -> FanOut | BroadcastResult:
        """Start a broadcast, or say why not."""
        loop = self._bind()
        _check_exclude(exclude)
        self._check_not_within()
        if self._stopped:
            return self._reject(BroadcastResult(stopped=True))
        if not self._has_names(target):
            return self._reject(BroadcastResult(invalid=True))
        kept = keep and where is None
        told = None
        if isinstance(message, _Unencoded):
            # Now, not behind its position: to make room may call the application, which may broadcast.
            if not self._lanes.make_room(target):
                matched = choose(self._table, target, exclude, where).matched
                if matched:
                    return self._reject(BroadcastResult(matched=matched, dropped=matched, overloaded=True))
            told = self._next_position(target) if kept else None
            message = message.encode(self._asked, dict(told) if isinstance(told, dict) else told)
        audience = choose(self._table, target, exclude, where)
        return self._start(message, audience, target, loop, key, kept=kept, told=told)

    def _has_names(self, target: Target) -> bool:
        """Whether ``target`` is made of names within the policy."""
        try:
            if isinstance(target, tuple):
                for room in target:
                    self._table.check_name(room)
            elif target is not None:
                self._table.check_name(target)
        except InvalidRoomName:
            return False
        return True

    def _start(
        self,
        message: EncodedMessage,
        audience: Recipients[Conn],
        target: Target,
        loop: asyncio.AbstractEventLoop,
        key: Hashable,
        *,
        kept: bool,
        told: Position | dict[str, Position] | None = None,
    ) -> FanOut | BroadcastResult:
        """Give a broadcast to the lanes of ``target``; ``kept``: it becomes a part of the history.

        ``told`` is the position that stands in the message.
        """
        matched = audience.matched
        if matched and not self._lanes.make_room(target):
            return self._reject(BroadcastResult(matched=matched, dropped=matched, overloaded=True))
        position = self._record(target, message) if kept else None
        if told is not None:
            position = told  # more rooms than there may be histories: each one ends the one before it
        room = target if isinstance(target, str) else None
        broadcast = self._broadcast(message, audience, position, room, key)
        if not matched:
            return broadcast
        try:
            done = self._lanes.submit(broadcast, target, loop)
        except BaseException:
            broadcast.give_up()  # else it stays pending for ever
            raise
        if not done:
            for conn in broadcast.unreached():
                self._let_behind(conn)
        return broadcast

    def _let_behind(self, conn: Conn) -> None:
        try:
            conn._fall_behind(self._bring_up)
        except MemoryError as exc:
            conn._writer.fail(exc)  # what is sent to it next would come before this

    def _broadcast(
        self,
        message: EncodedMessage,
        audience: Recipients[Conn],
        position: Position | dict[str, Position] | None = None,
        room: str | None = None,
        key: Hashable = None,
    ) -> FanOut:
        return FanOut(
            message,
            audience.roll,
            exclude=audience.exclude,
            tally=self._tally,
            slow=self._slow,
            still_member=audience.still_member,
            position=position,
            room=room,
            key=key,
        )

    def _key(self, target: Target, key: Hashable) -> Hashable:
        """``key`` as members' queues know it: those of other rooms and hubs are others."""
        return None if key is None else (self._slow, key_of(target, key))

    def _check_not_within(self) -> None:
        if self._slow.encoding:
            raise RuntimeError("encode_gap must not broadcast: it may be called in the midst of a broadcast")
        if self._encoding:
            raise RuntimeError("what makes the text of a message must not broadcast: another would take its place")

    def _reject(self, result: BroadcastResult) -> BroadcastResult:
        self._tally.rejected += 1
        self._tally.matched += result.matched
        self._tally.dropped += result.dropped
        self._tally.dropped_by["overloaded"] += result.dropped
        self._outcomes.add("invalid" if result.invalid else "stopped" if result.stopped else "overloaded")
        return result

    def _bring_up(self, conn: Conn) -> None:
        for job in self._lanes.waiting():
            assert isinstance(job, FanOut)
            job.bring_up(conn)


def _encoded(data: Data | DataAt, opcode: int | None, compress: bool | None) -> EncodedMessage | _Unencoded:
    """``data`` as the frames that all members share, or as the function that makes it once its position is known."""
    if not isinstance(data, (str, bytes, bytearray, memoryview)) and callable(data):
        if not is_plain_function(data):
            raise TypeError("data must be a message, or a plain function that returns one: it cannot be awaited")
        if opcode is not None:
            payload_of(opcode, b"")  # a wrong one is told here
        return _Unencoded(data, opcode, checked_compress(compress))
    opcode = opcode_of(data) if opcode is None else opcode
    return encode(opcode, payload_of(opcode, data), compress=checked_compress(compress))


def _checked_keep(keep: bool) -> bool:
    if not isinstance(keep, bool):
        raise TypeError(f"keep must be True or False, not {type(keep).__name__}")
    return keep


def _check_exclude(exclude: object) -> None:
    """A ``TypeError`` for what could be no member: the message would go to whom it was not meant for."""
    if exclude is not None and not isinstance(exclude, Conn):
        raise TypeError(f"exclude must be a Conn or None, not {type(exclude).__name__}: for several use where")


def _result(submitted: FanOut | BroadcastResult) -> BroadcastResult:
    return submitted.result() if isinstance(submitted, FanOut) else submitted
