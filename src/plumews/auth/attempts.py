"""How often an address may guess a password: a token bucket for each (layer 2).

Only failures cost. An IPv4 address counts by itself, an IPv6 address by its /64, which is what one customer has. The
time is handed in. Invariant: there are never more than ``max_addresses`` buckets.
"""

from __future__ import annotations

import ipaddress
from typing import NamedTuple

from .. import limits

__all__ = ["Attempts"]


class _Bucket(NamedTuple):
    tokens: float
    at: float


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
        self._burst = burst
        self._interval = interval
        self._max_addresses = max_addresses
        self._buckets: dict[str, _Bucket] = {}

    def __len__(self) -> int:
        return len(self._buckets)

    def retry_after(self, address: str | None, now: float) -> float:
        """The seconds until ``address`` may try again; 0 if it may now. ``None`` (no network) always may."""
        if address is None or not self._buckets:
            return 0.0
        tokens = self._tokens(network_of(address), now)
        return 0.0 if tokens >= 1 else (1 - tokens) * self._interval

    def failed(self, address: str | None, now: float) -> None:
        """Charge ``address`` one failure; it owes ``burst`` of them at most."""
        if address is None:
            return
        network = network_of(address)
        tokens = max(self._tokens(network, now) - 1, -float(self._burst))
        self._buckets.pop(network, None)  # so that the first of the dict is the least recent
        if len(self._buckets) >= self._max_addresses:
            del self._buckets[next(iter(self._buckets))]
        self._buckets[network] = _Bucket(tokens, now)

    def forgive(self, address: str | None, now: float) -> None:
        """Give ``address`` back what one failure cost."""
        network = None if address is None else network_of(address)
        if network is not None and network in self._buckets:
            tokens = self._tokens(network, now) + 1
            if tokens >= self._burst:
                del self._buckets[network]
            else:
                self._buckets[network] = _Bucket(tokens, now)

    def _tokens(self, network: str, now: float) -> float:
        bucket = self._buckets.get(network)
        if bucket is None:
            return self._burst
        return min(self._burst, bucket.tokens + (now - bucket.at) / self._interval)


def network_of(address: str) -> str:
    """Who counts as one: the IPv4 address, the /64 of an IPv6 address, or what is neither as it stands."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    if ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return str(ipaddress.IPv6Address(int(ip) >> 64 << 64))
