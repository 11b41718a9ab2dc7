"""The results of whole servers as text: tables for the terminal, and all of it as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ..codec import environment
from ..codec.measure import Samples, ratios
from ..codec.report import HEADINGS, columns, rows, table, tally
from ..codec.verdicts import Verdict
from .rounds import Results

PEERS = ("picows", "aiofastnet", "websockets", "aiohttp", "tornado", "socketify", "uvloop")
Line = tuple[str, ...]


def figure(scenario: str, what: str) -> str:
    """The name of a contest."""
    return f"{scenario}: {what}"


def samples_of(results: Results) -> Samples:
    """The readings as contests: one figure a round, by scenario and figure, then by contender."""
    found: Samples = {}
    for scenario, by_contender in results.readings.items():
        for name, readings in by_contender.items():
            for what in readings[0]:
                found.setdefault(figure(scenario, what), {})[name] = [reading[what] for reading in readings]
    return found


def add_numbers(found: Samples, numbers: dict[str, float]) -> None:
    """Let numbers take part in each contest, for the bars that name no peer."""
    for contest in found.values():
        rounds = max(map(len, contest.values()))
        contest.update({name: [number] * rounds for name, number in numbers.items()})


def cheapest(contest: dict[str, list[float]], names: Iterable[str]) -> str | None:
    """Which of ``names`` it is, if any was measured."""
    measured = [name for name in names if name in contest]
    return min(measured, key=lambda name: statistics.median(contest[name])) if measured else None


def micro(seconds: float) -> str:
    """Microseconds, three digits."""
    return f"{seconds * 1e6:.3g}" if seconds < 1e-3 else f"{seconds * 1e6:.0f}"


@dataclass(frozen=True)
class Cells:
    """Cells of one scenario's table."""

    scenario: str
    found: Samples
    names: Sequence[str]

    def median(self, what: str, name: str) -> float:
        return statistics.median(self.found[figure(self.scenario, what)][name])

    def beside(self, what: str, name: str, peer: str) -> str:
        """The median of the ratios, if ``peer`` took part."""
        contest = self.found[figure(self.scenario, what)]
        if peer not in contest or len(contest[peer]) != len(contest[name]):
            return ""
        return f"{statistics.median(ratios(contest[name], contest[peer])):.2f}"

    def has(self, what: str) -> bool:
        """Return True if one of the contenders has this figure."""
        return any(name in self.found.get(figure(self.scenario, what), {}) for name in self.names)

    def instructions(self, name: str) -> str:
        """The user-space instructions; nothing where they were not counted."""
        counted = self.found.get(figure(self.scenario, "instructions"), {}).get(name)
        return f"{counted[0]:,.0f}" if counted else ""

    def lines(self, first: str, *cells: Callable[[str], str]) -> list[Line]:
        """A line each, the cheapest by ``first`` on top."""
        names = sorted(self.names, key=lambda name: self.median(first, name))
        return [(name, *(cell(name) for cell in cells)) for name in names]


@dataclass(frozen=True)
class Table:
    """One scenario."""

    name: str
    headings: Line
    lines: Sequence[Line]


def plain(tables: Iterable[Table]) -> str:
    """The scenarios in columns."""
    return "\n\n".join("\n".join(columns([(one.name, *one.headings), *one.lines])) for one in tables)


def disturbance(results: Results) -> str:
    """Return the share of the CPU that other processes had."""
    all_readings = (readings for contest in results.readings.values() for readings in contest.values())
    held = [reading["held"] for readings in all_readings for reading in readings if "held" in reading]
    if not held:
        return "Nothing was timed"
    usual, worst = statistics.median(held), max(held)
    return f"Others had the core of a server or of its load for {usual:.0%} of a run, at most {worst:.0%}"


def markdown(
    title: str, name: str, facts: Sequence[str], results: Results, tables: Sequence[Table], verdicts: Sequence[Verdict]
) -> str:
    """The whole result; ``facts`` say how much was measured."""
    text = [
        f"# {title}",
        "",
        f"Written by `python -m bench.{name}`; bench/README.md says what the words mean. Ratios within a run mean",
        "something, times on a shared machine do not.",
        "",
        *(f"- {line}" for line in (*environment.lines(PEERS), *facts, disturbance(results))),
        "",
        f"## Bars: {tally(verdicts)}",
        "",
        *table(HEADINGS, rows(verdicts)),
        "",
        f"![Bars]({name}.svg)",
        "",
        "## All scenarios",
    ]
    for one in tables:
        text += ["", *table((one.name, *one.headings), one.lines)]
    if results.notes:
        text += ["", "Left out:", "", *(f"- {note.splitlines()[0]}" for note in results.notes)]
    return "\n".join(text) + "\n"
