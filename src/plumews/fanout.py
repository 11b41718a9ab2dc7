"""One broadcast on its way to its members (layer 4).

The message is encoded once; every member's queue holds a reference to the same bytes. A member whose queue
is full is handled by its own send behavior and never holds up the others: under BLOCK it gets its send
timeout once, then what waits for it is dropped, and so is what follows until it has made room.

Invariants: at any moment ``matched = queued + dropped + skipped + pending``; whatever members do, nothing stays
pending for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from . import limits
from .conn import Conn
from .constants import CloseCode, SendBehavior, State
from .history import Position
from .lanes import clock
from .outgoing import Encoded
from .reports import BroadcastResult
from .rooms import Roll
from .timers import Deadline
from .writer import Waiter

__all__ = ["Broadcast", "Stall", "Tally"]

#: Members between two looks at the clock.
_STRIDE = 64


class Tally:
    """The sums over all broadcasts of a hub."""

    __slots__ = ("broadcasts", "dropped", "dropped_by", "matched", "pending", "queued", "rejected", "skipped")

    def __init__(self) -> None:
        self.broadcasts = self.rejected = 0
        self.matched = self.queued = self.dropped = self.skipped = self.pending = 0
        #: What was dropped, by the cause: the policy of a full member, its end, that of the hub, a full job queue.
        self.dropped_by = dict.fromkeys([*(each.value for each in SendBehavior), "ended", "stopped", "overloaded"], 0)


class Stall:
    """A BLOCK member that is full, and the broadcasts that wait for it.

    A hub keeps it while the connection is a member; when it leaves, its timeout and those that wait go on to their end.
    """

    __slots__ = ("deadline", "given_up", "waiting")

    def __init__(self) -> None:
        self.deadline: Deadline | None = None
        self.waiting: dict[Waiter, Broadcast] = {}
        self.given_up = False


class Broadcast:
    """A message and the members that were there when it was sent."""

    __slots__ = (
        "_done",
        "_early",
        "_members",
        "_next",
        "_roll",
        "_stalls",
        "_still_member",
        "_tally",
        "counts",
        "matched",
        "message",
        "position",
    )

    def __init__(
        self,
        message: Encoded,
        roll: Roll[Conn],
        *,
        exclude: Conn | None,
        tally: Tally,
        stalls: dict[Conn, Stall],
        still_member: Callable[[Conn], bool],
        position: Position | None = None,
    ) -> None:
        """``exclude`` stands in ``roll``, if it is given."""
        self.message = message
        self.position = position
        self._roll = roll
        self._members = roll.members
        self._next = 0
        #: Reached out of turn, or not to be reached at all.
        self._early: set[Conn] = set() if exclude is None else {exclude}
        self.matched = len(roll.members) - len(self._early)
        self._tally = tally
        self._stalls = stalls
        self._still_member = still_member
        self._done: asyncio.Future[None] | None = None
        self.counts = {"queued": 0, "dropped": 0, "skipped": 0}
        tally.broadcasts += 1
        tally.matched += self.matched
        tally.pending += self.matched

    # --- progress ---------------------------------------------------------------------------------

    @property
    def pending(self) -> int:
        return self.matched - sum(self.counts.values())

    def result(self) -> BroadcastResult:
        return BroadcastResult(
            matched=self.matched,
            queued=self.counts["queued"],
            dropped=self.counts["dropped"],
            skipped=self.counts["skipped"],
            pending=self.pending,
            position=self.position,
        )

    async def wait(self) -> None:
        """Until nothing is pending."""
        if self.pending:
            if self._done is None:
                self._done = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._done)

    def step(self, until: float) -> bool:
        """Reach members until :func:`plumews.lanes.clock` says ``until``; True when all were reached."""
        members, position, end = self._members, self._next, len(self._members)
        while position < end:
            stop = min(position + _STRIDE, end)
            for conn in members[position:stop]:
                if conn not in self._early:
                    self._reach(conn)
            self._next = position = stop
            if position < end and clock() >= until:
                return False
        return True

    def unreached(self) -> Sequence[Conn]:
        """The members that :meth:`step` has not come to."""
        return self._members[self._next :]

    def bring_up(self, conn: Conn) -> None:
        """Reach ``conn`` now, out of turn, because something else is to be sent to it behind this."""
        if conn not in self._early and self._roll.position(conn) >= self._next:
            self._early.add(conn)
            self._reach(conn)

    def give_up(self) -> None:
        """The hub stops: who was not reached will not get it."""
        for conn in self.unreached():
            if conn not in self._early:
                self._drop("stopped")
        self._next = len(self._members)

    # --- one member -------------------------------------------------------------------------------

    def _reach(self, conn: Conn) -> None:
        if conn.state is not State.OPEN or not self._still_member(conn):
            self._count("skipped")
        elif conn._writer.offer(self.message):
            self._count("queued")
            conn._kick_later()
            if self._stalls:
                self._stalls.pop(conn, None)
        elif conn.send_behavior is SendBehavior.BLOCK:
            self._wait_for(conn)
        else:
            self._drop("close" if conn.send_behavior is SendBehavior.CLOSE else "drop")
            conn._writer.dropped += 1
            if conn.send_behavior is SendBehavior.CLOSE:
                conn._begin_close(CloseCode.TRY_AGAIN_LATER, "send queue full", discard=True)

    def _wait_for(self, conn: Conn) -> None:
        stall = self._stalls.get(conn)
        if stall is None:
            stall = self._stalls[conn] = Stall()
            delay = conn._config.send_timeout
            delay = limits.BROADCAST_WAIT if delay is None else delay
            stall.deadline = conn._state.timers.after(delay, lambda: _give_up_on(conn, stall))
        if stall.given_up or len(stall.waiting) >= conn._config.queue_size:
            self._drop("block")
            conn._writer.dropped += 1
            return

        def done(accepted: bool) -> None:
            stall.waiting.pop(waiter, None)
            if accepted:
                self._count("queued")
            else:
                self._drop("ended")
            if not stall.waiting:
                self._recovered(conn, stall)

        waiter = conn._writer.wait(self.message, done)
        stall.waiting[waiter] = self

    def _recovered(self, conn: Conn, stall: Stall) -> None:
        if not stall.given_up:
            assert stall.deadline is not None
            stall.deadline.cancel()
            if self._stalls.get(conn) is stall:
                del self._stalls[conn]

    def _drop(self, cause: str) -> None:
        self._tally.dropped_by[cause] += 1
        self._count("dropped")

    def _count(self, outcome: str) -> None:
        self.counts[outcome] += 1
        self._tally.pending -= 1
        setattr(self._tally, outcome, getattr(self._tally, outcome) + 1)
        if self._done is not None and not self.pending and not self._done.done():
            self._done.set_result(None)


def _give_up_on(conn: Conn, stall: Stall) -> None:
    """The send timeout of a full member is over: what waits for it is dropped, and what follows while it is full."""
    stall.given_up = True
    for waiter, broadcast in list(stall.waiting.items()):
        if conn._writer.withdraw(waiter):
            broadcast._drop("block")
            conn._writer.dropped += 1
    stall.waiting.clear()
