"""Client that sends a batch of messages, waits for every answer, and only then sends the next batch.

How many messages a server finds in one read depends on nothing but the batch, as long as a batch fits into one read of
the server. So each run costs the server the same.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct

from ..harness.running import HOST, Failed

#: Seconds for one batch; under callgrind a server is some 50 times slower.
PATIENCE = 120.0
READ_SIZE = 1 << 20
#: A masked close frame with code 1000, and its answer.
CLOSE, CLOSED = b"\x88\x82" + bytes(4) + b"\x03\xe8", b"\x88\x02\x03\xe8"
RESET = struct.pack("ii", 1, 0)


def frame(payload: bytes, *, masked: bool = True) -> bytes:
    """Return a binary message (RFC 6455 section 5.2). A mask of zeros costs the server as much as any other."""
    size, mask = len(payload), 0x80 if masked else 0
    if size < 126:
        head = bytes([0x82, mask | size])
    elif size < 1 << 16:
        head = struct.pack("!BBH", 0x82, mask | 126, size)
    else:
        head = struct.pack("!BBQ", 0x82, mask | 127, size)
    return head + bytes(4 if masked else 0) + payload


class Messages:
    """Count of the complete messages in a stream of unmasked frames. A message may come in fragments."""

    def __init__(self) -> None:
        self._waiting = bytearray()
        self._inside = self._ends = False
        self._left = 0

    def feed(self, data: bytes) -> int:
        """Return the number of messages that ``data`` completes; control frames are no messages."""
        complete, waiting = 0, self._waiting
        waiting += data
        while self._inside or self._take_head():
            part = min(self._left, len(waiting))
            del waiting[:part]
            self._left -= part
            if self._left:
                break
            self._inside = False
            complete += self._ends
        return complete

    def _take_head(self) -> bool:
        """Take the header of a frame, if all of it is there."""
        waiting = self._waiting
        short = waiting[1] & 0x7F if len(waiting) > 1 else 0
        size = 2 if short < 126 else 4 if short == 126 else 10
        if len(waiting) < size:
            return False
        self._left = short if size == 2 else int.from_bytes(waiting[2:size], "big")
        self._ends = waiting[0] & 0x88 == 0x80
        self._inside = True
        del waiting[:size]
        return True


class Bytes:
    """Count of messages that come back as they were sent, ``size`` bytes each."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._got = 0

    def feed(self, data: bytes) -> int:
        """Return the number of messages that ``data`` completes."""
        before = self._got // self._size
        self._got += len(data)
        return self._got // self._size - before


class Client:
    """One connection to a server on this machine.

    Args:
        port: of the server.
        path: that is asked for.
        tls: talk TLS; the certificate is not checked.
        raw: the server sends back even the request.
        offer: of extensions.
    """

    def __init__(
        self, port: int, path: str = "/", *, tls: bool = False, raw: bool = False, offer: str | None = None
    ) -> None:
        self.sock = socket.create_connection((HOST, port), timeout=PATIENCE)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            self.sock = context.wrap_socket(self.sock)
        try:
            self._upgrade(f"GET {path} HTTP/1.1", offer, raw=raw)
        except BaseException:
            self.close()
            raise

    def _upgrade(self, line: str, offer: str | None, *, raw: bool) -> None:
        extensions = f"Sec-WebSocket-Extensions: {offer}\r\n" if offer else ""
        self.sock.sendall(
            f"{line}\r\nHost: {HOST}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            f"{extensions}\r\n".encode()
        )
        head = b""
        while b"\r\n\r\n" not in head:
            head += self._receive()
        if not raw and not head.startswith(b"HTTP/1.1 101"):
            raise Failed(f"the server does not upgrade: {head.decode(errors='replace')}")

    def _receive(self) -> bytes:
        try:
            data = self.sock.recv(READ_SIZE)
        except TimeoutError:
            raise Failed("an answer does not come") from None
        if not data:
            raise Failed("the server hangs up")
        return data

    def read(self, stream: Messages | Bytes, count: int) -> None:
        """Read until ``stream`` has had ``count`` messages.

        Raises:
            Failed: they do not come, or more do.
        """
        while count > 0:
            count -= stream.feed(self._receive())
        if count:
            raise Failed("more answers than messages")

    def say_goodbye(self, *, raw: bool = False) -> None:
        """Close from this side, and wait until the server has closed, too."""
        got = b""
        if raw:
            self.sock.shutdown(socket.SHUT_WR)
        else:
            self.sock.sendall(CLOSE)
        with contextlib.suppress(Failed):
            while True:
                got += self._receive()
        self.close()
        if got != (b"" if raw else CLOSED):
            raise Failed(f"a wrong close: {got!r}")

    def close(self) -> None:
        """Reset the connection, so that no port stays in TIME_WAIT."""
        with contextlib.suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.sock.close()
