"""``python -m bench.door``: measure what a crowd at the door costs, print tables and bars, write the results.

Each scenario is a module of its own, with its contenders and bars; here they are put together.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from ..codec.measure import Samples
from ..harness.command import Benchmark, run
from ..harness.contender import Contender
from ..harness.document import Cells, Table, add_numbers, samples_of
from ..harness.rounds import Results
from ..harness.running import Load
from ..harness.tools import build_load
from ..instructions import beside
from . import connects, half_open, reconnect_storm
from .scenario import DoorEffort

SCENARIOS = (half_open.SCENARIO, reconnect_storm.SCENARIO, *connects.SCENARIOS)
#: Longer than a handshake may take, so that all strangers are told off and come again while it is measured.
FULL = DoorEffort(rounds=3, warmup=1.0, seconds=12.0, tries=2, crowd=1.0, counts=True)
QUICK = DoorEffort(rounds=1, warmup=0.2, seconds=2.0, tries=1, crowd=0.2, counts=False)


def measure(
    contenders: Sequence[Contender], names: set[str], effort: DoorEffort, progress: Callable[[str], None]
) -> Results:
    """The scenarios in ``names``, round by round."""
    results = Results()
    with tempfile.TemporaryDirectory() as directory:
        load = Load(build_load(Path(directory)))
        for scenario in SCENARIOS:
            taking_part = [contender for contender in scenario.contenders if contender in contenders]
            for number in range(effort.rounds if scenario.name in names else 0):
                progress(f"{scenario.name}, round {number + 1} of {effort.rounds}")
                scenario.one_round(results, load, taking_part, effort)
            if scenario.counted and scenario.name in names:
                if effort.counts:
                    beside.count(results, scenario.counted, taking_part, load, progress)
                else:
                    results.notes.append(f"{scenario.name}: instructions are not counted in a quick look")
    return results


def samples(results: Results) -> Samples:
    """The readings as contests, with the numbers that bars name."""
    found = samples_of(results)
    add_numbers(found, {name: number for scenario in SCENARIOS for name, number in scenario.numbers.items()})
    return found


def tables(results: Results, found: Samples) -> list[Table]:
    """Every scenario that was measured."""
    return [
        scenario.table(Cells(scenario.name, found, list(results.readings[scenario.name])))
        for scenario in SCENARIOS
        if results.readings.get(scenario.name)
    ]


if __name__ == "__main__":
    run(
        Benchmark(
            name="door",
            title="A crowd at the door",
            scenarios=[scenario.name for scenario in SCENARIOS],
            contenders=list(dict.fromkeys(one for scenario in SCENARIOS for one in scenario.contenders)),
            full=FULL,
            quick=QUICK,
            measure=measure,
            samples=samples,
            bars=[bar for scenario in SCENARIOS for bar in scenario.bars],
            tables=tables,
            facts=lambda effort, found: [line for scenario in SCENARIOS for line in scenario.facts(effort)],
        )
    )
