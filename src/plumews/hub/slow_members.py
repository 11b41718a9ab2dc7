"""What becomes of a broadcast for a member that does not keep up (layer 4).

Each member's own send behavior decides, and nobody holds up the others: under BLOCK a member that is full gets its send
timeout once, then what waits for it is dropped, and so is what follows until it has made room. A hub remembers a member
from its first loss, or from its first backlog if anybody wants to know, until it is found without one; one that has
left, until what waits for it is decided and what it is owed is told.

Invariants: every delivery that comes here is decided, or waits under a deadline; nothing that is queued here passes
what a member is owed an event about; what is still owed at the end of a connection stands before its close frame.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterator
from contextvars import Context
from time import monotonic
from typing import Protocol

from .. import limits
from ..conn.connection import Conn
from ..constants import SendBehavior, State
from ..protocol.message import EncodedMessage
from ..transport.timers import Deadline
from .budget import ByteBudget
from .config import HubConfig
from .drop_log import DropLog
from .events import EventDispatcher
from .loss_reports import Debt, Gaps
from .notices import Notices
from .results import BroadcastResult
from .waiting import Delivery as Waiting
from .waiting import PendingDeliveries

__all__ = ["Delivery", "SlowMember", "SlowMembers"]


class Delivery(Waiting, Protocol):
    """A broadcast on its way."""

    room: str | None
    key: Hashable

    def form(self, conn: Conn) -> EncodedMessage:
        """The message as ``conn`` gets it."""

    def _reach(self, conn: Conn) -> None:
        """Decide what becomes of it for ``conn``, from the start."""

    def _mark(self, conn: Conn) -> None:
        """The application may be called while ``conn`` is reached, and ask who was."""

    def result(self) -> BroadcastResult:
        """What is decided so far."""

    async def wait(self) -> None:
        """Until it is decided for all."""


class SlowMember:
    """What a hub remembers of a member."""

    __slots__ = ("deadline", "debt", "given_up", "moved", "told", "waiting")

    def __init__(self) -> None:
        #: Under BLOCK: until when it may make room, what waits for that, and whether the time is over.
        self.deadline: Deadline | None = None
        self.waiting: PendingDeliveries[Delivery] | None = None
        self.given_up = False
        #: What it lost and was not told of.
        self.debt = Debt()
        #: When it has left a room of which messages may still wait for it; 0.0 if there are none.
        self.moved = 0.0
        #: Whether the application was told that it is slow.
        self.told = False


class SlowMembers:
    """Those of one hub."""

    def __init__(self, config: HubConfig, rooms_of: Callable[[Conn], list[str]], callbacks: EventDispatcher) -> None:
        self._rooms_of = rooms_of
        self.members: dict[Conn, SlowMember] = {}
        #: Those who have left while broadcasts wait for them, who get no second timeout when they come back, or while
        #: they are owed an event.
        self._gone: dict[Conn, SlowMember] = {}
        self.notices = Notices(callbacks, self._look_who_listens)
        self._gaps = Gaps(config.encode_gap, self.notices)
        self._budget = ByteBudget(config.max_queued_bytes, self._backlogs, self._relieve)
        self._log = DropLog()
        #: Messages that gave way in the queues of members, and that newer ones with their key replaced.
        self.evicted = self.replaced = 0
        #: Whether a backlog is of interest before anything is lost.
        self.watching = False
        self._counting = self._telling = False  # whether drops are, and gaps
        #: Whether nobody is to hear of what is refused, neither the application nor a member.
        self.quiet = False
        self._look_who_listens()

    # --- who comes and goes -----------------------------------------------------------------------

    def joined(self, conn: Conn) -> None:
        """``conn`` is a member now."""
        if conn.send_behavior not in (SendBehavior.BLOCK, SendBehavior.CLOSE):
            conn._watch_losses(self._gave_way, self._gaps.encodes)
        member = self._gone.pop(conn, None)
        if member is not None:
            self.members[conn] = member

    def left(self, conn: Conn) -> None:
        """``conn`` is no member any more; its timeout, what waits for it and what it is owed go on to their end."""
        member = self.members.pop(conn, None)
        if member is not None and conn.state is not State.CLOSED and (member.waiting or member.debt or member.moved):
            self._gone[conn] = member
        else:
            conn._unwatch_losses(self._gave_way)

    def moved(self, conn: Conn) -> None:
        """``conn`` has left a room, of which messages may wait and still be lost."""
        if self._telling and conn._writer.paused and conn.queued_messages and conn.state is State.OPEN:
            self._member(conn).moved = monotonic()
            conn._owe(self)

    def waits_for(self, conn: Conn) -> bool:
        """Whether broadcasts wait until ``conn`` has made room."""
        member = self.members.get(conn)
        return member is not None and bool(member.waiting)

    def waiting(self) -> list[Delivery]:
        """The broadcasts that wait until members have made room."""
        return [delivery for member in self.members.values() for delivery in member.waiting or ()]

    def end(self) -> None:
        """The hub is stopped: nothing is left to come, not even for who has left."""
        for conn in list(self._gone):
            for delivery in self._no_more(conn, self._gone[conn]):
                self._refused(delivery, conn, "stopped")
            self.settle(conn, delivered=True)
        self._log.write()

    @property
    def encoding(self) -> bool:
        """Whether ``encode_gap`` is called at this moment."""
        return self._gaps.encoding

    def _look_who_listens(self) -> None:
        self.watching = self._budget.limit > 0 or self.notices.wanted("slow")
        self._counting = self.notices.wanted("drop")
        self._telling = self._gaps.wanted
        self.quiet = not (self.watching or self._counting or self._telling)

    # --- one delivery -----------------------------------------------------------------------------

    def reach(self, delivery: Delivery, conn: Conn) -> None:
        """``conn`` is remembered as slow."""
        self._mark(delivery, conn)
        member, writer = self.members[conn], conn._writer
        if _is_over(conn, member):
            del self.members[conn]
            delivery._reach(conn)
        elif member.debt.last.lost and _takes(conn, delivery.form(conn).size):
            self.pay(conn)
            delivery._reach(conn)
        elif delivery.key is not None and conn.send_behavior is SendBehavior.CONFLATE:
            self.conflate(delivery, conn)
        elif writer.offer(delivery.form(conn)):
            self._queued(delivery, conn)
            member.given_up = False
            if not self.watching and not member.debt:
                self.members.pop(conn, None)
        else:
            self.full(delivery, conn)

    def backlogged(self, conn: Conn, size: int) -> None:
        """``size`` bytes more wait for ``conn``, whose peer takes nothing."""
        self._member(conn)
        self._budget.grew(size + limits.QUEUED_OVERHEAD)
        self._look(conn)

    def conflate(self, delivery: Delivery, conn: Conn) -> None:
        """A message with a key, for a member whose behavior heeds it."""
        self._mark(delivery, conn)
        replaced = conn._writer.replaced
        if not conn._conflate(delivery.form(conn), delivery.key):
            self._refused(delivery, conn)
            return
        self.replaced += conn._writer.replaced - replaced
        self._queued(delivery, conn)

    def full(self, delivery: Delivery, conn: Conn) -> None:
        """The queue of ``conn`` has no space, and what could leave has left."""
        self._mark(delivery, conn)
        behavior = conn.send_behavior
        if self.watching:
            self._look(conn)
        if behavior is SendBehavior.DROP:
            self._refused(delivery, conn)
        elif behavior is SendBehavior.BLOCK:
            self._wait(delivery, conn)
        elif behavior is SendBehavior.CLOSE:
            self._refused(delivery, conn)
            self._log.closed(conn)
            conn._evict()
        elif conn._displace(delivery.form(conn)):
            self._queued(delivery, conn)
        else:
            self._refused(delivery, conn)

    def _mark(self, delivery: Delivery, conn: Conn) -> None:
        if self._gaps.encodes:
            delivery._mark(conn)

    def _queued(self, delivery: Delivery, conn: Conn) -> None:
        delivery._queue()
        conn._kick_later()
        if self.watching and conn._writer.paused:
            self.backlogged(conn, delivery.form(conn).size)

    def _look(self, conn: Conn) -> None:
        """Tell the application if the queue of ``conn`` is half full."""
        member, config = self._member(conn), conn._config
        half = conn.queued_messages * 2 >= config.queue_size or conn._writer.counted_bytes * 2 >= config.queue_bytes
        if half and conn._writer.paused and not member.told:
            member.told = True
            self.notices.slow(conn)

    # --- what is lost -----------------------------------------------------------------------------

    def unreached(self, delivery: Delivery, conn: Conn) -> None:
        """The hub stops before ``delivery`` has reached ``conn``, which may still be told."""
        if conn.state is State.OPEN and self._rooms_of(conn):
            self._refused(delivery, conn, "stopped")
        else:
            delivery._drop("stopped")

    def _refused(self, delivery: Delivery, conn: Conn, cause: str | None = None) -> None:
        self._drop(delivery, conn, cause)
        if self._telling:
            self._owe_last(delivery, conn)

    def _drop(self, delivery: Delivery, conn: Conn, cause: str | None = None) -> None:
        delivery._drop(cause or conn.send_behavior._value_)  # value would ask the class
        conn._writer.dropped += 1
        self._log.dropped(conn, 1)
        if self._counting:
            self.notices.dropped(conn, delivery.room, 1)

    def refuse_quietly(self, conn: Conn) -> None:
        """A broadcast is dropped for ``conn``, and there is nothing to do but to count it."""
        conn._writer.dropped += 1
        self._log.dropped(conn, 1)

    def _owe_last(self, delivery: Delivery, conn: Conn) -> None:
        """What ``conn`` did not get is missing behind all that waits for it."""
        self._known(conn).debt.last.add(delivery.room, 1)
        conn._owe(self)
        conn._fall_behind(self._pay_if_space)

    def _gave_way(self, conn: Conn, count: int, mine: bool) -> None:
        """Messages that waited for ``conn`` were dropped, oldest first. Of which room they were is not known any more,
        unless there is but one. It is ``mine`` to tell the peer, or that of another hub.
        """
        known = self.members.get(conn) or self._gone.get(conn)
        rooms = self._rooms_of(conn)
        alone = len(conn._loss_watchers or ()) == 1  # else it may have been another hub's
        room = rooms[0] if alone and len(rooms) == 1 and not (known is not None and known.moved) else None
        self.evicted += count
        self._log.dropped(conn, count)
        self.notices.dropped(conn, room, count)
        if self._telling:
            debt = self._known(conn).debt
            (debt.first if mine or not self._gaps.encodes else debt.elsewhere).add(room, count)
            conn._owe(self)
            if not conn._writer.paused:  # what waits leaves with this tick
                self.pay(conn)

    # --- what is owed -----------------------------------------------------------------------------

    def _pay_if_space(self, conn: Conn) -> None:
        """Something is to be sent to ``conn`` directly: what it is owed comes first, if that finds space at all."""
        member = self.members.get(conn) or self._gone.get(conn)
        if member is not None and member.debt.last.lost:
            if _takes(conn, 0):
                self.pay(conn)
            else:
                conn._fall_behind(self._pay_if_space)

    def pay(self, conn: Conn) -> None:
        """Queue the events that ``conn`` is owed, behind what waits for it."""
        member = self.members.get(conn) or self._gone.get(conn)
        if member is None or conn.state is not State.OPEN:
            return
        if not member.waiting:
            self._gaps.pay(conn, member.debt)
            if conn.queued_age <= monotonic() - member.moved:
                member.moved = 0.0  # what was queued until then has left
        if conn.state is not State.OPEN:
            self._gaps.give_up(conn, member.debt)
        elif member.waiting or member.debt or member.moved:
            conn._owe(self)
            return
        self._forget_gone(conn)

    def settle(self, conn: Conn, *, delivered: bool) -> None:
        """Nothing is queued for ``conn`` after this: tell what it has lost."""
        member = self.members.get(conn) or self._gone.get(conn)
        if member is None:
            return
        if delivered:
            self._gaps.pay(conn, member.debt)
        self._gaps.give_up(conn, member.debt)
        if not member.waiting:
            self._forget_gone(conn)

    def _forget_gone(self, conn: Conn) -> None:
        if self._gone.pop(conn, None) is not None:
            conn._unwatch_losses(self._gave_way)

    # --- BLOCK ------------------------------------------------------------------------------------

    def _wait(self, delivery: Delivery, conn: Conn) -> None:
        member = self._member(conn)
        # What is missing must be told before more may wait, or it would be told behind that.
        line, config = member.waiting, conn._config
        full = line is not None and (
            len(line) >= config.queue_size or line.bytes + delivery.message.size > config.queue_bytes
        )
        if member.given_up or member.debt.last.lost or full:
            self._refused(delivery, conn)
            return
        if member.waiting is None:
            delay = conn._config.send_timeout
            delay = limits.BROADCAST_WAIT if delay is None else delay
            member.deadline = conn._state.timers.after(delay, lambda: conn._guard(self._give_up_on, conn, member))
            member.waiting = PendingDeliveries(
                conn._writer,
                lambda: self._recovered(conn, member),
                lambda delivery: delivery.form(conn),
                lambda delivery: self._ended(delivery, conn),
            )
        member.waiting.add(delivery)

    def _ended(self, delivery: Delivery, conn: Conn) -> None:
        """``delivery`` found no space before the closing of ``conn``, which may still be told."""
        if conn.state is State.OPEN:
            self._refused(delivery, conn, "ended")
        else:
            delivery._drop("ended")

    def _recovered(self, conn: Conn, member: SlowMember) -> None:
        """Nothing waits for ``conn`` any more: all found space, or it ends."""
        assert member.deadline is not None
        member.deadline.cancel()
        member.waiting = None
        if member.debt:
            asyncio.get_running_loop().call_soon(conn._guard, self.pay, conn, context=Context())
        elif self.members.get(conn) is not member:
            self._forget_gone(conn)
        elif not self.watching:
            self.members.pop(conn, None)

    def _give_up_on(self, conn: Conn, member: SlowMember) -> None:
        """The send timeout is over: what waits is dropped, and so is what follows while ``conn`` is full."""
        member.given_up = True
        for delivery in self._no_more(conn, member):
            self._refused(delivery, conn)
        if not member.debt:
            self._forget_gone(conn)

    def _no_more(self, conn: Conn, member: SlowMember) -> Iterator[Delivery]:
        """What waits for ``conn`` stops waiting, one by one."""
        line, member.waiting = member.waiting, None
        if line is None:
            return iter(())
        assert member.deadline is not None
        member.deadline.cancel()
        return line.clear()

    # --- all together -----------------------------------------------------------------------------

    def _member(self, conn: Conn) -> SlowMember:
        member = self.members.get(conn)
        if member is None:
            member = self.members[conn] = SlowMember()
            self._budget.grew(conn._writer.held_bytes)
        return member

    def _known(self, conn: Conn) -> SlowMember:
        """The member, or who was one."""
        return self._gone.get(conn) or self._member(conn)

    def _backlogs(self) -> list[Conn]:
        for conn, member in list(self.members.items()):
            if _is_over(conn, member):
                del self.members[conn]
        return [conn for conn in self.members if conn.state is State.OPEN]

    def _relieve(self, conn: Conn) -> None:
        """Too much waits in all, and most of it for ``conn``."""
        count = 0
        if conn.send_behavior not in (SendBehavior.BLOCK, SendBehavior.CLOSE):
            count = conn._writer.evict()
            conn._gave_way(count)
        if not count:
            self._log.closed(conn)
            conn._evict()


def _is_over(conn: Conn, member: SlowMember) -> bool:
    """Whether there is nothing left to remember of ``conn``."""
    return not (conn._writer.queued_messages or member.waiting or member.debt)


def _takes(conn: Conn, size: int) -> bool:
    """Whether a message of ``size`` bytes could be queued for ``conn``, be it in the stead of others."""
    return conn._config.overflow.can_queue(conn, size)
