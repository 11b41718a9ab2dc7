"""Plain Python where compiled modules lie beside it (layer 0): what ``PLUMEWS_PURE`` promises.

A compiled module shadows the source that it was made of. Once :func:`only_sources` was called, each module of the
package is imported from its source. Invariant: a process has either all compiled bodies or none, because they know
each other's insides: one that takes a Python object for the C structure of the same name reads its memory wrongly.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib.machinery import (
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    ModuleSpec,
    SourceFileLoader,
)
from pathlib import Path
from types import ModuleType

__all__ = ["COMPILED", "all_compiled", "only_sources"]

#: What setup.py compiles, but for `_wire`, which not every system has and nobody knows the insides of.
COMPILED = (
    "_codec",
    "attributes",
    "awaits",
    "compression",
    "context",
    "deflating",
    "displacing",
    "engine",
    "fanout",
    "flow_control",
    "inbox",
    "inflating",
    "inflow",
    "keepalive",
    "loopstate",
    "outgoing",
    "outlet",
    "pacing",
    "protocol",
    "ready",
    "sendqueue",
    "steps",
    "writer",
)

_PACKAGE = __name__.rpartition(".")[0]
_FOLDER = str(Path(__file__).parent)


class _Sources:
    """A finder for this package that sees no compiled modules."""

    def __init__(self) -> None:
        self._finder = FileFinder(_FOLDER, (SourceFileLoader, SOURCE_SUFFIXES))

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.rpartition(".")[0] != _PACKAGE:
            return None
        return self._finder.find_spec(fullname)


def all_compiled() -> bool:
    """Whether all that can be compiled is there in that form. Some of it is a broken build: it is told of, and left."""
    finder = FileFinder(_FOLDER, (ExtensionFileLoader, EXTENSION_SUFFIXES))
    missing = [name for name in COMPILED if finder.find_spec(f"{_PACKAGE}.{name}") is None]
    if missing and len(missing) < len(COMPILED):
        warnings.warn(
            f"plumews is compiled in part, without {', '.join(missing)}: plain Python is used. Install it again.",
            RuntimeWarning,
            stacklevel=2,
        )
    return not missing


def only_sources() -> None:
    """Import what is still to be imported of this package from its sources."""
    if not any(isinstance(finder, _Sources) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Sources())
