"""Protocol above a transport of ours that records what it is told."""

from __future__ import annotations

import asyncio
from typing import Any


class Above(asyncio.BufferedProtocol):
    """Protocol above TLS that records what it is told, with a small buffer."""

    def __init__(self, size: int = 50_000) -> None:
        self.room = bytearray(size)
        self.got = bytearray()
        self.calls: list[Any] = []
        self.lost = asyncio.get_running_loop().create_future()
        self.transport: Any = None
        self.echoes = self.full = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.calls.append("made")

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.room

    def buffer_updated(self, nbytes: int) -> None:
        self.got += self.room[:nbytes]
        if self.echoes:
            self.transport.write(bytes(self.room[:nbytes]))

    def pause_writing(self) -> None:
        self.full = True
        if self.echoes:
            self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.full = False
        if self.echoes:
            self.transport.resume_reading()

    def eof_received(self) -> bool:
        self.calls.append("eof")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.calls.append("lost")
        self.lost.set_result(exc)
