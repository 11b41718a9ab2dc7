"""Runs a test on both bodies of the codec: ids ``c`` (compiled) and ``py`` (plain Python).

``pytestmark = on_both_bodies`` gives every test of a module the argument ``codec``; ``on_every_tier`` gives it the
compiled body once for each tier of instructions that this CPU has (``c-portable`` to ``c-avx512``). A body that was
not built fails its tests rather than being left out, unless PLUMEWS_PURE=1 or PLUMEWS_EXT=no says that nobody wants it.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

import pytest

MODULES = {"c": "plumews._codec", "py": "plumews.protocol.pure.parser"}
PURE_ONLY = os.environ.get("PLUMEWS_PURE") == "1" or os.environ.get("PLUMEWS_EXT") == "no"


class Body:
    """One body, imported when a test touches it, so that a missing one fails that test and no other.

    Of the compiled one, the kernels of ``tier``, or the best.
    """

    def __init__(self, name: str, tier: str = "") -> None:
        self.name = f"{name}-{tier}" if tier else name
        self.tier = tier
        self.module = MODULES[name]

    def __getattr__(self, attribute: str) -> Any:
        try:
            module = importlib.import_module(self.module)
        except ImportError as exc:
            hint = "build it with `PLUMEWS_EXT=yes python setup.py build_ext --inplace`, or set PLUMEWS_PURE=1"
            raise AssertionError(f"{self.module} cannot be imported ({exc}): {hint}") from exc
        if hasattr(module, "_set_tier"):
            module._set_tier(self.tier or module._tiers()[-1])
        return getattr(module, attribute)


def tiers() -> list[Body]:
    """The compiled body on each tier; as it is, where it was not built."""
    try:
        return [Body("c", tier) for tier in importlib.import_module(MODULES["c"])._tiers()]
    except ImportError:
        return [Body("c")]


BODIES = [Body(name) for name in MODULES if name == "py" or not PURE_ONLY]
TIERS = [*([] if PURE_ONLY else tiers()), Body("py")]

on_both_bodies = pytest.mark.parametrize("codec", BODIES, ids=[body.name for body in BODIES])
on_every_tier = pytest.mark.parametrize("codec", TIERS, ids=[body.name for body in TIERS])
