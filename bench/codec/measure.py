"""Measuring on a machine that others use too: processor time, in rounds over all contenders, medians of ratios.

A batch lasts about 5 ms, so that the clock costs nothing. A round runs one batch of each contender of a contest, in
turning order; the rounds of a contest are spread over several passes through all of them, so that a slow minute
of the machine falls on everybody. Invariant: a ratio is the median of the ratios within rounds.
"""

from __future__ import annotations

import gc
import math
import statistics
import time
import timeit
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from .contest import Contest


@dataclass(frozen=True)
class Effort:
    """How long is measured: each contender does ``passes * rounds`` batches of ``batch`` seconds or more."""

    passes: int
    rounds: int
    batch: float


FULL = Effort(passes=3, rounds=11, batch=0.005)
QUICK = Effort(passes=1, rounds=3, batch=0.003)

#: Seconds a call, one figure a round, by contest and contender.
Samples = dict[str, dict[str, list[float]]]


def timed(call: partial[Any]) -> Callable[[int], float]:
    """What runs ``call`` so many times and says how long that took, the call written out as a user writes it."""
    names: dict[str, Any] = {"gc": gc, "f": call.func}
    words = []
    for number, value in enumerate(call.args):
        names[f"a{number}"] = value
        words.append(f"a{number}")
    for key, value in call.keywords.items():
        names[f"k_{key}"] = value
        words.append(f"{key}=k_{key}")
    # timeit turns the garbage collector off; it is part of what objects cost
    return timeit.Timer(f"f({', '.join(words)})", "gc.enable()", time.process_time, names).timeit


def calls_in(batch: float, run: Callable[[int], float]) -> int:
    """How many calls last for ``batch`` seconds."""
    calls = 1
    while (taken := run(calls)) < batch / 2:
        calls = max(2 * calls, math.ceil(calls * batch / 2 / max(taken, 1e-9))) if taken > 1e-4 else 8 * calls
    return max(1, math.ceil(calls * batch / taken))


def measure(contests: Sequence[Contest], effort: Effort, progress: Callable[[str], None]) -> Samples:
    """All contests, each of their contenders checked first."""
    runs: dict[str, dict[str, tuple[Callable[[int], float], int]]] = {}
    for contest in contests:
        progress(f"checking: {contest.name}")
        runs[contest.name] = {}
        for name, contender in contest.contenders.items():
            contender.check()
            run = timed(contender.call)
            runs[contest.name][name] = (run, calls_in(effort.batch, run))
    samples: Samples = {contest.name: {name: [] for name in contest.contenders} for contest in contests}
    gc.collect()
    gc.freeze()  # what the benchmark itself holds is no work for the collector
    for number in range(effort.passes):
        for contest in contests:
            progress(f"measuring, {number + 1} of {effort.passes}: {contest.name}")
            order = list(contest.contenders)
            for _ in range(effort.rounds):
                for name in order:
                    run, calls = runs[contest.name][name]
                    samples[contest.name][name].append(run(calls) / calls)
                order.append(order.pop(0))
    gc.unfreeze()
    return samples


def ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """The median of the ratios within rounds."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))
