"""A client of its own process: reads at a rate, answers each ping when it comes to it, and prints what it saw as JSON.

``python -m bench.conflate.client PORT SECONDS RATE``: so many bytes a second, 0 as fast as they come.
"""

from __future__ import annotations

import json
import socket
import statistics
import sys
import time

from plumews.constants import Opcode
from plumews.protocol.codec import Parser, build_frame

REQUEST = (
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def run(port: int, seconds: float, rate: int) -> dict[str, float]:
    sock = socket.socket()
    if rate:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    sock.connect(("127.0.0.1", port))
    sock.sendall(REQUEST)
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += sock.recv(1)
    parser = Parser(client=True, max_size=None)
    ages: list[float] = []
    got = 0
    began, ended = time.monotonic(), 0.0
    sock.settimeout(5)
    while not ended and time.monotonic() - began < seconds:
        try:
            data = sock.recv(1600 if rate else 262144)
        except OSError:
            data = b""
        got += len(data)
        for kind, payload in parser.feed(data):
            if kind == Opcode.TEXT:
                ages.append(time.time() - json.loads(payload)["t"])
            elif kind == Opcode.PING:
                sock.sendall(build_frame(Opcode.PONG, payload, mask_key=b"\0\0\0\0"))
            elif kind == Opcode.CLOSE:
                ended = time.monotonic() - began
        if not data:
            ended = time.monotonic() - began
        if rate and (ahead := got / rate - (time.monotonic() - began)) > 0:
            time.sleep(ahead)
    took = time.monotonic() - began
    late = ages[len(ages) // 5 :] or [0.0]  # without the beginning
    return {
        "median": statistics.median(late),
        "oldest": max(ages, default=0.0),
        "messages": len(ages) / took,
        "rate": got / took,
        "ended": ended,
    }


if __name__ == "__main__":
    print(json.dumps(run(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))))
