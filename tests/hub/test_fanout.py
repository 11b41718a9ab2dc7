"""One broadcast and its members: each send behavior, the waits, and counts that add up.

Most members are real connections on a fake transport, so that a test says when one is full.
"""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import plumews
from plumews import CloseCode, Opcode, SendBehavior, State, limits
from plumews.hub.events import EventDispatcher
from plumews.hub.fanout import FanOut, FanOutCounters
from plumews.hub.rooms import MemberSnapshot, Recipients
from plumews.hub.slow_members import SlowMembers
from plumews.protocol.message import encode
from support.fakes import FakeTransport, deadlines, failures, fake_conn, flushed, ticks
from support.members import PlainMember, adds_up, texts

NEVER = -1.0  # a slice that is over before it began: one stride of members, then somebody else
ALWAYS = 1e12


class Room:
    """The parts of a hub that its broadcasts use."""

    def __init__(self) -> None:
        self.counters = FanOutCounters()
        self.slow = SlowMembers(plumews.HubConfig(), lambda conn: ["room"], EventDispatcher())
        self.left: set[plumews.Conn] = set()

    def broadcast(
        self, conns: list[plumews.Conn], text: str = "hello", *, exclude: plumews.Conn | None = None
    ) -> FanOut:
        recipients = Recipients(MemberSnapshot(tuple(conns)), lambda conn: conn not in self.left, exclude)
        return FanOut(encode(Opcode.TEXT, text.encode()), recipients, self.counters, self.slow)

    def send(self, conns: list[plumews.Conn], text: str = "hello", **options: Any) -> FanOut:
        broadcast = self.broadcast(conns, text, **options)
        assert broadcast.step(ALWAYS)
        return broadcast


@pytest.fixture
def room() -> Room:
    return Room()


def some(count: int, **config: Any) -> tuple[list[plumews.Conn], list[FakeTransport]]:
    config = {"ping_interval": None, **config}
    pairs = [fake_conn(**config) for _ in range(count)]
    return [conn for conn, _ in pairs], [transport for _, transport in pairs]


Many = Callable[[int], tuple[list[Any], Callable[[int], list[str | bytes]]]]


@pytest.fixture(params=["connections", "plain members"])
def many(request: pytest.FixtureRequest, room: Room) -> Many:
    """Return a function that makes members, and returns them and a function for the messages of each."""

    def make(count: int) -> tuple[list[Any], Callable[[int], list[Any]]]:
        if request.param == "connections":
            conns, transports = some(count)
            return conns, lambda index: texts(transports[index].wire)
        members = [PlainMember() for _ in range(count)]
        for member in members:
            room.slow.joined(member)
        return members, lambda index: members[index].messages

    return make


def one(**config: Any) -> tuple[plumews.Conn, FakeTransport]:
    (conn,), (transport,) = some(1, **config)
    return conn, transport


def fill(conn: plumews.Conn, transport: FakeTransport) -> int:
    """Make ``conn`` full, and return the number of messages that it took."""
    transport.fill()
    count = 0
    while conn._try_queue(encode(Opcode.TEXT, b"filler")):
        count += 1
    return count


def counts(broadcast: FanOut) -> tuple[int, int, int, int]:
    result = broadcast.result()
    assert adds_up(result)
    return result.queued, result.dropped, result.skipped, result.pending


# --- all members have space -----------------------------------------------------------------------


async def test_members_get_the_message_at_the_end_of_the_iteration(room):
    conns, transports = some(5)
    broadcast = room.send(conns)
    assert counts(broadcast) == (5, 0, 0, 0)
    assert [transport.writes for transport in transports] == [[]] * 5
    await ticks()
    assert [texts(transport.wire) for transport in transports] == [["hello"]] * 5


async def test_message_is_encoded_once_for_all_members(room):
    conns, transports = some(5)
    broadcast = room.send(conns)
    await ticks()
    (frame,) = broadcast.message.buffers
    assert all(transport.writes[0] is frame for transport in transports)


