"""Signals that stop a process: the first one wakes the listeners, the second one ends the process at once.

`signal.signal` is used instead of the loop's handlers. It exists on Windows, it leaves the loop's handlers to the
application, and it works while the loop is busy. The previous handlers are restored when the last listener ends. A
child of a fork is ended by such a signal as if there were no handlers.
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

#: Signal of a closed terminal. It is sent twice, by the kernel and by the shell.
_HANGUP: Final[int | None] = getattr(signal, "SIGHUP", None)


class _Handlers:
    """Signal handlers of this process, shared by all listeners."""

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
                listener.wake()
        elif number != _HANGUP:
            os._exit(128 + number)


_handlers: Final = _Handlers()

#: Seconds between two checks for a signal that did not wake the event loop.
_CHECK_EVERY: Final = 1.0


class StopSignals:
    """Context manager that listens to SIGINT and SIGTERM, and to SIGHUP unless the process handles or ignores it.

    Raises:
        RuntimeError: it is entered on another thread than the main one.
    """

    def __init__(self) -> None:
        self._waiting: asyncio.Future[None] | None = None

    async def first(self) -> int:
        """Wait for the first signal, and return its number. One that another listener received before counts, too."""
        self._waiting = asyncio.get_running_loop().create_future()
        # A signal that comes just before the loop waits for events is handled when that wait ends, so it must end.
        while _handlers.first is None:
            await asyncio.wait((self._waiting,), timeout=_CHECK_EVERY)
        assert _handlers.first is not None
        return _handlers.first

    def wake(self) -> None:
        """Wake :meth:`first`. Called between any two steps of the main thread."""
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
