"""Signals that ask a process to stop: the first one is told, the second one ends the process at once (layer 5).

`signal.signal` rather than the loop's own handlers: it is there on Windows, leaves handlers of the application alone
that are the loop's, and is heard while the loop is busy. Invariants: the handlers that were there before are there
again when nobody listens any more; several may listen at the same time, and each is told; a child process that was
forked meanwhile ends by such a signal as if there were no handlers.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from contextvars import Context
from types import FrameType, TracebackType
from typing import Any, Final

__all__ = ["StopSignals"]

#: SIGBREAK is Ctrl-Break on Windows.
_NAMES: Final = ("SIGINT", "SIGTERM", "SIGBREAK")

#: A closed terminal; it comes twice, from the kernel and from the shell.
_HANGUP: Final[int | None] = getattr(signal, "SIGHUP", None)


class _Handlers:
    """The handlers of this process, shared by all that listen."""

    def __init__(self) -> None:
        self.first: int | None = None
        self._previous: dict[int, Any] = {}
        self._listening: set[StopSignals] = set()
        self._pid = 0

    def add(self, listener: StopSignals) -> None:
        if not self._listening:
            self.first = None
            self._pid = os.getpid()
            numbers = [int(getattr(signal, name)) for name in _NAMES if hasattr(signal, name)]
            if _HANGUP is not None and signal.getsignal(_HANGUP) == signal.SIG_DFL:  # nohup(1) ignores it
                numbers.append(_HANGUP)
            for number in numbers:
                self._previous[number] = signal.signal(number, self._caught)
        self._listening.add(listener)

    def remove(self, listener: StopSignals) -> None:
        self._listening.discard(listener)
        if self._listening:
            return
        for number, previous in self._previous.items():
            if signal.getsignal(number) == self._caught:
                # None is a handler that was not made in Python, and cannot be set again.
                signal.signal(number, signal.SIG_DFL if previous is None else previous)
        self._previous.clear()

    def _caught(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        elif self.first is None:
            self.first = number
            for listener in tuple(self._listening):
                listener.tell()
        elif number != _HANGUP:
            os._exit(128 + number)


_handlers: Final = _Handlers()

#: Seconds between two looks for a signal that did not wake the event loop.
_LOOK: Final = 1.0


class StopSignals:
    """Listens to SIGINT and SIGTERM, and to SIGHUP unless the process does something about it, while it is entered.

    Raises:
        RuntimeError: when it is entered on another thread than the main one.
    """

    def __init__(self) -> None:
        self._waiting: asyncio.Future[None] | None = None

    async def first(self) -> int:
        """Wait for the first signal, and return its number; also one that came before, to whoever listened."""
        self._waiting = asyncio.get_running_loop().create_future()
        # Only asked for now: a signal may come at any step. One that comes just before the loop waits for events is
        # handled when that wait ends, so it must end.
        while _handlers.first is None:
            await asyncio.wait((self._waiting,), timeout=_LOOK)
        assert _handlers.first is not None
        return _handlers.first

    def tell(self) -> None:
        """A signal has come. Called between any two steps of the main thread."""
        waiting = self._waiting
        if waiting is not None and not waiting.get_loop().is_closed():
            waiting.get_loop().call_soon_threadsafe(_end, waiting, context=Context())

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError(
                "signals are heard on the main thread alone: on another one use serve_forever(), and end it with "
                "loop.call_soon_threadsafe(server.close)"
            )
        _handlers.add(self)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        _handlers.remove(self)


def _end(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)
