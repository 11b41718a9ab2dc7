"""Contests: one job, and the contenders that can do it.

A contender is a call, held as a partial so that the measurement can write it out and pay for no wrapper, with a
check that what comes back is right: a benchmark that does nothing is the fastest. Invariant: the contenders of a
contest get the same bytes, and where one of them does less or more than the others, the comment beside it says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal


def anything(result: object) -> bool:
    """The check of a contender that is only a yardstick."""
    return True


@dataclass(frozen=True)
class Contender:
    """A call, further ones if it takes several to do the job, and what tells of the last one that the job is done."""

    call: partial[Any]
    right: Callable[[Any], bool] = anything
    then: tuple[partial[Any], ...] = ()

    def check(self) -> None:
        """Run once; ``AssertionError`` if the result is wrong."""
        result = self.call()
        for call in self.then:
            result = call()
        assert self.right(result), f"{self.call.func} gave {result!r:.200}"


@dataclass(frozen=True)
class Contest:
    """One job. ``amount`` is how many units of it a call does; bytes are shown as GB/s, the others as ns a unit.

    ``tier`` names the kernels that our compiled body uses in it, ``None`` are those that it has chosen.
    """

    name: str
    amount: int
    unit: Literal["byte", "frame", "call"]
    contenders: dict[str, Contender]
    tier: str | None = None

    def shown(self, seconds: float) -> str:
        """Return the figure for a call that takes ``seconds``."""
        if self.unit == "byte":
            return f"{self.amount / seconds / 1e9:.3g} GB/s"
        nanoseconds = seconds / self.amount * 1e9
        return f"{nanoseconds:.0f} ns" if nanoseconds >= 100 else f"{nanoseconds:.3g} ns"


#: What builds a contest: its bytes, its peers. Can be pickled.
Job = Callable[[], Contest]


def gives(expected: object) -> Callable[[Any], bool]:
    """Right is what equals ``expected``."""
    return lambda result: bool(result == expected)
