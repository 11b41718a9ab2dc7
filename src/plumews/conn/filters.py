"""Who sees a message before the application does: several, one behind the other (layer 5).

A connection asks one object about each whole message. Invariant: who was added first is asked first, and what it takes
nobody behind it sees.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

from .connection import Conn

__all__ = ["Screen", "add_screen", "screen_of"]

S = TypeVar("S", bound="Screen")


class Screen(Protocol):
    """Called with each message."""

    def __call__(self, conn: Conn, message: str | bytes, /) -> bool:
        """Whether nobody else is to see ``message``."""


class _Both:
    """``first``, and then ``second``."""

    __slots__ = ("first", "second")

    def __init__(self, first: Screen, second: Screen) -> None:
        self.first = first
        self.second = second

    def __call__(self, conn: Conn, message: str | bytes) -> bool:
        return self.first(conn, message) or self.second(conn, message)


def add_screen(conn: Conn, screen: Screen) -> None:
    """Show ``screen`` what ``conn`` says, unless one that is there takes it."""
    conn._screen = screen if conn._screen is None else _Both(conn._screen, screen)


def screen_of(conn: Conn, kind: type[S]) -> S | None:
    """The screen of ``conn`` that is a ``kind``."""
    waiting = [conn._screen]
    while waiting:
        screen = waiting.pop()
        if isinstance(screen, kind):
            return screen
        if isinstance(screen, _Both):
            waiting += [screen.first, screen.second]
    return None
