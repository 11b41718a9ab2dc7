"""Measurement of each scenario, by the echo and the broadcast benchmark."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ..broadcast import measure as broadcast
from ..echo import measure as echo
from ..harness.rounds import Results
from .contenders import ECHO_ROWS, ROOM_ROWS, Contender


@dataclass(frozen=True)
class AsgiEffort:
    """Extent of both measurements."""

    echo: echo.EchoEffort
    room: broadcast.BroadcastEffort


#: A disturbed run is not repeated, so that the time is bounded: uvicorn's classes take long to open connections.
FULL = AsgiEffort(
    replace(echo.FULL, warmup=0.1, seconds=0.3, rounds=5, tries=1, idle_rounds=1, idle_connections=2000),
    replace(broadcast.FULL, seconds=0.3, rounds=5, tries=1),
)
QUICK = AsgiEffort(echo.QUICK, broadcast.QUICK)


def measure(
    contenders: Sequence[Contender], names: set[str], effort: AsgiEffort, progress: Callable[[str], None]
) -> Results:
    """All scenarios in ``names``."""
    wanted = {name: {contender.name for contender in contenders if contender.takes(name)} for name in names}
    results = Results()
    for measuring, rows, extent in ((echo, ECHO_ROWS, effort.echo), (broadcast, ROOM_ROWS, effort.room)):
        if names & set(rows):
            found = measuring.measure(contenders, names & set(rows), extent, progress, wanted)
            results.readings |= found.readings
            results.failed |= found.failed
            results.notes += [note for note in found.notes if note not in results.notes]
    return results
