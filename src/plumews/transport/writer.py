"""When what a connection has to send is accepted, and when it is written: one write a flush (layer 3).

What waits, and in which order it leaves, is in `sendqueue`; how it gets to the socket in `outlet`; what happens beyond
its bounds is the caller's policy, told by :meth:`Writer.offer` and :meth:`Writer.wait`.

Invariants: waiting senders are served in the order in which they came; nothing is written after the close frame;
nothing is written while the transport asks to wait, but for a last frame. A flush never raises for want of memory, or
for any other failure: it ends this connection. What raises before a message is accepted changes nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from .. import limits
from ..protocol.message import EncodedMessage
from .displacing_queue import DONE, STALE
from .loop_context import LoopContext
from .socket_writer import SocketWriter

__all__ = ["Waiter", "Writer"]


_FREE = limits.QUEUED_FREE


class Waiter:
    """A message that waits for space. ``done(accepted)`` is called once, unless it is withdrawn.

    With ``None`` for the message it waits to begin one in pieces.
    """

    __slots__ = ("done", "message")

    def __init__(self, message: EncodedMessage | None, done: Callable[[bool], None]) -> None:
        self.message = message
        self.done = done


class Writer(SocketWriter):
    """What one connection has to send. Lives on the loop's thread."""

    __slots__ = (
        "_dirty",
        "_drains",
        "_gathered",
        "_hot",
        "_on_finished",
        "_waiters",
        "context",
        "dropped",
        "in_pieces",
    )

    def __init__(self, state: LoopContext, *, queue_size: int, queue_bytes: int) -> None:
        super().__init__(state, queue_size, queue_bytes)
        self._waiters: deque[Waiter] | None = None
        self._drains: list[Callable[[bool], None]] | None = None
        self._on_finished: Callable[[], None] | None = None
        self._dirty = False
        self._hot = False
        self._gathered = False
        #: What compresses messages with the earlier ones in mind, when they are accepted: none is dropped after that.
        self.context: Any = None
        #: Messages that a full queue refused.
        self.dropped = 0
        #: Whether a message is being sent in pieces: no other may begin before its end.
        self.in_pieces = False

    # --- the transport ----------------------------------------------------------------------------

    def detach(self) -> None:
        """The transport is gone: everything that waits is given up, senders are told."""
        self._detach()
        self._on_finished = None
        self._control = self._pongs = None
        self.discard()
        self._empty(False)

    def fail(self, exc: BaseException | None) -> None:
        """End the connection: what the peer has got is not known, or what it is to get cannot be kept.

        ``exc`` is what has failed; without it the caller reports that.
        """
        on_failure = self._on_failure
        self._detach()  # first: whatever comes, no byte follows
        try:
            if on_failure is not None:
                on_failure(exc)
        finally:
            self.detach()

    # --- data lane --------------------------------------------------------------------------------

    def offer(self, message: EncodedMessage) -> bool:
        """Accept ``message`` if there is space now; what waits is flushed before the answer is no.

        It leaves with the next :meth:`flush`: call :meth:`kick`, too.
        """
        if self._waiters or self.in_pieces:
            return False
        if not self._has_space(message.size):
            self.flush()
            if self._waiters or not self._has_space(message.size):
                return False
        self._enter(message)
        return True

    def _enter(self, message: EncodedMessage) -> None:
        self._accept(message if self.context is None else self.context.enter(message))

    def offer_frame(self, frame: bytes) -> bool:
        """The same for a message that is one frame in one buffer."""
        size = len(frame)
        if self._waiters or self.in_pieces:
            return False
        if not self._has_space(size):
            self.flush()
            if self._waiters or not self._has_space(size):
                return False
        self._append(frame, size)
        return True

    def takes_note(self, *, first: bool) -> bool:
        """Whether :meth:`add_note` would put a note between two messages, and not into one that is sent in pieces."""
        return not self.in_pieces or (first and self._begins_whole())

    def has_space(self, size: int) -> bool:
        """Whether :meth:`offer` would accept a message of ``size`` bytes; what waits is flushed before the no."""
        if self._waiters or self.in_pieces:
            return False
        if not self._has_space(size):
            self.flush()
        return not self._waiters and self._has_space(size)

    def room_for(self, messages: list[EncodedMessage]) -> int:
        """Return how many of ``messages``, in order, can be accepted now: all of them while the transport takes bytes.

        What waits is flushed first.
        """
        self.flush()
        if self._waiters or self.in_pieces:
            return 0
        if not self.paused and not self._has_output():
            return len(messages)
        waiting, size = self.queued_messages, self.counted_bytes
        count = waiting
        for message in messages:
            size += message.size + (limits.QUEUED_OVERHEAD if count >= _FREE else 0)
            if count and (count >= self._queue_size or size > self._queue_bytes):
                break
            count += 1
        return count - waiting

    def accept_run(self, messages: list[EncodedMessage]) -> None:
        """Accept ``messages``, for which there is room. They begin to leave at once if the transport takes bytes.

        What the socket does not take then is on its way, as the rest of a long message is: nothing displaces it, and
        it leaves the queue's bounds to what comes behind it.
        """
        try:
            if self.context is not None:
                messages = [self.context.enter(message) for message in messages]
            gone = self._transport is None or self._transport.is_closing()  # then nothing leaves
            if self.paused or gone or self._rest is not None:
                for message in messages:
                    self._accept(message)
            elif messages:
                run = [len(message.buffers) for message in messages]
                self._rest, self._run = _in_pairs(messages, run), run
        except BaseException:
            self.fail(None)  # a part of them may be accepted, or known to the context
            raise
        self.flush()

    def displace(self, message: EncodedMessage) -> int:
        """Accept ``message``, which was refused, in the stead of the oldest ones.

        Returns how many were dropped for it; -1 if it cannot be accepted, because a message is being sent in pieces.
        """
        if self._waiters or self.in_pieces:
            return -1
        try:
            dropped = self._make_room(message.size)
            self._accept(message)
        except BaseException:
            self.fail(None)  # which messages are missing is not known
            raise
        self.evicted += dropped
        return dropped

    def conflate(self, message: EncodedMessage, key: Any) -> int:
        """Accept ``message`` in the stead of the one with ``key`` that waits, else as :meth:`displace`."""
        if self._waiters:
            return -1
        try:
            found = self._replace(message, key)
            if found == DONE:
                self.replaced += 1
                return 0
            if self.in_pieces:
                return -1
            if found == STALE:
                self._take_key(key)
                self.replaced += 1
            elif not self._has_space(message.size):
                self.flush()
            dropped = self.displace(message)
            if dropped >= 0:
                self._remember(key)
        except BaseException:
            self.fail(None)
            raise
        return dropped

    def evict(self) -> int:
        """Drop all messages that wait, but for one that is being sent in pieces; how many it were."""
        dropped = 0 if self.in_pieces else self._drop_messages()
        self.evicted += dropped
        if dropped and self.context is not None:
            self.context.reset()
        return dropped

    def share(self, frame: bytes | memoryview, size: int) -> bool:
        """Accept a message that many get, to leave at the end of this tick, if nothing is in its way.

        If not, all of what :meth:`offer` and :meth:`kick` do is to be asked for.
        """
        if self.paused or self.in_pieces or self._waiters is not None or self.context is not None:
            return False
        queue = self._queue
        if queue is None:
            self._queue = self._state.lend_queue(frame)
        elif (
            len(queue) < self._queue_size
            and self.queued_bytes + size <= self._queue_bytes
            and (len(queue) < _FREE or self._has_space(size))
        ):
            queue.append(frame)
        else:
            return False
        self.queued_bytes += size
        if not self._dirty:
            self._state.mark_dirty(self)
            self._dirty = True
        return True

    def stuck(self, size: int) -> bool:
        """Whether a message of ``size`` bytes finds no space, and nothing can leave to make some."""
        return self.paused and (bool(self._waiters) or self.in_pieces or not self._has_space(size))

    def begin_pieces(self) -> bool:
        """Begin a message in pieces, unless another one is being sent, or others wait for space."""
        if self._waiters or self.in_pieces:
            return False
        self.in_pieces = True
        return True

    def add_piece(self, frame: bytes) -> None:
        """A frame of the message that is sent in pieces; :meth:`when_empty` says when there is room for the next."""
        self._append(frame, len(frame))

    def end_pieces(self) -> None:
        """That message is complete, or never will be: others may begin."""
        self.in_pieces = False
        self._admit()

    def when_empty(self, done: Callable[[bool], None]) -> None:
        """Call ``done(True)`` when all that waits has left, ``done(False)`` when it never will."""
        if self._transport is None:
            done(False)
        elif not self.paused and not self._has_output():
            done(True)
        elif self._drains is None:
            self._drains = [done]
        else:
            self._drains.append(done)

    def _empty(self, good: bool) -> None:
        drains, self._drains = self._drains, None
        while drains:
            self._tell(drains.pop(0), good)

    def _tell(self, done: Callable[[bool], None], good: bool) -> None:
        """Call ``done(good)``. If it fails, others are still told."""
        try:
            done(good)
        except Exception as exc:
            self._state._report(exc)

    def wait(self, message: EncodedMessage | None, done: Callable[[bool], None]) -> Waiter:
        """Queue up for space: ``done(True)`` when the message is accepted, ``done(False)`` when it never will be.

        Without a message, ``done(True)`` says that one in pieces has begun.
        """
        waiter = Waiter(message, done)
        if self._waiters is None:
            self._waiters = deque()
        self._waiters.append(waiter)
        return waiter

    def wait_on(self, waiter: Waiter) -> None:
        """``waiter`` was told that its message is accepted: it waits on, in its place, and is given another one."""
        if self._waiters is None:
            self._waiters = deque()
        self._waiters.appendleft(waiter)

    @property
    def last_waiter(self) -> Waiter | None:
        """Who came last to wait for space."""
        return self._waiters[-1] if self._waiters else None

    def withdraw(self, waiter: Waiter) -> bool:
        """Stop waiting; False if the message was accepted or given up before."""
        if self._waiters is None or waiter not in self._waiters:
            return False
        self._waiters.remove(waiter)
        self._admit()  # a smaller message behind it may fit
        return True

    @property
    def waiting(self) -> int:
        """Messages that wait for space."""
        return len(self._waiters) if self._waiters else 0

    def _admit(self) -> None:
        # Looked at anew each time: who is told may send, withdraw, or end the connection.
        try:
            while self._waiters and not self.in_pieces:
                waiter = self._waiters[0]
                message = waiter.message
                if message is not None and not self._has_space(message.size):
                    break
                if message is None:
                    self.in_pieces = True
                else:
                    self._enter(message)
                self._waiters.popleft()
                waiter.done(True)
        except BaseException as exc:
            self.fail(exc)
            if not isinstance(exc, Exception):
                raise
        if not self._waiters:
            self._waiters = None

    # --- the end ----------------------------------------------------------------------------------

    def finish(self, close_frame: bytes, on_finished: Callable[[], None]) -> None:
        """Send ``close_frame`` behind what was accepted; waiting senders are refused.

        ``on_finished`` is called when the transport has taken the close frame.
        """
        self._closing = close_frame
        self._on_finished = on_finished
        self.in_pieces = False  # a message that was not complete never will be
        self.refuse_waiters()
        self.flush()

    def discard(self) -> None:
        """Give up all data that waits; control frames and a close frame stay."""
        self._drop_data()
        self.refuse_waiters()

    def last_words(self) -> None:
        """Hand over the close frame though the transport is full: it is small, and the last."""
        if self.paused:
            self.paused = False
            self.flush()

    def refuse_waiters(self) -> None:
        """Nothing that waits for space is accepted any more."""
        waiters, self._waiters = self._waiters, None
        while waiters:
            self._tell(waiters.popleft().done, False)

    # --- writing ----------------------------------------------------------------------------------

    def pause(self) -> None:
        """The transport holds more than its high-water mark."""
        self.paused = True
        if self._pongs is not None:
            del self._pongs[:-1]
        if self._queue is not None:
            self._date(self._queue)

    def drained(self) -> bool:
        """The transport has room again; whether what waits may leave: call :meth:`resume`."""
        return True

    def answered(self, place: int) -> bool:
        """The peer has answered a ping; whether what waits may leave for that: call :meth:`resume`."""
        return False

    @property
    def unanswered(self) -> int | None:
        """Bytes that have left since the last ping that was answered, where they are counted."""
        return None

    def resume(self) -> None:
        """The transport has room again: what waits leaves at the end of this tick.

        Not from within its call: asyncio, whose write fails there or whose end comes there, ends a connection twice.
        """
        self.paused = False
        if not self._dirty and (self._drains is not None or self._has_output()):
            self._state.mark_dirty(self)
            self._dirty = True

    def kick(self, at_once: bool) -> None:
        """Something was queued: write it now if that is allowed and is the first in this tick, else at its end."""
        if self.paused or self._dirty:
            return
        if at_once and not self._hot:
            self.flush()
            self._hot = True  # a second message in the same tick joins the ones behind it
        else:
            self._state.mark_dirty(self)
            self._dirty = True

    def gather(self) -> None:
        """A read is over that took its time: what it brought leaves together with what others bring in this tick."""
        if self._gathered:
            return
        if self._dirty or self.paused or not self._has_output():
            self.flush()
        else:
            self._dirty = self._gathered = True  # before: it may be flushed there and then
            self._state.gather(self)

    def flush(self) -> None:
        """Let everything that waits leave, in as few writes as the socket allows. A failure ends the connection."""
        self._dirty = self._hot = self._gathered = False
        try:
            while not self.paused and self._transport is not None and self._has_output():
                if self._transport.is_closing():
                    return
                self._write_some()
                if self._closing == b"":
                    finished, self._on_finished = self._on_finished, None
                    if finished is not None:
                        finished()
                    break
                if self._waiters:
                    self._admit()
            if self._drains is not None and not self.paused and not self._has_output():
                self._empty(True)
        except BaseException as exc:
            self.fail(exc)
            if not isinstance(exc, Exception):
                raise


def _in_pairs(messages: list[EncodedMessage], counts: list[int]) -> list[bytes | memoryview]:
    """The buffers of ``messages``, in pairs: the queue writes two at a time, and must not part header and payload.

    ``counts``, how many buffers each of them has, grows with them.
    """
    buffers: list[bytes | memoryview] = []
    for number, message in enumerate(messages):
        if len(buffers) % 2 and len(message.buffers) > 1:
            whole = buffers.pop()  # one or more frames in one buffer: its first header becomes a buffer of its own
            length = whole[1] & 0x7F
            header = 2 if length < 126 else 4 if length == 126 else 10
            buffers += (bytes(whole[:header]), memoryview(whole)[header:])
            counts[number - 1] += 1
        buffers += message.buffers
    return buffers
