"""Measuring on a machine that others use too: processor time, in rounds over all contenders, medians of ratios.

A batch lasts about 5 ms, so that the clock costs nothing. A round runs one batch of each contender of a contest, in
turning order. The rounds are spread over several passes through all contests, each in a process and an order of its
own: where memory happens to lie decides for instance whether a buffer can grow without being moved. Invariant: a
ratio is the median of the ratios within rounds.
"""

from __future__ import annotations

import gc
import math
import multiprocessing
import random
import time
import timeit
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from .contest import Contest, Job
from .ours import on_tier


@dataclass(frozen=True)
class Effort:
    """Extent of a measurement: each contender does ``passes * rounds`` batches of ``batch`` seconds."""

    passes: int
    rounds: int
    batch: float


FULL = Effort(passes=9, rounds=7, batch=0.005)
QUICK = Effort(passes=2, rounds=4, batch=0.002)

#: Seconds a call, one figure a round, by contest and contender.
Samples = dict[str, dict[str, list[float]]]


def timed(*calls: partial[Any]) -> Callable[[int], float]:
    """Return a function that runs ``calls`` a number of times and returns the time, each call written out."""
    names: dict[str, Any] = {"gc": gc}
    lines = []
    for at, call in enumerate(calls):
        names[f"f{at}"] = call.func
        words = []
        for number, value in enumerate(call.args):
            names[f"a{at}_{number}"] = value
            words.append(f"a{at}_{number}")
        for key, value in call.keywords.items():
            names[f"k{at}_{key}"] = value
            words.append(f"{key}=k{at}_{key}")
        lines.append(f"f{at}({', '.join(words)})")
    # timeit turns the garbage collector off; it is part of what objects cost
    return timeit.Timer("; ".join(lines), "gc.enable()", time.process_time, names).timeit


def calls_in(batch: float, run: Callable[[int], float]) -> int:
    """Return the number of calls that last for ``batch`` seconds."""
    calls = 1
    while (taken := run(calls)) < batch / 2:
        calls = max(2 * calls, math.ceil(calls * batch / 2 / max(taken, 1e-9))) if taken > 1e-4 else 8 * calls
    return max(1, math.ceil(calls * batch / taken))


def rounds_of(contest: Contest, rounds: int, batch: float) -> dict[str, list[float]]:
    """The seconds a call of each contender takes in each round; they are checked first."""
    runs = {}
    for name, contender in contest.contenders.items():
        contender.check()
        run = timed(contender.call, *contender.then)
        runs[name] = (run, calls_in(batch, run))
    gc.collect()
    gc.freeze()  # what the benchmark itself holds is no work for the collector
    samples: dict[str, list[float]] = {name: [] for name in runs}
    order = list(runs)
    for _ in range(rounds):
        for name in order:
            run, calls = runs[name]
            samples[name].append(run(calls) / calls)
        order.append(order.pop(0))
    gc.unfreeze()
    return samples


def one_pass(jobs: Sequence[Job], rounds: int, batch: float, seed: int) -> Samples:
    """Run the contests of one process, in an order of its own."""
    # As if the process had handled a large message before: glibc then keeps freed memory, and nobody pays for
    # getting it back from the system page by page, which takes longer than anything that is measured here.
    bytes(31 * 1024 * 1024)
    samples: Samples = {}
    for job in random.Random(seed).sample(jobs, len(jobs)):
        contest = job()
        with on_tier(contest.tier):
            samples[contest.name] = rounds_of(contest, rounds, batch)
    return samples


def measure(jobs: Sequence[Job], effort: Effort, progress: Callable[[str], None]) -> Samples:
    """All passes."""
    samples: Samples = {}
    spawning = multiprocessing.get_context("spawn")
    for number in range(effort.passes):
        progress(f"pass {number + 1} of {effort.passes}")
        with ProcessPoolExecutor(1, mp_context=spawning) as process:
            done = process.submit(one_pass, jobs, effort.rounds, effort.batch, number).result()
        for contest, contenders in done.items():
            for name, times in contenders.items():
                samples.setdefault(contest, {}).setdefault(name, []).extend(times)
    return samples


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """The ratios within rounds."""
    return [a / b for a, b in zip(above, below, strict=True)]
