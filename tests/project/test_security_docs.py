"""The threat model in docs/security.md names tests that exist, and each row names one."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "security.md").read_text(encoding="utf-8")
NAMED = re.compile(r"`([\w/]*test_\w+\.py)::(\w+)`")


def rows():
    """The rows of the tables on the page, each as its cells; without the headings."""
    for line in PAGE.split("\n"):
        if line.startswith("|") and not re.match(r"\|( #|[-| ]+\|$)", line):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def functions(name):
    """The names of the functions on the top level of the test file ``name``."""
    tree = ast.parse((TESTS / name).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}


def test_every_test_that_is_named_exists():
    named = NAMED.findall(PAGE)
    known = {file: functions(file) for file in {file for file, _ in named} if (TESTS / file).exists()}
    assert named
    assert [f"{file}::{name}" for file, name in named if name not in known.get(file, ())] == []


def test_every_row_has_a_number_a_threat_what_is_done_and_a_test():
    found = list(rows())
    assert len(found) >= 35
    for row in found:
        number, threat, done, shown = row
        assert number.isdecimal(), row
        assert threat, row
        assert done, row
        # Nothing but names of tests: what is misspelled would not be looked for.
        assert re.fullmatch(rf"{NAMED.pattern}(, {NAMED.pattern})*", shown), row
