"""Send queue: what waits to be sent on one channel, its bounds, and the composition of the next write.

A channel has a queue only while something waits. Control frames never wait behind data. They go between the fragments
of a long message (RFC 6455 section 5.4). Data is bounded by messages and by bytes. A close frame goes behind everything
accepted before it (section 5.5.1). `transport.channel` decides what is accepted, and when it is written.

A full queue can drop its oldest messages, or the older message of a key. Each message with a key is known by its place,
so that it is found without a search. A newer message takes the place of the older one unless a message without a key is
behind that. Otherwise a value that changes all the time would be put back each time and never leave. So a message with
a key may pass others with a key, and never one without.

Invariants: messages leave in the order in which they were accepted. Planned buffers stay in the queue until they have
left. A message that has begun to leave stays, and so does the rest of a message sent in fragments, because the peer
could not parse the next message without it. A loss report (:class:`Note`) stays.
"""

from __future__ import annotations

from time import monotonic
from typing import Any, Final, TypeAlias

from .. import limits
from ..protocol.message import EncodedMessage

__all__ = ["ABSENT", "DONE", "STALE", "Entry", "Note", "SendQueue", "is_header"]

#: Bytes of one write. Beyond that the transport is asked again whether it has space.
WRITE_SIZE: Final = 256 * 1024

#: Results of :meth:`SendQueue.replace`: no message with that key, replaced, or the older message must go.
ABSENT: Final = 0
DONE: Final = 1
STALE: Final = 2

#: Keys of messages that have left which are kept for a while.
_KEYS_FREE: Final = 16

#: Bytes of a frame before its payload (RFC 6455 section 5.2).
_LONGEST_HEADER: Final = 14

# Copies of limits, typed where compiled.
_FREE, _OVERHEAD, _KEY = limits.QUEUED_FREE, limits.QUEUED_OVERHEAD, limits.KEY_OVERHEAD


class Note:
    """Loss report in a send queue, as one frame. It is beyond the bounds, and is never displaced."""

    __slots__ = ("frame",)

    def __init__(self, frame: bytes) -> None:
        self.frame = frame


#: Entry of a queue: a message of one buffer is that buffer, others are an :class:`EncodedMessage`.
Entry: TypeAlias = "bytes | memoryview | EncodedMessage | Note"


