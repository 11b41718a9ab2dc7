"""``python -m bench.deflate``: compression of whole servers beside their peers; tables, bars, results."""

from __future__ import annotations

from ..harness.command import benchmark_of, run

if __name__ == "__main__":
    run(benchmark_of("bench.deflate", "Compression of whole servers beside their peers"))
