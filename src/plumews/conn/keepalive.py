"""Pings, and the verdict on a peer that has fallen silent (layer 3).

Any received byte is a sign of life, so that a peer which is busy sending is never given up for a pong that
stands behind its data. A loop that stalled looks a second time before it declares anybody dead, because the
sign of life may lie unread in the socket. While reading is paused nobody is judged: we are the ones who do
not listen. (RFC 6455 sections 5.5.2 and 5.5.3.)

A ping may wait behind data for longer than the pong wait. Bytes that the peer acknowledges are a sign of life, too,
until its kernel has the ping and for 4 pong waits more: a kernel acknowledges for a process that hangs. The socket is
asked only when a silent peer would be judged, never for each message.
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

#: Between the first and the second look, seconds: long enough for the loop to poll its sockets.
_SECOND_LOOK = 0.02

#: Fewer acknowledged bytes are no sign of life: a kernel acknowledges the pings by itself.
_PROGRESS_LEAST = 128

#: A peer that lives on acknowledged bytes is looked at this often in a pong wait.
_LOOKS = 4


class Peer(Protocol):
    """The connection that a keepalive is for."""

    def _send_ping(self, payload: bytes) -> None: ...

    def _progress(self) -> tuple[int, int] | None:
        """Bytes that the peer has acknowledged, and bytes that it has not; ``None`` if the socket cannot be asked."""

    def _abort(self) -> None: ...

    def _fail(self, exc: BaseException) -> None: ...


class Keepalive:
    """The pings of one connection and the time of its last sign of life."""

    __slots__ = (
        "_acknowledged",
        "_asked_at",
        "_clock_ping",
        "_deadline",
        "_doubt",
        "_last_taken",
        "_next_ping",
        "_outstanding",
        "_peer",
        "_ping_at",
        "_ping_period",
        "_pong_wait",
        "_running",
        "_taken_until",
        "_timers",
        "flow",
        "held_since",
        "last_pong",
        "last_received",
        "latency",
        "listening",
    )

    def __init__(
        self,
        timers: Timers,
        peer: Peer,
        *,
        ping_period: float | None,
        pong_wait: float | None,
    ) -> None:
        self._timers = timers
        self._peer: Peer | None = peer
        self._ping_period = ping_period
        self._pong_wait = pong_wait
        self._deadline: Deadline | None = None
        self._running = False
        self._doubt = False
        self._next_ping = 0.0
        #: By payload: when it was sent, who waits for the answer, and its place in the stream of messages.
        self._outstanding: dict[bytes, tuple[float, asyncio.Future[float] | None, int]] = {}
        self._clock_ping = b""
        #: Counts the bytes of messages, where those that no ping has confirmed are bounded.
        self.flow: Any = None
        #: Loop time since which data waits for an answered ping; 0.0 while it does not.
        self.held_since = 0.0
        # Of the present silence: when it began, what was acknowledged, and where its first ping stands in the stream.
        self._asked_at = -1.0
        self._acknowledged = 0
        self._ping_at = 0
        self._last_taken = 0.0  # when acknowledged bytes were last seen
        self._taken_until = 0.0  # until when they count; 0.0 while the ping has not arrived
        #: Wall-clock time of the last pong, of the opening before the first one (the seed's rule).
        self.last_pong = time.time()
        #: Loop time of the last received byte.
        self.last_received = 0.0
        #: Seconds that the newest answered ping took; 0 before.
        self.latency = 0.0
        #: False while reading is paused.
        self.listening = True

    # --- settings ---------------------------------------------------------------------------------

    @property
    def ping_period(self) -> float | None:
        return self._ping_period

    @property
    def pong_wait(self) -> float | None:
        return self._pong_wait

    def configure(self, now: float, *, ping_period: float | None, pong_wait: float | None) -> None:
        """Change both times, effective at once."""
        check_keepalive(ping_period, pong_wait)
        self._ping_period = ping_period
        self._pong_wait = pong_wait
        if self._running:
            self._plan_ping(now)
            self._schedule(now)

    # --- life -------------------------------------------------------------------------------------

    def start(self, now: float) -> None:
        self._running = True
        self.last_pong = time.time()
        self.last_received = now
        self._plan_ping(now)
        self._schedule(now)

    def stop(self, closed: Callable[[], Exception]) -> None:
        """Forget everything, the connection too; who waits for a pong is told why there will be none."""
        self._running = False
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self._peer = self.flow = None
        outstanding, self._outstanding = self._outstanding, {}
        for _, waiter, _ in outstanding.values():
            if waiter is not None and not waiter.done():
                waiter.set_exception(closed())
                waiter.cancel()  # done as it is, it only stops the complaint that nobody looked at the exception

    def heard_again(self, now: float) -> None:
        """Reading goes on after a pause: silence counts from here."""
        self.listening = True
        self.last_received = now
        if self.held_since:
            self.held_since = now  # the answer may have come long ago
        if self._running:
            self._schedule(now)

    def ping(self, payload: bytes | None, waiter: asyncio.Future[float] | None) -> None:
        """Send a ping; ``waiter`` gets the latency in seconds when its pong arrives."""
        payload = self.expect(payload, waiter)
        if self._peer is not None:
            self._peer._send_ping(payload)

    def expect(self, payload: bytes | None, waiter: asyncio.Future[float] | None) -> bytes:
        """A ping is about to be sent; return its payload, by default one that is not on its way yet."""
        if payload is None:
            payload = os.urandom(4)
            while payload in self._outstanding:
                payload = os.urandom(4)
        elif payload in self._outstanding:
            raise ValueError(f"a ping with the payload {payload!r} is still waiting for its pong")
        self._outstanding[payload] = (time.perf_counter(), waiter, 0 if self.flow is None else self.flow.written)
        return payload

    def pong(self, payload: bytes) -> int:
        """A pong arrived: it answers its ping and all earlier ones (section 5.5.3). Return the place of its ping."""
        self.last_pong = time.time()
        if payload not in self._outstanding:
            return 0  # unsolicited: a sign of life, nothing more
        place = 0
        now = time.perf_counter()  # the loop's clock is too coarse for a latency
        for sent in list(self._outstanding):
            sent_at, waiter, place = self._outstanding.pop(sent)
            if waiter is not None and not waiter.done():
                waiter.set_result(now - sent_at)
            if sent == payload:
                self.latency = now - sent_at
                break
        return place

    def now(self) -> float:
        """Now, in seconds of the loop's clock."""
        return self._timers.time()

    # --- the clock --------------------------------------------------------------------------------

    def _plan_ping(self, now: float) -> None:
        if self._ping_period is not None:
            shift = random.uniform(-limits.PING_JITTER, limits.PING_JITTER)  # noqa: S311 - no secret
            delay = self._ping_period * (1 + shift)
            if self._pong_wait is not None:
                delay = min(delay, (self._ping_period + self._pong_wait) / 2)  # the pong needs time, too
            self._next_ping = now + delay

    def _schedule(self, now: float) -> None:
        times = []
        if self._ping_period is not None:
            times.append(self._next_ping)
        if self._pong_wait is not None and self.listening:
            times.append(now + _SECOND_LOOK if self._doubt else self._last_sign() + self._pong_wait)
            if self._last_taken > self.last_received:
                times.append(now + self._pong_wait / _LOOKS)
            elif self._ping_period is None and self._asked_at != self.last_received:
                times.append(self.last_received + self._pong_wait / 2)  # no ping is there to look at its time
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = self._timers.at(min(times), self._check) if times else None

    def _last_sign(self) -> float:
        return max(self.last_received, self._last_taken)

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
            # While the loop stood still no ping left and nothing was read: that was nobody's silence.
            asked = self._asked_at == self.last_received
            stalled = max(0.0, now - self._deadline.when)
            self.last_received = min(now, self.last_received + stalled)
            self._last_taken = min(now, self._last_taken + stalled)
            if asked:
                self._asked_at = self.last_received
        silent = self._is_silent(now)
        if (silent or self._last_taken > self.last_received) and self._takes(peer, now):
            self._last_taken = now
            silent = False
        if silent or self._answers_nothing(now):
            if self._doubt:
                peer._abort()
                return
            self._doubt = True
        else:
            self._doubt = False
        if self._ping_period is None:
            if self._pong_wait is not None and now - self.last_received >= self._pong_wait / 2:
                self._ask(peer, now)
        elif now >= self._next_ping:
            # Only the newest ping of the keepalive is waited for: its pong answers the others, too.
            self._outstanding.pop(self._clock_ping, None)
            self._ask(peer, now)
            self._clock_ping = self.expect(None, None)
            peer._send_ping(self._clock_ping)
            self._plan_ping(now)
        self._schedule(now)

    def _is_silent(self, now: float) -> bool:
        return self._pong_wait is not None and self.listening and now - self._last_sign() >= self._pong_wait

    def _answers_nothing(self, now: float) -> bool:
        """Return whether data has waited so long for an answered ping that none can be expected."""
        if not self.held_since or self._pong_wait is None or not self.listening:
            return False
        return now - self.held_since >= limits.ACKNOWLEDGED_WAITS * self._pong_wait

    # --- acknowledged bytes -----------------------------------------------------------------------

    def _ask(self, peer: Peer, now: float) -> None:
        """The first ping of a silence is about to leave: note what stands before it."""
        if self._asked_at == self.last_received:
            return
        self._asked_at = self.last_received
        self._acknowledged, waiting = peer._progress() or (0, 0)
        self._ping_at = self._acknowledged
        self._taken_until = 0.0
        if waiting >= _PROGRESS_LEAST:
            self._ping_at += waiting
            self._last_taken = now  # the data before the ping has a whole pong wait to move
        self._arrive(now)

    def _arrive(self, now: float) -> None:
        """The peer's kernel may have the ping: from then on acknowledged bytes count for a time only."""
        if not self._taken_until and self._pong_wait is not None and self._acknowledged >= self._ping_at:
            self._taken_until = now + limits.ACKNOWLEDGED_WAITS * self._pong_wait

    def _takes(self, peer: Peer, now: float) -> bool:
        """Return whether the peer has acknowledged bytes since the last look, and that counts."""
        if self._asked_at != self.last_received:
            return False  # there was no look
        progress = peer._progress()
        if progress is None:
            return False
        before, self._acknowledged = self._acknowledged, progress[0]
        self._arrive(now)
        taken = progress[0] - before
        if 0 <= taken < _PROGRESS_LEAST:
            self._acknowledged = before  # what comes in drops adds up
        return taken >= _PROGRESS_LEAST and (not self._taken_until or now <= self._taken_until)
