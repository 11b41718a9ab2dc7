"""Admission of new connections, decided before their first byte is read.

The bounds of a server are connections in all, connections in their opening handshake, and new connections a second.
Each address has bounds of its own. A trusted proxy has none: its clients are counted under their own addresses when
the request tells them. The caller passes in the time. A connection counts from `admit` to `ConnectionSlot.left`.

The table of addresses has an entry for each connected address, and for at most ``limits.IDLE_ADDRESSES`` others, whose
token bucket is not full yet.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Any, NamedTuple, TypeAlias

from .. import limits
from ..constants import ErrorCode
from ..errors import Refused
from ..rate_limit import TokenBucket, address_group, default_burst
from .options import ServerOptions

__all__ = ["AddressBounds", "AddressLimits", "Admission", "ConnectionSlot"]

#: Key of an :class:`plumews.rate_limit.AddressGroup`.
Key: TypeAlias = "str | int"


class Admission:
    """Counters of the connections of one server, and their bounds in ``options``."""

    __slots__ = ("_addresses", "_bucket", "_most", "_most_opening", "_proxies", "connections", "opening")

    def __init__(self, options: ServerOptions) -> None:
        self._most = math.inf if options.max_connections is None else options.max_connections
        self._most_opening = math.inf if options.max_opening is None else options.max_opening
        self._proxies = options.trusted_proxies
        most, rate = options.max_connections_per_address, options.accept_rate_per_address
        self._addresses = AddressLimits(
            AddressBounds(most, rate),
            # The defaults are for the internet only: proxies and tests come from private networks.
            AddressBounds(
                None if most == limits.CONNECTIONS_PER_ADDRESS else most,
                None if rate == limits.ACCEPT_RATE_PER_ADDRESS else rate,
            ),
        )
        rate = options.accept_rate
        self._bucket = None if rate is None else TokenBucket(rate, default_burst(rate))
        #: Admitted connections that have not left.
        self.connections = 0
        #: Admitted connections in their opening handshake.
        self.opening = 0

    def admit(self, address: str | None, now: float) -> ConnectionSlot:
        """Return the slot of a connection accepted from ``address``, ``None`` on a Unix socket.

        A refused connection uses up nothing.

        Raises:
            Refused: 503 if the server is full; 429 with a ``Retry-After`` if new connections come too fast, or the
                address has too many.
        """
        if self.connections >= self._most:
            raise Refused.busy("too many connections", ErrorCode.TOO_MANY_CONNECTIONS)
        if self.opening >= self._most_opening:
            raise Refused.busy("too many opening handshakes at once", ErrorCode.TOO_MANY_HANDSHAKES)
        if self._bucket is not None:
            wait = self._bucket.wait(now)
            if wait:
                raise Refused.busy("too many new connections", ErrorCode.RATE_LIMITED, wait, status=429)
        key = None
        if address is not None and not (self._proxies is not None and self._proxies.is_proxy(address)):
            key = self._addresses.enter(address, now)
        if self._bucket is not None:
            self._bucket.take(now)
        self.connections += 1
        self.opening += 1
        return ConnectionSlot(self, key, now)


class ConnectionSlot:
    """Slot of one admitted connection."""

    __slots__ = ("_admission", "_connections", "_key", "_opening", "since")

    def __init__(self, admission: Admission, key: Key | None, since: float) -> None:
        self._admission: Admission | None = admission
        self._key = key
        self._opening = True
        self._connections: set[Any] | None = None
        #: Time of the admission.
        self.since = since

    def hold(self, connections: set[Any]) -> None:
        """Remove the connection from ``connections``, too, when it leaves."""
        self._connections = connections

    def known_as(self, address: str, now: float) -> None:
        """Count the connection under ``address``, the client's address told by a trusted proxy.

        Raises:
            Refused: 429 as :meth:`Admission.admit`. The connection keeps its slot, without an address.
        """
        if self._admission is not None and self._key is None:
            self._key = self._admission._addresses.enter(address, now)

    def opened(self) -> None:
        """Count the opening handshake as done."""
        if self._opening and self._admission is not None:
            self._opening = False
            self._admission.opening -= 1

    def left(self, conn: object = None) -> None:
        """Free the slot, at the end of the connection. Further calls do nothing."""
        if self._connections is not None:
            self._connections.discard(conn)
        self.opened()
        admission, self._admission = self._admission, None
        if admission is not None:
            admission.connections -= 1
            if self._key is not None:
                admission._addresses.leave(self._key)


# --- addresses ------------------------------------------------------------------------------------


class AddressBounds(NamedTuple):
    """Bounds of each address: connections, and new ones a second. ``None`` is no bound."""

    most: int | None
    rate: float | None


class _Address:
    """State of one address."""

    __slots__ = ("bucket", "count", "last")

    def __init__(self, rate: float | None) -> None:
        self.bucket = None if rate is None else TokenBucket(rate, address_burst(rate))
        self.count = 0
        self.last = -math.inf  # time of its last admission


def address_burst(rate: float) -> int:
    """Return the burst of one address. It is larger than a server's: an office may reconnect at once."""
    return max(default_burst(rate), math.ceil(rate * limits.ADDRESS_BURST_TIME))


class AddressLimits:
    """Connections of one server by address. ``private`` bounds the addresses that are not of the internet."""

    __slots__ = ("_idle", "_internet", "_present", "_private")

    def __init__(self, internet: AddressBounds, private: AddressBounds) -> None:
        self._internet = internet
        self._private = private
        self._present: dict[Key, _Address] = {}
        self._idle: OrderedDict[Key, _Address] = OrderedDict()  # in the order of leaving

    def __len__(self) -> int:
        return len(self._present) + len(self._idle)

    def count(self, key: Key) -> int:
        """Return the number of connections of ``key``."""
        known = self._present.get(key)
        return 0 if known is None else known.count

    def enter(self, address: str, now: float) -> Key | None:
        """Count a connection of ``address``. Return the key for :meth:`leave`, or ``None`` if it has no bounds.

        Raises:
            Refused: 429, the address has too many connections, or new ones come too fast.
        """
        key, is_global = address_group(address)
        most, rate = self._internet if is_global else self._private
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
        """Count one connection of ``key`` less."""
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
        """Forget idle addresses whose bucket is full again: at most two per call, which bounds the time."""
        for _ in range(2):
            if not self._idle:
                return
            known = next(iter(self._idle.values()))
            assert known.bucket is not None
            if now - known.last < known.bucket.refill_time:
                return
            self._idle.popitem(last=False)
