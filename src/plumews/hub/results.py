"""Result types of a hub: broadcasts, gaps, and snapshots of members and rooms.

Invariants: for every broadcast ``matched = queued + dropped + skipped + pending``. The repr of a snapshot is one line
of printable ASCII, whatever names clients and rooms have. It contains no token, password or claim, so it may be logged.
"""

from __future__ import annotations

import enum
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from ..constants import SendBehavior, State
from ..http11.models import Address
from ..position import Position

__all__ = ["BroadcastResult", "Gap", "MemberInfo", "RoomInfo"]


@dataclass(frozen=True)
class BroadcastResult:
    """Result of one broadcast, as far as it is known at that moment.

    Attributes:
        matched: members at the time of the call.
        queued: members whose send queue has taken the message.
        dropped: members whose full queue refused the message, or that ended before they had space.
        skipped: members that had left or were closing when the message reached them.
        pending: members that the message has not reached yet, or that get time to make room.
        invalid: True if the room's name is outside the policy. Nothing was sent.
        stopped: True if the hub was stopped. Nothing was sent.
        overloaded: True if the job queue was full. The message was dropped for all members.
        position: position of the message in the history of its room. ``None`` if it is in none.
        positions: positions of a message to several rooms, by room, in those that have a history. ``None`` for one
            room.
    """

    matched: int = 0
    queued: int = 0
    dropped: int = 0
    skipped: int = 0
    pending: int = 0
    invalid: bool = False
    stopped: bool = False
    overloaded: bool = False
    position: Position | None = None
    positions: Mapping[str, Position] | None = field(default=None, hash=False)

    @property
    def rejected(self) -> bool:
        """True if no member gets the message, although there were members to get it."""
        lost = self.matched > self.skipped and self.queued == 0 and self.pending == 0
        return self.invalid or self.stopped or self.overloaded or lost


@dataclass(frozen=True)
class Gap:
    """Messages that a slow member has lost in one place of its stream.

    Attributes:
        room: room of the messages. ``None`` if they were for all members, for several rooms or for one user, or may be
            of any room of the member.
        dropped: number of lost messages. It includes direct sends that were queued and gave way.
    """

    room: str | None
    dropped: int


class _Printable:
    """Dataclass with a repr in ASCII."""

    def __repr__(self) -> str:
        values = ((each.name, getattr(self, each.name)) for each in fields(self))  # type: ignore[arg-type]
        return f"{type(self).__name__}({', '.join(f'{name}={_ascii(value)}' for name, value in values)})"


def _ascii(value: object) -> str:
    if isinstance(value, enum.Enum):
        return value.name
    return str(value) if isinstance(value, uuid.UUID) else ascii(value)


@dataclass(frozen=True, repr=False)
class MemberInfo(_Printable):
    """Snapshot of one member.

    Of a member that is no :class:`plumews.Conn` the hub knows ``id``, the user, ``rooms``, ``since`` and
    ``dropped_messages``. The other attributes have their defaults.

    Attributes:
        id: random UUID that identifies the connection in logs, or the ``id`` of another member.
        remote_address: address of the socket's peer. ``None`` on a Unix socket.
        user_id, user_name: id and name from a verified token. ``None`` without one.
        rooms: its rooms in this hub, in the order of its joins.
        since: time of its first join, in seconds since the epoch. ``None`` if it is in no room.
        state: state of the connection.
        subprotocol: negotiated subprotocol, or ``None``.
        send_behavior: overflow policy of its send queue.
        queued_messages, queued_bytes: size of its send queue.
        queued_age: seconds that the oldest queued message has waited. 0.0 while the peer keeps up.
        dropped_messages: messages that its full send queue has refused.
        compression_bytes: bytes that zlib holds for it, about. 0 without context takeover.
        latency: round-trip time of the last answered ping, in seconds. 0.0 before the first one.
        last_pong: time of its last pong, in seconds since the epoch. The time of its opening before the first one.
        unsent_bytes, unacknowledged_bytes: bytes below the send queue, in the transport and in the kernel, that are not
            on the network yet, or that the peer's kernel has not acknowledged. ``None`` if the kernel does not tell.
        unanswered_bytes: bytes sent since the last answered ping. ``None`` if they are not bounded.
    """

    id: Any
    remote_address: Address | None = None
    user_id: str | None = None
    user_name: str | None = None
    rooms: tuple[str, ...] = ()
    since: float | None = None
    state: State = State.OPEN
    subprotocol: str | None = None
    send_behavior: SendBehavior = SendBehavior.DROP
    queued_messages: int = 0
    queued_bytes: int = 0
    queued_age: float = 0.0
    dropped_messages: int = 0
    compression_bytes: int = 0
    latency: float = 0.0
    last_pong: float = 0.0
    unsent_bytes: int | None = None
    unacknowledged_bytes: int | None = None
    unanswered_bytes: int | None = None


@dataclass(frozen=True, repr=False)
class RoomInfo(_Printable):
    """Snapshot of one room.

    Attributes:
        name: name of the room.
        members: number of members, 0 if there is no such room.
        backlogged: members that do not read fast enough, so that messages wait for them.
        queued_messages, queued_bytes: size of the members' send queues, with messages of other rooms.
        oldest_queued_age: seconds that the oldest queued message has waited. 0.0 while all members keep up.
    """

    name: str
    members: int
    backlogged: int
    queued_messages: int
    queued_bytes: int
    oldest_queued_age: float
