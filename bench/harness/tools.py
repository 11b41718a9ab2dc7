"""The compiled helpers: the load generator, and the counter of system calls. Built anew for each run, in a second."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


class CannotBuild(Exception):
    """There is no C compiler, or it did not like what it got."""


def available() -> bool:
    """Return True if this machine can run them: Linux, for epoll and CPU clocks, and a C compiler."""
    return sys.platform == "linux" and shutil.which(compiler()) is not None


def compiler() -> str:
    return os.environ.get("CC", "cc")


def _compile(words: list[str], result: Path) -> Path:
    command = [compiler(), "-O2", "-Wall", "-Wextra", "-o", str(result), *words]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    except FileNotFoundError:
        raise CannotBuild(f"no C compiler: {compiler()} is not there") from None
    except subprocess.CalledProcessError as exc:
        raise CannotBuild(exc.stderr) from None
    return result


def build_load(directory: Path) -> Path:
    """Compile the load generator into ``directory``."""
    return _compile([str(source) for source in sorted((HERE / "load").glob("*.c"))], directory / "load")


def build_counter(directory: Path) -> Path:
    """Compile what counts the system calls of a server, to be preloaded."""
    return _compile(["-shared", "-fPIC", str(HERE / "counter.c"), "-ldl"], directory / "counter.so")


def build_dump(directory: Path) -> Path:
    """Compile what lets callgrind dump the counts of a server, to be preloaded."""
    source = HERE.parent / "instructions" / "dump.c"
    return _compile(["-shared", "-fPIC", str(source)], directory / "dump.so")
