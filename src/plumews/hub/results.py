"""What a hub says about its work: frozen snapshots that add up (layer 2).

For every broadcast ``matched = queued + dropped + skipped + pending``; the hub's counters are the sums of the
same numbers over time. Nothing here counts; `fanout` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..constants import ErrorCode
from ..position import Position

__all__ = ["BroadcastResult", "Gap", "HubMetrics"]


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
class HubMetrics:
    """The figures of a hub, at the moment when they were asked for. Totals count from its making; limits of 0 are none.

    Sums that hold at any moment: ``broadcast_matched = broadcast_queued + broadcast_dropped + broadcast_skipped +
    broadcast_pending``; the values of ``rejected_by`` are ``rejected_total``, those of ``broadcast_dropped_by``
    ``broadcast_dropped``; ``broadcasts_rejected = broadcasts_invalid + broadcasts_stopped + broadcasts_overloaded``.

    Attributes:
        active_connections: unique connections in any room, now.
        room_registrations: members of all rooms added up, now.
        rooms: rooms with members, now.
        accepted_total, rejected_total: joins; refusals by :meth:`plumews.Hub.can_join`, too.
        rejected_by: refused joins by reason, the name of the exception: ``hub_full``, ``room_full``,
            ``too_many_rooms``, ``invalid_room_name``, ``hub_stopped``, ``connection_closed`` and so on.
        max_connections, max_room_connections: the configured limits.
        broadcasts_total: broadcasts that were accepted; broadcasts_rejected: those that were not, because of a bad
            room name (broadcasts_invalid), of the end of the hub (broadcasts_stopped), or of a full job queue
            (broadcasts_overloaded).
        broadcast_matched, broadcast_queued, broadcast_dropped, broadcast_skipped: deliveries, added up.
        broadcast_dropped_by: dropped deliveries by cause: ``block``, ``drop``, ``close``, ``drop-oldest``, ``conflate``
            are the send behavior of a member that was full (the last two drop a new message only while another is sent
            in pieces), ``ended`` that it ended before it had space, ``overloaded`` the job queue, ``stopped`` the end
            of the hub.
        broadcast_pending: deliveries that are not decided yet, now.
        messages_evicted: messages that waited for members, broadcast or sent directly, and gave way to newer ones or
            to the limit of what may wait in all. A broadcast among them stays counted as queued.
        messages_replaced: broadcasts with a key that waited for members and were replaced by newer ones. As above.
        broadcasts_compressed: compressed frames that were made for broadcasts: one for each set of parameters on which
            members without takeover agreed, whatever their number.
        compressed_bytes_before, compressed_bytes_after: of these, as frames.
        compression_bytes: what zlib holds for all members together, about, now.
        jobs_waiting: broadcasts that have not reached all their members, now; job_queue_size: how many may wait.
        queued_messages, queued_bytes: what waits in the send queues of all members, now.
        largest_queue_messages, largest_queue_bytes: the longest of these queues, and the one of most bytes.
        backlogged_connections: members for which messages wait because they do not read fast enough.
        oldest_queued_age: seconds that the oldest of these messages has waited; 0.0 if there is none.
        websockets_opened: by the servers of :func:`plumews.serve_rooms` with this hub.
        requests_refused: requests that these servers refused, by the code in the answer
            (``WEBSOCKET_FORBIDDEN_ORIGIN`` ...), also where a close code told it; and messages that a text policy
            rejected, as ``WEBSOCKET_MESSAGE_REJECTED``.
        successful_auths: tokens and room passwords that these servers found right.
    """

    active_connections: int
    room_registrations: int
    rooms: int
    accepted_total: int
    rejected_total: int
    rejected_by: Mapping[str, int]
    max_connections: int
    max_room_connections: int
    broadcasts_total: int
    broadcasts_rejected: int
    broadcasts_invalid: int
    broadcasts_stopped: int
    broadcasts_overloaded: int
    broadcast_matched: int
    broadcast_queued: int
    broadcast_dropped: int
    broadcast_dropped_by: Mapping[str, int]
    broadcast_skipped: int
    broadcast_pending: int
    messages_evicted: int
    messages_replaced: int
    broadcasts_compressed: int
    compressed_bytes_before: int
    compressed_bytes_after: int
    compression_bytes: int
    jobs_waiting: int
    job_queue_size: int
    queued_messages: int
    queued_bytes: int
    largest_queue_messages: int
    largest_queue_bytes: int
    backlogged_connections: int
    oldest_queued_age: float
    websockets_opened: int
    requests_refused: Mapping[str, int]
    successful_auths: int

    @property
    def security_rejections(self) -> int:
        """Requests refused for their host, origin, room name, token or password."""
        return self._refused_as("security_rejections")

    @property
    def invalid_ws_keys(self) -> int:
        """Requests refused for their ``Sec-WebSocket-Key``."""
        return self._refused_as("invalid_ws_keys")

    def _refused_as(self, counted_as: str) -> int:
        return sum(self.requests_refused.get(code, 0) for code in ErrorCode if code.counted_as == counted_as)


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