class SendQueue:
    """Frames that wait on one channel. Used by the thread of the loop only."""

    __slots__ = (
        "_control",
        "_gone",
        "_keyed",
        "_keys",
        "_planned",
        "_planned_rest",
        "_pongs",
        "_rest",
        "_run",
        "_special",
        "_times",
        "bytes",
        "closing",
        "messages",
        "most_bytes",
        "most_messages",
    )

    def __init__(self, most_messages: int, most_bytes: int) -> None:
        self.messages: list[Any] = []
        #: Bounds of messages and of their bytes. An empty queue is used again by another channel, with its bounds.
        self.most_messages = most_messages
        self.most_bytes = most_bytes
        #: Bytes of the messages that have not begun to leave.
        self.bytes = 0
        self._special = 0  # entries that are not a buffer themselves
        self._control: list[bytes] | None = None
        self._pongs: list[bytes] | None = None
        self._rest: list[bytes | memoryview] | None = None  # of a long message that is on its way
        self._run: list[int] | None = None  # if that is a run of messages: how many buffers each of them has
        self._planned = 0  # messages, and buffers of that rest, in the write that is being made
        self._planned_rest = 0
        self._times: list[float] | None = None  # when the messages were accepted, while they cannot leave
        #: Close frame, which leaves last.
        self.closing: bytes | None = None
        # Messages by key. Places count from the first message since there are keys, including those that have left.
        self._keys: dict[Any, tuple[int, int, object]] | None = None
        self._gone = 0  # messages that have left since then: the place of the first one in the queue
        self._keyed = 0  # messages with a key that were ever appended, less those taken from the middle

    # --- state ------------------------------------------------------------------------------------

    def is_empty(self) -> bool:
        """Return True if nothing waits."""
        if self.messages or self._control is not None or self._pongs is not None:
            return False
        return self._rest is None and self.closing is None

    def is_plain(self) -> bool:
        """Return True if only messages of one buffer each wait, no more than one write takes."""
        if not self.messages or self._control is not None or self._pongs is not None or self._rest is not None:
            return False
        return not self._special and self.closing is None and self.bytes <= WRITE_SIZE

    def has_control(self) -> bool:
        """Return True if a ping or pong waits."""
        return self._control is not None or self._pongs is not None

    def has_data(self) -> bool:
        """Return True if messages wait, or the rest of one."""
        return self._rest is not None or bool(self.messages)

    def run_messages(self) -> int:
        """Return the number of messages of the run being sent that have not begun to leave."""
        left = 0 if self._rest is None else len(self._rest)
        count = 0
        for buffers in reversed(self._run or ()):
            left -= buffers
            if left < 0:
                break
            count += 1
        return count

    def counted_bytes(self) -> int:
        """Return the bytes that count against the byte bound: of messages, and of their objects in a long queue."""
        return self.bytes + self._objects()

    def age(self) -> float:
        """Return the seconds that the oldest message has waited; 0.0 if it leaves in this loop iteration."""
        return monotonic() - self._times[0] if self._times else 0.0

    def has_space(self, size: int) -> bool:
        """Return True if a message of ``size`` bytes is within the bounds."""
        count = len(self.messages)
        if count >= _FREE:
            size += self._objects() + _OVERHEAD
        # One message above the byte bound must be sendable, too.
        return count < self.most_messages and (self.bytes + size <= self.most_bytes or not count)

    def _objects(self) -> int:
        """Return the bytes that the objects of a long queue take."""
        count, keys = len(self.messages), self._keys
        size = 0
        if count > _FREE:
            size += (count - _FREE) * _OVERHEAD
            if keys is not None and len(keys) > _FREE:
                size += (len(keys) - _FREE) * _KEY
        return size

    def room_for(self, messages: list[EncodedMessage]) -> int:
        """Return how many of ``messages``, in order, are within the bounds."""
        waiting, size = len(self.messages), self.counted_bytes()
        count = waiting
        for message in messages:
            size += message.size + (_OVERHEAD if count >= _FREE else 0)
            if count and (count >= self.most_messages or size > self.most_bytes):
                break
            count += 1
        return count - waiting

    # --- accepting --------------------------------------------------------------------------------

    def append(self, entry: Any, size: int) -> None:
        """Add a message of ``size`` bytes: a buffer, or an :class:`EncodedMessage`."""
        if type(entry) is EncodedMessage:
            if len(entry.buffers) == 1:
                entry = entry.buffers[0]
            else:
                self._special += 1
        self.messages.append(entry)
        self.bytes += size

    def date(self) -> None:
        """Record the time at which new messages were accepted; without memory the next call does."""
        try:
            if self._times is None:
                self._times = []
            while len(self._times) < len(self.messages):
                self._times.append(monotonic())
        except MemoryError:
            pass

    def add_control(self, frame: bytes) -> None:
        """Add a ping ahead of all data."""
        if self._control is None:
            self._control = [frame]
        else:
            self._control.append(frame)

    def add_pong(self, frame: bytes, *, only_newest: bool) -> None:
        """Add a pong ahead of all data; in place of all earlier ones with ``only_newest`` (section 5.5.3)."""
        if only_newest or self._pongs is None:
            self._pongs = [frame]
        else:
            self._pongs.append(frame)

    def keep_newest_pong(self) -> None:
        """Drop all pongs but the newest."""
        if self._pongs is not None:
            del self._pongs[:-1]

    def begin_run(self, messages: list[EncodedMessage]) -> None:
        """Begin to send ``messages``. What does not leave at once counts as the rest of a long message."""
        run = [len(message.buffers) for message in messages]
        self._rest, self._run = _in_pairs(messages, run), run

    def drop_data(self) -> None:
        """Drop all data. Control frames and a close frame stay."""
        self.messages.clear()
        self._times = self._keys = self._rest = self._run = None
        self._special = 0
        self.bytes = 0

    # --- writing ----------------------------------------------------------------------------------

    def sent_all(self) -> int:
        """Remove all messages, which have left. Return their bytes."""
        size = self.bytes
        self.messages.clear()
        self._times = self._keys = None
        self.bytes = 0
        return size

    def plan(self, room: int) -> list[bytes | memoryview]:
        """Return the buffers of a write of about ``room`` bytes of messages: the last frame may go beyond.

        They stay queued until :meth:`left` is called.
        """
        batch = self.plan_control()
        room = min(room, WRITE_SIZE)
        if self._rest is None and self.messages and type(self.messages[0]) is EncodedMessage:
            self._begin_long()
        if self._rest is not None:
            room -= self._plan_rest(self._rest, room, batch)
            if self._planned_rest < len(self._rest):
                return batch
        if self.messages:
            self._plan_short(room, batch)
            if self._planned < len(self.messages):
                return batch
        if self.closing is not None:
            batch.append(self.closing)
        return batch

    def plan_control(self) -> list[bytes | memoryview]:
        """Return the buffers of a write of pings and pongs only."""
        self._planned = self._planned_rest = 0
        return [*(self._control or ()), *(self._pongs or ())]

    def plan_all(self) -> list[bytes | memoryview]:
        """Return the buffers of all messages, each of which is one."""
        self._planned, self._planned_rest = len(self.messages), 0
        return self.messages.copy()

    def _begin_long(self) -> None:
        """Begin to send the first message, which has several buffers."""
        message: EncodedMessage = self.messages.pop(0)
        self._rest, self._run = message.buffers, None
        self.bytes -= message.size
        self._special -= 1
        self._gone += 1
        if self._times is not None:
            del self._times[:1]  # a message has no time if it was accepted after the pause
        if not self.messages:
            self._times = self._keys = None

    def _plan_short(self, room: int, batch: list[bytes | memoryview]) -> None:
        """Add messages of one buffer from the head of the queue, as far as ``room`` reaches."""
        if self.bytes <= room and not self._special:
            batch += self.messages
            self._planned = len(self.messages)
            return
        for entry in self.messages:
            if room <= 0 or type(entry) is EncodedMessage:
                return
            buffer = entry.frame if type(entry) is Note else entry
            batch.append(buffer)
            self._planned += 1
            room -= len(buffer)

    def _plan_rest(self, rest: list[bytes | memoryview], room: int, batch: list[bytes | memoryview]) -> int:
        """Add the next frames of a long message, at least one. Return their bytes, about ``room``."""
        stop = size = 0
        while stop < len(rest) and size < room:
            size += sum(map(len, rest[stop : stop + 2]))  # a header and its payload, or two whole frames
            stop += 2
        self._planned_rest = min(stop, len(rest))
        batch += rest[:stop]
        return size

    def left(self, count: int) -> int:
        """Remove the first ``count`` buffers of the plan, which have left. Return their bytes of messages.

        A close frame that has left becomes ``b""``.
        """
        written = 0
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
            written += sum(map(len, self._rest[:gone]))
            self._rest = self._rest[gone:] or None
            count -= gone
        if self.messages:
            gone = min(self._planned, count)
            count -= gone
            if gone == len(self.messages) and not self._special:
                written += self.sent_all()
            elif gone:
                written += self._left_messages(gone)
        if count:
            self.closing = b""  # that was the last of the plan, and of all
        return written

    def _left_messages(self, count: int) -> int:
        """Remove the first ``count`` messages, which have left. Return their bytes."""
        size = 0
        for entry in self.messages[:count]:
            size += _size(entry)
            self._special -= type(entry) is Note
        del self.messages[:count]
        self._gone += count
        self.bytes -= size
        if self._times is not None:
            del self._times[:count]
        if not self.messages:
            self._times = self._keys = None
        return size

    # --- displacing the oldest --------------------------------------------------------------------

    def make_room(self, size: int) -> int:
        """Drop the oldest messages until one of ``size`` bytes has space. Return how many."""
        count = position = 0
        messages = self.messages
        while position < len(messages) and not self.has_space(size):
            if _is_fixed(messages[position]):
                position += 1
            else:
                self._take(position)
                self._gone += 1  # no message with a key stands before it
                count += 1
        return count

    def drop_messages(self) -> tuple[int, int]:
        """Drop all messages that may be dropped. Return how many, and their bytes."""
        self._keys = None
        count = dropped = 0
        for position in range(len(self.messages) - 1, -1, -1):
            if not _is_fixed(self.messages[position]):
                dropped += self._take(position)
                count += 1
        return count, dropped

    def _take(self, position: int) -> int:
        """Remove the entry at ``position``. Return its size."""
        entry = self.messages.pop(position)
        self._special -= type(entry) is EncodedMessage or type(entry) is Note
        size = _size(entry)
        self.bytes -= size
        if self._times is not None and position < len(self._times):
            self._times.pop(position)
        if not self.messages:
            self._times = self._keys = None
        return size

    # --- displacing by key ------------------------------------------------------------------------

    def replace(self, message: EncodedMessage, key: Any) -> tuple[int, int]:
        """Put ``message`` in the place of the queued one with ``key``.

        Return `ABSENT`, `DONE` or `STALE`, and the bytes of the message that was replaced.
        """
        messages = self.messages
        if self._keys is None or key not in self._keys:
            return ABSENT, 0
        place, number, old = self._keys[key]
        position = place - self._gone
        if not 0 <= position < len(messages) or messages[position] is not old:
            return ABSENT, 0
        before = _size(old)
        size = self.bytes - before + message.size
        over = size + self._objects() > self.most_bytes and len(messages) > 1
        if over or len(messages) - position - 1 != self._keyed - number:
            return STALE, 0
        entry = message.buffers[0] if len(message.buffers) == 1 else message
        self._special += (type(entry) is EncodedMessage) - (type(old) is EncodedMessage)
        self.bytes = size
        messages[position] = entry  # its time stays: that is how long the peer has waited for this place
        self._keys[key] = (place, number, entry)
        return DONE, before

    def take_key(self, key: Any) -> int:
        """Remove the message with ``key``, which is queued. Return its bytes."""
        assert self._keys is not None
        place = self._keys.pop(key)[0]
        keys = self._keys
        size = self._take(place - self._gone)
        self._keyed -= 1
        for other, (its_place, its_number, entry) in keys.items():
            if its_place > place:
                keys[other] = (its_place - 1, its_number - 1, entry)
        return size

    def remember(self, key: Any) -> None:
        """Make ``key`` the key of the last message."""
        messages = self.messages
        if not messages:
            return
        if self._keys is None:
            self._keys = {}
        elif len(self._keys) > 2 * len(messages) + _KEYS_FREE:
            self._forget_keys()
        self._keyed += 1
        self._keys[key] = (self._gone + len(messages) - 1, self._keyed, messages[-1])

    def _forget_keys(self) -> None:
        """Drop the keys of messages that have left. Keys are at most twice the queued messages, and a few."""
        keys: dict[Any, tuple[int, int, object]] = {}
        for key, known in (self._keys or {}).items():
            position = known[0] - self._gone
            if 0 <= position < len(self.messages) and self.messages[position] is known[2]:
                keys[key] = known
        self._keys = keys

    # --- loss reports -----------------------------------------------------------------------------

    def add_note(self, note: Note, *, first: bool) -> None:
        """Add a loss report, beyond the bounds: in front of all messages, or behind them."""
        messages = self.messages
        position = len(messages)
        if first and messages:
            position = 1 if _is_continuation(messages[0]) else 0
            self._gone -= 1
            if self._times is not None and position < len(self._times):
                self._times.insert(position, self._times[position])
        messages.insert(position, note)
        self._special += 1
        self.bytes += len(note.frame)

    def begins_whole(self) -> bool:
        """Return True if the queue begins with a whole message."""
        return bool(self.messages) and not _is_continuation(self.messages[0])

    def waiting_data(self) -> tuple[int, int]:
        """Return the number of messages and their bytes, without loss reports."""
        data = [_size(entry) for entry in self.messages if type(entry) is not Note]
        return len(data), sum(data)

    def take_note(self, note: Note, *, last: bool) -> bool:
        """Remove a loss report; with ``last`` only if it is the last entry. Return True if it was removed."""
        for position in range(len(self.messages) - 1, -1, -1):
            if self.messages[position] is note:
                if not last:
                    self._gone += 1
                self._take(position)
                return True
            if last:
                return False
        return False


