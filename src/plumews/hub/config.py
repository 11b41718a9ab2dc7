"""Settings of a hub, validated when they are made. A limit of 0 is no limit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields

from .. import limits
from ..validation import check_callback, check_count, check_function, check_rate, removed_options
from .history import HistoryLimits
from .results import Gap
from .rooms import check_room_name

__all__ = ["HubConfig"]


@removed_options(sending_threads="run several processes instead")
@dataclass(frozen=True)
class HubConfig:
    """Settings of a hub.

    Args:
        workers: cooperative workers in this process that carry broadcasts, 1 or more (default 4). The rooms are spread
            over them. ``--workers`` of the command starts processes instead.
        job_queue_size: broadcasts that may wait for a worker, 1 or more (default 1024).
        max_connections: unique connections (default 0: no limit).
        max_room_connections: connections in one room (default 0: no limit).
        max_rooms_per_connection: rooms of one connection (default 100, 0: no limit).
        check_room_name: a plain function that raises :class:`InvalidRoomName` for a name outside the policy (default:
            1 to 128 bytes of printable text).
        history: bounds of the messages that rooms keep for :meth:`plumews.Hub.recover` (default ``None``: no
            history). One :class:`HistoryLimits` for all rooms, or a function that returns those of a room, or ``None``,
            when its history would begin, such as ``{"chat": HistoryLimits()}.get``.
        max_history_rooms: rooms with a history (default 10,000, 0: no limit). Beyond that the least recently used
            history is dropped.
        max_history_bytes: bytes of memory for all histories (default 64 MiB, 0: no limit): the frames, 272 for each
            message and 1600 for each room. Beyond that the oldest messages of the room with the least recent broadcast
            are dropped. Rooms alone may take half of it. Beyond that the least recently used history is dropped.
        accept_rate: connections a second that may join their first room, 0.001 to 1,000,000 (default 0: no limit).
            A member that joins another room does not count.
        accept_burst: connections that may join at once (default 0: the number of two seconds, at least 1).
        encode_gap: a plain function that encodes a :class:`Gap` for the member that lost messages. Its result stands
            in the stream where they are missing: ``str`` is sent as text, bytes-like as binary, ``None`` sends
            nothing. By default members get no such message. It is called while messages are sent and before a close
            frame. It cannot broadcast. A direct send within it may overtake the message that is being sent.
        max_queued_bytes: bytes in the send queues of all members together (default 0: no limit). Beyond that the
            members with the largest queues lose their queued messages, or are closed with 1013 if their behavior is
            ``BLOCK`` or ``CLOSE``. A message counts once for each queue that holds it, with 64 bytes more for its
            objects. Checked at the end of each event loop iteration with a broadcast to members that do not read.

    Raises:
        ValueError: a value is outside its range.
        TypeError: a value is not a number, or not a plain function.
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
        bounds = [each.name for each in fields(self) if each.name.startswith("max_")]
        for name in ("workers", "job_queue_size", "accept_burst", *bounds):
            check_count(name, getattr(self, name), least=1 if name in ("workers", "job_queue_size") else 0)
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
            if callable(function):  # a policy that is not awaited would refuse nothing
                check_callback(function, name)

    @property
    def history_policy(self) -> Callable[[str], HistoryLimits | None] | None:
        """Function that returns the bounds for the name of a room. ``None`` if no room has a history."""
        history = self.history
        return (lambda room: history) if isinstance(history, HistoryLimits) else history
