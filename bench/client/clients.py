"""Each contender's client, the way its own documentation writes one that is to be fast.

A client is told what to do over a socket, line by line (:class:`~bench.client.control.Control`), and does nothing
meanwhile. Messages are binary, and nobody compresses. Everybody checks no certificate and has the same sizes. Pings of
their own are on only where many connections are idle. An echo is answered with the next message at once, and the time
of each is noted.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar
from urllib.parse import urlsplit

from ..harness.listening import MAX_SIZE, Ready
from ..harness.running import HOST
from ..instructions.lockstep import Client as RawClient
from ..instructions.lockstep import frame

clock = time.perf_counter

UPGRADE = (
    f"GET / HTTP/1.1\r\nHost: {HOST}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
).encode()

#: Seconds between pings.
KEEPALIVE = 20.0
#: So many connections are opened at a time.
AT_ONCE = 20


class Client:
    """One library. A subclass says how it connects, echoes and closes.

    Attributes:
        connects: what it connects with, imported once: as ``module:name``.
    """

    connects: ClassVar[str] = "asyncio:open_connection"

    def __init__(self) -> None:
        module, _, name = self.connects.partition(":")
        self.function: Callable[..., Any] = getattr(importlib.import_module(module), name)
        self.came: list[float] = []  # when each echo came
        self._in_flight = 1
        self._conns: list[Any] = []
        self._tls = ssl.create_default_context()
        self._tls.check_hostname, self._tls.verify_mode = False, ssl.CERT_NONE

    async def connect(self, uri: str, pings: float | None) -> Any:
        """Return an open connection."""
        raise NotImplementedError  # abstract: each library has its own way

    async def echo(self, conn: Any, message: bytes, count: int, in_flight: int) -> None:
        """Get ``count`` echoes, with so many messages on the way, and note when each came."""
        raise NotImplementedError  # abstract: each library has its own way

    async def close(self, conn: Any) -> None:
        await conn.close()

    def tls(self, uri: str) -> ssl.SSLContext | None:
        return self._tls if uri.startswith("wss:") else None

    async def open(self, uri: str) -> None:
        """Open the connection of :meth:`run`."""
        self._conns.append(await self.connect(uri, None))

    async def run(self, size: int, count: int, in_flight: int) -> list[float]:
        """Return the seconds of CPU and of the clock that ``count`` echoes took."""
        self.came.clear()
        self._in_flight = in_flight
        message = bytes(size)
        began, cpu = clock(), time.process_time()
        await self.echo(self._conns[-1], message, count, in_flight)
        return [time.process_time() - cpu, clock() - began]

    async def latencies(self) -> list[float]:
        """Return p50 and p99 of the last run: from one echo to that of the message that answered it."""
        pairs = zip(self.came, self.came[self._in_flight :], strict=False)
        found = sorted(after - before for before, after in pairs)
        return [found[len(found) // 2], found[len(found) * 99 // 100]]

    async def crowd(self, uri: str, count: int) -> list[float]:
        """Open so many connections with keepalive, and return the seconds of CPU and of the clock."""
        began, cpu = clock(), time.process_time()
        for at in range(0, count, AT_ONCE):
            one_batch = (self.connect(uri, KEEPALIVE) for _ in range(min(AT_ONCE, count - at)))
            self._conns += await asyncio.gather(*one_batch)
        took = [time.process_time() - cpu, clock() - began]
        gc.collect()  # what handshakes left is no part of an idle connection
        return took

    async def leave(self) -> None:
        """Close all connections."""
        conns, self._conns = self._conns, []
        await asyncio.gather(*map(self.close, conns))


class Callbacks(Client):
    """A client that is called for each message."""

    def send(self, conn: Any, message: bytes) -> None:
        raise NotImplementedError  # abstract: each library has its own way

    async def echo(self, conn: Any, message: bytes, count: int, in_flight: int) -> None:
        self.message, self.count, self.to_send = message, count, count - in_flight
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        for _ in range(in_flight):
            self.send(conn, message)
        await self.done


class PlumewsCallback(Callbacks):
    connects = "plumews:connect"

    async def connect(self, uri: str, pings: float | None) -> Any:
        return await self.function(
            uri, on_message=self.on_message, ssl=self.tls(uri), max_size=MAX_SIZE, ping_interval=pings
        )

    def send(self, conn: Any, message: bytes) -> None:
        conn.send_nowait(message)

    def on_message(self, conn: Any, message: str | bytes) -> None:
        self.came.append(clock())
        if self.to_send:
            self.to_send -= 1
            conn.send_nowait(self.message)
        elif len(self.came) == self.count:
            self.done.set_result(None)


class Picows(Callbacks):
    connects = "picows:ws_connect"

    #: None takes aiofastnet where that is installed.
    aiofastnet: bool | None = None

    def __init__(self) -> None:
        super().__init__()
        from picows import WSFrame, WSListener, WSMsgType, WSTransport

        client, binary = self, WSMsgType.BINARY

        class Listener(WSListener):
            def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
                if frame.msg_type != binary:
                    return
                frame.get_payload_as_bytes()
                client.came.append(clock())
                if client.to_send:
                    client.to_send -= 1
                    transport.send(binary, client.message)
                elif len(client.came) == client.count:
                    client.done.set_result(None)

        self.listener, self.binary = Listener, binary

    async def connect(self, uri: str, pings: float | None) -> Any:
        options: dict[str, Any] = {"enable_auto_ping": True, "auto_ping_idle_timeout": pings} if pings else {}
        options |= {"max_frame_size": MAX_SIZE, "use_aiofastnet": self.aiofastnet}
        transport, _ = await self.function(self.listener, uri, ssl_context=self.tls(uri), **options)
        return transport

    def send(self, conn: Any, message: bytes) -> None:
        conn.send(self.binary, message)

    async def close(self, conn: Any) -> None:
        conn.send_close()
        conn.disconnect()
        await conn.wait_disconnected()


class PicowsWithoutAiofastnet(Picows):
    aiofastnet = False


class Raw(Callbacks):
    """No WebSocket but its handshake: frames with a mask of zeros, and answers counted by their bytes."""

    class Protocol(asyncio.BufferedProtocol):
        def __init__(self, client: Raw) -> None:
            self.client, self.got, self.size = client, 0, 0
            self.buffer = memoryview(bytearray(256 * 1024))
            self.upgraded = asyncio.get_running_loop().create_future()

        def connection_made(self, transport: Any) -> None:
            self.transport = transport
            transport.write(UPGRADE)

        def get_buffer(self, sizehint: int) -> memoryview:
            return self.buffer

        def buffer_updated(self, nbytes: int) -> None:
            if not self.upgraded.done():
                self.upgraded.set_result(None)  # a head this small comes whole
                return
            self.got += nbytes
            if self.got >= self.size:
                messages, self.got = divmod(self.got, self.size)
                self.client.answer(self.transport, messages)

    async def connect(self, uri: str, pings: float | None) -> Any:
        url, loop = urlsplit(uri), asyncio.get_running_loop()
        connecting = loop.create_connection(lambda: self.Protocol(self), url.hostname, url.port, ssl=self.tls(uri))
        _, protocol = await connecting
        await protocol.upgraded
        return protocol

    async def echo(self, conn: Any, message: bytes, count: int, in_flight: int) -> None:
        conn.size = len(frame(message, masked=False))
        await super().echo(conn, frame(message), count, in_flight)

    def send(self, conn: Any, message: bytes) -> None:
        conn.transport.write(message)

    def answer(self, transport: Any, messages: int) -> None:
        self.came += [clock()] * messages
        again = min(messages, self.to_send)
        if again:
            self.to_send -= again
            transport.write(self.message * again)
        elif len(self.came) == self.count:
            self.done.set_result(None)

    async def close(self, conn: Any) -> None:
        conn.transport.abort()


class Coroutines(Client):
    """A client that waits for each message."""

    async def echo(self, conn: Any, message: bytes, count: int, in_flight: int) -> None:
        await echo(conn.send, conn.recv, message, count, in_flight, self.came)


async def echo(
    send: Callable[[bytes], Awaitable[Any]],
    recv: Callable[[], Awaitable[Any]],
    message: bytes,
    count: int,
    in_flight: int,
    came: list[float],
) -> None:
    for _ in range(in_flight):
        await send(message)
    for _ in range(count - in_flight):
        await recv()
        came.append(clock())
        await send(message)
    for _ in range(in_flight):
        await recv()
        came.append(clock())


class PlumewsRecv(Coroutines):
    connects = "plumews:connect"

    async def connect(self, uri: str, pings: float | None) -> Any:
        return await self.function(uri, ssl=self.tls(uri), max_size=MAX_SIZE, ping_interval=pings)


class PlumewsAsyncFor(PlumewsRecv):
    async def echo(self, conn: Any, message: bytes, count: int, in_flight: int) -> None:
        came, to_send = self.came, count - in_flight
        for _ in range(in_flight):
            await conn.send(message)
        async for _ in conn:
            came.append(clock())
            if to_send:
                to_send -= 1
                await conn.send(message)
            elif len(came) == count:
                return


class Websockets(Coroutines):
    connects = "websockets.asyncio.client:connect"

    async def connect(self, uri: str, pings: float | None) -> Any:
        return await self.function(uri, ssl=self.tls(uri), compression=None, max_size=MAX_SIZE, ping_interval=pings)


class PicowsWebsockets(Coroutines):
    connects = "picows.websockets.asyncio.client:connect"

    async def connect(self, uri: str, pings: float | None) -> Any:
        return await self.function(uri, ssl=self.tls(uri), compression=None, max_size=MAX_SIZE, ping_interval=pings)


class Aiohttp(Client):
    connects = "aiohttp:ClientSession"

    session: Any = None

    async def connect(self, uri: str, pings: float | None) -> Any:
        self.session = self.session or self.function()
        return await self.session.ws_connect(uri, ssl=self.tls(uri) or True, max_msg_size=MAX_SIZE, heartbeat=pings)

    async def echo(self, conn: Any, message: bytes, count: int, in_flight: int) -> None:
        await echo(conn.send_bytes, conn.receive_bytes, message, count, in_flight, self.came)


class Blocking(Client):
    """A client without an event loop: the one around it does nothing meanwhile."""

    async def echo(self, conn: Any, message: bytes, count: int, in_flight: int) -> None:
        send, recv, came = conn.send, conn.recv, self.came
        for _ in range(count):
            send(message)
            recv()
            came.append(clock())

    async def close(self, conn: Any) -> None:
        conn.close()


class PlumewsSync(Blocking):
    connects = "plumews.sync:connect"

    async def connect(self, uri: str, pings: float | None) -> Any:
        return self.function(uri, max_size=MAX_SIZE, ping_interval=pings).open()


class WebsocketsSync(Blocking):
    connects = "websockets.sync.client:connect"

    async def connect(self, uri: str, pings: float | None) -> Any:
        return self.function(uri, compression=None, max_size=MAX_SIZE, ping_interval=pings)


class WebsocketClient(Blocking):
    async def connect(self, uri: str, pings: float | None) -> Any:
        from websocket import ABNF, WebSocket

        class Binary(WebSocket):  # type: ignore[misc]
            """``send`` is text as long as nothing else is said."""

            def send(self, payload: bytes) -> int:
                sent: int = super().send(payload, ABNF.OPCODE_BINARY)
                return sent

        conn = Binary()
        conn.connect(uri)
        return conn


class RawBlocking(Blocking):
    """No WebSocket but its handshake: a frame with a mask of zeros, and as many bytes back."""

    async def connect(self, uri: str, pings: float | None) -> Any:
        return RawClient(urlsplit(uri).port or 0)

    async def echo(self, conn: Any, message: bytes, count: int, in_flight: int) -> None:
        sock, sent, size, came = conn.sock, frame(message), len(frame(message, masked=False)), self.came
        sock.settimeout(None)
        for _ in range(count):
            sock.sendall(sent)
            left = size
            while left:
                left -= len(sock.recv(left))
            came.append(clock())


def told(kind: Callable[[], Client]) -> Callable[[int, Ready], Awaitable[None]]:
    """Return what runs a client: it does what it is told at ``port``, and says what came of it."""

    async def run(port: int, ready: Ready) -> None:
        client = kind()
        with socket.create_server((HOST, port)) as listener:
            ready()
            while True:
                sock, _ = listener.accept()
                with sock, sock.makefile() as lines:
                    for line in lines:
                        name, *words = json.loads(line)
                        try:
                            answer = await getattr(client, name)(*words)
                        except Exception as exc:
                            answer = repr(exc)
                        sock.sendall(json.dumps(answer).encode() + b"\n")
                await client.leave()

    return run


plumews_callback = told(PlumewsCallback)
plumews_recv = told(PlumewsRecv)
plumews_async_for = told(PlumewsAsyncFor)
raw = told(Raw)
picows = told(Picows)
picows_without_aiofastnet = told(PicowsWithoutAiofastnet)
picows_websockets = told(PicowsWebsockets)
websockets = told(Websockets)
aiohttp = told(Aiohttp)
plumews_sync = told(PlumewsSync)
websockets_sync = told(WebsocketsSync)
websocket_client = told(WebsocketClient)
raw_blocking = told(RawBlocking)
