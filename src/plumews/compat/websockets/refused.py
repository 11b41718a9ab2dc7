"""Modules and names of the `websockets` package that do not exist here: their import says what to use instead.

Importing a module of :data:`MODULES` raises ``ModuleNotFoundError`` with its hint, by a finder behind all others. A
module that refuses names passes them to :func:`missing`, and has the result as its ``__getattr__``. Such a name raises
``ImportError``, because ``from module import name`` hides the text of an ``AttributeError``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType
from typing import Any, Final, NoReturn

__all__ = ["AUTH", "MODULES", "SANS_IO", "missing"]

SANS_IO: Final = "plumews has no protocol object without I/O: use serve() and its connections"
AUTH: Final = "use serve(process_request=basic_auth(...)), with basic_auth of plumews.compat.websockets"

_BLOCKING: Final = (
    "plumews has no blocking server: write the handler with async def, and import serve from "
    "plumews.compat.websockets.asyncio.server"
)
_INSIDE: Final = "it is an inside of the websockets package, and a connection has none of it"

#: Hint for each module that does not exist here. That of a package holds for its modules, too.
MODULES: Final = {
    **dict.fromkeys(("auth", "legacy.auth"), AUTH),
    **dict.fromkeys(("asyncio.messages", "connection", "imports", "legacy.framing", "legacy.handshake"), _INSIDE),
    **dict.fromkeys(("legacy.http", "streams", "utils"), _INSIDE),
    "cli": "use the plumews command",
    "extensions": "use serve(compression='deflate'), or serve(compression=plumews.Deflate(...)) for its parameters",
    "headers": "plumews checks and parses headers itself: use request.headers",
    "proxy": "use connect(proxy=...)",
    **dict.fromkeys(("sync.router", "sync.server"), _BLOCKING),
    **dict.fromkeys(("sync.messages", "sync.utils"), _INSIDE),
    "trio": "plumews runs on asyncio",
    "uri": "use urllib.parse.urlsplit",
}


class _RefusedModules(MetaPathFinder):
    """Finder that says what to use in place of a module."""

    def find_spec(self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> None:
        """Raise ``ModuleNotFoundError`` for a module of :data:`MODULES`."""
        root, _, name = fullname.partition(f"{__package__}.")
        if not root and name in MODULES:
            raise ModuleNotFoundError(f"there is no {fullname}: {MODULES[name]}", name=fullname)


sys.meta_path.append(_RefusedModules())


def missing(module: str, refused: Mapping[str, str]) -> Callable[[str], Any]:
    """Return the ``__getattr__`` of a module.

    Args:
        module: ``__name__`` of the module.
        refused: by name, what to use instead. Other names exist nowhere.
    """

    def __getattr__(name: str) -> NoReturn:  # noqa: N807
        if name in refused:
            raise ImportError(f"{module} has no {name}: {refused[name]}", name=module)
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return __getattr__
