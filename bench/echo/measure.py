"""Measurement of each scenario."""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..harness import certificate
from ..harness.rounds import Effort, Results, all_started, counting, each_awake, least_disturbed, reading_of
from ..harness.running import Load
from ..harness.tools import build_counter, build_load, has_openssl
from ..instructions import beside, rows
from .contenders import Contender
from .scenarios import CONNECTS, COUNTED, IDLE, MOSTLY_IDLE, ROWS, TLS, Row, calls_in

#: So many clients come and go at the same time in the scenario of connects.
CONNECTING = 20
#: So many descriptors of a process are not connections.
SPARE = 200


Progress = Callable[[str], None]


@dataclass(frozen=True)
class EchoEffort(Effort):
    """And of the connections that do nothing, and whether instructions are counted."""

    idle_rounds: int
    idle_connections: int
    mostly_idle: int  # silent connections beside busy ones
    counts: bool


FULL = EchoEffort(
    rounds=7,
    warmup=0.15,
    seconds=0.4,
    tries=2,
    idle_rounds=3,
    idle_connections=5000,
    mostly_idle=MOSTLY_IDLE.idle,
    counts=True,
)
QUICK = EchoEffort(
    rounds=2,
    warmup=0.04,
    seconds=0.15,
    tries=1,
    idle_rounds=1,
    idle_connections=1000,
    mostly_idle=1000,
    counts=False,
)


def words_of(row: Row) -> dict[str, Any]:
    """The load's options."""
    words = {"size": row.size, "in_flight": row.in_flight, "connections": row.connections}
    return words | ({"idle": row.idle} if row.idle else {}) | ({"tls": True} if row.tls else {})


def possible_idle(wanted: int) -> int:
    """Return ``wanted``, or fewer where the limit of descriptors (RLIMIT_NOFILE) does not allow as many."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most == resource.RLIM_INFINITY:
        return wanted
    return max(1, min(wanted, most - SPARE - MOSTLY_IDLE.connections))


def one_round(
    results: Results,
    load: Load,
    contenders: Sequence[Contender],
    names: set[str],
    effort: Effort,
    environment: dict[str, str] | None = None,
) -> None:
    """Rows and connects, each on every contender, in an order that changes. With a certificate: those over TLS."""
    rows = TLS if environment else ROWS
    runs: list[tuple[str, str, dict[str, Any]]] = [(row.name, "echo", words_of(row)) for row in rows]
    if not environment:
        runs.append((CONNECTS, "connects", {"connections": CONNECTING}))
    runs = [run for run in runs if run[0] in names]
    times = {"warmup": effort.warmup, "seconds": effort.seconds}
    with all_started(results, load, contenders, {name for name, _, _ in runs}, environment) as started:
        for name, mode, words in runs:
            for server in each_awake(results, name, started):
                with results.taking(name, server.contender) as take:
                    take(least_disturbed(lambda: reading_of(load.run(server, mode, **times, **words)), effort))  # noqa: B023 -- called at once


def mostly_idle(results: Results, load: Load, contenders: Sequence[Contender], effort: EchoEffort) -> None:
    """Some busy connections beside many that are silent, on servers of their own."""
    name, idle = MOSTLY_IDLE.name, possible_idle(effort.mostly_idle)
    words = words_of(replace(MOSTLY_IDLE, idle=idle)) | {"warmup": effort.warmup, "seconds": effort.seconds}
    # Once: to open so many connections takes longer than what is measured then.
    once = replace(effort, tries=1)
    with all_started(results, load, contenders, {name}) as started:
        for server in each_awake(results, name, started):
            with results.taking(name, server.contender) as take:
                take(least_disturbed(lambda: reading_of(load.run(server, "echo", **words)), once))  # noqa: B023 -- called at once


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
                take(reading_of(load.run(server, "echo", warmup=0.05, seconds=0.15, counts=counts, **words_of(row))))


def lacking() -> str | None:
    """What this machine lacks for TLS, in words; None if nothing."""
    if not certificate.available():
        return "cryptography is not installed"
    return None if has_openssl() else "the load cannot be compiled without OpenSSL's headers"


def count_instructions(
    results: Results, load: Load, contenders: Sequence[Contender], secured: dict[str, str], progress: Progress
) -> None:
    """One server a contender for the rows, one for those over TLS."""
    plain = {row.name: rows.echo(row.size, row.in_flight) for row in ROWS} | {CONNECTS: rows.CONNECTS}
    groups = [beside.Group(plain)]
    if secured:
        over_tls = {row.name: rows.echo(row.size, row.in_flight) for row in TLS}
        groups.append(beside.Group(over_tls, secured, tls=True))
    beside.count(results, groups, contenders, load, progress)


def measure(
    contenders: Sequence[Contender],
    names: set[str],
    effort: EchoEffort,
    progress: Progress,
    wanted: Mapping[str, set[str]] | None = None,
    counted: Mapping[str, set[str]] | None = None,
) -> Results:
    """All scenarios in ``names``; ``wanted`` and ``counted`` are as in :class:`Results`."""
    results = Results(wanted=wanted, counted=counted)
    over_tls = names & {row.name for row in TLS}
    lack = lacking() if over_tls else None
    if lack is not None:
        results.notes.append(f"TLS: {lack}")
        over_tls = set()
    speaking_tls = [contender for contender in contenders if contender.tls]
    with tempfile.TemporaryDirectory() as directory:
        load = Load(build_load(Path(directory)))
        secured = certificate.environment(Path(directory)) if over_tls else {}
        plain = names & {CONNECTS, *(row.name for row in ROWS)}
        for number in range(effort.rounds):
            progress(f"round {number + 1} of {effort.rounds}")
            if plain:
                one_round(results, load, contenders, plain, effort)
            if over_tls:
                one_round(results, load, speaking_tls, over_tls, effort, secured)
        for number in range(effort.idle_rounds if MOSTLY_IDLE.name in names else 0):
            progress(f"{MOSTLY_IDLE.name}, round {number + 1} of {effort.idle_rounds}")
            mostly_idle(results, load, contenders, effort)
        for number in range(effort.idle_rounds if IDLE in names else 0):
            progress(f"idle connections, round {number + 1} of {effort.idle_rounds}")
            idle(results, load, contenders, effort)
        if names & {calls_in(row) for row in COUNTED}:
            counter = build_counter(Path(directory))
            for contender in contenders:
                progress(f"system calls: {contender.name}")
                count_calls(results, load, counter, contender, names)
        if effort.counts:
            count_instructions(results, load, contenders, secured, progress)
        else:
            results.notes.append("instructions a message: not in a quick look")
    return results
