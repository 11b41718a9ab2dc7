"""The command `plumews` as a process of its own, for tests that start it, talk to it and stop it.

It runs the same copy of the package as the tests, with warnings as errors. A `Command` looks enough like a server
for `wire.Wire` to connect to it.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

import plumews

#: Signals that ask for a stop, by name: on Windows only a console event reaches another process.
STOP_SIGNALS: dict[str, int] = (
    {"CTRL_BREAK_EVENT": signal.CTRL_BREAK_EVENT}
    if sys.platform == "win32"
    else {"SIGINT": signal.SIGINT, "SIGTERM": signal.SIGTERM}
)

_NEW_GROUP: dict[str, Any] = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP} if sys.platform == "win32" else {}


class Command:
    """``python -m plumews ARGS``; as a context manager it does not outlive the test."""

    def __init__(self, *args: str) -> None:
        path = str(Path(plumews.__file__).parent.parent)
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "plumews", *args],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            env={**os.environ, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"},
            **_NEW_GROUP,
        )
        self.announced: list[str] = []
        self.url = ""

    def line(self) -> str:
        """The next line on stdout."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the command ended: {self.end()}"
        return line.rstrip("\n")

    def started(self) -> Command:
        """Wait until it listens, and read what it announces."""
        self.announced = [self.line(), self.line()]
        self.url = self.announced[0].split(" ")[4]
        return self

    @property
    def port(self) -> int:
        return int(self.url.split("/")[2].rpartition(":")[2])

    def stop(self, number: int | None = None) -> None:
        """Send a signal; the first of `STOP_SIGNALS` by default."""
        self.process.send_signal(next(iter(STOP_SIGNALS.values())) if number is None else number)

    def end(self) -> tuple[int, list[str], list[str]]:
        """Wait for the end: exit code, and what is left of stdout and stderr in lines."""
        out, err = self.process.communicate(timeout=120)
        return self.process.returncode, out.splitlines(), err.splitlines()

    def __enter__(self) -> Command:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()

    # --- what `Wire.connect` asks of a server -----------------------------------------------------

    @property
    def sockets(self) -> tuple[Command]:
        return (self,)

    @property
    def family(self) -> socket.AddressFamily:
        return socket.AF_INET

    def getsockname(self) -> str | tuple[str, int]:
        return self.url.removeprefix("unix:") if self.url.startswith("unix:") else ("127.0.0.1", self.port)
