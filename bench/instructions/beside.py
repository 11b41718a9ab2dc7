"""Instructions a message beside the CPU a message: one column more in the tables of servers."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from ..harness.contender import Contender
from ..harness.document import Cells
from ..harness.rounds import Results
from ..harness.running import Failed, Load
from .counting import Counted, missing
from .rows import Driven

#: The name of the figure.
WHAT = "instructions"
HEADING = "instructions each"


@dataclass(frozen=True)
class Group:
    """Scenarios that one server process can be counted in, one after the other."""

    rows: Mapping[str, Driven]
    environment: Mapping[str, str] = field(default_factory=dict)
    tls: bool = False


def counted(results: Results, group: Group, contender: Contender, load: Load) -> tuple[dict[str, float], list[str]]:
    """Return the instructions of one contender by scenario, and what failed."""
    found: dict[str, float] = {}
    scenarios = [name for name in group.rows if contender.name in results.readings.get(name, {})]
    scenarios = [name for name in scenarios if results.takes_part(name, contender) and results.counts(name, contender)]
    if not scenarios:
        return found, []
    try:
        server = Counted(
            contender.servers, contender.kind, contender.loop or "-", load=load.path, environment=group.environment
        )
        with server:
            for name in scenarios:
                found[name] = server.instructions(group.rows[name], raw=contender.raw, tls=group.tls)
    except Failed as exc:
        return found, [f"instructions of {contender.name}: {exc}"]
    return found, []


def count(
    results: Results,
    groups: Sequence[Group],
    contenders: Sequence[Contender],
    load: Load,
    progress: Callable[[str], None],
) -> None:
    """Put the instructions into the readings of all contenders that are counted; say so where that is impossible."""
    lack = missing()
    if lack is not None:
        results.notes.append(f"instructions a message: {lack}")
        return
    progress("instructions")
    jobs = [(group, contender) for group in groups for contender in contenders if contender.counted]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for (_, contender), (found, notes) in zip(
            jobs, pool.map(lambda job: counted(results, *job, load), jobs), strict=True
        ):
            results.notes += notes
            for scenario, instructions in found.items():
                for reading in results.readings[scenario][contender.name]:
                    reading[WHAT] = instructions


def column(cells: Cells) -> list[tuple[str, Callable[[str], str]]]:
    """The column, if somebody was counted."""
    return [(HEADING, cells.instructions)] if cells.has(WHAT) else []
