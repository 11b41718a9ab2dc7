"""Starting and stopping the servers and the load. Everything is on 127.0.0.1, and is stopped by its process id."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from .contender import Contender

ROOT = Path(__file__).parent.parent.parent
HOST = "127.0.0.1"
START_TIMEOUT = 60.0  # FastAPI is imported while others use the core


class Failed(Exception):
    """A server did not start, or the load was not answered rightly."""


def cores() -> tuple[int, int]:
    """The server's and the load's: different ones, where there are two."""
    usable = sorted(os.sched_getaffinity(0))
    return usable[0], usable[-1]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        port: int = sock.getsockname()[1]
        return port


class Server:
    """A contender's server process. ``with``: it is gone at the end."""

    def __init__(self, contender: Contender, load: Load, environment: dict[str, str] | None = None) -> None:
        self.contender = contender
        self.port = free_port()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 -- closed by stop()
        words = [contender.servers, contender.kind, contender.loop or "-", str(self.port), str(cores()[0])]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.harness.serve", *words],
            cwd=ROOT,
            env={**os.environ, "BENCH_LOAD": str(load.path), **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_ready(self) -> None:
        """Wait until the server listens.

        Raises:
            Failed: it ended, or took too long.
        """
        output = self._process.stdout
        assert output is not None
        readable, _, _ = select.select([output], [], [], START_TIMEOUT)
        if not readable or output.readline() != b"ready\n":
            raise Failed(f"{self.contender.name} does not start: {self.errors()}")

    def errors(self) -> str:
        """The end of what it wrote to its standard error."""
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace")[-2000:].strip()

    def rest(self) -> None:
        """Take no processor time while others are measured."""
        self._process.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def memory(self) -> int:
        """Bytes that are its own: its proportional share, or where the kernel does not say, what is resident."""
        try:
            lines = Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines()
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
        except (OSError, StopIteration):
            pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
            return pages * os.sysconf("SC_PAGE_SIZE")

    def stop(self) -> None:
        if self._process.poll() is None:
            self.wake()
            self._process.terminate()
            try:
                self._process.wait(2)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._errors.close()

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.stop()


@dataclass(frozen=True)
class Load:
    """The load generator, ``path`` being what was compiled."""

    path: Path

    def _start(self, server: Server, mode: str, words: dict[str, Any]) -> subprocess.Popen[str]:
        options = {"port": server.port, "raw": server.contender.raw, **words}
        command = [str(self.path), mode]
        for name, value in options.items():
            option = f"--{name.replace('_', '-')}"
            if isinstance(value, bool):
                command += [option] * value
            else:
                command += [option, str(value)]
        core = {cores()[1]}
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, core),
        )

    def run(self, server: Server, mode: str, **words: Any) -> dict[str, Any]:
        """Put load on ``server``; what was measured. Names of options are written with ``_``, a flag is a bool.

        Raises:
            Failed: an echo was wrong or did not come.
        """
        with self._start(server, mode, {"pid": server.pid, **words}) as process:
            return self._result(server, process)

    def _result(self, server: Server, process: subprocess.Popen[str]) -> dict[str, Any]:
        output, errors = process.communicate()  # closes its input
        if process.returncode != 0:
            raise Failed(f"{server.contender.name}: {errors.strip() or process.returncode} {server.errors()}".strip())
        result: dict[str, Any] = json.loads(output or "{}")
        return result

    @contextlib.contextmanager
    def hold(self, server: Server, mode: str, **words: Any) -> Iterator[dict[str, Any]]:
        """As :meth:`run`, but it goes on until the end of the ``with``: the dict is what it said when it had begun, and
        at the end also what was measured.

        Raises:
            Failed: it could not begin, or as :meth:`run` at the end.
        """
        with self._start(server, mode, {"pid": server.pid, **words}) as process:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                self._result(server, process)
                raise Failed(f"{server.contender.name}: it ends before it has begun")
            result: dict[str, Any] = json.loads(line)
            yield result
            result |= self._result(server, process)
