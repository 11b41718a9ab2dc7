"""Names of the `websockets` package that do not exist here: the error of an import says what to use instead.

A module passes its names to :func:`missing`, and has the result as its ``__getattr__``. A known name raises
``ImportError``, because ``from module import name`` hides the text of an ``AttributeError``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn

__all__ = ["AUTH", "BLOCKING", "CLIENT", "EXTENSIONS", "PROXY", "SANS_IO", "URI", "missing"]

CLIENT: Final = (
    "plumews has no client in this version: import the client from the websockets package, which works with a server "
    "of plumews"
)
BLOCKING: Final = (
    "plumews has no blocking server: write the handler with async def, and import serve from "
    "plumews.compat.websockets.asyncio.server"
)
SANS_IO: Final = "plumews has no protocol object without I/O: use serve() and its connections"
EXTENSIONS: Final = "use serve(compression='deflate'), or serve(compression=plumews.Deflate(...)) for its parameters"
AUTH: Final = "use serve(process_request=basic_auth(...)), with basic_auth of plumews.compat.websockets"
PROXY: Final = f"proxies are for clients, and {CLIENT}"
URI: Final = "use urllib.parse.urlsplit"


def missing(module: str, refused: Mapping[str, str], rest: str = "") -> Callable[[str], Any]:
    """Return the ``__getattr__`` of a module.

    Args:
        module: ``__name__`` of the module.
        refused: by name, what to use instead.
        rest: hint for all other names; they exist nowhere if it is empty (default).
    """

    def __getattr__(name: str) -> NoReturn:  # noqa: N807
        hint = refused.get(name) or ("" if name.startswith("__") else rest)
        if hint:
            raise ImportError(f"{module} has no {name}: {hint}", name=module)
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return __getattr__
