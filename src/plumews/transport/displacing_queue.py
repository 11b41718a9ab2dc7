"""Removal of messages from a full send queue: the oldest ones, or the older message of a key.

Each message is known by its place, so that the one with a key is found without a search. A newer message takes the
place of the older one unless a message without a key is behind that. Otherwise a value that changes all the time would
be put back each time and never leave. So a message with a key may pass others with a key, and never one without.

Invariants: a message that has begun to leave stays. A loss report stays: it is the only ``memoryview`` that is an entry
of the queue by itself. The rest of a message sent in fragments stays, because the peer could not parse the next message
without it.
"""

from __future__ import annotations

from typing import Any, Final

from ..protocol.message import EncodedMessage
from .send_queue import SendQueue

__all__ = ["ABSENT", "DONE", "STALE", "DisplacingQueue"]

#: Results of :meth:`DisplacingQueue._replace`: no message with that key, replaced, or the older message must go.
ABSENT: Final = 0
DONE: Final = 1
STALE: Final = 2

#: Keys of messages that have left which are kept for a while.
_KEYS_FREE: Final = 16


class DisplacingQueue(SendQueue):
    """Send queue whose messages can be displaced. Used by the thread of the loop only."""

    __slots__ = ("_keyed", "displaced_bytes", "evicted", "replaced")

    def __init__(self, queue_size: int, queue_bytes: int) -> None:
        super().__init__(queue_size, queue_bytes)
        self._keyed = 0  # messages with a key that were ever appended, less those taken from the middle
        #: Accepted messages that were dropped for newer ones, or because too much waited.
        self.evicted = 0
        #: Accepted messages that a newer one with their key has replaced.
        self.replaced = 0
        #: Bytes of both.
        self.displaced_bytes = 0

    # --- the oldest -------------------------------------------------------------------------------

    def _make_room(self, size: int) -> int:
        """Drop the oldest messages until one of ``size`` bytes has space. Return how many were dropped."""
        count = position = 0
        queue = self._queue
        while queue and position < len(queue) and not self._has_space(size):
            if _is_fixed(queue[position]):
                position += 1
            else:
                self.displaced_bytes += self._take(position)
                self._gone += 1  # before it stands nothing that has a key
                count += 1
        return count

    def _drop_messages(self) -> int:
        """Drop all messages that may be dropped. Return how many."""
        queue = self._queue
        if queue is None:
            return 0
        self._keys = None
        count = 0
        for position in range(len(queue) - 1, -1, -1):
            if not _is_fixed(queue[position]):
                self.displaced_bytes += self._take(position)
                count += 1
        return count

    def _take(self, position: int) -> int:
        """Remove the entry at ``position``. Return its size."""
        queue = self._queue
        assert queue is not None
        entry = queue.pop(position)
        if isinstance(entry, EncodedMessage):
            self._long -= 1
        size = _size(entry)
        self.queued_bytes -= size
        if self._times is not None and position < len(self._times):
            del self._times[position]
        if not queue:
            self._queue = self._times = self._keys = None
        return size

    # --- by key -----------------------------------------------------------------------------------

    def _replace(self, message: EncodedMessage, key: Any) -> int:
        """Put ``message`` in the place of the queued one with ``key``. Return `ABSENT`, `DONE` or `STALE`."""
        queue = self._queue
        if self._keys is None or queue is None or key not in self._keys:
            return ABSENT
        place, number, old = self._keys[key]
        position = place - self._gone
        if not 0 <= position < len(queue) or queue[position] is not old:
            return ABSENT
        size = self.queued_bytes - _size(old) + message.size
        over = size + self._objects() > self._queue_bytes and len(queue) > 1
        if over or len(queue) - position - 1 != self._keyed - number:
            return STALE
        entry = message.buffers[0] if len(message.buffers) == 1 else message
        self._long += isinstance(entry, EncodedMessage) - isinstance(old, EncodedMessage)
        self.displaced_bytes += _size(old)
        self.queued_bytes = size
        queue[position] = entry  # its time stays: that is how long the peer has waited for this place
        self._keys[key] = (place, number, entry)
        return DONE

    def _take_key(self, key: Any) -> None:
        """Remove the message with ``key``, which is queued."""
        assert self._keys is not None
        place = self._keys.pop(key)[0]
        position = place - self._gone
        keys = self._keys
        self.displaced_bytes += self._take(position)
        self._keyed -= 1
        for other, (its_place, its_number, entry) in keys.items():
            if its_place > place:
                keys[other] = (its_place - 1, its_number - 1, entry)

    def _remember(self, key: Any) -> None:
        """Make ``key`` the key of the last message of the queue."""
        queue = self._queue
        if not queue:
            return
        if self._keys is None:
            self._keys = {}
        elif len(self._keys) > 2 * len(queue) + _KEYS_FREE:
            self._forget_keys(queue)
        self._keyed += 1
        self._keys[key] = (self._gone + len(queue) - 1, self._keyed, queue[-1])

    def _forget_keys(self, queue: list[bytes | memoryview | EncodedMessage]) -> None:
        """Drop the keys of messages that have left. Keys are at most twice the queued messages, and a few."""
        keys: dict[Any, tuple[int, int, object]] = {}
        for key, known in (self._keys or {}).items():
            position = known[0] - self._gone
            if 0 <= position < len(queue) and queue[position] is known[2]:
                keys[key] = known
        self._keys = keys

    # --- loss reports -----------------------------------------------------------------------------

    def add_note(self, note: memoryview, *, first: bool) -> None:
        """Queue a loss report, beyond the bounds: in front of all queued messages, or behind them."""
        queue = self._queue
        if not first or not queue:
            self._append(note, len(note))
            return
        position = 1 if _is_continuation(queue[0]) else 0
        queue.insert(position, note)
        self._gone -= 1
        self.queued_bytes += len(note)
        if self._times is not None and position < len(self._times):
            self._times.insert(position, self._times[position])

    def _begins_whole(self) -> bool:
        """Return True if the queue begins with a whole message."""
        return bool(self._queue) and not _is_continuation(self._queue[0])  # type: ignore[index]

    def waiting_data(self) -> tuple[int, int]:
        """Return the number of queued messages and their bytes, without loss reports."""
        data = [_size(entry) for entry in self._queue or () if not isinstance(entry, memoryview)]
        return len(data), sum(data)

    def take_note(self, note: memoryview, *, last: bool) -> bool:
        """Remove a queued loss report; with ``last`` only if it is the last entry. Return True if it was removed."""
        queue = self._queue
        if not queue:
            return False
        for position in range(len(queue) - 1, -1, -1):
            if queue[position] is note:
                if not last:
                    self._gone += 1
                self._take(position)
                return True
            if last:
                return False
        return False


def _size(entry: Any) -> int:
    return entry.size if isinstance(entry, EncodedMessage) else len(entry)


def _is_fixed(entry: Any) -> bool:
    return isinstance(entry, memoryview) or _is_continuation(entry)


def _is_continuation(entry: Any) -> bool:
    """Return True for a frame with opcode 0: the rest of a message that was sent in fragments."""
    return not isinstance(entry, EncodedMessage) and entry[0] & 0x0F == 0
