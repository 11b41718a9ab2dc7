"""Large messages, with and without a bound for what the kernel holds: an echo, and a broadcast to 10 members.

A client is a process of its own: ``python -m bench.conflate.bulk PORT SIZE COUNT ECHO``.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from dataclasses import dataclass
from threading import Semaphore, Thread

import plumews
from plumews.constants import Opcode
from plumews.protocol.codec import build_frame
from plumews.protocol.message import encode

from .client import REQUEST

MEMBERS = 10
IN_FLIGHT = 4


@dataclass(frozen=True)
class Bulk:
    """MB a second of payload, and microseconds of the server's CPU a message or delivery."""

    rate: float
    cpu: float


async def measure(size: int, unsent: int | None, count: int, *, echo: bool, members: int = MEMBERS) -> Bulk:
    """``count`` messages of ``size`` bytes to each client."""
    hub, clients = plumews.Hub(), 1 if echo else members
    opened, all_there = 0, asyncio.Event()

    def on_open(conn: plumews.Conn) -> None:
        nonlocal opened
        opened += 1
        if not echo:
            hub.join("room", conn)
        if opened == clients:
            all_there.set()

    def on_message(conn: plumews.Conn, message: str | bytes) -> None:
        if echo:
            conn.send_nowait(message)

    options = {"unsent_bytes": unsent, "max_size": None, "queue_bytes": 1 << 30, "queue_size": 100_000}
    server = plumews.serve(host="127.0.0.1", port=0, on_open=on_open, on_message=on_message, **options)  # type: ignore[call-overload]
    async with hub, server as running:
        command = [sys.executable, "-m", "bench.conflate.bulk"]
        arguments = [str(running.port), str(size), str(count), str(int(echo))]
        processes = [await asyncio.create_subprocess_exec(*command, *arguments) for _ in range(clients)]
        await all_there.wait()
        began, cpu = time.monotonic(), time.process_time()
        message = bytes(size)
        if not echo:
            for number in range(count):
                result = hub.broadcast_room("room", message)
                assert result.dropped == 0
                if number % IN_FLIGHT == 0:
                    for conn in hub.members("room"):
                        await conn.drain()
        for process in processes:
            await process.wait()
            assert process.returncode == 0
        took, used = time.monotonic() - began, time.process_time() - cpu
    return Bulk(size * count * clients / took / 1e6, used / (count * clients) * 1e6)


def _client(port: int, size: int, count: int, echo: bool) -> None:
    sock = socket.create_connection(("127.0.0.1", port))
    sock.sendall(REQUEST)
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += sock.recv(1)
    each = encode(Opcode.BINARY, bytes(size), fragment_size=plumews.ConnConfig().fragment_size).size
    room = Semaphore(IN_FLIGHT)

    def send() -> None:
        frame = build_frame(Opcode.BINARY, bytes(size), mask_key=b"\0\0\0\0")
        for _ in range(count):
            room.acquire()
            sock.sendall(frame)

    if echo:
        Thread(target=send, daemon=True).start()
    buffer, got, done = bytearray(1 << 20), 0, 0
    while got < each * count:
        size_read = sock.recv_into(buffer)
        assert size_read
        got += size_read
        while done < got // each:
            done += 1
            room.release()


if __name__ == "__main__":
    _client(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "1")
