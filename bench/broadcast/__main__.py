"""``python -m bench.broadcast``: broadcasts of whole servers beside their peers; tables, bars, results."""

from __future__ import annotations

from ..harness.command import benchmark_of, run

if __name__ == "__main__":
    run(benchmark_of("bench.broadcast", "Broadcasts of whole servers beside their peers"))
