"""An echo client for the fuzzing server of a conformance suite: `plumews.connect`, as a program would use it.

    python echo_client.py PORT [--loop asyncio|uvloop]

It runs every case that the server has, and has the server write its reports. ``PLUMEWS_PURE=1`` takes the plain body
of the codec.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

import plumews

#: Takeover and the largest window in both directions; short messages are compressed, too.
DEFLATE = plumews.Deflate(
    server_window_bits=15, client_window_bits=15, server_takeover=True, client_takeover=True, min_size=0
)


async def echo(uri: str) -> None:
    """Send each message back, until the server or an error ends the connection."""
    try:
        async with plumews.connect(uri, compression=DEFLATE, proxy=None, max_size=32 * 1024 * 1024) as conn:
            async for message in conn:
                await conn.send(message)
    except plumews.ConnectionClosed:
        pass  # many cases end a connection by a violation


async def main(port: int) -> None:
    base = f"ws://127.0.0.1:{port}"
    async with plumews.connect(f"{base}/getCaseCount", proxy=None) as conn:
        count = int(await conn.recv())
    for number in range(1, count + 1):
        await echo(f"{base}/runCase?case={number}&agent=plumews")
    await echo(f"{base}/updateReports?agent=plumews")
    loop = type(asyncio.get_running_loop()).__module__
    sys.stdout.write(f"plumews {plumews.__version__}, codec {plumews.BODY}, {loop} client: {count} cases\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="An echo client for the fuzzing server of a conformance suite.")
    parser.add_argument("port", type=int)
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="asyncio")
    options = parser.parse_args()
    if options.loop == "uvloop":
        import uvloop

        uvloop.run(main(options.port))
    else:
        asyncio.run(main(options.port))
