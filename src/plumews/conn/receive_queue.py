"""Receive queue: messages between the parser and a handler that reads at its own pace.

It bounds messages and bytes, and tells when reading from the socket is to stop. Only the reader that returns a message
takes it, so cancelling a reader loses nothing.
"""

from __future__ import annotations

import asyncio
import sys
from functools import lru_cache
from typing import Any

from .. import limits
from ..constants import Opcode
from ..errors import ConcurrencyError
from ..transport.read_waiter import ReadWaiter
from .stream import Stream

__all__ = ["Item", "ReceiveQueue", "empty_queue"]

#: Taken items that are removed from the list together.
_TRIM = 64

#: ``(opcode, payload)`` or ``(StreamEvent.BEGIN, stream)``.
Item = tuple[int, Any]
#: Content of the queue: an item, or a plain message itself, which is a str for a text and bytes for a binary one.
Entry = Item | str | bytes

_OVERHEAD = limits.RECEIVED_OVERHEAD
_getsizeof = sys.getsizeof


_TEXT, _BINARY = int(Opcode.TEXT), int(Opcode.BINARY)


def memory_of(entry: Entry) -> int:
    """Return the approximate memory of an entry in bytes. The chunks of a stream are counted elsewhere."""
    data = entry[1] if type(entry) is tuple else entry
    if type(data) is bytes:
        size = len(data)
    elif type(data) is str:
        size = len(data) if data.isascii() else _getsizeof(data)
    else:
        size = 0
    return size + _OVERHEAD


class ReceiveQueue:
    """Receive queue of one connection, or ``shared`` by all that have received nothing yet: that one stays empty."""

    __slots__ = ("_head", "_items", "_max_bytes", "_max_items", "_waiter", "bytes", "shared", "touched")

    def __init__(self, *, max_items: int, max_bytes: int, shared: bool = False) -> None:
        self.shared = shared
        self._max_items = max_items
        self._max_bytes = max_bytes
        # Made with the first entry; the first ``_head`` entries are taken.
        self._items: list[Entry | None] | None = None
        self._head = 0
        self._waiter: ReadWaiter | None = None
        #: Set by each :meth:`take` and :meth:`drop`.
        self.touched = False
        #: Approximate memory of the messages in the queue, in bytes.
        self.bytes = 0

    def __len__(self) -> int:
        return self.count()

    def count(self) -> int:
        """Return the number of items."""
        return len(self._items) - self._head if self._items is not None else 0

    def room(self) -> int:
        """Return the number of messages that still fit."""
        return max(0, self._max_items - len(self))

    def has_reader(self) -> bool:
        """Return whether a reader waits for the next message."""
        return self._waiter is not None

    @property
    def awaited(self) -> bool:
        """True while a reader waits for the next message or the rest of it."""
        if self._waiter is not None:
            return True
        stream = self.stream
        return stream is not None and stream.awaited

    @property
    def stream(self) -> Stream | None:
        """Next message if it is a stream, which a cancelled ``read_stream()`` has left, else ``None``."""
        first = self.first() if len(self) else None
        return first[1] if type(first) is tuple and isinstance(first[1], Stream) else None

    def put(self, entry: Entry) -> None:
        """Add an entry. The caller calls :meth:`wake` or :meth:`wake_now` behind the last one."""
        if self._items is None:
            self._items = []
        self._items.append(entry)
        self.bytes += memory_of(entry)

    def first(self) -> Entry:
        """Return the oldest entry and leave it in the queue, which is not empty."""
        assert self._items is not None
        entry = self._items[self._head]
        assert entry is not None
        return entry

    def peek(self) -> Item:
        """Return the oldest entry as an item and leave it in the queue, which is not empty."""
        entry = self.first()
        if isinstance(entry, tuple):
            return entry
        return (_TEXT if isinstance(entry, str) else _BINARY), entry

    def take(self) -> Item:
        """Remove and return the oldest entry of the queue, which is not empty, as an item."""
        item = self.peek()
        self.drop()
        return item

    def drop(self) -> None:
        """Remove the oldest entry of the queue, which is not empty."""
        items, head = self._items, self._head
        assert items is not None
        if head == _TRIM:  # first: a MemoryError leaves the queue as it was
            del items[:_TRIM]
            self._head = head = 0
        entry = items[head]
        assert entry is not None
        items[head] = None
        self._head = head + 1
        self.touched = True
        if head + 1 == len(items):
            items.clear()
            self._head = 0
        self.bytes -= memory_of(entry)

    def is_full(self, extra: int) -> bool:
        """Return whether reading should stop; ``extra`` bytes are held elsewhere for the same reader."""
        return len(self) >= self._max_items or self.bytes + extra >= self._max_bytes

    def is_low(self, extra: int) -> bool:
        """Return whether reading may resume: below half of each bound, so that it does not alternate."""
        return len(self) <= self._max_items // 2 and self.bytes + extra <= self._max_bytes // 2

    def start_waiting(self, loop: asyncio.AbstractEventLoop) -> ReadWaiter:
        """Return the awaitable of a reader, which calls :meth:`stop_waiting` afterwards."""
        if self._waiter is not None:
            raise ConcurrencyError("another task is already receiving from this connection")
        waiter = self._waiter = ReadWaiter.__new__(ReadWaiter)
        waiter._prepare(loop)
        return waiter

    def stop_waiting(self) -> None:
        """End the waiting of :meth:`start_waiting`."""
        self._waiter = None

    def wake(self) -> None:
        """Resume the reader in the next event loop iteration."""
        if self._waiter is not None:
            self._waiter.wake()

    def wake_now(self) -> None:
        """Resume the reader before this call returns, if there is an item."""
        if self._waiter is not None and len(self):
            self._waiter.wake_now()


@lru_cache(maxsize=64)
def empty_queue(max_items: int, max_bytes: int) -> ReceiveQueue:
    """Return the shared queue with these bounds."""
    return ReceiveQueue(max_items=max_items, max_bytes=max_bytes, shared=True)
