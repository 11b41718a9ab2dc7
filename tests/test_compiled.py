"""Tests of the selection of the body: PLUMEWS_PURE, PLUMEWS_SHORT_WAYS, incomplete builds, a second interpreter.

A process selects its body once, so that each test starts a process.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import pytest

import plumews
from plumews import _compiled
from support.codec_bodies import PURE_ONLY

PACKAGE = Path(plumews.__file__).parent

LOADED = """
import json, sys
import plumews.transport.masking
files = {name: module.__file__ for name, module in sys.modules.items() if name.partition(".")[0] == "plumews"}
compiled = sorted(name.partition(".")[2] for name, file in files.items() if not file.endswith(".py"))
print(json.dumps([plumews.BODY, compiled]))
"""

#: A connection at work. Its output depends on each compiled module.
AT_WORK = """
import asyncio, json
import plumews

class Transport(asyncio.Transport):
    written = b""
    def get_extra_info(self, name, default=None): return default
    def set_write_buffer_limits(self, high=None, low=None): pass
    def is_closing(self): return False
    def close(self): pass
    def write(self, data): self.written += bytes(data)
    def writelines(self, buffers): self.written += b"".join(buffers)

async def main():
    conn, transport = plumews.Conn(plumews.ConnConfig()), Transport()
    conn.connection_made(transport)
    plumews.conn.opening.opened(conn)
    plumews.conn.receiver.deliver_to(conn, lambda conn, message: conn.send_nowait(message), lambda conn, exc: None)
    frame = plumews.protocol.codec.build_frame(1, "hello", mask_key=b"keys")
    conn.get_buffer(-1)[: len(frame)] = frame
    conn.buffer_updated(len(frame))
    await conn.send(bytes(100_000))
    conn.connection_lost(None)
    print(json.dumps([plumews.BODY, len(transport.written), transport.written[:7].hex()]))

asyncio.run(main())
"""
ANSWER = (7 + 10 + 4 + 100_000, "810568656c6c6f")


def run(code: str, *options: str, path: Path = PACKAGE.parent, **environment: str) -> Any:
    """Return the JSON that ``code`` prints in a new process, with the package at ``path``. Several lines are a list."""
    env = {**os.environ, "PLUMEWS_PURE": "", "PLUMEWS_SHORT_WAYS": "", "PYTHONPATH": str(path), **environment}
    done = subprocess.run(
        [sys.executable, *options, "-c", code], env=env, capture_output=True, text=True, check=False, cwd=path
    )
    assert done.returncode == 0, done.stderr
    printed = [json.loads(line) for line in done.stdout.splitlines()]
    return printed if len(printed) > 1 else printed[0]


def built() -> list[Path]:
    """Return the files of compiled modules in the package."""
    return [path for path in PACKAGE.rglob("*") if path.name.endswith(tuple(EXTENSION_SUFFIXES))]


def name_of(path: Path, package: Path = PACKAGE) -> str:
    """Return the name of the module in this file, within the package."""
    *folders, file = path.relative_to(package).parts
    return ".".join([*folders, file.partition(".")[0]])


@pytest.fixture(scope="module")
def whole_copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the package, and return its path. Cached bytecode stays for the next process."""
    path = tmp_path_factory.mktemp("copy")
    shutil.copytree(PACKAGE, path / "plumews", ignore=shutil.ignore_patterns("*.c", "csrc"))
    return path


@pytest.fixture
def copy(whole_copy: Path) -> Iterator[Path]:
    """Return the path of a copy of the package from which a test may remove modules."""
    yield whole_copy
    for path in (whole_copy / "plumews").rglob("*.away"):
        path.rename(path.with_suffix(""))


def take_away(copy: Path, *names: str) -> None:
    for path in list((copy / "plumews").rglob("*")):
        if path.name.endswith(tuple(EXTENSION_SUFFIXES)) and name_of(path, copy / "plumews") in names:
            path.rename(path.with_name(f"{path.name}.away"))


#: Types of the codec. Its plain Python has other classes.
CODEC = PACKAGE / "_codec.pxd"

