"""Builds the compiled modules where that is wanted and possible: all of them, or none.

A module with a .pyx file is Cython; any other is plain Python, compiled with the types of the .pxd file beside it,
which runs as it stands where it is not compiled. The list of them is COMPILED in src/plumews/_compiled.py.

    PLUMEWS_EXT=auto   compile; without a working compiler install the plain Python and say so (default)
    PLUMEWS_EXT=yes    compile; a failure is an error (wheels are built with this)
    PLUMEWS_EXT=no     do not compile
    PLUMEWS_SANITIZE=address,undefined   compile with these sanitizers, unoptimised, with symbols
    CFLAGS=-O0         flags for the C compiler; an -O among them takes the place of ours

What the package is besides stands in pyproject.toml.
"""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.sdist import sdist

MODES = ("auto", "yes", "no")
MODE = os.environ.get("PLUMEWS_EXT", "auto").strip().lower()
if MODE not in MODES:
    raise SystemExit(f"PLUMEWS_EXT={MODE!r} is not one of {', '.join(MODES)}")
PACKAGE = Path("src/plumews")
KERNELS = PACKAGE / "protocol" / "csrc"


def listed(what: str) -> tuple[str, ...]:
    """Return a list in _compiled.py, which is read, not imported: the package must not be imported by its build."""
    for node in ast.parse((PACKAGE / "_compiled.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == what:
            return tuple(ast.literal_eval(node.value))
    raise SystemExit(f"src/plumews/_compiled.py has no list {what}")


#: How they are compiled. What is annotated stays a hint, and what is divided stays what Python makes of it. Profiling
#: is off by default. Without assertions (CYTHON_WITHOUT_ASSERTIONS) an echo of 32 B x 64 takes as many instructions.
DIRECTIVES = {
    "language_level": 3,
    "annotation_typing": False,
    "auto_pickle": False,
    "binding": False,
    "embedsignature": True,
    "embedsignature.format": "clinic",
}
SANITIZE = os.environ.get("PLUMEWS_SANITIZE", "").strip()

#: Flags of gcc and clang. -g0, because debug information, which Python's own flags ask for, is four fifths of a wheel.
#: Other flags gain too little. User-space instructions a message relative to these, and the size of all modules (python
#: -m bench.instructions, uvloop, callbacks; gcc 12.2, CPython 3.11, 2026-11-30; equal builds differ by 0.1 %):
#:
#:     flags                         echo 32 B x 1   x 64     broadcast x 1   x 16     size
#:     -O3                           -0.7 %          -2.7 %   -0.5 %          +0.6 %   +11 %
#:     -fno-plt                      +0.1 %          -0.4 %   -0.7 %                   -1 %
#:     -flto                         +0.1 %          +0.1 %   -0.2 %                   -0.3 %
#:     all in this comment           -1.5 %          -3.9 %   -1.0 %                   +10 %
#:
#: -fno-semantic-interposition changes no code but that of _codec, -fvisibility=hidden only addresses: a module is one
#: translation unit of static functions. CPU time of paired rounds (Intel Xeon with AMX, 2 MiB L2; echo 32 B x 1, x 64,
#: 1 KiB x 16, 64 KiB): -O3 1.01, 0.98, 1.00, 1.00; all 0.99, 0.95, 0.97, 1.01; an equal build 1.00, 1.02, 1.01, 1.01.
OPTIMISATION = ["-O2", "-g0"]


class BuildExt(build_ext):
    """build_ext that, in mode ``auto``, turns a failed compilation into a notice, and then leaves nothing compiled."""

    failed = False
    telling = threading.Lock()

    def finalize_options(self) -> None:
        super().finalize_options()
        if self.parallel is None:
            self.parallel = True  # one compiler for each CPU

    def run(self) -> None:
        try:
            super().run()
        except Exception as exc:
            self._give_up(exc)

    def build_extension(self, ext: Extension) -> None:
        if not self.failed:
            try:
                super().build_extension(ext)
            except Exception as exc:
                self._give_up(exc)

    def build_extensions(self) -> None:
        super().build_extensions()
        if self.failed:
            # Modules that are compiled know each other's insides: one of them missing, the others are of no use.
            for each in self.extensions:
                each.optional = True  # setuptools must not miss it where it copies what was built
                Path(self.get_ext_fullpath(each.name)).unlink(missing_ok=True)

    def _give_up(self, exc: Exception) -> None:
        if MODE == "yes":
            raise exc
        with self.telling:  # compilers run beside each other
            told, self.failed = self.failed, True
        if not told:
            print(
                f"plumews: the compiled modules could not be built ({exc}); plain Python will be used. "
                "Set PLUMEWS_EXT=yes to make this an error.",
                file=sys.stderr,
            )


class Sdist(sdist):
    """sdist that leaves out files which git does not track: notes, dumps and keys beside the sources."""

    def make_distribution(self) -> None:
        tracked = tracked_files()
        if tracked is not None:
            info = Path(self.get_finalized_command("egg_info").egg_info)
            kept = [name for name in self.filelist.files if Path(name) in tracked or info in Path(name).parents]
            self.filelist.files = kept
            (info / "SOURCES.txt").write_text("".join(f"{name}\n" for name in kept), encoding="utf-8")
        super().make_distribution()


def tracked_files() -> set[Path] | None:
    """Return the files that git tracks here, or None where this is no checkout: all files of an sdist belong to it."""
    git = shutil.which("git") if Path(".git").exists() else None
    listed = git and subprocess.run([git, "ls-files", "-z"], capture_output=True, check=False)
    if not listed or listed.returncode != 0:
        return None
    return {Path(name) for name in os.fsdecode(listed.stdout).split("\0") if name}


def extensions() -> list[Extension]:
    """The extension modules for this build; none in mode ``no``."""
    if MODE == "no":
        return []
    compile_args: list[str] = []
    link_args: list[str] = []
    if SANITIZE:
        compile_args = [f"-fsanitize={SANITIZE}", "-fno-omit-frame-pointer", "-g1", "-O1"]
        link_args = [f"-fsanitize={SANITIZE}"]
    elif sys.platform == "win32":
        compile_args = ["/O2"]
    elif "-O" in os.environ.get("CFLAGS", ""):
        compile_args = ["-g0"]
    else:
        compile_args = OPTIMISATION
    try:
        from Cython.Build import cythonize
    except ImportError as exc:
        if MODE == "yes":
            raise
        print(f"plumews: Cython is missing ({exc}); plain Python will be used.", file=sys.stderr)
        return []

    def extension(name: str, suffix: str, *sources: str, depends: Sequence[str] = ()) -> Extension:
        source = PACKAGE.joinpath(*name.split(".")).with_suffix(suffix)
        return Extension(
            f"plumews.{name}",
            [str(source), *sources],
            depends=list(depends),
            extra_compile_args=compile_args,
            extra_link_args=link_args,
        )

    cython, typed = [], []
    for name in listed("COMPILED"):
        if name == "_codec":
            headers = sorted(map(str, [*KERNELS.glob("*.h"), *KERNELS.parent.glob("pxi/*.pxi")]))
            cython.append(extension(name, ".pyx", *sorted(map(str, KERNELS.glob("*.c"))), depends=headers))
        elif PACKAGE.joinpath(*name.split(".")).with_suffix(".pyx").exists():
            cython.append(extension(name, ".pyx"))
        else:
            typed.append(extension(name, ".py"))
    if sys.platform != "win32":
        cython += [extension(name, ".pyx") for name in listed("SHORT_WAYS")]
    return [*cythonize(cython, language_level=3), *cythonize(typed, compiler_directives=DIRECTIVES)]


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildExt, "sdist": Sdist})
