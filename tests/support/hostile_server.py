"""A server that says exactly what a test tells it to, right or wrong."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from plumews.http11.websocket_key import accept_value

__all__ = ["Peer", "answer_to", "hostile"]


class Peer:
    """One client of a hostile server, whose request was read."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
        self.reader = reader
        self.writer = writer
        self.request = request

    def header(self, name: str) -> str:
        """Return the value of a header of the request, empty without one."""
        for line in self.request.decode("latin-1").split("\r\n"):
            key, _, value = line.partition(": ")
            if key.lower() == name.lower():
                return value
        return ""

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def accept(self, *lines: str, behind: bytes = b"") -> None:
        """Accept the request, with more header lines, and bytes glued to the 101."""
        self.send(answer_to(self.header("Sec-WebSocket-Key"), *lines) + behind)

    async def gone(self) -> bytes:
        """Return what the client sends until it is gone."""
        data = b""
        with contextlib.suppress(ConnectionError):
            while piece := await self.reader.read(65536):
                data += piece
        return data


def answer_to(key: str, *lines: str) -> bytes:
    """Return a 101 for ``key``."""
    head = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]
    head += [f"Sec-WebSocket-Accept: {accept_value(key).decode()}", *lines]
    return ("\r\n".join(head) + "\r\n\r\n").encode("latin-1")


@contextlib.asynccontextmanager
async def hostile(play: Callable[[Peer], Awaitable[Any]], *, read_request: bool = True) -> AsyncIterator[str]:
    """Run a server that calls ``play(peer)`` for each client. Yield its URI. At the end all clients must be gone."""
    tasks: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            request = await reader.readuntil(b"\r\n\r\n") if read_request else b""
            await play(Peer(reader, writer, request))
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            tasks.discard(task)
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        if tasks:  # the client has to be gone
            _, left = await asyncio.wait(tasks, timeout=5)
            assert not left, "a client is still connected"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
