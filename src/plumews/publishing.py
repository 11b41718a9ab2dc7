"""Broadcasting: what is sent to whom, now or when there is space for it (layer 4).

One broadcast on its way is in `fanout`, the workers that carry it are in `lanes`. Invariants: what is broadcast to one
room arrives at each member in the order of the calls, whatever the number of workers; nothing that is sent to a member
directly overtakes it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
from collections.abc import Hashable

from .conn import Conn
from .errors import InvalidRoomName
from .fanout import Broadcast, Tally
from .hub_config import HubConfig
from .lanes import Lanes
from .membership import Membership
from .outgoing import Data, Encoded, encode, opcode_of, payload_of
from .reports import BroadcastResult

__all__ = ["Publishing"]


class Publishing(Membership):
    """The broadcasting half of :class:`plumews.Hub`."""

    def __init__(self, config: HubConfig) -> None:
        super().__init__(config)
        self._lanes = Lanes(config.workers, config.job_queue_size)
        self._gate = asyncio.Lock()  # of those who publish: first come, first served
        self._tally = Tally()

    # --- broadcasting -----------------------------------------------------------------------------

    def broadcast_room(
        self, room: str, data: Data, opcode: int | None = None, *, exclude: Conn | None = None, key: Hashable = None
    ) -> BroadcastResult:
        """Send a message to all members of ``room``; never waits.

        Args:
            room: an unknown or empty room is no error: nobody is matched.
            data: ``str``, or bytes-like, which is copied if it can change.
            opcode: ``Opcode.TEXT`` or ``Opcode.BINARY``; by default what the type of ``data`` says.
            exclude: a member that does not get it, such as the sender.
            key: what the message is the newest value of (in this room): for a member under ``SendBehavior.CONFLATE`` it
                takes the place of an older one with an equal key that still waits. Others get both.

        Raises:
            TypeError, ValueError: ``data`` or ``opcode`` is not what a message is made of, or ``key`` not hashable.
        """
        if room is None:  # a slip must not become a message to everybody
            return self._reject(BroadcastResult(invalid=True))
        return _result(self._submit(room, _encoded(data, opcode), exclude, self._key(room, key)))

    def broadcast_all(
        self, data: Data, opcode: int | None = None, *, exclude: Conn | None = None, key: Hashable = None
    ) -> BroadcastResult:
        """Send a message to every member of any room, once each. As :meth:`broadcast_room` otherwise."""
        return _result(self._submit(None, _encoded(data, opcode), exclude, self._key(None, key)))

    async def publish(
        self,
        room: str | None,
        data: Data,
        opcode: int | None = None,
        *,
        exclude: Conn | None = None,
        key: Hashable = None,
    ) -> BroadcastResult:
        """Send a message and wait until it is decided for every member: the result has nothing pending.

        Waits for space in the job queue, too, in the order of the calls. ``room=None`` is everybody. Raises as
        :meth:`broadcast_room`.
        """
        self._bind()
        return await self._publish(room, _encoded(data, opcode), exclude, self._key(room, key))

    def publish_threadsafe(
        self, room: str | None, data: Data, opcode: int | None = None, *, key: Hashable = None
    ) -> concurrent.futures.Future[BroadcastResult]:
        """:meth:`publish` from another thread; the future gives its result.

        Raises:
            RuntimeError: the hub has no running loop: nobody has joined and no ``async with`` was entered, or the
                loop is closed. TypeError, ValueError: as :meth:`broadcast_room`.
        """
        loop = self._loop
        if loop is None or loop.is_closed():
            raise RuntimeError("the hub is not running on an event loop")
        return asyncio.run_coroutine_threadsafe(
            self._publish(room, _encoded(data, opcode), None, self._key(room, key)), loop
        )

    async def _publish(
        self, room: str | None, message: Encoded, exclude: Conn | None, key: Hashable
    ) -> BroadcastResult:
        async with self._gate:
            while self._lanes.full(room):
                await self._lanes.changed()
            submitted = self._submit(room, message, exclude, key)
        if isinstance(submitted, Broadcast):
            await submitted.wait()
        return _result(submitted)

    def _submit(
        self, room: str | None, message: Encoded, exclude: Conn | None, key: Hashable
    ) -> Broadcast | BroadcastResult:
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
            slow=self._slow,
            still_member=functools.partial(table.is_member, room),
            room=room,
            key=key,
        )
        if matched and not self._lanes.submit(broadcast, room, loop):
            for conn in broadcast.unreached():
                conn._fall_behind(self._bring_up)
        return broadcast

    def _key(self, room: str | None, key: Hashable) -> Hashable:
        """``key`` as members' queues know it: those of other rooms and hubs are others."""
        if key is None:
            return None
        try:
            hash(key)
        except TypeError:
            raise TypeError(f"a key must be hashable, such as a str, not {type(key).__name__}") from None
        return (self._slow, room, key)

    def _reject(self, result: BroadcastResult) -> BroadcastResult:
        self._tally.rejected += 1
        self._tally.matched += result.matched
        self._tally.dropped += result.dropped
        return result

    def _bring_up(self, conn: Conn) -> None:
        for job in self._lanes.waiting():
            assert isinstance(job, Broadcast)
            job.bring_up(conn)


def _encoded(data: Data, opcode: int | None) -> Encoded:
    """``data`` as the frames that all members share."""
    opcode = opcode_of(data) if opcode is None else opcode
    return encode(opcode, payload_of(opcode, data))


def _result(submitted: Broadcast | BroadcastResult) -> BroadcastResult:
    return submitted.result() if isinstance(submitted, Broadcast) else submitted
