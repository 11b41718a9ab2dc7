"""Three clients that share no code with plumews, behind one interface.

Each is what its package is out of the box: it offers permessage-deflate, answers pings and close frames by itself,
and checks what it receives. Nothing here helps the protocol along, so that a test proves what a user would see.
"""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
from collections import deque
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Protocol

import aiohttp
import websockets
from websockets.asyncio.client import ClientConnection, connect
from websockets.protocol import State
from websockets.typing import Subprotocol

__all__ = ["CLIENTS", "FRAGMENTING", "NODE_MISSING", "Client", "find_node"]

HERE = Path(__file__).parent
MIB = 1024 * 1024


class Client(Protocol):
    """One connection of another implementation."""

    subprotocol: str | None

    async def open(self, stack: AsyncExitStack, url: str, subprotocols: Sequence[str], *, pinging: bool) -> None:
        """Connect; what has to be undone goes on ``stack``. ``pinging`` says that this side is the one that pings."""

    async def send(self, message: str | bytes) -> None: ...

    async def send_fragments(self, fragments: Sequence[str] | Sequence[bytes]) -> None:
        """One message, a frame for each of ``fragments``."""

    async def recv(self) -> str | bytes: ...

    async def ping(self, payload: bytes) -> None:
        """Ping, and wait for the pong with the same payload."""

    async def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake and wait for its end."""

    async def closed(self) -> tuple[int, str]:
        """Receive until the connection has ended: the code and reason that this side saw."""


class WebsocketsClient:
    """The asyncio client of the `websockets` package."""

    connection: ClientConnection
    subprotocol: str | None

    async def open(self, stack: AsyncExitStack, url: str, subprotocols: Sequence[str], *, pinging: bool) -> None:
        self.connection = await connect(
            url, subprotocols=[Subprotocol(name) for name in subprotocols] or None, proxy=None, max_size=4 * MIB
        )
        stack.push_async_callback(self.end)
        self.subprotocol = self.connection.subprotocol

    async def end(self) -> None:
        # Closing it when it is closed aborts its transport again, which asyncio's does not always survive.
        if self.connection.state is not State.CLOSED:
            await self.connection.close()

    async def send(self, message: str | bytes) -> None:
        await self.connection.send(message)

    async def send_fragments(self, fragments: Sequence[str] | Sequence[bytes]) -> None:
        await self.connection.send(fragments)

    async def recv(self) -> str | bytes:
        return await self.connection.recv()

    async def ping(self, payload: bytes) -> None:
        await (await self.connection.ping(payload))

    async def close(self, code: int, reason: str) -> None:
        await self.connection.close(code, reason)

    async def closed(self) -> tuple[int, str]:
        try:
            while True:
                await self.connection.recv()
        except websockets.ConnectionClosed as exc:
            return (exc.rcvd.code, exc.rcvd.reason) if exc.rcvd else (1006, "")


class AiohttpClient:
    """The client of `aiohttp`. It cannot send fragments, and answers pings while it receives."""

    socket: aiohttp.ClientWebSocketResponse
    subprotocol: str | None

    async def open(self, stack: AsyncExitStack, url: str, subprotocols: Sequence[str], *, pinging: bool) -> None:
        session = await stack.enter_async_context(aiohttp.ClientSession())
        # It tells of pongs only where it leaves the answers to pings to the application.
        connecting = session.ws_connect(url, protocols=subprotocols, compress=15, autoping=not pinging)
        self.socket = await stack.enter_async_context(connecting)
        self.subprotocol = self.socket.protocol

    async def send(self, message: str | bytes) -> None:
        if isinstance(message, str):
            await self.socket.send_str(message)
        else:
            await self.socket.send_bytes(message)

    async def send_fragments(self, fragments: Sequence[str] | Sequence[bytes]) -> None:
        raise NotImplementedError

    async def recv(self) -> str | bytes:
        message = await self.socket.receive()
        assert message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY), message
        data: str | bytes = message.data
        return data

    async def ping(self, payload: bytes) -> None:
        await self.socket.ping(payload)
        message = await self.socket.receive()
        assert (message.type, bytes(message.data)) == (aiohttp.WSMsgType.PONG, payload)

    async def close(self, code: int, reason: str) -> None:
        await self.socket.close(code=code, message=reason.encode())

    async def closed(self) -> tuple[int, str]:
        while True:
            message = await self.socket.receive()
            if message.type is aiohttp.WSMsgType.CLOSE:
                return message.data, message.extra
            assert message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY), message


class NodeClient:
    """Node's `ws`, in a process of its own (`client.mjs`)."""

    process: asyncio.subprocess.Process
    subprotocol: str | None

    def __init__(self) -> None:
        node = find_node()
        assert node is not None, NODE_MISSING
        self.node = node
        self.events: deque[dict[str, Any]] = deque()

    async def open(self, stack: AsyncExitStack, url: str, subprotocols: Sequence[str], *, pinging: bool) -> None:
        pipe = asyncio.subprocess.PIPE
        self.process = await asyncio.create_subprocess_exec(
            self.node, str(HERE / "client.mjs"), url, *subprotocols, stdin=pipe, stdout=pipe, limit=4 * MIB
        )
        stack.push_async_callback(self.end)
        self.subprotocol = (await self.event("open"))["subprotocol"] or None

    async def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        await self.process.communicate()

    def tell(self, command: str, **fields: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"command": command, **fields}).encode() + b"\n")

    async def event(self, wanted: str) -> dict[str, Any]:
        """The next event, which must be of the kind ``wanted``."""
        assert self.process.stdout is not None
        event: dict[str, Any] = json.loads(await self.process.stdout.readline())
        assert event.pop("event") == wanted, event
        return event

    async def send(self, message: str | bytes) -> None:
        await self.send_fragments([message])

    async def send_fragments(self, fragments: Sequence[str | bytes]) -> None:
        for number, fragment in enumerate(fragments, 1):
            binary = isinstance(fragment, bytes)
            data = fragment if isinstance(fragment, bytes) else fragment.encode()
            self.tell("send", data=encoded(data), binary=binary, fin=number == len(fragments))

    async def recv(self) -> str | bytes:
        event = await self.event("message")
        data = base64.b64decode(event["data"])
        return data if event["binary"] else data.decode()

    async def ping(self, payload: bytes) -> None:
        self.tell("ping", data=encoded(payload))
        assert base64.b64decode((await self.event("pong"))["data"]) == payload

    async def close(self, code: int, reason: str) -> None:
        self.tell("close", code=code, reason=reason)
        await self.event("close")

    async def closed(self) -> tuple[int, str]:
        event = await self.event("close")
        return event["code"], event["reason"]


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def find_node() -> str | None:
    """The Node that can run `ws`, if both are here."""
    return shutil.which("node") if (HERE / "node_modules" / "ws").is_dir() else None


NODE_MISSING = "the peer `ws` is not here: install Node, then run `npm ci` in tests/peers"

CLIENTS = {"websockets": WebsocketsClient, "aiohttp": AiohttpClient, "ws": NodeClient}

#: Those that can send a message in fragments.
FRAGMENTING = ["websockets", "ws"]
