"""Counters by name, and the request counters of a server.

Names may come from applications, such as the code of a refusal. Invariant: a counter keeps at most
``limits.COUNTED_NAMES`` names, and its total is exact nevertheless.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from . import limits

__all__ = ["OTHER", "BoundedCounter", "RequestCounters"]

#: Name under which all names beyond the bound are counted.
OTHER: Final = "other"


class BoundedCounter:
    """Counter of names. The names given at the beginning are present with 0."""

    __slots__ = ("_counts",)

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._counts = dict.fromkeys(names, 0)

    def add(self, name: str) -> None:
        """Add 1 to ``name``."""
        if name not in self._counts and len(self._counts) >= limits.COUNTED_NAMES:
            name = OTHER
        self._counts[name] = self._counts.get(name, 0) + 1

    @property
    def total(self) -> int:
        """Sum over all names."""
        return sum(self._counts.values())

    def snapshot(self) -> dict[str, int]:
        """Return a copy of the counts by name."""
        return dict(self._counts)


class RequestCounters:
    """Counters of the requests of one server, or of all servers of one hub."""

    __slots__ = ("authenticated", "opened", "refused")

    def __init__(self) -> None:
        #: WebSockets opened.
        self.opened = 0
        #: Refusals by error code, told by an HTTP status or, after the opening, by a close code.
        self.refused = BoundedCounter()
        #: Valid tokens and room passwords.
        self.authenticated = 0
