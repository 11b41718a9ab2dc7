"""Our servers of the other benchmarks, without time slices: under callgrind a slice would end after a few members.

Where a slice ends decides how many messages leave in one write, and so the count would depend on the machine.
"""

from __future__ import annotations

from ..broadcast import servers as room
from ..echo import servers as echo
from ..harness.listening import Ready


def without_slices() -> None:
    from plumews import limits

    limits.FAN_OUT_SLICE = 3600.0  # type: ignore[misc]  # seconds


async def callback(port: int, ready: Ready) -> None:
    """Echo from a callback."""
    without_slices()
    await echo.plumews_callback(port, ready)


async def async_for(port: int, ready: Ready) -> None:
    """Echo from a coroutine."""
    without_slices()
    await echo.plumews_async_for(port, ready)


async def hub(port: int, ready: Ready) -> None:
    """One room of a hub."""
    without_slices()
    await room.plumews(port, ready)
