"""Events of a hub, from outside and from inside its callbacks.

Each event is a method of :class:`World`, which asserts the immediate result. `record` checks the rest. A callback runs
the action that :attr:`World.plans` has for it, if any. So each choice is made before it happens, and a failing sequence
can be repeated without one of its steps.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref
from collections import Counter, defaultdict, deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

import plumews
from plumews import (
    BroadcastResult,
    ConnectionClosed,
    Gap,
    HubError,
    Opcode,
    Position,
    SendBehavior,
    SendQueueFull,
    SendTimeout,
    ShutdownReport,
    State,
    UserInfo,
    limits,
)
from plumews.conn.receiver import deliver_to
from plumews.protocol.message import encode
from plumews.transport.loop_context import loop_context
from support.hub_model.peers import Peer
from support.hub_model.record import Record, Sent
from support.members import adds_up
from support.raw_client import masked

__all__ = ["Action", "World"]

#: Members that a fan-out reaches before it looks at the clock.
STRIDE = 64
DISPLACING = (SendBehavior.DROP_OLDEST, SendBehavior.CONFLATE)
#: What may be done by who is asked for the words of a gap, in the midst of a broadcast.
WITHIN_A_BROADCAST = ("direct", "cut", "leave", "remove", "join", "fail")
Action = tuple[str, tuple[Any, ...]]


class Where:
    """Predicate that runs an action in its first call."""

    def __init__(self, react: Callable[[str], None], chosen: set[plumews.Conn]) -> None:
        self.react = react
        self.chosen = chosen

    def __call__(self, conn: plumews.Conn) -> bool:
        self.react("where")
        return conn in self.chosen


class World(Record):
    """Events of a hub: each method is one, and a callback may cause any of them."""

    def __init__(self, **config: Any) -> None:
        super().__init__(**config)
        self.plans: defaultdict[str, deque[Action]] = defaultdict(deque)
        self.members: list[Peer] = []  # those that are spoken of by number
        self.number = 0
        self.tasks: list[asyncio.Task[None]] = []
        self.report: ShutdownReport | None = None
        with self.loop.within():
            self.hub.on_join(lambda room, conn: self.hear("join", room, conn))
            self.hub.on_leave(lambda room, conn: self.hear("leave", room, conn))
            self.hub.on_join(lambda room, conn: self.heard_last.append(("join", room, self.by_conn[conn])))
            self.hub.on_leave(lambda room, conn: self.heard_last.append(("leave", room, self.by_conn[conn])))
            for room in "abc":
                self.hub.watch_count(room, self.counted)
                self.hub.watch_presence(room, lambda room, came, went: self.react("presence"))
            if "slow" in self.listen:
                self.hub.on_slow(lambda conn: self.react("slow"))
            if "drop" in self.listen:
                self.hub.on_drop(self.dropped)
            if "gap" in self.listen:
                self.hub.on_gap(self.gap)

    # --- callbacks ------------------------------------------------------------------------------------

    def react(self, kind: str) -> None:
        if self.plans[kind]:
            self.do(self.plans[kind].popleft())

    def do(self, action: Action) -> None:
        name, arguments = action
        getattr(self, name)(*arguments)

    def hear(self, kind: str, room: str, conn: plumews.Conn) -> None:
        self.heard.append((kind, room, self.by_conn[conn]))
        self.react(kind)

    def counted(self, room: str, count: int) -> None:
        assert count == len(self.rooms.get(room, ()))
        self.react("count")

    def dropped(self, conn: plumews.Conn, room: str | None, count: int) -> None:
        self.by_conn[conn].told += count
        self.react("drop")

    def gap(self, conn: plumews.Conn, gap: Gap) -> None:
        self.by_conn[conn].gaps += gap.dropped
        self.react("gap")

    def encode_gap(self, gap: Gap) -> str | None:
        self.notes += 1
        self.muted |= bool(self.plans["encode"]) and self.plans["encode"][0][0] in ("fail", "cut")
        if self.plans["encode"] and self.plans["encode"][0][0] in WITHIN_A_BROADCAST:
            self.react("encode")
        return f"gap:{gap.room or ''}:{gap.dropped}"

    # --- connections ------------------------------------------------------------------------------

    def peer(self, who: int) -> Peer:
        return self.members[who % len(self.members)]

    def open(
        self,
        polite: bool,
        user: UserInfo | None,
        config: dict[str, Any],
        agreed: tuple[int, bool] | None,
        rooms: str,
        full: int | None,
    ) -> None:
        peer = self.newcomer(polite, config, agreed)
        peer.conn.user_info = user
        deliver_to(peer.conn, lambda conn, _: self.react("message"), lambda conn, exc: self.failed({"exception": exc}))
        peer.conn.add_close_callback(lambda conn: self.react("closed"))
        self.members.append(peer)
        del self.members[:-6]
        for room in rooms:
            self.join_peer(room, peer)
        if full is not None:
            self.fill(len(self.members) - 1, full)

    def crowd(self, room: str) -> None:
        """Let so many members join that a fan-out takes one more time slice."""
        if len(self.peers) < 4 * STRIDE and not self.config.max_connections and not self.config.max_room_connections:
            for _ in range(STRIDE - 1):
                self.join_peer(room, self.newcomer(True, {}))

    def identify(self, who: int, user: UserInfo | None) -> None:
        self.peer(who).conn.user_info = user

    def cut(self, who: int, code: int | None) -> None:
        """Close or abort a connection."""
        if code is None:
            self.abort(who)
        else:
            self.close(who, code)

    def close(self, who: int, code: int) -> None:
        self.peer(who).conn.close_nowait(code, "bye")

    def abort(self, who: int) -> None:
        peer = self.peer(who)
        peer.lossy = True
        self.ends(peer)
        peer.conn.abort()

    def end(self, who: int, how: str) -> None:
        {"FIN": self.peer_ends, "RST": self.peer_resets, "close frame": self.peer_closes}[how](who)

    def peer_says(self, who: int, count: int) -> None:
        self.peer(who).says(*[masked(Opcode.TEXT, b"x")] * count)

    def peer_closes(self, who: int) -> None:
        peer = self.peer(who)
        self.ends(peer)
        peer.says(masked(Opcode.TEXT, b"x"), masked(Opcode.CLOSE, b"\x03\xe8"))

    def peer_ends(self, who: int) -> None:
        """Let the peer send its FIN."""
        peer = self.peer(who)
        if not peer.transport.over:
            peer.lossy = True
            self.ends(peer)
            if not peer.conn.eof_received():
                peer.transport.close()

    def peer_resets(self, who: int) -> None:
        peer = self.peer(who)
        peer.lossy = True
        self.ends(peer)
        peer.transport.end(ConnectionResetError())

    def fill(self, who: int, after: int) -> None:
        """Fill the socket of a peer, at once or after so many writes."""
        peer = self.peer(who)
        if not peer.transport.closing and not peer.transport.held:
            peer.blocked = True
            peer.transport.full_after = after or None
            if not after:
                peer.transport.fill()

    def drain(self, who: int) -> None:
        self.peer(who).transport.drain()

    def trickle(self, who: int) -> None:
        """Let a peer read a little, too little to resume writing."""
        self.peer(who).transport.held //= 2

    def away(self, room: str, who: int, count: int) -> None:
        """Let a peer lose its network for a while."""
        self.join(room, who)
        self.leave(room, who)
        for _ in range(count):
            self.broadcast(room, 0, None, None, None)
        self.recover(room, who, False)

    def fail(self) -> None:
        """Raise an error of the application."""
        self.failing += 1
        raise ZeroDivisionError

    # --- rooms ------------------------------------------------------------------------------------

    def join(self, room: str, who: int) -> None:
        self.join_peer(room, self.peer(who))

    def join_peer(self, room: str, peer: Peer) -> None:
        if self.refuses(room, peer):
            self.refused += 1
            with pytest.raises((HubError, ConnectionClosed)):
                self.hub.join(room, peer.conn)
        else:
            self.enters(room, peer)
            self.hub.join(room, peer.conn)

    def leave(self, room: str, who: int) -> None:
        peer = self.peer(who)
        if room in peer.rooms and self.kept and not self.stopped:
            position = self.hub.position(room)
            assert position is not None
            assert position.offset == len(self.histories[room])
            peer.left_at[room] = position
        self.hub.leave(room, peer.conn)

    def remove(self, who: int) -> None:
        self.hub.remove(self.peer(who).conn)

    def recover(self, room: str, who: int, future: bool) -> None:
        peer = self.peer(who)
        position = peer.left_at.get(room, Position("", 0))
        if future:
            position = Position(position.epoch or "another", 10**6)
        if room in peer.rooms:
            with pytest.raises(ValueError, match="in this room already"):
                self.hub.recover(room, peer.conn, position)
            return
        if self.refuses(room, peer):
            self.refused += 1
            with pytest.raises((HubError, ConnectionClosed)):
                self.hub.recover(room, peer.conn, position)
            return
        if peer.config.send_behavior is SendBehavior.CLOSE and peer.conn._catch_up_hooks:
            return  # what comes first may close it
        numbers, complete = self.remembered(room, position)
        copies = []
        for number in numbers:
            self.place += 1  # now: a callback may broadcast before this returns
            copies.append(Sent(number, self.place, "copy", frozenset([room]), None))
        self.enters(room, peer)
        recovery = self.hub.recover(room, peer.conn, position)
        assert recovery.messages == len(copies) or ((peer.blocked or peer.lossy) and recovery.messages < len(copies))
        assert recovery.complete is (complete and recovery.messages == len(copies))
        self.copies[peer] += copies[: recovery.messages]
        self.recovered += recovery.messages
        peer.untold += len(copies) - recovery.messages

    # --- messages to many -------------------------------------------------------------------------

    def message(self, size: int) -> str:
        self.number += 1
        return str(self.number).ljust(size)

    def options(self, who: int | None, chosen: frozenset[int] | None, key: int | None) -> dict[str, Any]:
        return {
            "key": key,
            "exclude": None if who is None else self.peer(who).conn,
            "where": None if chosen is None else Where(self.react, {self.peer(each).conn for each in chosen}),
        }

    def burst(self, rooms: Any, count: int) -> None:
        """Broadcast ``count`` messages at once. Full members lose some."""
        for number in range(count):
            self.broadcast(rooms, 0, None, None, number % 3 or None)

    def broadcast(self, rooms: Any, size: int, *choice: Any) -> None:
        message, options = self.message(size), self.options(*choice)
        send = self.hub.broadcast_all if rooms is None else lambda *a, **k: self.hub.broadcast_room(rooms, *a, **k)
        if self.hub._slow.reports.encoding:
            with pytest.raises(RuntimeError, match="encode_gap must not broadcast"):
                send(message, **options)
            return
        foreseen = None if options["where"] is not None else self.foresee(rooms, message, options["exclude"])
        try:
            result = send(message, **options)
        except ZeroDivisionError:
            self.nothing_was_sent(message)
        else:
            self.judge(message, result, foreseen)

    def nothing_was_sent(self, message: str) -> None:
        """Check that a failing predicate sent nothing."""
        self.failing -= 1
        assert int(message) not in self.sent

    def publish(self, rooms: Any, size: int, *choice: Any) -> None:
        options = self.options(*choice)

        async def publish() -> None:
            message = self.message(size)
            try:
                result = await self.hub.publish(rooms, message, **options)
            except ZeroDivisionError:
                self.nothing_was_sent(message)
                return
            assert result.pending == 0
            assert not result.overloaded or options["where"] is not None
            self.judge(message, result, None)

        self.start(publish())

    def send_to_user(self, user: str, size: int, who: int | None) -> None:
        message = self.message(size)
        exclude = None if who is None else self.peer(who).conn
        if self.hub._slow.reports.encoding:
            with pytest.raises(RuntimeError, match="encode_gap must not broadcast"):
                self.hub.send_to_user(user, message, exclude=exclude)
            return
        self.expected.append(("user", None, [peer for peer in self.users(user) if peer.conn is not exclude], user))
        result = self.hub.send_to_user(user, message, exclude=exclude)
        self.expected.pop()
        self.judge(message, result, None)

    def foresee(self, rooms: Any, message: str, exclude: plumews.Conn | None) -> Counter[str] | None:
        """Return the result of a broadcast that is done at once. ``None``: it cannot be foreseen."""
        peers = self.peers_in(rooms)
        if self.stopped or "encode" in self.listen or len(self.hub._broadcaster.scheduler) or len(peers) > STRIDE:
            return None
        if len(message) >= limits.COMPRESS_LEAST and any(peer.inflater is not None for peer in peers):
            return None  # it is compressed, which may take more than a slice
        size = encode(Opcode.TEXT, message.encode()).size
        foreseen: Counter[str] = Counter()
        for peer in peers:
            behavior = peer.config.send_behavior
            if peer.conn is exclude:
                continue
            if peer.transport.full_after or peer.transport.closing:
                return None
            if peer.conn.state is not State.OPEN:
                foreseen["skipped"] += 1
            elif peer.has_space(size) or behavior in DISPLACING:
                foreseen["queued"] += 1
            else:
                foreseen["dropped" if behavior is not SendBehavior.BLOCK else "undecided"] += 1
        return foreseen

    def judge(self, message: str, result: BroadcastResult, foreseen: Counter[str] | None) -> None:
        assert adds_up(result)
        if result.stopped or result.overloaded:
            assert result.rejected
            assert result.stopped is self.stopped
            assert int(message) not in self.sent
            self.rejected["stopped" if result.stopped else "overloaded"] += 1
            self.rejected_members += result.matched
            return
        assert result.matched == len(self.sent[int(message)].peers)
        if foreseen is not None:
            assert (result.queued, result.skipped) == (foreseen["queued"], foreseen["skipped"])
            assert result.dropped >= foreseen["dropped"]

    def disconnect_user(self, user: str, code: int) -> None:
        conns = [peer.conn for peer in self.users(user) if not peer.conn.closed]
        assert self.hub.disconnect_user(user, code, "out") == len(conns)
        assert all(conn.closed for conn in conns)

    # --- messages to one --------------------------------------------------------------------------

    def direct(self, who: int, size: int) -> None:
        async def send_nowait(message: str) -> None:
            peer.conn.send_nowait(message)

        peer = self.peer(who)
        with contextlib.suppress(StopIteration):
            self.send_to(peer, size, send_nowait).send(None)

    def send(self, who: int, size: int) -> None:
        """Send as a task, which may wait for space."""
        peer = self.peer(who)
        self.start(self.send_to(peer, size, peer.conn.send))

    async def send_to(self, peer: Peer, size: int, send: Callable[[str], Awaitable[None]]) -> None:
        message, conn = self.message(size), peer.conn
        sent = self.note(int(message), "loose" if self.hub._slow.reports.encoding else "direct")
        sent.peers = [peer]
        dropped, evicted = conn.dropped_messages, conn.evicted_messages
        # Under these behaviors no send waits, so that each loss meanwhile is caused by this message.
        stranger = not conn._loss_watchers and peer.config.send_behavior in DISPLACING
        self.sending += 1
        try:
            await send(message)
        except (SendQueueFull, SendTimeout):
            peer.untold += 1
            del self.sent[sent.number]
        except ConnectionClosed:
            del self.sent[sent.number]
        else:
            self.sent_directly += 1
            sent.sure = {peer}
            if stranger:
                peer.untold += conn.dropped_messages - dropped
                peer.untold_evicted += conn.evicted_messages - evicted
        finally:
            self.sending -= 1

    # --- time, and the end ------------------------------------------------------------------------

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(self.loop.create_task(work))

    def shutdown(self, timeout: float, spread: float | None, restart: bool) -> None:
        async def shutdown() -> None:
            self.stopped = True
            report = await self.hub.shutdown(timeout, spread=spread, restart=restart)
            assert self.report in (None, report)
            self.report = report
            assert self.hub.connection_count() == 0
            metrics = self.hub.metrics()
            assert (metrics.broadcast_pending, metrics.jobs_waiting) == (0, 0)

        self.start(shutdown())

    def look_after_tasks(self) -> None:
        for task in self.tasks:
            if task.done():
                task.result()
        self.tasks = [task for task in self.tasks if not task.done()]

    def abort_all(self) -> None:
        for peer in self.peers:
            peer.conn.abort()

    def abandon(self) -> None:
        """Close the loop, with anything that still runs."""
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        while asyncio.all_tasks(self.loop):
            self.loop.turn()
        self.loop.close()

    def finish(self) -> None:
        """Stop the hub, end the remaining peers, and check that nothing is left."""
        self.shutdown(5, None, False)
        self.loop.settle()
        self.look_after_tasks()
        self.check()
        assert not self.undecided
        self.check_deliveries()
        with self.loop.within():
            self.abort_all()
        self.loop.settle()
        self.look_after_tasks()
        assert not self.tasks
        self.check()
        hub = self.hub
        for rest in (
            hub._members.since,
            hub._presence._users,
            hub._slow.members,
            hub._events._events,
            hub._broadcaster.scheduler,
        ):
            assert len(rest) == 0
        assert len(loop_context(self.loop).timers) == 0
        assert not asyncio.all_tasks(self.loop)
        gone = [weakref.ref(peer.conn) for peer in self.peers]
        self.members.clear()
        self.forget()
        left = [ref() for ref in gone if ref() is not None]
        assert not left, f"held by {[type(each) for each in gc.get_referrers(left[0])]}"
