"""One random play for connections of a hub, whose outcome does not depend on the way that a message takes.

Commands reach the handlers in reads that are cut at random places. Handlers answer, broadcast, join, close and raise.
Sockets of some members take nothing for a while, so that their policies decide. All numbers come from the seed.

``python -m support.short_ways_play FIRST LAST LOOP FILE`` writes the outcomes of these seeds, a line of JSON each.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
import sys
from pathlib import Path
from typing import Any

from plumews import Conn, ConnConfig, ConnectionClosed, Hub, HubConfig, SendBehavior, SendQueueFull, limits
from plumews.conn.filters import add_filter
from plumews.conn.opening import opened
from plumews.conn.receiver import deliver_to
from plumews.constants import Opcode, State
from plumews.protocol.codec import Parser
from support.raw_client import close, masked

BALLAST = bytes(32 * 1024)
ROOMS = ("a", "b")
MANNERS = ("callback", "callback", "iterate", "recv", "task")


class Player:
    """A member, and the other end of its socket."""

    def __init__(self, play: Play, index: int) -> None:
        chance = play.chance
        self.play = play
        self.index = index
        self.manner = chance.choice(MANNERS)
        #: A tight member has a small socket buffer and a large queue: the time of its writes is left to the kernel.
        self.tight = chance.random() < 0.3
        self.clogged = False
        self.log: list[Any] = []
        self.arrived = bytearray()
        self.unsent = bytearray()
        self.task: asyncio.Task[None] | None = None
        self.ours, self.theirs = socket.socketpair()
        self.theirs.setblocking(False)
        self.behavior = SendBehavior.BLOCK if self.tight else chance.choice(list(SendBehavior))
        self.bounds = (
            {"queue_size": 100_000, "queue_bytes": 1 << 28}
            if self.tight
            else {"queue_size": chance.choice([1, 2, 5]), "queue_bytes": chance.choice([300, 100_000])}
        )

    async def begin(self) -> None:
        self._take(1 if self.tight else 1 << 20)
        config = ConnConfig(
            **self.bounds,
            send_behavior=self.behavior,
            send_timeout=60,
            ping_interval=None,
            unanswered_bytes=None,
            close_timeout=60,
            max_queue=self.play.chance.choice([2, 256]),
        )
        loop = asyncio.get_running_loop()
        _, conn = await loop.create_unix_connection(lambda: Conn(config), sock=self.ours)
        self.conn = conn
        opened(conn)
        for room in ROOMS:
            if self.play.chance.random() < 0.7:
                self.play.hub.join(room, conn)
        if self.manner == "callback":
            deliver_to(conn, lambda conn, message: self._call(message), lambda conn, exc: conn.close_nowait(1011))
        else:
            self.task = asyncio.create_task(self._read())

    def _take(self, size: int) -> None:
        self.ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)

    # --- the handler ------------------------------------------------------------------------------

    async def _read(self) -> None:
        conn = self.conn
        try:
            if self.manner == "iterate":
                async for message in conn:
                    await self._answer(message)
            while True:
                reading = conn.recv()
                message = await (asyncio.wait_for(reading, 60) if self.manner == "task" else reading)
                await self._answer(message)
        except ConnectionClosed:
            self.log.append("ended")
        except ZeroDivisionError:
            conn.close_nowait(1011)

    async def _answer(self, message: str | bytes) -> None:
        words = str(message).split(" ")
        try:
            if words[0] == "pieces":
                await self.conn.send(iter([words[1], "|", words[1]]))
            elif words[0] == "publish":
                result = await self.play.hub.publish(words[1], words[2], exclude=self.conn)
                self.log.append([result.matched, result.queued, result.dropped, result.skipped, result.pending])
            elif words[0] == "stream":
                async with await self.conn.read_stream() as stream:
                    read = b"".join([bytes(chunk) async for chunk in stream])
                self.log.append(["stream", str(read)])
            elif words[0] in ("echo", "many"):
                for _ in range(int(words[1])):
                    await self.conn.send(words[2])
            else:
                self._call(message)
                return
            self.log.append(words[0])
        except (ConnectionClosed, SendQueueFull) as exc:
            self.log.append([words[0], type(exc).__name__])

    def _call(self, message: str | bytes) -> None:
        try:
            self.log.append([str(message)[:40], self._act(message)])
        except (ConnectionClosed, SendQueueFull) as exc:
            self.log.append([str(message)[:40], type(exc).__name__])

    def _act(self, message: str | bytes) -> Any:
        conn, play = self.conn, self.play
        if isinstance(message, bytes):
            return conn.send_nowait(message)
        match message.split(" "):
            case ["echo" | "many", count, text]:
                for _ in range(int(count)):
                    conn.send_nowait(text)
            case ["to", index, text]:
                play.players[int(index)].conn.send_nowait(text)
            case ["cast", room, exclude, key, text]:
                result = play.hub.broadcast_room(
                    room,
                    text,
                    exclude=conn if exclude == "x" else None,
                    where=(lambda other: other is not conn) if exclude == "w" else None,
                    key=None if key == "-" else key,
                )
                return [result.matched, result.queued, result.dropped, result.skipped, result.pending]
            case ["soon", text]:
                asyncio.get_running_loop().call_soon(self._call, f"echo 1 {text}")
            case ["cast_soon", room, text]:
                asyncio.get_running_loop().call_soon(self._call, f"cast {room} - - {text}")
            case ["join", room]:
                play.hub.join(room, conn)
            case ["leave", room]:
                play.hub.leave(room, conn)
            case ["filter"]:
                add_filter(conn, lambda conn, message: self._filtered(message))
            case ["close", code]:
                conn.close_nowait(int(code))
            case ["abort", index]:
                other = play.players[int(index)]
                if not other.tight:
                    other.conn._flush()  # else the time of earlier writes tells what is lost
                    other.conn.abort()
            case ["raise"]:
                raise ZeroDivisionError
            case ["cancel"] if self.manner == "callback":
                raise asyncio.CancelledError
            case _:
                conn.send_nowait(message)
        return None

    def _filtered(self, message: str | bytes) -> bool:
        taken = str(message).startswith("echo")
        if taken:
            self._call(f"filtered {message!s}")
        return taken

    # --- the peer ---------------------------------------------------------------------------------

    def clog(self) -> None:
        """Let the socket take nothing more. The queue is empty then."""
        if self.tight or self.clogged or self.conn.state is not State.OPEN or self.conn._paused:
            return
        self.clogged = True
        self._take(1)
        while not self.conn._paused and self.conn.state is State.OPEN:
            self.conn.send_nowait(BALLAST)
            self.conn._flush()

    def unclog(self) -> None:
        if self.clogged:
            self.clogged = False
            with contextlib.suppress(OSError):
                self._take(1 << 20)

    def read(self) -> None:
        if not self.clogged:
            with contextlib.suppress(OSError):
                while data := self.theirs.recv(1 << 20):
                    self.arrived += data

    def write(self, data: bytes = b"") -> None:
        self.unsent += data
        with contextlib.suppress(OSError):
            while self.unsent:
                del self.unsent[: self.theirs.send(self.unsent)]

    def outcome(self) -> dict[str, Any]:
        conn = self.conn
        parser = Parser(client=True, max_size=None)
        events = parser.feed(bytes(self.arrived))
        assert parser.error is None, parser.error
        messages = [str(data) for kind, data in events if kind in (Opcode.TEXT, Opcode.BINARY) and data != BALLAST]
        replaced = conn._replaced
        if self.behavior is SendBehavior.CONFLATE:  # a value is replaced if it has not left yet
            messages, replaced = _without_old_values(messages), 0
        pongs = [str(data) for kind, data in events if kind == Opcode.PONG]
        return {
            "kind": [self.manner, self.tight, self.behavior.name, self.bounds],
            "messages": messages,
            "pongs": "" if self.tight else pongs,  # with a full socket only the newest one is kept
            "close": [str(data) for kind, data in events if kind == Opcode.CLOSE],
            "log": self.log,
            "counts": [conn._dropped, conn._evicted, replaced],
            "end": [conn.close_code, conn.close_reason, str(conn.state)],
        }


def _without_old_values(messages: list[str]) -> list[str]:
    """Return the messages without a key, and the last one of each key."""
    last = {message[0]: message for message in messages if message[0] in "kl"}
    return [message for message in messages if message[0] not in "kl"] + [str(sorted(last.items()))]


class Play:
    """Members of one hub, and what their peers do."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        #: Each message is a time slice of its own. A half frame behind it counts for a message on the short way, so
        #: that one member acts at a time.
        self.sliced = seed % 3 == 0
        gaps = self.chance.random() < 0.3
        self.hub = Hub(HubConfig(2, encode_gap=(lambda gap: f"gap {gap.room} {gap.dropped}") if gaps else None))
        self.players: list[Player] = []
        self.number = 0

    async def run(self) -> dict[str, Any]:
        chance = self.chance
        self.players = [Player(self, index) for index in range(chance.randint(1, 5))]
        for player in self.players:
            await player.begin()
        await self._settle()
        for _ in range(chance.randint(3, 12)):
            match chance.choice(("feed", "feed", "feed", "feed", "clog", "unclog")):
                case "feed":
                    await self._feed()
                case "clog":
                    chance.choice(self.players).clog()
                case "unclog":
                    chance.choice(self.players).unclog()
            await self._settle()
        for player in self.players:
            player.unclog()
        await self._settle()
        await self._settle()
        for player in self.players:
            player.write(close(1001))
        await self._settle()
        for player in self.players:
            player.theirs.close()
        await self._settle()
        outcomes = [player.outcome() for player in self.players]
        for player in self.players:
            if player.task is not None:
                player.task.cancel()
                await asyncio.gather(player.task, return_exceptions=True)
            player.conn.abort()
        metrics = self.hub.metrics()
        await self.hub.stop()
        names = ("matched", "queued", "dropped", "skipped", "pending")
        return {
            "players": outcomes,
            "hub": [getattr(metrics, f"broadcast_{name}") for name in names],
            "evicted": metrics.messages_evicted,
        }

    async def _settle(self) -> None:
        """Let everything run that is ready to run."""
        calm, before = 0, None
        while calm < 8:
            await asyncio.sleep(0)
            for player in self.players:
                player.read()
                player.write()
            now = [
                (len(player.log), len(player.arrived), len(player.unsent), player.conn._written)
                for player in self.players
            ]
            calm = calm + 1 if now == before else 0
            before = now

    async def _feed(self) -> None:
        """Let commands arrive at some members, in pieces."""
        chance = self.chance
        streams = [(player, self._frames()) for player in self.players if chance.random() < 0.6]
        if self.sliced:
            del streams[1:]
        while streams:
            at = chance.randrange(len(streams))
            player, data = streams[at]
            size = len(data) if chance.random() < 0.5 else chance.randint(1, len(data))
            player.write(data[:size])
            if size == len(data):
                del streams[at]
            else:
                streams[at] = player, data[size:]
            for _ in range(chance.choice((0, 0, 1, 3))):
                await asyncio.sleep(0)
            if self.sliced:
                await self._settle()

    def _frames(self) -> bytes:
        return b"".join(self._frame() for _ in range(self.chance.choice((1, 1, 1, 2, 3, 8, 20))))

    def _frame(self) -> bytes:
        chance = self.chance
        payload = self._command()
        at = chance.random()
        if at < 0.85:
            return masked(Opcode.TEXT, payload)
        if at < 0.9:
            return masked(Opcode.PING, str(self.number))
        if at < 0.94:
            data = payload.encode()
            cut = chance.randint(0, len(data))
            between = masked(Opcode.PING, b"between") if chance.random() < 0.3 else b""
            return masked(Opcode.TEXT, data[:cut], fin=False) + between + masked(Opcode.CONT, data[cut:])
        if at < 0.985:
            return masked(Opcode.BINARY, f"bytes {self.number}".encode())
        return close(1000) if at < 0.993 or self.sliced else b"\x81\x00"  # a frame without a mask

    def _command(self) -> str:
        chance = self.chance
        self.number += 1
        text = f"{self.number}-{'x' * chance.choice((0, 5, 60, 60, 200, 4090, 5000))}"
        if chance.random() < 0.01:
            text += "y" * chance.choice((33_000, 70_000, 140_000))
        if chance.random() < 0.1:
            text += "é😀"
        match chance.choice(("echo",) * 8 + ("cast",) * 8 + ("many", "to", "to", "soon", "cast_soon", "rare")):
            case "echo":
                return f"echo 1 {text}"
            case "many":
                return f"many {chance.randint(0, 9)} {text}"
            case "to":
                return f"to {chance.randrange(len(self.players))} {text}"
            case "cast":
                key = chance.choice("---kl")
                return f"cast {chance.choice(ROOMS)} {chance.choice('--xw')} {key} {key}{text}"
            case "soon":
                return f"soon {text}"
            case "cast_soon":
                return f"cast_soon {chance.choice(ROOMS)} {text}"
        rare = ("join", "leave", "filter", "close", "abort", "raise", "cancel", "pieces", "publish", "stream")
        match chance.choice(rare):
            case "join" | "leave" as word:
                return f"{word} {chance.choice(ROOMS)}"
            case "close":
                return f"close {chance.choice((1000, 4000))}"
            case "abort":
                return f"abort {chance.randrange(len(self.players))}"
            case "pieces":
                return f"pieces {text}"
            case "publish":
                return f"publish {chance.choice(ROOMS)} {text}"
            case word:
                return word


def outcome(seed: int, loop_name: str) -> dict[str, Any]:
    """Return what came of the play of ``seed``, in a loop of its own."""
    if loop_name == "uvloop":
        import uvloop

        loop = uvloop.new_event_loop()
    else:
        loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda loop, context: None)
    play = Play(seed)
    limits.FAN_OUT_SLICE, before = 0.0 if play.sliced else 60.0, limits.FAN_OUT_SLICE
    try:
        result: dict[str, Any] = loop.run_until_complete(play.run())
        return json.loads(json.dumps(result))  # type: ignore[no-any-return]
    finally:
        limits.FAN_OUT_SLICE = before
        loop.close()


if __name__ == "__main__":
    with Path(sys.argv[4]).open("w") as file:  # a pipe loses bytes that are printed after a loop of uvloop
        file.writelines(
            json.dumps(outcome(number, sys.argv[3])) + "\n" for number in range(int(sys.argv[1]), int(sys.argv[2]))
        )