def is_header(buffer: bytes | memoryview) -> bool:
    """Return True if ``buffer`` is a frame header whose payload is the next buffer.

    Sizes do not tell: a whole frame may be longer than a separate payload. A view is always such a payload.
    """
    if type(buffer) is not bytes or len(buffer) > _LONGEST_HEADER:
        return False
    length = buffer[1] & 0x7F
    extended = 0 if length < 126 else 2 if length == 126 else 8
    return length > 0 and len(buffer) == 2 + extended + (4 if buffer[1] & 0x80 else 0)


def _size(entry: Any) -> int:
    """Return the size of an entry in bytes."""
    if type(entry) is bytes:
        frame = entry
        return len(frame)
    if type(entry) is EncodedMessage:
        message = entry
        return message.size
    return len(entry.frame if type(entry) is Note else entry)


def _is_fixed(entry: Any) -> bool:
    """Return True for an entry that is never displaced."""
    return type(entry) is Note or _is_continuation(entry)


def _is_continuation(entry: Any) -> bool:
    """Return True for a frame with opcode 0: the rest of a message that was sent in fragments."""
    if type(entry) is bytes:
        frame = entry
        return frame[0] & 0x0F == 0
    return type(entry) is not EncodedMessage and type(entry) is not Note and entry[0] & 0x0F == 0


def _in_pairs(messages: list[EncodedMessage], counts: list[int]) -> list[bytes | memoryview]:
    """Return the buffers of ``messages`` in pairs, because the queue must not separate header and payload.

    ``counts``, the number of buffers of each message, is updated.
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
