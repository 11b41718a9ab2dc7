"""What the compiled half of plumews.wire exports; see ``_wire_py.py``."""

from collections.abc import Sequence
from typing import Any

def send(fd: int, buffers: Sequence[Any]) -> int: ...
