"""Shutdown of a hub: deliver the broadcasts, close the members, count the messages that did not arrive.

Invariant: each message that was owed to a member counts as delivered or as undelivered. Delivered is a message that has
left for the network, whether or not the peer reads it. A message that is sent while the hub stops may take the place of
an owed one. It never adds to them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import Any

from .. import limits
from ..conn.connection import Conn
from ..conn.full_queue import never_left
from ..conn.graceful_close import GracefulClose, ShutdownReport, TimeBudget
from ..constants import State
from .broadcaster import Broadcaster
from .history_store import HistoryStore
from .member import ClosingMember, Delivery
from .membership import Membership
from .rooms import RoomTable
from .slow_members import SlowMembers

__all__ = ["OwedMessages", "begin_shutdown", "settled"]


class OwedMessages:
    """Messages that members are to get when the shutdown begins: queued ones, and undecided broadcasts."""

    def __init__(self, members: Sequence[Conn], broadcaster: Broadcaster, slow: SlowMembers) -> None:
        self._members = members
        # A broadcast may stand in both lists.
        self._broadcasts: list[Delivery] = list(dict.fromkeys([*broadcaster.unfinished(), *slow.waiting()]))
        self._lost_messages, self._lost_bytes = self._lost()
        #: Their number, and their size as frames.
        self.messages, self.bytes = self._on_the_way(members)

    def undelivered(self) -> tuple[int, int]:
        """Return the number of owed messages that have not left by now, and their bytes."""
        messages, size = self._on_the_way([conn for conn in self._members if conn.state is not State.CLOSED])
        lost_messages, lost_bytes = self._lost()
        messages += lost_messages - self._lost_messages
        size += lost_bytes - self._lost_bytes
        return min(messages, self.messages), min(size, self.bytes)

    def _on_the_way(self, members: Sequence[Conn]) -> tuple[int, int]:
        """Return the messages and bytes in the queues of ``members`` and in undecided deliveries."""
        queued = [conn._waiting_data for conn in members]
        return _add_up(queued, [(each.result().pending, each.message.size) for each in self._broadcasts])

    def _lost(self) -> tuple[int, int]:
        """Return the messages and bytes that queues have given up and broadcasts have not delivered, so far."""
        given_up = [never_left(conn) for conn in self._members]
        results = [(each.result(), each.message.size) for each in self._broadcasts]
        return _add_up(given_up, [(result.dropped + result.skipped, size) for result, size in results])


def _add_up(queues: list[tuple[int, int]], broadcasts: list[tuple[int, int]]) -> tuple[int, int]:
    """Return the messages and bytes of queues, and of broadcasts by their number of members and the size for each."""
    messages = sum(count for count, _ in queues) + sum(count for count, _ in broadcasts)
    return messages, sum(size for _, size in queues) + sum(count * size for count, size in broadcasts)


def begin_shutdown(
    loop: asyncio.AbstractEventLoop,
    limit: TimeBudget,
    close: GracefulClose,
    rooms: RoomTable[Any],
    members: Membership,
    broadcaster: Broadcaster,
    slow: SlowMembers,
    history: HistoryStore | None,
    remove: Callable[[Any], object],
) -> asyncio.Task[ShutdownReport]:
    """Refuse joins and broadcasts from now on, and return the task that ends the hub within ``limit``.

    ``remove`` takes a member out of the hub that is no `Conn` and did not close in time.
    """
    members.stopped = broadcaster.stopped = True
    everyone = rooms.snapshot(None).members
    owed = OwedMessages([each for each in everyone if isinstance(each, Conn)], broadcaster, slow)
    catch_up = broadcaster.catch_up
    conns: list[Any] = [each if isinstance(each, Conn) else ClosingMember(each, catch_up, remove) for each in everyone]

    async def shut_down() -> ShutdownReport:
        rest = limit.left * (1 - limits.SETTLE_SHARE)
        await limit.bound(broadcaster.scheduler.idle(), max(0.0, limit.left - rest))
        if limit.over:
            broadcaster.give_up()  # else each member gets the rest when it is closed
        waited_for = {conn for conn in conns if slow.waits_for(conn)}
        await close.close(conn for conn in conns if conn not in waited_for)
        await limit.bound(settled(slow), max(0.0, limit.left - rest))
        await close.close(waited_for)
        await close.ended()
        limit.end()
        broadcaster.give_up()
        members.end_watches()
        slow.end()
        if history is not None:
            history.clear()
        messages, size = owed.undelivered()
        return ShutdownReport(
            closed=close.closed,
            aborted=close.aborted,
            delivered_messages=owed.messages - messages,
            delivered_bytes=owed.bytes - size,
            undelivered_messages=messages,
            undelivered_bytes=size,
        )

    return Context().run(loop.create_task, shut_down())


async def settled(slow: SlowMembers) -> None:
    """Wait until full members have made room for the broadcasts that wait for them, or had their time."""
    for broadcast in slow.waiting():
        await broadcast.wait()
