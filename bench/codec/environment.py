"""Description of the machine of a run, without host names and paths."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterable
from pathlib import Path

from .ours import chosen_tier

PEERS = ("websockets", "picows", "aiohttp", "wsproto")


def processor() -> str:
    """The CPU as it names itself."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def version(package: str) -> str:
    """The installed version of a peer."""
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return f"{package} not installed"


def lines(peers: Iterable[str] = PEERS) -> list[str]:
    """The environment, a line a thing."""
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return [
        f"Processor: {processor()} ({platform.machine()}, {os.cpu_count()} CPUs{load})",
        f"Python: {platform.python_implementation()} {platform.python_version()}, {platform.python_compiler()}",
        f"Kernels of the compiled codec: {chosen_tier() or 'not built'}",
        f"Peers: {', '.join(version(peer) for peer in peers)}",
    ]
