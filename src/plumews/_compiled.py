"""Selection of the body: all modules compiled, or all in plain Python.

A compiled module shadows its source file. A pure process imports each module of the package from its source.
Invariant: a process uses either all compiled modules or none. They know each other's C structures, so that a mixed
process would misread memory.
"""

from __future__ import annotations

import importlib
import os
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
from typing import Any, Literal

__all__ = ["BODY", "COMPILED", "SHORT_WAYS", "all_compiled", "forbid_new", "only_sources", "select_body", "short_ways"]

#: Modules that setup.py compiles, by their names within the package. setup.py and the scripts read this list.
COMPILED = (
    "_codec",
    "conn.awaitables",
    "conn.capi",
    "conn.config_values",
    "conn.core",
    "conn.keepalive",
    "conn.opening",
    "conn.receive_queue",
    "deflate.inbound",
    "deflate.outbound",
    "deflate.streams",
    "http11.handshake",
    "http11.head_scan",
    "http11.origin",
    "http11.parser",
    "http11.request",
    "http11.websocket_key",
    "hub.fanout",
    "protocol.message",
    "protocol.state",
    "rate_limit",
    "server.admission",
    "server.context",
    "server.handshake",
    "server.responder",
    "transport.awaitable",
    "transport.channel",
    "transport.displacing",
    "transport.flow_control",
    "transport.loop_context",
    "transport.read_waiter",
    "transport.send_queue",
    "transport.timers",
    "transport.tls",
    "transport.tls_records",
)

#: Compiled short ways of modules that also run without them. They use sockets as descriptors, which Windows has not.
SHORT_WAYS = ("conn._closing", "conn._core", "conn._opening", "transport._masking", "transport._sendmsg")

#: Body that this process uses. :func:`select_body` sets it before any other module of the package is imported.
BODY: Literal["compiled", "pure"] = "pure"

#: Flag of a class that a ``class`` statement of Python has made.
_HEAP_TYPE = 1 << 9

_PACKAGE = __name__.rpartition(".")[0]
_FOLDER = Path(__file__).parent


class _Sources:
    """Finder for the modules of this package that ignores compiled ones."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith(f"{_PACKAGE}."):
            return None
        for folder in path or ():
            spec = FileFinder(folder, (SourceFileLoader, SOURCE_SUFFIXES)).find_spec(fullname)
            if spec is not None:
                return spec
        return None


def all_compiled() -> bool:
    """Return True if all modules of :data:`COMPILED` are built. Warn about a build that has only some of them."""
    missing = [name for name in COMPILED if not _is_built(name)]
    if missing and len(missing) < len(COMPILED):
        warnings.warn(
            f"plumews is compiled in part, without {', '.join(missing)}: plain Python is used. Install it again.",
            RuntimeWarning,
            stacklevel=2,
        )
    return not missing


def _is_built(name: str) -> bool:
    folders, _, stem = name.rpartition(".")
    finder = FileFinder(str(_FOLDER.joinpath(*folders.split("."))), (ExtensionFileLoader, EXTENSION_SUFFIXES))
    return finder.find_spec(stem) is not None


def only_sources() -> None:
    """Make later imports of modules of this package use their sources."""
    if not any(isinstance(finder, _Sources) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Sources())


def short_ways(name: str) -> Any:
    """Return the module ``name`` of :data:`SHORT_WAYS`, or ``None`` to use its general way alone.

    ``PLUMEWS_SHORT_WAYS=0`` in the environment switches all of them off.
    """
    if BODY == "pure" or os.environ.get("PLUMEWS_SHORT_WAYS") == "0":
        return None
    try:
        return importlib.import_module(f"{_PACKAGE}.{name}")
    except ImportError:
        return None


def select_body() -> Literal["compiled", "pure"]:
    """Set and return :data:`BODY`: "pure" if ``PLUMEWS_PURE`` is set (neither empty nor "0") or a module is missing.

    In an interpreter other than the first one of the process the compiled codec refuses to be imported: pure, too.
    """
    global BODY
    BODY = "pure"
    if os.environ.get("PLUMEWS_PURE", "") in ("", "0") and all_compiled():
        try:
            importlib.import_module(f"{_PACKAGE}._codec")
            BODY = "compiled"
        except ImportError:
            pass
    if BODY == "pure":
        only_sources()
    return BODY


def forbid_new() -> None:
    """Make ``cls.__new__`` of the compiled classes raise TypeError: only a call of the class makes an object.

    Compiled methods do not check that ``__init__`` has set a field, and would crash the process without it.
    """
    if BODY == "pure":
        return
    remove_new = importlib.import_module(f"{_PACKAGE}.conn.capi").remove_new
    names = [f"{_PACKAGE}.{name}" for name in COMPILED + SHORT_WAYS]
    for module in [sys.modules[name] for name in names if name in sys.modules]:
        for value in list(vars(module).values()):
            if isinstance(value, type) and value.__module__ == module.__name__ and not value.__flags__ & _HEAP_TYPE:
                remove_new(value)