async def test_broadcasts_of_one_iteration_leave_in_one_write(room):
    conns, (transport,) = some(1)
    for number in range(10):
        room.send(conns, str(number))
    await ticks()
    assert len(transport.writes) == 1
    assert texts(transport.wire) == [str(number) for number in range(10)]


async def test_200_broadcasts_in_an_iteration_do_not_overflow_a_queue(room):
    conns, (transport,) = some(1, queue_size=64, send_behavior=SendBehavior.DROP)
    for number in range(200):
        assert counts(room.send(conns, str(number))) == (1, 0, 0, 0)
    await ticks()
    assert texts(transport.wire) == [str(number) for number in range(200)]


async def test_excluded_member_is_not_matched_and_gets_nothing(room, many):
    members, received = many(3)
    broadcast = room.send(members, exclude=members[1])
    assert counts(broadcast) == (2, 0, 0, 0)
    assert broadcast.result().matched == 2
    await ticks()
    assert [received(index) for index in range(3)] == [["hello"], [], ["hello"]]


async def test_member_that_left_or_closes_or_is_gone_is_skipped(room):
    conns, transports = some(4)
    room.left.add(conns[0])
    conns[1].close_nowait()
    conns[2].abort()
    await ticks()
    assert conns[2].state is State.CLOSED
    assert counts(room.send(conns)) == (1, 0, 3, 0)
    await ticks()
    assert [texts(transport.wire) for transport in transports] == [[], [], [], ["hello"]]


# --- a member is full -----------------------------------------------------------------------------


async def test_full_member_under_drop_drops_the_message(room):
    conn, transport = one(queue_size=3, send_behavior=SendBehavior.DROP)
    assert fill(conn, transport) == 3
    for _ in range(2):
        assert counts(room.send([conn])) == (0, 1, 0, 0)
    assert conn.dropped_messages == 2
    assert conn.state is State.OPEN
    transport.drain()
    assert counts(room.send([conn], "again")) == (1, 0, 0, 0)
    await ticks()
    assert texts(transport.wire) == ["filler"] * 3 + ["again"]


async def test_full_member_under_close_is_closed_with_1013(room):
    conn, transport = one(queue_size=3, send_behavior=SendBehavior.CLOSE)
    fill(conn, transport)
    assert counts(room.send([conn])) == (0, 1, 0, 0)
    assert conn.dropped_messages == 1
    assert transport.events() == [(Opcode.CLOSE, (CloseCode.TRY_AGAIN_LATER, "send queue full"))]
    assert counts(room.send([conn])) == (0, 0, 1, 0)


async def test_full_member_under_block_is_pending_until_it_has_space(room):
    conn, transport = one(queue_size=3, send_timeout=60)
    fill(conn, transport)
    first, second = room.send([conn], "first"), room.send([conn], "second")
    assert counts(first) == counts(second) == (0, 0, 0, 1)
    waiting = asyncio.ensure_future(second.wait())
    await ticks()
    assert not waiting.done()
    transport.drain()
    await waiting
    assert counts(first) == counts(second) == (1, 0, 0, 0)
    assert texts(transport.wire) == ["filler"] * 3 + ["first", "second"]
    assert conn.dropped_messages == 0


async def test_stuck_member_under_block_costs_one_send_timeout(room):
    conn, transport = one(queue_size=3, send_timeout=0.05)
    fill(conn, transport)
    clock = asyncio.get_running_loop().time
    before, start = deadlines(), clock()
    waiting = [room.send([conn], str(number)) for number in range(3)]
    assert deadlines() == before + 1
    await asyncio.gather(*(broadcast.wait() for broadcast in waiting))
    assert clock() - start > 0.04
    assert deadlines() == before + 1  # of the line in the log
    assert [counts(broadcast) for broadcast in waiting] == [(0, 1, 0, 0)] * 3
    assert conn.dropped_messages == 3
    for _ in range(100):  # its time is over: nothing waits for it any more
        assert counts(room.send([conn])) == (0, 1, 0, 0)
    assert conn.dropped_messages == 103
    assert conn.state is State.OPEN


