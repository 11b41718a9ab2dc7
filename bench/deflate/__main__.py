"""``python -m bench.deflate``: compression of whole servers beside their peers; tables, bars, results."""

from __future__ import annotations

from ..harness.command import Benchmark, run
from .bars import BARS, samples
from .contenders import CONTENDERS
from .measure import FULL, QUICK, measure
from .report import facts, tables
from .scenarios import NAMES

if __name__ == "__main__":
    run(
        Benchmark(
            name="deflate",
            title="Compression of whole servers beside their peers",
            scenarios=NAMES,
            contenders=CONTENDERS,
            full=FULL,
            quick=QUICK,
            measure=measure,
            samples=samples,
            bars=BARS,
            tables=tables,
            facts=facts,
        )
    )
