"""The tables of the scenarios."""

from __future__ import annotations

import zlib

from ..codec.measure import Samples
from ..harness.document import Cells, Line, Table, micro
from ..harness.rounds import Results
from .bars import BEST, RIVALS, best_peer
from .contenders import CONTENDERS, PLAIN
from .measure import DeflateEffort
from .messages import COUNT, LEVEL, MEM_LEVEL, SIZE, WINDOW_BITS
from .scenarios import ECHOES, IDLE, NAMES


def _differs(who: str) -> str:
    return next(contender.differs for contender in CONTENDERS if contender.name == who)


def table(name: str, cells: Cells) -> Table:
    """One scenario, the cheapest on top."""
    headings: Line
    if name == IDLE:
        headings = ("KiB a connection", f"x {PLAIN.removesuffix(', uvloop')}", "but")
        return Table(
            name,
            headings,
            cells.lines(
                "bytes",
                lambda who: f"{cells.median('bytes', who) / 1024:.1f}",
                lambda who: cells.beside("bytes", who, PLAIN),
                _differs,
            ),
        )
    unit = "messages" if name in (row.name for row in ECHOES) else "deliveries"
    headings = (f"{unit}/s", "CPU µs each", "x best peer", "p50 µs", "p99 µs", "bytes", "load's core", "but")
    return Table(
        name,
        headings,
        cells.lines(
            "cpu",
            lambda who: f"{1 / cells.median('seconds', who):,.0f}",
            lambda who: micro(cells.median("cpu", who)),
            lambda who: cells.beside("cpu", who, BEST),
            lambda who: micro(cells.median("p50", who)),
            lambda who: micro(cells.median("p99", who)),
            lambda who: f"{cells.median('answer', who):.0f}",
            lambda who: f"{cells.median('busy', who):.0%}",
            _differs,
        ),
    )


def tables(results: Results, found: Samples) -> list[Table]:
    """Every scenario that was measured."""
    return [
        table(name, Cells(name, found, list(results.readings[name]))) for name in NAMES if results.readings.get(name)
    ]


def facts(effort: DeflateEffort, found: Samples) -> list[str]:
    """Return a line about the extent of the measurement, the parameters, and the best peers."""
    best = [(scenario, best_peer(found, scenario)) for scenario in RIVALS]
    equal = f"level {LEVEL}, memory level {MEM_LEVEL}, {WINDOW_BITS} window bits, no context takeover"
    return [
        f"zlib {zlib.ZLIB_RUNTIME_VERSION}; parameters are equal where no table says “but”: {equal}",
        f"{COUNT:,} different messages of {SIZE:,} B of JSON; every answer was inflated and compared",
        f"{effort.seconds:g} s a row and contender after {effort.warmup:g} s of warm-up",
        f"{effort.rounds} rounds of echoes, {effort.broadcast_rounds} of broadcasts",
        f"{effort.idle_rounds} rounds of {effort.idle_connections:,} idle connections",
        *(f"The best Python peer, {scenario}: {name}" for scenario, name in best if name is not None),
    ]