async def test_broadcasts_beyond_those_that_wait_are_dropped(room):
    conn, transport = one(queue_size=2, send_timeout=60)
    fill(conn, transport)
    waiting = [room.send([conn], str(number)) for number in range(2)]
    for _ in range(3):
        assert counts(room.send([conn], "beyond")) == (0, 1, 0, 0)
    assert room.counters.dropped_by["block"] == conn.dropped_messages == 3
    transport.drain()
    await ticks()
    assert [counts(broadcast) for broadcast in waiting] == [(1, 0, 0, 0)] * 2
    fill(conn, transport)
    assert counts(room.send([conn], "later")) == (0, 0, 0, 1)
    assert room.slow.refusing == set()
    transport.drain()
    await ticks()
    assert not room.slow.members
    assert conn._slow_hubs == 0


async def test_broadcast_waits_in_the_place_that_one_has_left(room):
    conn, transport = one(queue_size=1, send_timeout=60, queue_bytes=100)
    fill(conn, transport)
    waiting = room.send([conn], "first")
    assert counts(room.send([conn], "beyond")) == (0, 1, 0, 0)
    transport.drain()
    await ticks()
    transport.fill()
    assert counts(waiting) == (1, 0, 0, 0)
    fill(conn, transport)
    assert counts(room.send([conn], "second")) == (0, 0, 0, 1)
    conn.abort()
    await ticks()
    assert room.counters.pending == 0


@pytest.mark.parametrize("behavior", [SendBehavior.DROP, SendBehavior.DROP_OLDEST])
async def test_full_members_of_each_policy_are_counted_in_a_room(room, behavior):
    kinds = [{"send_behavior": behavior}, {"send_behavior": SendBehavior.BLOCK, "send_timeout": 0.01}]
    conns: list[plumews.Conn] = []
    for number in range(6):
        conn, transport = one(queue_size=2, **kinds[number % 2])
        room.slow.joined(conn)
        fill(conn, transport)
        conns.append(conn)
    free, _ = one()
    await room.send(conns).wait()
    lost = [conn.dropped_messages for conn in conns]
    assert lost == [1] * 6
    broadcast = room.send([conns[0], free, *conns[1:]])
    displaces = behavior is SendBehavior.DROP_OLDEST
    assert counts(broadcast) == ((4, 3, 0, 0) if displaces else (1, 6, 0, 0))
    by = room.counters.dropped_by
    assert (by["block"], by["drop"]) == (6, 0 if displaces else 6)
    assert [conn.dropped_messages for conn in conns] == [2] * 6
    assert room.slow.evicted == sum(conn.evicted_messages for conn in conns) == (6 if displaces else 0)


async def test_log_counts_a_full_member_once_a_line(room, caplog):
    pairs = [one(queue_size=2, send_behavior=SendBehavior.DROP) for _ in range(3)]
    conns = [conn for conn, _ in pairs]
    for pair in pairs:
        fill(*pair)
    for _ in range(5):
        room.send(conns)
    room.slow.log.write()
    room.send(conns[:1])
    room.slow.log.write()
    lines = [record.getMessage() for record in caplog.records if record.name == "plumews.hub"]
    assert lines == [
        "slow members: 15 messages dropped, 3 members concerned, 0 of them closed",
        "slow members: 1 messages dropped, 1 members concerned, 0 of them closed",
    ]


async def test_each_hub_counts_what_a_full_member_loses():
    rooms = [Room(), Room()]
    conn, transport = one(queue_size=2, send_behavior=SendBehavior.DROP_OLDEST)
    for room in rooms:
        room.slow.joined(conn)
    fill(conn, transport)
    assert [counts(room.send([conn])) for room in rooms] == [(1, 0, 0, 0)] * 2
    assert [room.slow.evicted for room in rooms] == [2, 2]
    assert conn.dropped_messages == conn.evicted_messages == 2
    rooms[1].slow.left(conn)
    rooms[0].send([conn])
    assert [room.slow.evicted for room in rooms] == [3, 2]


