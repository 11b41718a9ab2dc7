"""Telling a client process what to do, line by line, in JSON. The process itself is started as a server would be."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Callable, Iterator
from typing import Any

from ..harness.running import HOST, Failed
from ..instructions.lockstep import PATIENCE

#: Calls a method of the client by its name, and returns what that returns. Raises Failed if that raises.
Call = Callable[..., Any]


@contextlib.contextmanager
def control(port: int) -> Iterator[Call]:
    """Control the client process at ``port``."""
    with socket.create_connection((HOST, port), timeout=PATIENCE) as sock, sock.makefile() as lines:

        def call(name: str, *words: Any) -> Any:
            try:
                sock.sendall(json.dumps([name, *words]).encode() + b"\n")
                line = lines.readline()
            except OSError as exc:
                raise Failed(f"{name}: {exc}") from None
            if not line:
                raise Failed(f"{name}: the client has ended")
            answer = json.loads(line)
            if isinstance(answer, str):
                raise Failed(f"{name}: {answer}")
            return answer

        yield call