#: Call ``__new__`` of every extension type of the package, and of its subclasses. Use each object that this makes.
#: The output is the number of classes, and the names of those that made an object.
WITHOUT_INIT = """
import contextlib, importlib, json, pkgutil, warnings
import plumews

warnings.simplefilter("ignore")  # of coroutines that nothing awaits
names = [each.name for each in pkgutil.walk_packages(plumews.__path__, "plumews.") if "__main__" not in each.name]
values = [value for name in names for value in vars(importlib.import_module(name)).values()]
classes = {value for value in values if isinstance(value, type) and value.__module__.partition(".")[0] == "plumews"}
own = {f"plumews.{name}" for name in plumews._compiled.COMPILED + plumews._compiled.SHORT_WAYS}
compiled = [cls for cls in classes if any(base.__module__ in own and not base.__flags__ & 512 for base in cls.__mro__)]
made = []
for cls in compiled:
    try:
        instance = cls.__new__(cls)
    except TypeError:
        continue
    made.append(cls.__name__)
    for name in dir(cls):
        if name not in {"__class__", "__new__", "__init_subclass__", "__subclasshook__"}:
            for arguments in (), (None,), (b"x", 1):
                with contextlib.suppress(Exception):
                    getattr(instance, name)(*arguments)
            with contextlib.suppress(Exception):
                setattr(instance, name, None)
            with contextlib.suppress(Exception):
                delattr(instance, name)
print(json.dumps([len(compiled), made]))
"""

needs_a_build = pytest.mark.skipif(PURE_ONLY, reason="nothing is compiled here")


# --- the list -------------------------------------------------------------------------------------


def test_compiled_lists_the_modules_of_the_compiler() -> None:
    if not CODEC.exists():
        pytest.skip("a wheel has no sources of the compiler")
    sources = {name_of(path) for path in PACKAGE.rglob("*") if path.suffix in {".pxd", ".pyx"}}
    assert set(_compiled.COMPILED) == sources - set(_compiled.SHORT_WAYS)


def fields_in(path: Path) -> dict[str, set[str]]:
    """Return the fields of each class in a ``.pxd``. Methods have parentheses, and fields have none."""
    fields: dict[str, set[str]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        code = line.split("#")[0].rstrip()
        if begin := re.match(r"cdef class (\w+)", code):
            current = fields.setdefault(begin[1], set())
        elif re.match(r"\S", code):
            current = set()  # of a function
        elif field := re.fullmatch(r"    cdef [^()]*\b(\w+)(\[\w+\])?", code):
            current.add(field[1])
    return fields


def declared_fields() -> dict[str, set[str]]:
    """Return the fields of each class that a ``.pxd`` beside a ``.py`` declares."""
    typed = [path for path in PACKAGE.rglob("*.pxd") if path.with_suffix(".py").exists()]
    return {name: fields for path in typed for name, fields in fields_in(path).items()}


def typed_classes() -> Iterator[tuple[ast.ClassDef, set[str]]]:
    """Yield each class of a compiled ``.py`` that its ``.pxd`` declares, and the declared fields of its class."""
    fields = declared_fields()
    for path in (path.with_suffix(".py") for path in PACKAGE.rglob("*.pxd")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body if path.exists() else ():
            if isinstance(node, ast.ClassDef) and node.name in fields:
                yield node, fields[node.name]


def slots_of(node: ast.ClassDef) -> set[str]:
    """Return the names in ``__slots__`` of a class."""
    for line in node.body:
        if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == "__slots__":
            named = ast.literal_eval(line.value)
            return {named} if isinstance(named, str) else set(named)
    return set()


@pytest.mark.skipif(not CODEC.exists(), reason="a wheel has no sources of the compiler")
def test_fields_of_compiled_classes_are_those_of_their_pxd() -> None:
    """Compiled, a class has the fields of the ``.pxd``. In plain Python it has those of ``__slots__``."""
    wrong = {node.name: slots_of(node) ^ fields for node, fields in typed_classes() if slots_of(node) != fields}
    assert wrong == {}
    assert {node.name for node, _ in typed_classes()} == set(declared_fields())


@pytest.mark.skipif(not CODEC.exists(), reason="a wheel has no sources of the compiler")
def test_compiled_classes_assign_declared_fields_only() -> None:
    """Without this test a forgotten field fails when the compiled class assigns it, in no run of plain Python."""
    classes = {node.name: node for node, _ in typed_classes()}

    def settable(name: str) -> set[str]:
        node = classes[name]
        setters = (line for line in node.body if isinstance(line, ast.FunctionDef) and line.decorator_list)
        own = slots_of(node) | {
            line.name for line in setters if f"{line.name}.setter" in map(ast.unparse, line.decorator_list)
        }
        return own.union(*(settable(base) for base in map(ast.unparse, node.bases) if base in classes))

    wrong = [
        f"{name}.{inner.attr}"
        for name, node in classes.items()
        for inner in ast.walk(node)
        if isinstance(inner, ast.Attribute)
        and isinstance(inner.ctx, (ast.Store, ast.Del))
        and ast.unparse(inner.value) == "self"
        and inner.attr not in settable(name)
    ]
    assert wrong == []


@pytest.mark.skipif(not CODEC.exists(), reason="a wheel has no sources of the compiler")
def test_each_declared_field_of_the_codec_is_used() -> None:
    """Short ways see these fields, and Cython accepts no other ones in the classes. It accepts unused ones."""
    sources = [path.read_text(encoding="utf-8") for path in (PACKAGE / "protocol" / "pxi").glob("*.pxi")]
    used = {"__weakref__", *re.findall(r"\b(?:self|parser|loan)\.(\w+)", "".join(sources))}
    fields = fields_in(CODEC)
    assert set(fields) == {"Loan", "Parser", "SpareMemory"}
    assert not {name: unused for name, names in fields.items() if (unused := names - used)}
    assert {"head", "control", "buffer"} <= fields["Parser"]


def compiled_handlers() -> Iterator[tuple[str, ast.AST]]:
    """Yield the nodes in ``except`` clauses of compiled modules, and their ``with`` statements."""
    for name in _compiled.COMPILED:
        path = PACKAGE.joinpath(*name.split(".")).with_suffix(".py")
        if not path.exists():
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.With, ast.AsyncWith)):
                yield name, node
            elif isinstance(node, ast.ExceptHandler):
                yield from ((name, inner) for line in node.body for inner in ast.walk(line))