async def test_member_given_up_by_one_hub_waits_for_another():
    rooms = [Room(), Room()]
    conn, transport = one(queue_size=2, send_timeout=0.01)
    fill(conn, transport)
    await rooms[0].send([conn]).wait()
    assert counts(rooms[0].send([conn])) == (0, 1, 0, 0)
    other = rooms[1].send([conn])
    assert counts(other) == (0, 0, 0, 1)
    assert conn._slow_hubs == 2
    await other.wait()
    for room in rooms:
        room.slow.left(conn)
    assert conn._slow_hubs == 0


async def test_full_member_under_conflate_keeps_the_newest_of_a_key(room):
    conn, transport = one(queue_size=4, send_behavior=SendBehavior.CONFLATE, ping_interval=None)
    room.slow.joined(conn)
    transport.fill()
    for number in range(6):
        recipients = Recipients(MemberSnapshot((conn,)), lambda conn: True, None)
        message = encode(Opcode.TEXT, f"{number}".encode())
        broadcast = FanOut(message, recipients, room.counters, room.slow, key=(room.slow, ("room", number % 2)))
        assert broadcast.step(ALWAYS)
        assert counts(broadcast) == (1, 0, 0, 0)
    assert (room.slow.replaced, conn.replaced_messages, room.slow.evicted, conn.dropped_messages) == (4, 4, 0, 0)
    transport.drain()
    await ticks()
    assert texts(transport.wire) == ["4", "5"]


async def test_recovered_member_under_block_gets_a_new_send_timeout(room):
    conn, transport = one(queue_size=1, send_timeout=0.02)
    fill(conn, transport)
    await room.send([conn]).wait()
    assert room.slow.members[conn].given_up
    transport.drain()
    assert counts(room.send([conn], "back")) == (1, 0, 0, 0)
    assert not room.slow.members
    await ticks()
    fill(conn, transport)
    again = room.send([conn])
    assert counts(again) == (0, 0, 0, 1)
    await again.wait()


async def test_waiting_broadcasts_are_bounded_by_the_queue_size(room):
    conn, transport = one(queue_size=3, send_timeout=60)
    fill(conn, transport)
    broadcasts = [room.send([conn], str(number)) for number in range(5)]
    assert [counts(broadcast) for broadcast in broadcasts] == [(0, 0, 0, 1)] * 3 + [(0, 1, 0, 0)] * 2
    transport.drain()
    assert texts(transport.wire) == ["filler"] * 3 + ["0", "1", "2"]


@pytest.mark.parametrize("send_timeout", [None, 0], ids=["no timeout", "a timeout of 0"])
async def test_member_without_a_send_timeout_does_not_hang_a_broadcast(room, send_timeout, monkeypatch):
    monkeypatch.setattr(limits, "BROADCAST_WAIT", 0.02)
    conn, transport = one(queue_size=1, send_timeout=send_timeout)
    fill(conn, transport)
    broadcast = room.send([conn])
    assert counts(broadcast) == (0, 0, 0, 1)
    await broadcast.wait()
    assert counts(broadcast) == (0, 1, 0, 0)


async def test_full_members_do_not_hold_up_the_others(room):
    conns, transports = some(10, queue_size=1, send_timeout=60)
    for conn, transport in list(zip(conns, transports, strict=True))[:5]:
        fill(conn, transport)
    broadcast = room.send(conns)
    assert counts(broadcast) == (5, 0, 0, 5)
    await ticks()
    assert [texts(transport.wire) for transport in transports[5:]] == [["hello"]] * 5


async def test_byte_bound_makes_a_member_full(room):
    conn, transport = one(queue_bytes=100, send_behavior=SendBehavior.DROP)
    transport.fill()
    assert counts(room.send([conn], "x" * 200)) == (1, 0, 0, 0)  # alone, any size
    assert counts(room.send([conn], "x")) == (0, 1, 0, 0)
    transport.drain()
    assert counts(room.send([conn], "x")) == (1, 0, 0, 0)


# --- a full member goes away ----------------------------------------------------------------------


