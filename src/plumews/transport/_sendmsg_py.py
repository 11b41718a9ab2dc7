"""Plain Python body of :mod:`plumews.transport.sendmsg`: many buffers to a socket in one system call."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Sequence
from typing import Any

__all__ = ["Batch", "send"]

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


class Batch:
    """What is to be written to many sockets, by as many threads as are there to help.

    Each socket is written to once, by one of them. Whose batch it is calls :meth:`finish`; until that is over no
    descriptor may be closed and no queue may change. Who comes to help later than that finds nothing left to do.
    """

    __slots__ = ("_fds", "_helping", "_idle", "_left", "_queues", "sent")

    def __init__(self, fds: list[int], queues: list[list[Any]]) -> None:
        if len(queues) != len(fds):
            raise ValueError("a batch has as many queues as descriptors")
        self._fds = fds
        self._queues = queues
        self._left = deque(range(len(fds)))
        self._helping = 0
        self._idle = threading.Condition()
        #: For each socket what :func:`send` would have returned, once all is finished; -2 if that is not known.
        self.sent = [-2] * len(fds)

    def help(self) -> None:
        """Write to sockets that nobody else has taken, until there is none; from any thread."""
        with self._idle:
            self._helping += 1  # before one is taken: who finds none left and nobody helping has seen all of them
        try:
            self._work()
        finally:
            with self._idle:
                self._helping -= 1
                self._idle.notify_all()

    def finish(self) -> None:
        """Do the same, and wait for the others."""
        interruption: BaseException | None = None
        while True:
            try:
                self._work()
                with self._idle:
                    while self._helping:
                        self._idle.wait()
                break
            except BaseException as exc:  # from the handler of a signal: the others are still at it
                interruption = exc
        if interruption is not None:
            raise interruption

    def _work(self) -> None:
        while self._left:
            try:
                place = self._left.popleft()
            except IndexError:  # another thread was quicker
                return
            with contextlib.suppress(MemoryError):  # before the call of the system, or behind it
                self.sent[place] = send(self._fds[place], self._queues[place])
