"""Interface of the compiled body of plumews.transport.sendmsg; see ``_sendmsg_py.py``."""

from collections.abc import Sequence
from typing import Any

def send(fd: int, buffers: Sequence[Any]) -> int: ...
