"""One broadcast on its way to its members (layer 4).

The message is encoded once, and compressed once for all that agreed on the same; every member's queue holds a reference
to the same bytes. What becomes of it for a member that does not keep up is in `slow`; it never holds up the others.
Compiled, the walk over the members is one loop in C.

Invariants: at any moment ``matched = queued + dropped + skipped + pending``; whatever members do, nothing stays
pending for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Sequence

from .. import limits
from ..conn.connection import Conn
from ..conn.core import ConnCore
from ..constants import SendBehavior, State
from ..deflate.encodings import known_encoding, make_encoding
from ..deflate.outbound import DeflateParams
from ..position import Position
from ..protocol.message import EncodedMessage
from ..transport.timers import clock
from .results import BroadcastResult
from .rooms import MemberSnapshot
from .slow_members import SlowMembers

__all__ = ["FanOut", "FanOutCounters"]

_OPEN = State.OPEN

#: Members between two looks at the clock.
_STRIDE = 64


class FanOutCounters:
    """The sums over all broadcasts of a hub."""

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
        #: Compressed encodings that were made, their bytes, and those of what they were made of.
        self.compressed = self.compressed_after = self.compressed_before = 0
        #: What was dropped, by the cause: the policy of a full member, its end, that of the hub, a full job queue.
        self.dropped_by = dict.fromkeys([*(each.value for each in SendBehavior), "ended", "stopped", "overloaded"], 0)


class FanOut:
    """A message and the members that were there when it was sent."""

    __slots__ = (
        "_at",
        "_done",
        "_early",
        "_members",
        "_next",
        "_reaching",
        "_remembered",
        "_roll",
        "_simple",
        "_slow",
        "_still_member",
        "_sure",
        "_tally",
        "_undecided",
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
        roll: MemberSnapshot[Conn],
        *,
        exclude: Conn | None,
        tally: FanOutCounters,
        slow: SlowMembers,
        still_member: Callable[[Conn], bool],
        position: Position | dict[str, Position] | None = None,
        room: str | None = None,
        key: Hashable = None,
    ) -> None:
        """``exclude`` stands in ``roll``, if it is given. ``room`` is what the message is for; ``None``: all."""
        self.message = message
        self.position = position
        self.room = room
        self.key = key
        self._roll = roll
        self._members = roll.members
        self._next = 0
        # Of the member that is being reached: the place behind it, whether it takes the long way, and is undecided.
        self._at = 0
        self._reaching = self._undecided = False
        #: The message, if it is one buffer and nobody's queue holds an earlier value of it.
        self._simple = message.buffers[0] if len(message.buffers) == 1 and key is None else None
        #: Reached out of turn, or not to be reached at all.
        self._early: set[Conn] = set() if exclude is None else {exclude}
        self.matched = len(roll.members) - len(self._early)
        self._tally = tally
        self._slow = slow
        # Looked at for each member.
        self._remembered = slow.members
        self._watching = slow.watching
        self._still_member = still_member
        self._sure = False  # everybody in the roll is still a member
        self._done: asyncio.Future[None] | None = None
        self.queued = self.dropped = self.skipped = 0
        tally.broadcasts += 1
        tally.matched += self.matched
        tally.pending += self.matched

    # --- progress ---------------------------------------------------------------------------------

    @property
    def pending(self) -> int:
        return self.matched - self.queued - self.dropped - self.skipped

    def result(self) -> BroadcastResult:
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
        """Until nothing is pending."""
        if self.pending:
            if self._done is None:
                self._done = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._done)

    def step(self, until: float) -> bool:
        """Reach members until :func:`plumews.transport.timers.clock` says ``until``; True when all were reached.

        A member for which that fails, as it may without memory, is ended; the others are reached.
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
        # Parameters of these, and of the last compressed encoding: neighbours mostly agreed on the same.
        at_hand: DeflateParams | None = None
        known: DeflateParams | None = None
        squeezed, encoding_size, compressed = None, 0, self._tally.compressed
        try:
            while position < end:
                stop = min(position + _STRIDE, end)
                self._sure = self._roll.current
                while position < stop:
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
                                if self._tally.compressed != compressed:  # that took its time
                                    compressed = self._tally.compressed
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
                        and (not remembered or conn not in remembered)
                        and conn._rules.state is _OPEN
                        and conn._writer.share(simple, size)
                    ):
                        self._queue()  # what nearly every delivery is
                    elif self._sure and conn._writer.stuck(size) and self._is_refused(conn):
                        self._slow.refuse_quietly(conn)
                        self._drop(conn._config.send_behavior._value_)  # value would ask the class
                    else:
                        self._reaching = True
                        self._reach(conn)
                        self._reaching = self._undecided = False  # decided, or it waits
                        self._sure = self._roll.current
                        if conn._writer.context is not None and size >= limits.CONTEXT_LONG:
                            stop = position
                self._next = stop
                if position < end and clock() >= until:
                    return False
            return True
        finally:
            self._at = position

    def encoding_for(self, conn: Conn) -> EncodedMessage:
        """Return the message as ``conn`` gets it. Without memory for an encoding that is the message itself."""
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

    def _failed(self, conn: Conn, exc: BaseException) -> None:
        """End ``conn``, which could not be reached: nothing else tells its peer that a message is missing."""
        if self._undecided:
            self._skip()
        self._reaching = self._sure = False
        conn._writer.fail(exc)

    def _count(self, encoding: EncodedMessage) -> EncodedMessage:
        if encoding is not self.message:
            self._tally.compressed += 1
            self._tally.compressed_before += self.message.size
            self._tally.compressed_after += encoding.size
        return encoding

    def unreached(self) -> Sequence[Conn]:
        """The members that :meth:`step` has not come to."""
        return self._members[self._next :]

    def bring_up(self, conn: Conn) -> None:
        """Reach ``conn`` now, out of turn, because something else is to be sent to it behind this."""
        if conn not in self._early and self._roll.position(conn) >= self._next:
            outer = self._reaching, self._undecided  # of another member, within whose reaching this is done
            self._early.add(conn)
            self._sure = False
            self._undecided = True
            try:
                self._reach(conn)
            except BaseException as exc:
                self._failed(conn, exc)
            finally:
                self._reaching, self._undecided = outer

    def give_up(self) -> None:
        """The hub stops: who was not reached will not get it."""
        while self._next < len(self._members):
            conn = self._members[self._next]
            self._next += 1
            if conn not in self._early:
                self._undecided = True
                try:
                    self._slow.unreached(self, conn)
                except Exception as exc:
                    self._failed(conn, exc)
                self._undecided = False

    def _mark(self, conn: Conn) -> None:
        """``conn`` is being reached and the application may be called: :meth:`bring_up` must know who was."""
        if conn not in self._early:
            self._next = self._roll.position(conn) + 1

    # --- one member -------------------------------------------------------------------------------

    def _is_refused(self, conn: Conn) -> bool:
        """Whether the message is dropped for ``conn``, which has no space, and nobody is to hear of it now."""
        if conn._rules.state is not _OPEN or not self._slow.quiet:
            return False
        policy = conn._config.overflow
        if policy.drops_new:
            return True
        member = self._remembered.get(conn) if policy.waits else None
        return member is not None and member.given_up

    def _reach(self, conn: Conn) -> None:
        if conn._rules.state is not _OPEN or not (self._sure or self._still_member(conn)):
            self._skip()
        elif self._remembered and conn in self._remembered:
            self._sure = False  # the application may be called
            self._slow.reach(self, conn)
        elif self.key is not None and conn._config.overflow.uses_key:
            self._sure = False
            self._slow.overflow(self, conn)
        elif conn._writer.offer(self.encoding_for(conn)):
            self._queue()
            ConnCore._kick_later(conn)
            if self._watching and conn._writer.paused:
                self._slow.backlogged(conn, self.encoding_for(conn).size)
        else:
            self._sure = False
            self._slow.overflow(self, conn)

    # --- what is decided --------------------------------------------------------------------------

    # All sums are made before one of them is set: what fails has changed nothing.

    def _queue(self) -> None:
        """It is in the queue of one more member."""
        tally = self._tally
        queued, all_queued, pending = self.queued + 1, tally.queued + 1, tally.pending - 1
        self.queued, tally.queued, tally.pending = queued, all_queued, pending
        self._undecided = False
        if self._done is not None:
            self._tell_done()

    def _skip(self) -> None:
        """One more member is gone, or going."""
        tally = self._tally
        skipped, all_skipped, pending = self.skipped + 1, tally.skipped + 1, tally.pending - 1
        self.skipped, tally.skipped, tally.pending = skipped, all_skipped, pending
        self._undecided = False
        if self._done is not None:
            self._tell_done()

    def _drop(self, cause: str) -> None:
        """One more member will not get it."""
        tally = self._tally
        dropped, all_dropped, pending = self.dropped + 1, tally.dropped + 1, tally.pending - 1
        counted = False
        try:
            tally.dropped_by[cause] += 1
            counted = True
        except MemoryError:
            pass
        if not counted:
            self._skip()  # which takes none
            return
        self.dropped, tally.dropped, tally.pending = dropped, all_dropped, pending
        self._undecided = False
        if self._done is not None:
            self._tell_done()

    def _tell_done(self) -> None:
        """Tell the caller of :meth:`wait` if nothing is pending."""
        assert self._done is not None
        if not self.pending and not self._done.done():
            self._done.set_result(None)
