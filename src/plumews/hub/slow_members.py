"""Delivery of broadcasts to slow members according to their overflow policy.

Under BLOCK a full member gets its send timeout once. Then the broadcasts that wait for it are dropped, and so are later
ones until it has made room. A hub remembers a member from its first loss, or from its first backlog if a callback or a
limit needs that, until the member has no backlog, and if it has left until its losses are reported.

Invariants: every delivery that comes here is decided, or waits under a deadline. No message that is queued here passes
a loss report that is due. Losses still unreported at the end of a connection are reported before its close frame. No
more than ``max_queued_bytes`` are queued at the end of an event loop iteration in which a broadcast exceeded them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextvars import Context
from functools import partial
from time import monotonic

from .. import limits
from ..conn import full_queue
from ..conn.closing import guard
from ..conn.connection import Conn
from ..conn.overflow import Outcome
from ..constants import State
from ..transport import waiters
from ..transport.timers import Deadline
from .config import HubConfig
from .events import EventDispatcher
from .loss_reports import DropLog, LossReports, Notices, UnreportedLoss
from .member import AnyMember, Delivery, OtherMembers

__all__ = ["ByteBudget", "PendingDeliveries", "SlowMember", "SlowMembers"]


class _Place:
    """Broadcasts that wait one behind the other. The first of them waits in the channel."""

    __slots__ = ("deliveries", "waiter")

    def __init__(self, delivery: Delivery) -> None:
        self.deliveries = deque((delivery,))
        self.waiter: waiters.Waiter | None = None


class PendingDeliveries:
    """Broadcasts that wait until one member has made room. They are queued in their order, and each is decided once.

    Hundreds of members may be full. So a waiting broadcast costs a reference to an object that all members share, and
    broadcasts in direct succession take one place among the waiters of the channel.
    """

    __slots__ = ("_conn", "_count", "_deadline", "_emptied", "_places", "_refused", "_refusing", "bytes")

    def __init__(
        self,
        conn: Conn,
        deadline: Deadline,
        emptied: Callable[[], None],
        refused: Callable[[Delivery, Conn], object],
        refusing: set[Conn],
    ) -> None:
        """Wait for space in the queue of ``conn`` until ``deadline``.

        ``emptied`` is called when nothing waits any more. ``refused`` decides a delivery that the end of ``conn`` ends.
        ``conn`` is no longer one of ``refusing``, because too many wait for it, when one of them is decided.
        """
        self._conn = conn
        self._deadline = deadline
        self._emptied = emptied
        self._refused = refused
        self._refusing = refusing
        self._places: deque[_Place] = deque()
        self._count = 0
        #: Bytes of the messages, as they were broadcast.
        self.bytes = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Delivery]:
        for place in self._places:
            yield from place.deliveries

    def add(self, delivery: Delivery) -> None:
        """Let ``delivery`` wait behind all others."""
        last = self._places[-1] if self._places else None
        if last is not None and last.waiter is waiters.last(self._conn):
            last.deliveries.append(delivery)
            self._add_to_counts(delivery, 1)
            return
        place = _Place(delivery)
        self._places.append(place)
        try:
            place.waiter = waiters.add(
                self._conn, delivery.encoding_for(self._conn), lambda accepted: self._decided(place, accepted)
            )
        except BaseException:
            self._places.pop()
            raise
        self._add_to_counts(delivery, 1)

    def clear(self) -> Iterator[Delivery]:
        """Withdraw all deliveries, and yield each for the caller to decide."""
        self._deadline.cancel()
        # The last first: after the withdrawal of a long message a shorter one behind it would pass the others.
        while self._places:
            place = self._places.pop()
            for delivery in place.deliveries:
                self._add_to_counts(delivery, -1)
            waiter, place.waiter = place.waiter, None
            assert waiter is not None
            waiters.withdraw(self._conn, waiter)
            yield from reversed(place.deliveries)

    def _add_to_counts(self, delivery: Delivery, by: int) -> None:
        self._count += by
        self.bytes += by * delivery.message.size
        if by < 0:
            self._refusing.discard(self._conn)

    def _decided(self, place: _Place, accepted: bool) -> None:
        """Queue the first delivery of ``place``, or refuse all of them because the member ends."""
        assert place is self._places[0]
        waiter = place.waiter
        assert waiter is not None
        delivery = place.deliveries.popleft()
        self._add_to_counts(delivery, -1)
        try:
            if accepted and place.deliveries:
                waiters.put_back(self._conn, waiter)  # before the encoding, which may fail: the end finds the waiter
                waiter.message = place.deliveries[0].encoding_for(self._conn)
            else:
                self._places.popleft()
                place.waiter = None  # breaks a reference cycle
        finally:
            if accepted:
                delivery._queue()
            else:
                for other in place.deliveries:
                    self._add_to_counts(other, -1)
                self._refused(delivery, self._conn)
                while place.deliveries:
                    self._refused(place.deliveries.popleft(), self._conn)
        if not self._count:
            self._deadline.cancel()
            self._emptied()


class ByteBudget:
    """Bound for the bytes in the send queues of all members of a hub; ``limit`` 0 is no bound.

    Queued bytes are added up, and bytes that have left are not subtracted. When this upper bound passes the limit, the
    members of ``backlogs()`` are measured, and ``evict(conn)`` is called for the largest.
    """

    #: Share of the limit that may stay after an eviction. Below 1, or each iteration would evict another member.
    LEFT = 0.875

    def __init__(self, limit: int, backlogs: Callable[[], list[Conn]], evict: Callable[[Conn], None]) -> None:
        self.limit = limit
        self._backlogs = backlogs
        self._evict = evict
        self._at_most = 0
        self._scheduled = False

    def add(self, size: int) -> None:
        """Count ``size`` bytes that were queued for a backlogged member."""
        self._at_most += size
        if self.limit and self._at_most > self.limit and not self._scheduled:
            asyncio.get_running_loop().call_soon(self._check, context=Context())
            self._scheduled = True

    def _check(self) -> None:
        self._scheduled = False
        backlogs = self._backlogs()
        self._at_most = sum(conn._held_bytes for conn in backlogs)
        if self._at_most <= self.limit:
            return
        for conn in sorted(backlogs, key=lambda conn: conn._held_bytes, reverse=True):
            self._at_most -= conn._held_bytes
            try:
                self._evict(conn)
            except Exception as exc:
                conn._fail_output(exc)  # the other members are still to be checked
            self._at_most += conn._held_bytes
            if self._at_most <= self.limit * self.LEFT:
                break


class SlowMember:
    """State that a hub keeps about one slow member."""

    __slots__ = ("given_up", "left", "loss", "moved", "told", "waiting")

    def __init__(self) -> None:
        #: Under BLOCK: the broadcasts that wait until it has made room, and True after the time for that.
        self.waiting: PendingDeliveries | None = None
        self.given_up = False
        #: True after it has left the hub. A member that comes back gets no second timeout.
        self.left = False
        #: Losses without a report.
        self.loss = UnreportedLoss()
        #: Time at which it left a room whose messages may still be queued for it; 0.0 if there are none.
        self.moved = 0.0
        #: True after the application was told that it is slow.
        self.told = False


class SlowMembers:
    """Slow members of one hub and the broadcasts waiting for them."""

    def __init__(self, config: HubConfig, rooms_of: Callable[[Conn], list[str]], callbacks: EventDispatcher) -> None:
        self._rooms_of = rooms_of
        #: Slow members, and those that have left while broadcasts wait for them or losses are unreported.
        self.members: dict[Conn, SlowMember] = {}
        callbacks.changed = self._update_listeners
        self.notices = Notices(callbacks)
        self.reports = LossReports(config.encode_gap, self.notices)
        self._budget = ByteBudget(config.max_queued_bytes, self._backlogs, self._relieve)
        self.log = DropLog()
        #: Full members that refuse every broadcast until their queue has space. A fan-out asks nothing else about them.
        self.refusing: set[Conn] = set()
        self.others = OtherMembers(self.reports, self.notices, self.log, callbacks)
        #: Messages that were displaced in the queues of members, and messages that newer ones with their key replaced.
        self.evicted = self.replaced = 0
        #: True if a backlog matters before anything is lost.
        self.watching = False
        self._reporting = False  # True if members or callbacks hear of gaps
        #: True if neither the application nor a member hears of a refused message.
        self.quiet = False
        self._update_listeners()

    # --- members come and go ----------------------------------------------------------------------

    def joined(self, conn: AnyMember) -> None:
        """Follow ``conn``, which has become a member."""
        if not isinstance(conn, Conn):
            self.others.joined(conn)
            return
        if conn._config.overflow.drops_queued:
            full_queue.watch_losses(conn, self._gave_way, self.reports.encodes)
        if conn in self.members:
            self.members[conn].left = False

    def left(self, conn: AnyMember) -> None:
        """Follow ``conn``, which is no member any more, until nothing waits for it and its losses are reported."""
        if not isinstance(conn, Conn):
            self.others.left(conn)
            return
        member = self.members.get(conn)
        if member is not None and conn.state is not State.CLOSED and (member.waiting or member.loss or member.moved):
            member.left = True
        else:
            self._forget(conn)

    def moved(self, conn: AnyMember) -> None:
        """Note that ``conn`` has left a room, whose messages may wait for it and still be lost."""
        if (
            self._reporting
            and isinstance(conn, Conn)
            and conn._paused
            and conn.queued_messages
            and conn.state is State.OPEN
        ):
            self._member(conn).moved = monotonic()
            full_queue.report_later(conn, self)

    def waits_for(self, conn: Conn) -> bool:
        """Return True if broadcasts wait until ``conn`` has made room."""
        member = self.members.get(conn)
        return member is not None and bool(member.waiting)

    def waiting(self) -> list[Delivery]:
        """Return the broadcasts that wait until members have made room."""
        present = [member for member in self.members.values() if not member.left]
        return [delivery for member in present for delivery in member.waiting or ()]

    def end(self) -> None:
        """Decide and report everything that is left, because the hub is stopped."""
        for conn, member in [each for each in self.members.items() if each[1].left]:
            waiting, member.waiting = member.waiting, None
            for delivery in waiting.clear() if waiting is not None else ():
                self._refused(delivery, conn, "stopped")
            self.report_last_losses(conn, delivered=True)
        self.log.write()

    def _update_listeners(self) -> None:
        self.watching = self._budget.limit > 0 or self.notices.wanted("slow")
        self._reporting = self.reports.wanted
        self.quiet = not (self.watching or self._reporting or self.notices.wanted("drop"))

    # --- one delivery -----------------------------------------------------------------------------

    def reach(self, delivery: Delivery, conn: Conn) -> None:
        """Deliver to ``conn``, which is known as slow."""
        self._mark(delivery, conn)
        member, policy = self.members[conn], conn._config.overflow
        if _is_over(conn, member):
            self._discard(conn)
            delivery._reach(conn)
        elif member.loss.last.lost and policy.can_queue(conn, delivery.encoding_for(conn).size):
            self.report_losses(conn)
            delivery._reach(conn)
        elif (delivery.key is None or not policy.uses_key) and conn._try_queue(delivery.encoding_for(conn)):
            self._queued(delivery, conn)
            member.given_up = False
            self.refusing.discard(conn)
            if not self.watching and not member.loss:
                self._discard(conn)
        else:
            self.overflow(delivery, conn)

    def backlogged(self, conn: Conn, size: int) -> None:
        """Note that ``size`` bytes more wait for ``conn``, whose peer reads nothing."""
        self._member(conn)
        self._budget.add(size + limits.QUEUED_OVERHEAD)
        self._check_half_full(conn)

    def overflow(self, delivery: Delivery, conn: Conn) -> None:
        """Deliver as the policy of ``conn`` decides. Its queue is full, or the key may replace a message in it."""
        self._mark(delivery, conn)
        if self.watching and conn._paused:
            self._check_half_full(conn)
        replaced = conn._replaced
        outcome = conn._config.overflow.broadcast(conn, delivery.encoding_for(conn), delivery.key)
        self.replaced += conn._replaced - replaced
        if outcome is Outcome.QUEUED:
            self._queued(delivery, conn)
        elif outcome is Outcome.WAITS:
            self._wait(delivery, conn)
        else:
            self._refused(delivery, conn)
            if outcome is Outcome.CLOSES:
                self._close(conn)

    def _mark(self, delivery: Delivery, conn: Conn) -> None:
        if self.reports.encodes:
            delivery._mark(conn)

    def _queued(self, delivery: Delivery, conn: Conn) -> None:
        delivery._queue()
        conn._kick_later()
        if self.watching and conn._paused:
            self.backlogged(conn, delivery.encoding_for(conn).size)

    def _check_half_full(self, conn: Conn) -> None:
        """Tell the application once if the queue of ``conn`` is half full."""
        member, config = self._member(conn), conn._config
        half = conn.queued_messages * 2 >= config.queue_size or conn._counted_bytes * 2 >= config.queue_bytes
        if half and conn._paused and not member.told:
            member.told = True
            self.notices.slow(conn)

    # --- losses -----------------------------------------------------------------------------------

    def unreached(self, delivery: Delivery, member: AnyMember) -> None:
        """Drop ``delivery``, because the hub stops before it has reached ``member``."""
        if not isinstance(member, Conn):
            self.others.unreached(delivery, member)
        elif member.state is State.OPEN and self._rooms_of(member):
            self._refused(delivery, member, "stopped")
        else:
            delivery._drop("stopped")

    def lost_quietly(self, refused: int, displaced: int, replaced: int) -> None:
        """Count messages whose loss nobody hears of: refused, displaced in the queues, or replaced there by key."""
        self.evicted += displaced
        self.replaced += replaced
        if refused or displaced:
            self.log.count(refused + displaced)

    def _refused(self, delivery: Delivery, conn: Conn, cause: str | None = None) -> None:
        delivery._drop(cause or conn.send_behavior._value_)  # value would ask the class
        conn._dropped += 1
        self.log.dropped(conn, 1)
        if self.quiet:
            return
        self.notices.dropped(conn, delivery.room, 1)
        if self._reporting:  # the message is missing behind everything that is queued
            self._member(conn).loss.last.lost.add(delivery.room, 1)
            full_queue.report_later(conn, self)
            full_queue.catch_up_with(conn, self._report_if_space)

    def _gave_way(self, conn: Conn, count: int, mine: bool) -> None:
        """Count ``count`` messages that were displaced in the queue of ``conn``, the oldest first.

        Their room is known only if ``conn`` has been in one room of one hub. With ``mine`` this hub tells the peer,
        else another one does.
        """
        known = self.members.get(conn)
        rooms = self._rooms_of(conn)
        alone = len(conn._loss_watchers or ()) == 1  # else the messages may have been another hub's
        room = rooms[0] if alone and len(rooms) == 1 and not (known is not None and known.moved) else None
        self.evicted += count
        self.log.dropped(conn, count)
        self.notices.dropped(conn, room, count)
        if self._reporting:
            loss = self._member(conn).loss
            (loss.first.lost if mine or not self.reports.encodes else loss.elsewhere).add(room, count)
            full_queue.report_later(conn, self)
            if not conn._paused:  # the queue leaves with this event loop iteration
                self.report_losses(conn)

    def _close(self, conn: Conn) -> None:
        self.log.closed(conn)
        full_queue.evict(conn)

    # --- loss reports -----------------------------------------------------------------------------

    def _report_if_space(self, conn: Conn) -> None:
        """Queue the report of losses before a direct message to ``conn``, if that finds space at all."""
        member = self.members.get(conn)
        if member is not None and member.loss.last.lost:
            if conn._config.overflow.can_queue(conn, 0):
                self.report_losses(conn)
            else:
                full_queue.catch_up_with(conn, self._report_if_space)

    def report_losses(self, conn: Conn) -> None:
        """Queue the loss reports of ``conn`` behind everything that waits for it."""
        member = self.members.get(conn)
        if member is None or conn.state is not State.OPEN:
            return
        if not member.waiting:
            self.reports.report(conn, member.loss)
            if conn.queued_age <= monotonic() - member.moved:
                member.moved = 0.0  # all messages that were queued then have left
        if conn.state is not State.OPEN:
            self.reports.give_up(conn, member.loss)
        elif member.waiting or member.loss or member.moved:
            full_queue.report_later(conn, self)
            return
        if member.left:
            self._forget(conn)

    def report_last_losses(self, conn: Conn, *, delivered: bool) -> None:
        """Report all losses of ``conn``, for which nothing more is queued. Without ``delivered`` no report leaves."""
        member = self.members.get(conn)
        if member is None:
            return
        if delivered:
            self.reports.report(conn, member.loss)
        self.reports.give_up(conn, member.loss)
        if member.left and not member.waiting:
            self._forget(conn)

    def _forget(self, conn: Conn) -> None:
        self._discard(conn)
        full_queue.unwatch_losses(conn, self._gave_way)

    # --- broadcasts that wait for space -----------------------------------------------------------

    def _wait(self, delivery: Delivery, conn: Conn) -> None:
        member, config = self._member(conn), conn._config
        waiting = member.waiting
        full = waiting is not None and (
            len(waiting) >= config.queue_size or waiting.bytes + delivery.message.size > config.queue_bytes
        )
        # A loss must be reported before more may wait, or it would be reported behind that.
        if member.given_up or member.loss.last.lost or full:
            if waiting is not None and len(waiting) >= config.queue_size:
                self.refusing.add(conn)
            self._refused(delivery, conn)
            return
        if waiting is None:
            delay = limits.BROADCAST_WAIT if config.send_timeout is None else config.send_timeout
            deadline = conn._state.timers.after(delay, partial(guard, conn, self._give_up_on, conn, member))
            waiting = PendingDeliveries(
                conn, deadline, lambda: self._recovered(conn, member), self._ended, self.refusing
            )
            member.waiting = waiting
        waiting.add(delivery)

    def _ended(self, delivery: Delivery, conn: Conn) -> None:
        """Drop ``delivery``, which found no space before the closing of ``conn``."""
        if conn.state is State.OPEN:  # the loss can still be reported
            self._refused(delivery, conn, "ended")
        else:
            delivery._drop("ended")

    def _recovered(self, conn: Conn, member: SlowMember) -> None:
        """Follow ``conn``, for which nothing waits any more."""
        member.waiting = None
        if member.loss:
            asyncio.get_running_loop().call_soon(guard, conn, self.report_losses, conn, context=Context())
        elif member.left:
            self._forget(conn)
        elif not self.watching:
            self._discard(conn)

    def _give_up_on(self, conn: Conn, member: SlowMember) -> None:
        """Drop everything that waits for ``conn``, and what follows while it is full: its send timeout is over."""
        member.given_up = True
        waiting, member.waiting = member.waiting, None
        for delivery in waiting.clear() if waiting is not None else ():
            self._refused(delivery, conn)
        if member.left and not member.loss:
            self._forget(conn)
        elif self.members.get(conn) is member:
            self.refusing.add(conn)

    # --- all members ------------------------------------------------------------------------------

    def _member(self, conn: Conn) -> SlowMember:
        member = self.members.get(conn)
        if member is None:
            member = self.members[conn] = SlowMember()
            conn._slow_hubs += 1
            self._budget.add(conn._held_bytes)
        return member

    def _discard(self, conn: Conn) -> None:
        if self.members.pop(conn, None) is not None:
            conn._slow_hubs -= 1
            self.refusing.discard(conn)

    def _backlogs(self) -> list[Conn]:
        for conn, member in list(self.members.items()):
            if _is_over(conn, member) and not member.left:
                self._discard(conn)
        return [conn for conn, member in self.members.items() if conn.state is State.OPEN and not member.left]

    def _relieve(self, conn: Conn) -> None:
        """Free the memory of the queue of ``conn``, or close it with 1013 if it may not lose messages."""
        if not conn._config.overflow.relieve(conn):
            self._close(conn)


def _is_over(conn: Conn, member: SlowMember) -> bool:
    """Return True if there is nothing left to remember of ``conn``."""
    return not (conn.queued_messages or member.waiting or member.loss)
