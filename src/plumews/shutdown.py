"""Closing many connections at once, in bounded time (layer 4).

Every one gets its close frame behind what was queued for it; who has not answered at the deadline is cut, and so
is who has not within its own close timeout.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from .conn import Conn
from .constants import CloseCode
from .reports import ShutdownReport

__all__ = ["close_all"]


async def close_all(
    conns: Iterable[Conn], *, deadline: float, restart: bool = False, reason: str = ""
) -> ShutdownReport:
    """Close ``conns`` with 1001, or 1012 if ``restart``; ``deadline`` is a time of the loop's clock."""
    loop = asyncio.get_running_loop()
    code = CloseCode.SERVICE_RESTART if restart else CloseCode.GOING_AWAY
    conns = list(conns)
    for conn in conns:
        conn.close_nowait(code, reason)
    ends = {loop.create_task(conn.wait_closed()): conn for conn in conns}
    if not ends:
        return ShutdownReport()
    _, late = await asyncio.wait(ends, timeout=max(0.0, deadline - loop.time()))
    lost = 0
    for task in late:
        lost += ends[task].queued_messages
        ends[task].abort()
    if late:
        await asyncio.wait(late)
    aborted = sum(conn.close_code == CloseCode.ABNORMAL_CLOSURE for conn in conns)
    return ShutdownReport(closed=len(conns) - aborted, aborted=aborted, lost_messages=lost)
