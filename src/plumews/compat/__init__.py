"""Import paths and names of other packages, over plumews: ``plumews.compat.websockets``.

May import the root vocabulary, the packages up to ``conn``, and ``server``. Programs import the modules below it.
Nothing else imports this package, so it costs nothing unless a program does.
"""

from __future__ import annotations

import importlib


def __getattr__(name: str) -> object:
    """Import ``websockets`` when it is first used."""
    if name == "websockets":
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name)
