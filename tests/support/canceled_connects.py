"""Connects that are canceled at random moments, beside pipes of others.

``python -m support.canceled_connects --count N --loop LOOP``: nothing of ours may stay open, and nothing of others may
be closed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import os
import random
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import plumews
from support.fakes import PATIENCE, echo, tls_contexts, until

#: Connects at a time.
AT_ONCE: Final = 10
#: Most seconds until one is canceled: a TLS handshake beside nine others takes less.
LATEST: Final = 0.02


def descriptors() -> set[tuple[int, str]]:
    """Return the open descriptors, and what they are."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.add((int(entry.name), str(entry.readlink())))
    return found


@contextlib.contextmanager
def pipes(count: int = 20) -> Iterator[list[tuple[int, int]]]:
    """Open pipes that are still open and empty at the end."""
    ends = [os.pipe() for _ in range(count)]
    try:
        yield ends
        for reading, writing in ends:
            os.write(writing, b"x")
            assert os.read(reading, 10) == b"x"
    finally:
        for pair in ends:
            for fd in pair:
                os.close(fd)


async def cancel_after(moment: Callable[[], Awaitable[object]], opening: plumews.connect) -> bool:
    """Cancel an attempt once ``moment()`` has passed. Return True if it had a connection, which is closed."""
    task = asyncio.ensure_future(opening.__aenter__())
    await moment()
    task.cancel()
    try:
        conn = await asyncio.wait_for(task, PATIENCE)
    except asyncio.CancelledError:
        return False
    conn.abort()
    return True


async def cancel_connects(count: int, seed: int) -> int:
    """Cancel ``count`` connects, and check what is open. Return the number of those that were open before."""
    chance = random.Random(seed)
    ours, theirs = tls_contexts()
    opened = 0
    async with (
        plumews.serve(echo, "127.0.0.1", 0) as plain,
        plumews.serve(echo, "127.0.0.1", 0, ssl=ours) as secure,
    ):
        ways: list[tuple[str, dict[str, Any]]] = [
            (f"ws://127.0.0.1:{plain.port}/", {}),
            (f"wss://localhost:{secure.port}/", {"ssl": theirs}),
        ]

        async def one() -> bool:
            uri, options = chance.choice(ways)
            seconds = chance.random() ** 3 * LATEST
            return await cancel_after(
                lambda: asyncio.sleep(seconds), plumews.connect(uri, **options)
            )  # no event: any moment

        for uri, options in ways:  # what is made once is made
            async with plumews.connect(uri, **options):
                pass
        await until(lambda: not plain.connections and not secure.connections)
        before = descriptors()
        with pipes():
            for _ in range(count // AT_ONCE):
                opened += sum(await asyncio.gather(*(one() for _ in range(AT_ONCE))))
                with contextlib.suppress(OSError):
                    os.close(os.dup(0))  # the next number is that of another
            await until(lambda: not plain.connections and not secure.connections)
        await until(lambda: descriptors() == before)
    return opened


def main() -> None:
    parser = argparse.ArgumentParser(prog="cancel-connects", description="Cancel connects at random moments.")
    parser.add_argument("--count", type=int, default=20_000, help="connects (default %(default)s)")
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="uvloop")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    options = parser.parse_args()
    run, version = asyncio.run, sys.version.split()[0]
    if options.loop == "uvloop":
        uvloop = importlib.import_module("uvloop")
        run, version = uvloop.run, uvloop.__version__
    sys.stdout.write(f"{options.loop} {version}, {plumews.BODY}, --seed {options.seed}\n")
    began = time.monotonic()
    opened = run(cancel_connects(options.count, options.seed))
    seconds = time.monotonic() - began
    sys.stdout.write(
        f"  {options.count} connects, {opened} open when they were canceled, {seconds:.0f} s: nothing stays\n"
    )


if __name__ == "__main__":
    main()
