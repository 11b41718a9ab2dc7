"""The tables of the scenarios."""

from __future__ import annotations

from ..codec import environment
from ..codec.measure import Samples
from ..harness.document import Cells, Table, micro
from ..harness.rounds import Results
from ..instructions import beside
from .contenders import PICOWS, WEBSOCKETS, WEBSOCKETS_SYNC
from .measure import ClientEffort
from .scenarios import BLOCKING, CROWD, CROWDS, NAMES


def table(name: str, cells: Cells) -> Table:
    """One scenario, the cheapest on top."""
    peers = (
        {"x websockets": WEBSOCKETS_SYNC} if BLOCKING.name in name else {"x picows": PICOWS, "x websockets": WEBSOCKETS}
    )
    crowd = name in CROWDS
    columns = [
        (f"{'connects' if crowd else 'messages'}/s", lambda who: f"{1 / cells.median('seconds', who):,.0f}"),
        ("CPU µs each", lambda who: micro(cells.median("cpu", who))),
        *((heading, lambda who, peer=peer: cells.beside("cpu", who, peer)) for heading, peer in peers.items()),
        *beside.column(cells),
    ]
    if crowd:
        columns.append(("KiB an idle one", lambda who: f"{cells.median('bytes', who) / 1024:.1f}"))
    else:
        columns += [(f"{what} µs", lambda who, what=what: micro(cells.median(what, who))) for what in ("p50", "p99")]
    headings = tuple(heading for heading, _ in columns)
    return Table(name, headings, cells.lines("cpu", *(cell for _, cell in columns)))


def tables(results: Results, found: Samples) -> list[Table]:
    """Every scenario that was measured."""
    return [
        table(name, Cells(name, found, list(results.readings[name]))) for name in NAMES if results.readings.get(name)
    ]


def facts(effort: ClientEffort, found: Samples) -> list[str]:
    """Return lines about the extent of the measurement."""
    return [
        f"Also {environment.version('websocket-client')}",
        f"{effort.rounds} rounds, {effort.seconds:g} s a row and contender after {2 * effort.warmup:g} s of warm-up",
        f"{effort.rounds} rounds of {CROWD:,} clients in one process",
    ]
