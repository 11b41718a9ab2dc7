"""Measurement of each scenario."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..harness.contender import Contender as Anybody
from ..harness.rounds import Effort, Reading, Results, all_started, each_awake, least_disturbed, reading_of
from ..harness.running import Failed, Load, Server
from ..harness.tools import build_load
from .contenders import Contender
from .messages import SIZE, WrongAnswer, check, write
from .scenarios import BROADCASTS, ECHOES, IDLE, OFFER, Broadcast, Echo

#: Connections that come and go before those that are counted: what the first ones bring is no price of the others.
FIRST = 50
#: Seconds until what a server does behind an exchange is done.
SETTLING = 0.3


@dataclass(frozen=True)
class DeflateEffort(Effort):
    """And of broadcasts, and of the connections that do nothing."""

    broadcast_rounds: int
    idle_rounds: int
    idle_connections: int


FULL = DeflateEffort(
    rounds=7, warmup=0.1, seconds=0.4, tries=2, broadcast_rounds=7, idle_rounds=3, idle_connections=5000
)
QUICK = DeflateEffort(
    rounds=1, warmup=0.04, seconds=0.15, tries=1, broadcast_rounds=1, idle_rounds=1, idle_connections=500
)


@dataclass(frozen=True)
class Deflating:
    """The load, and the files that go to it and come from it."""

    load: Load
    messages: Path
    answers: Path

    def words(self, contender: Contender, **words: Any) -> dict[str, Any]:
        """The load's options."""
        if contender.plain:
            return {"size": SIZE, **words}
        return {"offer": OFFER, "messages": self.messages, "answers": self.answers, **words}

    def judged(self, contender: Contender, output: dict[str, Any]) -> Reading:
        """Return the bytes of an answer, after all answers were inflated.

        Raises:
            Failed: one was wrong, or something else was agreed than is measured.
        """
        wrong = contender.refuses(output["agreed"])
        if wrong is not None:
            raise Failed(f"{contender.name}: {wrong}")
        if contender.plain:
            return {"answer": float(SIZE)}
        try:
            return {"answer": check(self.answers).size}
        except WrongAnswer as exc:
            raise Failed(f"{contender.name}: {exc}") from None


def prepare(directory: Path) -> Deflating:
    """Compile the load, write the messages."""
    deflating = Deflating(Load(build_load(directory)), directory / "messages", directory / "answers")
    write(deflating.messages)
    return deflating


def contender_of(server: Server) -> Contender:
    contender: Anybody = server.contender
    assert isinstance(contender, Contender)
    return contender


def run(deflating: Deflating, server: Server, row: Echo | Broadcast, **times: Any) -> Reading:
    """One run of ``row``: what a message costs, or a delivery."""
    contender = contender_of(server)
    if isinstance(row, Echo):
        mode, unit, what = "echo", "done", {"path": "/echo", "connections": row.connections}
    else:
        mode, unit, what = "broadcast", "deliveries", {"connections": row.members}
    words = deflating.words(contender, in_flight=row.in_flight, **what, **times)
    output = deflating.load.run(server, mode, **words)
    return reading_of(output, unit) | deflating.judged(contender, output)


def one_round(
    results: Results,
    deflating: Deflating,
    contenders: Sequence[Contender],
    rows: Sequence[Echo | Broadcast],
    effort: Effort,
) -> None:
    """Each row on every contender that takes part in it, in an order that changes."""
    names = {row.name for row in rows}
    taking_part = [one for one in contenders if any(one.takes(name) for name in names)]
    times = {"warmup": effort.warmup, "seconds": effort.seconds}
    with all_started(results, deflating.load, taking_part, names) as started:
        for row in rows:
            in_row = [server for server in started if contender_of(server).takes(row.name)]
            for server in each_awake(results, row.name, in_row):
                with results.taking(row.name, server.contender) as take:
                    take(least_disturbed(lambda: run(deflating, server, row, **times), effort))  # noqa: B023 -- called at once


def memory(deflating: Deflating, server: Server, connections: int) -> Reading:
    """Measure the memory that a connection adds after one message in each direction."""
    contender = contender_of(server)
    words = deflating.words(contender, path="/echo", exchange=True)
    with deflating.load.hold(server, "idle", connections=FIRST, **words):
        pass
    time.sleep(SETTLING)
    before = server.memory()
    with deflating.load.hold(server, "idle", connections=connections, **words) as output:
        time.sleep(SETTLING)
        grown = server.memory() - before
    return {"bytes": grown / connections} | deflating.judged(contender, output)


def idle(results: Results, deflating: Deflating, contenders: Sequence[Contender], effort: DeflateEffort) -> None:
    """The memory of each."""
    taking_part = [one for one in contenders if one.takes(IDLE)]
    with all_started(results, deflating.load, taking_part, {IDLE}) as started:
        for server in each_awake(results, IDLE, started):
            with results.taking(IDLE, server.contender) as take:
                take(memory(deflating, server, effort.idle_connections))


def measure(
    contenders: Sequence[Contender], names: set[str], effort: DeflateEffort, progress: Callable[[str], None]
) -> Results:
    """All scenarios in ``names``."""
    results = Results()
    echoes = [row for row in ECHOES if row.name in names]
    broadcasts = [row for row in BROADCASTS if row.name in names]
    with tempfile.TemporaryDirectory() as directory:
        deflating = prepare(Path(directory))
        for number in range(effort.rounds if echoes else 0):
            progress(f"echo, round {number + 1} of {effort.rounds}")
            one_round(results, deflating, contenders, echoes, effort)
        for number in range(effort.broadcast_rounds if broadcasts else 0):
            progress(f"broadcast, round {number + 1} of {effort.broadcast_rounds}")
            # Once: to open so many connections takes longer than what is measured then.
            one_round(results, deflating, contenders, broadcasts, replace(effort, tries=1))
        for number in range(effort.idle_rounds if IDLE in names else 0):
            progress(f"idle connections, round {number + 1} of {effort.idle_rounds}")
            idle(results, deflating, contenders, effort)
    return results
