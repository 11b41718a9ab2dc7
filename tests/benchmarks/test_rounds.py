"""A run in which the server had no processor time, or in which others had its core, is repeated."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from bench.echo.contenders import CALLBACK, CONTENDERS, PICOWS
from bench.harness.rounds import MOST_TRIES, Effort, Reading, Results, least_disturbed
from bench.harness.running import Failed


def runs(*readings: tuple[float, float]) -> Callable[[], Reading]:
    """Runs that give these, ``cpu`` and ``held``, one after the other."""
    left = iter(readings)

    def run() -> Reading:
        cpu, held = next(left)
        return {"cpu": cpu, "held": held}

    return run


def effort(tries: int) -> Effort:
    return Effort(rounds=1, warmup=0, seconds=0, tries=tries)


@pytest.mark.parametrize(
    ("readings", "tries", "chosen"),
    [
        ([(1, 0.05)], 3, 1),  # undisturbed: no other
        ([(1, 0.5), (2, 0.3), (3, 0.4)], 3, 2),
        ([(1, 0.5)], 1, 1),
        ([(0, 0.0), (2, 0.9)], 1, 2),  # no processor time: does not count as a try
    ],
)
def test_least_disturbed_run_with_processor_time_counts(
    readings: list[tuple[float, float]], tries: int, chosen: float
) -> None:
    assert least_disturbed(runs(*readings), effort(tries))["cpu"] == chosen


def test_server_without_processor_time_is_a_failure() -> None:
    with pytest.raises(Failed, match="no processor time"):
        least_disturbed(runs(*[(0, 0)] * MOST_TRIES), effort(1))


def test_only_wanted_contenders_take_part() -> None:
    results = Results(wanted={"one": {CALLBACK}, "two": {PICOWS}})
    assert [one.name for one in results.taking_part(["one"], CONTENDERS)] == [CALLBACK]
    assert {one.name for one in results.taking_part(["one", "two"], CONTENDERS)} == {CALLBACK, PICOWS}
    assert results.taking_part(["three"], CONTENDERS) == []
    assert len(Results().taking_part(["three"], CONTENDERS)) == len(CONTENDERS)


def test_only_wanted_instructions_are_counted() -> None:
    callback = next(one for one in CONTENDERS if one.name == CALLBACK)
    assert Results().counts("one", callback)
    assert Results(counted={"one": {CALLBACK}}).counts("one", callback)
    assert not Results(counted={"one": {PICOWS}}).counts("one", callback)
