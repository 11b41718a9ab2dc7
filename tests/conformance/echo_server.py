"""An echo server for conformance suites: it says back each message as it came, text as text, binary as binary.

    python echo_server.py PORT [--reading iterate|callback|stream] [--loop asyncio|uvloop]

The three ways to read a connection must conform alike, on both loops and with both bodies of the codec
(``PLUMEWS_PURE=1`` takes the plain one). PORT 0 is a free one; it is said. Runs until it is interrupted.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from typing import Any

import plumews


def _deflate(bits: int, *, takeover: bool) -> plumews.Deflate:
    return plumews.Deflate(
        server_window_bits=bits,
        client_window_bits=bits,
        server_takeover=takeover,
        client_takeover=takeover,
        min_size=0,
    )


async def iterate(conn: plumews.Conn) -> None:
    """Whole messages, one after another."""
    async for message in conn:
        await conn.send(message)


def callback(conn: plumews.Conn, message: str | bytes) -> None:
    """Whole messages, straight from the parser."""
    conn.send_nowait(message)


async def stream(conn: plumews.Conn) -> None:
    """Messages in the pieces in which they arrive."""
    while True:
        async with await conn.read_stream() as message:
            await conn.write_message(message.opcode, await message.read_all())


#: Each way to read goes with another way to compress, so that all of them are tried; short messages, too.
READING: dict[str, dict[str, Any]] = {
    "iterate": {"handler": iterate, "compression": _deflate(15, takeover=True)},
    "callback": {"on_message": callback, "compression": _deflate(12, takeover=False)},
    "stream": {"handler": stream, "compression": _deflate(12, takeover=True)},
}


async def main(port: int, reading: str) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, stop.set)
    async with plumews.serve(host="127.0.0.1", port=port, **READING[reading]) as server:
        sys.stdout.write(
            f"plumews {plumews.__version__}, codec {plumews.BODY}, {type(loop).__module__} {reading}: "
            f"port {server.port}\n"
        )
        sys.stdout.flush()
        await stop.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="An echo server for conformance suites.")
    parser.add_argument("port", type=int)
    parser.add_argument("--reading", choices=sorted(READING), default="iterate")
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="asyncio")
    options = parser.parse_args()
    if options.loop == "uvloop":
        import uvloop

        uvloop.run(main(options.port, options.reading))
    else:
        asyncio.run(main(options.port, options.reading))
