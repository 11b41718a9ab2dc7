"""Client that sends a batch of messages, waits for every answer, and only then sends the next batch.

How many messages a server finds in one read depends on nothing but the batch, so each run costs the server the same.
"""

from __future__ import annotations

import base64
import os
import select
import socket
import struct
from dataclasses import dataclass, field

from ..harness.running import HOST, Failed

#: Seconds for one batch; under callgrind a server is some 50 times slower.
PATIENCE = 120.0


def frame(payload: bytes) -> bytes:
    """Return a masked binary message (RFC 6455 section 5.2). A mask of zeros costs the server as much as any other."""
    size = len(payload)
    head = bytes([0x82, 0x80 | size]) if size < 126 else struct.pack("!BBH", 0x82, 0xFE, size)
    return head + bytes(4) + payload


def answer_size(size: int) -> int:
    """The bytes of an unmasked message of ``size`` bytes, up to 64 KiB."""
    return size + (2 if size < 126 else 4)


@dataclass
class Client:
    """One WebSocket connection to a server on this machine."""

    port: int
    path: str
    sock: socket.socket = field(init=False)

    def __post_init__(self) -> None:
        self.sock = socket.create_connection((HOST, self.port), timeout=PATIENCE)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        key = base64.b64encode(os.urandom(16)).decode()
        self.sock.sendall(
            f"GET {self.path} HTTP/1.1\r\nHost: {HOST}:{self.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        head = b""
        while b"\r\n\r\n" not in head:
            data = self.sock.recv(4096)
            if not data:
                raise Failed("the server does not upgrade")
            head += data
        if not head.startswith(b"HTTP/1.1 101"):
            raise Failed(head.decode(errors="replace"))

    def close(self) -> None:
        self.sock.close()


#: A close frame with code 1000, masked with zeros, and its answer.
OUR_CLOSE = b"\x88\x82" + bytes(4) + b"\x03\xe8"
THEIR_CLOSE = b"\x88\x02\x03\xe8"


def connect_and_close(port: int) -> None:
    """Open a connection and close it by the closing handshake. The server ends TCP first (RFC 6455 section 7.1.1)."""
    client = Client(port, "/")
    try:
        client.sock.sendall(OUR_CLOSE)
        answer = b""
        while data := client.sock.recv(64):
            answer += data
        if answer != THEIR_CLOSE:
            raise Failed(f"a wrong end: {answer!r}")
    finally:
        client.close()


def read_all(clients: list[Client], size: int) -> None:
    """Read ``size`` bytes on each connection."""
    left = {client.sock.fileno(): size for client in clients}
    socks = {client.sock.fileno(): client.sock for client in clients}
    poll = select.poll()
    for number in left:
        poll.register(number, select.POLLIN)
    while left:
        ready = poll.poll(PATIENCE * 1000)
        if not ready:
            raise Failed("an answer does not come")
        for number, _ in ready:
            data = socks[number].recv(min(left[number], 1 << 20))
            if not data:
                raise Failed("the server hangs up")
            left[number] -= len(data)
            if not left[number]:
                poll.unregister(number)
                del left[number]
