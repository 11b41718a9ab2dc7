"""Whom a message is for: rooms, less one member, less those whom a predicate passes over (layer 4).

Invariants: who is in several of the rooms is there once; the predicate is asked before anything is sent, so that one
that raises sends nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final, Generic, TypeAlias, TypeVar

from ..validation import is_plain_function
from .rooms import MemberSnapshot, RoomTable, Target

__all__ = ["Recipients", "Rooms", "choose", "key_of", "target_of"]

M = TypeVar("M")

#: How callers name one room or several.
Rooms: TypeAlias = "str | list[str] | tuple[str, ...] | set[str] | frozenset[str]"


@dataclass(slots=True)
class Recipients(Generic[M]):
    """Those who are to get a message: ``roll`` without ``exclude``, as long as ``still_member`` says so."""

    roll: MemberSnapshot[M]
    still_member: Callable[[M], bool]
    exclude: M | None = None

    @property
    def matched(self) -> int:
        """How many they are."""
        return len(self.roll.members) - (self.exclude is not None)


#: Types whose values compare without a line of the application's.
_PLAIN: Final = (str, bytes, int)


class _Key:
    """A key of a type of the application's own. Keys are compared in the midst of broadcasts, where nothing may fail:
    one that cannot say whether it equals another is another.
    """

    __slots__ = ("_hash", "_key")

    def __init__(self, key: Hashable) -> None:
        self._key = key
        self._hash = hash(key)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        try:
            return bool(self._key == (other._key if isinstance(other, _Key) else other))
        except Exception:
            return False


def target_of(room: Rooms | None) -> Target:
    """What was given as rooms, as it is known inside; the caller may change its list afterwards."""
    if isinstance(room, (list, tuple, set, frozenset)):
        names = tuple(room)
        # Not whatever is alone in a list: ``[None]`` is not everybody.
        return names[0] if len(names) == 1 and isinstance(names[0], str) else names
    return room


def key_of(target: Target, key: Hashable) -> Hashable:
    """``key`` among those of all rooms. ``TypeError`` if it can be none.

    Several rooms in another order are the same ones; neither are the keys of several those of one of them.
    """
    if type(key) not in _PLAIN:
        try:
            key = _Key(key)
        except TypeError:
            raise TypeError(f"a key must be hashable, such as a str, not {type(key).__name__}") from None
    return (frozenset(target) if isinstance(target, tuple) else target, key)


def choose(table: RoomTable[M], target: Target, exclude: M | None, where: Callable[[M], bool] | None) -> Recipients[M]:
    """The members of ``target`` now, but for ``exclude``, for whom ``where`` is true.

    Raises what ``where`` raises; ``TypeError`` if it cannot be asked.
    """
    roll = table.roll(target)
    if exclude is not None and not table.is_member(target, exclude):
        exclude = None
    if where is not None:
        if not is_plain_function(where):
            raise TypeError("where must be a plain function that takes a Conn and returns a bool")
        roll = MemberSnapshot(tuple([member for member in roll.members if member is not exclude and where(member)]))
        exclude = None
    return Recipients(roll, functools.partial(table.is_member, target), exclude)
