"""Plain Python body of :mod:`plumews.transport.sendmsg`: many buffers to a socket in one system call."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

__all__ = ["send"]

#: Buffers that one call takes on every system that has it (POSIX asks for 16, Linux and the BSDs have 1024).
_MOST = 1024


def send(fd: int, buffers: Sequence[Any]) -> int:
    """Write ``buffers``, bytes-like objects, to the non-blocking socket ``fd``, as far as it takes them at once.

    Returns -1 if it took everything, else how many bytes. An error counts as 0 bytes: whoever writes the same to
    the transport next finds out what it is.
    """
    size = sum(map(len, buffers))
    try:
        sent = os.writev(fd, buffers[:_MOST])
    except OSError:
        return 0
    return -1 if sent == size else sent
