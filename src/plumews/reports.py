"""What a hub says about its work: frozen snapshots that add up (layer 2).

For every broadcast ``matched = queued + dropped + skipped + pending``; the hub's counters are the sums of the
same numbers over time. Nothing here counts; `fanout` does.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BroadcastResult", "Gap", "HubMetrics", "ShutdownReport"]


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
    """

    matched: int = 0
    queued: int = 0
    dropped: int = 0
    skipped: int = 0
    pending: int = 0
    invalid: bool = False
    stopped: bool = False
    overloaded: bool = False

    @property
    def rejected(self) -> bool:
        """Whether nobody will get it though somebody should have."""
        nobody = self.matched > self.skipped and self.queued == 0 and self.pending == 0
        return self.invalid or self.stopped or self.overloaded or nobody


@dataclass(frozen=True)
class HubMetrics:
    """The counters of a hub. Totals count from its making; limits of 0 are none.

    Attributes:
        active_connections: unique connections in any room, now.
        room_registrations: members of all rooms added up, now.
        rooms: rooms with members, now.
        accepted_total, rejected_total: joins.
        max_connections, max_room_connections: the configured limits.
        broadcasts_total: broadcasts that were accepted; broadcasts_rejected: invalid, stopped or overloaded.
        broadcast_matched, broadcast_queued, broadcast_dropped, broadcast_skipped: deliveries, added up.
        broadcast_pending: deliveries that are not decided yet, now.
        messages_evicted: messages that waited for members, broadcast or sent directly, and gave way to newer ones or
            to the limit of what may wait in all. A broadcast among them stays counted as queued.
        messages_replaced: broadcasts with a key that waited for members and were replaced by newer ones. As above.
    """

    active_connections: int
    room_registrations: int
    rooms: int
    accepted_total: int
    rejected_total: int
    max_connections: int
    max_room_connections: int
    broadcasts_total: int
    broadcasts_rejected: int
    broadcast_matched: int
    broadcast_queued: int
    broadcast_dropped: int
    broadcast_skipped: int
    broadcast_pending: int
    messages_evicted: int
    messages_replaced: int


@dataclass(frozen=True)
class Gap:
    """What a slow member has lost in one place.

    Attributes:
        room: of the messages; ``None`` where they were for everybody, or may be of any room that the member is in.
        dropped: how many they are. Where queued messages gave way, those sent to the member directly count, too.
    """

    room: str | None
    dropped: int


@dataclass(frozen=True)
class ShutdownReport:
    """How a hub ended.

    Attributes:
        closed: members whose closing handshake was completed.
        aborted: members that ended without it: cut because they took too long, or gone by themselves.
        lost_messages: what was still queued for those that were cut at the deadline of the shutdown.
    """

    closed: int = 0
    aborted: int = 0
    lost_messages: int = 0
