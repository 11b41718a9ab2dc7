"""What a hub may hold and how it works, checked once (layer 2).

A limit of 0 is no limit, as in the seed; a negative one is an error, and so is a hub without workers, which
would never deliver anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .. import limits
from ..rate_limit import TokenBucket, default_burst
from ..validation import check_callback, check_count, check_function, check_rate, removed_options
from .history import HistoryLimits
from .results import Gap
from .rooms import check_room_name

__all__ = ["HubConfig"]


@removed_options(sending_threads="run several processes instead")
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
        max_history_bytes: of memory for all histories together (default 64 MiB; 0: no limit), which is the frames, 272
            for each message and 1600 for each room; beyond that the oldest messages go of the room that was published
            to least recently. Rooms alone may take half of it; beyond that the one goes that was used least recently.
        accept_rate: connections a second that are let in, joining their first room, 0.001 to 1,000,000 (default 0: no
            limit); who is in a room is not accepted anew in the next.
        accept_burst: how many of them at once (default 0: what comes in two seconds, at least 1).
        encode_gap: makes of a :class:`Gap` what a member is told about messages that it lost, in their place: ``str``
            leaves as text, bytes-like as binary, ``None`` is nothing. By default members are told nothing. It is
            called while messages are sent and before a close frame, and should do no more than that: it cannot
            broadcast, and what it sends directly may overtake what is being sent.
        max_queued_bytes: bytes that may wait in the send queues of all members together (default 0: no limit). Beyond
            it those with the largest queues lose what waits for them, or are closed with 1013 if their behavior is
            ``BLOCK`` or ``CLOSE``. A message counts once for each queue that holds it, with 64 bytes more for its
            objects. Looked after at the end of each tick in which something is broadcast to members whose peers take
            nothing.

    Raises:
        ValueError: a value is outside its range. TypeError: it is not a number, or not a function.
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
    accept_rate: float = 0
    accept_burst: int = 0
    encode_gap: Callable[[Gap], str | bytes | None] | None = None
    max_queued_bytes: int = limits.MAX_QUEUED_BYTES

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
            "accept_burst",
            "max_queued_bytes",
        ):
            check_count(name, getattr(self, name), least=smallest.get(name, 0))
        check_rate("accept_rate", self.accept_rate, 0)
        if self.accept_burst and not self.accept_rate:
            raise ValueError("accept_burst bounds nothing without accept_rate: give that, too")
        check_function("check_room_name", self.check_room_name)
        if self.history is not None and not isinstance(self.history, HistoryLimits) and not callable(self.history):
            hint = ": give its method get" if isinstance(self.history, Mapping) else ""
            raise TypeError(
                f"history must be HistoryLimits, or a function that gives them, not {type(self.history).__name__}{hint}"
            )
        check_function("encode_gap", self.encode_gap, optional=True)
        for name in ("check_room_name", "history", "encode_gap"):
            function = getattr(self, name)
            if callable(function):  # a policy that is never awaited would refuse nothing
                check_callback(function, name)

    @property
    def history_policy(self) -> Callable[[str], HistoryLimits | None] | None:
        """:attr:`history` as a function of the room's name; ``None``: no room has one."""
        history = self.history
        return (lambda room: history) if isinstance(history, HistoryLimits) else history

    def accepting(self) -> TokenBucket | None:
        """What bounds the rate of new connections; ``None``: nothing does."""
        if not self.accept_rate:
            return None
        return TokenBucket(self.accept_rate, self.accept_burst or default_burst(self.accept_rate))
