"""Invariants of a hub, checked against a record of its events.

The record has its own idea of who is in which room, of every message that was sent and of those who were to get it, and
of what was told to whom. :meth:`Record.check` compares it with the hub; :meth:`Record.check_deliveries` judges in the
end what each peer got. Exact are members, news, matched members, refusals, histories, and the sums of all that was
queued and lost; who is slow gets what the sums allow, and everybody else gets everything.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import combinations
from typing import Any

import plumews
from plumews import BroadcastResult, HistoryLimits, Hub, HubConfig, Position, SendBehavior, State
from plumews.hub.broadcaster import Broadcaster
from plumews.hub.history_store import Places
from plumews.hub.rooms import Target
from plumews.protocol.codec import Parser
from plumews.protocol.message import EncodedMessage
from plumews.transport import waiters
from plumews.transport.timers import Timers
from support.hub_model.peers import Peer, StillLoop
from support.members import adds_up

__all__ = ["Record", "RecordingHub", "Sent"]


class Sent:
    """A message: to rooms, to all (``rooms`` is ``None``), to a user, to one connection, or a recovered one."""

    def __init__(self, number: int, place: int, kind: str, rooms: frozenset[str] | None, key: object) -> None:
        self.number = number
        self.place = place
        self.kind = kind
        self.rooms = rooms
        self.key = key
        self.peers: list[Peer] = []
        self.sure: set[Peer] = set()  # those who get it, if their sockets take everything
        self.broadcast: Any = None
        self.last = BroadcastResult()

    def order(self, other: Sent, *, conflated: bool) -> bool | None:
        """Return True if it comes before ``other`` for a peer that gets both. ``None``: there is no order."""
        kinds = {self.kind, other.kind}
        if "loose" in kinds:
            return None
        if not kinds & {"direct", "user"}:
            if self.rooms is not None and other.rooms is not None and self.rooms.isdisjoint(other.rooms):
                return None
            if conflated and None not in (self.key, other.key) and (self.rooms, self.key) != (other.rooms, other.key):
                return None
        return self.place < other.place


class RecordingHub(Hub):
    """Hub that tells the record which broadcasts begin, and which members go."""

    def __init__(self, config: HubConfig, record: Record) -> None:
        super().__init__(config)
        self.record = record
        parts = self._rooms, self._presence, self._history, self._slow, self._broadcaster.scheduler
        self._broadcaster = RecordingBroadcaster(*parts)
        self._broadcaster.record = record
        if self._history is not None:
            keep = self._history.keep

            def keep_and_tell(target: Target, message: EncodedMessage, timers: Timers) -> Places:
                for room in () if target is None else [target] if isinstance(target, str) else target:
                    record.histories[room].append(number_of(message))
                return keep(target, message, timers)

            self._history.keep = keep_and_tell  # type: ignore[method-assign]

    def leave(self, room: str, conn: plumews.Conn) -> None:
        self.record.leaves(conn, [room])
        super().leave(room, conn)

    def remove(self, conn: plumews.Conn) -> None:
        self.record.leaves(conn, list(self.record.by_conn[conn].rooms))
        super().remove(conn)


class RecordingBroadcaster(Broadcaster):
    """Broadcaster that tells the record of each broadcast."""

    record: Record

    def _submit(self, loop: Any, broadcast: Any) -> Any:
        target, _, exclude, where, key, _ = broadcast
        with_room = None if target is None else frozenset([target] if isinstance(target, str) else target)
        peers = [peer for peer in self.record.peers_in(target) if peer.conn is not exclude]
        if where is not None:
            peers = [peer for peer in peers if peer.conn in where.chosen]
        self.record.expected.append(("room", with_room, peers, None if key is None else key[1][1]))
        try:
            return super()._submit(loop, broadcast)
        finally:
            self.record.expected.pop()

    def _fan_out(self, *args: Any) -> Any:
        fan_out = super()._fan_out(*args)
        self.record.began(fan_out)
        return fan_out


def number_of(message: EncodedMessage) -> int:
    """Return the number that is the text of a message."""
    [(_, payload)] = Parser(client=True, max_size=None).feed(b"".join(message.buffers))
    return int(payload)


class Record:
    """One hub, its peers, and the expected state of both."""

    def __init__(self, *, listen: frozenset[str] = frozenset(), history: int = 0, **config: Any) -> None:
        self.loop = StillLoop()
        self.loop.set_exception_handler(lambda loop, context: self.failed(context))
        self.failures: list[Any] = []
        self.failing = 0  # that are meant to
        self.listen, self.kept = listen, history
        self.config = HubConfig(
            encode_gap=self.encode_gap if "encode" in listen else None,
            history=HistoryLimits(max_messages=history, max_age=1e6) if history else None,
            **config,
        )
        self.hub = RecordingHub(self.config, self)
        # --- who is there
        self.peers: list[Peer] = []
        self.by_conn: dict[plumews.Conn, Peer] = {}
        self.rooms: dict[str, dict[Peer, None]] = {}
        self.everybody: dict[Peer, None] = {}
        self.news: list[tuple[str, str, Peer]] = []
        self.heard: list[tuple[str, str, Peer]] = []
        self.heard_last: list[tuple[str, str, Peer]] = []  # by who is called behind the one that does things
        self.joined = self.refused = 0
        # --- what was sent
        self.place = 0
        self.sent: dict[int, Sent] = {}
        self.copies: dict[Peer, list[Sent]] = defaultdict(list)
        self.expected: list[tuple[str, frozenset[str] | None, list[Peer], object]] = []
        self.undecided: list[Sent] = []
        self.decided: list[Sent] = []
        self.sums: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()
        self.rejected_members = 0
        self.sent_directly = self.recovered = self.sending = self.notes = 0
        self.histories: dict[str, list[int]] = defaultdict(list)
        self.stopped = False
        self.muted = False  # the application failed to put a gap into words, or closed a connection meanwhile

    def encode_gap(self, gap: plumews.Gap) -> str | None:
        raise NotImplementedError

    def failed(self, context: dict[str, Any]) -> None:
        """Record an error that is reported to the event loop or to a connection."""
        if isinstance(context.get("exception"), ZeroDivisionError) and self.failing:
            self.failing -= 1
        else:
            self.failures.append(context.get("exception") or context)

    # --- who is there -----------------------------------------------------------------------------

    def newcomer(self, polite: bool, config: dict[str, Any], agreed: tuple[int, bool] | None = None) -> Peer:
        peer = Peer(len(self.peers), polite, self.ends, config, agreed)
        self.peers.append(peer)
        self.by_conn[peer.conn] = peer
        return peer

    def peers_in(self, target: str | tuple[str, ...] | None) -> list[Peer]:
        """Return the peers in a room, in several or in any."""
        if target is None:
            return list(self.everybody)
        rooms = (target,) if isinstance(target, str) else target
        return list(dict.fromkeys(peer for room in rooms for peer in self.rooms.get(room, ())))

    def users(self, user_id: str) -> list[Peer]:
        return [peer for peer in self.everybody if peer.known is not None and peer.known.id == user_id]

    def refuses(self, room: str, peer: Peer) -> bool:
        """Return True if ``peer`` may not join."""
        config = self.config
        if self.stopped or peer.conn.closed:
            return True
        return room not in peer.rooms and (
            (0 < config.max_connections <= len(self.everybody) and not peer.rooms)
            or 0 < config.max_room_connections <= len(self.rooms.get(room, ()))
            or 0 < config.max_rooms_per_connection <= len(peer.rooms)
        )

    def enters(self, room: str, peer: Peer) -> None:
        """Note that ``peer`` joins as the user that its connection has now."""
        peer.known = peer.conn.user_info
        if room not in peer.rooms:
            self.joined += 1
            peer.rooms[room] = None
            self.rooms.setdefault(room, {})[peer] = None
            self.everybody[peer] = None
            self.news.append(("join", room, peer))
        self.look_who_is_sure(peer)

    def leaves(self, conn: plumews.Conn, rooms: Iterable[str]) -> None:
        peer = self.by_conn[conn]
        for room in rooms:
            if room in peer.rooms:
                del peer.rooms[room], self.rooms[room][peer]
                if not self.rooms[room]:
                    del self.rooms[room]
                self.news.append(("leave", room, peer))
        if not peer.rooms:
            self.everybody.pop(peer, None)
            peer.known = None
        self.look_who_is_sure(peer)

    def ends(self, peer: Peer) -> None:
        """Note that ``peer`` gets no new messages."""
        for sent in self.undecided:
            if sent.broadcast.pending:
                sent.sure.discard(peer)

    def look_who_is_sure(self, peer: Peer) -> None:
        """Update the sure recipients after ``peer`` has joined, left or changed its user."""
        for sent in self.undecided:
            if sent.broadcast.pending and not self.is_for(sent, peer):
                sent.sure.discard(peer)

    def is_for(self, sent: Sent, peer: Peer) -> bool:
        if sent.kind == "user":
            return peer.known is not None and peer.known.id == sent.key
        return bool(peer.rooms) if sent.rooms is None else not sent.rooms.isdisjoint(peer.rooms)

    # --- what is sent -----------------------------------------------------------------------------

    def note(self, number: int, kind: str, rooms: frozenset[str] | None = None, key: object = None) -> Sent:
        self.place += 1
        sent = self.sent[number] = Sent(number, self.place, kind, rooms, key)
        return sent

    def began(self, broadcast: Any) -> None:
        """Note that a broadcast begins."""
        kind, rooms, peers, key = self.expected[-1]
        sent = self.note(number_of(broadcast.message), kind, rooms, key)
        if broadcast.matched != len(peers):
            self.failures.append(f"{broadcast.matched} members were matched, not {peers}")
        sent.broadcast, sent.peers = broadcast, peers
        sent.sure = {peer for peer in peers if peer.conn.state is State.OPEN and self.is_for(sent, peer)}
        sent.last = broadcast.result()
        self.undecided.append(sent)

    def remembered(self, room: str, position: Position) -> tuple[list[int], bool]:
        """Return the messages of a recovery from ``position``, and whether they are complete."""
        history = self.histories[room]
        kept = history[len(history) - min(len(history), self.kept) :]
        if not self.kept or position.epoch == "another":
            return kept, False
        missed = len(history) - position.offset
        if missed < 0:
            return [], False
        return kept[len(kept) - min(missed, len(kept)) :], missed <= len(kept)

    # --- what holds at any moment -----------------------------------------------------------------

    def check(self) -> None:
        assert not self.failures, self.failures
        for peer in self.peers:
            assert not peer.faults, peer.faults
        self.check_members()
        self.check_broadcasts()
        self.check_losses()
        self.check_bounds()

    def check_members(self) -> None:
        hub = self.hub
        assert set(hub.rooms()) == set(self.rooms)
        for room in "abc":
            assert [self.by_conn[conn] for conn in hub.members(room)] == list(self.rooms.get(room, ()))
            assert hub.room_count(room) == len(self.rooms.get(room, ()))
            ids = Counter(peer.known.id if peer.known else "" for peer in self.rooms.get(room, ()))
            presence = hub.presence(room)
            assert presence.anonymous == ids.pop("", 0)
            assert {user.id: user.connections for user in presence.users} == ids
        assert hub.total_count() == sum(map(len, self.rooms.values()))
        assert hub.connection_count() == len(self.everybody)
        for user in ("ann", "bob"):
            assert {self.by_conn[conn] for conn in hub.connections_of(user)} == set(self.users(user))
        assert self.heard == self.heard_last == self.news
        self.heard.clear()
        self.heard_last.clear()
        self.news.clear()

    def check_broadcasts(self) -> None:
        metrics = self.hub.metrics()
        totals = Counter(self.sums)
        undecided, self.undecided = self.undecided, []
        for sent in undecided:
            before, now = sent.last, sent.broadcast.result()
            assert adds_up(now)
            assert (now.matched, now.position) == (before.matched, before.position)
            assert now.queued >= before.queued
            assert now.dropped >= before.dropped
            assert now.skipped >= before.skipped
            sent.last = now
            counts = {name: getattr(now, name) for name in ("matched", "queued", "dropped", "skipped", "pending")}
            totals.update(counts)
            if now.pending:
                self.undecided.append(sent)
            else:
                self.sums.update(counts)
                self.decided.append(sent)
                if self.stopped and now.dropped:
                    sent.sure.clear()  # the time was over before all were reached
        assert adds_up(metrics)
        for name in ("queued", "skipped", "pending"):
            assert getattr(metrics, f"broadcast_{name}") == totals[name], name
        assert metrics.broadcast_matched == totals["matched"] + self.rejected_members
        assert metrics.broadcast_dropped == totals["dropped"] + self.rejected_members
        assert metrics.broadcast_dropped_by["overloaded"] == self.rejected_members
        assert metrics.broadcasts_total == len(self.undecided) + len(self.decided)
        assert metrics.broadcasts_rejected == self.rejected.total()
        assert (metrics.accepted_total, metrics.rejected_total) == (self.joined, self.refused)

    def check_losses(self) -> None:
        """Check that each accepted message was sent, waits, or is counted as lost."""
        queued = self.sums["queued"] + sum(sent.last.queued for sent in self.undecided)
        accepted = queued + self.sent_directly + self.recovered
        there = evicted = replaced = told_notes = 0
        for peer in self.peers:
            conn = peer.conn
            run = 0 if conn._queue is None else conn._queue.run_messages()
            there += len(peer.items) + conn.queued_messages + run + conn._lost[0]
            evicted += conn.evicted_messages
            replaced += conn.replaced_messages
            told_notes += len(peer.notes)
        extra = there + evicted + replaced - accepted
        assert 0 <= extra <= self.sending + self.notes - told_notes
        metrics = self.hub.metrics()
        assert metrics.messages_evicted == evicted - sum(peer.untold_evicted for peer in self.peers)
        assert metrics.messages_replaced == replaced
        if "drop" in self.listen:
            to_tell: Counter[plumews.Conn] = Counter()
            for (conn, _), count in self.hub._slow.notices._drops.items():
                to_tell[conn] += count
            for peer in self.peers:
                assert peer.told + to_tell[peer.conn] + peer.untold == peer.conn.dropped_messages
            if "gap" in self.listen:
                self.check_gaps(to_tell)

    def check_gaps(self, drops: Counter[plumews.Conn]) -> None:
        """Check that each loss was reported to its peer, or will be."""
        to_tell: Counter[plumews.Conn] = Counter()
        for conn, gap in self.hub._slow.notices._gaps:
            to_tell[conn] += gap.dropped
        for peer in self.peers:
            member = self.hub._slow.members.get(peer.conn)
            ends = () if member is None else (member.loss.first, member.loss.last)
            owed = sum(sum(end.lost.values()) for end in ends)
            told = peer.gaps + to_tell[peer.conn]
            assert told + owed == peer.told + drops[peer.conn]
            delivered = not (peer.lossy or peer.conn._lost[0] or peer.conn.queued_messages)
            if "encode" in self.listen and not self.muted and delivered:
                assert sum(gap.dropped for gap in peer.notes) == told

    def check_bounds(self) -> None:
        metrics, config = self.hub.metrics(), self.config
        assert metrics.jobs_waiting <= config.job_queue_size + config.workers
        for peer in self.peers:
            conn = peer.conn
            notes = 2 * (4 if "encode" in self.listen else 0)
            assert conn.queued_messages <= peer.config.queue_size + notes
            assert conn.queued_bytes <= peer.config.queue_bytes + 20 * notes or conn.queued_messages <= 1 + notes
            member = self.hub._slow.members.get(conn)
            line = 0 if member is None else len(member.waiting or ())
            assert line <= peer.config.queue_size
            assert waiters.count(conn) <= (0 if conn.closed else line + self.sending)
        present = {conn for conn, member in self.hub._slow.members.items() if not member.left}
        assert present <= {peer.conn for peer in self.everybody}

    # --- what holds in the end --------------------------------------------------------------------

    def check_deliveries(self) -> None:
        due: defaultdict[Peer, list[Sent]] = defaultdict(list)
        for sent in self.sent.values():
            for peer in sent.peers:
                due[peer].append(sent)
        for peer in self.peers:
            candidates: defaultdict[int, list[Sent]] = defaultdict(list)
            for sent in [*due[peer], *self.copies[peer]]:
                candidates[sent.number].append(sent)
            for number, count in Counter(peer.items).items():
                assert count <= len(candidates[number]), f"{peer} got {number} {count} times"
            # What was recovered may be what was broadcast to it before: then no order is known.
            known = [candidates[number][0] for number in peer.items if len(candidates[number]) == 1]
            conflated = peer.config.send_behavior is SendBehavior.CONFLATE
            for one, other in combinations(known, 2):
                assert one.order(other, conflated=conflated) is not False, f"{peer}: {one.number}, {other.number}"
            if not peer.blocked and not peer.lossy:
                sure = [sent for sent in due[peer] if peer in sent.sure and (sent.key is None or not conflated)]
                missing = {sent.number for sent in sure} - set(peer.items)
                missing |= {sent.number for sent in self.copies[peer]} - set(peer.items)
                assert not missing, f"{peer} did not get {missing}"

    def forget(self) -> None:
        """Let go of all connections."""
        for peer in self.peers:
            vars(peer).clear()
        del peer
        for everything in (
            self.peers,
            self.by_conn,
            self.rooms,
            self.everybody,
            self.news,
            self.heard,
            self.heard_last,
        ):
            everything.clear()  # type: ignore[attr-defined]
        for everything in (self.sent, self.copies, self.undecided, self.decided):
            everything.clear()  # type: ignore[attr-defined]
