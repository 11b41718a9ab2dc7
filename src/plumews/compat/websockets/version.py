"""Version of the `websockets` package whose names these are, for programs that compare it."""

from __future__ import annotations

from typing import Final

__all__ = ["commit", "tag", "version"]

#: Version of the `websockets` package that this tree was compared with.
version: Final = "17.4"
tag: Final = version
commit: Final = version
