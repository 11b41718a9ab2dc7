"""Process of `faulty_server.py`: a server that tells in a line of JSON what it knows of itself, when it is asked."""

from __future__ import annotations

import json
import os
import select
import ssl
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

import plumews
from support.command import certificate

HERE = Path(__file__).parent


class ServerProcess:
    """Server in a process of its own, until the end of the ``with``.

    Args:
        folder: for its certificate and what it writes to stderr.
        uvloop: True runs it on uvloop, False on asyncio's loop.
        patience: seconds after which an answer is overdue.
        environment: variables of the process beside those of this one.
    """

    def __init__(self, folder: Path, *, uvloop: bool, patience: float, environment: dict[str, str]) -> None:
        chain, key = certificate(folder)
        self.tls = ssl.create_default_context(cafile=str(chain))
        self._patience = patience
        self._errors = (folder / "errors").open("w+b")
        path = os.pathsep.join((str(Path(plumews.__file__).parent.parent), str(HERE.parent)))
        pure = "1" if plumews.BODY == "pure" else ""
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-W", "error", str(HERE / "faulty_server.py")),
                *("uvloop" if uvloop else "asyncio", str(chain), str(key)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, "PYTHONPATH": path, "PLUMEWS_PURE": pure, **environment},
        )
        self.ports: dict[str, int] = self._line()

    def _line(self) -> Any:
        assert self._process.stdout is not None
        answers, _, _ = select.select([self._process.stdout], [], [], self._patience)
        line = self._process.stdout.readline() if answers else b""
        assert line, self.errors()
        return json.loads(line)

    def report(self, kind: bytes = b"") -> dict[str, Any]:
        """Return what the server knows of itself."""
        assert self._process.stdin is not None
        self._process.stdin.write(kind + b"\n")
        self._process.stdin.flush()
        report: dict[str, Any] = self._line()
        return report

    def errors(self) -> str:
        """Return what the server has written to stderr."""
        self._errors.seek(0)
        return self._errors.read().decode()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()
