"""A room in which some compress and some do not: one compressed frame for all that agreed on the same.

Everybody gets every message, right and in order, whatever it agreed on, whatever its send behavior, and however the
message was sent. What a single message becomes is in `test_encodings`; members of all kinds under chance are in
`test_hub_stateful`.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

import plumews
from plumews import Deflate, HistoryLimits, Hub, HubConfig, Opcode, Position, SendBehavior, UserInfo, limits
from plumews.conn.opening import use_deflate
from plumews.conn.overflow import POLICIES
from plumews.constants import COMPRESSED
from plumews.deflate.config import Agreement
from plumews.protocol.codec import Parser
from support.compressed_messages import OFFER, TAIL, Squeezing
from support.fakes import FakeTransport, fake_conn, ticks
from support.members import adds_up
from support.raw_client import Wire, masked

JSON = '{"id": 1, "name": "somebody", "text": "hello, hello"}' * 20
LONG = "".join(f"line {number} of many; " for number in range(20_000))
TEXT = Opcode.TEXT

# --- through sockets --------------------------------------------------------------------------------


class Member:
    """A raw client, and what it agreed on."""

    def __init__(self, wire: Wire, bits: int | None, takeover: bool) -> None:
        self.wire = wire
        self.compresses = bits is not None
        self._takeover = takeover
        self._inflater = zlib.decompressobj(-(bits or 15))
        self.compressed = 0

    async def message(self) -> str:
        kind, data = await self.wire.event()
        while kind == Opcode.PING:  # CONFLATE bounds what is unanswered
            self.wire.send(masked(Opcode.PONG, data))
            kind, data = await self.wire.event()
        if kind & COMPRESSED:
            self.compressed += 1
            data = (self._inflater if self._takeover else self._inflater.copy()).decompress(data + TAIL)
        return data.decode() if isinstance(data, bytes) else data


@contextlib.asynccontextmanager
async def mixed(start: Callable[[Any], Any], hub: Hub, **config: Any) -> AsyncIterator[list[Member]]:
    """Members of "room" of all kinds, two of each. With takeover only where that is allowed."""
    opened: asyncio.Queue[plumews.Conn] = asyncio.Queue()

    async def server(compression: Any) -> Any:
        return await start(
            plumews.serve(
                host="127.0.0.1",
                port=0,
                on_open=opened.put_nowait,
                on_message=lambda conn, message: None,
                compression=compression,
                **config,
            )
        )

    nine = "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=9"
    alone = await server("deflate")
    kinds: list[tuple[Any, Any, tuple[str, ...], int | None, bool]] = [
        (alone, Wire, (), None, False),
        (alone, Squeezing, (OFFER,), 12, False),
        (alone, Squeezing, (nine,), 9, False),
    ]
    if not POLICIES[config.get("send_behavior", SendBehavior.BLOCK)].displaces:
        kinds.append((await server(Deflate(server_takeover=True)), Squeezing, (OFFER,), 12, True))
    async with contextlib.AsyncExitStack() as stack:
        members = []
        for where, wire, lines, bits, takeover in kinds * 2:
            members.append(Member(await stack.enter_async_context(await wire.open(where, "/", *lines)), bits, takeover))
            conn = await opened.get()
            conn.user_info = UserInfo("ann")
            hub.join("room", conn)
        yield members


@pytest.mark.parametrize("behavior", SendBehavior, ids=str)
async def test_compressed_messages_arrive_in_order_however_sent(start, behavior) -> None:
    chance = random.Random(str(behavior))
    hub = Hub()
    sent = []
    async with mixed(start, hub, send_behavior=behavior, queue_size=1000, queue_bytes=1 << 24) as members:
        conns = hub.members("room")
        for number in range(80):
            text = f"{number}:" + JSON[: chance.choice([0, 100, 150, 2000])] * chance.choice([1, 1, 40])
            compress = chance.choice([None, None, True, False])
            sent.append(text)
            match chance.randrange(6):
                case 0:
                    assert hub.broadcast_all(text, compress=compress).queued == len(members)
                case 1:
                    assert (await hub.publish("room", text, compress=compress)).queued == len(members)
                case 2:
                    assert hub.send_to_user("ann", text, compress=compress).queued == len(members)
                case 3:
                    plumews.broadcast(conns, text, compress=compress)
                case 4:
                    for conn in conns:
                        conn.send_nowait(text, compress=compress)
                case 5:
                    assert hub.broadcast_room("room", text, compress=compress, key=number).queued == len(members)
        for member in members:
            assert [await member.message() for _ in sent] == sent
            assert (member.compressed > 20) is member.compresses
        assert adds_up(hub.metrics())
    await hub.stop()


@pytest.mark.parametrize("kind", ["one room", "another thread", "a user"])
async def test_long_broadcast_on_request_comes_compressed_in_order(start, kind) -> None:
    hub = Hub()
    async with mixed(start, hub) as members:
        hub.broadcast_room("room", "before")
        if kind == "one room":
            hub.broadcast_room("room", LONG, compress=True)
        elif kind == "a user":
            hub.send_to_user("ann", LONG, compress=True)
        else:
            published: list[Any] = []
            thread = threading.Thread(
                target=lambda: published.append(hub.publish_threadsafe("room", LONG, compress=True))
            )
            thread.start()
            await asyncio.to_thread(thread.join)
            await asyncio.wrap_future(published[0])
        hub.broadcast_room("room", "behind")
        for member in members:
            assert [await member.message() for _ in range(3)] == ["before", LONG, "behind"]
        assert [member.compressed for member in members] == [0, 1, 1, 1] * 2
    await hub.stop()


async def test_who_comes_back_gets_what_it_missed_in_its_own_form(start) -> None:
    hub = Hub(HubConfig(history=HistoryLimits()))
    missed = [f"{number}:{JSON}" for number in range(10)]
    hub.position("room")
    for text in missed:
        hub.broadcast_room("room", text)
    async with mixed(start, hub) as members:
        for conn in hub.members("room"):
            hub.leave("room", conn)
            assert hub.recover("room", conn, Position("", 0)).messages == 10
        hub.broadcast_room("room", JSON)
        for member in members:
            assert [await member.message() for _ in range(11)] == [*missed, JSON]
            assert member.compressed == 11 * member.compresses
        assert len(hub._history.encodings) == 10
    await hub.stop()
    assert len(hub._history.encodings) == 0


# --- once -------------------------------------------------------------------------------------------

PLAIN, TWELVE, NINE = None, (12, False), (9, False)
TAKEOVER = (12, True)


def members_of(hub: Hub, *agreed: tuple[int, bool] | None, **config: Any) -> list[tuple[plumews.Conn, FakeTransport]]:
    """Members of "room" that need no socket, by what they agreed on."""
    pairs = []
    for each in agreed:
        conn, transport = fake_conn(FakeTransport, **{"ping_interval": None, "compression": "deflate", **config})
        if each is not None:
            use_deflate(conn, Agreement(each[0], 12, each[1], False, "permessage-deflate"))
        hub.join("room", conn)
        pairs.append((conn, transport))
    return pairs


async def ended(hub: Hub) -> None:
    """Stop it without its members, whose clients answer nothing."""
    for conn in hub.members("room"):
        hub.remove(conn)
    await hub.stop()


def events(transport: FakeTransport) -> list[tuple[int, bytes]]:
    """Return the bytes that were written, as they are on the wire."""
    parser = Parser(client=True, max_size=None, decode_text=False, allow_rsv1=True)
    found = parser.feed(transport.wire)
    assert parser.error is None
    return found


def inflated(transport: FakeTransport, *, takeover: bool = False) -> list[str]:
    """The same, as messages."""
    inflater = zlib.decompressobj(-15)
    return [
        ((inflater if takeover else inflater.copy()).decompress(data + TAIL) if kind & COMPRESSED else data).decode()
        for kind, data in events(transport)
    ]


async def test_broadcast_is_compressed_once_for_each_set_of_parameters(monkeypatch) -> None:
    calls: list[tuple[Any, bytes]] = []

    class Counting:
        def __init__(self, key: Any) -> None:
            self.key = key
            self.compressor = plumews.deflate.outbound.shared_compressor(key)

        def compress(self, payload: bytes) -> bytes:
            calls.append((self.key, payload))
            return self.compressor.compress(payload)

    monkeypatch.setattr(plumews.deflate.encodings, "shared_compressor", Counting)
    monkeypatch.setattr(limits, "FAN_OUT_SLICE", 60.0)  # all of them in one slice, however busy the machine is
    hub = Hub()
    pairs = members_of(hub, *[TWELVE, PLAIN, NINE, TAKEOVER, TWELVE] * 100)
    assert hub.broadcast_room("room", JSON) == plumews.BroadcastResult(matched=500, queued=500)
    assert len(calls) == 2
    assert {key[2] for key, _ in calls} == {9, 12}
    await ticks()
    by_kind = {kind: {id(transport.writes[0]) for _, transport in pairs[kind::5]} for kind in range(5)}
    assert [len(ids) for ids in by_kind.values()] == [1, 1, 1, 100, 1]
    assert by_kind[0] == by_kind[4]
    assert len(set().union(*by_kind.values())) == 103
    assert all(inflated(transport) == [JSON] for _, transport in pairs)
    assert [events(transport)[0][0] for _, transport in pairs[:5]] == [
        TEXT | COMPRESSED,
        TEXT,
        TEXT | COMPRESSED,
        TEXT | COMPRESSED,
        TEXT | COMPRESSED,
    ]
    await ended(hub)


async def test_without_members_that_compress_nothing_is_compressed() -> None:
    hub = Hub()
    members_of(hub, PLAIN, TAKEOVER)
    hub.broadcast_room("room", JSON)
    assert hub.metrics().broadcasts_compressed == 0
    await ended(hub)


async def test_the_figures_of_a_hub_tell_what_came_of_it() -> None:
    hub = Hub()
    members_of(hub, *[TWELVE] * 5, NINE, TAKEOVER, TAKEOVER, PLAIN)
    for text in (JSON, "short", JSON):
        hub.broadcast_room("room", text)
    hub.broadcast_room("room", JSON, compress=False)
    metrics = hub.metrics()
    assert metrics.broadcasts_compressed == 4
    assert metrics.compressed_bytes_before == 4 * (len(JSON) + 4)
    assert 0 < metrics.compressed_bytes_after < metrics.compressed_bytes_before / 8
    assert metrics.compression_bytes == 2 * 38 * 1024
    await ended(hub)


async def test_a_history_holds_no_forms_but_those_that_are_counted() -> None:
    hub = Hub(HubConfig(history=HistoryLimits()))
    pairs = members_of(hub, TWELVE, NINE)
    position = hub.position("room")
    assert position is not None
    hub.broadcast_room("room", JSON)
    stream = hub._history.stream("room", pairs[0][0]._state.timers)  # type: ignore[union-attr]
    assert stream is not None
    [kept] = stream.since(position)[1]
    assert kept.encodings is None
    hub.leave("room", pairs[0][0])
    hub.recover("room", pairs[0][0], position)
    assert kept.encodings is not None
    more = limits.HISTORY_OVERHEAD
    forms = [form for form in kept.encodings.values() if form is not None]
    assert hub._history.encodings.bytes == kept.size + more + sum(form.size + more for form in forms)
    await ended(hub)


# --- a choice ---------------------------------------------------------------------------------------


def publish_threadsafe(hub: Hub, text: str, **how: Any) -> None:
    hub.publish_threadsafe("room", text, **how)


ENTRANCES: dict[str, Callable[..., Any]] = {
    "broadcast_room": lambda hub, text, **how: hub.broadcast_room("room", text, **how),
    "broadcast_all": lambda hub, text, **how: hub.broadcast_all(text, **how),
    "publish": lambda hub, text, **how: asyncio.ensure_future(hub.publish("room", text, **how)),
    "publish_threadsafe": publish_threadsafe,
    "send_to_user": lambda hub, text, **how: hub.send_to_user("ann", text, **how),
    "broadcast": lambda hub, text, **how: plumews.broadcast(hub.members("room"), text, **how),
}


@pytest.mark.parametrize("send", ENTRANCES.values(), ids=ENTRANCES)
@pytest.mark.parametrize("agreed", [TWELVE, TAKEOVER], ids=["shared", "takeover"])
async def test_every_broadcast_method_takes_compress(send: Any, agreed: Any) -> None:
    hub = Hub()
    [(conn, transport)] = members_of(hub, agreed)
    hub.remove(conn)
    conn.user_info = UserInfo("ann")
    hub.join("room", conn)
    for text, how in ((JSON, {}), (JSON, {"compress": False}), ("x", {"compress": True}), ("x", {"compress": None})):
        send(hub, text, **how)
        await ticks()
    assert [bool(kind & COMPRESSED) for kind, _ in events(transport)] == [True, False, True, False]
    assert inflated(transport, takeover=agreed is TAKEOVER) == [JSON, JSON, "x", "x"]
    with pytest.raises(TypeError, match="compress must be True, False or None, not str"):
        await asyncio.wait_for(send(hub, "x", compress="yes"), 1)
    await ended(hub)


# --- what is long -----------------------------------------------------------------------------------


@pytest.mark.parametrize("compress", [None, True])
async def test_long_broadcast_is_compressed_only_on_request(compress) -> None:
    hub = Hub()
    pairs = members_of(hub, PLAIN, TWELVE, TWELVE, TAKEOVER)
    hub.broadcast_room("room", LONG, compress=compress)
    pairs[2][0].send_nowait("direct")
    await ticks()
    compressed = TEXT | COMPRESSED * bool(compress)
    for (_, transport), kind in zip(pairs, (TEXT, compressed, compressed, compressed), strict=True):
        assert inflated(transport)[0] == LONG
        assert events(transport)[0][0] == kind
    assert inflated(pairs[2][1]) == [LONG, "direct"]
    assert hub.metrics().broadcasts_compressed == bool(compress)
    await ended(hub)


async def test_members_with_takeover_do_not_block_the_loop(monkeypatch) -> None:
    monkeypatch.setattr(limits, "FAN_OUT_SLICE", 0.0)
    hub = Hub()
    members_of(hub, *[TAKEOVER] * 10)
    text = LONG[: limits.CONTEXT_LONG]
    assert hub.broadcast_room("room", text[:1000]).pending == 0
    assert hub.broadcast_room("room", text).queued == 1
    await ended(hub)


async def test_the_clock_is_looked_at_behind_each_form_that_is_made(monkeypatch) -> None:
    monkeypatch.setattr(limits, "FAN_OUT_SLICE", 0.0)
    hub = Hub()
    members_of(hub, PLAIN, TWELVE, TWELVE, NINE, PLAIN)
    assert hub.broadcast_room("room", JSON).queued == 2
    await asyncio.sleep(0)
    assert hub.metrics().broadcast_queued == 4
    await asyncio.sleep(0)
    assert hub.metrics().broadcast_queued == 5
    await ended(hub)


# --- who is slow ------------------------------------------------------------------------------------


@pytest.mark.parametrize("behavior", [each for each in SendBehavior if each is not SendBehavior.CLOSE], ids=str)
async def test_what_waits_counts_as_it_is_sent(behavior) -> None:
    hub = Hub()
    [(conn, transport)] = members_of(hub, TWELVE, send_behavior=behavior, queue_bytes=10 * len(JSON), queue_size=1000)
    transport.fill()
    count = 0
    while not conn.dropped_messages and not hub._slow.waiting():
        hub.broadcast_room("room", JSON)
        count += 1
    assert count > 100
    assert len(JSON) * 9 < conn._counted_bytes <= len(JSON) * 10
    await ended(hub)


async def test_the_bytes_of_all_queues_are_those_of_what_is_in_them() -> None:
    hub = Hub(HubConfig(max_queued_bytes=20 * len(JSON)))
    pairs = members_of(hub, TWELVE, PLAIN, send_behavior=SendBehavior.DROP, queue_size=1000)
    for _, transport in pairs:
        transport.fill()
    for _ in range(50):
        hub.broadcast_room("room", JSON)
        await asyncio.sleep(0)
    assert [conn.evicted_messages > 0 for conn, _ in pairs] == [False, True]
    assert hub.metrics().queued_bytes <= 20 * len(JSON)
    for _ in range(500):
        hub.broadcast_room("room", JSON)
        await asyncio.sleep(0)
    assert [conn.evicted_messages > 0 for conn, _ in pairs] == [True, True]
    await ended(hub)


async def test_drop_oldest_reports_a_gap_between_compressed_messages() -> None:
    hub = Hub(HubConfig(encode_gap=lambda gap: f"lost {gap.dropped}"))
    pairs = members_of(hub, TWELVE, PLAIN, queue_size=2, send_behavior=SendBehavior.DROP_OLDEST)
    for _, transport in pairs:
        transport.fill()
    for number in range(5):
        hub.broadcast_room("room", f"{number}:{JSON}")
    for _, transport in pairs:
        transport.drain()
        await ticks()
        assert inflated(transport) == ["lost 3", f"3:{JSON}", f"4:{JSON}"]
    assert [kind for kind, _ in events(pairs[0][1])] == [TEXT, TEXT | COMPRESSED, TEXT | COMPRESSED]
    await ended(hub)


async def test_what_waits_for_a_full_member_comes_in_its_own_form() -> None:
    hub = Hub()
    pairs = members_of(hub, TWELVE, TAKEOVER, PLAIN, queue_size=2, send_timeout=60)
    for _, transport in pairs:
        transport.fill()
    for number in range(4):
        hub.broadcast_room("room", f"{number}:{JSON}")
    assert hub.metrics().broadcast_pending == 6
    for _, transport in pairs:
        transport.drain()
    await ticks()
    for (_, transport), takeover in zip(pairs, (False, True, False), strict=True):
        assert inflated(transport, takeover=takeover) == [f"{number}:{JSON}" for number in range(4)]
    assert [{kind for kind, _ in events(transport)} for _, transport in pairs] == [
        {TEXT | COMPRESSED},
        {TEXT | COMPRESSED},
        {TEXT},
    ]
    await ended(hub)


async def test_conflate_replaces_a_value_with_its_own_encoding() -> None:
    hub = Hub()
    pairs = members_of(hub, TWELVE, NINE, PLAIN, send_behavior=SendBehavior.CONFLATE)
    for _, transport in pairs:
        transport.fill()
    for number in range(5):
        hub.broadcast_room("room", f"{number}:{JSON}", key="value")
    for conn, transport in pairs:
        assert conn.queued_messages == 1
        transport.drain()
        await ticks()
        assert inflated(transport) == [f"4:{JSON}"]
    assert [events(transport)[0][0] for _, transport in pairs] == [TEXT | COMPRESSED, TEXT | COMPRESSED, TEXT]
    await ended(hub)


async def test_lost_message_never_enters_the_compression_context() -> None:
    hub = Hub()
    pairs = members_of(hub, TAKEOVER, TWELVE, queue_size=2, send_behavior=SendBehavior.DROP)
    for _, transport in pairs:
        transport.fill()
    for number in range(4):
        hub.broadcast_room("room", f"{number}" * 300)
    for _, transport in pairs:
        transport.drain()
    await ticks()
    hub.broadcast_room("room", "3" * 300)
    await ticks()
    for (_, transport), takeover in zip(pairs, (True, False), strict=True):
        assert inflated(transport, takeover=takeover) == ["0" * 300, "1" * 300, "3" * 300]
    await ended(hub)
