"""picows driven by hand: its two public doors, on a loop that opens no socket.

``ws_create_server`` and ``ws_connect`` hand a protocol factory to the event loop; the loop here keeps it, and what a
transport would do is done by :class:`Picows`: bytes go in by ``get_buffer`` and ``buffer_updated``. Frames come out
through a transport that says it is congested: otherwise picows pays the system call inside ``send``.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
import re
import socket
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import picows

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_REQUEST = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
_RESPONSE = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
_ROOM = 4 * 1024 * 1024  # what is fed at once always fits


class _Keeper(picows.WSListener):
    """Keeps what arrives; the subclasses say as what."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[bytes | str] = []
        self.keep = self.messages.append
        self.transport: Any = None

    def on_ws_connected(self, transport: Any) -> None:
        self.transport = transport


class _Bytes(_Keeper):
    def on_ws_frame(self, transport: Any, frame: Any) -> None:
        self.keep(frame.get_payload_as_bytes())


class _Text(_Keeper):
    def on_ws_frame(self, transport: Any, frame: Any) -> None:
        self.keep(frame.get_payload_as_utf8_text())


class _Loop(asyncio.SelectorEventLoop):
    """Builds protocols and connects them to nothing."""

    protocol: Any

    def __init__(self, transport: Any) -> None:
        super().__init__()
        self.transport = transport

    async def create_server(  # type: ignore[override]
        self, factory: Callable[[], Any], *args: Any, **options: Any
    ) -> Any:
        self.protocol = factory()
        self.protocol.connection_made(self.transport)
        _receive(self.protocol, _REQUEST)

    async def create_connection(  # type: ignore[override]
        self, factory: Callable[[], Any], *args: Any, **options: Any
    ) -> Any:
        self.protocol = factory()
        self.protocol.connection_made(self.transport)
        key = re.search(rb"Key: (.*)\r\n", self.transport.sent.pop())
        assert key is not None
        accept = base64.b64encode(hashlib.sha1(key[1] + _GUID).digest())
        _receive(self.protocol, _RESPONSE + accept + b"\r\n\r\n")
        return self.transport, self.protocol


def _receive(protocol: Any, data: bytes) -> None:
    size = len(data)
    protocol.get_buffer(size)[:size] = data
    protocol.buffer_updated(size)


class Picows:
    """One connection, of the server or the client."""

    def __init__(self, *, text: bool = False, client: bool = False) -> None:
        sent: deque[bytes] = deque(maxlen=1)
        congested = itertools.repeat(1).__next__
        transport = SimpleNamespace(
            sent=sent,
            write=sent.append,
            writelines=sent.extend,
            get_write_buffer_size=congested,
            get_extra_info={"socket": socket.socket()}.get,
        )
        self.sent = sent
        self._listener = _Text() if text else _Bytes()
        loop = _Loop(transport)
        options: dict[str, Any] = {
            "use_aiofastnet": False,
            "websocket_handshake_timeout": None,
            "read_buffer_init_size": _ROOM,
        }
        if client:
            loop.run_until_complete(picows.ws_connect(lambda: self._listener, "ws://localhost/", **options))
        else:
            loop.run_until_complete(picows.ws_create_server(lambda request: self._listener, **options))
        self._loop = loop  # stays open: its end would be the end of the connection
        self._get_buffer = loop.protocol.get_buffer
        self._buffer_updated = loop.protocol.buffer_updated
        self.send = self._listener.transport.send

    def feed(self, data: bytes) -> list[bytes | str]:
        """The messages that ``data`` completes, with the copy into picows's buffer."""
        messages = self._listener.messages
        messages.clear()
        size = len(data)
        self._get_buffer(size)[:size] = data
        self._buffer_updated(size)
        return messages

    def place(self, data: bytes) -> None:
        """Put ``data`` where the next bytes are expected, and say nothing."""
        self._get_buffer(len(data))[: len(data)] = data

    def announce(self, sizes: list[int]) -> list[bytes | str]:
        """The messages in what was placed, announced in these steps."""
        messages = self._listener.messages
        messages.clear()
        updated = self._buffer_updated
        for size in sizes:
            updated(size)
        return messages
