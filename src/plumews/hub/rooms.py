"""Table of rooms and members, their limits, and the policies of room names.

Members are any hashable objects: there is no socket and no event loop here. Invariants: a room exists while it has
members. A refused join changes nothing. The connection limit counts a member once, in any number of rooms. A snapshot
never changes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeAlias, TypeVar

from .. import limits
from ..errors import HubFull, InvalidRoomName, RoomFull, TooManyRooms

__all__ = ["MemberSnapshot", "Recipients", "RoomTable", "Target", "check_room_name", "validate_room_name"]

M = TypeVar("M")

_PLAIN_NAME: Final = re.compile(rf"[A-Za-z0-9._:-]{{1,{limits.ROOM_NAME}}}")

#: One room, several rooms, or all rooms (``None``).
Target: TypeAlias = "str | tuple[str, ...] | None"


def check_room_name(name: str) -> None:
    """Raise :class:`InvalidRoomName` unless ``name`` is 1 to 128 bytes of printable text. The default policy."""
    if not isinstance(name, str):
        raise InvalidRoomName(f"invalid room name: it must be a str, not {type(name).__name__}")
    if not name or not name.isprintable() or len(name.encode(errors="replace")) > limits.ROOM_NAME:
        raise InvalidRoomName(f"invalid room name: it must be 1 to {limits.ROOM_NAME} bytes of printable text")


def validate_room_name(name: str) -> None:
    """Raise :class:`InvalidRoomName` unless ``name`` is 1 to 128 of ``A-Z a-z 0-9 . _ : -``.

    A stricter policy, for ``HubConfig(check_room_name=...)``. Such names can stand in URLs, keys and log lines as they
    are. Other printable text may look like a different name: letters of other alphabets, blanks, markup.
    """
    if not isinstance(name, str) or _PLAIN_NAME.fullmatch(name) is None:
        raise InvalidRoomName(f"invalid room name: it must be 1 to {limits.ROOM_NAME} of A-Z a-z 0-9 . _ : -")


class MemberSnapshot(Generic[M]):
    """Members of one room, of several, or of all, at one moment.

    It is shared until a member comes or goes, so that a thousand waiting broadcasts hold one list and not a thousand.
    While :attr:`current` is True all of them are still members. Afterwards that must be checked for each.
    """

    __slots__ = ("_positions", "current", "members")

    def __init__(self, members: tuple[M, ...]) -> None:
        self.members = members
        self.current = False
        self._positions: dict[M, int] | None = None

    def position(self, member: M) -> int:
        """Return the index of ``member`` in :attr:`members`, -1 if it is not there."""
        if self._positions is None:
            self._positions = {member: position for position, member in enumerate(self.members)}
        return self._positions.get(member, -1)


@dataclass(slots=True)
class Recipients(Generic[M]):
    """Recipients of a message: ``snapshot`` without ``exclude``, each as long as ``still_member`` returns True."""

    snapshot: MemberSnapshot[M]
    still_member: Callable[[M], bool]
    exclude: M | None = None

    @property
    def matched(self) -> int:
        """Number of recipients."""
        return len(self.snapshot.members) - (self.exclude is not None)


class RoomTable(Generic[M]):
    """Table of rooms and their members, in both directions. A limit of 0 is none."""

    def __init__(
        self,
        *,
        max_connections: int = 0,
        max_room_connections: int = 0,
        max_rooms_per_connection: int = limits.ROOMS_PER_CONNECTION,
        check_name: Callable[[str], None] = check_room_name,
    ) -> None:
        self._max_connections = max_connections
        self._max_room_connections = max_room_connections
        self._max_rooms_per_connection = max_rooms_per_connection
        self._check_name = check_name
        # Dicts as ordered sets: members get a broadcast in the order in which they joined.
        self._members: dict[str, dict[M, None]] = {}
        self._rooms: dict[M, dict[str, None]] = {}
        #: Sum of the members of all rooms. A member of two rooms counts twice.
        self.registrations = 0
        self._snapshots: dict[str | None, MemberSnapshot[M]] = {}
        #: The last snapshot of several rooms. Only one, because there are more sets of rooms than rooms.
        self._union: tuple[tuple[str, ...], MemberSnapshot[M]] | None = None

    def check_name(self, name: str) -> None:
        """Raise :class:`InvalidRoomName` if ``name`` is outside the policy."""
        if not isinstance(name, str):
            check_room_name(name)  # the application's policy gets text only
        self._check_name(name)

    # --- changes ----------------------------------------------------------------------------------

    def join(self, room: str, member: M) -> bool:
        """Add ``member`` to ``room``. Return False if it was there, whatever the limits are."""
        self.check_name(room)
        if room in self._rooms.get(member, ()):
            return False
        self.check_space(room, member)
        if member not in self._rooms:
            self._rooms[member] = {}
            self._outdate(None)
        self._rooms[member][room] = None
        self._members.setdefault(room, {})[member] = None
        self._outdate(room)
        self.registrations += 1
        return True

    def check_space(self, room: str, member: M | None = None) -> None:
        """Raise the error of :meth:`join` if ``member``, or a new one, finds no space in ``room`` now."""
        own = self._rooms.get(member, {}) if member is not None else {}
        if self._max_connections and not own and len(self._rooms) >= self._max_connections:
            raise HubFull(f"websocket hub at capacity: {self._max_connections} connections")
        if self._max_room_connections and self.count(room) >= self._max_room_connections:
            raise RoomFull(f"websocket room at capacity: {self._max_room_connections} connections")
        if self._max_rooms_per_connection and len(own) >= self._max_rooms_per_connection:
            raise TooManyRooms(f"a connection may be in {self._max_rooms_per_connection} rooms")

    def leave(self, room: str, member: M) -> bool:
        """Remove ``member`` from ``room``. Return False if it was not there."""
        rooms = self._rooms.get(member)
        if rooms is None or room not in rooms:
            return False
        del rooms[room]
        if not rooms:
            del self._rooms[member]
            self._outdate(None)
        members = self._members[room]
        del members[member]
        if not members:
            del self._members[room]
        self._outdate(room)
        self.registrations -= 1
        return True

    def remove(self, member: M) -> list[str]:
        """Remove ``member`` from all its rooms, and return their names."""
        rooms = list(self._rooms.get(member, ()))
        for room in rooms:
            self.leave(room, member)
        return rooms

    # --- questions --------------------------------------------------------------------------------

    def snapshot(self, room: Target) -> MemberSnapshot[M]:
        """Return the members of ``room``, in the order in which they joined. Of several rooms, or of all, each once."""
        if isinstance(room, tuple):
            return self._snapshot_of_several(room)
        snapshot = self._snapshots.get(room)
        if snapshot is None:
            snapshot = MemberSnapshot(tuple(self._rooms if room is None else self._members.get(room, ())))
            if snapshot.members:  # a room without members leaves no trace
                self._snapshots[room] = snapshot
                snapshot.current = True
        return snapshot

    def _snapshot_of_several(self, rooms: tuple[str, ...]) -> MemberSnapshot[M]:
        if self._union is not None and self._union[0] == rooms:
            return self._union[1]
        if self._union is not None:
            self._union[1].current = False  # changes are not told to it any more
        members: dict[M, None] = {}
        for room in rooms:
            members.update(self._members.get(room, {}))
        snapshot = MemberSnapshot(tuple(members))
        if members:
            self._union = rooms, snapshot
            snapshot.current = True
        return snapshot

    def _outdate(self, room: str | None) -> None:
        """Mark the snapshots of ``room`` (``None``: of all rooms) as not current."""
        snapshot = self._snapshots.pop(room, None)
        if snapshot is not None:
            snapshot.current = False
        if self._union is not None:
            self._union[1].current = False
            self._union = None

    def is_member(self, room: Target, member: M) -> bool:
        """Return True if ``member`` is in ``room``, or in one of several. ``None``: in any."""
        if room is None:
            return member in self._rooms
        rooms = self._rooms.get(member)
        if rooms is None:
            return False
        return room in rooms if isinstance(room, str) else not rooms.keys().isdisjoint(room)

    def rooms_of(self, member: M) -> list[str]:
        """Return the rooms of ``member``, in the order in which it joined."""
        return list(self._rooms.get(member, ()))

    def names(self) -> list[str]:
        """Return the rooms that have members."""
        return list(self._members)

    def count(self, room: str) -> int:
        """Return the number of members of ``room``."""
        return len(self._members.get(room, ()))

    @property
    def connections(self) -> int:
        """Number of members, each counted once."""
        return len(self._rooms)
