"""The import law: packages are ordered, and inside a package no imports go round in circles.

Read from the syntax tree of each module, imports inside functions included; the Cython sources, with what they include,
are read line by line. The order of packages counts imports for type checkers, too. Circles are those at run time: a
function that takes a connection names its type, and the connection calls the function. Each package's `__init__` is
exempt: it hands out public names.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import plumews

SOURCES = Path(plumews.__file__).parent
TESTS = Path(__file__).parents[1]

#: The packages that each package may import; "" is the root vocabulary. Those that are to come have their row already.
ALLOWED = {
    "": set(),
    "protocol": {""},
    "http11": {""},
    "transport": {"", "protocol", "http11"},
    "deflate": {"", "protocol", "http11", "transport"},
    "conn": {"", "protocol", "http11", "transport", "deflate"},
    "auth": {"", "protocol", "http11", "transport", "deflate", "conn"},
    "hub": {"", "protocol", "http11", "transport", "deflate", "conn"},
    "client": {"", "protocol", "http11", "transport", "deflate", "conn"},
    "server": {"", "protocol", "http11", "transport", "deflate", "conn", "auth"},
    "backplane": {"", "protocol", "http11", "transport", "deflate", "conn", "hub"},
    "sync": {"", "protocol", "http11", "transport", "deflate", "conn", "client"},
    "room_server": {"", "protocol", "http11", "transport", "deflate", "conn", "auth", "hub", "server"},
    "asgi": {"", "protocol", "http11", "transport", "deflate", "conn", "auth", "hub", "server", "room_server"},
    "workers": {"", "protocol", "http11", "transport", "deflate", "conn", "auth", "hub", "server", "room_server"},
    "compat": {"", "protocol", "http11", "transport", "deflate", "conn", "client", "server", "sync"},
    "testing": {"", "protocol", "http11", "transport", "deflate", "conn", "auth", "hub", "client", "server"},
}
#: What stands above all packages: the command, the exporter, `python -m plumews`.
ABOVE = {"cli", "prometheus", "__main__"}

#: The packages that decide and do no I/O.
WITHOUT_IO = {"", "protocol", "http11"}
IO = {"asyncio", "socket", "selectors", "ssl", "socketserver", "uvloop", "anyio", "threading", "select"}

#: The module that imports the compiled codec. Compiled short ways, modules named `_*.pyx`, may cimport it, too.
CODEC = "protocol.codec"

#: Modules whose tests have another name, and why.
TESTED_IN = {
    "__main__": "cli/test_main",  # nothing but a call of it; each command that is tested is started by it
    "_codec": "protocol/test_codec_*",  # both bodies run the same tests, one file for each thing that they do
    "protocol.codec": "protocol/test_codec_agreement",  # which of them is taken
    "protocol.pure.frame_builder": "protocol/test_codec_frames",
    "protocol.pure.frame_reader": "protocol/test_codec_parser",
    "protocol.pure.masking": "protocol/test_codec_mask",
    "protocol.pure.message_assembler": "protocol/test_codec_text",
    "protocol.pure.parser": "protocol/test_codec_*",
    "protocol.pure.utf8": "protocol/test_codec_utf8",
    "room_server.context": "room_server/test_server",  # what it returns is served there
    "transport._sendmsg_py": "transport/test_sendmsg",  # both bodies of it
    # The tree of `compat.websockets` has the paths of another package. Its tests are cut by what programs do.
    **{
        f"compat.websockets.{module}": f"compat/test_{tests}"
        for tests, modules in {
            "client": "asyncio.client client legacy.client",
            "connection": "asyncio.broadcaster asyncio.connection",
            "ends": "exceptions frames protocol server",
            "handshake": "asyncio.handshake http11",
            "headers": "datastructures",
            "legacy": "legacy.server",
            "names": "legacy.exceptions legacy.protocol refused typing version",
            "options": "asyncio.options",
            "router": "asyncio.router",
            "server": "asyncio.server",
            "sync_client": "sync.client sync.connection",
        }.items()
        for module in modules.split()
    },
}

MODULES = sorted(
    {
        ".".join(path.relative_to(SOURCES).with_suffix("").parts)
        for path in SOURCES.rglob("*")
        if path.suffix in {".py", ".pyx"} and path.stem != "__init__"
    }
)


def package_of(module: str) -> str:
    """The package of a module: ``protocol`` of ``protocol.pure.parser``, "" of a module of the root."""
    return module.partition(".")[0] if "." in module else ""


def row_of(module: str) -> str:
    """Return the row of the table for a module: its package, or itself if it stands above all packages."""
    first = module.partition(".")[0]
    return first if first in ABOVE else package_of(module)


def imports(module: str, *, types: bool = True) -> Iterator[str]:
    """Yield the imports of a module: ``.hub.rooms`` of ours, ``asyncio`` of others.

    Without ``types`` those for type checkers are left out.
    """
    stem = SOURCES.joinpath(*module.split("."))
    package = module.split(".")[:-1]
    if (python := stem.with_suffix(".py")).exists():
        yield from imports_of_python(python.read_text(encoding="utf-8"), package, types=types)
    for suffix in (".pyx", ".pxd"):
        if (cython := stem.with_suffix(suffix)).exists():
            yield from imports_of_cython(cython, package)


class _AtRunTime(ast.NodeTransformer):
    """Removes what only type checkers see."""

    def visit_If(self, node: ast.If) -> ast.AST:
        if ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = [ast.Pass()]
        return self.generic_visit(node)


def imports_of_python(source: str, package: list[str], *, types: bool = True) -> Iterator[str]:
    tree: ast.AST = ast.parse(source)
    for node in ast.walk(tree if types else _AtRunTime().visit(tree)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name.replace("plumews.", ".", 1)
        elif isinstance(node, ast.ImportFrom):
            yield from named("." * node.level + (node.module or ""), [alias.name for alias in node.names], package)


def imports_of_cython(path: Path, package: list[str]) -> Iterator[str]:
    in_one_line = re.sub(
        r"import\s*\(([^)]*)\)", lambda found: "import " + " ".join(found[1].split()), path.read_text(encoding="utf-8")
    )
    for line in in_one_line.splitlines():
        code = line.split("#")[0].strip()
        if found := re.match(r'include\s+"([^"]+)"', code):
            yield from imports_of_cython(path.parent / found[1], package)
        elif found := re.match(r"(?:from\s+([\w.]+)\s+)?c?import\s+(.+)", code):
            origin, names = found.groups()
            imported = [word.split()[0] for word in names.rstrip(",").split(",")]
            yield from named(origin, imported, package) if origin else imported


def named(origin: str, names: list[str], package: list[str]) -> Iterator[str]:
    """The modules that ``from origin import names`` imports in a module of ``package``."""
    level = len(origin) - len(origin.lstrip("."))
    if level:
        base = package[: len(package) - level + 1] + [part for part in origin[level:].split(".") if part]
    elif origin.partition(".")[0] == "plumews":
        base = origin.split(".")[1:]
    else:
        yield origin
        return
    for name in names:
        yield "." + ".".join([*base, name] if is_module([*base, name]) or not base else base)


def is_module(parts: list[str]) -> bool:
    path = SOURCES.joinpath(*parts)
    return path.with_suffix(".py").exists() or path.with_suffix(".pyx").exists() or (path / "__init__.py").exists()


def ours(module: str, *, types: bool = True) -> set[str]:
    """The modules of ours that ``module`` imports."""
    return {found[1:] for found in imports(module, types=types) if found.startswith(".")} - {"__version__", "BODY"}


def is_short_way(module: str) -> bool:
    """Return True for a compiled short way: a module ``_name`` that exists in Cython alone."""
    stem = SOURCES.joinpath(*module.split("."))
    return stem.name.startswith("_") and stem.with_suffix(".pyx").exists() and not stem.with_suffix(".py").exists()


def others(module: str) -> set[str]:
    """The packages of others that ``module`` imports."""
    return {found.split(".")[0] for found in imports(module) if not found.startswith(".")}


# --- how it is read -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import asyncio.events", ["asyncio.events"]),
        ("from collections import deque", ["collections"]),
        ("from .. import limits, __version__", [".limits", ".__version__"]),
        ("from .rooms import RoomTable", [".hub.rooms"]),
        ("from ..conn.core import Conn", [".conn.core"]),
        ("from ..transport import sendmsg", [".transport.sendmsg"]),
        ("from ..hub import Hub", [".hub"]),
        ("from plumews.hub.rooms import RoomTable", [".hub.rooms"]),
        ("from plumews import limits", [".limits"]),
        ("import plumews.hub", [".hub"]),
        ("def f():\n    if TYPE_CHECKING:\n        from .rooms import RoomTable", [".hub.rooms"]),
    ],
)
def test_imports_are_found_however_they_are_written(source: str, expected: list[str]) -> None:
    assert list(imports_of_python(source, ["hub"])) == expected


def test_imports_for_type_checkers_are_none_at_run_time() -> None:
    source = "if TYPE_CHECKING:\n    from .rooms import RoomTable\nelse:\n    from .hub import Hub"
    assert list(imports_of_python(source, ["hub"], types=False)) == [".hub.hub"]


def test_cython_sources_are_read_with_what_they_include(tmp_path: Path) -> None:
    (tmp_path / "pxi").mkdir()
    (tmp_path / "pxi" / "part.pxi").write_text("from .errors import ProtocolError  # why\n")
    whole = tmp_path / "whole.pyx"
    whole.write_text(
        "from . import (\n    violations,\n    limits as bounds,\n)\n"
        "from libc.string cimport memcpy\n"
        "cimport cython\n"
        "from .conn.core cimport ConnCore\n"
        'include "pxi/part.pxi"\n'
    )
    expected = [".violations", ".limits", "libc.string", "cython", ".conn.core", ".errors"]
    assert list(imports_of_cython(whole, [])) == expected


# --- the law --------------------------------------------------------------------------------------


def test_every_package_has_a_row_and_a_docstring() -> None:
    packages = {path.parent for path in SOURCES.glob("*/__init__.py")}
    assert {path.name for path in packages} <= set(ALLOWED) | ABOVE
    for path in packages:
        docstring = ast.get_docstring(ast.parse((path / "__init__.py").read_text(encoding="utf-8")))
        assert "May import" in (docstring or ""), f"{path.name}: say what it is for and what it may import"


def test_the_table_is_an_order() -> None:
    order = list(TopologicalSorter(ALLOWED).static_order())
    assert order[0] == ""
    for package, allowed in ALLOWED.items():
        assert package not in allowed


@pytest.mark.parametrize("module", [module for module in MODULES if row_of(module) not in ABOVE])
def test_a_package_imports_only_what_the_table_allows(module: str) -> None:
    package = package_of(module)
    forbidden = {
        other
        for other in ours(module)
        if row_of(other + "." if (SOURCES / other).is_dir() else other) not in {*ALLOWED[package], package}
    }
    assert not forbidden, f"{module} imports {forbidden}; {package or 'the root'} may import {ALLOWED[package]}"


@pytest.mark.parametrize("module", MODULES)
def test_modules_are_imported_from_where_they_are_made(module: str) -> None:
    packages = {other for other in ours(module) if (SOURCES / other / "__init__.py").exists()}
    assert not packages or row_of(module) in ABOVE, f"{module} imports {packages}: name the module of each name"


def test_no_imports_go_round_in_circles() -> None:
    graph = {module: {*ours(module, types=False)} & {*MODULES} - {module} for module in MODULES}
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as exc:
        pytest.fail(f"modules that import each other: {' -> '.join(exc.args[1])}")


@pytest.mark.parametrize("module", [module for module in MODULES if row_of(module) in WITHOUT_IO])
def test_below_transport_there_is_no_io(module: str) -> None:
    assert not others(module) & IO, f"{module} is to decide, not to do: {others(module) & IO}"


@pytest.mark.parametrize("module", MODULES)
def test_only_codec_and_short_ways_import_the_compiled_codec(module: str) -> None:
    allowed = module == CODEC or is_short_way(module)
    assert allowed or "_codec" not in ours(module), f"{module}: import {CODEC} instead"


@pytest.mark.parametrize("module", MODULES)
def test_only_main_imports_the_command(module: str) -> None:
    assert row_of(module) in ("cli", "__main__") or not {other for other in ours(module) if row_of(other) == "cli"}


# --- the tests ------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", MODULES)
def test_every_module_has_a_test_file(module: str) -> None:
    package, _, stem = module.rpartition(".")
    mirrored = "/".join([*package.split("."), f"test_{stem.strip('_')}"]).lstrip("/")
    expected = TESTED_IN.get(module, mirrored)
    assert list(TESTS.glob(f"{expected}.py")), f"{module} has no tests/{expected}.py: its promises are tested nowhere"


def test_another_name_is_given_only_where_it_is_needed() -> None:
    assert set(TESTED_IN) <= set(MODULES)
    mirrored = {
        module: TESTS.joinpath(*module.split(".")[:-1], f"test_{module.split('.')[-1]}.py") for module in MODULES
    }
    assert [module for module in TESTED_IN if mirrored[module].exists()] == []
