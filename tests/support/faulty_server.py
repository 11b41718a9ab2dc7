"""Server for `faulty_sends`, on whose sends a preloaded library acts, and for `soak`: a process of its own.

``python faulty_server.py LOOP CHAIN KEY`` prints the ports of its servers as a line of JSON: of one with a handler, and
of several with callbacks. Each line on stdin is answered by a report, the line ``objects`` by one that counts objects.

The path of a connection says what it is: ``/`` echoes, ``/member`` is in the room, ``/slow/POLICY`` too, with a send
queue of 4 messages. ``/send`` broadcasts its messages to the room, ``/send/plain`` without the hub. ``/send/abort`` and
``/send/close_nowait`` broadcast, end a member, and broadcast again.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import json
import logging
import os
import socket
import ssl
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import plumews
from plumews import Conn, Hub, SendBehavior, SendQueueFull

#: Bytes of the kernel for each connection: a large message does not fit.
SEND_BUFFER = 64 * 1024


class Faulty:
    """Servers of one loop, their hub, and what they report."""

    def __init__(self) -> None:
        self.hub = Hub()
        self.members: list[Conn] = []
        self.lost: dict[str, int] = {}
        self.opened = self.closed = 0

    async def pieces(self, message: str) -> AsyncIterator[str]:
        for piece in (message[:5], message[5:6], message[6:]):
            yield piece
            await asyncio.sleep(0)

    def opens(self, conn: Conn) -> None:
        self.opened += 1
        conn.add_close_callback(self.ends)
        if conn.closed:  # its head could not be sent
            return
        conn.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        if conn.request.path.startswith(("/member", "/slow")):
            self.hub.join("room", conn)
            self.members.append(conn)

    def ends(self, conn: Conn) -> None:
        self.closed += 1
        if conn in self.members:
            self.members.remove(conn)
            self.lost[conn.request.query.get("name", "")] = conn.dropped_messages

    def takes(self, conn: Conn, message: str | bytes) -> None:
        """Act on a message that needs no wait."""
        if conn.request.path == "/send":
            self.hub.broadcast_room("room", message)
        elif conn.request.path == "/send/plain":
            plumews.broadcast(self.members, message)
        elif conn.request.path.startswith("/send/"):
            self.hub.broadcast_room("room", message)
            for member in [member for member in self.members if not member.closed][:1]:
                member.send_nowait("directly")
                getattr(member, conn.request.path.removeprefix("/send/"))()
                with contextlib.suppress(plumews.ConnectionClosed):
                    member.send_nowait("too late")
            self.hub.broadcast_room("room", message)
        elif message == "close":
            conn.close_nowait(1000, "as you like")
        else:
            with contextlib.suppress(SendQueueFull, plumews.ConnectionClosed):
                conn.send_nowait(message)

    async def handle(self, conn: Conn) -> None:
        self.opens(conn)
        async for message in conn:
            if conn.request.path != "/":
                self.takes(conn, message)
            elif message == "ping":
                await (await conn.ping(b"from the server"))
            elif message == "close":
                await conn.close(1000, "as you like")
            elif isinstance(message, str) and message.startswith("pieces"):
                await conn.send(self.pieces(message))
            else:
                await conn.send(message)

    def objects(self) -> dict[str, Any]:
        """Return the report, with what is in the memory of the process."""
        for _ in range(3):
            gc.collect()
        kinds = Counter(map(type, gc.get_objects()))
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return {
            **self.report(),
            "objects": {f"{kind.__module__}.{kind.__qualname__}": count for kind, count in kinds.items()},
            "tasks": len(asyncio.all_tasks()),
            "memory": pages * os.sysconf("SC_PAGESIZE"),
        }

    def report(self) -> dict[str, Any]:
        gc.collect()
        return {
            "body": plumews.BODY,
            "descriptors": len(list(Path("/proc/self/fd").iterdir())),
            "connections": self.opened - self.closed,
            "lost": self.lost,
            "metrics": {
                name: value
                for name, value in dataclasses.asdict(self.hub.metrics()).items()
                if name.startswith("broadcast_") and isinstance(value, int)
            },
        }


def slow(behavior: SendBehavior) -> dict[str, Any]:
    return {"send_behavior": behavior, "queue_size": 4, "unsent_bytes": None, "unanswered_bytes": None}


async def main(chain: str, key: str) -> None:
    faulty = Faulty()
    logging.getLogger("plumews.hub").setLevel(logging.ERROR)  # some members are slow on purpose
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    everywhere = context if os.environ.get("PLUMEWS_TEST_TLS") else None
    callbacks = {"on_open": faulty.opens, "on_message": faulty.takes}
    common: dict[str, Any] = {
        "host": "127.0.0.1",
        "port": 0,
        "ping_interval": None,
        "close_timeout": 2,
        "ssl": everywhere,
        "routes": {"/page": lambda request: plumews.Response.text(200, "a page " * 1000)},
    }
    deflate = plumews.Deflate(server_takeover=True)
    servers = {
        "handler": plumews.serve(faulty.handle, compression="deflate", **common),
        "callbacks": plumews.serve(**callbacks, compression=deflate, **common),
        "keepalive": plumews.serve(**callbacks, **{**common, "ping_interval": 0.2, "ping_timeout": 0.2}),
        "tls": plumews.serve(**callbacks, **{**common, "ssl": context}),
        **{behavior.name: plumews.serve(**callbacks, **common, **slow(behavior)) for behavior in SendBehavior},
    }
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(faulty.hub)
        ports = {name: (await stack.enter_async_context(server)).port for name, server in servers.items()}
        loop, asked, ended = asyncio.get_running_loop(), b"", asyncio.Event()
        os.set_blocking(0, False)

        def ask() -> None:
            nonlocal asked
            lines = os.read(0, 4096)
            if not lines:
                loop.remove_reader(0)
                ended.set()
            asked += lines
            while b"\n" in asked:
                what, _, asked = asked.partition(b"\n")
                say(faulty.objects() if what == b"objects" else faulty.report())
                faulty.lost.clear()

        loop.add_reader(0, ask)
        say(ports)
        await ended.wait()


def say(what: object) -> None:
    os.write(1, json.dumps(what).encode() + b"\n")


if __name__ == "__main__":
    if sys.argv[1] == "uvloop":
        import uvloop

        uvloop.run(main(*sys.argv[2:]))
    else:
        asyncio.run(main(*sys.argv[2:]))
