"""Plain Python body of :mod:`plumews.transport.sendmsg`: many buffers to a socket in one system call."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

__all__ = ["send"]

#: Buffers of one call (POSIX guarantees 16, Linux and the BSDs take 1024).
_MOST = 1024


def send(fd: int, buffers: Sequence[Any]) -> int:
    """Write ``buffers`` to the non-blocking socket ``fd``. Return -1 if it took all, else how many bytes it took.

    An error counts as 0 bytes. The next write of the same bytes to the transport reports it.
    """
    size = sum(map(len, buffers))
    try:
        sent = os.writev(fd, buffers[:_MOST])
    except OSError:
        return 0
    return -1 if sent == size else sent
