"""The command line of a benchmark of servers: measure, print tables and bars, write the results.

Markdown and plot go to bench/results. ``--quick`` is for a look: less than a minute, rougher figures, fewer
contenders, and nothing is written unless ``--output`` says where.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..codec import environment
from ..codec.bars import Bar
from ..codec.measure import Samples
from ..codec.report import plain as plain_bars
from ..codec.results import RESULTS, progress, write
from ..codec.verdicts import judge
from . import document
from .contender import Contender
from .document import Table
from .rounds import Results
from .tools import CannotBuild, available, compiler


@dataclass(frozen=True)
class Benchmark:
    """Definition of a benchmark: its command, contenders, measurement and report.

    ``measure`` and ``facts`` get ``full`` or ``quick``, which say how long is measured.
    """

    name: str
    title: str
    scenarios: Sequence[str]
    contenders: Sequence[Contender]
    full: Any
    quick: Any
    measure: Callable[[Sequence[Any], set[str], Any, Callable[[str], None]], Results]
    samples: Callable[[Results], Samples]
    bars: Sequence[Bar]
    tables: Callable[[Results, Samples], list[Table]]
    facts: Callable[[Any, Samples], list[str]]


def benchmark_of(package: str, title: str) -> Benchmark:
    """That of a package with the modules ``scenarios``, ``contenders``, ``measure``, ``bars`` and ``report``."""

    def module(name: str) -> Any:
        return importlib.import_module(f"{package}.{name}")

    return Benchmark(
        name=package.rpartition(".")[2],
        title=title,
        scenarios=module("scenarios").NAMES,
        contenders=module("contenders").CONTENDERS,
        full=module("measure").FULL,
        quick=module("measure").QUICK,
        measure=module("measure").measure,
        samples=module("bars").samples,
        bars=module("bars").BARS,
        tables=module("report").tables,
        facts=module("report").facts,
    )


def arguments(benchmark: Benchmark) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m bench.{benchmark.name}", description=benchmark.title)
    parser.add_argument("--quick", action="store_true", help="less than a minute; writes nothing by itself")
    parser.add_argument(
        "--only", metavar="WORDS", default="", help="scenarios with these words in their name; writes nothing"
    )
    parser.add_argument(
        "--who",
        metavar="WORDS",
        default="",
        help="contenders with one of these words (a,b) in their name; writes nothing",
    )
    if hasattr(benchmark.full, "rounds"):
        parser.add_argument("--rounds", metavar="COUNT", type=int, help="so many rounds; writes nothing")
    files = f"{benchmark.name}.md and {benchmark.name}.svg"
    parser.add_argument("--output", metavar="DIRECTORY", type=Path, help=f"where to write {files}")
    return parser.parse_args()


def run(benchmark: Benchmark) -> None:
    options = arguments(benchmark)
    if not available():
        sys.exit(f"this needs Linux and a C compiler ({compiler()})")
    effort = benchmark.quick if options.quick else benchmark.full
    rounds = getattr(options, "rounds", None)
    if rounds is not None:
        effort = replace(effort, rounds=rounds)
    names = {name for name in benchmark.scenarios if options.only in name}
    if not names:
        sys.exit(f"no scenario has {options.only!r} in its name: {'; '.join(benchmark.scenarios)}")
    who = options.who.split(",")
    wanted = [
        contender
        for contender in benchmark.contenders
        if any(word in contender.name for word in who) and (contender.quick or not options.quick)
    ]
    contenders = [contender for contender in wanted if contender.installed]
    try:
        results = benchmark.measure(contenders, names, effort, progress)
    except CannotBuild as exc:
        sys.exit(str(exc))
    progress("")
    results.notes += [f"{contender.name}: not installed" for contender in wanted if contender not in contenders]
    found = benchmark.samples(results)
    verdicts = judge(found, benchmark.bars)
    tables, facts = benchmark.tables(results, found), benchmark.facts(effort, found)
    print("\n".join([*environment.lines(document.PEERS), *facts, document.disturbance(results)]), end="\n\n")
    print(document.plain(tables), end="\n\n")
    print(plain_bars(verdicts))
    print("".join(f"\n{note}" for note in results.notes), end="")
    directory = options.output or (None if options.quick or options.only or options.who or rounds else RESULTS)
    if directory is not None:
        text = document.markdown(benchmark.title, benchmark.name, facts, results, tables, verdicts)
        write(directory, benchmark.name, text, verdicts)
    if any(contender.ours and (name, contender.name) in results.failed for contender in contenders for name in names):
        sys.exit("one of ours failed")
