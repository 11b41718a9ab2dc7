"""Plain Python where compiled modules lie beside it (layer 0): what ``PLUMEWS_PURE`` promises.

A compiled module shadows the source that it was made of. Once :func:`only_sources` was called, each module of the
package is imported from its source, so that a process has either all compiled bodies or none.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import SOURCE_SUFFIXES, FileFinder, ModuleSpec, SourceFileLoader
from pathlib import Path
from types import ModuleType

__all__ = ["only_sources"]

_PACKAGE = __name__.rpartition(".")[0]


class _Sources:
    """A finder for this package that sees no compiled modules."""

    def __init__(self) -> None:
        self._finder = FileFinder(str(Path(__file__).parent), (SourceFileLoader, SOURCE_SUFFIXES))

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.rpartition(".")[0] != _PACKAGE:
            return None
        return self._finder.find_spec(fullname)


def only_sources() -> None:
    """Import what is still to be imported of this package from its sources."""
    if not any(isinstance(finder, _Sources) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Sources())
