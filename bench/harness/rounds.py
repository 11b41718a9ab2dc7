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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from .contender import Contender
from .running import Failed, Load, Server

AnyContender = TypeVar("AnyContender", bound=Contender)

#: The system calls that counter.c counts, in its order.
CALLS = ("receives", "sends", "waits", "changes")
COUNTERS_SIZE = 8 * 8

#: Runs until there is one in which the server had processor time.
MOST_TRIES = 10

#: Beyond this part of a run that was lost to others, it is disturbed.
DISTURBED = 0.1


@dataclass(frozen=True)
class Effort:
    """Extent of a measurement, and the most repetitions until a run is undisturbed."""

    rounds: int
    warmup: float
    seconds: float
    tries: int


#: What one run of the load gave, for one of what was done: ``cpu``, ``seconds``, ``p50``, ``p99``; and ``busy`` (the
#: load's part of its core), ``held`` (part of the run in which others had the core of one of the two).
Reading = dict[str, float]


@dataclass
class Results:
    """Readings by scenario and contender, one a round; and who failed.

    ``wanted`` names the contenders of each scenario where not all take part in all, ``counted`` those whose
    instructions are counted where not all are.
    """

    readings: dict[str, dict[str, list[Reading]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    failed: set[tuple[str, str]] = field(default_factory=set)
    wanted: Mapping[str, set[str]] | None = None
    counted: Mapping[str, set[str]] | None = None

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
        """Return True if ``server`` has started. Otherwise take it out of ``scenarios``, with a note."""
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
        if self.wanted is not None and contender.name not in self.wanted.get(scenario, ()):
            return False
        return (scenario, contender.name) not in self.failed

    def counts(self, scenario: str, contender: Contender) -> bool:
        """Return True if the instructions of ``contender`` are to be counted."""
        return self.counted is None or contender.name in self.counted.get(scenario, ())

    def taking_part(self, scenarios: Iterable[str], contenders: Sequence[AnyContender]) -> list[AnyContender]:
        """Return those that take part in one of ``scenarios``: nobody else has to be started."""
        return [one for one in contenders if any(self.takes_part(scenario, one) for scenario in scenarios)]


def reading_of(output: dict[str, Any], unit: str = "done") -> Reading:
    """Parse the load's output, for one ``unit``; times in seconds."""
    done, seconds = output[unit], output["seconds"]
    reading = {
        "cpu": output["server_cpu"] / done,
        "seconds": seconds / done,
        "p50": output["p50"] / 1e6,
        "p99": output["p99"] / 1e6,
        "busy": output["load_cpu"] / seconds,
        "held": max(output["server_held"], output["load_held"]) / seconds,
    }
    return reading | {name: count / done for name, count in zip(CALLS, output["counts"], strict=False)}


def least_disturbed(run: Callable[[], Reading], effort: Effort) -> Reading:
    """One run, or the best of some.

    Raises:
        Failed: the server has never had its core: what was measured had been answered before.
    """
    readings: list[Reading] = []
    for _ in range(MOST_TRIES):
        reading = run()
        if reading["cpu"] <= 0:
            continue
        readings.append(reading)
        if reading["held"] <= DISTURBED or len(readings) >= effort.tries:
            break
    if not readings:
        raise Failed("the server has had no processor time")
    return min(readings, key=lambda reading: reading["held"])


@contextlib.contextmanager
def all_started(
    results: Results,
    load: Load,
    contenders: Sequence[Contender],
    scenarios: set[str],
    environment: dict[str, str] | None = None,
) -> Iterator[list[Server]]:
    """A server of each that takes part in one of ``scenarios``, resting."""
    taking_part = results.taking_part(scenarios, contenders)
    with contextlib.ExitStack() as stack:
        starting = [stack.enter_context(Server(contender, load, environment)) for contender in taking_part]
        started = [server for server in starting if results.takes_in(server, scenarios)]
        for server in started:
            server.rest()
        yield started


def each_awake(results: Results, scenario: str, started: Sequence[Server]) -> Iterator[Server]:
    """Yield the contenders in random order, each of them resumed while it is measured."""
    for server in random.sample(started, len(started)):
        if results.takes_part(scenario, server.contender):
            server.wake()
            yield server
            server.rest()


@contextlib.contextmanager
def counting(
    results: Results, load: Load, counter: Path, contender: Contender, scenarios: set[str]
) -> Iterator[tuple[Server, str] | None]:
    """A server whose system calls are counted, in a process of its own because that takes time; and where. Or None."""
    with tempfile.NamedTemporaryFile() as counts:
        counts.truncate(COUNTERS_SIZE)
        with Server(contender, load, {"LD_PRELOAD": str(counter), "BENCH_COUNTS": counts.name}) as server:
            yield (server, counts.name) if results.takes_in(server, scenarios) else None
