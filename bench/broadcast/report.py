"""The tables of the scenarios."""

from __future__ import annotations

from collections.abc import Callable

from ..codec.measure import Samples
from ..harness.document import Cells, Line, Table, micro
from ..harness.rounds import CALLS, Results
from ..instructions import beside as instructions
from .bars import all_reading
from .contenders import BARE, PICOWS, SOCKETIFY
from .measure import COMING, BroadcastEffort
from .scenarios import BESIDE, CHURN, CHURN_NAME, COUNTED, MEMORY, NAMES, SILENT, beside, calls_in

Column = tuple[str, Callable[[str], str]]


def columns(name: str, cells: Cells) -> list[Column]:
    """Columns of a scenario's table; ratios are of CPU, or of the figure before them."""

    def ratio(what: str, peer: str) -> Column:
        return f"x {peer.removesuffix(', uvloop')}", lambda who: cells.beside(what, who, peer)

    def times(what: str) -> Column:
        return f"{what} µs", lambda who: micro(cells.median(what, who))

    if name in (calls_in(row) for row in COUNTED):
        return [(f"{what} a delivery", lambda who, what=what: f"{cells.median(what, who):.3f}") for what in CALLS]
    if name == MEMORY:
        return [("KiB for one that never reads", lambda who: f"{cells.median('bytes', who) / 1024:.1f}")]
    rate: Column = ("deliveries/s", lambda who: f"{1 / cells.median('seconds', who):,.0f}")
    if name in (beside(row) for row in BESIDE):
        return [times("p50"), times("p99"), rate]
    found = [rate, ("CPU µs each", lambda who: micro(cells.median("cpu", who))), *instructions.column(cells)]
    if name in (row.name for row in SILENT):
        found += [
            ("x all reading", lambda who: cells.beside("cpu", who, all_reading(who))),
            times("p50"),
            times("p99"),
            ("x all reading", lambda who: cells.beside("p99", who, all_reading(who))),
        ]
    elif name == CHURN_NAME:
        found += [times("p50"), times("p99"), ("came and went", lambda who: f"{cells.median('joined', who):,.0f}")]
    else:
        found += [ratio("cpu", peer) for peer in (BARE, PICOWS, SOCKETIFY)]
        found += [times("p50"), times("p99"), ratio("p99", PICOWS)]
    return [*found, ("load's core", lambda who: f"{cells.median('busy', who):.0%}")]


def table(name: str, cells: Cells) -> Table:
    """One scenario, the cheapest on top."""
    told = columns(name, cells)
    headings: Line = tuple(heading for heading, _ in told)
    firsts = {MEMORY: "bytes"} | {beside(row): "p99" for row in BESIDE} | {calls_in(row): "sends" for row in COUNTED}
    first = firsts.get(name, "cpu")
    return Table(name, headings, cells.lines(first, *(cell for _, cell in told)))


def tables(results: Results, found: Samples) -> list[Table]:
    """Every scenario that was measured."""
    return [
        table(name, Cells(name, found, list(results.readings[name]))) for name in NAMES if results.readings.get(name)
    ]


def facts(effort: BroadcastEffort, found: Samples) -> list[str]:
    """Return lines about the extent of the measurement."""
    return [
        f"{effort.rounds} rounds, {effort.seconds:g} s a row and contender after {effort.warmup:g} s of warm-up",
        f"{CHURN.members:,} members: {effort.long_rounds} rounds of {effort.crowd_seconds:g} s",
        f"Echoes beside: {effort.long_rounds} rounds of {effort.echo_seconds:g} s",
        f"{effort.broadcasts:,} broadcasts while {COMING} others come and go, or for what is in memory",
    ]
