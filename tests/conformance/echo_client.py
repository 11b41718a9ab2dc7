"""An echo client for conformance suites: it says back each message that a fuzzing server sends, case after case.

    python echo_client.py PORT

plumews has no client of its own: this one is a socket around what a client needs of it, the parser and the frames on
a client's side. PORT is that of `wstest -m fuzzingserver`, on 127.0.0.1. ``PLUMEWS_PURE=1`` takes the plain codec.
"""

from __future__ import annotations

import argparse
import base64
import os
import socket
import sys
from collections.abc import Iterator
from typing import Any

import plumews
from plumews import codec
from plumews.constants import Opcode
from plumews.handshake import accept_key

AGENT = "plumews"

#: Seconds in which a server says something, or goes.
PATIENCE = 60


class Client:
    """One connection, from the request to the end."""

    def __init__(self, port: int, target: str) -> None:
        self.parser = codec.Parser(client=True, max_size=None)
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self.rest = self._shake_hands(port, target)
        except BaseException:
            self.socket.close()
            raise

    def _shake_hands(self, port: int, target: str) -> bytes:
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [
            f"GET {target} HTTP/1.1",
            f"Host: 127.0.0.1:{port}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {key}",
            "Sec-WebSocket-Version: 13",
        ]
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode())
        head = b""
        while b"\r\n\r\n" not in head:
            data = self.socket.recv(65536)
            if not data:
                raise ConnectionError("the server ended the opening handshake")
            head += data
        head, _, rest = head.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 101 ") or accept_key(key).encode() not in head:
            raise ConnectionError(f"the server did not accept: {head[:200]!r}")
        return rest

    def messages(self) -> Iterator[tuple[int, Any]]:
        """What the server says, to the end; pings and the closing are answered here."""
        with self.socket:
            data = self.rest
            try:
                while True:
                    for kind, payload in self.parser.feed(data):
                        if kind == Opcode.PING:
                            self.send(Opcode.PONG, payload)
                        elif kind == Opcode.CLOSE:
                            code, _ = payload
                            self.send(Opcode.CLOSE, b"" if code == 1005 else code.to_bytes(2, "big"))
                        elif kind != Opcode.PONG:
                            yield kind, payload
                    if self.parser.error is not None:
                        self.send(Opcode.CLOSE, self.parser.error.close_code.to_bytes(2, "big"))
                        self.socket.shutdown(socket.SHUT_WR)
                        while self.socket.recv(65536):
                            pass
                        return
                    data = self.socket.recv(65536)
                    if not data:
                        return
            except (BrokenPipeError, ConnectionResetError):
                return  # some cases end that way

    def send(self, opcode: int, payload: Any) -> None:
        """A message, or a control frame."""
        self.socket.sendall(codec.build_frame(opcode, payload, masked=True))


def main(port: int) -> None:
    [count] = [int(payload) for _, payload in Client(port, "/getCaseCount").messages()]
    for case in range(1, count + 1):
        client = Client(port, f"/runCase?case={case}&agent={AGENT}")
        for kind, payload in client.messages():
            client.send(kind, payload)
    for _ in Client(port, f"/updateReports?agent={AGENT}").messages():
        pass
    sys.stdout.write(f"plumews {plumews.__version__}, codec {plumews.BODY}, client: {count} cases\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="An echo client for conformance suites.")
    parser.add_argument("port", type=int)
    main(parser.parse_args().port)
