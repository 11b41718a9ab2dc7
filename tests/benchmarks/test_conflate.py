"""A short dose of bench.conflate: the ages that it measures are those of the path, and bounds make them small."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from bench.conflate import bulk
from bench.conflate.measure import Scenario, measure
from bench.conflate.paths import NGINX

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and the figures of Linux")

KIB = 1024


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """One loop is enough: it is the benchmark that is tested."""
    return "asyncio", {"use_uvloop": False}


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
async def test_prices_are_fresh_only_with_a_bound() -> None:
    scenario = Scenario(True, 0.001, slow=True)
    without = await measure(scenario, {"unsent_bytes": None, "unanswered_bytes": None}, 1.3)
    bounded = await measure(scenario, {"unanswered_bytes": 16 * KIB}, 1.3)
    assert without.ended == bounded.ended == 0.0
    assert without.oldest > 0.7
    assert bounded.oldest < without.oldest * 0.7
    assert bounded.on_the_way < without.on_the_way * 0.7
    assert bounded.messages > 100


async def test_large_messages_all_arrive() -> None:
    for echo in (True, False):
        assert (await bulk.measure(70_000, 16 * KIB, 8, echo=echo, members=2)).rate > 0
