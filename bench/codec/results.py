"""Output of a run: a line of progress meanwhile, then a document and a plot."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from . import chart
from .verdicts import Verdict

RESULTS = Path(__file__).parent.parent / "results"


def progress(text: str) -> None:
    """One line on a terminal that is written over."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def write(directory: Path, name: str, text: str, verdicts: Sequence[Verdict]) -> None:
    """``text`` as Markdown, and where matplotlib is installed the bars as a plot, both called ``name``."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{name}.md").write_text(text, encoding="utf-8")
    try:
        chart.draw(verdicts, directory / f"{name}.svg")
    except ImportError:
        print("no plot: matplotlib is not installed (pip install -e '.[bench]')", file=sys.stderr)
