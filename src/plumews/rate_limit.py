"""How fast new connections are let in: a token bucket (layer 2).

A crowd that reconnects all at once must not keep the loop from those who are in. Time is passed in. Invariant: within
any ``t`` seconds at most ``burst + rate * t`` are let in, however long nobody came before.
"""

from __future__ import annotations

import math

from . import limits

__all__ = ["TokenBucket", "burst_of"]

#: What a token may lack and still be one: who waits as long as it was told must not be refused for a rounding.
_GRAIN = 1e-6


def burst_of(rate: float) -> int:
    """The burst that goes with ``rate`` unless another is given."""
    return max(1, math.ceil(rate * limits.ACCEPT_BURST_TIME))


class TokenBucket:
    """``rate`` tokens a second, ``burst`` at most; full at the beginning."""

    __slots__ = ("_burst", "_filled", "_rate", "_tokens")

    def __init__(self, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens: float = burst
        self._filled = -math.inf

    @property
    def refill_time(self) -> float:
        """Seconds without anybody in which an empty bucket is full again."""
        return self._burst / self._rate

    def wait(self, now: float) -> float:
        """Seconds until there is a token; 0.0 if there is one now."""
        if now > self._filled:
            self._tokens = min(self._burst, self._tokens + (now - self._filled) * self._rate)
            self._filled = now
        lacking = 1 - self._tokens
        return lacking / self._rate if lacking > _GRAIN else 0.0

    def take(self, now: float) -> float:
        """Take a token, and return 0.0; if there is none, the seconds until there is one, and nothing is taken."""
        wait = self.wait(now)
        if not wait:
            self._tokens -= 1
        return wait
