"""``python -m bench.asgi``: measure ASGI applications on our class beside uvicorn's own, write the results."""

from __future__ import annotations

from ..harness.command import benchmark_of, run

if __name__ == "__main__":
    run(benchmark_of("bench.asgi", "ASGI applications under uvicorn"))
