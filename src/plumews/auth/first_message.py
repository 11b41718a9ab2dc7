"""Authentication by the first message: what a page does, which can set no headers (layer 5).

The connection is open, but nobody is in yet: the message is short, it comes before the open timeout ends, and what
speaks against it is told by a close code. A page sees no status.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from .. import limits
from ..conn.connection import Conn
from ..conn.handlers import is_stopped
from ..conn.logs import log_context
from ..constants import CloseCode, ErrorCode
from ..counters import RequestCounters
from ..errors import ConnectionClosed, InvalidHandshake, Refused
from .credentials import Credentials, credentials_of_message
from .token_refresh import answered, entered, log_refusal, refuse

__all__ = ["admit_by_message"]

logger = logging.getLogger("plumews.server")

Check = Callable[[Conn, Credentials], Awaitable[None]]
LetIn = Callable[[Conn], "Coroutine[Any, Any, None] | None"]


def admit_by_message(
    conn: Conn, deadline: float, tally: RequestCounters, check: Check, let_in: LetIn
) -> Coroutine[Any, Any, None]:
    """Wait for the first message of ``conn``, ``check`` what it says, and then ``let_in``.

    ``deadline`` is a time of the loop's clock. ``check`` raises :class:`InvalidHandshake`, which becomes a close code;
    what ``let_in`` returns runs in the same task. Takes effect at once: the first message may be short, and be there.
    """
    limit = conn.read_limit
    conn.read_limit = limits.HEAD_SIZE if limit is None else min(limit, limits.HEAD_SIZE)
    return _admit(conn, limit, deadline, tally, check, let_in)


async def _admit(
    conn: Conn, limit: int | None, deadline: float, tally: RequestCounters, check: Check, let_in: LetIn
) -> None:
    checking = asyncio.ensure_future(_check_message(conn, check))
    try:
        await answered(conn, checking, deadline - conn._loop.time())
    except asyncio.TimeoutError:
        tally.refused.add(ErrorCode.HANDSHAKE_TIMEOUT.value)
        log_refusal(conn, CloseCode.AUTH_TIMEOUT, ErrorCode.HANDSHAKE_TIMEOUT)
        conn.close_nowait(CloseCode.AUTH_TIMEOUT, "authentication took too long")
    except InvalidHandshake as exc:
        refuse(conn, exc, tally)
    except ConnectionClosed:
        pass  # nobody is there any more
    except (Exception, asyncio.CancelledError) as exc:
        if isinstance(exc, asyncio.CancelledError):
            if is_stopped():
                raise
            if conn.closed:
                return  # nobody is there any more
        logger.exception("authenticating a connection failed", extra=log_context(conn))
        conn.close_nowait(CloseCode.INTERNAL_ERROR, "authentication failed")
    else:
        conn.read_limit = limit
        entered(conn)
        work = let_in(conn)
        if work is not None:
            await work


async def _check_message(conn: Conn, check: Check) -> None:
    credentials = credentials_of_message(await conn.recv())
    if credentials is None:
        raise Refused('the first message must be {"type": "auth", "password": ..., "token": ...}')
    await check(conn, credentials)
