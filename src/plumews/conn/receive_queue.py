"""Messages that were received and not yet read (layer 3).

The queue between the parser and a handler that reads at its own pace. It tells when reading should stop:
by messages and by bytes. Cancelling a reader loses nothing, because a message is taken only by the
reader that returns it.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from .. import limits
from ..errors import ConcurrencyError
from ..transport.read_waiter import ReadWaiter
from .stream import Stream

__all__ = ["Item", "ReceiveQueue"]

#: So many items that were taken are forgotten together.
_TRIM = 64

#: (opcode, payload) or (StreamEvent.BEGIN, stream), as the parser tells it.
Item = tuple[int, Any]


_OVERHEAD = limits.RECEIVED_OVERHEAD
_getsizeof = sys.getsizeof


def memory_of(item: Item) -> int:
    """Bytes of memory that ``item`` takes, about; what a stream holds is counted by itself."""
    data = item[1]
    if isinstance(data, bytes):
        return len(data) + _OVERHEAD
    if isinstance(data, str):
        return (len(data) if data.isascii() else _getsizeof(data)) + _OVERHEAD
    return _OVERHEAD


class ReceiveQueue:
    """The receive queue of one connection."""

    __slots__ = ("_head", "_items", "_max_bytes", "_max_items", "_waiter", "bytes", "touched")

    def __init__(self, *, max_items: int, max_bytes: int) -> None:
        self._max_items = max_items
        self._max_bytes = max_bytes
        # Made when there is something to hold; the first ``_head`` were taken.
        self._items: list[Item | None] | None = None
        self._head = 0
        self._waiter: ReadWaiter | None = None
        #: Set by each :meth:`take`.
        self.touched = False
        #: Bytes of memory that the messages in the queue take, about.
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._items) - self._head if self._items is not None else 0

    def room(self) -> int:
        """How many more messages have a place."""
        return max(0, self._max_items - len(self))

    def has_reader(self) -> bool:
        """Whether a reader waits for the next message."""
        return self._waiter is not None

    @property
    def awaited(self) -> bool:
        """Whether a reader waits for the next message, or for the rest of it."""
        if self._waiter is not None:
            return True
        stream = self.stream
        return stream is not None and stream.awaited

    @property
    def stream(self) -> Stream | None:
        """The next message, if it is one that a cancelled ``read_stream()`` had asked for."""
        first = self.peek()[1] if len(self) else None
        return first if isinstance(first, Stream) else None

    def put(self, item: Item) -> None:
        """One more item. Who put what there was to put calls :meth:`wake` or :meth:`wake_now`."""
        if self._items is None:
            self._items = []
        self._items.append(item)
        self.bytes += memory_of(item)

    def peek(self) -> Item:
        """The oldest item, left where it is; only called when there is one."""
        assert self._items is not None
        item = self._items[self._head]
        assert item is not None
        return item

    def take(self) -> Item:
        """The oldest item; only called when there is one."""
        assert self._items is not None
        if self._head == _TRIM:  # first: what fails for want of memory has taken nothing
            del self._items[:_TRIM]
            self._head = 0
        item = self.peek()
        self._items[self._head] = None
        self._head += 1
        self.touched = True
        if self._head == len(self._items):
            self._items.clear()
            self._head = 0
        self.bytes -= memory_of(item)
        return item

    def is_full(self, extra: int) -> bool:
        """Whether reading should stop, with ``extra`` bytes held elsewhere for the same reader."""
        return len(self) >= self._max_items or self.bytes + extra >= self._max_bytes

    def is_low(self, extra: int) -> bool:
        """Whether reading may go on: half of each bound, so that it does not flutter."""
        return len(self) <= self._max_items // 2 and self.bytes + extra <= self._max_bytes // 2

    def start_waiting(self, loop: asyncio.AbstractEventLoop) -> ReadWaiter:
        """What a reader awaits, until something was put or the end was reached; then :meth:`stop_waiting`."""
        if self._waiter is not None:
            raise ConcurrencyError("another task is already receiving from this connection")
        waiter = self._waiter = ReadWaiter.__new__(ReadWaiter)
        waiter._prepare(loop)
        return waiter

    def stop_waiting(self) -> None:
        self._waiter = None

    def wake(self) -> None:
        """Let the reader go on in the next turn of the loop."""
        if self._waiter is not None:
            self._waiter.wake()

    def wake_now(self) -> None:
        """Let a reader for whom there is something go on before this returns."""
        if self._waiter is not None and len(self):
            self._waiter.wake_now()
