"""``python -m bench.bars``: measure what the bars of the core need and nothing else, and print one table.

    python -m bench.bars                      some twelve minutes on two cores; writes nothing
    python -m bench.bars --only TLS           bars with these words in their row or text
    python -m bench.bars --before ../before   also the plain-Python body, beside that of another checkout

Rows, contenders and rounds are those of ``bench.echo`` and ``bench.broadcast``: seven rounds, in each of which all
contenders of a row run one after the other, in an order of its own. A disturbed run is not repeated, so that the time
is bounded. Ends with 1 if a bar is missed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .broadcast import bars as broadcast_bars
from .broadcast import contenders as broadcast_contenders
from .broadcast import measure as broadcast_measure
from .broadcast import scenarios as broadcast_scenarios
from .codec import environment
from .codec.bars import Bar
from .codec.measure import Samples
from .codec.report import columns, tally
from .codec.results import progress
from .codec.verdicts import Verdict, judge
from .echo import bars as echo_bars
from .echo import contenders as echo_contenders
from .echo import measure as echo_measure
from .harness import document
from .harness.contender import Contender
from .harness.rounds import Results
from .harness.running import ROOT, Failed
from .harness.tools import CannotBuild, available, compiler
from .instructions.__main__ import chosen, instructions
from .instructions.beside import WHAT as INSTRUCTIONS
from .instructions.counting import missing

HEADINGS = ("row", "bar", "wanted", "ratio", "middle half", "")
ROUNDS = 7
#: Rows of the plain-Python body, which must not be slower than before by more than this.
PURE_ROWS = ("echo 32 B, 64 in flight", "echo 32 B, 1 in flight")
PURE_LIMIT = 1.05


@dataclass(frozen=True)
class Suite:
    """A benchmark that has bars of the core. ``without`` names the run that an "all reading" bar compares with."""

    bars: Sequence[Bar]
    contenders: Sequence[Contender]
    effort: Any
    measure: Callable[..., Results]
    samples: Callable[[Results], Samples]
    without: dict[str, str]


SUITES = (
    Suite(
        bars=echo_bars.COSTS,
        contenders=echo_contenders.CONTENDERS,
        effort=replace(echo_measure.FULL, warmup=0.1, seconds=0.3, rounds=ROUNDS, tries=1),
        measure=echo_measure.measure,
        samples=echo_bars.samples,
        without={},
    ),
    Suite(
        bars=broadcast_bars.COSTS,
        contenders=broadcast_contenders.CONTENDERS,
        effort=replace(broadcast_measure.FULL, warmup=0.1, seconds=0.3, rounds=ROUNDS, tries=1),
        measure=broadcast_measure.measure,
        samples=broadcast_bars.samples,
        without={row.name: row.without.name for row in broadcast_scenarios.SILENT},
    ),
)


def needed(suite: Suite, bars: Iterable[Bar]) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    """Return the contenders of each scenario that ``bars`` compare, and those whose instructions they look at."""
    names = {contender.name for contender in suite.contenders}
    wanted: dict[str, set[str]] = {}
    counted: dict[str, set[str]] = {}
    for bar in bars:
        for cost in (bar.ours, bar.peer):
            for name in (cost,) if isinstance(cost, str) else cost:
                usual = name.removesuffix(broadcast_bars.ALL_READING)
                scenario = bar.area if usual == name else suite.without[bar.area]
                if usual in names:
                    wanted.setdefault(scenario, set()).add(usual)
                    if bar.contest == document.figure(bar.area, INSTRUCTIONS):
                        counted.setdefault(scenario, set()).add(usual)
    return wanted, counted


def measured(suite: Suite, only: str, rounds: int) -> tuple[list[Verdict], Results]:
    """Measure what the chosen bars of a benchmark need, and judge them."""
    bars = [bar for bar in suite.bars if only in f"{bar.area}: {bar.text}"]
    wanted, counted = needed(suite, bars)
    if not bars:
        return [], Results()
    effort = replace(suite.effort, rounds=rounds, counts=bool(counted))
    contenders = [contender for contender in suite.contenders if contender.installed]
    results = suite.measure(contenders, set(wanted), effort, progress, wanted, counted)
    found = suite.samples(results)
    lost = [Verdict(bar, []) for bar in bars if bar.contest not in found]
    return sorted([*judge(found, bars), *lost], key=lambda verdict: bars.index(verdict.bar)), results


def pure_lines(before: Path | None, only: str) -> list[tuple[str, ...]]:
    """The plain-Python body beside that of another checkout, by instructions."""
    rows = [row for row in chosen("", pure=True) if row.name.startswith(PURE_ROWS)]
    rows = [row for row in rows if only in f"the pure body: {row.name}"]
    if not rows or (before is None and only):
        return []
    wanted = f"≤ {PURE_LIMIT:g}x"
    lack = "not measured: --before CHECKOUT" if before is None else missing()
    if before is None or lack:
        return [("the pure body", "instructions, beside before", wanted, "", "", lack or "")]
    lines = []
    for row in rows:
        progress(f"the pure body: {row.name}")
        try:
            now, then = (
                instructions(row, "uvloop", source / "src", {"PLUMEWS_PURE": "1"})
                for source in (ROOT, before.resolve())
            )
        except Failed as exc:
            lines.append(("the pure body", row.name, wanted, "", "", f"not measured: {exc}"))
            continue
        words = "met" if now <= then * PURE_LIMIT else f"missed by {now / then / PURE_LIMIT - 1:.1%}"
        lines.append(("the pure body", f"{row.name}, instructions", wanted, f"{now / then:.3f}x", "", words))
    return lines


def line(verdict: Verdict) -> tuple[str, ...]:
    """A bar in one line."""
    ratio = "" if verdict.measured is None else f"{verdict.measured:.3f}x"
    middle = "" if verdict.middle is None else "{:.3f} to {:.3f}".format(*verdict.middle)
    return verdict.bar.area, verdict.bar.text, verdict.bar.wanted, ratio, middle, verdict.words


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.bars", description="Measure the bars of the core")
    parser.add_argument("--only", metavar="WORDS", default="", help="bars with these words in their row or text")
    parser.add_argument("--rounds", metavar="N", type=int, default=ROUNDS, help=f"fewer for a look (default {ROUNDS})")
    parser.add_argument("--before", metavar="CHECKOUT", type=Path, help="compare the plain-Python body with this one")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    options = arguments(words)
    if not available():
        sys.exit(f"this needs Linux and a C compiler ({compiler()})")
    if options.rounds < 1:
        sys.exit("--rounds must be at least 1")
    began = time.monotonic()
    verdicts: list[Verdict] = []
    everything = Results()
    try:
        for suite in SUITES:
            judged, results = measured(suite, options.only, options.rounds)
            verdicts += judged
            everything.notes += results.notes
            everything.readings |= results.readings
    except CannotBuild as exc:
        sys.exit(str(exc))
    pure = pure_lines(options.before, options.only)
    progress("")
    if not verdicts and not pure:
        sys.exit(f"no bar has {options.only!r} in its row or text")
    print("\n".join([*environment.lines(document.PEERS), document.disturbance(everything)]))
    print(f"{options.rounds} rounds, {(time.monotonic() - began) / 60:.0f} minutes", end="\n\n")
    print("\n".join(columns([HEADINGS, *map(line, verdicts), *pure])), end="\n\n")
    print(tally(verdicts))
    print("".join(f"{note}\n" for note in everything.notes), end="")
    if not all(verdict.met for verdict in verdicts) or any(cells[-1].startswith("missed") for cells in pure):
        sys.exit(1)


if __name__ == "__main__":
    main()
