"""Write queued frames directly to the socket when possible, otherwise through the asyncio transport.

With a plain socket, frames go straight to it. If the socket takes a part of a frame, the rest of that frame goes to the
transport. Later frames wait in the queue until the transport is empty, so that the bounds of the queue hold.

Invariants: nothing is written past a transport that holds data or is closed. After a call of the transport has failed
nothing is written, because part of a frame may have left. Transports write in an empty context, because asyncio keeps
the context of a write until the socket has taken it.
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

#: True for CPythons that never pause after ``writelines`` (CVE-2024-12254): their buffer has no bound.
_WRITELINES_HAS_NO_BOUND: Final = (3, 12) <= sys.version_info < (3, 12, 9) or (3, 13) <= sys.version_info < (3, 13, 2)


class SocketWriter(DisplacingQueue):
    """Send queue that is written to a socket. Used by the thread of the loop only."""

    __slots__ = ("_fd", "_handed", "_on_failure", "_state", "_transport")

    def __init__(self, state: LoopContext, queue_size: int, queue_bytes: int) -> None:
        super().__init__(queue_size, queue_bytes)
        self._state = state
        self._transport: asyncio.WriteTransport | None = None
        self._on_failure: Callable[[BaseException | None], object] | None = None
        self._fd = -1  # of the socket, if direct writes are possible
        self._handed = True  # the transport was given data and was not seen empty since

    def attach(
        self, transport: asyncio.WriteTransport, on_failure: Callable[[BaseException | None], object] | None = None
    ) -> None:
        """Write to ``transport`` from now on, or directly to its socket if that is possible.

        :meth:`Writer.fail` calls ``on_failure(exc)``. Nothing is written after that.
        """
        self._transport = transport
        self._on_failure = on_failure
        self._fd = sendmsg.descriptor(transport)
        self._handed = True
        self.paused = False  # an earlier transport may have paused it
        # A transport that holds data blocks direct writes, so it should hold as little as possible.
        self._limit_transport(transport, 0 if self._fd >= 0 else limits.TRANSPORT_HIGH_WATER)

    def _limit_transport(self, transport: asyncio.WriteTransport, high: int) -> None:
        try:
            transport.set_write_buffer_limits(high=high)
        except NotImplementedError:
            pass

    def bound(self, unsent: int) -> None:
        """Limit the bytes that kernel and transport hold and have not sent to about ``unsent``."""
        transport = self._transport
        if transport is not None:
            sock = transport.get_extra_info("socket")
            if sock is not None:
                send_buffer.bound(sock, unsent)
            if self._fd < 0 and unsent < limits.TRANSPORT_HIGH_WATER:
                self._limit_transport(transport, unsent)

    def _detach(self) -> None:
        self._transport = self._on_failure = None
        self._fd = -1  # another connection may get the same number

    def _write_some(self) -> None:
        """Write queued frames once. The queue is not empty, and there is a transport."""
        if self._past():
            if self._is_plain():
                self._write_all()
            else:
                self._write_past(self._plan())
        else:
            self._write(self._plan())

    def _past(self) -> bool:
        """Return True if frames may go directly to the socket: the transport holds nothing."""
        if self._handed and self._fd >= 0 and self._transport is not None:
            self._handed = self._transport.get_write_buffer_size() != 0
        return self._fd >= 0 and not self._handed

    def _write_all(self) -> None:
        """Write all messages of the queue, and nothing else: the common case."""
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
        """Give the rest of a frame to the transport: the socket took only ``sent`` bytes of ``batch``."""
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
    """Return True if ``buffer`` is a frame header whose payload is the next buffer.

    Sizes do not tell: a whole frame may be longer than a separate payload. A view is always such a payload.
    """
    if type(buffer) is not bytes or len(buffer) > _LONGEST_HEADER:
        return False
    length = buffer[1] & 0x7F
    extended = 0 if length < 126 else 2 if length == 126 else 8
    return length > 0 and len(buffer) == 2 + extended + (4 if buffer[1] & 0x80 else 0)
