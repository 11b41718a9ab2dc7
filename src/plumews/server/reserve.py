"""A descriptor kept for the moment when there are no others (layer 5).

Where a process has as many descriptors as it may have, a client in the backlog can be neither accepted nor told so, and
a loop that is woken for it spins. With one descriptor in reserve it can be: let go of it, accept, close, take it back.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Callable
from typing import Final

from .. import limits

__all__ = ["EXHAUSTED", "SpareDescriptor"]

#: What `accept` says when the process, or the machine, has no descriptor or no memory for one more.
EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class SpareDescriptor:
    """One descriptor, until :meth:`close`."""

    def __init__(self) -> None:
        self._held: int | None = None
        self._take()

    def turn_away(self, listening: socket.socket, tell: Callable[[socket.socket], None]) -> int:
        """Accept those in the backlog, a bounded number, one after the other; how many it were.

        ``tell`` must close each. Somebody else in this process may get the descriptor first: then it were fewer.
        """
        turned = 0
        self.close()
        with contextlib.suppress(OSError):
            while turned < limits.ACCEPTS_AT_ONCE:
                sock, _ = listening.accept()
                turned += 1
                tell(sock)
        self._take()
        return turned

    def close(self) -> None:
        """Let go of it."""
        if self._held is not None:
            os.close(self._held)
            self._held = None

    def _take(self) -> None:
        with contextlib.suppress(OSError):
            self._held = os.open(os.devnull, os.O_RDONLY)
