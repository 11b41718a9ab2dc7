"""Send queue of one connection, and the composition of its next write.

Control frames never wait behind data. They go between the fragments of a long message (RFC 6455 section 5.4). Data is
bounded by messages and by bytes. A close frame goes behind everything accepted before it (section 5.5.1).
:class:`plumews.transport.writer.Writer` decides about what is accepted, and when it is written.

Invariants: messages leave in the order in which they were accepted. Planned buffers stay in the queue until they have
left.
"""

from __future__ import annotations

from time import monotonic
from typing import Any, Final

from .. import limits
from ..protocol.message import EncodedMessage
from .loop_context import Flushable

__all__ = ["SendQueue"]

#: Bytes of one write. Beyond that the transport is asked again whether it has space.
_WRITE_SIZE: Final = 256 * 1024

# Copies of limits, typed where compiled.
_FREE, _OVERHEAD, _KEY = limits.QUEUED_FREE, limits.QUEUED_OVERHEAD, limits.KEY_OVERHEAD


class SendQueue(Flushable):
    """Frames that wait to be sent on one connection. Used by the thread of the loop only."""

    __slots__ = (
        "_closing",
        "_control",
        "_gone",
        "_keys",
        "_long",
        "_planned",
        "_planned_rest",
        "_pongs",
        "_queue",
        "_queue_bytes",
        "_queue_size",
        "_rest",
        "_run",
        "_times",
        "paused",
        "queued_bytes",
        "written",
    )

    def __init__(self, queue_size: int, queue_bytes: int) -> None:
        self._queue_size = queue_size
        self._queue_bytes = queue_bytes
        # Most connections are idle: lists are made when they are needed.
        self._control: list[bytes] | None = None
        self._pongs: list[bytes] | None = None
        self._queue: list[bytes | memoryview | EncodedMessage] | None = None  # messages of one buffer are that buffer
        self._long = 0  # messages in the queue that are of many buffers
        self._rest: list[bytes | memoryview] | None = None  # of a long message that is on its way
        self._run: list[int] | None = None  # if that is a run of messages: how many buffers each of them has
        self._planned = 0  # messages of the queue, and buffers of that rest, in the write that is being made
        self._planned_rest = 0
        self._times: list[float] | None = None  # when the messages of the queue were accepted, while they cannot leave
        self._closing: bytes | None = None
        #: Queued messages by key; see `displacing_queue`. Places count from the first message since there are keys,
        #: including messages that have left the head of the queue.
        self._keys: dict[Any, tuple[int, int, object]] | None = None
        self._gone = 0
        #: True while the transport asks to wait: nothing can leave.
        self.paused = False
        #: Bytes of the accepted messages that have not begun to leave.
        self.queued_bytes = 0
        #: Total bytes of messages written to the socket or its transport. Control frames do not count.
        self.written = 0

    # --- state ------------------------------------------------------------------------------------

    @property
    def queued_messages(self) -> int:
        """Accepted messages that have not begun to leave."""
        return len(self._queue) if self._queue else 0

    @property
    def run_messages(self) -> int:
        """Messages of the run being sent that have not begun to leave."""
        left = 0 if self._rest is None else len(self._rest)
        count = 0
        for buffers in reversed(self._run or ()):
            left -= buffers
            if left < 0:
                break
            count += 1
        return count

    @property
    def held_bytes(self) -> int:
        """Return the approximate memory of these messages, in bytes."""
        return self.queued_bytes + self.queued_messages * _OVERHEAD

    @property
    def counted_bytes(self) -> int:
        """Bytes that count against the byte bound: of the messages, and of their objects in a long queue."""
        return self.queued_bytes + self._objects()

    @property
    def queued_age(self) -> float:
        """Seconds that the oldest queued message has waited; 0.0 if it leaves in this loop iteration."""
        return monotonic() - self._times[0] if self._times else 0.0

    @property
    def finished(self) -> bool:
        """True once the close frame has left."""
        return self._closing == b""

    def _has_space(self, size: int) -> bool:
        queue = self._queue
        if not queue:
            return True  # one message above the byte bound must be sendable, too
        if len(queue) >= _FREE:
            size += self._objects() + _OVERHEAD
        return len(queue) < self._queue_size and self.queued_bytes + size <= self._queue_bytes

    def _objects(self) -> int:
        """Return the bytes that the objects of a long queue take."""
        queue, keys = self._queue, self._keys
        size = 0
        if queue is not None and len(queue) > _FREE:
            size += (len(queue) - _FREE) * _OVERHEAD
            if keys is not None and len(keys) > _FREE:
                size += (len(keys) - _FREE) * _KEY
        return size

    # --- accepting --------------------------------------------------------------------------------

    def _accept(self, message: EncodedMessage) -> None:
        if len(message.buffers) == 1:
            self._append(message.buffers[0], message.size)
        else:
            self._append(message, message.size)
            self._long += 1

    def _append(self, message: bytes | memoryview | EncodedMessage, size: int) -> None:
        if self._queue is None:
            self._queue = [message]
        else:
            self._queue.append(message)
        self.queued_bytes += size
        if self.paused:
            self._date(self._queue)

    def _date(self, queue: list[bytes | memoryview | EncodedMessage]) -> None:
        """Record the time at which new messages were accepted; without memory the next call does."""
        try:
            if self._times is None:
                self._times = []
            self._times += [monotonic()] * (len(queue) - len(self._times))
        except MemoryError:
            pass

    def control(self, frame: bytes) -> None:
        """Queue a ping ahead of all data."""
        if self._closing is not None:
            return
        if self._control is None:
            self._control = [frame]
        else:
            self._control.append(frame)

    def pong(self, frame: bytes) -> None:
        """Queue a pong. While the socket takes no bytes only the newest one is kept (section 5.5.3)."""
        if self._closing is not None:
            return
        if self.paused or self._pongs is None:
            self._pongs = [frame]
        else:
            self._pongs.append(frame)

    def _drop_data(self) -> None:
        """Drop all data. Control frames and a close frame stay."""
        self._queue = self._times = self._keys = None
        self._long = 0
        self._rest = self._run = None
        self.queued_bytes = 0

    # --- writing ----------------------------------------------------------------------------------

    def _has_output(self) -> bool:
        if self._queue is not None or self._control is not None or self._pongs is not None:
            return True
        return self._rest is not None or bool(self._closing)

    def _is_plain(self) -> bool:
        """Return True if only messages of one buffer each are queued, no more than one write takes."""
        if self._queue is None or self._control is not None or self._pongs is not None or self._rest is not None:
            return False
        return not self._long and not self._closing and self.queued_bytes <= _WRITE_SIZE

    def _sent_all(self) -> None:
        """Empty the queue: all its messages have left."""
        self._queue = self._times = self._keys = None
        self.written += self.queued_bytes
        self.queued_bytes = 0

    def _plan(self) -> list[bytes | memoryview]:
        """Return the buffers of the next write. They stay queued until :meth:`_left` is called."""
        return self._plan_within(_WRITE_SIZE)

    def _plan_within(self, room: int) -> list[bytes | memoryview]:
        """Return the buffers of a write of about ``room`` bytes of messages: the last frame may go beyond."""
        batch: list[bytes | memoryview] = []
        room = min(room, _WRITE_SIZE)
        self._planned = self._planned_rest = 0
        if self._control is not None:
            batch += self._control
        if self._pongs is not None:
            batch += self._pongs
        if self._rest is None and self._queue is not None and type(self._queue[0]) is EncodedMessage:
            self._begin_long(self._queue)
        if self._rest is not None:
            room -= self._plan_rest(self._rest, room, batch)
            if self._planned_rest < len(self._rest):
                return batch
        if self._queue is not None:
            self._plan_short(self._queue, room, batch)
            if self._planned < len(self._queue):
                return batch
        if self._closing:
            batch.append(self._closing)
        return batch

    def _begin_long(self, queue: list[bytes | memoryview | EncodedMessage]) -> None:
        """Begin to send the first message of the queue, which has several buffers."""
        message = queue.pop(0)
        assert isinstance(message, EncodedMessage)
        self._rest, self._run = message.buffers, None
        self.queued_bytes -= message.size
        self._long -= 1
        self._gone += 1
        if self._times is not None:
            del self._times[:1]  # a message has no time if it was accepted after the pause
        if not queue:
            self._queue = self._times = self._keys = None

    def _plan_short(
        self, queue: list[bytes | memoryview | EncodedMessage], room: int, batch: list[bytes | memoryview]
    ) -> None:
        """Add messages of one buffer from the head of the queue, as far as ``room`` reaches."""
        if self.queued_bytes <= room and not self._long:
            batch += queue  # type: ignore[arg-type]
            self._planned = len(queue)
            return
        for message in queue:
            if room <= 0 or isinstance(message, EncodedMessage):
                return
            batch.append(message)
            self._planned += 1
            room -= len(message)

    def _plan_rest(self, rest: list[bytes | memoryview], room: int, batch: list[bytes | memoryview]) -> int:
        """Add the next frames of a long message, at least one. Return their bytes, about ``room``."""
        stop = size = 0
        while stop < len(rest) and size < room:
            size += sum(map(len, rest[stop : stop + 2]))  # a header and its payload, or two whole frames
            stop += 2
        self._planned_rest = min(stop, len(rest))
        batch += rest[:stop]
        return size

    def _left(self, count: int) -> None:
        """Remove the first ``count`` buffers of the plan, which have left."""
        if self._control is not None:
            gone = min(len(self._control), count)
            self._control = self._control[gone:] or None
            count -= gone
        if self._pongs is not None:
            gone = min(len(self._pongs), count)
            self._pongs = self._pongs[gone:] or None
            count -= gone
        if self._rest is not None:
            gone = min(self._planned_rest, count)
            self.written += sum(map(len, self._rest[:gone]))
            self._rest = self._rest[gone:] or None
            count -= gone
        queue = self._queue
        if queue is not None:
            gone = min(self._planned, count)
            count -= gone
            if gone == len(queue):
                self._sent_all()
            elif gone:
                size = sum(map(len, queue[:gone]))  # type: ignore[arg-type]
                self._gone += gone
                self.written += size
                self.queued_bytes -= size
                del queue[:gone]
                if self._times is not None:
                    del self._times[:gone]
        if count:
            self._closing = b""  # that was the last of the plan, and of all
