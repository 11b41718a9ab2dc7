"""Measurement of each scenario."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..harness.rounds import Effort, Results, all_started, counting, each_awake, least_disturbed, reading_of
from ..harness.running import Load
from ..harness.tools import build_counter, build_load
from .contenders import Contender
from .scenarios import CONNECTS, COUNTED, IDLE, ROWS, calls_in

#: So many clients come and go at the same time in the scenario of connects.
CONNECTING = 20


@dataclass(frozen=True)
class EchoEffort(Effort):
    """And of the connections that do nothing."""

    idle_rounds: int
    idle_connections: int


FULL = EchoEffort(rounds=7, warmup=0.15, seconds=0.4, tries=2, idle_rounds=3, idle_connections=5000)
QUICK = EchoEffort(rounds=2, warmup=0.04, seconds=0.15, tries=1, idle_rounds=1, idle_connections=1000)


def one_round(results: Results, load: Load, contenders: Sequence[Contender], names: set[str], effort: Effort) -> None:
    """Rows and connects, each on every contender, in an order that changes."""
    runs: list[tuple[str, str, dict[str, int]]] = [
        (row.name, "echo", {"size": row.size, "in_flight": row.in_flight, "connections": row.connections})
        for row in ROWS
    ]
    runs.append((CONNECTS, "connects", {"connections": CONNECTING}))
    times = {"warmup": effort.warmup, "seconds": effort.seconds}
    with all_started(results, load, contenders, {name for name, _, _ in runs}) as started:
        for name, mode, words in runs:
            if name not in names:
                continue
            for server in each_awake(results, name, started):
                with results.taking(name, server.contender) as take:
                    take(least_disturbed(lambda: reading_of(load.run(server, mode, **times, **words)), effort))  # noqa: B023 -- called at once


def idle(results: Results, load: Load, contenders: Sequence[Contender], effort: EchoEffort) -> None:
    """Measure the memory that an idle connection adds to each server."""
    with all_started(results, load, contenders, {IDLE}) as started:
        for server in each_awake(results, IDLE, started):
            with results.taking(IDLE, server.contender) as take:
                with load.hold(server, "idle", connections=50):
                    pass  # what the first connections bring into memory is no price of the others
                time.sleep(0.2)
                before = server.memory()
                with load.hold(server, "idle", connections=effort.idle_connections):
                    time.sleep(0.2)
                    take({"bytes": (server.memory() - before) / effort.idle_connections})


def count_calls(results: Results, load: Load, counter: Path, contender: Contender, names: set[str]) -> None:
    """System calls a message."""
    with counting(results, load, counter, contender, {calls_in(row) for row in COUNTED}) as counted:
        for row in COUNTED:
            if counted is None or calls_in(row) not in names or not results.takes_part(calls_in(row), contender):
                continue
            server, counts = counted
            with results.taking(calls_in(row), contender) as take:
                words = {"size": row.size, "in_flight": row.in_flight, "connections": row.connections}
                take(reading_of(load.run(server, "echo", warmup=0.05, seconds=0.15, counts=counts, **words)))


def measure(
    contenders: Sequence[Contender], names: set[str], effort: EchoEffort, progress: Callable[[str], None]
) -> Results:
    """All scenarios in ``names``."""
    results = Results()
    with tempfile.TemporaryDirectory() as directory:
        load = Load(build_load(Path(directory)))
        if names & {CONNECTS, *(row.name for row in ROWS)}:
            for number in range(effort.rounds):
                progress(f"round {number + 1} of {effort.rounds}")
                one_round(results, load, contenders, names, effort)
        for number in range(effort.idle_rounds if IDLE in names else 0):
            progress(f"idle connections, round {number + 1} of {effort.idle_rounds}")
            idle(results, load, contenders, effort)
        if names & {calls_in(row) for row in COUNTED}:
            counter = build_counter(Path(directory))
            for contender in contenders:
                progress(f"system calls: {contender.name}")
                count_calls(results, load, counter, contender, names)
    return results
