"""Presence: the users in a hub and in each of its rooms, and watchers of the users in a room.

A user is identified by a verified token and may have many connections. A connection without a user id is anonymous and
only counted. Invariants: a user is in a room while one of its connections is. Nothing is kept of users that left. A
watcher's difference names at most the users of the last call and the users of this one, whatever happened in between.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

from ..transport.safe_calls import call_safely
from ..users import UserInfo
from .events import RoomWatchers

__all__ = ["PresenceCallback", "PresenceIndex", "PresenceWatchers", "RoomPresence", "UserPresence", "check_user_id"]

M = TypeVar("M")

PresenceCallback: TypeAlias = Callable[[str, tuple[UserInfo, ...], tuple[UserInfo, ...]], object]


@dataclass(frozen=True)
class UserPresence:
    """A user in a room.

    Attributes:
        id: the user's id.
        user: the user as its newest connection in the room knows it.
        connections: number of its connections in the room, at least 1.
        since: time of the first join, in seconds since the epoch. Other connections may have come and gone since.
    """

    id: str
    user: UserInfo
    connections: int
    since: float


@dataclass(frozen=True)
class RoomPresence:
    """The users in a room.

    Attributes:
        users: one entry for each user, in the order in which they came.
        anonymous: number of connections without a user id.
    """

    users: tuple[UserPresence, ...] = ()
    anonymous: int = 0


class _Present:
    """A user in a room, while it is there."""

    __slots__ = ("connections", "since", "user")

    def __init__(self, user: UserInfo, since: float) -> None:
        self.user = user
        self.since = since
        self.connections = 0


class PresenceWatchers(RoomWatchers[PresenceCallback]):
    """Watchers of the users in rooms. ``present`` has the users of each room, by id."""

    def __init__(self, present: dict[str, dict[str, _Present]]) -> None:
        super().__init__()
        self._present = present
        #: Users that came to each room and went since the last call of its watchers, by id.
        self._differences: dict[str, tuple[dict[str, UserInfo], dict[str, UserInfo]]] = {}
        #: Watchers that were not called yet: they get all users, not a difference.
        self._new: dict[str, set[PresenceCallback]] = {}

    def note(self, room: str, user: UserInfo, *, present: bool) -> None:
        """Note that the first connection of ``user`` joined ``room``, or that the last one left it."""
        if room in self._watchers:
            came, went = self._differences.setdefault(room, ({}, {}))
            now, before = (came, went) if present else (went, came)
            if before.pop(user.id, None) is None:
                now[user.id] = user
            self.changed(room)

    def _added(self, room: str, watcher: PresenceCallback) -> None:
        self._new.setdefault(room, set()).add(watcher)
        self.changed(room)

    def _forget(self, room: str) -> None:
        super()._forget(room)
        self._differences.pop(room, None)
        self._new.pop(room, None)

    def _call(self, room: str) -> None:
        # All of it is taken before the first call: changes that callbacks make belong to the next time.
        came, went = (tuple(users.values()) for users in self._differences.pop(room, ({}, {})))
        new = self._new.pop(room, set())
        everyone = tuple(present.user for present in self._present.get(room, {}).values())
        for watcher in self._watchers[room]:
            joined, left = (everyone, ()) if watcher in new else (came, went)
            if joined or left:
                call_safely("a watcher of presence", watcher, room, joined, left)


class PresenceIndex(Generic[M]):
    """Users of one hub. Members are any hashable objects. ``rooms_of`` returns the rooms of a member."""

    def __init__(self, rooms_of: Callable[[M], list[str]]) -> None:
        self._rooms_of = rooms_of
        #: Members with a user id. Anonymous ones cost nothing.
        self._users: dict[M, UserInfo] = {}
        self._members: dict[str, dict[M, None]] = {}
        self._present: dict[str, dict[str, _Present]] = {}
        self.watchers = PresenceWatchers(self._present)

    # --- changes ----------------------------------------------------------------------------------

    def enter(self, room: str, member: M, user: UserInfo | None, now: float, *, new: bool) -> None:
        """Note that ``member`` joined ``room``, ``new`` or again, as ``user``, which it is in all its rooms."""
        if user is not None and not user.id:
            user = None
        known = self._users.get(member)
        if known is not user and known != user:
            rooms = [name for name in self._rooms_of(member) if name != room or not new]
            self._identify(member, known, user, rooms, now)
        if new and user is not None:
            self._come(room, user, now)

    def leave(self, room: str, member: M) -> None:
        """Note that ``member`` left ``room``."""
        user = self._users.get(member)
        if user is not None:
            self._go(room, user)

    def forget(self, member: M) -> None:
        """Note that ``member`` is in no room any more."""
        user = self._users.pop(member, None)
        if user is not None:
            members = self._members[user.id]
            del members[member]
            if not members:
                del self._members[user.id]

    def _identify(self, member: M, known: UserInfo | None, user: UserInfo | None, rooms: list[str], now: float) -> None:
        if known is not None and user is not None and known.id == user.id:
            self._users[member] = user
            for room in rooms:
                self._present[room][user.id].user = user
            return
        for room in rooms:
            self.leave(room, member)
        self.forget(member)
        if user is not None:
            self._users[member] = user
            self._members.setdefault(user.id, {})[member] = None
            for room in rooms:
                self._come(room, user, now)

    def _come(self, room: str, user: UserInfo, now: float) -> None:
        users = self._present.setdefault(room, {})
        present = users.get(user.id)
        if present is None:
            present = users[user.id] = _Present(user, now)
            self.watchers.note(room, user, present=True)
        present.user = user
        present.connections += 1

    def _go(self, room: str, user: UserInfo) -> None:
        users = self._present[room]
        present = users[user.id]
        present.connections -= 1
        if not present.connections:
            del users[user.id]
            if not users:
                del self._present[room]
            self.watchers.note(room, present.user, present=False)

    # --- questions --------------------------------------------------------------------------------

    def members(self, user_id: str) -> tuple[M, ...]:
        """Return the members of the user ``user_id``, in the order in which they came."""
        return tuple(self._members.get(user_id, ()))

    def is_user(self, user_id: str, member: M) -> bool:
        """Return True if ``member`` is a connection of the user ``user_id``."""
        return member in self._members.get(user_id, ())

    def presence(self, room: str, count: int) -> RoomPresence:
        """Return the presence in ``room``, which has ``count`` members."""
        users = tuple(
            UserPresence(user_id, present.user, present.connections, present.since)
            for user_id, present in self._present.get(room, {}).items()
        )
        return RoomPresence(users, count - sum(user.connections for user in users))


def check_user_id(user_id: str) -> str:
    """Return ``user_id``. Raise `TypeError` or `ValueError` if it cannot be the id of a user."""
    if not isinstance(user_id, str):
        raise TypeError(f"a user id must be a str, not {type(user_id).__name__}")
    if not user_id:
        raise ValueError("a user id must not be empty: connections without one are anonymous")
    return user_id
