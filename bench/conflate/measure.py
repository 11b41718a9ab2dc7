"""One run: a server that broadcasts prices under CONFLATE, one client behind a path, and what came of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import plumews

from .paths import link, nginx

#: Of the slow client, bytes a second, and what its link holds.
RATE = 40_000
SLOW_WINDOW = 16 * 1024
FAST_WINDOW = 1024 * 1024
SYMBOLS = [f"S{number:02}" for number in range(50)]


@dataclass(frozen=True)
class Scenario:
    """Conditions of a run: nginx or not, the round-trip time, and the speed of the client."""

    proxied: bool
    round_trip: float
    slow: bool

    @property
    def name(self) -> str:
        path = "nginx" if self.proxied else "direct"
        return f"{'40 KB/s' if self.slow else 'as fast as it can'}, {path}, {self.round_trip * 1000:g} ms"


@dataclass(frozen=True)
class Reading:
    """Ages in seconds, bytes a second, messages a second; ``ended`` is when the connection was lost, or 0.

    ``held`` are bytes in the server's kernel buffer at their most, ``on_the_way`` those of all sockets of the path.
    """

    median: float
    oldest: float
    rate: float
    messages: float
    ended: float
    held: int
    on_the_way: int


@contextlib.contextmanager
def path(scenario: Scenario, port: int) -> Iterator[list[int]]:
    """The ports of all listening sockets on the way; the last one is the client's."""
    ports = [port]
    with contextlib.ExitStack() as stack:
        if scenario.proxied:
            ports.append(stack.enter_context(nginx(port)))
        window = SLOW_WINDOW if scenario.slow else FAST_WINDOW
        ports.append(stack.enter_context(link(ports[-1], scenario.round_trip, window)))
        yield ports


def queued_on(ports: list[int]) -> int:
    """Bytes in the send and receive queues of the TCP connections to ``ports``."""
    size = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] != "0A" and {int(end.partition(":")[2], 16) for end in fields[1:3]} & set(ports):
            size += sum(int(queue, 16) for queue in fields[4].split(":"))
    return size


async def measure(scenario: Scenario, options: dict[str, Any], seconds: float) -> Reading:
    """Run it for so many seconds; ``options`` are those of :func:`plumews.serve`."""
    hub = plumews.Hub()
    conns: list[plumews.Conn] = []

    async def handler(conn: plumews.Conn) -> None:
        conns.append(conn)
        hub.join("prices", conn)
        async for _ in conn:
            pass

    behavior = plumews.SendBehavior.CONFLATE
    server = plumews.serve(handler, "127.0.0.1", 0, send_behavior=behavior, queue_size=128, **options)
    async with hub, server as running:
        with contextlib.ExitStack() as stack:
            ports = await asyncio.to_thread(stack.enter_context, path(scenario, running.port))
            on_the_way = held = 0
            command = [sys.executable, "-m", "bench.conflate.client"]
            arguments = [str(ports[-1]), str(seconds), str(RATE if scenario.slow else 0)]
            client = await asyncio.create_subprocess_exec(*command, *arguments, stdout=asyncio.subprocess.PIPE)
            reading = asyncio.ensure_future(client.communicate())
            number = 0
            while not reading.done():
                for _ in range(40 if scenario.slow else 100):
                    number += 1
                    price = {"s": SYMBOLS[number * 7 % 50], "t": time.time(), "n": number}
                    price["pad"] = "x" * (100 if scenario.slow else 950)
                    hub.broadcast_room("prices", json.dumps(price), key=price["s"])
                await asyncio.sleep(0.01 if scenario.slow else 0)
                if number % 400 == 0:
                    on_the_way = max(on_the_way, queued_on(ports))
                    held = max([held, *(conn.unacknowledged_bytes or 0 for conn in conns)])
            output, _ = await reading
    return Reading(**json.loads(output), held=held, on_the_way=on_the_way)
