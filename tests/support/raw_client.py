"""A client that says exactly what a test tells it to, right or wrong, byte by byte if need be.

It speaks raw TCP (or TLS, or a Unix socket) so that a test can break the protocol, stop reading, or vanish.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import socket
import ssl
import sys
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

from plumews.constants import Opcode
from plumews.protocol.codec import Parser, build_frame

KEY = base64.b64encode(bytes(range(16))).decode()


@contextlib.contextmanager
def kept_port() -> Iterator[int]:
    """A free port on the loopback that nobody else gets while a test stops a server there and starts another.

    The socket that holds it does not listen, so that connections are refused, and servers may listen beside it: they
    set SO_REUSEADDR, and so does it. MissingAttribute than on Linux that may mean something else, and luck has to do.
    """
    with socket.socket() as sock:
        if sys.platform == "linux":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        if sys.platform != "linux":
            sock.close()
        yield port


def upgrade(path: str = "/", *lines: str, host: str = "localhost", key: str = KEY) -> bytes:
    """A correct request head, with ``lines`` added."""
    head = [
        f"GET {path} HTTP/1.1",
        f"Host: {host}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key}",
        "Sec-WebSocket-Version: 13",
        *lines,
    ]
    return ("\r\n".join(head) + "\r\n\r\n").encode("latin-1")


def instead(old: bytes, new: bytes) -> bytes:
    """A correct request head with something else in place of ``old``."""
    request = upgrade()
    assert old in request
    return request.replace(old, new)


def masked(opcode: int, payload: bytes | str = b"", *, fin: bool = True) -> bytes:
    """A client's frame."""
    return build_frame(opcode, payload, fin=fin, mask_key=os.urandom(4))


def text(message: str) -> bytes:
    return masked(Opcode.TEXT, message)


def close(code: int | None = 1000, reason: str = "") -> bytes:
    payload = b"" if code is None else code.to_bytes(2, "big") + reason.encode()
    return masked(Opcode.CLOSE, payload)


class Wire:
    """One raw connection. ``await Wire.open(server)`` upgrades it; ``Wire.connect`` only connects."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        self._parser = Parser(client=True, max_size=None)
        self._events: list[tuple[int, Any]] = []

    @classmethod
    async def connect(cls, server: Any, *, rcvbuf: int | None = None, **options: Any) -> Wire:
        """A TCP connection to ``server`` (a plumews.Server); ``rcvbuf`` shrinks what the kernel takes for us."""
        address = server.sockets[0].getsockname()
        if isinstance(address, str):
            return cls(*await asyncio.open_unix_connection(address))
        family = server.sockets[0].family
        sock = socket.socket(family, socket.SOCK_STREAM)
        if rcvbuf is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
            options.setdefault("limit", 1024)  # the StreamReader must not read ahead either
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, address[:2])
        return cls(*await asyncio.open_connection(sock=sock, **options))

    @classmethod
    async def open(cls, server: Any, path: str = "/", *lines: str, **options: Any) -> Wire:
        """An upgraded connection."""
        wire = await cls.connect(server, **options)
        wire.writer.write(upgrade(path, *lines))
        await wire.read_head()
        assert wire.status == 101, (wire.status, await wire.reader.read())
        return wire

    async def read_head(self) -> None:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        self.status = int(head[0].split(" ")[1])
        self.headers = [(line.split(": ", 1)[0].lower(), line.split(": ", 1)[1]) for line in head[1:] if line]

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name.lower()), None)

    async def response(self, request: bytes) -> tuple[int, bytes]:
        """Send ``request``; the status and body of the answer, read to the end of the connection."""
        self.writer.write(request)
        await self.read_head()
        return self.status, await self.reader.read()

    def send(self, *frames: bytes) -> None:
        """Write all ``frames`` at once, so that they arrive in one read."""
        self.writer.write(b"".join(frames))

    async def event(self) -> tuple[int, Any]:
        """The next event: (opcode, payload). ``EOFError`` when the server has ended the TCP connection."""
        while not self._events:
            data = await self.reader.read(65536)
            if not data:
                raise EOFError
            self._events += self._parser.feed(data)
            assert self._parser.error is None, self._parser.error
        return self._events.pop(0)

    async def message(self) -> str | bytes:
        """The next event, which must be a message. Pings before it are answered."""
        kind, payload = await self.event()
        while kind == Opcode.PING:
            self.send(masked(Opcode.PONG, payload))
            kind, payload = await self.event()
        assert kind in (Opcode.TEXT, Opcode.BINARY), (kind, payload)
        result: str | bytes = payload
        return result

    async def closing(self) -> tuple[int, str]:
        """The server's close frame, after whatever else it sends."""
        while True:
            kind, payload = await self.event()
            if kind == Opcode.CLOSE:
                code, reason = payload
                return code, reason

    async def eof(self) -> None:
        """Wait until the server has ended the TCP connection."""
        with contextlib.suppress(ConnectionError, EOFError):
            while True:
                await self.event()

    def reset(self) -> None:
        """Vanish with a TCP reset."""
        sock = self.writer.get_extra_info("socket")
        if sock is None:  # the peer of a TLS connection has ended it
            return
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        self.writer.transport.abort()

    async def __aenter__(self) -> Wire:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.writer.close()
        # Python 3.10 never tells of the end of a TLS connection that was cut.
        try:
            await asyncio.wait_for(self.writer.wait_closed(), 5)
        except asyncio.TimeoutError:
            self.writer.transport.abort()
        except Exception:  # how it ended is for the test to ask
            pass


class SmallReads(Wire):
    """A client on TCP, TLS or a Unix socket that reads 4 KiB at a time, and nothing ahead of that."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._tls: ssl.SSLObject | None = None
        self._encrypted, self._to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._parser = Parser(client=True, max_size=None)
        self._events: list[tuple[int, Any]] = []

    @classmethod
    async def upgraded(cls, server: Any, context: ssl.SSLContext | None = None) -> SmallReads:
        loop, there = asyncio.get_running_loop(), server.sockets[0]
        sock = socket.socket(there.family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        sock.setblocking(False)
        await loop.sock_connect(sock, there.getsockname())
        wire = cls(sock)
        if context is not None:
            wire._tls = context.wrap_bio(wire._encrypted, wire._to_send, server_hostname="localhost")
            await wire._decrypted(wire._tls.do_handshake)
        wire.send(upgrade())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += await wire._receive(1)
        return wire

    async def _receive(self, most: int) -> bytes:
        if self._tls is None:
            return await asyncio.get_running_loop().sock_recv(self._sock, most)
        data: bytes = await self._decrypted(self._tls.read, most)
        return data

    async def _decrypted(self, call: Callable[..., Any], *args: Any) -> Any:
        """Return the result of ``call``, which may need more bytes of the peer."""
        while True:
            try:
                return call(*args)
            except ssl.SSLWantReadError:
                pass
            finally:
                self._flush()
            data = await asyncio.get_running_loop().sock_recv(self._sock, 4096)
            if not data:
                raise EOFError
            self._encrypted.write(data)

    async def event(self) -> tuple[int, Any]:
        while not self._events:
            data = await self._receive(4096)
            if not data:
                raise EOFError
            self._events += self._parser.feed(data)
        return self._events.pop(0)

    def send(self, *frames: bytes) -> None:
        data = b"".join(frames)
        if self._tls is not None:
            self._tls.write(data)
            self._flush()
        else:
            self._sock.send(data)

    def _flush(self) -> None:
        if self._to_send.pending:
            self._sock.send(self._to_send.read())

    async def __aexit__(self, *exc: object) -> None:
        self._sock.close()
