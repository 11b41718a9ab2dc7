"""How often an address may guess a password: a token bucket for each (layer 2).

Only failures cost. An IPv4 address counts by itself, an IPv6 address by its /64, which is what one customer has. The
time is handed in. Invariant: there are never more than ``max_addresses`` buckets.
"""

from __future__ import annotations

from .. import limits
from ..rate_limit import TokenBucket, address_group

__all__ = ["Attempts"]


class Attempts:
    """The failures of addresses. ``burst`` of them are free, then one each ``interval`` seconds.

    The least recent failure is forgotten where there would be more than ``max_addresses`` of them. Times are seconds
    of a clock that never goes back. Raises ``ValueError`` for what is not positive.
    """

    def __init__(
        self,
        burst: int = limits.ATTEMPTS_BURST,
        interval: float = limits.ATTEMPTS_INTERVAL,
        max_addresses: int = limits.ATTEMPTS_ADDRESSES,
    ) -> None:
        for name, value in (("burst", burst), ("interval", interval), ("max_addresses", max_addresses)):
            if not value > 0:
                raise ValueError(f"{name} must be more than 0, not {value}")
        self._rate = 1 / interval
        self._burst = burst
        self._max_addresses = max_addresses
        self._buckets: dict[str | int, TokenBucket] = {}

    def __len__(self) -> int:
        return len(self._buckets)

    def retry_after(self, address: str | None, now: float) -> float:
        """Return the seconds until ``address`` may try again, 0 if it may now. ``None`` (no network) always may."""
        bucket = None if address is None else self._buckets.get(address_group(address).key)
        return 0.0 if bucket is None else bucket.wait(now)

    def failed(self, address: str | None, now: float) -> None:
        """Charge ``address`` one failure; it owes ``burst`` of them at most."""
        if address is None:
            return
        key = address_group(address).key
        bucket = self._buckets.pop(key, None)  # so that the first of the dict is the least recent
        if bucket is None:
            bucket = TokenBucket(self._rate, self._burst)
        if len(self._buckets) >= self._max_addresses:
            del self._buckets[next(iter(self._buckets))]
        bucket.charge(now)
        self._buckets[key] = bucket

    def forgive(self, address: str | None, now: float) -> None:
        """Give ``address`` back what one failure cost."""
        key = None if address is None else address_group(address).key
        if key is not None and key in self._buckets and self._buckets[key].refund(now):
            del self._buckets[key]
