"""How many connections one address has, and how fast new ones come (layer 2).

An address is what one client is likely to have for itself: an IPv4 address, or the /64 network of an IPv6 address,
of which every home has at least one; IPv4 written as IPv6 is IPv4. Time is passed in. Invariant: the table has an entry
for each address that is connected, and for at most ``limits.IDLE_ADDRESSES`` others, whose bucket is not full yet.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import NamedTuple, TypeAlias

from .. import limits
from ..constants import ErrorCode
from ..errors import Refused
from ..rate_limit import TokenBucket, address_group, default_burst

__all__ = ["AddressBounds", "AddressLimits", "Key"]

#: What connections of one client have in common: the address, or the number of the /64 network.
Key: TypeAlias = "str | int"


class AddressBounds(NamedTuple):
    """For each address: connections, and new ones a second; ``None`` is no bound."""

    most: int | None
    rate: float | None


class _Address:
    """What is known of one address."""

    __slots__ = ("bucket", "count", "last")

    def __init__(self, rate: float | None) -> None:
        self.bucket = None if rate is None else TokenBucket(rate, address_burst(rate))
        self.count = 0
        self.last = -math.inf  # when it was let in last


def address_burst(rate: float) -> int:
    """How many of one address come at once: more than of a whole server, since it may be an office that is back."""
    return max(default_burst(rate), math.ceil(rate * limits.ADDRESS_BURST_TIME))


class AddressLimits:
    """The addresses of one server. ``private`` bounds those that are not of the internet."""

    __slots__ = ("_idle", "_internet", "_present", "_private")

    def __init__(self, internet: AddressBounds, private: AddressBounds) -> None:
        self._internet = internet
        self._private = private
        self._present: dict[Key, _Address] = {}
        self._idle: OrderedDict[Key, _Address] = OrderedDict()  # the one first that left first

    def __len__(self) -> int:
        return len(self._present) + len(self._idle)

    def count(self, key: Key) -> int:
        """Connections of ``key``."""
        known = self._present.get(key)
        return 0 if known is None else known.count

    def enter(self, address: str, now: float) -> Key | None:
        """One more of ``address``: its key, for :meth:`leave`, or ``None`` if it is not counted.

        Raises :class:`Refused` 429 if it has as many as it may have, or they come too fast.
        """
        key, of_internet = address_group(address)
        most, rate = self._internet if of_internet else self._private
        if most is None and rate is None:
            return None
        self._forget(now)
        known = self._present.get(key) or self._idle.get(key) or _Address(rate)
        if most is not None and known.count >= most:
            raise Refused.busy("too many connections from this address", ErrorCode.TOO_MANY_FROM_ADDRESS, status=429)
        if known.bucket is not None:
            wait = known.bucket.take(now)
            if wait:
                text = "too many new connections from this address"
                raise Refused.busy(text, ErrorCode.RATE_LIMITED, wait, status=429)
        known.last = now
        known.count += 1
        self._idle.pop(key, None)
        self._present[key] = known
        return key

    def leave(self, key: Key) -> None:
        """One less of ``key``."""
        known = self._present[key]
        known.count -= 1
        if known.count:
            return
        del self._present[key]
        if known.bucket is not None:
            self._idle[key] = known
            if len(self._idle) > limits.IDLE_ADDRESSES:
                self._idle.popitem(last=False)

    def _forget(self, now: float) -> None:
        """Those whose bucket is full again are like strangers. Two at most for each who comes: nobody waits for it."""
        for _ in range(2):
            if not self._idle:
                return
            known = next(iter(self._idle.values()))
            assert known.bucket is not None
            if now - known.last < known.bucket.refill_time:
                return
            self._idle.popitem(last=False)
