"""Process of clients that crowd a server, beside the measured ones, on the core of the load."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

from ..harness.running import ROOT, Failed, Server, cores


@contextlib.contextmanager
def crowd(server: Server, module: str, *words: str, ready: str) -> Iterator[None]:
    """The clients of ``module`` on ``server``, from their line ``ready`` to the end of the ``with``.

    Raises:
        Failed: they cannot all connect.
    """
    core = {cores()[1]}
    with subprocess.Popen(
        [sys.executable, "-m", module, str(server.port), *words],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, core),
    ) as process:
        assert process.stdout is not None
        is_ready = process.stdout.readline() == f"{ready}\n"
        try:
            if is_ready:
                yield
        finally:
            _, errors = process.communicate()  # closes its input, which ends it
        if not is_ready or process.returncode:
            raise Failed(f"{server.contender.name}: {module} failed: {errors.strip()[-500:]}")
