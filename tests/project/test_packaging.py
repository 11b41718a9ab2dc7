"""Files and metadata of an installation; `scripts/check-package` makes several installations.

Reads pyproject.toml beside the package that is imported, which may be the checkout's or an installed one. What an
environment variable decides is decided at import, so it is asked in a process of its own.
"""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

import plumews
from plumews.room_server.page import page_routes

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "plumews"
INSTALLED = Path(plumews.__file__).parent

#: Packages whose import has another name.
IMPORTS = {"pyjwt": "jwt"}


@pytest.fixture(scope="module")
def pyproject() -> dict[str, Any]:
    parsed: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return parsed


def run(code: str, **environment: str) -> Any:
    """Return the JSON that ``code`` prints in a fresh process with nothing but the package on its path."""
    env = {**os.environ, "PYTHONPATH": str(INSTALLED.parent), **environment}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# --- files ----------------------------------------------------------------------------------------


def test_the_types_and_the_page_are_where_the_package_is() -> None:
    for name in (
        "py.typed",
        "_codec.pyi",
        "room_server/static/index.html",
        "room_server/static/page.css",
        "room_server/static/page.js",
        "room_server/static/rooms.js",
        "room_server/static/favicon.svg",
    ):
        assert (INSTALLED / name).is_file(), name


def test_every_file_beside_the_modules_is_package_data(pyproject: dict[str, Any]) -> None:
    patterns = pyproject["tool"]["setuptools"]["package-data"]
    assert set(patterns) == {"*", "plumews.room_server"}
    made_or_compiled = {".py", ".pyx", ".pxi", ".pxd", ".c", ".so", ".pyd", ".pyc", ".h"}
    data = [path for path in SOURCE.rglob("*") if path.is_file() and path.suffix not in made_or_compiled]
    assert SOURCE / "py.typed" in data
    for path in data:
        if path.parent == SOURCE / "room_server" / "static":
            assert "static/*" in patterns["plumews.room_server"]
        else:
            assert any(fnmatch(path.name, pattern) for pattern in patterns["*"]), path


def test_the_page_serves_every_file_that_is_shipped_for_it() -> None:
    shipped = {path.name for path in (SOURCE / "room_server" / "static").iterdir()}
    assert {path.strip("/") or "index.html" for path in page_routes()} == shipped


def test_every_folder_with_modules_is_a_package(pyproject: dict[str, Any]) -> None:
    assert pyproject["tool"]["setuptools"]["packages"] == {"find": {"where": ["src"]}}
    assert {path.parent for path in SOURCE.rglob("*.py")} == {path.parent for path in SOURCE.rglob("__init__.py")}


# --- metadata -------------------------------------------------------------------------------------


