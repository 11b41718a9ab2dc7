"""``python -m bench.door.strangers PORT COUNT``: half-open handshakes, until the standard input ends.

Says "ready" when all are connected. A connection that the server has ended is opened again, so that there are always
as many; each sends a part of a head at once, and a byte of a header once in a while.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import sys
import time

from ..harness.running import HOST
from ..harness.serve import end_with_parent, raise_limit

HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: "
#: Seconds between two bytes of one stranger.
BYTE_EVERY = 9.0
#: So many connections are opened at once: a client would be refused where the backlog is shorter.
AT_ONCE = 200


class Crowd:
    """The strangers of one server."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._selector = selectors.DefaultSelector()
        self._selector.register(sys.stdin, selectors.EVENT_READ)
        self._sockets: set[socket.socket] = set()

    def fill(self, count: int) -> None:
        """Open what is missing."""
        while len(self._sockets) < count:
            for _ in range(min(AT_ONCE, count - len(self._sockets))):
                sock = socket.create_connection((HOST, self._port), timeout=20)
                sock.setblocking(False)
                sock.send(HEAD)
                self._selector.register(sock, selectors.EVENT_READ)
                self._sockets.add(sock)
            if not self.look(0):
                return

    def look(self, timeout: float) -> bool:
        """Let those go whom the server has told off; False when it is over."""
        for key, _ in self._selector.select(timeout):
            if not isinstance(key.fileobj, socket.socket):
                return False
            with contextlib.suppress(OSError):
                if key.fileobj.recv(4096):
                    continue  # the end comes behind the answer
            self._selector.unregister(key.fileobj)
            self._sockets.discard(key.fileobj)
            key.fileobj.close()
        return True

    def trickle(self, part: int, parts: int) -> None:
        """One byte of each stranger in this part of them."""
        for number, sock in enumerate(self._sockets):
            if number % parts == part:
                with contextlib.suppress(OSError):
                    sock.send(b"x")


def main() -> None:
    end_with_parent()
    raise_limit()
    port, count = map(int, sys.argv[1:])
    crowd = Crowd(port)
    crowd.fill(count)
    print("ready", flush=True)
    parts, part = round(BYTE_EVERY / 0.1), 0
    while True:
        until = time.monotonic() + 0.1
        while (left := until - time.monotonic()) > 0:
            if not crowd.look(left):
                return
        part = (part + 1) % parts
        crowd.trickle(part, parts)
        crowd.fill(count)


if __name__ == "__main__":
    main()
