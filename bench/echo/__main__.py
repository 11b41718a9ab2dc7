"""``python -m bench.echo``: measure whole servers beside their peers, print tables and bars, write the results.

Markdown and plot go to bench/results. ``--quick`` is for a look: less than a minute, rougher figures, fewer
contenders, and nothing is written unless ``--output`` says where.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..codec import chart, environment
from ..codec.__main__ import RESULTS, progress
from ..codec.report import plain as plain_bars
from ..codec.verdicts import judge
from . import report
from .bars import BARS, samples
from .contenders import CONTENDERS
from .measure import FULL, QUICK, measure
from .scenarios import NAMES
from .tools import CannotBuild, available, compiler


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.echo", description=__doc__.partition("\n\n")[0])
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
    parser.add_argument("--output", metavar="DIRECTORY", type=Path, help="where to write echo.md and echo.svg")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    if not available():
        sys.exit(f"this needs Linux and a C compiler ({compiler()})")
    effort = QUICK if options.quick else FULL
    names = {name for name in NAMES if options.only in name}
    if not names:
        sys.exit(f"no scenario has {options.only!r} in its name: {'; '.join(NAMES)}")
    who = options.who.split(",")
    wanted = [
        contender
        for contender in CONTENDERS
        if any(word in contender.name for word in who) and (contender.quick or not options.quick)
    ]
    contenders = [contender for contender in wanted if contender.installed]
    try:
        results = measure(contenders, names, effort, progress)
    except CannotBuild as exc:
        sys.exit(str(exc))
    progress("")
    results.notes += [f"{contender.name}: not installed" for contender in wanted if contender not in contenders]
    found = samples(results)
    verdicts = judge(found, BARS)
    print("\n".join([*environment.lines(report.PEERS), report.disturbance(results)]), end="\n\n")
    print(report.plain(results, found), end="\n\n")
    print(plain_bars(verdicts))
    print("".join(f"\n{note}" for note in results.notes), end="")
    directory = options.output or (None if options.quick or options.only or options.who else RESULTS)
    if directory is not None:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "echo.md").write_text(report.markdown(results, found, verdicts, effort), encoding="utf-8")
        try:
            chart.draw(verdicts, directory / "echo.svg")
        except ImportError:
            print("no plot: matplotlib is not installed (pip install -e '.[bench]')", file=sys.stderr)
    if any(contender.ours and (name, contender.name) in results.failed for contender in contenders for name in names):
        sys.exit("one of ours failed")


if __name__ == "__main__":
    main()
