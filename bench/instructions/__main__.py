"""``python -m bench.instructions``: count user-space instructions a message, and compare with another checkout.

    python -m bench.instructions                       some six minutes; needs valgrind
    python -m bench.instructions --only echo --loop asyncio
    python -m bench.instructions --against ../before   the same for the compiled src/ of another checkout, and the ratio
    python -m bench.instructions --against ../before --gate 2   exit with 1 if a row is more than 2 % worse

Each row runs a server twice under callgrind, with few and with many batches; what the many cost more, divided by the
messages (or deliveries, in a broadcast) that they are more, is the figure. System calls count as what calls them.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..harness.running import ROOT, Failed, free_port
from .lockstep import Client, answer_size, connect_and_close, frame, read_all

#: Batches before the count: what is made once, such as buffers and specialised bytecode, is made in them.
FEW = 20


@dataclass(frozen=True)
class Row:
    """One figure. ``members`` is 0 for an echo; ``batches`` are counted, beyond the few."""

    name: str
    kind: str
    size: int
    batch: int
    members: int
    batches: int

    def drive(self, port: int, batches: int) -> None:
        """Put ``batches`` batches through the server and read every answer."""
        readers = [Client(port, "/") for _ in range(max(self.members, 1))]
        sender = Client(port, "/publish") if self.members else readers[0]
        try:
            sent = frame(bytes(self.size)) * self.batch
            for _ in range(batches):
                sender.sock.sendall(sent)
                read_all(readers, answer_size(self.size) * self.batch)
        finally:
            for client in {id(each): each for each in (*readers, sender)}.values():
                client.close()


class ConnectRow(Row):
    """Figure of one connection from its connect to its end: the batches are connections, one after the other."""

    def drive(self, port: int, batches: int) -> None:
        for _ in range(batches):
            connect_and_close(port)


ROWS: tuple[Row, ...] = (
    Row("echo 32 B, 64 in flight, callback", "callback", 32, 64, 0, 300),
    Row("echo 32 B, 1 in flight, callback", "callback", 32, 1, 0, 3000),
    Row("echo 32 B, 64 in flight, async for", "async_for", 32, 64, 0, 300),
    Row("echo 32 B, 1 in flight, async for", "async_for", 32, 1, 0, 3000),
    Row("echo 1 KiB, 64 in flight, callback", "callback", 1024, 64, 0, 100),
    Row("broadcast 64 B to 1,000, 1 in flight", "hub", 64, 1, 1000, 30),
    Row("broadcast 64 B to 1,000, 16 in flight", "hub", 64, 16, 1000, 10),
    Row("broadcast 1 KiB to 200, 1 in flight", "hub", 1024, 1, 200, 100),
    ConnectRow("connect + upgrade + close, callback", "callback", 0, 1, 0, 400),
    ConnectRow("connect + upgrade + close, async for", "async_for", 0, 1, 0, 400),
)


def collected(row: Row, loop: str, source: Path, batches: int) -> int:
    """Return the instructions of a server process that answered ``batches`` batches.

    Raises:
        Failed: it did not start, or did not answer.
    """
    port = free_port()
    with tempfile.TemporaryDirectory() as directory, Path(directory, "errors").open("w+b") as errors:
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={directory}/out"]
        serve = ["-m", "bench.harness.serve", "bench.instructions.servers", row.kind, loop, str(port), "0"]
        process = subprocess.Popen(
            [*command, sys.executable, *serve],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(source), "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"},
            stdout=subprocess.PIPE,
            stderr=errors,
        )
        try:
            assert process.stdout is not None
            if process.stdout.readline() != b"ready\n":
                raise Failed(f"the server of {row.name} does not start: {said(errors)}")
            row.drive(port, batches)
        finally:
            process.terminate()
            process.wait(60)
            process.stdout.close()  # type: ignore[union-attr]
        found = re.search(r"Collected : (\d+)", said(errors))
        if found is None:
            raise Failed(f"callgrind says nothing of {row.name}: {said(errors)}")
        return int(found[1])


def said(errors: object) -> str:
    """Return the end of what a process wrote to its standard error."""
    errors.seek(0)  # type: ignore[attr-defined]
    text: bytes = errors.read()  # type: ignore[attr-defined]
    return text[-2000:].decode(errors="replace")


def instructions(row: Row, loop: str, source: Path) -> float:
    """Return the instructions for one message, or for one delivery of a broadcast."""
    more = collected(row, loop, source, FEW + row.batches) - collected(row, loop, source, FEW)
    return more / (row.batches * row.batch * max(row.members, 1))


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.instructions", description=__doc__.partition("\n")[0])
    parser.add_argument("--only", metavar="WORDS", default="", help="rows with these words in their name")
    parser.add_argument("--loop", choices=("uvloop", "asyncio"), default="uvloop")
    parser.add_argument("--against", metavar="CHECKOUT", type=Path, help="another checkout, with its modules compiled")
    parser.add_argument("--gate", metavar="PERCENT", type=float, help="exit with 1 if a row is this much worse")
    options = parser.parse_args(words)
    if shutil.which("valgrind") is None:
        sys.exit("this needs valgrind")
    rows = [row for row in ROWS if options.only in row.name]
    if not rows:
        sys.exit(f"no row has {options.only!r} in its name: {'; '.join(row.name for row in ROWS)}")
    worse = False
    for row in rows:
        ours = instructions(row, options.loop, ROOT / "src")
        line = f"{row.name:42} {ours:10.1f}"
        if options.against:
            theirs = instructions(row, options.loop, options.against.resolve() / "src")
            line += f" {theirs:10.1f} {ours / theirs:7.3f}x"
            worse |= options.gate is not None and ours > theirs * (1 + options.gate / 100)
        print(line, flush=True)
    if worse:
        sys.exit(f"a row is more than {options.gate:g} % worse")


if __name__ == "__main__":
    main()