def closes(conn: plumews.Conn) -> None:
    conn.close_nowait()


def aborts(conn: plumews.Conn) -> None:
    conn.abort()


@pytest.mark.parametrize("ends", [closes, aborts])
async def test_waiting_broadcasts_are_dropped_when_the_member_ends(room, ends):
    conn, transport = one(queue_size=2, send_timeout=60)
    fill(conn, transport)
    broadcasts = [room.send([conn]) for _ in range(2)]
    waiting = asyncio.gather(*(broadcast.wait() for broadcast in broadcasts))
    ends(conn)
    await waiting
    assert [counts(broadcast) for broadcast in broadcasts] == [(0, 1, 0, 0)] * 2
    assert not room.slow.members


async def test_deadline_of_a_full_member_ends_when_it_has_made_room(room):
    conn, transport = one(queue_size=1, send_timeout=60)
    before = deadlines()
    fill(conn, transport)
    broadcast = room.send([conn])
    assert deadlines() == before + 1
    transport.drain()
    assert counts(broadcast) == (1, 0, 0, 0)
    assert deadlines() == before
    assert not room.slow.members


async def test_member_that_left_is_freed_after_its_timeout(room):
    conn, transport = one(queue_size=1, send_timeout=0.02)
    fill(conn, transport)
    broadcast = room.send([conn])
    room.slow.left(conn)  # what a hub does when a member leaves
    await broadcast.wait()
    assert counts(broadcast) == (0, 1, 0, 0)
    assert not room.slow.members
    conn.abort()
    await ticks()
    gone = weakref.ref(conn)
    del conn, transport, broadcast
    gc.collect()
    assert gone() is None


# --- piece by piece -------------------------------------------------------------------------------


async def test_long_fan_out_in_slices_reaches_each_member_once(room, many):
    members, received = many(1000)
    broadcast = room.broadcast(members)
    steps = 1
    reached = [0]
    while not broadcast.step(NEVER):
        queued, dropped, skipped, pending = counts(broadcast)
        assert (dropped, skipped) == (0, 0)
        reached.append(queued)
        assert list(broadcast.unreached()) == members[1000 - pending :]
        steps += 1
    assert steps > 10
    assert reached == sorted(set(reached))
    assert counts(broadcast) == (1000, 0, 0, 0)
    await flushed()
    assert all(received(index) == ["hello"] for index in range(1000))


async def test_join_and_leave_during_a_fan_out(room):
    conns, transports = some(200)
    broadcast = room.broadcast(conns[:-1])
    broadcast.step(NEVER)
    assert broadcast.unreached()[-2:] == (conns[197], conns[198])
    room.left.add(conns[198])
    conns[197].close_nowait()
    assert broadcast.step(ALWAYS)
    assert counts(broadcast) == (197, 0, 2, 0)
    await flushed()
    assert [texts(transport.wire) for transport in transports[196:]] == [["hello"], [], [], []]


async def test_member_that_is_brought_up_gets_the_message_once(room, many):
    members, received = many(200)
    broadcast = room.broadcast(members)
    broadcast.step(NEVER)
    broadcast.catch_up(members[-1])
    await flushed()
    assert received(-1) == ["hello"]
    broadcast.catch_up(members[-1])
    broadcast.catch_up(members[0])  # reached in its turn before
    broadcast.catch_up(one()[0])  # not a member
    assert broadcast.step(ALWAYS)
    assert counts(broadcast) == (200, 0, 0, 0)
    await flushed()
    assert all(received(index) == ["hello"] for index in range(200))


async def test_excluded_member_cannot_be_brought_up(room, many):
    members, received = many(200)
    broadcast = room.broadcast(members, exclude=members[-1])
    broadcast.step(NEVER)
    broadcast.catch_up(members[-1])
    assert broadcast.step(ALWAYS)
    assert counts(broadcast) == (199, 0, 0, 0)
    await flushed()
    assert received(-1) == []


