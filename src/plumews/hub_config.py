"""What a hub may hold and how it works, checked once (layer 2).

A limit of 0 is no limit, as in the seed; a negative one is an error, and so is a hub without workers, which
would never deliver anything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from . import limits
from .history import HistoryLimits
from .rooms import check_room_name

__all__ = ["HubConfig"]


@dataclass(frozen=True)
class HubConfig:
    """The settings of a hub.

    Args:
        workers: lanes that carry broadcasts (default 4); the rooms are spread over them.
        job_queue_size: broadcasts that may wait for a lane (default 1024).
        max_connections: unique connections (default 0: no limit).
        max_room_connections: connections in one room (default 0: no limit).
        max_rooms_per_connection: rooms one connection may be in (default 100; 0: no limit).
        check_room_name: raises :class:`InvalidRoomName` for a name outside the policy (default: 1 to 128 bytes
            of printable text).
        history: how much of each room is kept for :meth:`plumews.Hub.recover` (default ``None``: nothing): one
            :class:`HistoryLimits` for all rooms, or a function that gives those of a room, or ``None``, when its
            history would begin, such as ``{"chat": HistoryLimits()}.get``.
        max_history_rooms: rooms with a history (default 10,000; 0: no limit); beyond that the one goes that was used
            least recently.
        max_history_bytes: of all histories together (default 64 MiB; 0: no limit); beyond that the oldest messages go
            of the room that was published to least recently.

    Raises:
        ValueError: a value is outside its range. TypeError: it is not an int, or not a function.
    """

    workers: int = limits.WORKERS
    job_queue_size: int = limits.JOB_QUEUE_SIZE
    max_connections: int = 0
    max_room_connections: int = 0
    max_rooms_per_connection: int = limits.ROOMS_PER_CONNECTION
    check_room_name: Callable[[str], None] = check_room_name
    history: HistoryLimits | Callable[[str], HistoryLimits | None] | None = None
    max_history_rooms: int = limits.HISTORY_ROOMS
    max_history_bytes: int = limits.HISTORY_BYTES

    def __post_init__(self) -> None:
        smallest = {"workers": 1, "job_queue_size": 1}
        for name in (
            "workers",
            "job_queue_size",
            "max_connections",
            "max_room_connections",
            "max_rooms_per_connection",
            "max_history_rooms",
            "max_history_bytes",
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} must be an int, not {type(value).__name__}")
            if value < smallest.get(name, 0):
                raise ValueError(f"{name} must be at least {smallest.get(name, 0)}, not {value}")
        if not callable(self.check_room_name):
            raise TypeError(f"check_room_name must be a function, not {type(self.check_room_name).__name__}")
        if self.history is not None and not isinstance(self.history, HistoryLimits) and not callable(self.history):
            raise TypeError(
                f"history must be HistoryLimits, or a function that gives them, not {type(self.history).__name__}"
            )

    @property
    def history_policy(self) -> Callable[[str], HistoryLimits | None] | None:
        """:attr:`history` as a function of the room's name; ``None``: no room has one."""
        history = self.history
        return (lambda room: history) if isinstance(history, HistoryLimits) else history
