"""Hub under random use, beside its invariants.

Members of all behaviors join, leave, fill up, drain, close and vanish while broadcasts, sliced as finely as can be, are
under way: to a room, to several, to some, to a user, to all. Callbacks of joins and leaves do the same from inside.
Every message has the number of its call, so that the messages of a member can be checked at the end: each once, those
of one room in the order of the calls, and none on the wrong side of a message to a connection, to a user or to all. A
failure names its random seed.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter

import pytest

import plumews
from plumews import BroadcastResult, Hub, HubConfig, SendBehavior, UserInfo
from plumews.hub.shutdown import settled
from plumews.transport import sendmsg
from support.fakes import FakeTransport, SocketTransport, fake_conn, ticks
from support.members import adds_up, texts

ROOMS = ("a", "b", "c")
USERS = (None, UserInfo("ann"), UserInfo("bob"))
STEPS = 300


class Story:
    """One random sequence of calls, and its results."""

    transport: type[FakeTransport] = FakeTransport

    def __init__(self, seed: int, *, workers: int, job_queue_size: int, mortal: bool) -> None:
        self.random = random.Random(seed)
        self.hub = Hub(HubConfig(workers, job_queue_size))
        self.mortal = mortal
        self.number = self.direct = 0
        self.results: list[BroadcastResult] = []
        self.publishing: list[asyncio.Future[BroadcastResult]] = []
        self.all: list[tuple[plumews.Conn, FakeTransport]] = []
        self.active = [self.newcomer() for _ in range(8)]
        self.listening = [self.hub.on_join(self.heard), self.hub.on_leave(self.heard)]
        # Enough silent members in front of the others that a fan-out to room "a" takes several slices.
        for _ in range(140):
            conn, _ = self.newcomer(SendBehavior.DROP)
            self.hub.join("a", conn)

    def newcomer(self, behavior: SendBehavior | None = None) -> tuple[plumews.Conn, FakeTransport]:
        if behavior is None:
            behavior = self.random.choice(
                [each for each in SendBehavior if self.mortal or each is not SendBehavior.CLOSE]
            )
        pair = fake_conn(
            self.transport,
            ping_interval=None,
            queue_size=self.random.choice([1, 2, 64]),
            send_timeout=self.random.choice([0, 0.002, 60]),
            send_behavior=behavior,
            close_timeout=0.05,
        )
        pair[0].user_info = self.random.choice(USERS)
        self.all.append(pair)
        return pair

    def heard(self, room: str, conn: plumews.Conn) -> None:
        """Do something to the hub, once in a while."""
        hub, other, there = self.hub, self.random.choice(self.active)[0], self.random.choice(ROOMS)
        match self.random.choice(("join", "leave", "broadcast", "end", *("nothing",) * 4)):
            case "join":
                with contextlib.suppress(plumews.ConnectionClosed):
                    hub.join(there, other)
            case "leave":
                hub.leave(room, conn)
            case "broadcast":
                self.results.append(hub.broadcast_room(there, self.message(there)))
            case "end" if self.mortal and (conn is other):
                conn.abort()

    async def publish(self, room: str, exclude: plumews.Conn | None) -> BroadcastResult:
        """Publish a message. It gets its number when this runs: the end of a member may come before that."""
        return await self.hub.publish(room, self.message(room), exclude=exclude)

    def message(self, kind: str) -> str:
        self.number += 1
        return f"{kind}:{self.number}"

    async def step(self) -> None:
        hub, room, place = self.hub, self.random.choice(ROOMS), self.random.randrange(len(self.active))
        conn, transport = self.active[place]
        exclude = conn if self.random.random() < 0.1 else None
        match self.random.choice(self.CHOICES):
            case "join":
                with contextlib.suppress(plumews.ConnectionClosed):
                    hub.join(room, conn)
            case "leave":
                hub.leave(room, conn)
            case "remove":
                hub.remove(conn)
            case "broadcast":
                self.results.append(hub.broadcast_room(room, self.message(room), exclude=exclude))
            case "several":
                rooms = self.random.sample(ROOMS, 2)
                self.results.append(hub.broadcast_room(rooms, self.message("".join(rooms)), exclude=exclude))
            case "some":
                chosen = {conn for conn, _ in self.random.sample(self.active, 4)}
                self.results.append(hub.broadcast_room(room, self.message(room), where=chosen.__contains__))
            case "user":
                conn.user_info = self.random.choice(USERS)
                self.results.append(hub.send_to_user(self.random.choice(("ann", "bob")), self.message("user")))
            case "value":
                key = self.random.randrange(3)
                self.results.append(hub.broadcast_room(room, self.message(f"{room}={key}"), key=key))
            case "everybody":
                self.results.append(hub.broadcast_all(self.message("*"), exclude=exclude))
            case "publish":
                self.publishing.append(asyncio.ensure_future(self.publish(room, exclude)))
                await asyncio.sleep(0)
            case "direct":
                with contextlib.suppress(plumews.ConnectionClosed, plumews.SendQueueFull):
                    conn.send_nowait(self.message("direct"))
                    self.direct += 1
            case "fill":
                if not conn.closed:
                    transport.fill()
            case "drain":
                if conn._transport is not None:
                    transport.drain()
            case "end" if self.mortal:
                self.random.choice([conn.close_nowait, conn.abort])()
                self.active[place] = self.newcomer()
            case _:
                await asyncio.sleep(0)
        assert adds_up(hub.metrics())

    CHOICES = (
        *("join",) * 6,
        *("broadcast",) * 6,
        *("turn", "value") * 5,
        *("publish", "direct", "fill", "drain") * 3,
        *("several", "some", "user") * 2,
        *("leave", "remove", "everybody", "end"),
    )

    async def run(self) -> None:
        for _ in range(STEPS):
            await self.step()
        for conn, transport in self.all:
            if conn._transport is not None:
                transport.drain()
        self.results += await asyncio.gather(*self.publishing)
        await (
            self.hub._broadcaster.scheduler.idle()
        )  # or the last one waits for its turn, and callbacks broadcast meanwhile
        self.results.append(await self.hub.publish(None, self.message("*")))
        await settled(self.hub._slow)
        await ticks()

    # --- what must hold -------------------------------------------------------------------------------

    def check_sums(self) -> None:
        metrics = self.hub.metrics()
        assert metrics.broadcast_pending == 0
        assert adds_up(metrics)
        assert all(map(adds_up, self.results))
        assert metrics.broadcast_matched == sum(result.matched for result in self.results)
        refused = sum(result.overloaded for result in self.results)
        assert (metrics.broadcasts_rejected, metrics.broadcasts_total) == (refused, len(self.results) - refused)

    def check_orders(self) -> Counter[str]:
        delivered: Counter[str] = Counter()
        for _, transport in self.all:
            got = [(kind, int(number)) for kind, number in (line.split(":") for line in texts(transport.wire))]
            delivered.update(kind for kind, _ in got)
            assert len(got) == len(set(got))
            for room in ROOMS:
                # What has a key may pass others that have one, and nothing else.
                plain = {kind for kind, _ in got if room in kind and set(kind) <= set(ROOMS)}
                for keyed in (set(), {f"{room}=0"}, {f"{room}=1"}, {f"{room}=2"}):
                    numbers = [number for kind, number in got if kind in plain | keyed]
                    assert numbers == sorted(numbers)
            for position, (kind, number) in enumerate(got):
                if kind in ("*", "direct", "user"):
                    assert all(other < number for _, other in got[:position])
                    assert all(other > number for _, other in got[position + 1 :])
        return delivered

    def check_nothing_is_left(self) -> None:
        members = set(self.hub._rooms.snapshot(None).members)
        slow = {conn: member for conn, member in self.hub._slow.members.items() if not member.left}
        assert slow.keys() <= members
        assert not any(member.waiting for member in slow.values())
        assert len(self.hub._broadcaster.scheduler) == 0
        assert not any(conn.state is plumews.State.CLOSED for conn in members)
        assert self.hub.total_count() == sum(map(self.hub.room_count, self.hub.rooms()))
        assert not self.hub._events._events

    def check_users(self) -> None:
        people = self.hub._presence
        assert set(people._users) <= set(self.hub._rooms.snapshot(None).members)
        for room in ROOMS:
            ids = Counter(people._users.get(conn, UserInfo()).id for conn in self.hub.members(room))
            presence = self.hub.presence(room)
            assert presence.anonymous == ids.pop("", 0)
            assert {user.id: user.connections for user in presence.users} == ids
        for user in ("ann", "bob"):
            assert set(self.hub.connections_of(user)) == {c for c, known in people._users.items() if known.id == user}


@pytest.mark.parametrize("seed", range(10))
async def test_staying_members_get_every_queued_message(sliced, seed):
    story = Story(seed, workers=seed % 5 + 1, job_queue_size=10_000, mortal=False)
    await story.run()
    story.check_sums()
    story.check_nothing_is_left()
    story.check_users()
    delivered = story.check_orders()
    metrics = story.hub.metrics()
    # What gave way counts while it is a member's; here members that were full may have left before it did.
    lost = sum(conn.evicted_messages + conn.replaced_messages for conn, _ in story.all)
    assert metrics.messages_evicted + metrics.messages_replaced <= lost
    assert delivered.total() == metrics.broadcast_queued + story.direct - lost


@pytest.mark.parametrize("seed", range(10))
async def test_leaving_members_keep_order_and_sums(sliced, seed):
    story = Story(100 + seed, workers=seed % 5 + 1, job_queue_size=10_000, mortal=True)
    await story.run()
    story.check_sums()
    story.check_nothing_is_left()
    story.check_users()
    delivered = story.check_orders()
    del delivered["direct"]
    assert 0 < delivered.total() <= story.hub.metrics().broadcast_queued


@pytest.mark.parametrize("seed", range(5))
async def test_full_job_queue_refuses_whole_broadcasts_only(sliced, seed):
    story = Story(200 + seed, workers=3, job_queue_size=2, mortal=True)
    story.CHOICES = tuple(choice for choice in story.CHOICES if choice != "publish")  # it would wait for its turn
    await story.run()
    story.check_sums()
    story.check_nothing_is_left()
    story.check_users()
    story.check_orders()
    assert any(result.overloaded for result in story.results)


class StoryOfSockets(Story):
    """Members with sockets that may be full."""

    transport = SocketTransport

    async def run(self) -> None:
        await super().run()
        for conn, transport in self.all:
            if conn._transport is not None:
                transport.drain()

    async def end(self) -> None:
        """Stop the hub and close the sockets."""
        for stop_listening in self.listening:
            stop_listening()
        await self.hub.shutdown(0)
        for conn, _ in self.all:
            conn.abort()
        await ticks()
        for _, transport in self.all:
            transport.close_socket()  # type: ignore[attr-defined]


@pytest.mark.skipif(not sendmsg.DIRECT, reason="sockets are no file descriptors here")
@pytest.mark.parametrize("mortal", [False, True])
@pytest.mark.parametrize("seed", range(3))
async def test_hub_over_full_sockets_accounts_for_each_message(sliced, seed, mortal, monkeypatch):
    sent: list[int] = []
    genuine = sendmsg.send

    def send(fd, buffers):
        sent.append(genuine(fd, buffers))
        return sent[-1]

    monkeypatch.setattr(sendmsg, "send", send)
    story = StoryOfSockets(300 + seed, workers=seed + 1, job_queue_size=10_000, mortal=mortal)
    try:
        await story.run()
        story.check_sums()
        story.check_nothing_is_left()
        story.check_users()
        delivered = story.check_orders()
        metrics = story.hub.metrics()
        lost = sum(conn.evicted_messages + conn.replaced_messages for conn, _ in story.all)
        if mortal:
            del delivered["direct"]
            assert 0 < delivered.total() <= metrics.broadcast_queued
        else:
            assert delivered.total() == metrics.broadcast_queued + story.direct - lost
    finally:
        await story.end()
    assert sent.count(-1) > 100
    assert any(result >= 0 for result in sent), "no socket was full"
