"""What a hub says about its work: frozen snapshots that add up (layer 2).

For every broadcast ``matched = queued + dropped + skipped + pending``; the hub's counters are the sums of the
same numbers over time. Nothing here counts; `fanout` does.
"""

from __future__ import annotations

import enum
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from ..constants import SendBehavior, State
from ..http11.models import Address
from ..position import Position

__all__ = ["BroadcastResult", "Gap", "MemberInfo", "RoomInfo"]


@dataclass(frozen=True)
class BroadcastResult:
    """What became of one broadcast, at the moment when it was asked.

    Attributes:
        matched: members at the time of the call.
        queued: members whose send queue has taken the message.
        dropped: members whose full queue refused it, or that it was given up for.
        skipped: members that had left or were closing when it reached them.
        pending: members that it has not reached yet, or that get time to make room.
        invalid: the room's name is outside the policy; nothing was done.
        stopped: the hub was stopped; nothing was done.
        overloaded: the job queue was full; the message was dropped for everybody.
        position: of the message in the history of its room; ``None`` if it is in none, and if nothing was done.
        positions: of a message to several rooms, by room, in those that have a history; ``None`` for one room.
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
        """Whether nobody will get it though somebody should have."""
        nobody = self.matched > self.skipped and self.queued == 0 and self.pending == 0
        return self.invalid or self.stopped or self.overloaded or nobody


@dataclass(frozen=True)
class Gap:
    """What a slow member has lost in one place.

    Attributes:
        room: of the messages; ``None`` where they were for everybody, for several rooms or for one user, or may be of
            any room that the member is in.
        dropped: how many they are. Where queued messages gave way, those sent to the member directly count, too.
    """

    room: str | None
    dropped: int


class _Printable:
    """The repr of a dataclass, in ASCII."""

    def __repr__(self) -> str:
        values = ((each.name, getattr(self, each.name)) for each in fields(self))  # type: ignore[arg-type]
        return f"{type(self).__name__}({', '.join(f'{name}={_ascii(value)}' for name, value in values)})"


def _ascii(value: object) -> str:
    if isinstance(value, enum.Enum):
        return value.name
    return str(value) if isinstance(value, uuid.UUID) else ascii(value)


@dataclass(frozen=True, repr=False)
class MemberInfo(_Printable):
    """A connection as its hub sees it, at the moment when it was asked.

    Attributes:
        id: the connection's random identity.
        remote_address: the peer's, as the socket tells it; ``None`` on a Unix socket.
        user_id, user_name: what a verified token said; ``None`` without one.
        rooms: those of the hub in which it is, in the order in which it joined.
        since: when it came into the hub, in seconds since the epoch; ``None`` if it is in no room.
        state: of the connection.
        subprotocol: that was agreed on, or ``None``.
        send_behavior: what its full send queue does.
        queued_messages, queued_bytes: what waits in its send queue.
        queued_age: seconds that the oldest of that has waited; 0.0 while the peer keeps up.
        dropped_messages: what its full send queue refused, in all.
        compression_bytes: what zlib holds for it, about; 0 where nothing is compressed with takeover.
        latency: seconds that its newest answered ping took; 0.0 before there was one.
        last_pong: when its last pong arrived, in seconds since the epoch; its opening before the first.
        unsent_bytes, unacknowledged_bytes: what is below that queue: in the transport, and in the kernel before it is
            on the network, or before the peer's kernel has it; ``None`` where the kernel cannot be asked.
        unanswered_bytes: what was sent since the last ping that was answered; ``None`` where it is not bounded.
    """

    id: uuid.UUID
    remote_address: Address | None
    user_id: str | None
    user_name: str | None
    rooms: tuple[str, ...]
    since: float | None
    state: State
    subprotocol: str | None
    send_behavior: SendBehavior
    queued_messages: int
    queued_bytes: int
    queued_age: float
    dropped_messages: int
    compression_bytes: int
    latency: float
    last_pong: float
    unsent_bytes: int | None = None
    unacknowledged_bytes: int | None = None
    unanswered_bytes: int | None = None


@dataclass(frozen=True, repr=False)
class RoomInfo(_Printable):
    """A room at the moment when it was asked.

    Attributes:
        name: of the room.
        members: in it; 0 if there is no such room.
        backlogged: members for which messages wait because they do not read fast enough.
        queued_messages, queued_bytes: what waits for its members, whatever room it was said in.
        oldest_queued_age: seconds that the oldest of that has waited; 0.0 while everybody keeps up.
    """

    name: str
    members: int
    backlogged: int
    queued_messages: int
    queued_bytes: int
    oldest_queued_age: float
