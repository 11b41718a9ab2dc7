"""Measurement of each scenario. A client is a process of the harness's kind, which says what it costs."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..harness import certificate
from ..harness.rounds import Effort, Reading, Results, all_started, each_awake
from ..harness.running import HOST, Failed, Load, Server, cores
from ..harness.tools import CannotBuild, build_uws
from ..instructions import beside
from ..instructions.rows import Drive, Driven
from .contenders import Contender
from .control import Call, control
from .scenarios import CROWD, CROWDS, OWN, ROWS, TLS_CONNECTS, UWS, Row
from .servers import OWN as OUR_SERVER
from .servers import PROGRAM, SPINS, UWEBSOCKETS

Progress = Callable[[str], None]

#: Connections that a process has before its memory is looked at: what they bring with them is no price of the others.
FIRST = 20


@dataclass(frozen=True)
class ClientEffort(Effort):
    """And whether instructions are counted."""

    counts: bool


FULL = ClientEffort(rounds=5, warmup=0.02, seconds=0.08, tries=1, counts=True)
QUICK = ClientEffort(rounds=2, warmup=0.01, seconds=0.04, tries=1, counts=False)

#: The servers that run, by name and whether they speak TLS.
Servers = dict[tuple[str, bool], Server]


def uri_of(servers: Servers, name: str, *, tls: bool) -> str:
    return f"{'wss' if tls else 'ws'}://{HOST}:{servers[name, tls].port}/"


def cpu_of(pid: int) -> float:
    """Return the seconds of processor time of a process: its CPU clock (clock_getcpuclockid(3))."""
    return time.clock_gettime((~pid << 3) | 2)


def waited(pid: int) -> float:
    """Return the seconds in which a process wanted its core and others had it."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9


def exchange(call: Call, server: Server, row: Row, effort: Effort) -> Reading:
    """Messages there and back on one connection."""
    least = 2 * row.in_flight + 20
    count, seconds = least, 0.0
    for wanted in (effort.warmup, effort.warmup, effort.seconds):
        count = max(least, round(count * wanted / seconds)) if seconds else least
        before = cpu_of(server.pid)
        cpu, seconds = call("run", row.size, count, row.in_flight)
        held = max(0.0, seconds - cpu - (cpu_of(server.pid) - before))
    p50, p99 = call("latencies")
    return {"cpu": cpu / count, "seconds": seconds / count, "p50": p50, "p99": p99, "held": held / seconds}


@contextlib.contextmanager
def named(client: Server) -> Iterator[None]:
    """Say in a failure whose it is."""
    try:
        yield
    except Failed as exc:
        raise Failed(f"{client.contender.name}: {exc} {client.errors()}") from None


def one_round(
    results: Results, load: Load, servers: Servers, contenders: Sequence[Contender], rows: Sequence[Row], effort: Effort
) -> None:
    """Rows on every contender, in an order that changes."""
    with all_started(results, load, contenders, {row.name for row in rows}) as started, contextlib.ExitStack() as stack:
        controls = {client.pid: stack.enter_context(control(client.port)) for client in started}
        for row in rows:
            for client in each_awake(results, row.name, started):
                call = controls[client.pid]
                server = servers[row.server, row.tls]
                os.sched_setaffinity(server.pid, {cores()[0]})
                with results.taking(row.name, client.contender) as take, named(client):
                    call("open", uri_of(servers, row.server, tls=row.tls))
                    take(exchange(call, server, row, effort))
                    call("leave")
        for client in started:
            client.wake()


def crowd(results: Results, load: Load, servers: Servers, contenders: Sequence[Contender], name: str) -> None:
    """CPU of connecting many clients in processes of their own, and what memory they take."""
    tls = name == TLS_CONNECTS
    uri, server = uri_of(servers, UWS, tls=tls), servers[UWS, tls]
    os.sched_setaffinity(server.pid, {cores()[1]})
    with all_started(results, load, contenders, {name}) as started:
        for client in each_awake(results, name, started):
            with results.taking(name, client.contender) as take, named(client), control(client.port) as call:
                call("crowd", uri, FIRST)
                before, held = client.memory(), waited(client.pid)
                cpu, seconds = call("crowd", uri, CROWD)
                held = waited(client.pid) - held
                grown = client.memory() - before
                figures = {"cpu": cpu / CROWD, "seconds": seconds / CROWD, "bytes": grown / CROWD}
                take({**figures, "held": held / seconds})


