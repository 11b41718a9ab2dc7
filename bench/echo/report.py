"""The results as text: the tables of the scenarios for the terminal, and all of it as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from ..codec import environment
from ..codec.measure import Samples, ratios
from ..codec.report import HEADINGS, columns, rows, table, tally
from ..codec.verdicts import Verdict
from .bars import SENDS_A_READ, figure
from .contenders import PICOWS, RAW
from .measure import CALLS, Effort, Results
from .scenarios import CONNECTS, IDLE, NAMES, ROWS

PEERS = ("picows", "websockets", "aiohttp", "tornado", "socketify", "uvloop")
Cells = Sequence[Sequence[str]]


def micro(seconds: float) -> str:
    return f"{seconds * 1e6:.3g}" if seconds < 1e-3 else f"{seconds * 1e6:.0f}"


def standing(scenario: str, found: Samples, names: Sequence[str]) -> tuple[tuple[str, ...], Cells]:
    """Headings and lines of one scenario, the cheapest first; ratios are to what runs on uvloop."""

    def median(what: str, name: str) -> float:
        return statistics.median(found[figure(scenario, what)][name])

    def beside(what: str, name: str, peer: str = PICOWS) -> str:
        contest = found[figure(scenario, what)]
        return f"{statistics.median(ratios(contest[name], contest[peer])):.2f}" if peer in contest else ""

    def lines(first: str, *cells: Callable[[str], str]) -> Cells:
        return [(name, *(cell(name) for cell in cells)) for name in sorted(names, key=lambda name: median(first, name))]

    if scenario == IDLE:
        return ("", "KiB a connection", "x picows"), lines(
            "bytes", lambda name: f"{median('bytes', name) / 1024:.1f}", lambda name: beside("bytes", name)
        )
    if scenario in (CONNECTS, *(row.name for row in ROWS)):
        unit = "connects" if scenario == CONNECTS else "messages"
        headings = (
            "",
            f"{unit}/s",
            "CPU µs each",
            "x raw TCP",
            "x picows",
            "p50 µs",
            "p99 µs",
            "x picows",
            "load's core",
        )
        return headings, lines(
            "cpu",
            lambda name: f"{1 / median('seconds', name):,.0f}",
            lambda name: micro(median("cpu", name)),
            lambda name: beside("cpu", name, RAW),
            lambda name: beside("cpu", name),
            lambda name: micro(median("p50", name)),
            lambda name: micro(median("p99", name)),
            lambda name: beside("p99", name),
            lambda name: f"{median('busy', name):.0%}",
        )
    return ("", *(f"{what} a message" for what in CALLS), SENDS_A_READ), lines(
        "sends", *(lambda name, what=what: f"{median(what, name):.3f}" for what in (*CALLS, SENDS_A_READ))
    )


def standings(results: Results, found: Samples) -> list[tuple[str, tuple[str, ...], Cells]]:
    """Every scenario that was measured."""
    return [
        (name, *standing(name, found, list(results.readings[name]))) for name in NAMES if results.readings.get(name)
    ]


def plain(results: Results, found: Samples) -> str:
    """The scenarios in columns."""
    return "\n\n".join(
        "\n".join(columns([(name, *headings[1:]), *lines])) for name, headings, lines in standings(results, found)
    )


def disturbance(results: Results) -> str:
    """How much others on the machine were in the way."""
    timed = [results.readings.get(name, {}) for name in (CONNECTS, *(row.name for row in ROWS))]
    held = [reading["held"] for by_contender in timed for readings in by_contender.values() for reading in readings]
    if not held:
        return "Nothing was timed"
    usual, worst = statistics.median(held), max(held)
    return f"Others had the core of a server or of its load for {usual:.0%} of a run, at most {worst:.0%}"


def markdown(results: Results, found: Samples, verdicts: Sequence[Verdict], effort: Effort) -> str:
    """The whole result."""
    text = [
        "# Whole servers beside their peers",
        "",
        "Written by `python -m bench.echo`; bench/README.md says what the words mean. Ratios within a run mean",
        "something, times on a shared machine do not.",
        "",
        *(f"- {line}" for line in environment.lines(PEERS)),
        f"- {effort.rounds} rounds, {effort.seconds:g} s a row and contender after {effort.warmup:g} s of warm-up",
        f"- {effort.idle_rounds} rounds of {effort.idle_connections:,} idle connections",
        f"- {disturbance(results)}",
        "",
        f"## Bars: {tally(verdicts)}",
        "",
        *table(HEADINGS, rows(verdicts)),
        "",
        "![Bars](echo.svg)",
        "",
        "## All scenarios",
    ]
    for name, headings, lines in standings(results, found):
        text += ["", *table((name, *headings[1:]), lines)]
    if results.notes:
        text += ["", "Left out:", "", *(f"- {note.splitlines()[0]}" for note in results.notes)]
    return "\n".join(text) + "\n"
