"""Fan-out: one broadcast on its way to its members.

The message is encoded once, and compressed once for all members that negotiated the same parameters. The queue of every
member holds a reference to the same bytes. `slow_members` delivers to members that do not keep up, which never hold up
the others. Compiled, the loop over the members is a loop in C.

Invariants: at any moment ``matched = queued + dropped + skipped + pending``. Whatever members do, nothing stays pending
for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Sequence
from typing import Any

from .. import limits
from ..conn.config import ConnConfig
from ..conn.connection import Conn
from ..conn.core import ConnCore
from ..constants import SendBehavior, State
from ..deflate.encodings import known_encoding, make_encoding
from ..deflate.outbound import DeflateParams
from ..position import Position
from ..protocol.message import EncodedMessage
from ..transport.displacing import conflate, displace
from ..transport.timers import clock
from .member import Member, OwnKey, plain_message
from .results import BroadcastResult
from .rooms import Recipients
from .slow_members import SlowMembers

__all__ = ["FanOut", "FanOutCounters"]

_OPEN = State.OPEN

#: Connections between two readings of the clock.
_STRIDE = 64

_NOBODY: set[Conn] = set()


class FanOutCounters:
    """Sums over all broadcasts of a hub."""

    __slots__ = (
        "broadcasts",
        "compressed",
        "compressed_after",
        "compressed_before",
        "dropped",
        "dropped_by",
        "matched",
        "pending",
        "queued",
        "rejected",
        "skipped",
    )

    def __init__(self) -> None:
        self.broadcasts = self.rejected = 0
        self.matched = self.queued = self.dropped = self.skipped = self.pending = 0
        #: Compressed encodings that were made, and the bytes before and after.
        self.compressed = self.compressed_after = self.compressed_before = 0
        #: Dropped deliveries by cause: the policy of a full member, its end, the end of the hub, a full job queue.
        self.dropped_by = dict.fromkeys([*(each.value for each in SendBehavior), "ended", "stopped", "overloaded"], 0)


class FanOut:
    """Delivery of one message to the members of a snapshot."""

    __slots__ = (
        "_at",
        "_config",
        "_counters",
        "_displaced",
        "_displaces",
        "_done",
        "_early",
        "_interval",
        "_members",
        "_mixed",
        "_next",
        "_only_drops",
        "_plain",
        "_quiet",
        "_reaching",
        "_refused",
        "_refusing",
        "_remembered",
        "_replaced",
        "_simple",
        "_slow",
        "_snapshot",
        "_still_member",
        "_sure",
        "_undecided",
        "_uses_key",
        "_watching",
        "dropped",
        "key",
        "matched",
        "message",
        "position",
        "queued",
        "room",
        "skipped",
    )

    def __init__(
        self,
        message: EncodedMessage,
        recipients: Recipients[Any],
        counters: FanOutCounters,
        slow: SlowMembers,
        position: Position | dict[str, Position] | None = None,
        room: str | None = None,
        key: Any = None,
    ) -> None:
        """Begin with the first of ``recipients``. ``room`` is ``None`` for several rooms, or for all."""
        self.message = message
        self.position = position
        self.room = room
        self.key = key
        self._snapshot = recipients.snapshot
        self._members = recipients.snapshot.members
        self._next = 0
        # Of the member that is being reached: the index behind it, True in the general way, and True until decided.
        self._at = 0
        self._reaching = self._undecided = False
        #: The message, if it is one buffer and replaces no earlier value in a queue.
        self._simple = message.buffers[0] if len(message.buffers) == 1 and key is None else None
        #: Members that were reached before their place in the snapshot, or are not to be reached at all.
        self._early: set[Any] = set() if recipients.exclude is None else {recipients.exclude}
        self.matched = recipients.matched
        self._counters = counters
        self._slow = slow
        #: True if some members may be no `Conn`.
        self._mixed = bool(slow.others)
        self._plain: tuple[str | bytes, Hashable] | None = None
        # Read for each member.
        self._remembered = slow.members
        self._watching = slow.watching
        self._still_member = recipients.still_member
        self._sure = False  # True while all of the snapshot are still members
        # As in `slow`, for members from which nothing leaves. The interval is 0 where all three are to be read again.
        self._quiet = False
        self._refusing: set[Conn] = _NOBODY
        self._interval = 0
        # Of members from which nothing leaves: how many have refused the message, and the messages that it has
        # displaced and replaced, none counted yet; and the configuration of the last one, with what its policy does.
        self._refused = self._displaced = self._replaced = 0
        self._config: ConnConfig | None = None
        self._only_drops = self._displaces = self._uses_key = False
        self._done: asyncio.Future[None] | None = None
        self.queued = self.dropped = self.skipped = 0
        counters.broadcasts += 1
        counters.matched += self.matched
        counters.pending += self.matched

    # --- progress ---------------------------------------------------------------------------------

    @property
    def pending(self) -> int:
        """Number of members for which the delivery is not decided."""
        return self.matched - self.queued - self.dropped - self.skipped

    def result(self) -> BroadcastResult:
        """Return the counts so far."""
        position = self.position
        return BroadcastResult(
            matched=self.matched,
            queued=self.queued,
            dropped=self.dropped,
            skipped=self.skipped,
            pending=self.pending,
            position=None if isinstance(position, dict) else position,
            positions=position if isinstance(position, dict) else None,
        )

    async def wait(self) -> None:
        """Wait until nothing is pending."""
        if self.pending:
            if self._done is None:
                self._done = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._done)

    def step(self, until: float) -> bool:
        """Reach members until :func:`plumews.transport.timers.clock` returns ``until``. Return True after the last one.

        A member for which that fails, as it may without memory, is ended. The others are reached.
        """
        while True:
            began = self._next
            try:
                return self._walk(until)
            except BaseException as exc:
                self._next = max(self._next, self._at)
                if self._undecided or self._reaching:
                    self._failed(self._members[self._at - 1], exc)
                elif self._next == began or not isinstance(exc, Exception):
                    raise

    def _walk(self, until: float) -> bool:
        members, position, end = self._members, self._next, len(self._members)
        plain, plain_size, remembered = self._simple, self.message.size, self._remembered
        simple, size = plain, plain_size
        # Parameters of this encoding and of the last compressed one: neighbours mostly negotiated the same.
        at_hand: DeflateParams | None = None
        known: DeflateParams | None = None
        squeezed, encoding_size, compressed = None, 0, self._counters.compressed
        mixed = self._mixed
        self._interval = 0
        try:
            while position < end:
                stop = min(position + _STRIDE, end)
                self._sure = self._snapshot.current
                while position < stop:
                    if mixed and not isinstance(members[position], ConnCore):
                        position += 1
                        self._next = position  # for `catch_up`: the member may call the application
                        self._undecided = True  # before the comparison, which may be the application's and fail
                        if members[position - 1] not in self._early:
                            self._settle()
                            self._reach_other(members[position - 1])
                            self._interval = 0
                        self._undecided = False
                        stop = position  # its method may have taken long
                        continue
                    conn = members[position]
                    position += 1
                    if self._early and conn in self._early:
                        continue
                    self._undecided = True
                    shared = conn._shared
                    if shared is not at_hand:
                        if shared is None:
                            simple, size = plain, plain_size
                        else:
                            if shared is not known:
                                encoding = self.encoding_for(conn)
                                if self._counters.compressed != compressed:  # a compression takes long
                                    compressed = self._counters.compressed
                                    stop = position
                                known = shared
                                squeezed = (
                                    encoding.buffers[0] if len(encoding.buffers) == 1 and self.key is None else None
                                )
                                encoding_size = encoding.size
                            simple, size = squeezed, encoding_size
                        at_hand = shared
                    if (
                        simple is not None
                        and self._sure
                        and (conn._slow_hubs == 0 or conn not in remembered)
                        and conn._open
                        and conn._try_queue_shared(simple, size)
                    ):
                        self._queue()  # nearly every delivery
                    elif self._sure and conn._paused and conn._open and self._overflow_quietly(conn, size):
                        pass  # nearly every delivery to a member that reads nothing
                    else:
                        self._settle()
                        self._reaching = True
                        self._reach(conn)
                        self._reaching = self._undecided = False  # decided, or it waits
                        self._interval = 0
                        self._sure = self._snapshot.current
                        if conn._compressor is not None and size >= limits.CONTEXT_LONG:
                            stop = position
                self._next = stop
                if position < end and clock() >= until:
                    return False
            return True
        finally:
            self._at = position
            self._settle()

    def encoding_for(self, conn: Conn) -> EncodedMessage:
        """Return the encoding of the message for ``conn``. Without memory for it that is the message itself."""
        params = conn._shared
        if params is None:
            return self.message
        encoding = known_encoding(self.message, params)
        if encoding is None:
            encoding = self.message
            try:
                encoding = self._count(make_encoding(self.message, params))
            except MemoryError:
                pass
        return encoding

    def plain(self) -> tuple[str | bytes, Hashable]:
        """Return the message and its key for a member that is no `Conn`."""
        if self._plain is None:
            key = self.key and self.key[1]
            if key and isinstance(key[1], OwnKey):
                key = key[0], key[1].key
            self._plain = plain_message(self.message), key
        return self._plain

    def _failed(self, member: Any, exc: BaseException) -> None:
        """End ``member``, which could not be reached: nothing else tells its peer that a message is missing."""
        if self._undecided:
            self._skip()
        self._reaching = self._sure = False
        if isinstance(member, ConnCore):
            conn = member
            conn._fail_output(exc)
        else:
            self._slow.others.fail(member, exc)

    def _count(self, encoding: EncodedMessage) -> EncodedMessage:
        if encoding is not self.message:
            self._counters.compressed += 1
            self._counters.compressed_before += self.message.size
            self._counters.compressed_after += encoding.size
        return encoding

    def unreached(self) -> Sequence[Any]:
        """Return the members that :meth:`step` has not reached."""
        return self._members[self._next :]

    def catch_up(self, member: Conn | Member) -> None:
        """Reach ``member`` now, because another message is to be sent to it behind this one."""
        if member not in self._early and self._snapshot.position(member) >= self._next:
            outer = self._reaching, self._undecided  # of another member, within whose reaching this is done
            self._early.add(member)
            self._sure = False
            self._undecided = True
            try:
                if isinstance(member, ConnCore):
                    self._reach(member)
                else:
                    self._reach_other(member)
            except BaseException as exc:
                self._failed(member, exc)
            finally:
                self._reaching, self._undecided = outer

    def give_up(self) -> None:
        """Stop the fan-out: count members not reached yet as dropped."""
        while self._next < len(self._members):
            member = self._members[self._next]
            self._next += 1
            if member not in self._early:
                self._undecided = True
                try:
                    self._slow.unreached(self, member)
                except Exception as exc:
                    self._failed(member, exc)
                self._undecided = False

    def _mark(self, conn: Conn) -> None:
        """Note for :meth:`catch_up` that ``conn`` is being reached, because the application may be called."""
        if conn not in self._early:
            self._next = self._snapshot.position(conn) + 1

    # --- one member -------------------------------------------------------------------------------

    # A full member costs a broadcast no more than any other where nobody hears of its losses: the hub adds them up.

    def _listen(self) -> None:
        """Note who hears of losses now."""
        slow = self._slow
        self._quiet, self._refusing, self._interval = slow.quiet, slow.refusing, slow.log.interval

    def _overflow_quietly(self, conn: Conn, size: int) -> bool:
        """Do what the policy of ``conn`` does, from which nothing leaves now.

        Return False, and do nothing, if ``size`` bytes have space in its queue, or if it takes the general way.
        """
        if self._interval == 0:  # the application may have been called
            self._listen()
        if not self._quiet:
            return False
        if conn._config is not self._config:  # mostly that of its neighbour
            self._settle()
            self._config = config = conn._config
            self._only_drops = config.overflow.only_drops
            self._displaces = config.overflow.displaces
            self._uses_key = self.key is not None and config.overflow.uses_key
        if not (self._uses_key or conn._is_stuck(size)):
            return False
        if self._only_drops or (conn._slow_hubs and conn in self._refusing):
            self._refused += 1
            conn._dropped += 1
            self._undecided = False
        elif not self._displaces or conn._slow_hubs or conn._loss_watchers is None or len(conn._loss_watchers) != 1:
            return False  # it waits, or another hub is told, too
        else:
            replaced = conn._replaced
            encoding = self.encoding_for(conn)
            displaced = conflate(conn, encoding, self.key) if self._uses_key else displace(conn, encoding)
            if displaced < 0:
                return False
            self._replaced += conn._replaced - replaced
            self._displaced += displaced
            conn._dropped += displaced
            self._queue()
            if not displaced:
                return True
        if conn._logged_in != self._interval:
            conn._logged_in = self._interval
            self._slow.log.concern(conn)
        return True

    def _settle(self) -> None:
        """Count what :meth:`_overflow_quietly` has not counted yet."""
        refused, displaced, replaced = self._refused, self._displaced, self._replaced
        if refused or displaced or replaced:
            self._refused = self._displaced = self._replaced = 0
            if refused:
                assert self._config is not None
                undecided = self._undecided  # of the next member
                self._drop(self._config.send_behavior._value_, refused)  # value would ask the class
                self._undecided = undecided
            self._slow.lost_quietly(refused, displaced, replaced)

    def _reach(self, conn: Conn) -> None:
        if conn._rules.state is not _OPEN or not (self._sure or self._still_member(conn)):
            self._skip()
        elif self._remembered and conn in self._remembered:
            self._sure = False  # the application may be called
            self._slow.reach(self, conn)
        elif self.key is not None and conn._config.overflow.uses_key:
            self._sure = False
            self._slow.overflow(self, conn)
        elif conn._try_queue(self.encoding_for(conn)):
            self._queue()
            ConnCore._kick_later(conn)
            if self._watching and conn._paused:
                self._slow.backlogged(conn, self.encoding_for(conn).size)
        else:
            self._sure = False
            self._slow.overflow(self, conn)

    def _reach_other(self, member: Any) -> None:
        """Deliver to a member that is no `Conn`."""
        self._undecided = self._reaching = True
        if self._sure or self._still_member(member):
            self._slow.others.reach(self, member)
        else:
            self._skip()
        self._reaching = self._undecided = False
        self._sure = self._snapshot.current

    # --- decisions --------------------------------------------------------------------------------

    # All sums are computed before one of them is set: without memory nothing is changed.

    def _queue(self) -> None:
        """Count one more member whose queue holds the message."""
        counters = self._counters
        queued, all_queued, pending = self.queued + 1, counters.queued + 1, counters.pending - 1
        self.queued, counters.queued, counters.pending = queued, all_queued, pending
        self._undecided = False
        if self._done is not None:
            self._wake()

    def _skip(self, count: int = 1) -> None:
        """Count ``count`` more members that are gone or closing."""
        counters = self._counters
        skipped, all_skipped, pending = self.skipped + count, counters.skipped + count, counters.pending - count
        self.skipped, counters.skipped, counters.pending = skipped, all_skipped, pending
        self._undecided = False
        if self._done is not None:
            self._wake()

    def _drop(self, cause: str, count: int = 1) -> None:
        """Count ``count`` more members for which the message is dropped."""
        counters = self._counters
        dropped, all_dropped, pending = self.dropped + count, counters.dropped + count, counters.pending - count
        counted = False
        try:
            counters.dropped_by[cause] += count
            counted = True
        except MemoryError:
            pass
        if not counted:
            self._skip(count)  # needs no memory
            return
        self.dropped, counters.dropped, counters.pending = dropped, all_dropped, pending
        self._undecided = False
        if self._done is not None:
            self._wake()

    def _wake(self) -> None:
        """Wake the callers of :meth:`wait` if nothing is pending."""
        assert self._done is not None
        if not self.pending and not self._done.done():
            self._done.set_result(None)