def test_no_compiled_handler_needs_a_traceback() -> None:
    """Cython leaves ``with``, and a handler by ``return``, as if there were a traceback: without memory it has none."""
    leaving = (ast.With, ast.AsyncWith, ast.Return, ast.Break, ast.Continue)
    found = [f"{name}.py:{node.lineno}" for name, node in compiled_handlers() if isinstance(node, leaving)]
    assert found == []


@needs_a_build
def test_complete_build_is_used() -> None:
    body, compiled = run(LOADED)
    assert body == "compiled"
    assert compiled == sorted(name_of(path) for path in built())


@needs_a_build
def test_compiled_classes_make_no_object_without_init() -> None:
    count, made = run(WITHOUT_INIT)
    assert count > 50
    assert set(made) <= {"MaskingTransport"}  # of the client, imported when it is first used: its fields may be None


def test_connection_is_not_made_without_init() -> None:
    if plumews.BODY == "pure":
        with pytest.raises(AttributeError):
            plumews.Conn.__new__(plumews.Conn).get_buffer(1)
    else:
        with pytest.raises(TypeError, match="not safe"):
            plumews.Conn.__new__(plumews.Conn)


# --- short ways -----------------------------------------------------------------------------------


@needs_a_build
@pytest.mark.skipif(sys.platform == "win32", reason="they use sockets as descriptors")
@pytest.mark.parametrize(("value", "used"), [("", True), ("1", True), ("0", False)])
def test_short_ways_are_used_unless_switched_off(value: str, used: bool) -> None:
    body, compiled = run(LOADED, PLUMEWS_SHORT_WAYS=value)
    assert body == "compiled"
    assert [name for name in _compiled.SHORT_WAYS if name in compiled] == list(_compiled.SHORT_WAYS if used else ())
    assert run(AT_WORK, PLUMEWS_SHORT_WAYS=value) == ["compiled", *ANSWER]


@needs_a_build
def test_build_without_short_ways_is_complete(copy: Path) -> None:
    take_away(copy, *_compiled.SHORT_WAYS)
    assert run(AT_WORK, "-W", "error", path=copy) == ["compiled", *ANSWER]


# --- pure -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["1", "yes", "true"])
def test_plumews_pure_imports_no_compiled_module(value: str) -> None:
    assert run(LOADED, PLUMEWS_PURE=value) == ["pure", []]


def test_plumews_pure_holds_under_x_importtime() -> None:
    assert run(LOADED, "-X", "importtime", PLUMEWS_PURE="1") == ["pure", []]


