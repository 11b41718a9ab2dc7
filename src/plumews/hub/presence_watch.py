"""Who wants to know which users come to a room, and which go (layer 4).

Told as seldom as counts are: what happened since the last time is one difference for all watchers of a room, in which
a user that came and went, or went and came back, does not stand. Invariant: a difference names at most those who
were there at the last time and those who are there now, however much happened in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

from ..transport.safe_calls import call_safely
from ..users import UserInfo
from .watch import RoomWatchers

__all__ = ["PresenceCallback", "PresenceWatchers"]

PresenceCallback: TypeAlias = Callable[[str, tuple[UserInfo, ...], tuple[UserInfo, ...]], object]


class _Difference:
    """Who came and who went since the watchers of a room were told."""

    __slots__ = ("came", "went")

    def __init__(self) -> None:
        self.came: dict[str, UserInfo] = {}
        self.went: dict[str, UserInfo] = {}


class PresenceWatchers(RoomWatchers[PresenceCallback]):
    """The presence callbacks of one hub. ``users`` tells who is in a room."""

    def __init__(self, users: Callable[[str], Iterable[UserInfo]]) -> None:
        super().__init__()
        self._users = users
        self._differences: dict[str, _Difference] = {}
        #: Watchers that have not been told anything: they get everybody, not the difference to what they do not know.
        self._new: dict[str, set[object]] = {}

    def came(self, room: str, user: UserInfo) -> None:
        """The first connection of ``user`` joined ``room``."""
        if room in self._callbacks:
            difference = self._differences.setdefault(room, _Difference())
            if difference.went.pop(user.id, None) is None:
                difference.came[user.id] = user
            self.changed(room)

    def went(self, room: str, user: UserInfo) -> None:
        """The last connection of ``user`` left ``room``."""
        if room in self._callbacks:
            difference = self._differences.setdefault(room, _Difference())
            if difference.came.pop(user.id, None) is None:
                difference.went[user.id] = user
            self.changed(room)

    def _added(self, room: str, key: object) -> None:
        self._new.setdefault(room, set()).add(key)
        self.changed(room)

    def _forget(self, room: str) -> None:
        super()._forget(room)
        self._differences.pop(room, None)
        self._new.pop(room, None)

    def _tell(self, room: str) -> None:
        # All of it is taken before anybody is called: what callbacks do belongs to the next time.
        difference = self._differences.pop(room, None) or _Difference()
        came, went = tuple(difference.came.values()), tuple(difference.went.values())
        new = self._new.pop(room, set())
        everybody = tuple(self._users(room)) if new else ()
        for key, callback in self._live(room):
            first = key in new
            joined, left = (everybody, ()) if first else (came, went)
            if joined or left:
                call_safely("a watcher of presence", callback, room, joined, left)
