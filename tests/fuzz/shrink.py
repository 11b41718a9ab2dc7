"""Makes a finding smaller: ``python -m fuzz.shrink reading FILE`` (in tests/) rewrites FILE while it still fails.

Takes out ever shorter runs of bytes, then sets single ones to zero, as long as the same kind of error is raised.
Ends with the traceback of what is left, which is how a finding is read.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from . import TARGETS


def failure(target: Callable[[bytes], None], data: bytes) -> Exception | None:
    """Return the text of the exception that ``target`` raises for ``data``."""
    try:
        target(data)
    except Exception as exc:
        return exc
    return None


def smaller(data: bytes) -> Iterator[bytes]:
    """Yield smaller variants of ``data``, the boldest first."""
    size = len(data)
    while size:
        yield from (data[:at] + data[at + size :] for at in range(0, len(data), size))
        size //= 2
    yield from (data[:at] + b"\0" + data[at + 1 :] for at in range(len(data)) if data[at])


def shrink(target: Callable[[bytes], None], data: bytes) -> bytes:
    """The smallest input that could be found of those that raise what ``data`` raises."""
    kind = type(failure(target, data))
    while True:
        for attempt in smaller(data):
            if type(failure(target, attempt)) is kind:
                data = attempt
                break
        else:
            return data


if __name__ == "__main__":
    chosen, path = TARGETS[sys.argv[1]], Path(sys.argv[2])
    found = path.read_bytes()
    if failure(chosen, found) is None:
        sys.stdout.write(f"{path}: {len(found)} bytes, no failure\n")
    else:
        found = shrink(chosen, found)
        path.write_bytes(found)
        traceback.print_exception(failure(chosen, found))
        sys.stdout.write(f"{path}: {len(found)} bytes: {found.hex()}\n")
