"""Flow control of one channel: the bytes that may be on their way to a peer beyond its last answered ping.

Kernels and proxies buffer megabytes in front of a slow peer, out of reach of every send behavior. Only an answered ping
passes all of them. So a ping travels with the data whenever a part of the bound is used up, and data waits while the
bytes behind the last answered ping reach the bound. `transport.channel` asks :meth:`FlowControl.room` before each write
of data. Pings and pongs never wait for that, nor does the closing handshake.

Invariant: while data waits for an answer, a ping is on its way, and the keepalive knows since when.
"""

from __future__ import annotations

from typing import Any, Final

from ..constants import Opcode
from ..protocol.codec import build_frame

__all__ = ["FlowControl"]

#: Parts of the bound, each of which ends with a ping: with 4 and 64 KiB that is 6 bytes for each 16 KiB.
_PARTS: Final = 4


class FlowControl:
    """Positions of the last ping and of the last answered one, in the stream of messages. In bytes."""

    __slots__ = ("_answered", "_keepalive", "_limit", "_part", "_pinged", "written")

    def __init__(self, limit: int, keepalive: Any) -> None:
        self._limit = limit
        self._part = max(1, limit // _PARTS)
        self._answered = 0
        self._pinged = 0
        self._keepalive = keepalive
        #: Bytes of messages written.
        self.written = 0
        keepalive.flow = self

    def unanswered(self) -> int:
        """Return the bytes of messages written since the last answered ping."""
        return self.written - self._answered

    def room(self) -> int:
        """Return the bytes that may be written up to the next ping; 0 if data has to wait for an answer."""
        room = self._limit - (self.written - self._answered)
        if room <= 0:
            if self._keepalive.pong_wait is not None:
                return 0
            self._answered = self.written  # without a pong timeout a silent peer would wait forever
            room = self._limit
        return min(room, self._part - (self.written - self._pinged))

    def wrote(self, size: int) -> bytes | None:
        """Count ``size`` bytes of messages that were written. Return the ping that follows them, or ``None``."""
        self.written += size
        if self.written - self._pinged < self._part:
            return None
        self._pinged = self.written
        return build_frame(Opcode.PING, self._keepalive.expect(None, None))

    def answered(self, place: int) -> bool:
        """Take the answer to a ping that was sent at ``place``. Return True if data may leave for that."""
        self._answered = max(self._answered, place)
        return self.written - self._answered < self._limit

    def hold(self) -> None:
        """Note that data waits for an answer from now on."""
        self._keepalive.held_since = self._keepalive.now()

    def release(self) -> None:
        """Note that data does not wait for an answer any more."""
        self._keepalive.held_since = 0.0
