"""The compiled helpers: the load generator, and the counter of system calls. Built anew for each run, in a second."""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
OPENSSL = ("-DWITH_TLS", "-lssl", "-lcrypto")


class CannotBuild(Exception):
    """There is no C compiler, or it did not like what it got."""


def available() -> bool:
    """Return True if this machine can run them: Linux, for epoll and CPU clocks, and a C compiler."""
    return sys.platform == "linux" and shutil.which(compiler()) is not None


def compiler() -> str:
    return os.environ.get("CC", "cc")


def _compile(words: list[str], result: Path) -> Path:
    command = [compiler(), "-O2", "-Wall", "-Wextra", "-o", str(result), *words]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    except FileNotFoundError:
        raise CannotBuild(f"no C compiler: {compiler()} is not there") from None
    except subprocess.CalledProcessError as exc:
        raise CannotBuild(exc.stderr) from None
    return result


@functools.cache
def has_openssl() -> bool:
    """Return True if the load generator can be compiled with TLS: OpenSSL's headers are there."""
    with tempfile.TemporaryDirectory() as directory:
        source = Path(directory, "probe.c")
        source.write_text(
            "#include <openssl/ssl.h>\nint main(void) { return SSL_CTX_new(TLS_client_method()) == 0; }\n"
        )
        try:
            _compile([str(source), *OPENSSL], Path(directory, "probe"))
        except CannotBuild:
            return False
    return True


def build_load(directory: Path) -> Path:
    """Compile the load generator into ``directory``; with TLS where OpenSSL's headers are there."""
    sources = [str(source) for source in sorted((HERE / "load").glob("*.c"))]
    return _compile([*sources, *(OPENSSL if has_openssl() else ())], directory / "load")


def build_counter(directory: Path) -> Path:
    """Compile what counts the system calls of a server, to be preloaded."""
    return _compile(["-shared", "-fPIC", str(HERE / "counter.c"), "-ldl"], directory / "counter.so")


def build_dump(directory: Path) -> Path:
    """Compile what lets callgrind dump the counts of a server, to be preloaded."""
    source = HERE.parent / "instructions" / "dump.c"
    return _compile(["-shared", "-fPIC", str(source)], directory / "dump.so")


def build_uws(directory: Path) -> Path:
    """Compile the echo server on uWebSockets, which is a library in socketify's wheel.

    Raises:
        CannotBuild: socketify is not installed, or has no library for this machine.
    """
    spec = importlib.util.find_spec("socketify")
    places = (spec.submodule_search_locations or []) if spec else []
    library = next((path for place in places for path in Path(place).glob("libsocketify_linux_*.so")), None)
    if library is None:
        raise CannotBuild("socketify is not installed, or has no library for this machine")
    source = HERE.parent / "client" / "uws.c"
    return _compile([str(source), str(library), f"-Wl,-rpath,{library.parent}"], directory / "uws")
