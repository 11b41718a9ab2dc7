"""Measurement of each scenario."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..harness.rounds import Effort, Reading, Results, all_started, counting, each_awake, least_disturbed, reading_of
from ..harness.running import Load, Server
from ..harness.tools import build_counter, build_load
from ..instructions.beside import Group, count
from ..instructions.rows import broadcast as broadcast_row
from .contenders import Contender
from .scenarios import (
    BESIDE,
    CHURN,
    CHURN_NAME,
    COUNTED,
    CROWD,
    FILLED,
    LARGE,
    MEMORY,
    ONE,
    ROWS,
    SIXTEEN,
    Row,
    beside,
    calls_in,
)

#: So many members at a time are there for a while only, where members come and go.
COMING = 100
#: Rows whose instructions are counted.
COUNTED_ROWS = (ONE, SIXTEEN, LARGE)
#: Whatever a run that ends by itself does, it ends after so many seconds.
LONGEST = 600


@dataclass(frozen=True)
class BroadcastEffort(Effort):
    """And of what takes long, such as 10,000 members: how often, who, and how much."""

    long_rounds: int
    long_peers: bool  # or ours alone
    crowd_seconds: float
    echo_seconds: float
    counts: bool  # instructions
    broadcasts: int  # while members come and go, or do not read


FULL = BroadcastEffort(
    rounds=7,
    warmup=0.1,
    seconds=0.4,
    tries=2,
    long_rounds=2,
    long_peers=True,
    crowd_seconds=0.8,
    echo_seconds=1.5,
    counts=True,
    broadcasts=1000,
)
QUICK = BroadcastEffort(
    rounds=2,
    warmup=0.04,
    seconds=0.15,
    tries=1,
    long_rounds=1,
    long_peers=False,
    crowd_seconds=0.3,
    echo_seconds=0.5,
    counts=False,
    broadcasts=100,
)


def words_of(row: Row) -> dict[str, Any]:
    """The load's options."""
    reading = row.members - row.silent
    return {"size": row.size, "in_flight": row.in_flight, "connections": reading, "silent": row.silent}


def broadcast(load: Load, server: Server, row: Row, **words: Any) -> Reading:
    """One run; ``asked`` is how many publishes there were for one that has reached everybody who reads."""
    output = load.run(server, "broadcast", **words_of(row), **words)
    reading = reading_of(output, "deliveries") | {"asked": output["published"] / output["complete"]}
    return reading | {"joined": output["joined"], "grown": output["grown"]}


def one_round(
    results: Results, load: Load, contenders: Sequence[Contender], rows: Sequence[Row], effort: Effort
) -> None:
    """Each row on every contender, in an order that changes."""
    with all_started(results, load, contenders, {row.name for row in rows}) as started:
        for row in rows:
            taking_part = [server for server in started if server.contender.takes(row.name)]
            for server in each_awake(results, row.name, taking_part):
                with results.taking(row.name, server.contender) as take:

                    def run(server: Server = server, row: Row = row) -> Reading:
                        return broadcast(load, server, row, warmup=effort.warmup, seconds=effort.seconds)

                    take(least_disturbed(run, effort))


def memory(results: Results, load: Load, contenders: Sequence[Contender], effort: BroadcastEffort) -> None:
    """Measure the memory that a member that never reads adds to the server."""
    with all_started(results, load, contenders, {MEMORY}) as started:
        for server in each_awake(results, MEMORY, started):
            with results.taking(MEMORY, server.contender) as take:
                reading = broadcast(load, server, FILLED, publishes=effort.broadcasts, seconds=LONGEST)
                take({"bytes": reading["grown"] / FILLED.silent})


def churn(results: Results, load: Load, contenders: Sequence[Contender], effort: BroadcastEffort) -> None:
    """So many broadcasts, while members come and go."""
    with all_started(results, load, contenders, {CHURN_NAME}) as started:
        for server in each_awake(results, CHURN_NAME, started):
            with results.taking(CHURN_NAME, server.contender) as take:
                take(broadcast(load, server, CHURN, churn=COMING, publishes=effort.broadcasts, seconds=LONGEST))


