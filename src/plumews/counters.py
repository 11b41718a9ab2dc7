"""Counters by name, and what a server counts of its requests (layer 2).

Names may come from applications, such as the word of a refusal that is theirs; invariant: a counter never keeps more
than ``limits.COUNTED_NAMES`` of them, and its total is right all the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from . import limits

__all__ = ["OTHER", "BoundedCounter", "RequestCounters"]

#: What is beyond the bound is counted here.
OTHER: Final = "other"


class BoundedCounter:
    """How often each of some names was met. Those given at the beginning are there with 0."""

    __slots__ = ("_counts",)

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._counts = dict.fromkeys(names, 0)

    def add(self, name: str) -> None:
        """Count one more of ``name``."""
        if name not in self._counts and len(self._counts) >= limits.COUNTED_NAMES:
            name = OTHER
        self._counts[name] = self._counts.get(name, 0) + 1

    @property
    def total(self) -> int:
        return sum(self._counts.values())

    def snapshot(self) -> dict[str, int]:
        """A copy, by name."""
        return dict(self._counts)


class RequestCounters:
    """What became of the requests of one server, or of all servers of one hub."""

    __slots__ = ("authenticated", "opened", "refused")

    def __init__(self) -> None:
        #: WebSockets that were opened.
        self.opened = 0
        #: Refusals by their word, whether a status told them or, after the opening, a close code.
        self.refused = BoundedCounter()
        #: Tokens and room passwords that were found right.
        self.authenticated = 0
