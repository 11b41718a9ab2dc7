"""How fast new connections are let in: a token bucket (layer 2).

A crowd that reconnects all at once must not keep the loop from those who are in. Time is passed in. Invariant: within
any ``t`` seconds at most ``burst + rate * t`` are let in, however long nobody came before.
"""

from __future__ import annotations

import math

from . import limits

__all__ = ["TokenBucket", "burst_of"]

#: What two times of a clock may differ by and still mean the same, in seconds.
_GRAIN = 1e-6


def burst_of(rate: float) -> int:
    """The burst that goes with ``rate`` unless another is given."""
    return max(1, math.ceil(rate * limits.ACCEPT_BURST_TIME))


class TokenBucket:
    """``rate`` tokens a second, ``burst`` at most; full at the beginning."""

    __slots__ = ("_interval", "_slack", "_spent_until")

    def __init__(self, rate: float, burst: int) -> None:
        self._interval = 1 / rate
        self._slack = (burst - 1) / rate
        #: When the bucket is full again: one number that neither overflows nor drifts, however long nobody comes.
        self._spent_until = -math.inf

    def wait(self, now: float) -> float:
        """Seconds until there is a token; 0.0 if there is one now."""
        wait = self._spent_until - now - self._slack
        return wait if wait > _GRAIN else 0.0

    def take(self, now: float) -> float:
        """Take a token, and return 0.0; if there is none, the seconds until there is one, and nothing is taken."""
        wait = self.wait(now)
        if not wait:
            self._spent_until = max(self._spent_until, now) + self._interval
        return wait
