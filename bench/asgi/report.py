"""The tables of the scenarios."""

from __future__ import annotations

from ..codec import environment
from ..codec.measure import Samples
from ..harness.document import Cells, Table, micro
from ..harness.rounds import Results
from ..instructions import beside
from .bars import BEST, cost
from .contenders import LOOP, SERVER, SERVER_ROOM
from .measure import AsgiEffort
from .scenarios import CONNECTS, IDLE, NAMES, ROOM


def table(name: str, cells: Cells) -> Table:
    """One scenario, the cheapest on top."""
    what = cost(name)
    peers = (
        {"x loop": LOOP, "x server": SERVER_ROOM} if name == ROOM.name else {"x best class": BEST, "x server": SERVER}
    )
    ratios = [(heading, lambda who, peer=peer: cells.beside(what, who, peer)) for heading, peer in peers.items()]
    if name == IDLE:
        columns = [("KiB a connection", lambda who: f"{cells.median('bytes', who) / 1024:.1f}"), *ratios]
    else:
        unit = {CONNECTS: "connects", ROOM.name: "deliveries"}.get(name, "messages")
        columns = [
            (f"{unit}/s", lambda who: f"{1 / cells.median('seconds', who):,.0f}"),
            ("CPU µs each", lambda who: micro(cells.median("cpu", who))),
            *ratios,
            *beside.column(cells),
            ("p50 µs", lambda who: micro(cells.median("p50", who))),
            ("p99 µs", lambda who: micro(cells.median("p99", who))),
            ("load's core", lambda who: f"{cells.median('busy', who):.0%}"),
        ]
    headings = tuple(heading for heading, _ in columns)
    return Table(name, headings, cells.lines(what, *(cell for _, cell in columns)))


def tables(results: Results, found: Samples) -> list[Table]:
    """Every scenario that was measured."""
    return [
        table(name, Cells(name, found, list(results.readings[name]))) for name in NAMES if results.readings.get(name)
    ]


def facts(effort: AsgiEffort, found: Samples) -> list[str]:
    """Return lines about the extent of the measurement."""
    echo, room = effort.echo, effort.room
    packages = ("uvicorn", "httptools", "fastapi", "starlette", "wsproto")
    return [
        f"ASGI: {', '.join(map(environment.version, packages))}",
        f"{echo.rounds} rounds, {echo.seconds:g} s a row and contender after {echo.warmup:g} s of warm-up",
        f"Of the room: {room.rounds} rounds, {room.seconds:g} s after {room.warmup:g} s",
        f"{echo.idle_rounds} rounds of {echo.idle_connections:,} idle connections",
    ]