def echo_beside(
    results: Results, load: Load, contenders: Sequence[Contender], row: Row, effort: BroadcastEffort
) -> None:
    """The latency of an echo, from a process of its own, while the members of ``row`` are broadcast to."""
    name = beside(row)
    with all_started(results, load, contenders, {name}) as started:
        for server in each_awake(results, name, started):
            with results.taking(name, server.contender) as take:
                with load.hold(
                    server, "broadcast", hold=True, warmup=0, seconds=LONGEST, **words_of(row)
                ) as broadcasts:
                    times = {"warmup": effort.warmup, "seconds": effort.echo_seconds}
                    echoes = reading_of(load.run(server, "echo", path="/echo", size=32, **times))
                take(
                    {
                        "p50": echoes["p50"],
                        "p99": echoes["p99"],
                        "held": echoes["held"],
                        "seconds": reading_of(broadcasts, "deliveries")["seconds"],
                    }
                )


def count_calls(results: Results, load: Load, counter: Path, contender: Contender, names: set[str]) -> None:
    """System calls a delivery."""
    with counting(results, load, counter, contender, {calls_in(row) for row in COUNTED}) as counted:
        for row in COUNTED:
            if counted is None or calls_in(row) not in names or not results.takes_part(calls_in(row), contender):
                continue
            server, counts = counted
            with results.taking(calls_in(row), contender) as take:
                take(broadcast(load, server, row, warmup=0.05, seconds=0.15, counts=counts))


def measure(
    contenders: Sequence[Contender],
    names: set[str],
    effort: BroadcastEffort,
    progress: Callable[[str], None],
    wanted: Mapping[str, set[str]] | None = None,
    counted: Mapping[str, set[str]] | None = None,
) -> Results:
    """All scenarios in ``names``; ``wanted`` and ``counted`` are as in :class:`Results`."""
    results = Results(wanted=wanted, counted=counted)

    def taking_part(scenario: str, *, long: bool) -> list[Contender]:
        return [
            contender
            for contender in contenders
            if contender.takes(scenario) and (contender.ours or effort.long_peers) and (contender.long or not long)
        ]

    rows = [row for row in ROWS if row.name in names]
    with tempfile.TemporaryDirectory() as directory:
        load = Load(build_load(Path(directory)))
        for number in range(effort.rounds if rows else 0):
            progress(f"round {number + 1} of {effort.rounds}")
            one_round(results, load, contenders, rows, effort)
        for number in range(effort.long_rounds):
            progress(f"what takes long, round {number + 1} of {effort.long_rounds}")
            if MEMORY in names:
                memory(results, load, taking_part(MEMORY, long=True), effort)
            if CROWD.name in names:
                # Once: to open so many connections takes longer than what is measured then.
                once = replace(effort, seconds=effort.crowd_seconds, tries=1)
                one_round(results, load, taking_part(CROWD.name, long=False), [CROWD], once)
            for row in BESIDE:
                if beside(row) in names:
                    echo_beside(results, load, taking_part(beside(row), long=True), row, effort)
        if CHURN_NAME in names:
            progress(CHURN_NAME)
            churn(results, load, [one for one in taking_part(CHURN_NAME, long=True) if one.ours], effort)
        if names & {calls_in(row) for row in COUNTED}:
            counter = build_counter(Path(directory))
            for contender in contenders:
                progress(f"system calls: {contender.name}")
                if contender.takes(CROWD.name):
                    count_calls(results, load, counter, contender, names)
        if effort.counts:
            driven = {row.name: broadcast_row(row.size, row.in_flight, row.members) for row in COUNTED_ROWS}
            count(results, [Group(driven)], contenders, load, progress)
        else:
            results.notes.append("instructions a delivery: not in a quick look")
    return results
