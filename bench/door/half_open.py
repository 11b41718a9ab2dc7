"""Half-open handshakes beside good clients: strangers that never finish their request must not be felt by the others.

They are on the loopback, so that no bound of an address turns them away: this is about what they cost when they are
in. Each has sent a part of its head, gives one byte more now and then, and comes again when its time is up.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import ClassVar

from ..codec.bars import cheaper
from ..harness import contender
from ..harness.document import Cells, Table, figure, micro
from ..harness.rounds import Results, all_started, each_awake, least_disturbed, reading_of
from ..harness.running import Load
from ..instructions import beside, rows
from .crowd import crowd
from .scenario import DoorEffort, Scenario, libraries

NAME = "half-open handshakes"
HALF_OPEN = 5000
GOOD = 100
MOST = "50 ms"


class Contender(contender.Contender):
    """An echo server."""

    servers: ClassVar[str] = "bench.echo.servers"


CONTENDERS = libraries(Contender)


def one_round(results: Results, load: Load, contenders: Sequence[contender.Contender], effort: DoorEffort) -> None:
    """The good clients alone, then with the strangers."""
    words = {"connections": GOOD, "in_flight": 1, "warmup": effort.warmup}
    short, long = {**words, "seconds": effort.seconds / 4}, {**words, "seconds": effort.seconds}
    with all_started(results, load, contenders, {NAME}) as started:
        for server in each_awake(results, NAME, started):
            with results.taking(NAME, server.contender) as take:
                alone = least_disturbed(lambda: reading_of(load.run(server, "echo", **short)), effort)  # noqa: B023 -- called at once
                with crowd(server, "bench.door.strangers", str(round(HALF_OPEN * effort.crowd)), ready="ready"):
                    time.sleep(effort.warmup)
                    among = least_disturbed(lambda: reading_of(load.run(server, "echo", **long)), effort)  # noqa: B023 -- called at once
                take({**among, "alone_p99": alone["p99"], "alone_cpu": alone["cpu"]})


def table(cells: Cells) -> Table:
    """The good clients, among the strangers and without them."""
    counted = beside.column(cells)
    return Table(
        NAME,
        (
            *("p50 µs", "p99 µs", "p99 alone", "CPU µs a message", "alone"),
            *(heading for heading, _ in counted),
            "load's core",
        ),
        cells.lines(
            "p99",
            *(
                lambda who, what=what: micro(cells.median(what, who))
                for what in ("p50", "p99", "alone_p99", "cpu", "alone_cpu")
            ),
            *(cell for _, cell in counted),
            lambda who: f"{cells.median('busy', who):.0%}",
        ),
    )


def facts(effort: DoorEffort) -> list[str]:
    crowd = f"{round(HALF_OPEN * effort.crowd):,} of them beside {GOOD} clients with one echo each on its way"
    return [f"{NAME}: {crowd}, {effort.rounds} rounds of {effort.seconds:g} s"]


SCENARIO = Scenario(
    name=NAME,
    contenders=CONTENDERS,
    one_round=one_round,
    bars=tuple(
        cheaper(NAME, f"p99 of the good clients, {one.name}", figure(NAME, "p99"), MOST, 1, one.name)
        for one in CONTENDERS
        if one.ours
    ),
    numbers={MOST: 0.05},
    table=table,
    facts=facts,
    counted=(beside.Group({NAME: rows.echo(32, 1)}),),
)
