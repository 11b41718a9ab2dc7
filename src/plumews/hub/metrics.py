"""Metrics of a hub, and snapshots of one member and one room.

Counters are kept where things happen. The backlog of the send queues is added up for each call, so that a send costs
nothing for it. A new metric is a field of `HubMetrics` and a line of `collect_metrics`. `plumews.prometheus` exports it
by the `Export` of its field.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, NamedTuple

from ..conn.connection import Conn
from ..constants import ErrorCode
from ..counters import RequestCounters
from .broadcaster import Broadcaster
from .config import HubConfig
from .member import AnyMember, is_member
from .membership import Membership
from .results import MemberInfo, RoomInfo
from .rooms import RoomTable
from .slow_members import SlowMembers

__all__ = ["FAMILIES", "Export", "HubMetrics", "collect_metrics", "inspect_member", "inspect_room"]

#: Descriptions of the exported families that have several fields. A family of one field has the field's own.
FAMILIES: Final = {
    "joins": "Joins of rooms, by outcome: accepted, or the reason of the refusal.",
    "broadcasts": "Broadcasts, by outcome: accepted, or the reason of the refusal.",
    "deliveries": "Decided deliveries of broadcasts to members, by outcome.",
    "compressed_bytes": "Bytes of the frames that were compressed for broadcasts, before and after.",
}


class Export(NamedTuple):
    """Export of a field of `HubMetrics`: the family of time series that it is, or is one of.

    ``name`` is empty if the family has the field's name. A field with a ``label`` is the series of its ``value``, or
    has a number for each value of the label.
    """

    counter: bool
    name: str
    label: str = ""
    value: str = ""
    unit: str = ""


# The result is Any, as that of `dataclasses.field` is: it stands for a value of the field.


def _counter(doc: str, name: str = "", label: str = "", value: str = "") -> Any:
    return field(metadata={"doc": doc, "export": Export(True, name, label, value)})


def _gauge(doc: str, name: str = "", unit: str = "") -> Any:
    return field(metadata={"doc": doc, "export": Export(False, name, unit=unit)})


def _sum(doc: str) -> Any:
    return field(metadata={"doc": doc, "export": None})


@dataclass(frozen=True)
class HubMetrics:
    """A snapshot of the metrics of a hub. Totals count from its start. A limit of 0 is none.

    Sums that hold at any moment: ``broadcast_matched = broadcast_queued + broadcast_dropped + broadcast_skipped +
    broadcast_pending``. The values of ``rejected_by`` add up to ``rejected_total``, and the values of
    ``broadcast_dropped_by`` to ``broadcast_dropped``. ``broadcasts_rejected = broadcasts_invalid + broadcasts_stopped +
    broadcasts_overloaded``.

    A dropped delivery has a cause. ``block``, ``drop``, ``close``, ``drop-oldest`` and ``conflate`` are the send
    behavior of a full member. The last two drop a new message only while another one is sent in pieces. ``ended``: the
    member closed before it had space. ``overloaded``: the job queue was full. ``stopped``: the hub was stopped.
    """

    active_connections: int = _gauge("Unique connections in any room.", "connections")
    room_registrations: int = _gauge("Sum of the members of all rooms.", "registrations")
    rooms: int = _gauge("Rooms with members.")
    accepted_total: int = _counter("Joins that were accepted.", "joins", "outcome", "accepted")
    rejected_total: int = _sum("Joins that were refused, by ``Hub.can_join``, too.")
    rejected_by: Mapping[str, int] = _counter(
        "Refused joins by reason: ``hub_full``, ``room_full``, ``too_many_rooms``, ``invalid_room_name``, "
        "``hub_stopped``, ``connection_closed`` and so on, after the name of the exception.",
        "joins",
        "outcome",
    )
    max_connections: int = _gauge("Limit of connections.")
    max_room_connections: int = _gauge("Limit of connections in one room.")
    broadcasts_total: int = _counter("Broadcasts that were accepted.", "broadcasts", "outcome", "accepted")
    broadcasts_rejected: int = _sum("Broadcasts that were refused.")
    broadcasts_invalid: int = _counter(
        "Broadcasts refused for a bad room name, or for ``room=None``.", "broadcasts", "outcome", "invalid"
    )
    broadcasts_stopped: int = _counter(
        "Broadcasts refused after the stop of the hub.", "broadcasts", "outcome", "stopped"
    )
    broadcasts_overloaded: int = _counter(
        "Broadcasts refused because the job queue was full.", "broadcasts", "outcome", "overloaded"
    )
    broadcast_matched: int = _sum("Deliveries of broadcasts to members.")
    broadcast_queued: int = _counter("Deliveries that a send queue has taken.", "deliveries", "outcome", "queued")
    broadcast_dropped: int = _counter("Deliveries that were dropped.", "deliveries", "outcome", "dropped")
    broadcast_dropped_by: Mapping[str, int] = _counter("Dropped deliveries by cause.", "dropped_deliveries", "cause")
    broadcast_skipped: int = _counter(
        "Deliveries to members that had left or were closing.", "deliveries", "outcome", "skipped"
    )
    broadcast_pending: int = _gauge("Deliveries that are not decided yet.", "pending_deliveries")
    messages_evicted: int = _counter(
        "Queued messages, broadcast or sent directly, that gave way to newer ones or to ``max_queued_bytes``. "
        "A broadcast among them stays counted as queued.",
        "evicted_messages",
    )
    messages_replaced: int = _counter(
        "Queued broadcasts that were replaced by newer ones of their key. They stay counted as queued.",
        "replaced_messages",
    )
    broadcasts_compressed: int = _counter(
        "Compressed frames made for broadcasts, one for all members without context takeover that negotiated the "
        "same parameters.",
        "compressed_broadcasts",
    )
    compressed_bytes_before: int = _counter(
        "Bytes of the frames that were compressed.", "compressed_bytes", "when", "before"
    )
    compressed_bytes_after: int = _counter("Bytes of the compressed frames.", "compressed_bytes", "when", "after")
    compression_bytes: int = _gauge("Bytes that zlib holds for all members, about.", unit="bytes")
    jobs_waiting: int = _gauge("Broadcasts that have not reached all their members.", "waiting_jobs")
    job_queue_size: int = _gauge("Limit of waiting broadcasts.", "max_waiting_jobs")
    queued_messages: int = _gauge("Messages in the send queues of all members.")
    queued_bytes: int = _gauge("Bytes in the send queues of all members.", unit="bytes")
    largest_queue_messages: int = _gauge("Messages in the longest send queue.")
    largest_queue_bytes: int = _gauge("Bytes in the largest send queue.", unit="bytes")
    backlogged_connections: int = _gauge("Members that do not read fast enough.")
    oldest_queued_age: float = _gauge(
        "Seconds that the oldest message for such a member has waited, 0.0 if there is none.",
        "oldest_queued_age_seconds",
        unit="seconds",
    )
    websockets_opened: int = _counter("WebSockets that room servers with this hub opened.")
    requests_refused: Mapping[str, int] = _counter(
        "Requests that room servers refused, by the code in the response or close frame, and messages that a text "
        "policy rejected.",
        label="code",
    )
    successful_auths: int = _counter("Valid tokens and room passwords at room servers.")

    @property
    def security_rejections(self) -> int:
        """Number of requests refused for their host, origin, room name, token or password."""
        return self._refused_as("security_rejections")

    @property
    def invalid_ws_keys(self) -> int:
        """Number of requests refused for their ``Sec-WebSocket-Key``."""
        return self._refused_as("invalid_ws_keys")

    def _refused_as(self, counted_as: str) -> int:
        return sum(self.requests_refused.get(code, 0) for code in ErrorCode if code.counted_as == counted_as)


if HubMetrics.__doc__:  # not under python -OO
    HubMetrics.__doc__ += "\n    Attributes:\n" + "".join(
        f"        {each.name}: {each.metadata['doc']}\n" for each in fields(HubMetrics)
    )


def collect_metrics(
    config: HubConfig,
    rooms: RoomTable[Any],
    members: Membership,
    slow: SlowMembers,
    broadcaster: Broadcaster,
    requests: RequestCounters,
) -> HubMetrics:
    """Return a snapshot of the metrics of the hub that has these parts."""
    counters = broadcaster.counters
    refusals = broadcaster.refusals.snapshot()
    backlog = _Backlog(rooms.snapshot(None).members, slow)
    return HubMetrics(
        active_connections=rooms.connections,
        room_registrations=rooms.registrations,
        rooms=len(rooms.names()),
        accepted_total=members.accepted,
        rejected_total=members.refusals.total,
        rejected_by=members.refusals.snapshot(),
        max_connections=config.max_connections,
        max_room_connections=config.max_room_connections,
        broadcasts_total=counters.broadcasts,
        broadcasts_rejected=counters.rejected,
        broadcasts_invalid=refusals["invalid"],
        broadcasts_stopped=refusals["stopped"],
        broadcasts_overloaded=refusals["overloaded"],
        broadcast_matched=counters.matched,
        broadcast_queued=counters.queued,
        broadcast_dropped=counters.dropped,
        broadcast_dropped_by=dict(counters.dropped_by),
        broadcast_skipped=counters.skipped,
        broadcast_pending=counters.pending,
        messages_evicted=slow.evicted,
        messages_replaced=slow.replaced,
        broadcasts_compressed=counters.compressed,
        compressed_bytes_before=counters.compressed_before,
        compressed_bytes_after=counters.compressed_after,
        compression_bytes=backlog.compression,
        jobs_waiting=len(broadcaster.scheduler),
        job_queue_size=config.job_queue_size,
        queued_messages=backlog.messages,
        queued_bytes=backlog.bytes,
        largest_queue_messages=backlog.most_messages,
        largest_queue_bytes=backlog.most_bytes,
        backlogged_connections=backlog.connections,
        oldest_queued_age=backlog.oldest,
        websockets_opened=requests.opened,
        requests_refused=requests.refused.snapshot(),
        successful_auths=requests.authenticated,
    )


def inspect_member(conn: AnyMember, rooms: RoomTable[Any], members: Membership, slow: SlowMembers) -> MemberInfo:
    """Return a snapshot of ``conn``. Raise `TypeError` if it cannot be a member."""
    if not is_member(conn):
        raise TypeError(f"inspect takes a plumews.Conn or a plumews.hub.Member, not {type(conn).__name__}")
    user = conn.user_info
    info = MemberInfo(
        id=conn.id,
        user_id=None if user is None else user.id,
        user_name=None if user is None else user.name,
        rooms=tuple(rooms.rooms_of(conn)),
        since=members.since.get(conn),
    )
    if not isinstance(conn, Conn):
        return replace(info, dropped_messages=slow.others.dropped(conn))
    return replace(
        info,
        remote_address=conn.remote_address,
        state=conn.state,
        subprotocol=conn.subprotocol,
        send_behavior=conn.send_behavior,
        queued_messages=conn.queued_messages,
        queued_bytes=conn.queued_bytes,
        queued_age=conn.queued_age,
        unsent_bytes=conn.unsent_bytes,
        unacknowledged_bytes=conn.unacknowledged_bytes,
        unanswered_bytes=conn.unanswered_bytes,
        dropped_messages=conn.dropped_messages,
        compression_bytes=0 if (compression := conn.compression) is None else compression.context_bytes,
        latency=conn.latency,
        last_pong=conn.last_pong,
    )


def inspect_room(room: str, rooms: RoomTable[Any], slow: SlowMembers) -> RoomInfo:
    """Return a snapshot of ``room``."""
    members = rooms.snapshot(room).members
    backlog = _Backlog(members, slow)
    return RoomInfo(
        name=room,
        members=len(members),
        backlogged=backlog.connections,
        queued_messages=backlog.messages,
        queued_bytes=backlog.bytes,
        oldest_queued_age=backlog.oldest,
    )


class _Backlog:
    """Sums over the send queues of ``members``, and the bytes that zlib holds for them."""

    def __init__(self, members: Iterable[Any], slow: SlowMembers) -> None:
        self.messages = self.bytes = self.most_messages = self.most_bytes = self.connections = self.compression = 0
        self.oldest = 0.0
        for conn in [each for each in members if isinstance(each, Conn)] if slow.others else members:
            waiting = conn.queued_messages
            if conn._deflate is not None and conn._inflate is not None:
                self.compression += conn._deflate.held(conn._inflate)
            if waiting:
                self.messages += waiting
                self.bytes += conn.queued_bytes
                self.most_messages = max(self.most_messages, waiting)
                self.most_bytes = max(self.most_bytes, conn.queued_bytes)
                if conn._paused:  # else they leave in this event loop iteration
                    self.connections += 1
                    self.oldest = max(self.oldest, conn.queued_age)
