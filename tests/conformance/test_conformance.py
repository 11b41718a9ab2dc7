"""The conformance runner's judgement: it passes what conforms, and nothing else. The suite itself is not run here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conformance import run

ROOT = Path(__file__).parents[2]
OK = {"behavior": "OK", "behaviorClose": "OK"}


@pytest.mark.parametrize(
    ("behavior", "close", "verdict"),
    [
        ("OK", "OK", "OK"),
        ("OK", "INFORMATIONAL", "INFORMATIONAL"),
        ("INFORMATIONAL", "INFORMATIONAL", "INFORMATIONAL"),
        ("NON-STRICT", "OK", "NON-STRICT"),
        ("NON-STRICT", "INFORMATIONAL", "NON-STRICT"),
        ("OK", "NON-STRICT", "NON-STRICT"),
        ("FAILED", "OK", "FAILED"),
        ("OK", "FAILED", "FAILED"),
        ("OK", "UNCLEAN", "FAILED"),
        ("NON-STRICT", "WRONG CODE", "FAILED"),
        ("UNIMPLEMENTED", "OK", "FAILED"),
        ("some new word", "OK", "FAILED"),
    ],
)
def test_the_worse_of_both_words_counts(behavior: str, close: str, verdict: str) -> None:
    entry = {"behavior": behavior, "behaviorClose": close}
    assert run.verdict(entry) == verdict
    counts, faults = run.judge({"1.1.1": entry}, {"1": 1})
    assert counts == {verdict: 1}
    assert bool(faults) == (verdict not in ("OK", "INFORMATIONAL"))


def test_an_entry_without_a_verdict_failed() -> None:
    assert run.verdict({}) == "FAILED"
    assert run.verdict({"behavior": "OK"}) == "FAILED"


def test_a_case_that_was_not_run_is_missed() -> None:
    counts, faults = run.judge({"1.1.1": OK, "10.1.1": OK}, {"1": 2, "2": 3, "10": 1})
    assert counts == {"OK": 2, "MISSING": 4}
    assert faults == ["section 1: 1 cases, not 2", "section 2: 0 cases, not 3"]


def test_a_case_that_nobody_expected_is_a_fault() -> None:
    counts, faults = run.judge({"1.1.1": OK, "12.1.1": OK}, {"1": 1})
    assert counts == {"OK": 2}
    assert faults == ["section 12: 1 cases, not 0"]


def test_the_table_has_a_row_for_each_run() -> None:
    outcome = run.Outcome(run.QUICK[0])
    outcome.counts, _ = run.judge({"1.1.1": OK}, {"1": 3})
    head, rule, row = run.table([outcome]).splitlines()
    assert len(head) == len(rule) == len(row)
    cells = dict(zip(head.split(), row.split(), strict=False))
    assert (cells["codec"], cells["OK"], cells["MISSING"], cells["cases"]) == ("compiled", "1", "2", "1")


def test_a_quick_run_has_each_body_uvicorn_and_the_client() -> None:
    assert [each.body for each in run.QUICK if each.reading not in ("asgi", "client")] == run.BODIES
    assert "asgi" in [each.reading for each in run.QUICK]
    assert {(each.body, each.loop) for each in run.QUICK if each.reading == "client"} == {
        ("compiled", "uvloop"),
        ("pure", "asyncio"),
    }


@pytest.mark.skipif(os.name == "nt", reason="a script of bash")
def test_without_a_python_2_7_it_says_so_and_is_content(tmp_path: Path) -> None:
    script = ROOT / "scripts" / "conformance"
    for tool in ("bash", "dirname"):
        (tmp_path / tool).symlink_to(shutil.which(tool) or tool)
    bare = {"PATH": str(tmp_path), "HOME": str(tmp_path), "PLUMEWS_AUTOBAHN": str(tmp_path / "new")}
    done = subprocess.run(["bash", script], env=bare, capture_output=True, text=True, check=True)
    assert "not run" in done.stdout
    assert "Python 2.7" in done.stdout
    assert done.stderr == ""
    # One that is named has to be one.
    named = {**bare, "PYTHON27": sys.executable}
    done = subprocess.run(["bash", script], env=named, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no Python 2.7" in done.stderr
    assert not (tmp_path / "new").exists()
