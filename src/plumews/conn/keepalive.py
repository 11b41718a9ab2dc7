"""Keepalive: pings, and the end of a silent peer (RFC 6455 sections 5.5.2 and 5.5.3).

Each received byte is a sign of life. Bytes that the peer acknowledges are one, too: until its kernel has the ping,
which may wait behind data, and for 4 pong waits more, because a kernel acknowledges for a process that hangs. The
socket is sampled only in a silence of the peer. After a stall of the event loop the keepalive looks a second time,
because a sign of life may be unread in the socket. While reading is paused it ends no peer.

This class sends a ping by its clock, and the application by `ping`. With ``unanswered_bytes`` `FlowControl` sends more
pings with the data. It registers them by `expect`, and `pong` resolves all.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable
from typing import Any, Protocol

from .. import limits
from ..transport.timers import Deadline, Timers
from ..validation import check_keepalive

__all__ = ["Keepalive", "Peer"]

#: Seconds between the first and the second look, enough for the loop to poll its sockets.
_SECOND_LOOK = 0.02

#: Least acknowledged bytes that are a sign of life: a kernel acknowledges the pings by itself.
_PROGRESS_LEAST = 128

#: Looks in a pong wait at a peer whose only signs of life are acknowledged bytes.
_LOOKS = 4

#: Share of the ping interval by which each ping is shifted, so that connections do not ping in step.
_PING_JITTER = 0.1


class Peer(Protocol):
    """Connection of a keepalive."""

    def _send_ping(self, payload: bytes) -> None: ...

    def _progress(self) -> tuple[int, int] | None:
        """Return the acknowledged and the unacknowledged bytes, or ``None`` where the socket does not tell."""

    def _give_up(self) -> None:
        """End the connection: the peer is silent."""

    def _fail(self, exc: BaseException) -> None: ...


class Keepalive:
    """Pings of one connection, and the time of its last sign of life."""

    __slots__ = (
        "_acknowledged",
        "_clock_ping",
        "_deadline",
        "_doubt",
        "_last_progress",
        "_next_ping",
        "_outstanding",
        "_peer",
        "_ping_position",
        "_progress_until",
        "_running",
        "_sampled_at",
        "_timers",
        "flow",
        "held_since",
        "last_pong",
        "last_received",
        "latency",
        "listening",
        "ping_period",
        "pong_wait",
    )

    def __init__(self, timers: Timers, peer: Peer, *, ping_period: float | None, pong_wait: float | None) -> None:
        self._timers = timers
        self._peer: Peer | None = peer
        self.ping_period = ping_period
        self.pong_wait = pong_wait
        self._deadline: Deadline | None = None
        self._running = False
        self._doubt = False
        self._next_ping = 0.0
        #: By payload: time of sending, future of the answer, and place in the stream of messages. ``None`` without any.
        self._outstanding: dict[bytes, tuple[float, asyncio.Future[float] | None, int]] | None = None
        self._clock_ping = b""
        #: Counter of message bytes on a connection with ``unanswered_bytes``.
        self.flow: Any = None
        #: Loop time since which data waits for an answered ping; 0.0 if none waits.
        self.held_since = 0.0
        #: Value of ``last_received`` at which the socket was sampled: once in each silence of the peer.
        self._sampled_at = -1.0
        #: Acknowledged bytes from which progress is measured.
        self._acknowledged = 0
        #: Acknowledged bytes from which on the peer's kernel has the first ping of this silence.
        self._ping_position = 0
        #: Loop time of the last progress.
        self._last_progress = 0.0
        #: Loop time until which progress is a sign of life; 0.0 until the peer's kernel has the ping.
        self._progress_until = 0.0
        #: Wall-clock time of the last pong; before the first one, of the opening.
        self.last_pong = time.time()
        #: Loop time of the last received byte.
        self.last_received = 0.0
        #: Seconds from the newest answered ping to its pong; 0.0 before the first.
        self.latency = 0.0
        #: False while reading is paused.
        self.listening = True

    # --- settings ---------------------------------------------------------------------------------

    def configure(self, now: float, *, ping_period: float | None, pong_wait: float | None) -> None:
        """Set both times, effective at once."""
        check_keepalive(ping_period, pong_wait)
        self.ping_period = ping_period
        self.pong_wait = pong_wait
        if self._running:
            self._plan_ping(now)
            self._schedule(now)

    # --- life -------------------------------------------------------------------------------------

    def start(self, now: float) -> None:
        """Begin to send pings, on an open connection."""
        self._running = True
        self.last_pong = time.time()
        self.last_received = now
        self._plan_ping(now)
        self._schedule(now)

    def stop(self, closed: Callable[[], Exception]) -> None:
        """End all waits for pongs with the exception of ``closed()``, and drop the connection."""
        self._running = False
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self._peer = self.flow = None
        outstanding, self._outstanding = self._outstanding, None
        for _, waiter, _ in () if outstanding is None else outstanding.values():
            if waiter is not None and not waiter.done():
                waiter.set_exception(closed())
                waiter.cancel()  # it is done; this stops the warning of asyncio about an unread exception

    def heard_again(self, now: float) -> None:
        """Count silence from now on, after a pause of reading."""
        self.listening = True
        self.last_received = now
        if self.held_since:
            self.held_since = now  # the answer may have come long ago
        if self._running:
            self._schedule(now)

    def probe(self) -> None:
        """Ping at once, as after ``ping_interval`` of silence: the machine was suspended, and the peer may be gone."""
        if self._running and self.ping_period is not None:
            now = self._timers.time()
            self.last_received = min(self.last_received, now - self.ping_period)
            self._next_ping = now
            self._check()

    def ping(self, payload: bytes | None, waiter: asyncio.Future[float] | None) -> None:
        """Send a ping. ``waiter`` gets the latency in seconds with its pong."""
        payload = self.expect(payload, waiter)
        if self._peer is not None:
            self._peer._send_ping(payload)

    def expect(self, payload: bytes | None, waiter: asyncio.Future[float] | None) -> bytes:
        """Register a ping that is about to be sent. Return its payload, by default a random one that is not in use."""
        if self._outstanding is None:
            self._outstanding = {}
        if payload is None:
            payload = os.urandom(4)
            while payload in self._outstanding:
                payload = os.urandom(4)
        elif payload in self._outstanding:
            raise ValueError(f"a ping with the payload {payload!r} is still waiting for its pong")
        self._outstanding[payload] = (time.perf_counter(), waiter, 0 if self.flow is None else self.flow.written)
        return payload

    def pong(self, payload: bytes) -> int:
        """Resolve the ping of a pong, and all earlier ones (section 5.5.3). Return the place of the ping."""
        self.last_pong = time.time()
        outstanding = self._outstanding
        if outstanding is None or payload not in outstanding:
            return 0  # unsolicited: a sign of life, nothing more
        place = 0
        now = time.perf_counter()  # the loop's clock is too coarse for a latency
        for sent in list(outstanding):
            sent_at, waiter, place = outstanding.pop(sent)
            if waiter is not None and not waiter.done():
                waiter.set_result(now - sent_at)
            if sent == payload:
                self.latency = now - sent_at
                break
        if not outstanding:
            self._outstanding = None
        return place

    def now(self) -> float:
        """Return the time of the loop's clock in seconds."""
        return self._timers.time()

    # --- the clock --------------------------------------------------------------------------------

    def _plan_ping(self, now: float) -> None:
        if self.ping_period is not None:
            shift = random.uniform(-_PING_JITTER, _PING_JITTER)  # noqa: S311 - no secret
            delay = self.ping_period * (1 + shift)
            if self.pong_wait is not None:
                delay = min(delay, (self.ping_period + self.pong_wait) / 2)  # the pong needs time, too
            self._next_ping = now + delay

    def _schedule(self, now: float) -> None:
        times = []
        if self.ping_period is not None:
            times.append(self._next_ping)
        if self.pong_wait is not None and self.listening:
            times.append(now + _SECOND_LOOK if self._doubt else self._last_sign() + self.pong_wait)
            if self._last_progress > self.last_received:
                times.append(now + self.pong_wait / _LOOKS)
            elif self.ping_period is None and self._sampled_at != self.last_received:
                times.append(self.last_received + self.pong_wait / 2)  # no ping is there to look at its time
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = self._timers.at(min(times), self._check) if times else None

    def _last_sign(self) -> float:
        return max(self.last_received, self._last_progress)

    def _check(self) -> None:
        peer = self._peer
        if peer is not None:
            try:
                self._look(peer)
            except BaseException as exc:
                peer._fail(exc)

    def _look(self, peer: Peer) -> None:
        now = self._timers.time()
        if self._deadline is not None:
            # While the loop stood still no ping left and nothing was read: that is no silence of the peer.
            sampled = self._sampled_at == self.last_received
            stalled = max(0.0, now - self._deadline.when)
            self.last_received = min(now, self.last_received + stalled)
            self._last_progress = min(now, self._last_progress + stalled)
            if sampled:
                self._sampled_at = self.last_received
        silent = self._is_silent(now)
        if (silent or self._last_progress > self.last_received) and self._has_progress(peer, now):
            self._last_progress = now
            silent = False
        if silent or self._answers_nothing(now):
            if self._doubt:
                peer._give_up()
                return
            self._doubt = True
        else:
            self._doubt = False
        if self.ping_period is None:
            if self.pong_wait is not None and now - self.last_received >= self.pong_wait / 2:
                self._sample(peer, now)
        elif now >= self._next_ping:
            # Only the newest ping of the keepalive is waited for: its pong answers the others, too.
            if self._outstanding is not None:
                self._outstanding.pop(self._clock_ping, None)
            self._sample(peer, now)
            self._clock_ping = self.expect(None, None)
            peer._send_ping(self._clock_ping)
            self._plan_ping(now)
        self._schedule(now)

    def _is_silent(self, now: float) -> bool:
        return self.pong_wait is not None and self.listening and now - self._last_sign() >= self.pong_wait

    def _answers_nothing(self, now: float) -> bool:
        """Return whether data has waited too long for an answered ping."""
        if not self.held_since or self.pong_wait is None or not self.listening:
            return False
        return now - self.held_since >= limits.ACKNOWLEDGED_WAITS * self.pong_wait

    # --- acknowledged bytes -----------------------------------------------------------------------

    def _sample(self, peer: Peer, now: float) -> None:
        """Record the acknowledged bytes, and those before the first ping of a silence."""
        if self._sampled_at == self.last_received:
            return
        self._sampled_at = self.last_received
        self._acknowledged, waiting = peer._progress() or (0, 0)
        self._ping_position = self._acknowledged
        self._progress_until = 0.0
        if waiting >= _PROGRESS_LEAST:
            self._ping_position += waiting
            self._last_progress = now  # the data before the ping has a whole pong wait to move
        self._limit_progress(now)

    def _limit_progress(self, now: float) -> None:
        """Limit the time in which acknowledged bytes count, once the peer's kernel has the ping."""
        if not self._progress_until and self.pong_wait is not None and self._acknowledged >= self._ping_position:
            self._progress_until = now + limits.ACKNOWLEDGED_WAITS * self.pong_wait

    def _has_progress(self, peer: Peer, now: float) -> bool:
        """Return whether acknowledged bytes since the last look are a sign of life."""
        if self._sampled_at != self.last_received:
            return False  # there was no look
        progress = peer._progress()
        if progress is None:
            return False
        before, self._acknowledged = self._acknowledged, progress[0]
        self._limit_progress(now)
        taken = progress[0] - before
        if 0 <= taken < _PROGRESS_LEAST:
            self._acknowledged = before  # small amounts add up
        return taken >= _PROGRESS_LEAST and (not self._progress_until or now <= self._progress_until)
