"""Rate limits: token buckets, and the group of addresses that shares one.

The caller passes in the time. Invariant: within any ``t`` seconds :meth:`TokenBucket.take` succeeds at most
``burst + rate * t`` times, however long the bucket was idle before.
"""

from __future__ import annotations

import ipaddress
import math
from functools import lru_cache
from typing import NamedTuple, TypeAlias

from . import limits

__all__ = ["Address", "AddressGroup", "TokenBucket", "address_group", "default_burst", "parse_address"]

Address: TypeAlias = "ipaddress.IPv4Address | ipaddress.IPv6Address"

#: Share of a token that may be missing: a caller that waits as long as it was told is not refused for a rounding error.
_TOLERANCE = 1e-6


def default_burst(rate: float) -> int:
    """Return the burst that goes with ``rate`` unless another is given."""
    return max(1, math.ceil(rate * limits.ACCEPT_BURST_TIME))


class TokenBucket:
    """Token bucket that gains ``rate`` tokens a second, holds at most ``burst`` of them, and starts full."""

    __slots__ = ("_burst", "_filled", "_rate", "_tokens")

    def __init__(self, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens: float = burst
        self._filled = -math.inf

    @property
    def refill_time(self) -> float:
        """Seconds in which an empty bucket is full again."""
        return self._burst / self._rate

    def wait(self, now: float) -> float:
        """Return the seconds until there is a token, 0.0 if there is one now."""
        missing = 1.0 - self._refill(now)
        return missing / self._rate if missing > _TOLERANCE else 0.0

    def take(self, now: float) -> float:
        """Take a token and return 0.0. If there is none, take nothing and return the seconds until there is one."""
        wait = self.wait(now)
        if not wait:
            self._tokens -= 1
        return wait

    def charge(self, now: float) -> None:
        """Take a token even if there is none: the bucket goes down to minus ``burst``."""
        self._tokens = max(self._refill(now) - 1, -self._burst)

    def refund(self, now: float) -> bool:
        """Return a token to the bucket. Return True if the bucket is full."""
        self._tokens = min(self._refill(now) + 1, self._burst)
        return self._tokens >= self._burst

    def _refill(self, now: float) -> float:
        if now > self._filled:
            self._tokens = min(self._burst, self._tokens + (now - self._filled) * self._rate)
            self._filled = now
        return self._tokens


class AddressGroup(NamedTuple):
    """Addresses that one client is likely to have: an IPv4 address, or the /64 network of an IPv6 address.

    Attributes:
        key: the IPv4 address, or the number of the /64 network.
        is_global: True for an address of the internet, False for one of this machine or of a private network.
    """

    key: str | int
    is_global: bool


def parse_address(text: str) -> Address | None:
    """Return the address that ``text`` is, else ``None``. IPv4 written as IPv6 is IPv4."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        address = None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return address if mapped is None else mapped


@lru_cache(maxsize=4096)
def address_group(address: str) -> AddressGroup:
    """Return the group of ``address``. Text that is no address is a global group."""
    parsed = parse_address(address)
    if parsed is None:
        return AddressGroup(address, True)
    key = int(parsed) >> 64 if isinstance(parsed, ipaddress.IPv6Address) else str(parsed)
    return AddressGroup(key, parsed.is_global)
