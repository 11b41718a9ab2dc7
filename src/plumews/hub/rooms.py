"""Who is in which room (layer 2).

Membership, its limits and the names of rooms, without a socket or a loop: members are any hashable objects.
Invariants: a room exists while it has members; a refused join changes nothing; the connection limit counts
members once, however many rooms they are in; a roll never changes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, Generic, TypeAlias, TypeVar

from .. import limits
from ..errors import HubFull, InvalidRoomName, RoomFull, TooManyRooms

__all__ = ["MemberSnapshot", "RoomTable", "Target", "check_room_name", "validate_room_name"]

M = TypeVar("M")

_PLAIN_NAME: Final = re.compile(rf"[A-Za-z0-9._:-]{{1,{limits.ROOM_NAME}}}")

#: One room, several, or (``None``) all of them.
Target: TypeAlias = "str | tuple[str, ...] | None"


def check_room_name(name: str) -> None:
    """The room-name policy unless another is given: 1 to 128 bytes of printable text.

    Raises :class:`InvalidRoomName`.
    """
    if not isinstance(name, str):
        raise InvalidRoomName(f"invalid room name: it must be a str, not {type(name).__name__}")
    if not name or not name.isprintable() or len(name.encode(errors="replace")) > limits.ROOM_NAME:
        raise InvalidRoomName(f"invalid room name: it must be 1 to {limits.ROOM_NAME} bytes of printable text")


def validate_room_name(name: str) -> None:
    """The seed's room-name policy: 1 to 128 of ``A-Z a-z 0-9 . _ : -``, for ``HubConfig(check_room_name=...)``.

    What else is printable looks different from what it is: letters of other alphabets, blanks, markup. Names of this
    kind can stand in addresses, keys and log lines as they are. Raises :class:`InvalidRoomName`.
    """
    if not isinstance(name, str) or _PLAIN_NAME.fullmatch(name) is None:
        raise InvalidRoomName(f"invalid room name: it must be 1 to {limits.ROOM_NAME} of A-Z a-z 0-9 . _ : -")


class MemberSnapshot(Generic[M]):
    """The members of one room, or of all, at one moment. Who asks again before anything changed gets the same one,
    so that a thousand broadcasts that wait hold one list and not a thousand.

    While :attr:`current` is true all of them are still there; afterwards that is to be asked of each.
    """

    __slots__ = ("_positions", "current", "members")

    def __init__(self, members: tuple[M, ...]) -> None:
        self.members = members
        self.current = False
        self._positions: dict[M, int] | None = None

    def position(self, member: M) -> int:
        """The index of ``member`` in :attr:`members`, -1 if it is not there."""
        if self._positions is None:
            self._positions = {member: position for position, member in enumerate(self.members)}
        return self._positions.get(member, -1)


class RoomTable(Generic[M]):
    """Rooms and their members, both ways. Limits of 0 are none, as in the seed."""

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
        self._registrations = 0
        self._rolls: dict[str | None, MemberSnapshot[M]] = {}
        #: The last roll of several rooms; one, for there are more sets of rooms than rooms.
        self._union: tuple[tuple[str, ...], MemberSnapshot[M]] | None = None

    def check_name(self, name: str) -> None:
        """Raise :class:`InvalidRoomName` if ``name`` is outside the policy."""
        if not isinstance(name, str):
            check_room_name(name)  # a policy that somebody gave is asked about text alone
        self._check_name(name)

    # --- changes ----------------------------------------------------------------------------------

    def join(self, room: str, member: M) -> bool:
        """Add ``member`` to ``room``; False if it was there, limits or not.

        Raises:
            InvalidRoomName, HubFull, RoomFull, TooManyRooms: nothing was changed.
        """
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
        self._registrations += 1
        return True

    def check_space(self, room: str, member: M | None = None) -> None:
        """Raise if ``member``, or somebody new, could not join ``room`` now."""
        own = self._rooms.get(member, {}) if member is not None else {}
        if self._max_connections and not own and len(self._rooms) >= self._max_connections:
            raise HubFull(f"websocket hub at capacity: {self._max_connections} connections")
        if self._max_room_connections and self.count(room) >= self._max_room_connections:
            raise RoomFull(f"websocket room at capacity: {self._max_room_connections} connections")
        if self._max_rooms_per_connection and len(own) >= self._max_rooms_per_connection:
            raise TooManyRooms(f"a connection may be in {self._max_rooms_per_connection} rooms")

    def leave(self, room: str, member: M) -> bool:
        """Remove ``member`` from ``room``; False if it was not there."""
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
        self._registrations -= 1
        return True

    def remove(self, member: M) -> list[str]:
        """Remove ``member`` from all its rooms; their names."""
        rooms = list(self._rooms.get(member, ()))
        for room in rooms:
            self.leave(room, member)
        return rooms

    # --- questions --------------------------------------------------------------------------------

    def roll(self, room: Target) -> MemberSnapshot[M]:
        """The members of ``room``, in the order in which they joined; of several rooms, or of all, each once."""
        if isinstance(room, tuple):
            return self._roll_of_several(room)
        roll = self._rolls.get(room)
        if roll is None:
            roll = MemberSnapshot(tuple(self._rooms if room is None else self._members.get(room, ())))
            if roll.members:  # a room without members leaves no trace
                self._rolls[room] = roll
                roll.current = True
        return roll

    def _roll_of_several(self, rooms: tuple[str, ...]) -> MemberSnapshot[M]:
        if self._union is not None and self._union[0] == rooms:
            return self._union[1]
        if self._union is not None:
            self._union[1].current = False  # nobody will tell it any more
        members: dict[M, None] = {}
        for room in rooms:
            members.update(self._members.get(room, {}))
        roll = MemberSnapshot(tuple(members))
        if members:
            self._union = rooms, roll
            roll.current = True
        return roll

    def _outdate(self, room: str | None) -> None:
        """Who is in ``room`` (``None``: in any) has changed."""
        roll = self._rolls.pop(room, None)
        if roll is not None:
            roll.current = False
        if self._union is not None:
            self._union[1].current = False
            self._union = None

    def is_member(self, room: Target, member: M) -> bool:
        """Whether ``member`` is in ``room``, or in one of several; ``None``: in any."""
        if room is None:
            return member in self._rooms
        rooms = self._rooms.get(member)
        if rooms is None:
            return False
        return room in rooms if isinstance(room, str) else not rooms.keys().isdisjoint(room)

    def rooms_of(self, member: M) -> list[str]:
        return list(self._rooms.get(member, ()))

    def names(self) -> list[str]:
        """The rooms that have members."""
        return list(self._members)

    def count(self, room: str) -> int:
        return len(self._members.get(room, ()))

    @property
    def registrations(self) -> int:
        """Members of all rooms added up: one in two rooms counts twice."""
        return self._registrations

    @property
    def connections(self) -> int:
        """Members, each once."""
        return len(self._rooms)
