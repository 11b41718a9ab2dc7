"""Servers on loopback for clients: one that echoes, and proxies in front of it that keep or break their protocols."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

Handle = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def listening(handle: Handle, path: str | None = None, **options: Any) -> AsyncIterator[int]:
    """Serve on 127.0.0.1, or on a Unix socket, with ``handle``. Yield the port. Connections end with the block."""
    tasks: set[asyncio.Task[None]] = set()

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            with contextlib.suppress(OSError, EOFError, asyncio.CancelledError):
                await handle(reader, writer)
        finally:
            tasks.discard(task)
            writer.transport.abort()

    if path is None:
        server = await asyncio.start_server(run, "127.0.0.1", 0, **options)
    else:
        server = await asyncio.start_unix_server(run, path, **options)
    try:
        yield 0 if path else server.sockets[0].getsockname()[1]
    finally:
        for _ in range(5):  # a server of asyncio forgets what it has accepted, but made no transport for yet
            await asyncio.sleep(0)
        server.close()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back each byte."""
    while data := await reader.read(4096):
        writer.write(data)


async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int, first: bytes) -> None:
    """Connect to the target, confirm with ``first``, and pass on bytes in both directions."""
    theirs, target = await asyncio.open_connection(host, port)
    writer.write(first)

    async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(4096):
                sink.write(data)
        sink.close()

    try:
        await asyncio.gather(copy(reader, target), copy(theirs, writer))
    finally:
        target.transport.abort()


class ConnectProxy:
    """HTTP proxy for CONNECT. Keeps the heads of its requests, and connects to the port of the target on loopback.

    Args:
        reply: Head of the reply that opens the tunnel.
    """

    def __init__(self, reply: bytes = b"HTTP/1.1 200 OK\r\n\r\n") -> None:
        self.heads: list[bytes] = []
        self._reply = reply

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        port = int(head.split()[1].rpartition(b":")[2])
        await relay(reader, writer, "127.0.0.1", port, self._reply)


class SocksProxy:
    """SOCKS proxy, versions 4, 4a and 5, with a password if there is a user. Keeps the hosts that it is asked for."""

    def __init__(self, user: str = "", password: str = "", status: int | None = None) -> None:
        self.hosts: list[str] = []
        self._secret = user, password
        self._status = status

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        version = (await reader.readexactly(1))[0]
        await (self._version_4 if version == 4 else self._version_5)(reader, writer)

    async def _version_4(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readexactly(7)
        port, address = int.from_bytes(head[1:3], "big"), head[3:]
        assert (await reader.readuntil(b"\0"))[:-1].decode() == self._secret[0]
        host = socket.inet_ntoa(address)
        if address[:3] == b"\0\0\0":
            host = (await reader.readuntil(b"\0"))[:-1].decode()
        self.hosts.append(host)
        if self._status is not None:
            writer.write(bytes([0, self._status, *bytes(6)]))
            return
        await relay(reader, writer, "127.0.0.1", port, bytes([0, 90, *bytes(6)]))

    async def _version_5(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        methods = await reader.readexactly((await reader.readexactly(1))[0])
        method = 2 if self._secret[0] else 0
        writer.write(bytes([5, method if method in methods else 255]))
        if method:
            await reader.readexactly(1)
            user = await reader.readexactly((await reader.readexactly(1))[0])
            password = await reader.readexactly((await reader.readexactly(1))[0])
            good = (user.decode(), password.decode()) == self._secret
            writer.write(bytes([1, not good]))
            if not good:
                return
        kind = (await reader.readexactly(4))[3]
        if kind == 3:
            host = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
        else:
            host = str(ipaddress.ip_address(await reader.readexactly(4 if kind == 1 else 16)))
        self.hosts.append(host)
        port = int.from_bytes(await reader.readexactly(2), "big")
        if self._status is not None:
            writer.write(bytes([5, self._status, 0, 1, *bytes(6)]))
            return
        await relay(reader, writer, "127.0.0.1", port, bytes([5, 0, 0, 1, *bytes(6)]))


class Peer(asyncio.BufferedProtocol):
    """Client protocol that keeps what it receives."""

    def __init__(self) -> None:
        self.made = 0
        self.lost = False
        self.received = bytearray()
        self._buffer = memoryview(bytearray(3))
        self._changed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert not self.received
        self.made += 1

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        assert self.made == 1
        self.received += self._buffer[:nbytes]
        self._changed.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._changed.set()

    async def has(self, data: bytes) -> None:
        """Wait until ``data`` has arrived."""
        while bytes(self.received) != data:
            assert data.startswith(bytes(self.received))
            assert not self.lost
            self._changed.clear()
            await self._changed.wait()


def offering(context: ssl.SSLContext, *protocols: str) -> ssl.SSLContext:
    """Let ``context`` offer ``protocols`` by ALPN."""
    context.set_alpn_protocols(list(protocols))
    return context
