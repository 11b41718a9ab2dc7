"""`scripts/hot-yellow`: which lines count, and how the bounds fall. It looks at a small package made for the test."""

from __future__ import annotations

from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("Cython")

SCRIPT = Path(__file__).parents[2] / "scripts" / "hot-yellow"
pytestmark = pytest.mark.skipif(not SCRIPT.exists(), reason="only a checkout has the script")

HOT_PY = """
limit = 3

class Queue:
    def __init__(self):
        self.size = 0
        self.peer = None
        self.sent = []

    def add(self, size: int) -> bool:
        self.size += size
        if self.size > 100:
            raise ValueError(f"{self.size} is too much")
        return self.size < 10

    def flush(self) -> None:
        try:
            self.add(
                limit,
            )
        except ValueError as exc:
            print(exc)
        self.peer.write(self.size)

    def called(self, size) -> None:
        self.add(1)
"""
HOT_PXD = """
cdef class Queue:
    cdef Py_ssize_t size
    cdef object peer
    cdef list sent
    cdef bint add(self, Py_ssize_t size) except -1
    cpdef flush(self)
"""
WAYS_PYX = 'include "part.pxi"\n\ncdef int twice(int x) noexcept:\n    return 2 * x\n'
PART_PXI = "cdef object boxed(int x):\n    return x\n"

HOT = {"hot": ("Queue.add", "Queue.flush", "Queue.called"), "ways": ("boxed", "twice")}
NUMBERS = {"hot Queue.add": 0, "hot Queue.flush": 2, "hot Queue.called": 0, "ways boxed": 1, "ways twice": 0}


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, with a table of its own and the package in ``tmp_path``."""
    loader = SourceFileLoader("hot_yellow", str(SCRIPT))
    spec = spec_from_loader("hot_yellow", loader)
    assert spec is not None
    module = module_from_spec(spec)
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    monkeypatch.setitem(__import__("sys").modules, "hot_yellow", module)  # its dataclasses look there
    loader.exec_module(module)
    module.HOT = HOT
    package = tmp_path / "src" / "plumews"
    package.mkdir(parents=True)
    for name, text in {
        "__init__.py": "",
        "hot.py": HOT_PY,
        "hot.pxd": HOT_PXD,
        "ways.pyx": WAYS_PYX,
        "part.pxi": PART_PXI,
    }.items():
        (package / name).write_text(text, encoding="utf-8")
    directives = {"language_level": 3, "annotation_typing": False}
    (tmp_path / "setup.py").write_text(f"DIRECTIVES = {directives}\n", encoding="utf-8")
    return module


def run(script: ModuleType, tmp_path: Path, *arguments: str) -> int:
    code: int = script.main([*arguments, "--source", str(tmp_path), "--bounds", str(tmp_path / "bounds")])
    return code


def write_bounds(tmp_path: Path, **changed: int) -> None:
    numbers = {**NUMBERS, **{key.replace("__", " ").replace("_", "."): number for key, number in changed.items()}}
    text = "".join(f"{key} {number}\n" for key, number in numbers.items())
    (tmp_path / "bounds").write_text(text, encoding="utf-8")


def test_lines_that_call_python_are_listed(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(script, tmp_path) == 0
    listed = [line for line in capsys.readouterr().out.splitlines() if ": " in line]
    assert listed == [
        "src/plumews/hot.py:19: Queue.flush: limit,",
        "src/plumews/hot.py:23: Queue.flush: self.peer.write(self.size)",
        "src/plumews/part.pxi:2: boxed: return x",
    ]


def test_each_function_has_a_sum(script: ModuleType, tmp_path: Path) -> None:
    functions = script.look(list(HOT), tmp_path)
    assert {function.key: len(function.calls) for function in functions} == NUMBERS


def test_one_module_can_be_looked_at(script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(script, tmp_path, "ways") == 0
    assert "hot.py" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ({"hot": ("Queue.flsh",)}, "HOT names hot Queue.flsh, which is not there; Queue.flush is"),
        ({"hot": ("flush",)}, "HOT names hot flush, which is not there; Queue.flush is"),
        ({"cold": ("flush",)}, "HOT names cold, which has no source"),
    ],
)
def test_a_name_that_is_not_there_is_an_error(
    script: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    table: dict[str, tuple[str, ...]],
    complaint: str,
) -> None:
    script.HOT = table
    assert run(script, tmp_path, "--bound") == 2
    assert complaint in capsys.readouterr().err


def test_numbers_at_their_bounds_pass(script: ModuleType, tmp_path: Path) -> None:
    write_bounds(tmp_path)
    assert run(script, tmp_path, "--bound") == 0


def test_a_number_above_its_bound_fails(script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_bounds(tmp_path, hot__Queue_flush=1)
    assert run(script, tmp_path, "--bound") == 1
    said = capsys.readouterr().err
    assert "hot Queue.flush: 2 lines call Python, its bound is 1" in said
    assert "scripts/hot-yellow hot lists them" in said


def test_a_number_below_its_bound_fails(script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_bounds(tmp_path, hot__Queue_add=1)
    assert run(script, tmp_path, "--bound") == 1
    assert "hot Queue.add: 0 lines call Python, fewer than its bound 1: lower it" in capsys.readouterr().err


def test_update_lowers_bounds_and_keeps_the_table(script: ModuleType, tmp_path: Path) -> None:
    write_bounds(tmp_path, hot__Queue_add=7, hot__gone=1)
    assert run(script, tmp_path, "--bound") == 1
    assert run(script, tmp_path, "--update") == 0
    assert script.read_bounds(tmp_path / "bounds") == (script.version(), NUMBERS)
    assert run(script, tmp_path, "--bound") == 0


def test_update_refuses_to_raise_a_bound(script: ModuleType, tmp_path: Path) -> None:
    write_bounds(tmp_path, hot__Queue_flush=1, hot__Queue_add=7)
    assert run(script, tmp_path, "--update") == 1
    assert script.read_bounds(tmp_path / "bounds")[1] == {**NUMBERS, "hot Queue.flush": 1}


def test_a_function_without_a_bound_fails(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(script, tmp_path, "--bound") == 1
    assert "ways boxed: it has no bound yet" in capsys.readouterr().err


def test_bounds_of_another_cython_are_named(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_bounds(tmp_path, hot__Queue_flush=1)
    with (tmp_path / "bounds").open("a", encoding="utf-8") as file:
        file.write("# Cython 3.0\n")
    assert run(script, tmp_path, "--bound") == 1
    assert "the bounds are of Cython 3.0, this is" in capsys.readouterr().err
