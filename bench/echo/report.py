"""The tables of the scenarios."""

from __future__ import annotations

from ..codec.measure import Samples
from ..harness.document import Cells, Line, Table, micro
from ..harness.rounds import CALLS, Results
from ..instructions import beside
from .bars import SENDS_A_READ
from .contenders import PICOWS, RAW
from .measure import EchoEffort, possible_idle
from .scenarios import CONNECTS, IDLE, MOSTLY_IDLE, NAMES, ROWS, TLS


def table(name: str, cells: Cells) -> Table:
    """One scenario; ratios are to what runs on uvloop."""
    headings: Line
    if name == IDLE:
        headings = ("KiB a connection", "x picows")
        return Table(
            name,
            headings,
            cells.lines(
                "bytes",
                lambda who: f"{cells.median('bytes', who) / 1024:.1f}",
                lambda who: cells.beside("bytes", who, PICOWS),
            ),
        )
    if name in (CONNECTS, *(row.name for row in (*ROWS, *TLS, MOSTLY_IDLE))):
        unit = "connects" if name == CONNECTS else "messages"
        counted = beside.column(cells)
        headings = (
            *(f"{unit}/s", "CPU µs each", "x raw TCP", "x picows"),
            *(heading for heading, _ in counted),
            *("p50 µs", "p99 µs", "x picows", "load's core"),
        )
        return Table(
            name,
            headings,
            cells.lines(
                "cpu",
                lambda who: f"{1 / cells.median('seconds', who):,.0f}",
                lambda who: micro(cells.median("cpu", who)),
                lambda who: cells.beside("cpu", who, RAW),
                lambda who: cells.beside("cpu", who, PICOWS),
                *(cell for _, cell in counted),
                lambda who: micro(cells.median("p50", who)),
                lambda who: micro(cells.median("p99", who)),
                lambda who: cells.beside("p99", who, PICOWS),
                lambda who: f"{cells.median('busy', who):.0%}",
            ),
        )
    headings = (*(f"{what} a message" for what in CALLS), SENDS_A_READ)
    return Table(
        name,
        headings,
        cells.lines(
            "sends", *(lambda who, what=what: f"{cells.median(what, who):.3f}" for what in (*CALLS, SENDS_A_READ))
        ),
    )


def tables(results: Results, found: Samples) -> list[Table]:
    """Every scenario that was measured."""
    return [
        table(name, Cells(name, found, list(results.readings[name]))) for name in NAMES if results.readings.get(name)
    ]


def facts(effort: EchoEffort, found: Samples) -> list[str]:
    """Return a line about the extent of the measurement."""
    idle, possible = effort.mostly_idle, possible_idle(effort.mostly_idle)
    lowered = "" if possible == idle else f"; not {idle:,}, for RLIMIT_NOFILE allows no more"
    return [
        f"{effort.rounds} rounds, {effort.seconds:g} s a row and contender after {effort.warmup:g} s of warm-up",
        f"{effort.idle_rounds} rounds of {effort.idle_connections:,} idle connections",
        f"{effort.idle_rounds} rounds of {MOSTLY_IDLE.connections} busy connections beside {possible:,} idle{lowered}",
    ]
