"""``python -m bench.client``: measure clients beside their peers, print tables and bars, write the results."""

from __future__ import annotations

from ..harness.command import benchmark_of, run

if __name__ == "__main__":
    run(benchmark_of("bench.client", "Clients beside their peers"))
