"""Each contender of bench.asgi answers rightly; its bars can be met and missed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from bench.asgi.bars import BARS, BEST, samples
from bench.asgi.contenders import BARE, CONTENDERS, ECHO_ROWS, OWN_CLASSES, ROOM_ROWS, Contender
from bench.asgi.report import tables
from bench.asgi.scenarios import CONNECTS, IDLE, LARGE, MANY_SMALL, NAMES, ROOM
from bench.broadcast.measure import broadcast
from bench.broadcast.scenarios import Row
from bench.codec.verdicts import judge
from bench.echo.measure import words_of
from bench.harness.document import figure
from bench.harness.rounds import Results
from bench.harness.running import Load, Server
from bench.harness.tools import available, build_load

pytestmark = pytest.mark.skipif(not available(), reason="needs Linux and a C compiler")


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """One loop is enough: it is the contenders that are tested."""
    return "asyncio", {"use_uvloop": False}


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    return Load(build_load(tmp_path_factory.mktemp("load")))


@contextlib.contextmanager
def started(contender: Contender, load: Load) -> Iterator[Server]:
    """Its server, in a process of its own."""
    if not contender.installed:
        pytest.skip(f"{contender.name} needs what is not installed")
    with Server(contender, load) as server:
        server.wait_ready()
        yield server
        assert "Traceback" not in server.errors()


def taking(row: str) -> pytest.MarkDecorator:
    """All contenders of a row."""
    contenders = [contender for contender in CONTENDERS if contender.takes(row)]
    return pytest.mark.parametrize("contender", contenders, ids=lambda contender: contender.kind)


@taking(CONNECTS)
def test_application_echoes_and_closes(contender: Contender, load: Load) -> None:
    times = {"warmup": 0.01, "seconds": 0.05}
    with started(contender, load) as server:
        for row in (MANY_SMALL, LARGE):
            assert load.run(server, "echo", **times, **words_of(row))["done"] > 0
        assert load.run(server, "connects", connections=2, **times)["done"] > 0


@taking(ROOM.name)
def test_room_delivers_to_all_members(contender: Contender, load: Load) -> None:
    with started(contender, load) as server:
        reading = broadcast(load, server, Row(64, 20, 16), warmup=0.01, seconds=0.05)
    assert reading["asked"] == 1


def measured(scale: float = 1.0) -> Results:
    """Readings of everybody in every scenario: peers cost 1, ours ``scale`` times what each bar allows, at most."""
    results = Results()
    for name in NAMES:
        for contender in CONTENDERS:
            if contender.takes(name):
                cost = 0.02 * (scale if contender.name in {bar.ours for bar in BARS} else 1) if contender.ours else 1.0
                reading = {"cpu": cost, "seconds": 1.0, "p50": 1.0, "p99": 1.0, "busy": 0.5, "held": 0.0}
                reading |= {"instructions": 4000.0} if contender.counted else {}
                readings = {"bytes": cost} if name == IDLE else reading
                results.readings.setdefault(name, {})[contender.name] = [readings] * 3
    return results


def test_goals_are_met_by_good_figures_and_none_by_bad_ones() -> None:
    good = judge(samples(measured()), BARS)
    assert len(good) == len(BARS) == 8
    assert [verdict.bar.text for verdict in good if not verdict.met] == []
    assert [verdict.bar.text for verdict in judge(samples(measured(50)), BARS) if verdict.met] == []


@pytest.mark.parametrize("scenario", ECHO_ROWS)
def test_best_class_is_the_cheapest_of_uvicorns_own(scenario: str) -> None:
    what = "bytes" if scenario == IDLE else "cpu"
    for name in OWN_CLASSES:
        results = measured()
        by_contender = results.readings[scenario]
        by_contender[name] = [reading | {what: 0.5} for reading in by_contender[name]]
        contest = samples(results)[figure(scenario, what)]
        assert contest[BEST] == contest[name]


def test_every_scenario_has_a_table_of_all_contenders() -> None:
    results = measured()
    found = tables(results, samples(results))
    assert [table.name for table in found] == list(NAMES)
    assert set(NAMES) == {*ECHO_ROWS, *ROOM_ROWS}
    for table in found:
        assert {line[0] for line in table.lines} == set(results.readings[table.name])
        assert all(len(line) == len(table.headings) + 1 for line in table.lines)
    place = found[0].headings.index("instructions each")
    assert {line[0]: line[1 + place] for line in found[0].lines}[BARE] == "4,000"
