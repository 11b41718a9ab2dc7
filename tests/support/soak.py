"""Churn of clients for a server in a process of its own, of which nothing may remain.

``python -m support.soak --seconds N --loop LOOP``: clients come and go in all ways, read slowly or not at all, in rooms
and alone, with compression and without. Afterwards the server must be as it was after a first, short churn:

- as many descriptors, connections and tasks, and as many objects of each type of plumews, those in `KEPT` aside,
- of each other type at most `MORE_OBJECTS` or 2 % more objects,
- at most `MORE_MEMORY` bytes or 10 % more resident memory.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import socket
import ssl
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import plumews
from plumews.constants import Opcode
from support.compressed_messages import OFFER, Squeezing, frame
from support.raw_client import Wire, close, masked, text, upgrade
from support.server_process import ServerProcess

#: Seconds after which a client, or an answer of the server, is overdue.
PATIENCE: Final = 30.0
#: Objects of plumews that may remain: deadlines in the heap of timers, close frames with a cached text, spare queues.
KEPT: Final = {"Deadline": 128, "Close": 64, "SendQueue": 2048}
#: Clients among which each kind has come, so that what is kept of each kind is there.
LEAST: Final = 200
#: Objects of another type that may remain: caches of the standard library.
MORE_OBJECTS: Final = 100
#: Bytes that may remain: memory that the allocator does not return. An hour of churn may not need more than a minute.
MORE_MEMORY: Final = 16 << 20

GONE = (ConnectionError, EOFError, asyncio.IncompleteReadError, ssl.SSLError)


class Server(ServerProcess):
    """Process of `faulty_server.py`, without faults. With ``tls`` it speaks TLS at each of its ports."""

    def __init__(self, folder: Path, *, uvloop: bool, tls: bool) -> None:
        environment = {"PLUMEWS_TEST_TLS": "1"} if tls else {}
        super().__init__(folder, uvloop=uvloop, patience=PATIENCE, environment=environment)
        self.tls_everywhere = tls

    def at(self, kind: str) -> Any:
        """Return an object that `Wire` takes for a server."""
        address = ("127.0.0.1", self.ports[kind])
        return SimpleNamespace(sockets=[SimpleNamespace(getsockname=lambda: address, family=socket.AF_INET)])

    async def settled(self, descriptors: int | None = None) -> dict[str, Any]:
        """Return what remains when all connections have ended; ``descriptors`` open by then."""
        end = time.monotonic() + PATIENCE
        while True:
            report = self.report(b"objects")
            if report["connections"] == 0 and descriptors in (None, report["descriptors"]):
                return report
            assert time.monotonic() < end, ("something remains", report, self.errors())
            await asyncio.sleep(0.1)  # the end of a connection that does not answer is a matter of time

    def __enter__(self) -> Server:
        return self


# --- one client -----------------------------------------------------------------------------------


async def event_of(wire: Wire) -> tuple[int, Any]:
    """Return the next event that is no ping. Pings are answered."""
    kind, data = await wire.event()
    while kind == Opcode.PING:
        wire.send(masked(Opcode.PONG, data))
        kind, data = await wire.event()
    return kind, data


async def talk(wire: Wire, chance: random.Random, *, compressed: bool) -> None:
    """Get some messages back."""
    for _ in range(chance.randrange(6)):
        message = chance.choice(("x", "é" * 50, "long " * chance.randrange(20_000)))
        if compressed:
            wire.send(frame(Opcode.TEXT, message.encode()))
        elif chance.random() < 0.2:
            half = len(message) // 2
            wire.send(
                masked(Opcode.TEXT, message[:half], fin=False),
                masked(Opcode.PING, b"?"),
                masked(Opcode.CONT, message[half:]),
            )
            assert await event_of(wire) == (Opcode.PONG, b"?")
        else:
            wire.send(text(message))
        kind, data = await event_of(wire)
        assert compressed or (kind, data) == (Opcode.TEXT, message), (kind, data[:50])


async def listen(wire: Wire, chance: random.Random) -> None:
    """Read as a member of the room, for a moment."""
    with contextlib.suppress(asyncio.TimeoutError):
        for _ in range(chance.randrange(20)):
            await asyncio.wait_for(wire.event(), 0.05)


async def leave(wire: Wire, chance: random.Random, kind: str, path: str, *, tls: bool) -> None:
    ways = ["close", "close", "reset", "broken"]
    if not tls:
        ways.append("half-close")
    if path == "/":
        ways.append("asks to be closed")
    if kind == "keepalive":
        ways += ["silence"] * 2
    way = chance.choice(ways)
    if way == "reset":
        wire.reset()
        return
    if way == "silence":  # a peer that is gone without a word: the keepalive finds out
        await asyncio.sleep(chance.random())  # the churn: clients come and go at random moments
        wire.reset()
        return
    if way == "close":
        wire.send(close(chance.choice((1000, 1001, 4000))))
    elif way == "half-close":
        wire.writer.write_eof()
    elif way == "broken":
        wire.send(b"\xff\xff")
    else:
        wire.send(text("close"))
        await wire.closing()
        wire.send(close(1000))
    await wire.eof()


async def visit(server: Server, chance: random.Random) -> None:
    """Come, do something, and go."""
    kind = chance.choice(("handler", "callbacks", "tls", "keepalive", *(each.name for each in plumews.SendBehavior)))
    path = chance.choice(("/", "/", "/member", "/slow", "/send", "/send/plain"))
    compressed = kind in ("handler", "callbacks") and chance.random() < 0.5
    options: dict[str, Any] = {}
    tls = kind == "tls" or server.tls_everywhere
    if tls:
        options = {"ssl": server.tls, "server_hostname": "localhost"}
    if kind != "tls" and chance.random() < 0.2:
        options["rcvbuf"] = 4096
    where = server.at(kind)
    if chance.random() < 0.1:  # no further than into the handshake
        wire = await Wire.connect(where, **options)
        async with wire:
            request = chance.choice((upgrade(), b"GET / HTTP/1.0\r\n\r\n", b"\x00" * 100))
            wire.writer.write(request[: chance.randrange(len(request))])
            if chance.random() < 0.5:
                wire.reset()
        return
    wire = await (Squeezing.open(where, path, OFFER, **options) if compressed else Wire.open(where, path, **options))
    async with wire:
        if path == "/":
            await talk(wire, chance, compressed=compressed)
        elif path in ("/member", "/slow"):
            if chance.random() < 0.7:
                await listen(wire, chance)
            else:
                await asyncio.sleep(chance.random() / 5)  # it does not read
        else:
            wire.send(*[text(f"{number} " * chance.randrange(1, 2000)) for number in range(chance.randrange(20))])
        await leave(wire, chance, kind, path, tls=tls)


async def churn(server: Server, seconds: float, chance: random.Random, *, clients: int = 12, least: int = LEAST) -> int:
    """Let ``clients`` at a time come and go, ``least`` of them also where that takes longer. Return their number."""
    end, count = time.monotonic() + seconds, 0

    async def visits() -> None:
        nonlocal count
        while time.monotonic() < end or count < least:
            with contextlib.suppress(*GONE):
                await asyncio.wait_for(visit(server, chance), PATIENCE)
                count += 1

    await asyncio.gather(*(visits() for _ in range(clients)))
    return count


# --- what remains ---------------------------------------------------------------------------------


def check(base: dict[str, Any], now: dict[str, Any]) -> None:
    """Check that nothing remains of what came after ``base``."""
    for name in ("descriptors", "connections", "tasks"):
        assert now[name] == base[name], (name, now[name], base[name])
    more = Counter(now["objects"])
    more.subtract(base["objects"])
    ours = {
        name: count
        for name, count in more.items()
        if name.startswith("plumews.") and count > KEPT.get(name.rpartition(".")[2], 0)
    }
    assert not ours, ours
    others = {
        name: count for name, count in more.items() if count > max(MORE_OBJECTS, base["objects"].get(name, 0) // 50)
    }
    assert not others, others
    assert now["memory"] <= max(base["memory"] * 1.1, base["memory"] + MORE_MEMORY), (now["memory"], base["memory"])
    metrics = now["metrics"]
    parts = [metrics[f"broadcast_{part}"] for part in ("queued", "dropped", "skipped", "pending")]
    assert metrics["broadcast_matched"] == sum(parts), metrics
    assert parts[-1] == 0


async def soak(
    *, uvloop: bool, seconds: float, first: float, seed: int, tls: bool = False
) -> tuple[int, dict[str, Any], dict[str, Any]]:
    """Churn for ``first`` seconds, then for ``seconds``. Return the clients, and the reports after each."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder, Server(Path(folder), uvloop=uvloop, tls=tls) as server:
        await churn(server, first, chance)
        base = await server.settled()
        count = await churn(server, seconds, chance)
        now = await server.settled(base["descriptors"])
        assert server.errors() == ""
        check(base, now)
    return count, base, now


def main() -> None:
    parser = argparse.ArgumentParser(prog="soak", description="Churn of clients, of which nothing may remain.")
    parser.add_argument("--seconds", type=float, default=3600, help="for all of it (default %(default)s)")
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="uvloop")
    parser.add_argument("--tls", action="store_true", help="TLS for all clients (default: for some)")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    options = parser.parse_args()
    tls = " --tls" if options.tls else ""
    sys.stdout.write(f"{options.loop}, {plumews.BODY},{tls} --seed {options.seed}\n")
    first = min(options.seconds / 10, 60)
    uvloop, seconds = options.loop == "uvloop", options.seconds - first
    count, base, now = asyncio.run(
        soak(uvloop=uvloop, seconds=seconds, first=first, seed=options.seed, tls=options.tls)
    )
    deliveries, memory = now["metrics"]["broadcast_matched"], now["memory"] - base["memory"]
    sys.stdout.write(f"  {count} clients, {deliveries} deliveries, {memory >> 10} KiB more memory, nothing else\n")


if __name__ == "__main__":
    main()
