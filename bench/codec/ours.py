"""Our two bodies, by the names that they have in the results; where none was compiled, the plain one alone."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

COMPILED = "plumews"
PURE = "plumews pure"

_MODULES = {COMPILED: "plumews._codec", PURE: "plumews._codec_py"}

#: The modules that implement the codec, by name.
BODIES: dict[str, Any] = {
    name: importlib.import_module(module) for name, module in _MODULES.items() if importlib.util.find_spec(module)
}
