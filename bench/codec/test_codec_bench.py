"""The contests as pytest-benchmark cases: each contender by itself, with pytest-benchmark's figures and storage.

    python -m pytest bench/codec --benchmark-enable --benchmark-max-time=0.1

Without ``--benchmark-enable`` each runs once: that the contenders do their job, and that the bars name what there is.
``python -m bench.codec`` measures the same in rounds, which is what ratios should be read from.
"""

from __future__ import annotations

from typing import Any

import pytest

from .bars import BARS
from .contest import Contender, Contest
from .measure import rounds_of
from .ours import on_tier
from .suite import JOBS
from .verdicts import judge

CONTESTS = {contest.name: contest for contest in (job() for job in JOBS)}
PAIRS = [
    pytest.param(contest, contender, id=f"{name}: {who}")
    for name, contest in CONTESTS.items()
    for who, contender in contest.contenders.items()
]


@pytest.mark.parametrize(("contest", "contender"), PAIRS)
def test_contender(benchmark: Any, contest: Contest, contender: Contender) -> None:
    benchmark.group = contest.name
    call = contender.call
    with on_tier(contest.tier):
        assert contender.right(benchmark(call.func, *call.args, **call.keywords))


def test_every_bar_is_about_a_contest_that_exists() -> None:
    assert {bar.contest for bar in BARS} <= CONTESTS.keys()


def test_what_is_measured_gets_a_verdict() -> None:
    contest = CONTESTS["mask, copy, 16 B"]
    verdicts = judge({contest.name: rounds_of(contest, rounds=2, batch=1e-5)})
    assert {verdict.bar.contest for verdict in verdicts} == {contest.name}
    assert all(verdict.measured is None or verdict.measured > 0 for verdict in verdicts)
