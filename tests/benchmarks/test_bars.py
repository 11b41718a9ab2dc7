"""bench.bars measures what its bars compare, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from bench import bars
from bench.broadcast.bars import POLICIES
from bench.broadcast.contenders import BARE, PICOWS, PLUMEWS, SOCKETIFY
from bench.broadcast.scenarios import ONE, SILENT, SIXTEEN
from bench.codec.verdicts import Verdict
from bench.echo.contenders import ASYNC_FOR, CALLBACK
from bench.echo.scenarios import ALONE, CONNECTS, HUGE
from bench.harness.rounds import Results

ECHO, BROADCAST = bars.SUITES


def test_every_bar_compares_what_takes_part() -> None:
    for suite in bars.SUITES:
        wanted, _ = bars.needed(suite, suite.bars)
        for bar in suite.bars:
            assert wanted[bar.area], bar
        by_name = {contender.name: contender for contender in suite.contenders}
        for scenario, names in wanted.items():
            for name in names:
                takes = getattr(by_name[name], "takes", lambda scenario: True)
                assert takes(scenario), (name, scenario)


def test_only_the_contenders_of_a_bar_are_measured() -> None:
    wanted, counted = bars.needed(ECHO, [bar for bar in ECHO.bars if bar.area == HUGE.name])
    assert wanted == {
        HUGE.name: {CALLBACK, ASYNC_FOR, "picows, uvloop", "plumews callback, asyncio", "picows, asyncio"}
    }
    assert counted == {}
    wanted, _ = bars.needed(BROADCAST, [bar for bar in BROADCAST.bars if bar.area in (ONE.name, SIXTEEN.name)])
    assert {PLUMEWS, PICOWS, BARE} <= wanted[ONE.name]
    assert SOCKETIFY in wanted[SIXTEEN.name]


def test_only_the_instructions_of_a_bar_are_counted() -> None:
    _, counted = bars.needed(ECHO, ECHO.bars)
    assert counted == {ALONE.name: {CALLBACK, ASYNC_FOR}, CONNECTS: {CALLBACK}}
    assert bars.needed(BROADCAST, BROADCAST.bars)[1] == {ONE.name: {PLUMEWS}}


def test_bar_of_silent_members_needs_the_run_without_them() -> None:
    row = SILENT[0]
    wanted, _ = bars.needed(BROADCAST, [bar for bar in BROADCAST.bars if bar.area == row.name])
    assert wanted[row.without.name] == wanted[row.name]
    assert len(wanted[row.name]) == 2 * len(POLICIES)


def test_unmeasured_bar_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def measure(*words: Any) -> Results:
        return Results(notes=["nobody is there"])

    monkeypatch.setattr(bars, "SUITES", [bars.replace(ECHO, measure=measure)])
    with pytest.raises(SystemExit) as end:
        bars.main(["--only", "1 MiB", "--rounds", "1"])
    assert end.value.code == 1
    output = capsys.readouterr().out
    assert output.count("not measured") == 3
    assert "nobody is there" in output


def test_unknown_bar_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="no bar has 'nothing' in its row"):
        bars.main(["--only", "nothing"])


def test_line_of_a_bar_says_by_how_much_it_is_missed() -> None:
    bar = next(bar for bar in ECHO.bars if bar.area == ALONE.name)
    assert bars.line(Verdict(bar, [1.0, 1.9, 3.0]))[-1] == "missed by 100%"
    assert bars.line(Verdict(bar, [0.1, 0.5, 0.9]))[3:] == ("0.500x", "0.100 to 0.900", "met")


def test_pure_body_is_not_measured_without_a_checkout() -> None:
    ((row, *_, words),) = bars.pure_lines(None, "")
    assert (row, words) == ("the pure body", "not measured: --before CHECKOUT")
