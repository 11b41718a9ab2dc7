"""Checks of a fresh installation, without pytest: each wheel runs them where it was built.

    python tests/smoke.py [--expect compiled|pure]

Imports plumews, names its version and the body of its codec, builds and parses the frames of RFC 6455 section
5.7, and lets a server on the loopback answer a client of a few lines that shares no code with plumews.
Says "ok" and exits with 0, or says what failed and exits with 1.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

import plumews
from plumews.protocol import codec

TIMEOUT = 20.0  # seconds, for all of the round trip

#: The examples of RFC 6455: key and accept (section 1.3), a masked "Hello" (section 5.7).
KEY, ACCEPT = "dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
MASK = bytes.fromhex("37fa213d")
HELLO = bytes.fromhex("8185 37fa213d 7f9f4d5158")


def check(what: str, got: object, wanted: object) -> None:
    """Not ``assert``: this must also hold under ``python -O``."""
    if got != wanted:
        raise SystemExit(f"smoke: {what}: got {got!r}, wanted {wanted!r}")


def masked(payload: bytes, key: bytes = MASK) -> bytes:
    """RFC 6455 section 5.3, word for word, to compare with."""
    return bytes(byte ^ key[index % 4] for index, byte in enumerate(payload))


def check_codec() -> None:
    check("a masked frame", codec.build_frame(1, b"Hello", mask_key=MASK), HELLO)
    check("a plain frame", codec.build_frame(1, b"Hello"), b"\x81\x05Hello")
    check("a parsed frame", codec.Parser(client=False, max_size=100).feed(HELLO), [(1, "Hello")])
    payload = bytes(range(256)) * 300
    check("a long mask", codec.mask(payload, MASK) == masked(payload), True)
    parser = codec.Parser(client=False, max_size=len(payload))
    wire = codec.build_frame(2, payload, mask_key=MASK)
    events = [event for start in range(0, len(wire), 4093) for event in parser.feed(wire[start : start + 4093])]
    check("a long frame in pieces", events == [(2, payload)], True)
    check("a broken frame", (parser.feed(b"\xf1\x80"), parser.error is None), ([], False))


async def echo(conn: plumews.Conn) -> None:
    async for message in conn:
        await conn.send(message)


async def check_round_trip() -> None:
    async with plumews.serve(echo, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        status, *headers = (await reader.readuntil(b"\r\n\r\n")).decode().lower().rstrip().split("\r\n")
        check("the status", status.split(" ")[:2], ["http/1.1", "101"])
        check("the accept header", f"sec-websocket-accept: {ACCEPT}".lower() in headers, True)
        writer.write(HELLO)
        check("the echo", await reader.readexactly(7), b"\x81\x05Hello")
        writer.write(b"\x88\x82" + MASK + masked(b"\x03\xe8"))
        check("the close frame", await reader.readexactly(4), b"\x88\x02\x03\xe8")
        check("the end", await reader.read(), b"")
        writer.close()
        await writer.wait_closed()


def main() -> None:
    options = argparse.ArgumentParser(description="What a fresh installation must be able to do.")
    options.add_argument("--expect", choices=["compiled", "pure"], help="the body of the codec that must be in use")
    expected = options.parse_args().expect
    sys.stdout.write(f"plumews {plumews.__version__}, codec {plumews.BODY}, Python {sys.version.split()[0]}\n")
    check("the body of the codec", plumews.BODY, expected or plumews.BODY)
    check_codec()
    asyncio.run(asyncio.wait_for(check_round_trip(), TIMEOUT))
    sys.stdout.write("ok\n")


if __name__ == "__main__":
    main()
