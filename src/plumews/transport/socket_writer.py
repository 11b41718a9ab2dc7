"""The way out of a send queue: to the socket itself, or to its transport (layer 3).

Where the connection is a plain socket, frames go straight to it: only the rest of a frame that it took a part of is
left to the transport, and what follows waits in the queue until that is gone, so that its bounds mean something.

Invariants: nothing goes past a transport that holds something, or is gone. After a call of the transport has failed
nothing is written any more, because part of a frame may have left. Transports write in an empty context, because
asyncio keeps the context of a write until the socket has taken it.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextvars import Context
from typing import Final

from .. import limits
from . import send_buffer, sendmsg
from .displacing_queue import DisplacingQueue
from .loop_context import LoopContext

__all__ = ["SocketWriter"]

#: Bytes of a frame before its payload (RFC 6455 section 5.2).
_LONGEST_HEADER: Final = 14

#: These CPythons never ask for a pause after ``writelines`` (CVE-2024-12254): their buffer has no bound.
_WRITELINES_HAS_NO_BOUND: Final = (3, 12) <= sys.version_info < (3, 12, 9) or (3, 13) <= sys.version_info < (3, 13, 2)


class SocketWriter(DisplacingQueue):
    """A queue that can be written. Lives on the loop's thread."""

    __slots__ = ("_fd", "_handed", "_on_failure", "_state", "_transport")

    def __init__(self, state: LoopContext, queue_size: int, queue_bytes: int) -> None:
        super().__init__(queue_size, queue_bytes)
        self._state = state
        self._transport: asyncio.WriteTransport | None = None
        self._on_failure: Callable[[BaseException | None], object] | None = None
        self._fd = -1  # of the socket, where it may be written to past the transport
        self._handed = True  # the transport was given something, and was not seen empty since

    def attach(
        self, transport: asyncio.WriteTransport, on_failure: Callable[[BaseException | None], object] | None = None
    ) -> None:
        """Write to ``transport``, or past it if it passes bytes on to its socket as they are.

        ``on_failure(exc)`` is called by :meth:`Writer.fail`; nothing is written after that.
        """
        self._transport = transport
        self._on_failure = on_failure
        self._fd = sendmsg.descriptor(transport)
        self._handed = True
        self.paused = False  # so said another transport, if one was attached before
        # Past a transport that holds something nothing goes, so it is to hold no more than it must.
        self._limit_transport(transport, 0 if self._fd >= 0 else limits.TRANSPORT_HIGH_WATER)

    def _limit_transport(self, transport: asyncio.WriteTransport, high: int) -> None:
        try:
            transport.set_write_buffer_limits(high=high)
        except NotImplementedError:
            pass

    def bound(self, unsent: int) -> None:
        """Let kernel and transport hold no more than about ``unsent`` bytes that are not on the network."""
        transport = self._transport
        if transport is not None:
            sock = transport.get_extra_info("socket")
            if sock is not None:
                send_buffer.bound(sock, unsent)
            if self._fd < 0 and unsent < limits.TRANSPORT_HIGH_WATER:
                self._limit_transport(transport, unsent)

    def _detach(self) -> None:
        self._transport = self._on_failure = None
        self._fd = -1  # it may be another connection's soon

    def _write_some(self) -> None:
        """One write of what waits; there is something, and a transport."""
        if self._past():
            if self._is_plain():
                self._write_all()
            else:
                self._write_past(self._plan())
        else:
            self._write(self._plan())

    def _past(self) -> bool:
        """Whether bytes may go past the transport: it is a socket's, and holds nothing."""
        if self._handed and self._fd >= 0 and self._transport is not None:
            self._handed = self._transport.get_write_buffer_size() != 0
        return self._fd >= 0 and not self._handed

    def _write_all(self) -> None:
        """What nearly every write is: all messages of the queue, and nothing else waits."""
        queue = self._queue
        assert queue is not None
        sent: int = sendmsg.send(self._fd, queue)
        if sent < 0:
            self._sent_all()
            self._state.give_back(queue)
        else:
            self._planned, self._planned_rest = len(queue), 0
            self._cut(queue.copy(), sent)  # type: ignore[arg-type]

    def _write_past(self, batch: list[bytes | memoryview]) -> None:
        sent = sendmsg.send(self._fd, batch)
        if sent < 0:
            self._left(len(batch))
        else:
            self._cut(batch, sent)

    def _write(self, batch: list[bytes | memoryview]) -> None:
        transport = self._transport
        assert transport is not None
        self._left(len(batch))
        self._handed = True
        if len(batch) == 1:
            Context().run(transport.write, batch[0])
        elif _WRITELINES_HAS_NO_BOUND:
            Context().run(transport.write, b"".join(batch))
        else:
            Context().run(transport.writelines, batch)

    def _cut(self, batch: list[bytes | memoryview], sent: int) -> None:
        """The socket took only ``sent`` bytes: the frame at which it stopped goes to the transport, no more."""
        at = 0
        while sent >= len(batch[at]):
            sent -= len(batch[at])
            at += 1
        stop = at + 1
        if _is_header(batch[at]):
            stop += 1
        self._left(stop)
        self._handed = True
        transport = self._transport
        assert transport is not None
        Context().run(transport.write, memoryview(batch[at])[sent:])
        for buffer in batch[at + 1 : stop]:
            Context().run(transport.write, buffer)


def _is_header(buffer: bytes | memoryview) -> bool:
    """Whether ``buffer`` is a header whose payload is the buffer behind it: it ends before what it announces.

    Sizes do not tell: a whole frame may be longer than a payload that lies apart. A view is always such a payload.
    """
    if type(buffer) is not bytes or len(buffer) > _LONGEST_HEADER:
        return False
    length = buffer[1] & 0x7F
    extended = 0 if length < 126 else 2 if length == 126 else 8
    return length > 0 and len(buffer) == 2 + extended + (4 if buffer[1] & 0x80 else 0)
