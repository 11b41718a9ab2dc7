"""Each contender of bench.client gets its echoes; its bars can be met and missed."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from bench.client import measure as measuring
from bench.client.bars import BARS, NUMBERS, samples
from bench.client.contenders import CALLBACK, CONTENDERS
from bench.client.measure import ClientEffort, Connects, Echoes, driven, measure, running, uri_of
from bench.client.report import tables
from bench.client.scenarios import BESIDE_UWS, BLOCKING, CONNECTS, CROWDS, NAMES, OWN, PIPELINED, ROWS, SMALL, TLS, UWS
from bench.codec.verdicts import judge
from bench.harness.document import Cells
from bench.harness.rounds import Results
from bench.harness.running import Load, Server
from bench.harness.tools import CannotBuild, available, build_uws

pytestmark = pytest.mark.skipif(not available(), reason="needs Linux and a C compiler")

SHORT = ClientEffort(rounds=1, warmup=0.001, seconds=0.002, tries=1, counts=False)


@pytest.fixture
def uws(tmp_path: Path) -> None:
    try:
        build_uws(tmp_path)
    except CannotBuild as exc:
        pytest.skip(str(exc))


@pytest.mark.usefixtures("uws")
def test_every_client_gets_its_echoes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "CROWD", 30)
    names = {SMALL.name, PIPELINED.name, TLS.name, BLOCKING.name, CONNECTS}
    contenders = [one for one in CONTENDERS if one.installed and one.loop != "asyncio"]
    results = measure(contenders, names, SHORT, lambda text: None)
    assert results.notes == ["instructions are not counted in a quick look"]
    assert results.failed == set()
    for name in names:
        assert set(results.readings[name]) == {one.name for one in contenders if one.takes(name)}
    assert all(len(line) == len(one.headings) + 1 for one in tables(results, samples(results)) for line in one.lines)


def test_failure_is_told_and_leaves_others_measured() -> None:
    callback = next(one for one in CONTENDERS if one.name == CALLBACK)
    results, load = Results(), Load(Path())
    with Server(callback, load) as client, contextlib.suppress(measuring.Failed):
        client.wait_ready()
        with results.taking(SMALL.name, callback), measuring.named(client), measuring.control(client.port) as call:
            call("open", "ws://127.0.0.1:1/")
    assert results.failed == {(SMALL.name, CALLBACK)}
    assert "plumews callback, uvloop: open: ConnectError" in results.notes[0]


def test_client_under_callgrind_is_driven_again_and_again() -> None:
    callback = next(one for one in CONTENDERS if one.name == CALLBACK)
    results, load = Results(), Load(Path())
    row = next(row for row in ROWS if row.server == OWN and row.size == SMALL.size)
    with running(results, load, {row.name}) as servers, Server(callback, load) as client:
        client.wait_ready()
        uri = uri_of(servers, OWN, tls=False)
        for one in (Echoes(3, uri=uri, row=row), Connects(3, uri=uri), Echoes(3, uri=uri, row=row)):
            with contextlib.ExitStack() as stack:
                cpu, seconds = one.connect(stack, client.port)(3)
                assert cpu > 0
                assert seconds > 0


def test_instructions_are_counted_beside_uwebsockets_alone() -> None:
    class Port:
        port = 1

    servers = {(name, tls): Port() for name in (UWS, OWN) for tls in (False, True)}
    assert set(driven(servers, set(NAMES))) == {*(row.name for row in BESIDE_UWS), *CROWDS}  # type: ignore[arg-type]


def measured(scale: float) -> Results:
    """Readings of everybody in every scenario: peers cost 1, ours ``scale``."""
    results = Results()
    for name in NAMES:
        for contender in CONTENDERS:
            if contender.takes(name):
                cost = scale if contender.ours else 1.0
                reading = dict.fromkeys(("cpu", "seconds", "p50", "p99"), cost) | {"held": 0.0}
                reading |= {"bytes": cost * NUMBERS["55 KiB"]} if name in CROWDS else {}
                reading |= {"instructions": 4000.0} if contender.counted else {}
                results.readings.setdefault(name, {})[contender.name] = [reading] * 3
    return results


def test_goals_are_met_by_good_figures_and_none_by_bad_ones() -> None:
    good = judge(samples(measured(0.1)), BARS)
    assert len(good) == len(BARS) == 28
    assert [verdict.bar.text for verdict in good if not verdict.met] == []
    assert [verdict.bar.text for verdict in judge(samples(measured(2)), BARS) if verdict.met] == []


def test_every_scenario_has_a_table_of_all_contenders() -> None:
    results = measured(1)
    found = tables(results, samples(results))
    assert [table.name for table in found] == list(NAMES)
    for table in found:
        assert {line[0] for line in table.lines} == set(results.readings[table.name])
    cells = Cells(SMALL.name, samples(results), list(results.readings[SMALL.name]))
    assert cells.instructions(CALLBACK) == "4,000"
