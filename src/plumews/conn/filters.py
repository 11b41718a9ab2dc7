"""Message filters: callables that see each whole message before the application does.

A connection has one filter, which may be a pair. Filters run in the order in which they were added. No later one, and
not the application, gets a message that a filter takes.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

from .connection import Conn

__all__ = ["MessageFilter", "add_filter", "find_filter"]

F = TypeVar("F", bound="MessageFilter")


class MessageFilter(Protocol):
    """Filter of the messages of one connection."""

    def __call__(self, conn: Conn, message: str | bytes, /) -> bool:
        """Return True to take the message."""


class _Pair:
    """Filters, one behind the other. Only ``first`` may be a pair."""

    __slots__ = ("first", "second")

    def __init__(self, first: MessageFilter, second: MessageFilter) -> None:
        self.first = first
        self.second = second

    def __call__(self, conn: Conn, message: str | bytes) -> bool:
        return self.first(conn, message) or self.second(conn, message)


def add_filter(conn: Conn, message_filter: MessageFilter) -> None:
    """Add a filter behind those that the connection has."""
    first = conn._filter
    conn._filter = message_filter if first is None else _Pair(first, message_filter)


def find_filter(conn: Conn, kind: type[F]) -> F | None:
    """Return the filter of the connection that is a ``kind``."""
    found = conn._filter
    while isinstance(found, _Pair):
        if isinstance(found.second, kind):
            return found.second
        found = found.first
    return found if isinstance(found, kind) else None
