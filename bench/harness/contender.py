"""Contender of a server benchmark: a name, and the packages that it needs."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Contender:
    """One server: ``kind`` is its function in the module ``servers``, ``loop`` what it runs on."""

    servers: ClassVar[str]

    kind: str
    loop: str | None
    package: str
    quick: bool = True  # takes part in a quick look
    tls: bool = False  # takes part in rows over TLS
    counted: bool = False  # its instructions are counted where valgrind is

    @property
    def name(self) -> str:
        """As it stands in bars and tables."""
        words = self.kind.replace("_", " ").replace("raw", "raw TCP")
        return f"{words}, {self.loop}" if self.loop else words

    @property
    def raw(self) -> bool:
        """Sends what it gets and knows nothing of WebSockets: the limit of the loop."""
        return self.kind == "raw"

    @property
    def ours(self) -> bool:
        return self.package == "plumews"

    @property
    def installed(self) -> bool:
        needed = {self.package, self.loop or "asyncio"}
        return all(importlib.util.find_spec(package) is not None for package in needed)
