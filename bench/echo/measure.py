"""Measuring in rounds: each round starts every server anew, and runs each row on all of them, one after the other.

So what a neighbour on the machine does, or where memory happens to lie in one process, hits all contenders alike and
shows in the spread. Servers whose turn it is not are stopped (SIGSTOP): some have loops that never sleep. Who fails
in a row is out of that row, with a note. Where others took the core of the server or of the load for more than a
tenth of a run, the run is repeated, and the least disturbed one counts.
"""

from __future__ import annotations

import contextlib
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .contenders import Contender
from .running import Failed, Load, Server
from .scenarios import CONNECTS, COUNTED, IDLE, ROWS, calls_in
from .tools import build_counter, build_load

#: The system calls that counter.c counts, in its order.
CALLS = ("receives", "sends", "waits", "changes")
COUNTERS_SIZE = 8 * 8
#: So many clients come and go at the same time in the scenario of connects.
CONNECTING = 20


@dataclass(frozen=True)
class Effort:
    """How long is measured, and how often at most until a run is not disturbed."""

    rounds: int
    warmup: float
    seconds: float
    tries: int
    idle_rounds: int
    idle_connections: int


FULL = Effort(rounds=7, warmup=0.15, seconds=0.4, tries=2, idle_rounds=3, idle_connections=5000)
QUICK = Effort(rounds=2, warmup=0.04, seconds=0.15, tries=1, idle_rounds=1, idle_connections=1000)

#: Beyond this part of a run that was lost to others, it is disturbed.
DISTURBED = 0.1

#: What one run of the load gave: ``cpu``, ``seconds``, ``p50``, ``p99`` of a message, ``busy`` (the load's part of its
#: core), ``held`` (part of the run in which others had the core of one of the two).
Reading = dict[str, float]


@dataclass
class Results:
    """Readings by scenario and contender, one a round; and who failed."""

    readings: dict[str, dict[str, list[Reading]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    failed: set[tuple[str, str]] = field(default_factory=set)

    @contextlib.contextmanager
    def taking(self, scenario: str, contender: Contender) -> Iterator[Callable[[Reading], None]]:
        """Gives what takes a reading; a failure becomes a note."""
        readings = self.readings.setdefault(scenario, {})
        try:
            yield readings.setdefault(contender.name, []).append
        except Failed as exc:
            del readings[contender.name]
            self.failed.add((scenario, contender.name))
            self.notes.append(f"{scenario}: {exc}")

    def takes_in(self, server: Server, scenarios: set[str]) -> bool:
        """Whether ``server`` has started; if not, it is out of ``scenarios``, with a note."""
        try:
            server.wait_ready()
        except Failed as exc:
            self.notes.append(str(exc))
            for scenario in scenarios:
                self.readings.get(scenario, {}).pop(server.contender.name, None)
                self.failed.add((scenario, server.contender.name))
            return False
        return True

    def takes_part(self, scenario: str, contender: Contender) -> bool:
        return (scenario, contender.name) not in self.failed


def reading_of(output: dict[str, Any]) -> Reading:
    """What the load printed, for one message or one connect; times in seconds."""
    done, seconds = output["done"], output["seconds"]
    reading = {
        "cpu": output["server_cpu"] / done,
        "seconds": seconds / done,
        "p50": output["p50"] / 1e6,
        "p99": output["p99"] / 1e6,
        "busy": output["load_cpu"] / seconds,
        "held": max(output["server_held"], output["load_held"]) / seconds,
    }
    return reading | {name: count / done for name, count in zip(CALLS, output["counts"], strict=False)}


def least_disturbed(load: Load, server: Server, mode: str, words: dict[str, int], effort: Effort) -> Reading:
    """One run, or the best of some."""
    readings = []
    for _ in range(effort.tries):
        output = load.run(server, mode, warmup=effort.warmup, seconds=effort.seconds, **words)
        readings.append(reading_of(output))
        if readings[-1]["held"] <= DISTURBED:
            break
    return min(readings, key=lambda reading: reading["held"])


@contextlib.contextmanager
def all_started(results: Results, contenders: Sequence[Contender], scenarios: set[str]) -> Iterator[list[Server]]:
    """A server of each, resting."""
    with contextlib.ExitStack() as stack:
        starting = [stack.enter_context(Server(contender)) for contender in contenders]
        started = [server for server in starting if results.takes_in(server, scenarios)]
        for server in started:
            server.rest()
        yield started


def one_round(results: Results, load: Load, contenders: Sequence[Contender], names: set[str], effort: Effort) -> None:
    """Rows and connects, each on every contender, in an order that changes."""
    runs: list[tuple[str, str, dict[str, int]]] = [
        (row.name, "echo", {"size": row.size, "in_flight": row.in_flight, "connections": row.connections})
        for row in ROWS
    ]
    runs.append((CONNECTS, "connects", {"connections": CONNECTING}))
    with all_started(results, contenders, {name for name, _, _ in runs}) as started:
        for name, mode, words in runs:
            if name not in names:
                continue
            for server in random.sample(started, len(started)):
                if not results.takes_part(name, server.contender):
                    continue
                server.wake()
                with results.taking(name, server.contender) as take:
                    take(least_disturbed(load, server, mode, words, effort))
                server.rest()


def idle(results: Results, load: Load, contenders: Sequence[Contender], effort: Effort) -> None:
    """How much each server grows by a connection that does nothing."""
    with all_started(results, contenders, {IDLE}) as started:
        for server in started:
            if not results.takes_part(IDLE, server.contender):
                continue
            server.wake()
            with results.taking(IDLE, server.contender) as take:
                with load.hold(server, 50):
                    pass  # what the first connections bring into memory is no price of the others
                time.sleep(0.2)
                before = server.memory()
                with load.hold(server, effort.idle_connections):
                    time.sleep(0.2)
                    take({"bytes": (server.memory() - before) / effort.idle_connections})
            server.rest()


def count_calls(results: Results, load: Load, counter: Path, contender: Contender, names: set[str]) -> None:
    """System calls a message; in a process of its own, because counting takes time."""
    with tempfile.NamedTemporaryFile() as counts:
        counts.truncate(COUNTERS_SIZE)
        with Server(contender, {"LD_PRELOAD": str(counter), "ECHO_COUNTS": counts.name}) as server:
            if not results.takes_in(server, {calls_in(row) for row in COUNTED}):
                return
            for row in COUNTED:
                if calls_in(row) not in names or not results.takes_part(calls_in(row), contender):
                    continue
                with results.taking(calls_in(row), contender) as take:
                    words = {"size": row.size, "in_flight": row.in_flight, "connections": row.connections}
                    take(reading_of(load.run(server, "echo", warmup=0.05, seconds=0.15, counts=counts.name, **words)))


def measure(
    contenders: Sequence[Contender], names: set[str], effort: Effort, progress: Callable[[str], None]
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
