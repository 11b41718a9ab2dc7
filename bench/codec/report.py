"""The results as text: the table of bars for the terminal, and all of it as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from . import environment
from .contest import Contest
from .measure import Effort, Samples, ratios
from .ours import COMPILED, PURE
from .verdicts import Verdict

HEADINGS = ("", "bar", "wanted", "measured", "middle half", "")


def rows(verdicts: Iterable[Verdict]) -> list[tuple[str, ...]]:
    """A line a bar."""
    lines: list[tuple[str, ...]] = []
    area = ""
    for verdict in verdicts:
        bar = verdict.bar
        measured = "" if verdict.measured is None else f"{verdict.measured:.2f}x"
        middle = "" if verdict.middle is None else "{:.2f} to {:.2f}".format(*verdict.middle)
        text = f"({bar.text})" if bar.aside else bar.text
        words = f"({verdict.words})" if bar.aside else verdict.words
        lines.append((bar.area if bar.area != area else "", text, bar.wanted, measured, middle, words))
        area = bar.area
    return lines


def tally(verdicts: Sequence[Verdict]) -> str:
    """Count the goals that are met."""
    counted = [verdict for verdict in verdicts if not verdict.bar.aside]
    return f"{sum(verdict.met for verdict in counted)} of {len(counted)} bars met"


def columns(table: Sequence[Sequence[str]]) -> list[str]:
    """A table for the terminal."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]


def plain(verdicts: Sequence[Verdict]) -> str:
    """The table of bars in columns."""
    return "\n".join([*columns([HEADINGS, *rows(verdicts)]), "", tally(verdicts)])


def table(headings: Sequence[str], lines: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table."""
    return [f"| {' | '.join(row)} |" for row in (headings, ["---"] * len(headings), *lines)]


def standing(contest: Contest, samples: dict[str, list[float]]) -> list[str]:
    """The contenders of a contest, the fastest first, beside ours if it takes part."""
    ours = next((name for name in (COMPILED, PURE) if name in samples), None)
    return table(
        (contest.name, "median", f"x the time of {ours or COMPILED}"),
        (
            (
                name,
                contest.shown(statistics.median(samples[name])),
                f"{statistics.median(ratios(samples[name], samples[ours])):.2f}" if ours else "",
            )
            for name in sorted(samples, key=lambda name: statistics.median(samples[name]))
        ),
    )


def markdown(contests: Sequence[Contest], samples: Samples, verdicts: Sequence[Verdict], effort: Effort) -> str:
    """The whole result."""
    lines = [
        "# The codec beside its peers",
        "",
        "Written by `python -m bench.codec`; bench/README.md says what the words mean. Ratios within a run mean",
        "something, times on a shared machine do not.",
        "",
        *(f"- {line}" for line in environment.lines()),
        f"- {effort.passes} processes, {effort.rounds} rounds in each, batches of {effort.batch * 1e3:.0f} ms or more",
        "",
        f"## Bars: {tally(verdicts)}",
        "",
        *table(HEADINGS, rows(verdicts)),
        "",
        "In parentheses: not a bar, but what explains the one above it.",
        "",
        "![Bars](codec.svg)",
        "",
        "## All contests",
    ]
    for contest in contests:
        lines += ["", *standing(contest, samples[contest.name])]
    return "\n".join(lines) + "\n"
