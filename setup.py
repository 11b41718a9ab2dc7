"""Builds the compiled codec where that is wanted and possible.

    PLUMEWS_EXT=auto   compile; without a working compiler install the pure codec and say so (default)
    PLUMEWS_EXT=yes    compile; a failure is an error (wheels are built with this)
    PLUMEWS_EXT=no     do not compile
    PLUMEWS_SANITIZE=address,undefined   compile with these sanitizers, unoptimised, with symbols

What the package is besides stands in pyproject.toml.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

MODES = ("auto", "yes", "no")
MODE = os.environ.get("PLUMEWS_EXT", "auto").strip().lower()
if MODE not in MODES:
    raise SystemExit(f"PLUMEWS_EXT={MODE!r} is not one of {', '.join(MODES)}")
KERNELS = Path("src/plumews/csrc")
SANITIZE = os.environ.get("PLUMEWS_SANITIZE", "").strip()


class BuildExt(build_ext):
    """build_ext that, in mode ``auto``, turns a failed compilation into a notice."""

    def run(self) -> None:
        try:
            super().run()
        except Exception as exc:
            self._give_up(exc)

    def build_extension(self, ext: Extension) -> None:
        try:
            super().build_extension(ext)
        except Exception as exc:
            self._give_up(exc)
            ext.optional = True  # setuptools must not miss it where it copies what was built

    def _give_up(self, exc: Exception) -> None:
        if MODE == "yes":
            raise exc
        print(
            f"plumews: the compiled codec could not be built ({exc}); the pure Python codec will be used. "
            "Set PLUMEWS_EXT=yes to make this an error.",
            file=sys.stderr,
        )


def extensions() -> list[Extension]:
    """The extension modules for this build; none in mode ``no``."""
    if MODE == "no":
        return []
    compile_args: list[str] = []
    link_args: list[str] = []
    if SANITIZE:
        compile_args = [f"-fsanitize={SANITIZE}", "-fno-omit-frame-pointer", "-g", "-O1"]
        link_args = [f"-fsanitize={SANITIZE}"]
    elif sys.platform == "win32":
        compile_args = ["/O2"]
    else:
        compile_args = ["-O2"]
    codec = Extension(
        "plumews._codec",
        ["src/plumews/_codec.pyx", *sorted(map(str, KERNELS.glob("*.c")))],
        depends=sorted(map(str, [*KERNELS.glob("*.h"), *KERNELS.parent.glob("*.pxi")])),
        extra_compile_args=compile_args,
        extra_link_args=link_args,
    )
    try:
        from Cython.Build import cythonize
    except ImportError as exc:
        if MODE == "yes":
            raise
        print(f"plumews: Cython is missing ({exc}); the pure Python codec will be used.", file=sys.stderr)
        return []
    return list(cythonize([codec], language_level=3))


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildExt})
