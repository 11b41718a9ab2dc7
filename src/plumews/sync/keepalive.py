"""Pings of one blocking connection: those of the application, and those of the keepalive, with the measured latency."""

from __future__ import annotations

import os
import threading
import time
from typing import Final

from .. import limits
from ..constants import CloseCode, Opcode
from ..protocol.codec import build_frame
from .channel import SocketChannel
from .writer import UNSENT, FrameWriter

__all__ = ["Keepalive", "PongWaiter"]

_PING: Final = int(Opcode.PING)


class PongWaiter(threading.Event):
    """Event of one pong.

    Attributes:
        latency: Seconds from the ping to the pong; 0.0 if the connection ended before it.
    """

    latency = 0.0


class Keepalive:
    """Unanswered pings, and the schedule of the keepalive.

    Args:
        channel: Socket and state.

    Attributes:
        latency: Seconds from the newest answered ping to its pong; 0.0 before the first pong.
        last_pong: Time of the last pong, in seconds since the epoch; before the first pong, the time of the opening.
    """

    __slots__ = ("_channel", "_next", "_ping_at", "_pings", "_reads_at_ping", "last_pong", "latency")

    def __init__(self, channel: SocketChannel) -> None:
        self._channel = channel
        self._pings: dict[bytes, tuple[float, PongWaiter | None]] = {}
        self.latency = 0.0
        self.last_pong = time.time()
        interval = channel.config.ping_interval
        self._next = None if interval is None else time.monotonic() + interval
        self._ping_at = 0.0
        self._reads_at_ping = 0

    def ping(self, writer: FrameWriter, payload: bytes | None, waiter: PongWaiter) -> None:
        """Send a ping. ``waiter`` is set by its pong, and at the end of the connection.

        Raises:
            ValueError: ``payload`` is too long, or an unanswered ping has it.
            SocketFailed, ConnectionClosed: As `FrameWriter.write`.
        """
        if payload is not None and len(payload) > limits.CONTROL_PAYLOAD:
            raise ValueError(f"a ping may carry {limits.CONTROL_PAYLOAD} bytes, not {len(payload)}")
        with writer.lock:
            writer.check_open()
            writer.output_or_fail(self._frame(payload, waiter))

    def answered(self, payload: bytes) -> None:
        """Take a pong. It answers all pings before its own, too (RFC 6455 section 5.5.3)."""
        now = time.monotonic()
        if payload not in self._pings:
            return
        for key in list(self._pings):
            sent, waiter = self._pings.pop(key)
            if waiter is not None:
                waiter.latency = now - sent
                waiter.set()
            if key == payload:
                self.latency = now - sent
                self.last_pong = time.time()
                return

    def end(self) -> None:
        """Wake the threads that wait for a pong: the connection has ended."""
        for _, waiter in list(self._pings.values()):
            if waiter is not None:
                waiter.set()
        self._pings.clear()

    def run(self, writer: FrameWriter, now: float, *, reads: int, full: bool, resumed: bool) -> None:
        """Send the ping that is due, or cut a connection whose peer answers none.

        Args:
            writer: Writer of the connection.
            now: Monotonic time.
            reads: Reads of the socket until now. One since the last ping is a sign of life.
            full: True if the receive queue is full, so that no sign of life could be read.
            resumed: True if the machine was suspended until now.

        Raises:
            OSError: The socket has failed.
        """
        if self._next is None:
            return
        if self._ping_at and (reads != self._reads_at_ping or full):
            self._ping_at = 0.0
        timeout = self._channel.config.ping_timeout
        if self._ping_at and timeout is not None and now >= self._ping_at + timeout:
            writer.close(CloseCode.INTERNAL_ERROR, "keepalive ping timeout")
            self._channel.shut()
        elif (now >= self._next or resumed) and writer.lock.acquire(blocking=False):
            try:
                self._next = now + (self._channel.config.ping_interval or 0.0)
                if not self._ping_at:
                    self._ping_at, self._reads_at_ping = now, reads
                if len(writer.tail) < UNSENT:
                    writer.output(self._frame(None, None), wait=False)
            finally:
                writer.lock.release()

    def _frame(self, payload: bytes | None, waiter: PongWaiter | None) -> bytes:
        """Return a ping, and remember it. The caller owns writing, and sends it."""
        if payload is None:
            payload = os.urandom(4)
            while payload in self._pings:
                payload = os.urandom(4)
        elif payload in self._pings:
            raise ValueError("an unanswered ping has the same data")
        self._pings[payload] = time.monotonic(), waiter
        return build_frame(_PING, payload, masked=True)
