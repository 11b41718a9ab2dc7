"""``python -m bench.codec``: measure the codec beside its peers, print the table of bars, write the results.

Markdown and plot go to bench/results. ``--quick`` is for a look: less than half a minute, rougher figures, and
nothing is written unless ``--output`` says where.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from . import environment, report
from .measure import FULL, QUICK, measure
from .results import RESULTS, progress, write
from .suite import JOBS
from .verdicts import judge


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.codec", description=__doc__.partition("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="less than half a minute; writes nothing by itself")
    parser.add_argument(
        "--only", metavar="WORDS", default="", help="contests with these words in their name; writes nothing"
    )
    parser.add_argument("--output", metavar="DIRECTORY", type=Path, help="where to write codec.md and codec.svg")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    effort = QUICK if options.quick else FULL
    found = {job: contest for job in JOBS if options.only in (contest := job()).name}
    if not found:
        sys.exit(f"no contest has {options.only!r} in its name")
    chosen = list(found.values())
    samples = measure(list(found), effort, progress)
    progress("")
    verdicts = judge(samples)
    print("\n".join(environment.lines()), end="\n\n")
    if options.only:
        for contest in chosen:
            print("\n".join(report.standing(contest, samples[contest.name])), end="\n\n")
    print(report.plain(verdicts))
    directory = options.output or (None if options.quick or options.only else RESULTS)
    if directory is not None:
        write(directory, "codec", report.markdown(chosen, samples, verdicts, effort), verdicts)


if __name__ == "__main__":
    main()