def test_plumews_pure_holds_for_later_imports() -> None:
    code = """
import importlib, json, sys
import plumews
found = {name: importlib.import_module(f"plumews.{name}").__file__ for name in json.loads(sys.argv[1])}
print(json.dumps([name for name, file in found.items() if not file.endswith(".py")]))
"""
    env = {**os.environ, "PLUMEWS_PURE": "1", "PYTHONPATH": str(PACKAGE.parent)}
    names = json.dumps([name for name in _compiled.COMPILED if name != "_codec"])
    done = subprocess.run([sys.executable, "-c", code, names], env=env, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_finder_finds_modules_of_this_package_only() -> None:
    finder = _compiled._Sources()
    here, conn = [str(PACKAGE)], [str(PACKAGE / "conn")]
    assert finder.find_spec("json", here) is None
    assert finder.find_spec("plumews", here) is None
    assert finder.find_spec("plumews.nothing", here) is None
    assert finder.find_spec("plumews_more.conn.core", conn) is None
    assert finder.find_spec("plumews.conn.core.inner") is None
    spec = finder.find_spec("plumews.conn.core", conn)
    assert spec is not None
    assert spec.origin == str(PACKAGE / "conn" / "core.py")


def test_finder_is_installed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    before = [finder for finder in sys.meta_path if not isinstance(finder, _compiled._Sources)]
    _compiled.only_sources()
    _compiled.only_sources()
    assert len(sys.meta_path) == len(before) + 1


def test_missing_build_uses_plain_python_without_a_warning(copy: Path) -> None:
    take_away(copy, *(name_of(path) for path in built()))
    assert run(LOADED, "-W", "error", path=copy) == ["pure", []]


# --- incomplete builds ----------------------------------------------------------------------------


@needs_a_build
@pytest.mark.parametrize("name", _compiled.COMPILED)
def test_incomplete_build_is_not_used(copy: Path, name: str) -> None:
    take_away(copy, name)
    assert run(LOADED + AT_WORK, path=copy) == [["pure", []], ["pure", *ANSWER]]


@needs_a_build
def test_incomplete_build_warns(copy: Path) -> None:
    take_away(copy, "transport.channel", "conn.receive_queue")
    env = {**os.environ, "PLUMEWS_PURE": "", "PLUMEWS_SHORT_WAYS": "", "PYTHONPATH": str(copy)}
    done = subprocess.run(
        [sys.executable, "-c", "import plumews"], env=env, capture_output=True, text=True, check=True, cwd=copy
    )
    missing = "conn.receive_queue, transport.channel"
    assert f"plumews is compiled in part, without {missing}: plain Python is used" in done.stderr


@needs_a_build
def test_build_without_sendmsg_is_complete(copy: Path) -> None:
    take_away(copy, "transport._sendmsg")
    body, compiled = run(LOADED, "-W", "error", path=copy)
    assert body == "compiled"
    assert compiled == sorted((*_compiled.COMPILED, "conn._opening"))


@pytest.mark.parametrize("pure", ["", "1"], ids=["as built", "pure"])
def test_connection_works_in_the_body_of_the_process(pure: str) -> None:
    assert run(AT_WORK, PLUMEWS_PURE=pure) == ["compiled" if built() and not pure else "pure", *ANSWER]


# --- another interpreter --------------------------------------------------------------------------


@needs_a_build
@pytest.mark.skipif(sys.version_info >= (3, 13), reason="the module has another name, and settles it otherwise")
def test_second_interpreter_uses_plain_python() -> None:
    # Compiled modules may be loaded into one interpreter. So may those of dependencies, which are replaced.
    code = """
import json, sys
import _xxsubinterpreters as interpreters
import plumews

inner = '''
import sys, types
sys.path[:0] = %r
sys.modules["cryptography"] = None
stand_in = sys.modules["httptools"] = types.ModuleType("httptools")
stand_in.__getattr__ = lambda name: type(name, (Exception,), {})
import json
%s
''' % (sys.path, json.loads(sys.argv[1]))
interpreters.run_string(interpreters.create(isolated=False), inner)
"""
    env = {**os.environ, "PLUMEWS_PURE": "", "PLUMEWS_SHORT_WAYS": "", "PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(LOADED)], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["pure", []]
