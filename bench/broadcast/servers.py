"""Each contender's room: what its documentation says of broadcasting, in its fastest form.

What a room is, and those that are the same with compression, stand in ``bench.harness.rooms``. No compression, no
pings of their own. Differences that matter: ours, websockets (``broadcast``) and socketify (uWebSockets' ``publish``)
have a function for it and never wait for a member; so do the loops over picows and tornado, whose transports keep
what a member does not take; aiohttp's loop waits for a member that is full.
"""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Any

from ..harness import rooms
from ..harness.listening import BACKLOG, MAX_SIZE, Ready, for_ever
from ..harness.running import HOST

#: What answers the load's request: it always sends the same key, so that no server of bytes needs a SHA-1.
UPGRADED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)


async def plumews(port: int, ready: Ready) -> None:
    """As it is without settings: under BLOCK."""
    await rooms.plumews(port, ready)


async def plumews_drop(port: int, ready: Ready) -> None:
    from plumews import SendBehavior

    await rooms.plumews(port, ready, send_behavior=SendBehavior.DROP)


async def plumews_close(port: int, ready: Ready) -> None:
    from plumews import SendBehavior

    await rooms.plumews(port, ready, send_behavior=SendBehavior.CLOSE)


async def plumews_drop_oldest(port: int, ready: Ready) -> None:
    from plumews import SendBehavior

    await rooms.plumews(port, ready, send_behavior=SendBehavior.DROP_OLDEST)


async def plumews_conflate(port: int, ready: Ready) -> None:
    from plumews import SendBehavior

    await rooms.plumews(port, ready, send_behavior=SendBehavior.CONFLATE)


async def plumews_async_for(port: int, ready: Ready) -> None:
    await rooms.plumews_async_for(port, ready)


async def plumews_async_for_drop(port: int, ready: Ready) -> None:
    from plumews import SendBehavior

    await rooms.plumews_async_for(port, ready, send_behavior=SendBehavior.DROP)


async def plumews_async_for_close(port: int, ready: Ready) -> None:
    from plumews import SendBehavior

    await rooms.plumews_async_for(port, ready, send_behavior=SendBehavior.CLOSE)


async def plumews_async_for_drop_oldest(port: int, ready: Ready) -> None:
    from plumews import SendBehavior

    await rooms.plumews_async_for(port, ready, send_behavior=SendBehavior.DROP_OLDEST)


async def plumews_async_for_conflate(port: int, ready: Ready) -> None:
    from plumews import SendBehavior

    await rooms.plumews_async_for(port, ready, send_behavior=SendBehavior.CONFLATE)


async def raw(port: int, ready: Ready) -> None:
    """No WebSocket but its first answer: what is possible on this loop."""
    room: set[Any] = set()

    class Connection(asyncio.Protocol):
        path: bytes | None = None

        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            if self.path == b"/publish":
                for member in room:
                    member.write(data)
            elif self.path is None:
                self.path = data.split(b" ", 2)[1]
                self.transport.write(UPGRADED)
                if self.path == b"/":
                    room.add(self.transport)

        def connection_lost(self, exc: Exception | None) -> None:
            room.discard(self.transport)

    await for_ever(ready, await asyncio.get_running_loop().create_server(Connection, HOST, port, backlog=BACKLOG))


def bare(port: int, ready: Ready) -> None:
    """A loop in C, which is part of the load generator: the limit of the machine. It becomes this process."""
    listener = socket.create_server((HOST, port), backlog=BACKLOG)
    listener.set_inheritable(True)
    ready()
    load = os.environ["BENCH_LOAD"]
    os.execv(load, [load, "bare", "--listener", str(listener.fileno())])


async def picows(port: int, ready: Ready) -> None:
    from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

    room: set[WSTransport] = set()

    class Connection(WSListener):
        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            if frame.msg_type == WSMsgType.CLOSE:
                transport.send_close(frame.get_close_code(), frame.get_close_message())
                transport.disconnect()
            else:
                self.on_message(transport, frame)

        def on_message(self, transport: WSTransport, frame: WSFrame) -> None:
            transport.send(frame.msg_type, frame.get_payload_as_memoryview())

    class Member(Connection):
        def on_ws_connected(self, transport: WSTransport) -> None:
            room.add(transport)

        def on_ws_disconnected(self, transport: WSTransport) -> None:
            room.discard(transport)

    class Publisher(Connection):
        def on_message(self, transport: WSTransport, frame: WSFrame) -> None:
            message_type, message = frame.msg_type, frame.get_payload_as_bytes()
            for member in room:
                member.send(message_type, message)

    kinds = {b"/": Member, b"/publish": Publisher}

    def listen(request: WSUpgradeRequest) -> WSListener:
        return kinds.get(request.path, Connection)()

    await for_ever(ready, await ws_create_server(listen, HOST, port, max_frame_size=MAX_SIZE, backlog=BACKLOG))


async def websockets(port: int, ready: Ready) -> None:
    from websockets.asyncio.server import broadcast, serve

    options: dict[str, Any] = {"compression": None, "ping_interval": None, "max_size": MAX_SIZE, "backlog": BACKLOG}
    await for_ever(ready, serve(rooms.handler(broadcast), HOST, port, **options))


async def aiohttp(port: int, ready: Ready) -> None:
    await rooms.aiohttp(port, ready, compress=False, max_msg_size=MAX_SIZE)


async def tornado(port: int, ready: Ready) -> None:
    await rooms.tornado(port, ready, websocket_max_message_size=MAX_SIZE)


def socketify(port: int, ready: Ready) -> None:
    from socketify import CompressOptions

    rooms.socketify(port, ready, compression=CompressOptions.DISABLED, max_payload_length=MAX_SIZE, idle_timeout=0)
