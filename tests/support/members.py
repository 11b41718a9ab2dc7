"""Members of rooms for the tests of the hub.

`PlainMember` is no connection: it keeps `plumews.hub.Member` and records its messages. `joined` and `stalled` give
connections on a fake transport, for tests that look at bytes or at the send queue. `crowd` opens connections through a
real server.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Hashable
from typing import Any

import plumews
from plumews import Gap, Hub, UserInfo
from plumews.constants import Opcode
from plumews.hub.metrics import HubMetrics
from plumews.hub.results import BroadcastResult
from plumews.protocol.codec import Parser
from support.fakes import FakeTransport, fake_conn, ticks
from support.raw_client import Wire, close


class PlainMember:
    """Member that is no connection.

    Args:
        space: messages that it takes (default: any number).
        user: id of its user (default: anonymous).

    Attributes:
        messages: the messages that it took, as ``str`` or ``bytes``.
        keys: the key of each.
        closed: close code and reason after :meth:`close`, which ends the member unless ``lingers`` is set.
    """

    def __init__(self, *, space: int = sys.maxsize, user: str | None = None) -> None:
        self.id = uuid.uuid4()
        self.user_info = None if user is None else UserInfo(user)
        self.space = space
        self.messages: list[str | bytes] = []
        self.keys: list[Hashable] = []
        self.closed: tuple[int, str] | None = None
        self.lingers = False
        self.ended = False
        self._callbacks: list[Callable[[PlainMember], object]] = []

    def try_queue(self, message: str | bytes, key: Hashable) -> bool:
        if not self.can_queue(len(message), 1):
            return False
        self.space -= 1
        self.messages.append(message)
        self.keys.append(key)
        return True

    def can_queue(self, size: int, count: int) -> bool:
        return not self.ended and self.space >= count

    def close(self, code: int, reason: str) -> None:
        self.closed = code, reason
        if not self.lingers:
            self.end()

    def add_close_callback(self, callback: Callable[[PlainMember], object]) -> None:
        if self.ended:
            callback(self)
        elif callback not in self._callbacks:
            self._callbacks.append(callback)

    def end(self) -> None:
        """End, as by the peer."""
        self.ended = True
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(self)


def plain_member(hub: Hub, *rooms: str, **options: Any) -> PlainMember:
    """Return a plain member of ``rooms``, by default of "room"."""
    member = PlainMember(**options)
    for room in rooms or ("room",):
        hub.join(room, member)
    return member


def plain_members(hub: Hub, room: str, count: int, **options: Any) -> list[PlainMember]:
    """Return ``count`` plain members of ``room``."""
    return [plain_member(hub, room, **options) for _ in range(count)]


@contextlib.asynccontextmanager
async def crowd(
    start: Callable[[Any], Any],
    count: int,
    *,
    rcvbuf: int | None = None,
    on_message: Callable[[plumews.Conn, str | bytes], object] = lambda conn, message: None,
    on_close: Callable[[plumews.Conn], object] | None = None,
    **options: Any,
) -> AsyncIterator[tuple[list[plumews.Conn], list[Wire]]]:
    """``count`` connections of one server, and the raw client at the other end of each."""
    opened: asyncio.Queue[plumews.Conn] = asyncio.Queue()
    server = await start(
        plumews.serve(
            host="127.0.0.1", port=0, on_open=opened.put_nowait, on_message=on_message, on_close=on_close, **options
        )
    )
    async with contextlib.AsyncExitStack() as stack:
        conns, wires = [], []
        for _ in range(count):
            wires.append(await stack.enter_async_context(await Wire.open(server, rcvbuf=rcvbuf)))
            conns.append(await opened.get())
        yield conns, wires


def joined(hub: Hub, room: str, count: int, **config: Any) -> tuple[list[plumews.Conn], list[FakeTransport]]:
    """``count`` members of ``room`` that need no socket."""
    pairs = [fake_conn(**{"ping_interval": None, **config}) for _ in range(count)]
    for conn, _ in pairs:
        hub.join(room, conn)
    return [conn for conn, _ in pairs], [transport for _, transport in pairs]


async def messages(wire: Wire, count: int) -> list[str | bytes]:
    """The next ``count`` messages."""
    return [await wire.message() for _ in range(count)]


def send(hub: Hub, *lines: str, **options: Any) -> list[BroadcastResult]:
    """Broadcast each of ``lines``."""
    results = [hub.broadcast_room("room", line, **options) for line in lines]
    assert all(map(adds_up, results))
    return results


def told(gap: Gap) -> str:
    """An ``encode_gap``."""
    return f"{gap.room}: {gap.dropped}"


def texts(frames: bytes) -> list[str]:
    """The text messages in what a server wrote."""
    parser = Parser(client=True, max_size=None)
    return [payload for kind, payload in parser.feed(frames) if kind == Opcode.TEXT]


def stalled(hub: Hub, *rooms: str, **config: Any) -> tuple[plumews.Conn, FakeTransport]:
    """A member of ``rooms`` whose socket takes nothing."""
    conn, transport = fake_conn(**{"ping_interval": None, "queue_size": 3, **config})
    for room in rooms or ("room",):
        hub.join(room, conn)
    transport.fill()
    return conn, transport


async def drained(transport: FakeTransport) -> list[str]:
    """All texts that the peer got, now that it takes something again."""
    transport.drain()
    await ticks()
    return texts(transport.wire)


def adds_up(counts: BroadcastResult | HubMetrics) -> bool:
    """Return True if every matched member is accounted for."""
    if isinstance(counts, HubMetrics):
        if sum(counts.broadcast_dropped_by.values()) != counts.broadcast_dropped:
            return False
        parts = (counts.broadcast_queued, counts.broadcast_dropped, counts.broadcast_skipped, counts.broadcast_pending)
        return counts.broadcast_matched == sum(parts) and min(parts) >= 0
    parts = (counts.queued, counts.dropped, counts.skipped, counts.pending)
    return counts.matched == sum(parts) and min(parts) >= 0


async def answer_close(wire: Wire) -> tuple[int, str]:
    """Return the code and the reason of the server's close frame, and answer it."""
    code, reason = await wire.closing()
    wire.send(close(code))
    return code, reason


async def answer_closes(wires: list[Wire]) -> list[tuple[int, str]]:
    """Call :func:`answer_close` for several clients."""
    return list(await asyncio.gather(*map(answer_close, wires)))


def join_members(hub: Hub, count: int) -> list[FakeTransport]:
    """Return the transports of ``count`` new members that answer nothing."""
    pairs = [fake_conn(ping_interval=None, close_timeout=1000) for _ in range(count)]
    for conn, _ in pairs:
        hub.join("chat", conn)
    return [transport for _, transport in pairs]


def close_frame_of(transport: FakeTransport) -> tuple[int, str]:
    """Return the code and the reason of a close frame that is the last frame written."""
    kind, (code, reason) = transport.events()[-1]
    assert kind == Opcode.CLOSE
    return code, reason
