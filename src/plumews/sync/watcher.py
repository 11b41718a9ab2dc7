"""Watcher: one daemon thread for all blocking connections of the process, while there are any.

Twice a second it looks at each connection: it sends keepalive pings, enforces deadlines, and finds those that no caller
reads from. It waits for data on these, answers their pings, and keeps messages up to the limits of the receive queue.

Invariants: it never waits for one connection, and never reads while a caller does. It keeps no connection alive. A
child of a fork has no watcher until it connects.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import select
import threading
import time
import weakref
from collections.abc import Sequence
from typing import Final, Protocol

from ..client.reconnect import Clocks, suspended_time
from ..transport.forks import after_fork

__all__ = ["Watched", "Watcher", "watcher"]

logger = logging.getLogger("plumews.client")

#: Seconds between two looks at all connections.
_TICK: Final = 0.5


class Watched(Protocol):
    """Connection, as the watcher sees it."""

    def fileno(self) -> int:
        """Return the descriptor, -1 once it is closed."""

    def _watch(self, now: float, resumed: bool) -> bool:
        """Do what is due. Return True to be called again when data arrives."""

    def _leave(self) -> None:
        """Close at the end of the process."""


class Watcher:
    """Thread that looks after connections.

    Args:
        tick: Seconds between two looks (default 0.5).
    """

    def __init__(self, tick: float = _TICK) -> None:
        self._tick = tick
        self.forget()

    def forget(self) -> None:
        """Begin anew, as in the child of a fork: the thread of the parent is not there."""
        self._lock = threading.Lock()
        self._conns: weakref.WeakSet[Watched] = weakref.WeakSet()
        self._thread: threading.Thread | None = None

    @property
    def running(self) -> bool:
        """True while there is a thread."""
        return self._thread is not None

    def add(self, conn: Watched) -> None:
        """Look after ``conn`` until it is closed, or no caller has it any more."""
        with self._lock:
            self._conns.add(conn)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="plumews-watcher", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        clocks = Clocks.now()
        while True:
            with self._lock:
                conns = [conn for conn in self._conns if conn.fileno() >= 0]
                if not conns:
                    self._conns.clear()
                    self._thread = None
                    return
            now = Clocks.now()
            resumed = suspended_time(clocks, now) > 0
            clocks = now
            idle = {conn.fileno(): weakref.ref(conn) for conn in conns if _look(conn, now.monotonic, resumed)}
            conns.clear()
            self._wait(idle, now.monotonic + self._tick)

    def _wait(self, idle: dict[int, weakref.ref[Watched]], until: float) -> None:
        """Serve idle connections as their data arrives, until the next look at all of them."""
        while (left := until - time.monotonic()) > 0:
            if not idle:
                time.sleep(left)
                return
            try:
                ready = _readable(idle, left)
            except (OSError, ValueError):  # one was closed meanwhile: the next look tells which
                return
            for fd in ready:
                conn = idle[fd]()
                if conn is None or conn.fileno() != fd or not _look(conn, time.monotonic(), False):
                    del idle[fd]
                del conn

    def leave(self) -> None:
        """Close all connections at the end of the process."""
        with self._lock:
            conns = list(self._conns)
        for conn in conns:
            with contextlib.suppress(Exception):
                conn._leave()


def _look(conn: Watched, now: float, resumed: bool) -> bool:
    try:
        return conn._watch(now, resumed)
    except Exception:
        logger.exception("looking after a connection failed")
        return False


if hasattr(select, "poll"):

    def _readable(fds: dict[int, weakref.ref[Watched]], timeout: float) -> Sequence[int]:
        poller = select.poll()
        for fd in fds:
            if fd >= 0:
                poller.register(fd, select.POLLIN)
        return [fd for fd, _ in poller.poll(timeout * 1000)]

else:

    def _readable(fds: dict[int, weakref.ref[Watched]], timeout: float) -> Sequence[int]:
        return select.select([fd for fd in fds if fd >= 0], [], [], timeout)[0]


#: Watcher of this process.
watcher: Final = Watcher()

after_fork(watcher.forget)
atexit.register(watcher.leave)
