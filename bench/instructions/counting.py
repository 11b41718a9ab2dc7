"""Servers under callgrind, and what they execute between two moments."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from ..harness.running import ROOT, Failed, free_port
from ..harness.tools import available, build_dump
from .rows import Driven

#: Seconds for a server to start or to end, and for callgrind to write its counts.
PATIENCE = 60.0
TOTALS = re.compile(r"^totals: (\d+)", re.MULTILINE)


def missing() -> str | None:
    """What this machine lacks to count instructions, in words; None if nothing."""
    if shutil.which("valgrind") is None:
        return "valgrind is not installed"
    return None if available() else "this needs Linux and a C compiler"


class Counted:
    """A server process under callgrind. ``with``: it is gone at the end.

    Args:
        module: with the servers.
        kind: the function of it.
        loop: ``uvloop``, ``asyncio``, or ``-`` for a server that brings its own.
        source: of the package that is counted.
        load: the compiled load generator, for the server that is part of it.
        environment: of the process, in addition.

    Raises:
        Failed: it does not start.
    """

    def __init__(
        self,
        module: str,
        kind: str,
        loop: str,
        *,
        source: Path = ROOT / "src",
        load: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.port = free_port()
        self._name = f"{kind}, {loop}"
        self._dumps = 0
        self._stack = contextlib.ExitStack()
        with contextlib.ExitStack() as stack:
            self._directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            self._errors: BinaryIO = stack.enter_context((self._directory / "errors").open("w+b"))
            counts = f"--callgrind-out-file={self._directory}/out"
            command = ["valgrind", "--tool=callgrind", "--trace-children=yes", "--dump-before=bench_dump", counts]
            serve = ["-m", "bench.harness.serve", module, kind, loop, str(self.port), "-"]
            self._process = subprocess.Popen(
                [*command, sys.executable, *serve],
                cwd=ROOT,
                env={
                    **os.environ,
                    "PYTHONPATH": str(source),
                    "PYTHONHASHSEED": "0",
                    "PYTHONDONTWRITEBYTECODE": "1",
                    "LD_PRELOAD": str(build_dump(self._directory)),
                    "BENCH_LOAD": str(load or ""),
                    # Where a slice ends decides how many messages leave in one write: under callgrind, after a few.
                    "BENCH_WITHOUT_SLICES": "1",
                    **(environment or {}),
                },
                stdout=subprocess.PIPE,
                stderr=self._errors,
            )
            stack.callback(self._stop)
            assert self._process.stdout is not None
            if self._process.stdout.readline() != b"ready\n":
                raise Failed(f"{self._name} does not start under callgrind: {self._said()}")
            self._stack = stack.pop_all()

    def _said(self) -> str:
        """The end of what it wrote to its standard error."""
        self._errors.seek(0)
        return self._errors.read()[-2000:].decode(errors="replace")

    def _stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def __enter__(self) -> Counted:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._stack.close()

    def _dump(self) -> int:
        """Return the instructions since the last dump.

        Raises:
            Failed: callgrind writes none.
        """
        self._dumps += 1
        self._process.send_signal(signal.SIGUSR2)
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and self._process.poll() is None:
            # with --trace-children the process may have become another program, which counts dumps anew
            for path in self._directory.glob(f"out*.{self._dumps}"):
                found = TOTALS.search(path.read_text(errors="replace"))
                if found:
                    return int(found[1])
            time.sleep(0.01)
        raise Failed(f"callgrind says nothing of {self._name}: {self._said()}")

    def during(self, work: Callable[[], object]) -> int:
        """Return the instructions that the server executes while ``work`` runs."""
        self._dump()
        work()
        return self._dump()

    def instructions(self, driven: Driven, *, raw: bool = False, tls: bool = False) -> float:
        """Return the instructions for one message, delivery or connect.

        Raises:
            Failed: it did not answer, or ended.
        """
        with contextlib.ExitStack() as stack:
            try:
                drive = driven.connect(stack, self.port, raw=raw, tls=tls)
                drive(driven.few)
                return self.during(lambda: drive(driven.batches)) / (driven.batches * driven.messages)
            except OSError as exc:
                raise Failed(f"{self._name}: {exc}; {self._said()}") from None
