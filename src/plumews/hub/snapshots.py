"""One member and one room of a hub, as they were when somebody looked (layer 2).

Invariant: the repr of a snapshot is one line of printable ASCII, whatever clients call themselves and their rooms, and
no token, password or claim is in it: it may go to a log.
"""

from __future__ import annotations

import enum
import uuid
from dataclasses import dataclass, fields

from ..constants import SendBehavior, State
from ..http11.models import Address

__all__ = ["MemberInfo", "RoomInfo"]


class _Printable:
    """The repr of a dataclass, in ASCII."""

    def __repr__(self) -> str:
        values = ((field.name, getattr(self, field.name)) for field in fields(self))  # type: ignore[arg-type]
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
