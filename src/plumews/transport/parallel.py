"""Threads that help the thread of an event loop to send (layer 3).

They know descriptors and bytes alone: the system calls are made without the GIL, and the loop's thread, which does its
part, waits until all are made. Nobody waits for a thread to begin, so that one that is late, or was lost in a fork, or
could never be started, only helps less. Invariants: none is started before there is something to do; none outlives
those who want it, or the loop.
"""

from __future__ import annotations

import logging
import threading

from .sendmsg import Batch

__all__ = ["SendingThreads"]

logger = logging.getLogger("plumews.hub")


class SendingThreads:
    """The threads of one loop. Used by the loop's thread alone."""

    def __init__(self) -> None:
        self._wanted: list[int] = []
        self._helpers: list[_Helper] = []
        self._refused = False

    def want(self, count: int) -> None:
        """Let there be ``count`` threads, or as many as somebody else wants."""
        self._wanted.append(count)

    def give_up(self, count: int) -> int:
        """One who wanted ``count`` does not want them any more; how many there may still be. The others are gone."""
        self._wanted.remove(count)
        most = max(self._wanted, default=0)
        ending, self._helpers = self._helpers[most:], self._helpers[:most]
        for helper in ending:
            helper.end()
        for helper in ending:
            helper.join()
        return most

    def start(self) -> int:
        """Start those that are missing; how many there are. After one that cannot be started no more are."""
        for number in range(len(self._helpers), 0 if self._refused else max(self._wanted, default=0)):
            helper = _Helper(f"plumews-sending-{number}")
            try:
                helper.start()
            except RuntimeError as exc:
                self._refused = True
                logger.warning("only %d threads help to send, for another cannot be started: %s", number, exc)
                break
            self._helpers.append(helper)
        return len(self._helpers)

    def send(self, batch: Batch) -> None:
        """Have ``batch`` sent. If this is interrupted threads may be at it: finish it before anything else is done."""
        for helper in self._helpers:
            helper.give(batch)
        batch.finish()
        for helper in self._helpers:
            helper.take_back()

    def __del__(self) -> None:
        for helper in self._helpers:
            helper.end()


class _Helper(threading.Thread):
    """A thread that waits to be given something. It keeps no interpreter from its end."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._wake = threading.Lock()  # free when there is news; the loop's thread alone releases it, this one takes it
        self._wake.acquire()
        self._batch: Batch | None = None
        self._ending = False

    def give(self, batch: Batch) -> None:
        self._batch = batch
        self._tell()

    def take_back(self) -> None:
        """It is finished: who has not begun with it has nothing to do."""
        self._batch = None

    def end(self) -> None:
        self._ending = True
        self._tell()

    def _tell(self) -> None:
        if self._wake.locked():
            self._wake.release()

    def run(self) -> None:
        while not self._ending:
            self._wake.acquire()
            batch = self._batch
            if batch is not None:
                batch.help()
            del batch  # while this waits nothing is kept for it
