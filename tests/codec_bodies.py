"""Runs a test on both bodies of the codec: ids ``c`` (compiled) and ``py`` (plain Python).

``pytestmark = on_both_bodies`` gives every test of a module the argument ``codec``. A body that was not built
fails its tests rather than being left out, unless PLUMEWS_PURE=1 or PLUMEWS_EXT=no says that it is not wanted.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

import pytest

MODULES = {"c": "plumews._codec", "py": "plumews._codec_py"}
PURE_ONLY = os.environ.get("PLUMEWS_PURE") == "1" or os.environ.get("PLUMEWS_EXT") == "no"


class Body:
    """One body, imported when a test touches it, so that a missing one fails that test and no other."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __getattr__(self, attribute: str) -> Any:
        try:
            module = importlib.import_module(MODULES[self.name])
        except ImportError as exc:
            hint = "build it with `PLUMEWS_EXT=yes python setup.py build_ext --inplace`, or set PLUMEWS_PURE=1"
            raise AssertionError(f"{MODULES[self.name]} cannot be imported ({exc}): {hint}") from exc
        return getattr(module, attribute)


BODIES = [Body(name) for name in MODULES if name == "py" or not PURE_ONLY]

on_both_bodies = pytest.mark.parametrize("codec", BODIES, ids=[body.name for body in BODIES])
