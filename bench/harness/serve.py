"""``python -m bench.harness.serve MODULE KIND LOOP PORT CORE``: a contender's server, in a process of its own.

Says "ready" on its standard output when it listens. It stays on the core from then on, not while it imports; ``-`` is
any core. It ends
with the process that has started it, however that one ends, even while it is stopped itself.
"""

from __future__ import annotations

import asyncio
import ctypes
import importlib
import inspect
import os
import resource
import signal
import sys


def new_loop(name: str) -> asyncio.AbstractEventLoop:
    if name == "uvloop":
        import uvloop

        return uvloop.new_event_loop()
    return asyncio.new_event_loop()


def end_with_parent() -> None:
    """Linux: be killed when the parent is gone."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def raise_limit() -> None:
    """As many descriptors as it may have: the usual 1,024 are fewer than the connections."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def without_slices() -> None:
    """Let a fan-out of ours never end its slice: under callgrind, which makes it slow, it would after a few members."""
    from plumews import limits

    limits.FAN_OUT_SLICE = 3600.0  # type: ignore[misc]  # seconds


def main() -> None:
    end_with_parent()
    raise_limit()
    if "BENCH_WITHOUT_SLICES" in os.environ:
        without_slices()
    module, kind, loop_name, port, core = sys.argv[1:]

    def ready() -> None:
        if core != "-":
            os.sched_setaffinity(0, {int(core)})
        print("ready", flush=True)

    serve = getattr(importlib.import_module(module), kind)
    if not inspect.iscoroutinefunction(serve):
        serve(int(port), ready)
        return
    loop = new_loop(loop_name)
    asyncio.set_event_loop(loop)
    loop.run_until_complete(serve(int(port), ready))


if __name__ == "__main__":
    main()
