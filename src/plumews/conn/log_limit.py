"""How many lines a second may be logged, whatever peers do (layer 2).

A line of a kind that was not there in the last second goes before one more of the same kind, so that a flood of one
hides no other; a warning goes before what is less. What is left out is counted by kind. Time is passed in. Invariants:
no second has more than ``limits.LOG_LINES`` lines; what is kept here is bounded by that.
"""

from __future__ import annotations

from collections import deque

from .. import limits
from ..counters import BoundedCounter

__all__ = ["LogLimit"]


class LogLimit:
    """The lines of one process, or of one event loop."""

    __slots__ = ("_kinds", "_left_out", "_times")

    def __init__(self) -> None:
        #: The lines of the last second, oldest first, and their kinds.
        self._times: deque[float] = deque()
        self._kinds: deque[str] = deque()
        self._left_out = BoundedCounter()

    def admit(self, kind: str, now: float, *, urgent: bool = False) -> bool:
        """Whether a line of ``kind`` may be logged now; one that may not is counted. ``urgent`` is for warnings."""
        self._forget(now)
        new = limits.LOG_LINES - 1 if urgent else limits.LOG_CALM
        most = limits.LOG_REPEATED if kind in self._kinds else new
        if len(self._times) >= most:
            self._left_out.add(kind)
            return False
        self._log(kind, now)
        return True

    def take_left_out(self, now: float) -> dict[str, int]:
        """How many lines of each kind were left out since this was asked before; the line that says so is logged now.

        Empty, with nothing taken, if nothing was left out or if there is no place for that line yet.
        """
        self._forget(now)
        if not self._left_out.total or len(self._times) >= limits.LOG_LINES:
            return {}
        counts, self._left_out = self._left_out.snapshot(), BoundedCounter()
        self._log("", now)
        return counts

    def _log(self, kind: str, now: float) -> None:
        self._times.append(now)
        self._kinds.append(kind)

    def _forget(self, now: float) -> None:
        while self._times and now - self._times[0] >= 1.0:
            self._times.popleft()
            self._kinds.popleft()
