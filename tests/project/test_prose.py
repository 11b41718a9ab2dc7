"""Rules for the words of the package: first lines of docstrings, and terms that only its authors would know."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import plumews

SOURCES = Path(plumews.__file__).parent
TESTS = Path(__file__).parents[1]

#: A relative clause in place of a name: the first line of a docstring says what a thing is, or what it does.
RELATIVE = re.compile(r"(What|Whatever|Who|Whom|Whose|Whoever|Those|Nobody|Somebody|Until|Whether|Where|How)\b")

#: The package for Go that plumews was measured against is named in docs/migrating alone; layers are rows of a test.
INSIDER = re.compile(r"\b[Tt]he seed\b|\bseed's\b|\(layer \d")

#: The longest name of a test, in characters.
LONGEST_NAME = 60


def files(folder: Path, *suffixes: str) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix in suffixes and "node_modules" not in path.parts)


def docstrings(path: Path) -> Iterator[tuple[int, str]]:
    """Each docstring of a file with its line."""
    source = path.read_text(encoding="utf-8")
    if path.suffix in (".pyx", ".pxd", ".pxi"):
        for found in re.finditer(r'^[ \t]*"""(.+?)"""', source, re.MULTILINE | re.DOTALL):
            yield source.count("\n", 0, found.start()) + 1, found[1]
        return
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            docstring = ast.get_docstring(node)
            if docstring:
                yield getattr(node, "lineno", 1), docstring


def names_of_tests(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test_"):
            yield node.lineno, node.name


@pytest.mark.parametrize("folder", [SOURCES, TESTS], ids=["src", "tests"])
def test_no_docstring_begins_with_a_relative_clause(folder: Path) -> None:
    found = [
        f"{path.relative_to(folder)}:{line}: {docstring.splitlines()[0]}"
        for path in files(folder, ".py", ".pyi", ".pyx", ".pxd", ".pxi")
        for line, docstring in docstrings(path)
        if RELATIVE.match(docstring)
    ]
    assert found == []


def test_no_attribute_comment_begins_with_a_relative_clause() -> None:
    found = [
        f"{path.relative_to(SOURCES)}:{number}: {line.strip()}"
        for path in files(SOURCES, ".py", ".pyx", ".pxd")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if (comment := line.strip()).startswith("#: ") and RELATIVE.match(comment[3:])
    ]
    assert found == []


def test_the_sources_need_no_inside_knowledge() -> None:
    found = [
        f"{path.relative_to(SOURCES)}:{number}: {line.strip()}"
        for path in files(SOURCES, ".py", ".pyi", ".pyx", ".pxd", ".pxi")
        + files(SOURCES / "protocol" / "csrc", ".c", ".h")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if INSIDER.search(line)
    ]
    assert found == []


def test_names_of_tests_are_short() -> None:
    found = [
        f"{path.relative_to(TESTS)}:{line}: {len(name)} characters: {name}"
        for path in files(TESTS, ".py")
        for line, name in names_of_tests(path)
        if len(name) > LONGEST_NAME
    ]
    assert found == []


def test_docstrings_are_found_wherever_they_stand(tmp_path: Path) -> None:
    python, cython = tmp_path / "one.py", tmp_path / "two.pyx"
    python.write_text('"""Module."""\nclass A:\n    """Class."""\n    async def f(self):\n        """Method."""\n')
    cython.write_text('"""Module."""\ncdef class A:\n    """Class."""\n    cdef int f(self):\n        """Method."""\n')
    expected = [(1, "Module."), (3, "Class."), (5, "Method.")]
    assert [text for _, text in docstrings(python)] == [text for _, text in expected]
    assert list(docstrings(cython)) == expected
