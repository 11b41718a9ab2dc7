"""The import law: a module imports its own layer and lower ones, and nothing goes round in circles.

Read from the syntax tree of each module, imports inside functions and those for type checkers included; the Cython
sources, with what they include, are read line by line. `__init__` is exempt: it hands out what the layers offer.
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

#: The module that may import a codec's body.
CODEC = "codec"

LAYERS = {
    name: layer
    for layer, names in enumerate(
        [
            "validation constants errors limits faults sources redaction log_text",
            """codec _codec _codec_py _codec_py_frames _codec_py_incoming _codec_py_message _codec_py_mask
            _codec_py_utf8 deflate headers http11 backends deflating extensions inflating negotiation""",
            """handshake origin auth credentials protocol outgoing settings rooms reports history hub_config counts
            refusals snapshots accepting presence forwarded hops users authorizing revocation tokens strength
            passwords attempts elsewhere error_body text_policy log_limit request_secrets addresses admission""",
            """safe_calls forks timers timelimit loopstate parallel wire _wire _wire_py send_buffer attributes context steps ready
            sendqueue displacing outlet writer flow_control keepalive stream inbox engine awaits link receiving
            overflowing sending conn turns compression inflow pacing forms logs""",
            """hub introspection membership listening identity recovery archive audience publishing lanes fanout slow
            waiting gaps notices drop_log budget callbacks watch presence_watch shutdown ledger broadcast""",
            """opening answering site options endpoints routes restricted page room_list prometheus room_door
            room_server server hooks live_tokens token_refresh first_message login token_door password_gate screens
            text_screen listener turning_away reserve admin health route_body refusal_log room_inside
            sockets signals""",
            "cli cli_inputs cli_options cli_serve cli_values __main__",
        ]
    )
    for name in names.split()
}

#: The first layer that may know of event loops and sockets.
WIRE = 3
IO = {"asyncio", "socket", "selectors", "ssl", "socketserver", "uvloop", "anyio", "threading", "select"}

TESTS = Path(__file__).parent

#: Modules whose tests have another name, and why.
TESTED_IN = {
    "safe_calls": "test_callbacks",
    "validation": "test_settings",
    "__main__": "test_cli",  # nothing but a call of it; each command that is tested is started by it
    "_codec": "test_codec_*",  # both bodies of the codec run the same tests, one file for each thing that they do
    "_codec_py": "test_codec_*",
    "_codec_py_frames": "test_codec_frames",
    "_codec_py_incoming": "test_codec_parser",
    "_codec_py_mask": "test_codec_mask",
    "_codec_py_message": "test_codec_text",
    "_codec_py_utf8": "test_codec_utf8",
    "attributes": "test_elsewhere",  # what is told of a name, by reading and by setting it
    "_wire": "test_wire_send",  # both bodies of it as well
    "_wire_py": "test_wire_send",
    "codec": "test_codec_agreement",  # which of them is taken
    "wire": "test_wire_send",
}

MODULES = sorted({path.stem for path in SOURCES.iterdir() if path.suffix in {".py", ".pyx"}} - {"__init__"})


def imports(name: str) -> Iterator[str]:
    """What the module ``name`` imports: ``.hub`` of ours, ``asyncio`` of others."""
    if (python := SOURCES / f"{name}.py").exists():
        yield from imports_of_python(python.read_text())
    for suffix in (".pyx", ".pxd"):
        if (cython := SOURCES / f"{name}{suffix}").exists():
            yield from imports_of_cython(cython)


def imports_of_python(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.replace("plumews.", ".", 1) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = node.module or ""
            if node.level == 0 and origin.split(".")[0] != "plumews":
                yield origin
            elif origin in ("", "plumews"):
                yield from (f".{alias.name}" for alias in node.names if is_module(alias.name))
            else:
                yield f".{origin.removeprefix('plumews.')}"


def imports_of_cython(path: Path) -> Iterator[str]:
    in_one_line = re.sub(
        r"import\s*\(([^)]*)\)", lambda found: "import " + " ".join(found[1].split()), path.read_text()
    )
    for line in in_one_line.splitlines():
        code = line.split("#")[0].strip()
        if found := re.match(r'include\s+"([^"]+)"', code):
            yield from imports_of_cython(path.with_name(found[1]))
        elif found := re.match(r"(?:from\s+([\w.]+)\s+)?c?import\s+(.+)", code):
            origin, names = found.groups()
            if origin == ".":
                yield from (f".{word.split()[0]}" for word in names.rstrip(",").split(","))
            else:
                yield origin or names.split()[0]


def is_module(name: str) -> bool:
    return any((SOURCES / f"{name}{suffix}").exists() for suffix in (".py", ".pyx"))


def ours(name: str) -> set[str]:
    """The modules of ours that ``name`` imports."""
    return {found[1:].split(".")[0] for found in imports(name) if found.startswith(".")}


def others(name: str) -> set[str]:
    """The packages of others that ``name`` imports."""
    return {found.split(".")[0] for found in imports(name) if not found.startswith(".")}


# --- how it is read -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import asyncio.events", ["asyncio.events"]),
        ("from collections import deque", ["collections"]),
        ("from . import limits, __version__", [".limits"]),
        ("from .hub import Hub", [".hub"]),
        ("from plumews.hub import Hub", [".hub"]),
        ("from plumews import limits", [".limits"]),
        ("import plumews.hub", [".hub"]),
        ("def f():\n    if TYPE_CHECKING:\n        from .hub import Hub", [".hub"]),
    ],
)
def test_imports_are_found_however_they_are_written(source, expected):
    assert list(imports_of_python(source)) == expected


def test_cython_sources_are_read_with_what_they_include(tmp_path):
    (tmp_path / "part.pxi").write_text("from .errors import ProtocolError  # why\n")
    whole = tmp_path / "whole.pyx"
    whole.write_text(
        "from . import (\n    faults,\n    limits as bounds,\n)\n"
        "from libc.string cimport memcpy\n"
        "cimport cython\n"
        'include "part.pxi"\n'
    )
    assert list(imports_of_cython(whole)) == [".faults", ".limits", "libc.string", "cython", ".errors"]


# --- the law --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODULES)
def test_every_module_has_a_layer(name):
    assert name in LAYERS, (
        f"{name} has no layer yet: name it in LAYERS of {Path(__file__).name}, as low as what it imports lets it be"
    )


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_its_own_layer_and_lower_ones(name):
    layer = LAYERS.get(name, len(LAYERS))
    above = {other: LAYERS.get(other) for other in ours(name) if LAYERS.get(other, -1) > layer}
    assert not above, f"{name} (layer {layer}) imports what stands above it: {above}"


def test_no_imports_go_round_in_circles():
    graph = {name: ours(name) - {"__init__"} for name in MODULES}
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as exc:
        pytest.fail(f"modules that import each other: {' -> '.join(exc.args[1])}")
    assert set(MODULES) <= set(order)


@pytest.mark.parametrize("name", MODULES)
def test_only_codec_imports_the_bodies_of_the_codec(name):
    bodies = {other for other in ours(name) if other.startswith("_codec")}
    assert name == CODEC or name.startswith("_codec") or not bodies, f"{name} imports {bodies}: import codec instead"


@pytest.mark.parametrize("name", [name for name in MODULES if LAYERS.get(name, WIRE) < WIRE])
def test_below_the_wire_nobody_knows_of_sockets_loops_or_threads(name):
    assert not others(name) & IO, f"{name} (layer {LAYERS[name]}) is to decide, not to do: {others(name) & IO}"


@pytest.mark.parametrize("name", MODULES)
def test_nobody_imports_the_command_but_main_and_its_own_parts(name):
    allowed = name == "__main__" or name.startswith("cli")
    command = {other for other in ours(name) if other.startswith("cli") or other == "__main__"}
    assert allowed or not command, f"{name} imports {command}"
    assert name == "__main__" or "cli" not in command, "the parts of the command do not import the whole"


def test_what_has_a_layer_exists_or_is_announced():
    announced = {"deflate", "tokens", "strength", "passwords", "attempts"}
    assert set(LAYERS) - set(MODULES) <= announced


@pytest.mark.parametrize("name", MODULES)
def test_every_module_opens_with_its_job_and_its_layer(name):
    source = next(path for suffix in (".py", ".pyx") if (path := SOURCES / f"{name}{suffix}").exists()).read_text()
    first_paragraph = source.split('"""')[1].split("\n\n")[0]
    assert re.search(rf"\(layer {LAYERS.get(name)}[);]", first_paragraph), f"{name} does not open with its layer"


# --- the tests ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODULES)
def test_every_module_has_a_test_file_of_its_name_or_a_reason_for_another(name):
    expected = TESTED_IN.get(name, f"test_{name}")
    assert list(TESTS.glob(f"{expected}.py")), f"{name} has no tests/{expected}.py: what it promises is tested nowhere"


def test_a_reason_for_another_name_is_given_only_where_there_is_no_file_of_the_modules_own():
    assert set(TESTED_IN) <= set(MODULES)
    assert [name for name in TESTED_IN if (TESTS / f"test_{name}.py").exists()] == []
