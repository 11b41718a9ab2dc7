"""``python -m bench.door.comers PORT COUNT ROOM PASSWORD``: so many come into a room as fast as they can, and go.

Says "in" when all are in, and resets their connections when its standard input ends. Ends with an error if one of them
is refused.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys

from ..harness.running import HOST
from ..harness.serve import end_with_parent, raise_limit

#: So many are on their way at once: a client would be refused where the backlog is shorter.
AT_ONCE = 100
RESET = struct.pack("ii", 1, 0)


def request(room: str, password: str) -> bytes:
    return (
        f"GET /ws?room={room} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        f"X-WebSocket-Room-Password: {password}\r\n\r\n"
    ).encode()


def answer(sock: socket.socket) -> bytes:
    """The head of the server's answer."""
    head = b""
    while b"\r\n\r\n" not in head:
        more = sock.recv(4096)
        if not more:
            break
        head += more
    return head


def main() -> None:
    end_with_parent()
    raise_limit()
    port, count, room, password = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
    inside: list[socket.socket] = []
    while len(inside) < count:
        coming = [socket.create_connection((HOST, port), timeout=20) for _ in range(min(AT_ONCE, count - len(inside)))]
        for sock in coming:
            sock.sendall(request(room, password))
        for sock in coming:
            head = answer(sock)
            if not head.startswith(b"HTTP/1.1 101 "):
                sys.exit(f"refused: {head[:100]!r}")
        inside += coming
    print("in", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        sys.stdin.read()
    for sock in inside:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        sock.close()


if __name__ == "__main__":
    main()
