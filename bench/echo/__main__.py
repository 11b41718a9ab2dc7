"""``python -m bench.echo``: measure whole servers beside their peers, print tables and bars, write the results."""

from __future__ import annotations

from ..harness.command import benchmark_of, run

if __name__ == "__main__":
    run(benchmark_of("bench.echo", "Whole servers beside their peers"))
