"""Peers for a model of the hub: a loop whose clock stands still, and clients without sockets.

The result depends on the order of the calls alone, which a test decides down to the iteration of the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import plumews
from plumews import Gap, Opcode, Position, SendBehavior, UserInfo
from plumews.conn.opening import opened, use_deflate
from plumews.constants import COMPRESSED
from plumews.deflate.config import Agreement
from plumews.protocol.codec import Parser
from plumews.transport import waiters
from support.compressed_messages import TAIL
from support.fakes import FakeTransport, feed
from support.raw_client import masked

__all__ = ["Peer", "StillLoop"]


class StillLoop(asyncio.SelectorEventLoop):
    """Event loop that runs one iteration when it is told to. Its time is :attr:`now`."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def time(self) -> float:
        return self.now

    def turn(self) -> None:
        """Run one iteration of the loop."""
        self.stop()
        self.run_forever()

    @contextlib.contextmanager
    def within(self) -> Iterator[None]:
        """Run the block as a callback of the loop would run."""
        asyncio._set_running_loop(self)
        try:
            yield
        finally:
            asyncio._set_running_loop(None)

    def settle(self) -> None:
        """Run iterations until nothing is left to do, and advance the clock to each deadline."""
        for _ in range(20_000):
            if self._ready:  # type: ignore[attr-defined]
                self.turn()
            elif self._scheduled:  # type: ignore[attr-defined]
                self.now = max(self.now, self._scheduled[0]._when)  # type: ignore[attr-defined]
                self.turn()
            else:
                return
        raise AssertionError("it does not come to rest")


class PeerTransport(FakeTransport):
    """Transport that passes written bytes to its peer. Closed with unsent bytes, it ends when they are gone."""

    def __init__(self, peer: Peer) -> None:
        super().__init__(peer.conn)
        self.peer = peer
        self.parser = Parser(client=True, max_size=None, allow_rsv1=peer.inflater is not None)
        self.arriving: list[bytes] = []
        self.over = False

    def resume_reading(self) -> None:
        super().resume_reading()
        asyncio.get_running_loop().call_soon(self.peer.says)

    def write(self, data: bytes | memoryview) -> None:
        super().write(data)
        self.writes.clear()
        for kind, payload in self.parser.feed(bytes(data)):
            self.peer.got(kind, payload)
        assert self.parser.error is None

    def fill(self) -> None:
        self.held = 1000
        self.peer.blocked = True
        super().fill()

    def drain(self) -> None:
        self.held = 0
        if not self.over:
            self.protocol.resume_writing()
            if self.closing:
                self.end(None)

    def close(self) -> None:
        if not self.closing:
            self.closing = True
            if not self.held:
                self.end(None)

    def abort(self) -> None:
        self.aborted = self.closing = True
        self.peer.lossy = True
        self.end(None)

    def end(self, exc: Exception | None) -> None:
        """Lose the connection in the next iteration."""
        if not self.over:
            self.over = self.closing = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, exc)


class Peer:
    """One connection, and the messages of its client. ``polite``: it answers our close frame."""

    def __init__(
        self,
        number: int,
        polite: bool,
        ends: Callable[[Peer], None],
        config: dict[str, Any],
        agreed: tuple[int, bool] | None = None,
    ) -> None:
        """``ends(peer)`` is called when it may get nothing new any more. ``agreed`` are the bits of the window with
        which it is sent compressed messages, if it is, and whether they refer to the ones before them.
        """
        self.number = number
        self.takeover = False
        self.inflater: Any = None
        if agreed is not None:
            bits, self.takeover = agreed
            self.takeover &= config.get("send_behavior") not in (SendBehavior.DROP_OLDEST, SendBehavior.CONFLATE)
            self.inflater = zlib.decompressobj(-bits)
            config = {"compression": "deflate", **config}
        self.config = plumews.ConnConfig(**{"ping_interval": None, **config})
        self.conn = plumews.Conn(self.config)
        self.transport = PeerTransport(self)
        self.conn.connection_made(self.transport)  # type: ignore[arg-type]
        if agreed is not None:
            use_deflate(self.conn, Agreement(bits, 12, self.takeover, False, "permessage-deflate"))
        opened(self.conn)
        self.conn.add_close_callback(lambda conn: ends(self))
        self._polite = polite
        self._ends = ends
        self._close_frames = 0
        #: What was wrong.
        self.faults: list[str] = []
        #: The numbers of the messages that it got, and what it was told about those that it lost.
        self.items: list[int] = []
        self.notes: list[Gap] = []
        #: Whether its socket took nothing, ever; whether what it had to get may be lost.
        self.blocked = self.lossy = False
        # --- what the hub must know of it
        self.rooms: dict[str, None] = {}
        self.known: UserInfo | None = None
        self.left_at: dict[str, Position] = {}
        #: Losses that the hub has told; those that it has not, because their sender knows; of these the evicted.
        self.told = self.untold = self.untold_evicted = 0
        #: Of those that were told: what `on_gap` was told of.
        self.gaps = 0

    def __repr__(self) -> str:
        return f"<peer {self.number}>"

    def got(self, kind: int, payload: Any) -> None:
        """Record a frame that the client received."""
        if self._close_frames:
            self.faults.append(f"{self} got {payload!r} behind the close frame")
        if kind & COMPRESSED:
            kind ^= COMPRESSED
            payload = (self.inflater if self.takeover else self.inflater.copy()).decompress(payload + TAIL).decode()
        if kind == Opcode.CLOSE:
            self._close_frames += 1
            self._ends(self)
            if self._polite:
                asyncio.get_running_loop().call_soon(self.says, masked(Opcode.CLOSE, b"\x03\xe8"))
        elif payload.startswith("gap"):
            _, room, count = payload.split(":")
            self.notes.append(Gap(room or None, int(count)))
        else:
            self.items.append(int(payload))

    def says(self, *frames: bytes) -> None:
        """Let ``frames`` arrive in one read, later if the connection does not read now."""
        transport = self.transport
        transport.arriving += frames
        if transport.reading and not transport.over and transport.arriving:
            frames, transport.arriving = tuple(transport.arriving), []
            feed(self.conn, *frames)

    def has_space(self, size: int) -> bool:
        """Return True if a message of ``size`` bytes finds space and displaces none."""
        conn, config = self.conn, self.config
        if waiters.count(conn):
            return False
        within = conn.queued_messages < config.queue_size and conn.queued_bytes + size <= config.queue_bytes
        return not conn.queued_messages or not conn._paused or within
