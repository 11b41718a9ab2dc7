"""Comparison of the samples with the goals."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from .bars import BARS, Bar, Cost
from .measure import Samples, ratios


@dataclass(frozen=True)
class Verdict:
    """A bar and what was measured, a multiple of the peer's speed or time a round; none if somebody is missing."""

    bar: Bar
    rounds: list[float]

    @property
    def measured(self) -> float | None:
        """The median."""
        return statistics.median(self.rounds) if self.rounds else None

    @property
    def middle(self) -> tuple[float, float] | None:
        """Between which figures the middle half of the rounds is."""
        if len(self.rounds) < 2:
            return None
        low, _, high = statistics.quantiles(self.rounds, n=4)
        return low, high

    @property
    def score(self) -> float | None:
        """1 is exactly the bar; more is better."""
        if self.measured is None:
            return None
        return self.measured / self.bar.limit if self.bar.kind == "speed" else self.bar.limit / self.measured

    @property
    def met(self) -> bool:
        return self.score is not None and self.score >= 1

    @property
    def words(self) -> str:
        """Met, or missed by how much of the limit."""
        if self.measured is None:
            return "not measured"
        if self.met:
            return "met"
        by = abs(self.measured / self.bar.limit - 1)
        return f"missed by {by:.0%}" if by >= 0.095 else f"missed by {by:.1%}"


def cost(samples: dict[str, list[float]], what: Cost) -> list[float] | None:
    """The rounds of a contender, less those of what is taken off."""
    name, *less = (what,) if isinstance(what, str) else what
    if any(contender not in samples for contender in (name, *less)):
        return None
    off = [sum(times) for times in zip(*(samples[other] for other in less), strict=True)] or [0.0] * len(samples[name])
    return [time - other for time, other in zip(samples[name], off, strict=True)]


def judge(samples: Samples, bars: Sequence[Bar] = BARS) -> list[Verdict]:
    """Every bar whose contest was run."""
    verdicts = []
    for bar in bars:
        if bar.contest not in samples:
            continue
        ours, peer = (cost(samples[bar.contest], what) for what in (bar.ours, bar.peer))
        if ours is None or peer is None:
            verdicts.append(Verdict(bar, []))
        elif bar.kind == "speed":
            verdicts.append(Verdict(bar, ratios(peer, ours)))
        else:
            verdicts.append(Verdict(bar, ratios(ours, peer)))
    return verdicts
