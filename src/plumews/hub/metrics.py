"""What a hub says about itself: its figures, one member, one room (layer 4).

Counters are kept where things happen; what waits in the send queues is added up when somebody asks, so that sending
costs nothing for it. Snapshots are copies: nothing in them changes any more.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ..conn.connection import Conn
from .broadcaster import Publishing
from .results import HubMetrics
from .snapshots import MemberInfo, RoomInfo

__all__ = ["Introspection"]


class _Backlog(NamedTuple):
    """What waits in the send queues of some connections, and what zlib holds for them."""

    messages: int
    bytes: int
    most_messages: int
    most_bytes: int
    connections: int
    oldest: float
    compression: int


class Introspection(Publishing):
    """The visible half of :class:`plumews.Hub`."""

    def metrics(self) -> HubMetrics:
        """A snapshot of all figures.

        The counters cost nothing; for what waits in the send queues every member is looked at: with 10,000 members that
        takes half a millisecond while they keep up, 5 if none of them does. Call it on the thread of the event loop.
        """
        table, tally, requests = self._table, self._tally, self._requests
        outcomes = self._outcomes.snapshot()
        backlog = _backlog(table.roll(None).members)
        return HubMetrics(
            active_connections=table.connections,
            room_registrations=table.registrations,
            rooms=len(table.names()),
            accepted_total=self._accepted,
            rejected_total=self._refusals.total,
            rejected_by=self._refusals.snapshot(),
            max_connections=self.config.max_connections,
            max_room_connections=self.config.max_room_connections,
            broadcasts_total=tally.broadcasts,
            broadcasts_rejected=tally.rejected,
            broadcasts_invalid=outcomes["invalid"],
            broadcasts_stopped=outcomes["stopped"],
            broadcasts_overloaded=outcomes["overloaded"],
            broadcast_matched=tally.matched,
            broadcast_queued=tally.queued,
            broadcast_dropped=tally.dropped,
            broadcast_dropped_by=dict(tally.dropped_by),
            broadcast_skipped=tally.skipped,
            broadcast_pending=tally.pending,
            messages_evicted=self._slow.evicted,
            messages_replaced=self._slow.replaced,
            broadcasts_compressed=tally.compressed,
            compressed_bytes_before=tally.compressed_before,
            compressed_bytes_after=tally.compressed_after,
            compression_bytes=backlog.compression,
            jobs_waiting=len(self._lanes),
            job_queue_size=self.config.job_queue_size,
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

    def inspect(self, conn: Conn) -> MemberInfo:
        """What is to be known about ``conn`` now. One that is in no room, any more or at all, has none in it.

        Raises:
            TypeError: ``conn`` is not a :class:`plumews.Conn`.
        """
        if not isinstance(conn, Conn):
            raise TypeError(f"inspect takes a plumews.Conn, not {type(conn).__name__}")
        user = conn.user_info
        return MemberInfo(
            id=conn.id,
            remote_address=conn.remote_address,
            user_id=None if user is None else user.id,
            user_name=None if user is None else user.name,
            rooms=tuple(self._table.rooms_of(conn)),
            since=self._since.get(conn),
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

    def inspect_room(self, room: str) -> RoomInfo:
        """What is to be known about ``room`` now; every member of it is looked at."""
        members = self._table.roll(room).members
        backlog = _backlog(members)
        return RoomInfo(
            name=room,
            members=len(members),
            backlogged=backlog.connections,
            queued_messages=backlog.messages,
            queued_bytes=backlog.bytes,
            oldest_queued_age=backlog.oldest,
        )


def _backlog(conns: Iterable[Conn]) -> _Backlog:
    messages = size = most_messages = most_bytes = behind = compression = 0
    oldest = 0.0
    for conn in conns:
        writer = conn._writer
        waiting = writer.queued_messages
        if conn._deflate is not None and conn._inflow is not None:
            compression += conn._deflate.held(conn._inflow)
        if waiting:
            messages += waiting
            size += writer.queued_bytes
            most_messages = max(most_messages, waiting)
            most_bytes = max(most_bytes, writer.queued_bytes)
            if writer.paused:  # else they leave with this tick
                behind += 1
                oldest = max(oldest, writer.queued_age)
    return _Backlog(messages, size, most_messages, most_bytes, behind, oldest, compression)
