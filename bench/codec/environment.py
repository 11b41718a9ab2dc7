"""Description of the machine of a run, without host names and paths."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import ssl
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import plumews

from .ours import chosen_tier

PEERS = ("websockets", "picows", "aiohttp", "wsproto")
CPU_INFO = Path("/proc/cpuinfo")
#: Caches of the first core, on Linux.
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
#: Names of instruction sets for vectors and ciphers in the CPU's flags, of x86 and of ARM.
VECTORS = re.compile(r"sse4_2|avx\w*|amx_\w+|gfni|vaes|vpclmulqdq|asimd\w*|neon|sve\w*")
UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def cpu_info() -> dict[str, str]:
    """The fields of the first CPU in /proc/cpuinfo; none elsewhere than on Linux."""
    try:
        first = CPU_INFO.read_text(errors="replace").partition("\n\n")[0]
    except OSError:
        return {}
    fields = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in fields}


def sysctl(name: str) -> str:
    """A value of macOS, or ``""`` where there is none."""
    if sys.platform != "darwin":
        return ""
    try:
        done = subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def processor() -> str:
    """The CPU as it names itself, with family, model and stepping where it has them."""
    info = cpu_info()
    name = info.get("model name") or sysctl("machdep.cpu.brand_string") or platform.processor() or platform.machine()
    numbers = {"family": "cpu family", "model": "model", "stepping": "stepping"}
    return ", ".join([name, *(f"{word} {info[field]}" for word, field in numbers.items() if field in info)])


def size_of(size: int) -> str:
    """Bytes in the largest unit that has no fraction."""
    unit, word = next((unit, word) for unit, word in ((1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B")) if not size % unit)
    return f"{size // unit} {word}"


def listed(text: str) -> int:
    """How many numbers a list of the kernel has: ``0-1,4`` are three."""
    ends = [part.partition("-") for part in text.strip().split(",")]
    return sum(int(last or first) - int(first) + 1 for first, _, last in ends)


def linux_caches() -> list[str]:
    """Each cache of the first core; one that several CPUs share says so."""
    found = []
    for index in sorted(CACHES.glob("index[0-9]*")):
        try:
            level, kind, size, shared = (
                (index / name).read_text().strip() for name in ("level", "type", "size", "shared_cpu_list")
            )
            letter = {"Data": "d", "Instruction": "i"}.get(kind, "")
            size_in_bytes = int(size.rstrip("KMG")) * UNITS.get(size[-1], 1)
            users = listed(shared)
        except (OSError, ValueError):
            continue
        found.append(f"L{level}{letter} {size_of(size_in_bytes)}" + (f" for {users} CPUs" if users > 1 else ""))
    return found


def caches() -> str:
    """The caches of one core."""
    found = linux_caches()
    for name, word in (("l1dcachesize", "L1d"), ("l1icachesize", "L1i"), ("l2cachesize", "L2"), ("l3cachesize", "L3")):
        size = sysctl(f"hw.{name}")
        if size.isdigit() and int(size):
            found.append(f"{word} {size_of(int(size))}")
    return ", ".join(found) or "unknown"


def vector_extensions() -> str:
    """The CPU's instructions for vectors."""
    info = cpu_info()
    flags = info.get("flags") or info.get("Features") or sysctl("machdep.cpu.features").lower()
    return " ".join(flag for flag in flags.split() if VECTORS.fullmatch(flag)) or "unknown"


def version(package: str) -> str:
    """The installed version of a package."""
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return f"{package} not installed"


def libraries() -> list[str]:
    """What the servers stand on, with versions."""
    libc = " ".join(platform.libc_ver()).strip()
    return [f"plumews {plumews.__version__}", " ".join(ssl.OPENSSL_VERSION.split()[:2]), *([libc] if libc else [])]


def lines(peers: Iterable[str] = PEERS) -> list[str]:
    """The environment, a line a thing."""
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return [
        f"Processor: {processor()} ({platform.machine()}, {os.cpu_count()} CPUs{load})",
        f"Caches of a core: {caches()}",
        f"Vector extensions: {vector_extensions()}",
        f"Python: {platform.python_implementation()} {platform.python_version()}, {platform.python_compiler()}",
        f"Libraries: {', '.join(libraries())}",
        f"Kernels of the compiled codec: {chosen_tier() or 'not built'}",
        f"Peers: {', '.join(version(peer) for peer in peers)}",
    ]
