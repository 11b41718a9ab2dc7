"""Who may connect to a server, decided before the first byte is read (layer 2).

Bounds of the server: connections in all, those that have not finished their opening handshake, new ones a second; and
of each address (`addresses`). A trusted proxy speaks for many: it has no bound of its own, and its clients are counted
under their own address as soon as the head tells it. Time is passed in. Invariant: a visit counts from `admit` to
`Visit.left`, however often that is called.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .. import limits
from ..constants import ErrorCode
from ..errors import Refused
from ..rate_limit import TokenBucket, default_burst
from ..validation import check_count, check_rate
from .addresses import AddressBounds, AddressLimits, Key

__all__ = ["Admission", "AdmissionLimits", "ConnectionSlot"]


@dataclass(frozen=True)
class AdmissionLimits:
    """What :class:`plumews.server.options.SiteOptions` says of connections; ``None`` is no bound.

    The defaults of an address hold for addresses of the internet only, since a private network or the machine itself
    is where proxies and tests are; a number of one's own holds for all but trusted proxies.

    Raises:
        TypeError, ValueError: a bound is of the wrong kind, or out of range.
    """

    max_connections: int | None = limits.MAX_CONNECTIONS
    max_opening: int | None = limits.MAX_OPENING
    max_connections_per_address: int | None = limits.CONNECTIONS_PER_ADDRESS
    accept_rate: float | None = None
    accept_rate_per_address: float | None = limits.ACCEPT_RATE_PER_ADDRESS

    def __post_init__(self) -> None:
        for name in ("max_connections", "max_opening", "max_connections_per_address"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name))
        for name in ("accept_rate", "accept_rate_per_address"):
            check_rate(name, getattr(self, name), None)

    @property
    def internet(self) -> AddressBounds:
        """What holds for an address of the internet."""
        return AddressBounds(self.max_connections_per_address, self.accept_rate_per_address)

    @property
    def private(self) -> AddressBounds:
        """What holds for an address of a private network."""
        most, rate = self.internet
        return AddressBounds(
            None if most == limits.CONNECTIONS_PER_ADDRESS else most,
            None if rate == limits.ACCEPT_RATE_PER_ADDRESS else rate,
        )


class Admission:
    """The connections of one server, as far as they are counted.

    ``is_proxy(address)`` says who is a trusted proxy; by default nobody is.
    """

    __slots__ = ("_addresses", "_bounds", "_bucket", "_is_proxy", "connections", "opening")

    def __init__(self, bounds: AdmissionLimits, is_proxy: Callable[[str], bool] | None = None) -> None:
        self._bounds = bounds
        self._is_proxy = is_proxy
        self._addresses = AddressLimits(bounds.internet, bounds.private)
        rate = bounds.accept_rate
        self._bucket = None if rate is None else TokenBucket(rate, default_burst(rate))
        #: Connections that were admitted and have not left.
        self.connections = 0
        #: Those of them that have not finished their opening handshake.
        self.opening = 0

    def admit(self, address: str | None, now: float) -> ConnectionSlot:
        """Let a connection in that was accepted from ``address``; ``None`` has none, as on a Unix socket.

        Raises :class:`Refused`: 503 if the server has as many as it may have; 429 with a ``Retry-After`` if they come
        too fast, or are too many of one address. Who is refused takes nothing from anybody.
        """
        bounds = self._bounds
        if bounds.max_connections is not None and self.connections >= bounds.max_connections:
            raise Refused.busy("too many connections", ErrorCode.TOO_MANY_CONNECTIONS)
        if bounds.max_opening is not None and self.opening >= bounds.max_opening:
            raise Refused.busy("too many opening handshakes at once", ErrorCode.TOO_MANY_HANDSHAKES)
        if self._bucket is not None:
            wait = self._bucket.wait(now)
            if wait:
                raise Refused.busy("too many new connections", ErrorCode.RATE_LIMITED, wait, status=429)
        key = None
        if address is not None and not (self._is_proxy is not None and self._is_proxy(address)):
            key = self._addresses.enter(address, now)
        if self._bucket is not None:
            self._bucket.take(now)
        self.connections += 1
        self.opening += 1
        return ConnectionSlot(self, key)


class ConnectionSlot:
    """One connection that was admitted."""

    __slots__ = ("_admission", "_key", "_opening")

    def __init__(self, admission: Admission, key: Key | None) -> None:
        self._admission: Admission | None = admission
        self._key = key
        self._opening = True

    def known_as(self, address: str, now: float) -> None:
        """A trusted proxy has told the client's address: it counts from now on.

        Raises :class:`Refused` 429 as :meth:`Admission.admit` does for the address; the visit then goes on without.
        """
        if self._admission is not None and self._key is None:
            self._key = self._admission._addresses.enter(address, now)

    def opened(self) -> None:
        """The opening handshake is done."""
        if self._opening and self._admission is not None:
            self._opening = False
            self._admission.opening -= 1

    def left(self, _conn: object = None) -> None:
        """The connection is gone, or never came to be. A close callback of it."""
        self.opened()
        admission, self._admission = self._admission, None
        if admission is not None:
            admission.connections -= 1
            if self._key is not None:
                admission._addresses.leave(self._key)