def test_version_is_readable_without_importing_the_package(pyproject: dict[str, Any]) -> None:
    assert "version" in pyproject["project"]["dynamic"]
    assert pyproject["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "plumews.__version__"}
    tree = ast.parse((SOURCE / "__init__.py").read_text(encoding="utf-8"))
    values = [node.value for node in tree.body if isinstance(node, ast.Assign) and is_named(node, "__version__")]
    assert [ast.literal_eval(value) for value in values] == [plumews.__version__]
    assert re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?(\.dev\d+)?", plumews.__version__)


def is_named(node: ast.Assign, name: str) -> bool:
    return any(isinstance(target, ast.Name) and target.id == name for target in node.targets)


def test_the_changelog_knows_the_version() -> None:
    assert plumews.__version__ in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_what_the_modules_import_is_what_the_package_depends_on(pyproject: dict[str, Any]) -> None:
    declared = {re.split(r"[^\w.-]", requirement)[0].lower() for requirement in pyproject["project"]["dependencies"]}
    imported = {
        name.partition(".")[0]
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for name in names_imported(node)
    }
    optional = {name.replace("-", "_") for name in pyproject["project"]["optional-dependencies"]} | {
        "prometheus_client",
        "prompt_toolkit",  # of the extra `cli`
        "python_socks",  # of the extra `socks`
        "typing_extensions",  # for type checkers alone
    }
    foreign = imported - set(sys.stdlib_module_names) - {"plumews"}
    assert foreign - optional == {IMPORTS.get(name, name) for name in declared}


def names_imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []


def test_the_command_is_a_function_of_the_package(pyproject: dict[str, Any]) -> None:
    command = importlib.metadata.EntryPoint("plumews", pyproject["project"]["scripts"]["plumews"], "console_scripts")
    assert callable(command.load())


# --- what is loaded, and what is shipped ----------------------------------------------------------


def test_jwt_is_imported_when_the_first_token_is_verified() -> None:
    assert run(
        """
import json, sys, plumews
plumews.serve_rooms(plumews.Hub(), auth := plumews.SimpleRoomAuth(b"0123456789abcdef" * 2), port=0)
before = "jwt" in sys.modules
try:
    auth.verify_jwt("e30.e30.e30")
except plumews.InvalidToken:
    pass
try:
    auth.verify_jwt("eyJhbGciOiJIUzI1NiJ9.e30.AAAA")
except plumews.InvalidToken:
    print(json.dumps([before, "jwt" in sys.modules]))
"""
    ) == [False, True]


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_sdist_leaves_out_files_that_git_does_not_track(tmp_path: Path) -> None:
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "src/plumews/__init__.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "smoke.py").touch()
    git = {"cwd": tmp_path, "check": True, "capture_output": True}
    subprocess.run(["git", "init", "--quiet"], **git)
    subprocess.run(["git", "add", "."], **git)
    stray = ("tests/customers.csv", "src/plumews/notes.txt", "src/plumews/draft.py", "tests/.env")
    for name in stray:
        (tmp_path / name).touch()
    (tmp_path / "LICENSE").unlink()  # tracked, and gone: no reason to fail
    env = {**os.environ, "PLUMEWS_EXT": "no"}
    subprocess.run([sys.executable, "setup.py", "--quiet", "sdist"], env=env, **git)
    (archive,) = (tmp_path / "dist").iterdir()
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
        sources = opened.extractfile(f"plumews-{plumews.__version__}/src/plumews.egg-info/SOURCES.txt")
        assert sources is not None
        listed = sources.read().decode().split()
    assert {"setup.py", "tests/smoke.py", "src/plumews/__init__.py", "PKG-INFO"} <= names
    assert not names & set(stray)
    assert not set(listed) & set(stray)


# --- workflows ------------------------------------------------------------------------------------


def test_every_action_of_the_workflows_is_pinned_by_hash() -> None:
    used = [
        line.split("uses:")[1].strip()
        for path in (ROOT / ".github" / "workflows").glob("*.yml")
        for line in path.read_text(encoding="utf-8").splitlines()
        if "uses:" in line
    ]
    assert len(used) > 20
    unpinned = [action for action in used if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v[\d.]+", action)]
    assert unpinned == ["$/.github/workflows/ci.yml # this repository, at this commit"]


def test_only_python_versions_that_run_the_suite_are_claimed(pyproject: dict[str, Any]) -> None:
    names = [name.rpartition(" ")[2] for name in pyproject["project"]["classifiers"] if "Python :: 3." in name]
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    (matrix,) = re.findall(r"python: \[(.*)\]", workflow)
    wheels = [pattern.removeprefix("cp3").removesuffix("-*") for pattern in pyproject["tool"]["cibuildwheel"]["build"]]
    assert names == re.findall(r"[\d.]+t?", matrix) == [f"3.{minor}" for minor in wheels]
    assert "freethreading_compatible" not in (ROOT / "setup.py").read_text(encoding="utf-8")
    for path in SOURCE.glob("*.pyx"):
        assert "freethreading_compatible" not in path.read_text(encoding="utf-8"), path.name


# --- which body -----------------------------------------------------------------------------------

BODY = "import json, plumews; print(json.dumps(plumews.BODY))"


def compiled() -> bool:
    return importlib.util.find_spec("plumews._codec") is not None


def test_plumews_pure_takes_the_pure_codec() -> None:
    assert run(BODY, PLUMEWS_PURE="1") == "pure"


@pytest.mark.parametrize("value", ["", "0"], ids=["empty", "0"])
def test_built_codec_is_used_without_plumews_pure(value: str) -> None:
    assert run(BODY, PLUMEWS_PURE=value) == ("compiled" if compiled() else "pure")


def test_plumews_pure_holds_for_every_module() -> None:
    files = run(
        """
import importlib, json, pathlib, sys
import plumews
home = pathlib.Path(plumews.__file__).parent
for path in home.rglob("*.py"):
    name = ".".join(["plumews", *path.relative_to(home).with_suffix("").parts])
    importlib.import_module(name.removesuffix(".__init__"))
names = [name for name in sys.modules if name.partition(".")[0] == "plumews"]
print(json.dumps({name: sys.modules[name].__file__ for name in names}))
""",
        PLUMEWS_PURE="1",
    )
    assert len(files) == len(list(INSTALLED.rglob("*.py")))
    assert {name: file for name, file in files.items() if not file.endswith(".py")} == {}


# --- setup.py -------------------------------------------------------------------------------------


def test_unknown_plumews_ext_error_names_the_choices() -> None:
    env = {**os.environ, "PLUMEWS_EXT": "bogus"}
    done = subprocess.run(
        [sys.executable, "setup.py", "--version"], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "PLUMEWS_EXT='bogus' is not one of auto, yes, no" in done.stderr
