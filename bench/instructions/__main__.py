"""``python -m bench.instructions``: count user-space instructions a message, and compare with another checkout.

    python -m bench.instructions                       some five minutes; needs valgrind and a C compiler
    python -m bench.instructions --only echo --loop asyncio
    python -m bench.instructions --pure                the plain-Python body
    python -m bench.instructions --against ../before   the same for the src/ of another checkout, and the ratio
    python -m bench.instructions --against ../before --gate 2   exit with 1 if a row is more than 2 % worse

Each row starts a server under callgrind, puts some batches through it that are not counted, and then some that are.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from ..echo.scenarios import ALONE, HUGE, LARGE, MANY_SMALL, SMALL
from ..harness import certificate
from ..harness.running import ROOT, Failed
from .counting import Counted, missing
from .rows import CONNECTS, Driven, broadcast, echo

ECHO, ROOM = "bench.echo.servers", "bench.broadcast.servers"


@dataclass(frozen=True)
class Row:
    """One figure: a server of ours, and how it is driven."""

    name: str
    module: str
    kind: str
    driven: Driven
    tls: bool = False


def both(name: str, driven: Driven, *, tls: bool = False) -> list[Row]:
    """The callback and the coroutine."""
    prefix = "TLS, " if tls else ""
    kinds = {"callback": "plumews_callback", "async for": "plumews_async_for"}
    return [Row(f"{prefix}{name}, {form}", ECHO, kind, driven, tls) for form, kind in kinds.items()]


def room(size: int, members: int, batch: int) -> list[Row]:
    """Members with callbacks, and members with coroutines."""
    text = "1 KiB" if size == 1024 else f"{size} B"
    name, driven = f"broadcast {text} to {members:,}, {batch} in flight", broadcast(size, batch, members)
    kinds = {"": "plumews", ", async for": "plumews_async_for"}
    return [Row(f"{name}{form}", ROOM, kind, driven) for form, kind in kinds.items()]


ROWS: tuple[Row, ...] = (
    *(
        row
        for name, one in (
            ("echo 32 B, 64 in flight", MANY_SMALL),
            ("echo 1 KiB, 16 in flight", SMALL),
            ("echo 32 B, 1 in flight", ALONE),
            ("echo 64 KiB, 4 in flight", LARGE),
            ("echo 1 MiB, 1 in flight", HUGE),
        )
        for row in both(name, echo(one.size, one.in_flight))
    ),
    *both("connect", CONNECTS),
    *room(64, 1000, 1),
    *room(64, 1000, 16),
    *room(1024, 200, 1),
    *(
        row
        for name, one in (
            ("echo 32 B, 1 in flight", ALONE),
            ("echo 1 KiB, 16 in flight", SMALL),
            ("echo 64 KiB, 4 in flight", LARGE),
        )
        for row in both(name, echo(one.size, one.in_flight), tls=True)
    ),
)


def instructions(row: Row, loop: str, source: Path, environment: dict[str, str]) -> float:
    """Return the instructions for one message, or for one delivery of a broadcast, or for one connect.

    Raises:
        Failed: the server does not start or does not answer.
    """
    with Counted(row.module, row.kind, loop, source=source, environment=environment) as server:
        return server.instructions(row.driven, tls=row.tls)


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.instructions", description=__doc__.partition("\n")[0])
    parser.add_argument("--only", metavar="WORDS", default="", help="rows with these words in their name")
    parser.add_argument("--loop", choices=("uvloop", "asyncio"), default="uvloop")
    parser.add_argument("--pure", action="store_true", help="the plain-Python body, with a tenth of the messages")
    parser.add_argument("--against", metavar="CHECKOUT", type=Path, help="another checkout, with its modules compiled")
    parser.add_argument("--gate", metavar="PERCENT", type=float, help="exit with 1 if a row is this much worse")
    return parser.parse_args(words)


def chosen(only: str, *, pure: bool) -> list[Row]:
    """The rows with these words in their name; plain Python needs fewer messages for a steady figure."""
    rows = [row for row in ROWS if only in row.name]
    if pure:
        return [replace(row, driven=replace(row.driven, batches=max(5, row.driven.batches // 10))) for row in rows]
    return rows


def main(words: Sequence[str] | None = None) -> None:
    options = arguments(words)
    if lack := missing():
        sys.exit(lack)
    rows = chosen(options.only, pure=options.pure)
    if not rows:
        sys.exit(f"no row has {options.only!r} in its name: {'; '.join(row.name for row in ROWS)}")
    if not certificate.available() and any(row.tls for row in rows):
        print("rows over TLS are left out: cryptography is not installed", file=sys.stderr)
        rows = [row for row in rows if not row.tls]
    sources = [ROOT / "src", *([options.against.resolve() / "src"] if options.against else [])]
    worse = False
    with tempfile.TemporaryDirectory() as directory, ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        environment = {"PLUMEWS_PURE": "1"} if options.pure else {}
        secured = {**environment, **(certificate.environment(Path(directory)) if any(r.tls for r in rows) else {})}
        counts = [
            [
                pool.submit(instructions, row, options.loop, source, secured if row.tls else environment)
                for source in sources
            ]
            for row in rows
        ]
        for row, found in zip(rows, counts, strict=True):
            try:
                ours, *theirs = (each.result() for each in found)
            except Failed as exc:
                pool.shutdown(cancel_futures=True)
                sys.exit(str(exc))
            line = f"{row.name:50} {ours:12,.1f}"
            if theirs:
                line += f" {theirs[0]:12,.1f} {ours / theirs[0]:7.3f}x"
                worse |= options.gate is not None and ours > theirs[0] * (1 + options.gate / 100)
            print(line, flush=True)
    if worse:
        sys.exit(f"a row is more than {options.gate:g} % worse")


if __name__ == "__main__":
    main()
