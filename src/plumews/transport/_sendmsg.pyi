"""What the compiled half of plumews.transport.sendmsg exports; see ``_wire_py.py``."""

from collections.abc import Sequence
from typing import Any

def send(fd: int, buffers: Sequence[Any]) -> int: ...
