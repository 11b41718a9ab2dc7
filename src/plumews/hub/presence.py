"""Which users the members are: in the whole hub, and in each room (layer 2).

A user is what a verified token says, and may have many connections; one without a user id is anonymous, and only
counted. Members are any hashable objects, time is passed in. Invariants: a user is in a room while one of its
connections is; what is kept follows the members that are there, nothing of who has left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from ..users import UserInfo

__all__ = ["PresenceIndex", "RoomPresence", "UserPresence", "check_user_id"]

M = TypeVar("M")


@dataclass(frozen=True)
class UserPresence:
    """A user in a room.

    Attributes:
        id: the user's id.
        user: what the newest of its connections there knows of it.
        connections: how many connections it has there, at least one.
        since: when the first of them joined, in seconds since the epoch; others may have come and gone since.
    """

    id: str
    user: UserInfo
    connections: int
    since: float


@dataclass(frozen=True)
class RoomPresence:
    """Who is in a room.

    Attributes:
        users: one entry for each user, in the order in which they came.
        anonymous: connections without a user id.
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


class PresenceIndex(Generic[M]):
    """The users of one hub.

    ``came(room, user)`` is called when the first connection of a user has joined a room, ``went`` when the last has
    left it. ``rooms_of`` tells the rooms of a member.
    """

    def __init__(
        self,
        rooms_of: Callable[[M], list[str]],
        came: Callable[[str, UserInfo], None],
        went: Callable[[str, UserInfo], None],
    ) -> None:
        self._rooms_of = rooms_of
        self._came = came
        self._went = went
        #: Only members that have a user id stand here: anonymous ones cost nothing.
        self._users: dict[M, UserInfo] = {}
        self._members: dict[str, dict[M, None]] = {}
        self._present: dict[str, dict[str, _Present]] = {}

    # --- changes ----------------------------------------------------------------------------------

    def enter(self, room: str, member: M, user: UserInfo | None, now: float, *, new: bool) -> None:
        """``member`` is in ``room``, ``new`` or again, and says that it is ``user``, in all its rooms."""
        if user is not None and not user.id:
            user = None
        known = self._users.get(member)
        if known is not user and known != user:
            rooms = [name for name in self._rooms_of(member) if name != room or not new]
            self._identify(member, known, user, rooms, now)
        if new and user is not None:
            self._come(room, user, now)

    def leave(self, room: str, member: M) -> None:
        """``member`` is not in ``room`` any more."""
        user = self._users.get(member)
        if user is not None:
            self._go(room, user)

    def forget(self, member: M) -> None:
        """``member`` is in no room any more."""
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
            self._came(room, user)
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
            self._went(room, present.user)

    # --- questions --------------------------------------------------------------------------------

    def members(self, user_id: str) -> tuple[M, ...]:
        """The members that are ``user_id``, in the order in which they came."""
        return tuple(self._members.get(user_id, ()))

    def is_user(self, user_id: str, member: M) -> bool:
        return member in self._members.get(user_id, ())

    def users(self, room: str) -> Iterator[UserInfo]:
        """The users in ``room``, each once."""
        return (present.user for present in self._present.get(room, {}).values())

    def presence(self, room: str, count: int) -> RoomPresence:
        """Who is in ``room``, which has ``count`` members."""
        users = tuple(
            UserPresence(user_id, present.user, present.connections, present.since)
            for user_id, present in self._present.get(room, {}).items()
        )
        return RoomPresence(users, count - sum(user.connections for user in users))


def check_user_id(user_id: str) -> str:
    """``user_id``, if it can be that of a user: a ``TypeError`` or ``ValueError`` otherwise."""
    if not isinstance(user_id, str):
        raise TypeError(f"a user id must be a str, not {type(user_id).__name__}")
    if not user_id:
        raise ValueError("a user id must not be empty: connections without one are anonymous")
    return user_id
