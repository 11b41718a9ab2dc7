"""Our two bodies, by the names that they have in the results; where none was compiled, the plain one alone.

The compiled one has chosen its kernels by what the CPU has; :func:`on_tier` makes it use others for a while.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

COMPILED = "plumews"
PURE = "plumews pure"

_MODULES = {COMPILED: "plumews._codec", PURE: "plumews.protocol.pure.parser"}

#: The modules that implement the codec, by name.
BODIES: dict[str, Any] = {
    name: importlib.import_module(module) for name, module in _MODULES.items() if importlib.util.find_spec(module)
}


def chosen_tier() -> str | None:
    """The kernels in use; ``None`` without a compiled body."""
    return BODIES[COMPILED]._tier() if COMPILED in BODIES else None


def has_tier(name: str) -> bool:
    """Return True if the compiled body is there and the CPU can run these kernels of it."""
    return COMPILED in BODIES and name in BODIES[COMPILED]._tiers()


@contextmanager
def on_tier(name: str | None) -> Iterator[None]:
    """With these kernels, where they can run; ``None`` leaves the choice as it is."""
    before = chosen_tier()
    if name is None or before is None or not has_tier(name):
        yield
        return
    BODIES[COMPILED]._set_tier(name)
    try:
        yield
    finally:
        BODIES[COMPILED]._set_tier(before)