async def test_give_up_drops_the_message_for_unreached_members(room, many):
    members, _ = many(200)
    broadcast = room.broadcast(members, exclude=members[-2])
    broadcast.step(NEVER)
    reached = broadcast.result().queued
    broadcast.catch_up(members[-1])
    waiting = asyncio.ensure_future(broadcast.wait())
    await ticks()
    broadcast.give_up()
    await waiting
    assert counts(broadcast) == (reached + 1, 199 - reached - 1, 0, 0)
    assert broadcast.step(NEVER)


async def test_wait_for_a_broadcast_can_be_cancelled(room):
    conn, transport = one(queue_size=1, send_timeout=60)
    fill(conn, transport)
    broadcast = room.send([conn])
    waits = [asyncio.ensure_future(broadcast.wait()) for _ in range(3)]
    await ticks()
    waits[0].cancel()
    await ticks()
    transport.drain()
    await asyncio.gather(*waits[1:])
    assert counts(broadcast) == (1, 0, 0, 0)


# --- the sums -------------------------------------------------------------------------------------


@pytest.mark.parametrize("behavior", list(SendBehavior), ids=lambda behavior: behavior.name)
async def test_counters_are_the_sums_of_all_results(room, behavior):
    conns, transports = some(130, queue_size=2, send_timeout=0.02, send_behavior=behavior)
    broadcasts = []

    def totals() -> dict[str, int]:
        results = [broadcast.result() for broadcast in broadcasts]
        assert all(map(adds_up, results))
        names = ("matched", "queued", "dropped", "skipped", "pending")
        return {name: sum(getattr(result, name) for result in results) for name in names}

    def counters() -> dict[str, int]:
        return {name: getattr(room.counters, name) for name in totals()}

    for number in range(12):
        broadcast = room.broadcast(conns, str(number), exclude=conns[number])
        broadcasts.append(broadcast)
        while not broadcast.step(NEVER):
            assert counters() == totals()
        transports[number].fill()
        conns[-number - 1].close_nowait()
        room.left.add(conns[60 + number])
        assert counters() == totals()
        await ticks()
    await asyncio.gather(*(broadcast.wait() for broadcast in broadcasts))
    assert counters() == totals()
    assert room.counters.pending == 0
    assert room.counters.broadcasts == 12
    refused = room.counters.dropped + sum(conn.evicted_messages for conn in conns)
    assert min(room.counters.queued, refused, room.counters.skipped) > 0


@pytest.mark.parametrize("then", ["send", "close"])
async def test_nothing_follows_the_close_frame_of_a_catch_up(monkeypatch, then) -> None:
    monkeypatch.setattr(limits, "FAN_OUT_SLICE", 1e-9)
    hub = plumews.Hub()
    for _ in range(200):
        hub.join("room", fake_conn()[0])
    conn, transport = fake_conn(queue_size=2, send_behavior=SendBehavior.CLOSE)
    hub.join("room", conn)
    transport.fill()
    conn.send_nowait("one")
    conn.send_nowait("two")
    assert hub.broadcast_room("room", "all").pending
    if then == "send":
        with pytest.raises(plumews.ConnectionClosed):
            conn.send_nowait("direct")
    else:
        conn.close_nowait()
    assert [kind for kind, _ in transport.events()] == [Opcode.CLOSE]
    for member in hub.members("room"):
        member.abort()
    await ticks(50)


async def test_member_whose_comparison_fails_is_skipped_and_closed(room):
    class Odd(PlainMember):
        broken = False

        def __eq__(self, other: object) -> bool:
            if self.broken:
                raise OSError("broken")
            return self is other

        def __hash__(self) -> int:
            return 7

    members: list[Any] = [Odd(), Odd(), PlainMember()]
    for member in members:
        room.slow.joined(member)
    broadcast = room.broadcast(members, exclude=members[0])
    Odd.broken = True
    with failures() as reported:
        assert broadcast.step(ALWAYS)
    assert counts(broadcast) == (1, 0, 1, 0)
    assert [each["message"] for each in reported] == ["a delivery failed"]
    assert members[1].closed == (CloseCode.INTERNAL_ERROR, "")
    assert members[2].messages == ["hello"]