@dataclass(frozen=True, kw_only=True)
class Echoes(Driven):
    """Messages there and back, by a client under callgrind."""

    uri: str
    row: Row

    @property
    def messages(self) -> int:
        return 1

    def connect(self, stack: contextlib.ExitStack, port: int, *, raw: bool = False, tls: bool = False) -> Drive:
        call = stack.enter_context(control(port))
        call("open", self.uri)
        return lambda count: call("run", self.row.size, count, self.row.in_flight)


@dataclass(frozen=True, kw_only=True)
class Connects(Driven):
    """Connections of a client under callgrind that stay open."""

    uri: str

    @property
    def messages(self) -> int:
        return 1

    def connect(self, stack: contextlib.ExitStack, port: int, *, raw: bool = False, tls: bool = False) -> Drive:
        call = stack.enter_context(control(port))
        return lambda count: call("crowd", self.uri, count)


def driven(servers: Servers, names: set[str]) -> dict[str, Driven]:
    """Return what is counted: the scenarios beside uWebSockets, for a client executes the same beside our server."""
    found: dict[str, Driven] = {}
    for row in ROWS:
        if row.name in names and row.server == UWS:
            count = 10 if row.size >= 1 << 20 else 300 if row.in_flight == 1 else 40 * row.in_flight
            uri = uri_of(servers, UWS, tls=row.tls)
            found[row.name] = Echoes(count, few=max(5, count // 10), uri=uri, row=row)
    for name in names & set(CROWDS):
        found[name] = Connects(40, uri=uri_of(servers, UWS, tls=name == TLS_CONNECTS))
    return found


@contextlib.contextmanager
def running(results: Results, load: Load, names: set[str], *, spins: bool = True) -> Iterator[Servers]:
    """The servers of the scenarios, with a note where one cannot run. ``spins``: uWebSockets never sleeps."""
    wanted = {(row.server, row.tls) for row in ROWS if row.name in names}
    wanted |= {(UWS, name == TLS_CONNECTS) for name in names & set(CROWDS)}
    if any(tls for _, tls in wanted) and not certificate.available():
        results.notes.append("TLS: cryptography is not installed")
        wanted = {(name, tls) for name, tls in wanted if not tls}
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        secured = certificate.environment(Path(directory)) if any(tls for _, tls in wanted) else {}
        environment = {SPINS: str(int(spins))}
        if any(name == UWS for name, _ in wanted):
            try:
                environment[PROGRAM] = str(build_uws(Path(directory)))
            except CannotBuild as exc:
                results.notes.append(f"{UWS}: {exc}")
                wanted = {(name, tls) for name, tls in wanted if name != UWS}
        servers: Servers = {}
        for name, tls in sorted(wanted):
            contender = OUR_SERVER if name == OWN else UWEBSOCKETS
            server = stack.enter_context(Server(contender, load, environment | (secured if tls else {})))
            try:
                server.wait_ready()
            except Failed as exc:
                results.notes.append(str(exc))
            else:
                servers[name, tls] = server
        yield servers


def measure(contenders: Sequence[Contender], names: set[str], effort: ClientEffort, progress: Progress) -> Results:
    """All scenarios in ``names``."""
    wanted = {name: {contender.name for contender in contenders if contender.takes(name)} for name in names}
    results = Results(wanted=wanted)
    load = Load(Path())  # none is needed
    with running(results, load, names) as servers:
        rows = [row for row in ROWS if row.name in names and (row.server, row.tls) in servers]
        for number in range(effort.rounds if rows else 0):
            progress(f"round {number + 1} of {effort.rounds}")
            one_round(results, load, servers, contenders, rows, effort)
        for name in CROWDS:
            for number in range(effort.rounds if name in names and (UWS, name == TLS_CONNECTS) in servers else 0):
                progress(f"{name}, round {number + 1} of {effort.rounds}")
                crowd(results, load, servers, contenders, name)
    if effort.counts:
        beside_uws = set(results.readings) & {*CROWDS, *(row.name for row in ROWS if row.server == UWS)}
        with running(results, load, beside_uws, spins=False) as servers:
            beside.count(results, [beside.Group(driven(servers, beside_uws))], contenders, load, progress)
    else:
        results.notes.append("instructions are not counted in a quick look")
    return results
