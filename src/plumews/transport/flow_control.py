"""Flow control of one connection: data waits in the send queue while too much is on its way to the peer.

Kernels and proxies buffer megabytes in front of a slow peer, out of reach of every send behavior. Only an answered ping
passes all of them. So a ping travels with the data whenever a part of the bound is used up, and data waits while the
bytes behind the last answered ping reach the bound. Pings and pongs never wait for that, nor does the closing
handshake. On macOS a write also waits for the writable event: `send` does not heed the bound of `send_buffer` there.

Invariant: while data waits for an answer, a ping is on its way, and the keepalive knows since when.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
from collections.abc import Callable
from typing import Any, Final

from ..constants import Opcode
from ..protocol.codec import build_frame
from .loop_context import LoopContext
from .writer import Writer

__all__ = ["FlowControl"]

#: Causes for which data waits: the transport, an answered ping, the writable event.
_TRANSPORT: Final = 1
_ANSWER: Final = 2
_EVENT: Final = 4
_ANY: Final = 7

#: Parts of the bound, each of which ends with a ping: with 4 and 64 KiB that is 6 bytes for each 16 KiB.
_PARTS: Final = 4


class FlowControl(Writer):
    """Writer of a connection with a bound for bytes on their way. Used by the thread of the loop only."""

    __slots__ = (
        "_answered",
        "_blocked",
        "_event_fd",
        "_keepalive",
        "_limit",
        "_may_write",
        "_part",
        "_pinged",
        "_waits_for_event",
    )

    def __init__(
        self, state: LoopContext, *, queue_size: int, queue_bytes: int, unanswered: int | None, waits_for_event: bool
    ) -> None:
        super().__init__(state, queue_size=queue_size, queue_bytes=queue_bytes)
        self._limit = unanswered or 0
        self._part = max(1, self._limit // _PARTS)
        self._waits_for_event = waits_for_event
        self._blocked = 0
        self._event_fd = -1
        # Positions in the stream of messages, in bytes: of the last answered ping, and of the last ping.
        self._answered = 0
        self._pinged = 0
        self._keepalive: Any = None
        self._may_write: Callable[[], None] | None = None

    def steer(self, keepalive: Any, may_write: Callable[[], None]) -> None:
        """Take pings from ``keepalive``. Call ``may_write()`` when the socket becomes writable."""
        self._keepalive = keepalive
        self._may_write = may_write
        if self._limit:
            keepalive.flow = self

    def attach(
        self, transport: asyncio.WriteTransport, on_failure: Callable[[BaseException | None], object] | None = None
    ) -> None:
        self._blocked = 0
        Writer.attach(self, transport, on_failure)

    @property
    def unanswered(self) -> int | None:
        """Bytes of messages written since the last answered ping; ``None`` without a bound."""
        return self.written - self._answered if self._limit else None

    def detach(self) -> None:
        self._forget_event()
        self._keepalive = self._may_write = None
        Writer.detach(self)

    # --- causes of waiting ------------------------------------------------------------------------

    def pause(self) -> None:
        self._blocked |= _TRANSPORT
        Writer.pause(self)

    def drained(self) -> bool:
        return self._released(_TRANSPORT)

    def resume(self) -> None:
        if not self._blocked:
            Writer.resume(self)

    def answered(self, place: int) -> bool:
        """Take the answer to a ping that was sent at ``place``. Return whether waiting data may leave for that."""
        self._answered = max(self._answered, place)
        if not self._blocked & _ANSWER or self.written - self._answered >= self._limit:
            return False
        self._keepalive.held_since = 0.0
        return self._released(_ANSWER)

    def _released(self, cause: int) -> bool:
        self._blocked &= _ANY - cause
        if self._blocked == _ANSWER and not self._dirty and (self._control is not None or self._pongs is not None):
            self._dirty = True
            self._state.mark_dirty(self)
        return not self._blocked

    def _block(self, cause: int) -> None:
        self._blocked |= cause
        self.paused = True
        if self._queue is not None:
            self._date(self._queue)

    # --- writing ----------------------------------------------------------------------------------

    def finish(self, close_frame: bytes, on_finished: Callable[[], None]) -> None:
        if self._blocked & _ANSWER:
            self._keepalive.held_since = 0.0
            self._blocked &= _ANY - _ANSWER
            self.paused = self._blocked != 0
        Writer.finish(self, close_frame, on_finished)

    def pong(self, frame: bytes) -> None:
        if self._blocked == _ANSWER and self._pongs is not None and self._closing is None:
            self._pongs.append(frame)  # pongs still leave: only a full socket lets the newest replace the others
        else:
            Writer.pong(self, frame)

    def kick(self, at_once: bool) -> None:
        if self._blocked != _ANSWER:
            Writer.kick(self, at_once)
        elif self._control is not None or self._pongs is not None:
            self.flush()

    def flush(self) -> None:
        if self._blocked != _ANSWER or not self.paused:
            Writer.flush(self)
            return
        self._dirty = self._hot = self._gathered = False
        try:
            if self._transport is not None and not self._transport.is_closing():
                self._write_control()
        except BaseException as exc:
            self.fail(exc)
            if not isinstance(exc, Exception):
                raise

    def _write_some(self) -> None:
        if self._closing is not None:
            Writer._write_some(self)
            return
        if self._limit:
            self._write_within()
        else:
            Writer._write_some(self)
        if self._waits_for_event and not self._blocked & (_EVENT | _ANSWER):
            self._await_event()

    def _write_within(self) -> None:
        """Write waiting data once, up to the next ping."""
        room = self._limit - (self.written - self._answered)
        if room <= 0 and (self._queue is not None or self._rest is not None):
            if self._keepalive.pong_wait is not None:
                self._block(_ANSWER)
                self._keepalive.held_since = self._keepalive.now()
                self._write_control()
                return
            self._answered = self.written  # without a pong timeout a silent peer would wait forever
            room = self._limit
        batch = self._plan_within(min(room, self._part - (self.written - self._pinged)))
        if self._past():
            self._write_past(batch)
        else:
            self._write(batch)
        if self.written - self._pinged >= self._part and self._transport is not None:
            self._pinged = self.written
            self.control(build_frame(Opcode.PING, self._keepalive.expect(None, None)))

    def _write_control(self) -> None:
        """Write pings and pongs only."""
        batch: list[bytes | memoryview] = [*(self._control or ()), *(self._pongs or ())]
        if batch:
            self._planned = self._planned_rest = 0
            if self._past():
                self._write_past(batch)
            else:
                self._write(batch)

    # --- the writable event -----------------------------------------------------------------------

    def _await_event(self) -> None:
        """Wait until the kernel reports the socket as writable.

        The loop watches a duplicate of the descriptor, because the transport may watch the descriptor itself.
        """
        transport = self._transport
        sock = None if transport is None else transport.get_extra_info("socket")
        if sock is None:
            return
        watched = False
        try:
            self._event_fd = os.dup(sock.fileno())
            contextvars.Context().run(asyncio.get_running_loop().add_writer, self._event_fd, self._writable)
            watched = True
        except (OSError, NotImplementedError):  # no descriptor is left, or the loop cannot watch one
            self._forget_event()
        if watched:
            self._block(_EVENT)

    def _writable(self) -> None:
        self._forget_event()
        if self._released(_EVENT) and self._may_write is not None:
            self._may_write()

    def _forget_event(self) -> None:
        fd, self._event_fd = self._event_fd, -1
        if fd >= 0:
            try:
                asyncio.get_running_loop().remove_writer(fd)
            except NotImplementedError:  # it was never watched; no `with`: compiled, it needs a traceback
                pass
            os.close(fd)
