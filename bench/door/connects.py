"""Connects whose opening handshake does more: hooks of the application, or compression.

A connect is TCP, upgrade, closing handshake, end of the TCP connection, by some clients at a time, as in
``bench.echo``, which has the plain ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from ..harness import contender
from ..harness.document import Cells, Table, micro
from ..harness.rounds import Results, all_started, each_awake, least_disturbed, reading_of
from ..harness.running import Load
from ..instructions import beside
from ..instructions.rows import Connects
from .scenario import DoorEffort, Scenario, libraries
from .servers import COMPRESSION, HOOKS, VARIABLE

#: So many clients come and go at the same time.
CONNECTING = 20
#: What the load offers, and every library agrees to in some way.
OFFER = "permessage-deflate; client_max_window_bits"
PICOWS = "picows, uvloop"
NAMES = {HOOKS: "connects with hooks", COMPRESSION: "connects with compression"}


class Contender(contender.Contender):
    """An echo server."""

    servers: ClassVar[str] = "bench.door.servers"


CONTENDERS = (*libraries(Contender), Contender("aiohttp", "uvloop", "aiohttp"))


def words_of(what: str) -> dict[str, Any]:
    """The load's options."""
    return {"connections": CONNECTING} | ({"offer": OFFER} if what == COMPRESSION else {})


def seconds(effort: DoorEffort) -> float:
    """A tenth of what half-open handshakes take, which wait for time limits."""
    return effort.seconds / 10


def scenario(what: str) -> Scenario:
    """Connects with hooks, or with compression."""
    name = NAMES[what]

    def one_round(results: Results, load: Load, contenders: Sequence[contender.Contender], effort: DoorEffort) -> None:
        words = words_of(what) | {"warmup": min(0.2, effort.warmup), "seconds": seconds(effort)}
        with all_started(results, load, contenders, {name}, {VARIABLE: what}) as started:
            for server in each_awake(results, name, started):
                with results.taking(name, server.contender) as take:
                    take(least_disturbed(lambda: reading_of(load.run(server, "connects", **words)), effort))  # noqa: B023 -- called at once

    def table(cells: Cells) -> Table:
        counted = beside.column(cells)
        return Table(
            name,
            ("connects/s", "CPU µs each", "x picows", *(heading for heading, _ in counted), "p50 µs", "p99 µs"),
            cells.lines(
                "cpu",
                lambda who: f"{1 / cells.median('seconds', who):,.0f}",
                lambda who: micro(cells.median("cpu", who)),
                lambda who: cells.beside("cpu", who, PICOWS),
                *(cell for _, cell in counted),
                lambda who: micro(cells.median("p50", who)),
                lambda who: micro(cells.median("p99", who)),
            ),
        )

    def facts(effort: DoorEffort) -> list[str]:
        return [f"{name}: {CONNECTING} clients at a time, {effort.rounds} rounds of {seconds(effort):g} s"]

    offer = OFFER if what == COMPRESSION else None
    return Scenario(
        name=name,
        contenders=CONTENDERS,
        one_round=one_round,
        bars=(),
        numbers={},
        table=table,
        facts=facts,
        counted=(beside.Group({name: Connects(200, offer=offer)}, {VARIABLE: what}),),
    )


SCENARIOS = tuple(scenario(what) for what in NAMES)
